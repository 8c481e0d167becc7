//! Tensors that were popped.

use std::borrow::Cow;
use std::ffi::c_void;
use std::sync::{Arc, Mutex};

use pyo3::prelude::*;

use crate::context::ContextHandle;
use crate::dlpack::{self, Managed};
use crate::elements::{methods_of_elements, Elements, Layout};
use crate::error::{check, closed};
use crate::interpreter::{ended, without_lock};
use crate::streams::{self, raw};
use crate::{ffi, lock};

/// A tensor that was popped: its producer's memory, for as long as this, or anything made of it, is there.
#[pyclass(frozen, module = "gpumailbox")]
pub struct Tensor {
    context: Arc<ContextHandle>,
    stream: usize,
    record: ffi::gmb_tensor,
    lease: Mutex<Option<ffi::gmb_lease>>,
}

impl Tensor {
    pub fn new(
        context: &Arc<ContextHandle>,
        stream: usize,
        record: ffi::gmb_tensor,
        lease: ffi::gmb_lease,
    ) -> Self {
        Self { context: Arc::clone(context), stream, record, lease: Mutex::new(Some(lease)) }
    }

    fn end(&self) {
        let lease = lock(&self.lease).take();
        if let Some(lease) = lease.filter(|_| !ended()) {
            // SAFETY: taken out, so this is the only one.
            without_lock(|| unsafe { ffi::gmb_lease_release(lease) });
        }
    }
}

impl Elements for Tensor {
    type Hold = ffi::gmb_lease;

    fn hold(&self) -> PyResult<ffi::gmb_lease> {
        let lease = *lock(&self.lease);
        lease.ok_or_else(|| closed("the tensor was released: it is its producer's again"))
    }

    fn context(&self) -> &ContextHandle {
        &self.context
    }

    fn stream(&self) -> usize {
        self.stream
    }

    fn device(&self) -> (i32, i32) {
        (self.record.device_type, self.record.device_id)
    }

    fn layout(&self) -> Cow<'_, Layout> {
        let ndim = self.record.ndim.clamp(0, 8) as usize;
        Cow::Owned(Layout {
            address: self.record.address + self.record.byte_offset,
            dtype: self.record.dtype,
            shape: self.record.shape[..ndim].to_vec(),
            strides: self.record.strides[..ndim].to_vec(),
        })
    }

    /// The consumer's stream waits for the producer's, and is waited for before the memory goes back.
    fn lend(&self, lease: &ffi::gmb_lease, stream: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        if !self.context.cuda {
            return Ok(());
        }
        match stream.and_then(|stream| stream.extract::<i64>().ok()) {
            Some(theirs) if theirs > 0 => {
                let theirs = if theirs == 1 { 0 } else { theirs as usize };
                // SAFETY: checked by the library.
                check(unsafe { ffi::gmb_lease_use(*lease, raw(theirs)) })?;
                dlpack::order(&self.context, self.stream, stream)
            }
            _ => Ok(()),
        }
    }

    fn give(&self, lease: &ffi::gmb_lease, versioned: bool) -> PyResult<Managed> {
        let mut at: *mut c_void = std::ptr::null_mut();
        // SAFETY: it writes a managed tensor that is ours then.
        unsafe {
            if versioned {
                check(ffi::gmb_lease_to_dlpack(*lease, &mut at))?;
                return Ok(Managed::Versioned(at.cast()));
            }
            check(ffi::gmb_lease_to_dlpack_legacy(*lease, &mut at))?;
            Ok(Managed::Legacy(at.cast()))
        }
    }
}

methods_of_elements! {
impl Tensor {
    /// The first element's address: the one that was pushed.
    #[getter]
    fn data_ptr(&self) -> u64 {
        self.layout().address
    }

    /// The number that came with it.
    #[getter]
    fn tag(&self) -> u64 {
        self.record.tag
    }

    /// Another stream uses the tensor, too: it is waited for before the producer gets its memory back.
    fn use_on(&self, stream: &Bound<'_, PyAny>) -> PyResult<()> {
        // SAFETY: checked by the library.
        check(unsafe { ffi::gmb_lease_use(self.hold()?, raw(streams::address(stream)?)) })?;
        Ok(())
    }

    /// Lets go of it; what was made of it by from_dlpack keeps the memory. Twice is once.
    fn release(&self) {
        self.end();
    }

    fn __repr__(&self) -> String {
        format!("<gpumailbox.Tensor {}{:?} tag={}>", self.dtype(), self.layout().shape, self.record.tag)
    }
}
}

impl Drop for Tensor {
    fn drop(&mut self) {
        self.end();
    }
}
