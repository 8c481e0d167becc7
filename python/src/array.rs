//! Arrays that the package gives out: records that were popped, or that lie in their mailbox.

use std::borrow::Cow;
use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::Arc;

use pyo3::prelude::*;

use crate::context::ContextHandle;
use crate::dlpack::{self, DLTensor, Legacy, Managed, Versioned};
use crate::dtype::UINT;
use crate::elements::{methods_of_elements, Elements, Layout};
use crate::error::argument;
use crate::ffi::{self, gmb_dtype};
use crate::memory::Memory;
use crate::ring::Lent;
use crate::triple;

/// Who keeps an array's memory.
#[derive(Clone)]
pub enum Keeper {
    Memory(Arc<Memory>),
    /// The mailbox, for records that lie in it.
    Mailbox(Lent),
    /// The triple buffer, for what lies in one of the three.
    Triple(Arc<triple::Core>),
}

/// Elements on the context's device. Give it to `from_dlpack` of any library, or to CuPy and Numba as it is.
#[pyclass(frozen, module = "gpumailbox")]
pub struct Array {
    pub context: Arc<ContextHandle>,
    pub stream: usize,
    pub layout: Layout,
    pub keeper: Keeper,
    pub result: ffi::gmb_result,
    pub headers: Option<(Arc<Memory>, u32)>,
}

/// A managed tensor of ours; `managed` is what the other side sees.
#[repr(C)]
struct Exported<T> {
    managed: T,
    /// What its shape and strides point into.
    _layout: Layout,
    _keeper: Keeper,
}

unsafe extern "C" fn end_versioned(managed: *mut Versioned) {
    // SAFETY: boxed by `export`, and ended once.
    drop(unsafe { Box::from_raw(managed.cast::<Exported<Versioned>>()) });
}

unsafe extern "C" fn end_legacy(managed: *mut Legacy) {
    // SAFETY: as above.
    drop(unsafe { Box::from_raw(managed.cast::<Exported<Legacy>>()) });
}

impl Array {
    fn export<T>(&self, made: impl FnOnce(DLTensor) -> T) -> *mut T {
        let mut layout = self.layout.clone();
        let (device_type, device_id) = self.context.device_type();
        let tensor = DLTensor {
            data: layout.address as *mut c_void,
            device_type,
            device_id,
            ndim: layout.shape.len() as i32,
            dtype: layout.dtype,
            shape: layout.shape.as_mut_ptr(),
            strides: layout.strides.as_mut_ptr(),
            byte_offset: 0,
        };
        let keeper = self.keeper.clone();
        Box::into_raw(Box::new(Exported { managed: made(tensor), _layout: layout, _keeper: keeper })).cast()
    }

    pub fn managed(&self, versioned: bool) -> Managed {
        if versioned {
            return Managed::Versioned(self.export(|tensor| Versioned {
                version: dlpack::VERSION,
                manager_ctx: null_mut(),
                deleter: Some(end_versioned),
                flags: 0,
                tensor,
            }));
        }
        let deleter = Some(end_legacy as unsafe extern "C" fn(*mut Legacy));
        Managed::Legacy(self.export(|tensor| Legacy { tensor, manager_ctx: null_mut(), deleter }))
    }

    /// A word of each record's header, so many bytes from its begin.
    fn header(&self, word: u64) -> PyResult<Array> {
        let Some((headers, count)) = &self.headers else {
            return Err(argument("the headers were not asked for: pop(..., headers=True)"));
        };
        Ok(Array {
            context: Arc::clone(&self.context),
            stream: self.stream,
            layout: Layout {
                address: headers.address + word,
                dtype: gmb_dtype::new(UINT, 32),
                shape: vec![i64::from(*count)],
                strides: vec![4],
            },
            keeper: Keeper::Memory(Arc::clone(headers)),
            result: self.result,
            headers: None,
        })
    }
}

impl Elements for Array {
    type Hold = ();

    fn hold(&self) -> PyResult<()> {
        match &self.keeper {
            Keeper::Mailbox(lent) => lent.check(),
            Keeper::Memory(_) | Keeper::Triple(_) => Ok(()),
        }
    }

    fn context(&self) -> &ContextHandle {
        &self.context
    }

    fn stream(&self) -> usize {
        self.stream
    }

    fn device(&self) -> (i32, i32) {
        self.context.device_type()
    }

    fn layout(&self) -> Cow<'_, Layout> {
        Cow::Borrowed(&self.layout)
    }

    fn lend(&self, (): &(), stream: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        dlpack::order(&self.context, self.stream, stream)?;
        if let Keeper::Memory(memory) = &self.keeper {
            memory.used_by(stream);
        }
        Ok(())
    }

    fn give(&self, (): &(), versioned: bool) -> PyResult<Managed> {
        Ok(self.managed(versioned))
    }
}

methods_of_elements! {
impl Array {
    #[getter]
    fn data_ptr(&self) -> PyResult<u64> {
        self.hold()?;
        Ok(self.layout.address)
    }

    /// Records.
    #[getter]
    fn count(&self) -> u32 {
        self.result.count
    }

    /// Records that were overwritten before this pop came to them.
    #[getter]
    fn lost(&self) -> u64 {
        self.result.lost
    }

    /// Bytes of each record; of `pop(..., headers=True)`.
    #[getter]
    fn lengths(&self) -> PyResult<Array> {
        self.header(8)
    }

    /// Type of each record; of `pop(..., headers=True)`.
    #[getter]
    fn types(&self) -> PyResult<Array> {
        self.header(12)
    }

    fn __len__(&self) -> usize {
        self.layout.shape.first().map_or(0, |&count| count as usize)
    }

    fn __repr__(&self) -> String {
        let (kind, device) = self.context.device_type();
        let place = if kind == dlpack::CUDA { format!("cuda:{device}") } else { "cpu".to_owned() };
        format!("<gpumailbox.Array {}{:?} on {place}>", self.layout.dtype.name(), self.layout.shape)
    }
}
}
