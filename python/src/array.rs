//! Arrays that the package gives out: records that were popped, or that lie in their mailbox.

use std::ffi::c_void;
use std::sync::{Arc, Mutex};

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::context::{ended, Inner};
use crate::dlpack::{self, DLTensor, Legacy, Managed, Versioned};
use crate::error::{argument, check, status};
use crate::ffi::gmb_dtype;
use crate::shared::Lent;
use crate::{ffi, streams::raw};

/// What a record is.
#[derive(Clone)]
pub struct Kind {
    pub dtype: gmb_dtype,
    pub shape: Vec<i64>,
    pub bytes: u32,
}

impl Kind {
    pub fn bytes(bytes: u32) -> Self {
        Self { dtype: gmb_dtype { code: 1, bits: 8, lanes: 1 }, shape: vec![i64::from(bytes)], bytes }
    }

    pub fn of(dtype: &Bound<'_, PyAny>, shape: Vec<i64>) -> PyResult<Self> {
        let dtype = dlpack::dtype(dtype)?;
        let bytes = shape
            .iter()
            .try_fold(
                i64::from(dtype.bits) / 8,
                |all, &size| if size < 0 { None } else { all.checked_mul(size) },
            )
            .and_then(|bytes| u32::try_from(bytes).ok())
            .ok_or_else(|| argument(format!("a record of shape {shape:?} is none")))?;
        Ok(Self { dtype, shape, bytes })
    }

    pub fn item_bytes(&self) -> u64 {
        u64::from(self.dtype.bits) * u64::from(self.dtype.lanes) / 8
    }
}

/// Device memory of the context, of a stream's order.
pub struct Memory {
    context: Arc<Inner>,
    pub address: u64,
    stream: usize,
    /// Other streams that it was given to.
    users: Mutex<Vec<usize>>,
}

impl Memory {
    pub fn new(context: &Arc<Inner>, bytes: u64, stream: usize) -> PyResult<Arc<Self>> {
        let mut address: *mut c_void = std::ptr::null_mut();
        // SAFETY: it writes an address.
        check(unsafe {
            ffi::gmb_memory_allocate_async(context.handle()?, bytes.max(1), raw(stream), &mut address)
        })?;
        Ok(Arc::new(Self {
            context: Arc::clone(context),
            address: address as u64,
            stream,
            users: Mutex::default(),
        }))
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if ended() {
            return;
        }
        let context = self.context.handle_at_end();
        let users = std::mem::take(self.users.get_mut().unwrap_or_else(|p| p.into_inner()));
        for user in users {
            // What it holds now may read this.
            let _ = order(&self.context, user, self.stream);
        }
        let memory = self.address as *mut c_void;
        // SAFETY: allocated by this context, and nobody has it any more.
        unsafe {
            if ffi::gmb_memory_free_async(context, memory, raw(self.stream)) < 0 {
                ffi::gmb_memory_free(context, memory);
            }
        }
    }
}

/// Later work of `then` comes after what `first` holds now.
pub fn order(context: &Inner, first: usize, then: usize) -> PyResult<()> {
    let handle = context.handle_at_end();
    let mut event = ffi::gmb_event { id: 0 };
    // SAFETY: handles of the library, checked by it.
    unsafe {
        check(ffi::gmb_event_create(handle, ffi::GMB_EVENT_UNTIMED as i32, &mut event))?;
        let told = match ffi::gmb_event_record(event, raw(first)) {
            0 => ffi::gmb_stream_wait_event(handle, raw(then), event),
            failed => failed,
        };
        let told = check(told);
        ffi::gmb_event_destroy(event);
        told.map(drop)
    }
}

/// Who keeps an array's memory.
#[derive(Clone)]
pub enum Keeper {
    Memory(Arc<Memory>),
    /// The mailbox, for records that lie in it.
    Mailbox(Lent),
}

/// Where elements lie.
#[derive(Clone)]
pub struct Layout {
    pub address: u64,
    pub dtype: gmb_dtype,
    pub shape: Vec<i64>,
    pub strides: Vec<i64>,
}

impl Layout {
    /// `count` records of a kind, so many bytes apart.
    pub fn records(address: u64, kind: &Kind, count: u32, apart: u64) -> Self {
        let mut shape = vec![i64::from(count)];
        shape.extend(&kind.shape);
        let mut strides = vec![0; shape.len()];
        let mut step = 1;
        for i in (1..shape.len()).rev() {
            strides[i] = step;
            step *= shape[i].max(1);
        }
        strides[0] = (apart / kind.item_bytes().max(1)) as i64;
        Self { address, dtype: kind.dtype, shape, strides }
    }
}

/// Elements on the context's device. Give it to `from_dlpack` of any library, or to CuPy and Numba as it is.
#[pyclass(frozen, module = "gpumailbox")]
pub struct Array {
    pub context: Arc<Inner>,
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
    layout: Layout,
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
    fn check(&self) -> PyResult<()> {
        match &self.keeper {
            Keeper::Mailbox(lent) if lent.is_released() => Err(status(
                ffi::GMB_ERROR_INVALID_HANDLE,
                "the records were released: they are the mailbox's again",
            )),
            _ => Ok(()),
        }
    }

    fn tensor(&self) -> DLTensor {
        let (device_type, device_id) = self.context.device_type();
        DLTensor {
            data: self.layout.address as *mut c_void,
            device_type,
            device_id,
            ndim: self.layout.shape.len() as i32,
            dtype: self.layout.dtype,
            shape: std::ptr::null_mut(),
            strides: std::ptr::null_mut(),
            byte_offset: 0,
        }
    }

    fn export<T>(&self, managed: T, tensor: impl Fn(&mut T) -> &mut DLTensor) -> *mut T {
        let boxed = Box::new(Exported { managed, layout: self.layout.clone(), _keeper: self.keeper.clone() });
        let at = Box::into_raw(boxed);
        // SAFETY: just made.
        unsafe {
            let (shape, strides) = ((*at).layout.shape.as_mut_ptr(), (*at).layout.strides.as_mut_ptr());
            let tensor = tensor(&mut (*at).managed);
            tensor.shape = shape;
            tensor.strides = strides;
        }
        at.cast()
    }

    pub fn managed(&self, versioned: bool) -> Managed {
        if versioned {
            let managed = Versioned {
                version: dlpack::VERSION,
                manager_ctx: std::ptr::null_mut(),
                deleter: Some(end_versioned),
                flags: 0,
                tensor: self.tensor(),
            };
            return Managed::Versioned(self.export(managed, |m| &mut m.tensor));
        }
        let managed =
            Legacy { tensor: self.tensor(), manager_ctx: std::ptr::null_mut(), deleter: Some(end_legacy) };
        Managed::Legacy(self.export(managed, |m| &mut m.tensor))
    }

    /// A stream uses the memory, too; by the number that the protocols give it. Who names none may use the default one.
    fn used_by(&self, stream: Option<&Bound<'_, PyAny>>) {
        let Keeper::Memory(memory) = &self.keeper else { return };
        let named = stream.and_then(|stream| stream.extract::<i64>().ok()).unwrap_or(1);
        let theirs = if named <= 1 { 0 } else { named as usize };
        if theirs == memory.stream {
            return;
        }
        let mut users = memory.users.lock().unwrap_or_else(|p| p.into_inner());
        if !users.contains(&theirs) {
            users.push(theirs);
        }
    }

    fn header(&self, word: u64) -> PyResult<Array> {
        let Some((headers, count)) = &self.headers else {
            return Err(argument("the headers were not asked for: pop(..., headers=True)"));
        };
        Ok(Array {
            context: Arc::clone(&self.context),
            stream: self.stream,
            layout: Layout {
                address: headers.address + word,
                dtype: gmb_dtype { code: 1, bits: 32, lanes: 1 },
                shape: vec![i64::from(*count)],
                strides: vec![4],
            },
            keeper: Keeper::Memory(Arc::clone(headers)),
            result: self.result,
            headers: None,
        })
    }
}

#[pymethods]
impl Array {
    #[getter]
    pub fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.layout.shape)
    }

    /// Elements from one index to the next.
    #[getter]
    fn strides<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.layout.strides)
    }

    #[getter]
    fn dtype(&self) -> String {
        dlpack::dtype_name(self.layout.dtype)
    }

    #[getter]
    fn data_ptr(&self) -> PyResult<u64> {
        self.check()?;
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

    #[pyo3(signature = (*, stream = None, max_version = None, dl_device = None, copy = None))]
    fn __dlpack__<'py>(
        &self,
        py: Python<'py>,
        stream: Option<&Bound<'py, PyAny>>,
        max_version: Option<(u32, u32)>,
        dl_device: Option<(i32, i32)>,
        copy: Option<bool>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.check()?;
        if copy == Some(true) || dl_device.is_some_and(|device| device != self.context.device_type()) {
            return Err(pyo3::exceptions::PyBufferError::new_err(
                "no copy is made here: take it as it is, and copy it then",
            ));
        }
        dlpack::order(&self.context, self.stream, stream)?;
        self.used_by(stream);
        dlpack::capsule(py, self.managed(dlpack::wants_version(max_version)))
    }

    fn __dlpack_device__(&self) -> (i32, i32) {
        self.context.device_type()
    }

    #[pyo3(signature = (dtype = None, copy = None))]
    fn __array__<'py>(
        slf: &Bound<'py, Self>,
        dtype: Option<&Bound<'py, PyAny>>,
        copy: Option<bool>,
    ) -> PyResult<Bound<'py, PyAny>> {
        as_numpy(slf.as_any(), slf.get().context.cuda, dtype, copy)
    }

    #[getter]
    fn __cuda_array_interface__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.check()?;
        self.used_by(None);
        cuda_array_interface(py, &self.context, &self.layout, Some(self.stream))
    }

    fn __repr__(&self) -> String {
        let (kind, device) = self.context.device_type();
        let place = if kind == dlpack::CUDA { format!("cuda:{device}") } else { "cpu".to_owned() };
        format!(
            "<gpumailbox.Array {}{:?} on {place}>",
            dlpack::dtype_name(self.layout.dtype),
            self.layout.shape
        )
    }
}

/// For `numpy.asarray`, of what NumPy can read.
pub fn as_numpy<'py>(
    of: &Bound<'py, PyAny>,
    cuda: bool,
    dtype: Option<&Bound<'py, PyAny>>,
    copy: Option<bool>,
) -> PyResult<Bound<'py, PyAny>> {
    if cuda {
        return Err(pyo3::exceptions::PyTypeError::new_err(
            "the memory is on a GPU: torch.from_dlpack(...).cpu().numpy() copies it to the host",
        ));
    }
    let array = of.py().import("numpy")?.getattr("from_dlpack")?.call1((of,))?;
    let as_it_is = match dtype {
        Some(dtype) => array.getattr("dtype")?.eq(dtype)?,
        None => true,
    };
    match (as_it_is, copy) {
        (true, Some(true)) => array.call_method0("copy"),
        (true, _) => Ok(array),
        (false, Some(false)) => {
            Err(pyo3::exceptions::PyValueError::new_err("another dtype is not possible without a copy"))
        }
        (false, _) => array.call_method1("astype", (dtype,)),
    }
}

/// The protocol of CuPy and Numba, version 3.
pub fn cuda_array_interface<'py>(
    py: Python<'py>,
    context: &Inner,
    layout: &Layout,
    stream: Option<usize>,
) -> PyResult<Bound<'py, PyDict>> {
    if !context.cuda {
        return Err(pyo3::exceptions::PyAttributeError::new_err(
            "the memory is not on a GPU: use from_dlpack",
        ));
    }
    let letter = match layout.dtype.code {
        0 => 'i',
        1 => 'u',
        2 => 'f',
        5 => 'c',
        6 => 'b',
        _ => {
            return Err(pyo3::exceptions::PyAttributeError::new_err(
                "the protocol has no such dtype: use from_dlpack",
            ))
        }
    };
    let bytes = i64::from(layout.dtype.bits / 8);
    let all = PyDict::new(py);
    all.set_item("version", 3)?;
    all.set_item("shape", PyTuple::new(py, &layout.shape)?)?;
    all.set_item("strides", PyTuple::new(py, layout.strides.iter().map(|stride| stride * bytes))?)?;
    all.set_item("typestr", format!("{}{letter}{bytes}", if bytes == 1 { '|' } else { '<' }))?;
    all.set_item("data", (layout.address, false))?;
    // The protocol has numbers for the default streams, and forbids 0.
    all.set_item("stream", stream.map(|stream| if stream == 0 { 1 } else { stream }))?;
    Ok(all)
}
