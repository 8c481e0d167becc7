//! Tensors of other libraries, and ours for them, by DLPack (dmlc/dlpack, major version 1).

use std::ffi::{c_char, c_void, CStr};
use std::ptr;
use std::sync::{Arc, Mutex, RwLock};

use pyo3::ffi as python;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use pyo3::{intern, Bound};

use crate::context::Inner;
use crate::error::{argument, status};
use crate::ffi::gmb_dtype;
use crate::{ffi, streams};

pub const CPU: i32 = 1;
pub const CUDA: i32 = 2;
const READ_ONLY: u64 = 1;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Version {
    pub major: u32,
    pub minor: u32,
}

pub const VERSION: Version = Version { major: 1, minor: 1 };

#[repr(C)]
#[derive(Clone, Copy)]
pub struct DLTensor {
    pub data: *mut c_void,
    pub device_type: i32,
    pub device_id: i32,
    pub ndim: i32,
    pub dtype: gmb_dtype,
    pub shape: *mut i64,
    pub strides: *mut i64,
    pub byte_offset: u64,
}

#[repr(C)]
pub struct Versioned {
    pub version: Version,
    pub manager_ctx: *mut c_void,
    pub deleter: Option<unsafe extern "C" fn(*mut Versioned)>,
    pub flags: u64,
    pub tensor: DLTensor,
}

#[repr(C)]
pub struct Legacy {
    pub tensor: DLTensor,
    pub manager_ctx: *mut c_void,
    pub deleter: Option<unsafe extern "C" fn(*mut Legacy)>,
}

const NAME: &CStr = c"dltensor_versioned";
const USED: &CStr = c"used_dltensor_versioned";
const LEGACY_NAME: &CStr = c"dltensor";
const LEGACY_USED: &CStr = c"used_dltensor";

/// A tensor that another library gave away; dropped, it is ended.
pub enum Managed {
    Versioned(*mut Versioned),
    Legacy(*mut Legacy),
}

// SAFETY: by the standard any thread may end a managed tensor.
unsafe impl Send for Managed {}
// SAFETY: it is only read.
unsafe impl Sync for Managed {}

impl Managed {
    pub fn tensor(&self) -> &DLTensor {
        // SAFETY: owned, and alive until it is dropped.
        unsafe {
            match self {
                Self::Versioned(managed) => &(**managed).tensor,
                Self::Legacy(managed) => &(**managed).tensor,
            }
        }
    }

    /// Sizes of the dimensions.
    pub fn shape(&self) -> &[i64] {
        let tensor = self.tensor();
        // SAFETY: as many as there are dimensions.
        unsafe { list(tensor.shape, tensor.ndim) }
    }

    /// Elements between neighbours in each dimension; `None` for rows one behind the other.
    pub fn strides(&self) -> Option<&[i64]> {
        let tensor = self.tensor();
        // SAFETY: as above.
        (!tensor.strides.is_null()).then(|| unsafe { list(tensor.strides, tensor.ndim) })
    }

    pub fn is_read_only(&self) -> bool {
        match self {
            // SAFETY: owned.
            Self::Versioned(managed) => unsafe { (**managed).flags & READ_ONLY != 0 },
            Self::Legacy(_) => false,
        }
    }

    pub fn address(&self) -> u64 {
        self.tensor().data as u64 + self.tensor().byte_offset
    }
}

unsafe fn list<'a>(from: *const i64, count: i32) -> &'a [i64] {
    if count <= 0 || from.is_null() {
        return &[];
    }
    // SAFETY: promised by the caller.
    unsafe { std::slice::from_raw_parts(from, count as usize) }
}

/// Held by whoever ends a tensor on a thread of the library, and by the end of the interpreter.
static ENDING: RwLock<()> = RwLock::new(());

/// From here on the library ends no tensor of Python's any more; what is being ended is waited for. Not with the
/// interpreter's lock.
pub fn end() {
    let _last = ENDING.write().unwrap_or_else(|p| p.into_inner());
    crate::context::end();
}

/// A tensor for the library, which ends the one in it, unless the interpreter has ended before.
#[repr(C)]
struct Guarded {
    managed: Versioned,
    inner: Managed,
}

unsafe extern "C" fn end_guarded(managed: *mut Versioned) {
    let held = ENDING.read().unwrap_or_else(|p| p.into_inner());
    // Whoever made it may not be called any more; its memory ends with the process.
    if !crate::context::ended() {
        // SAFETY: boxed by `guarded`, and ended once.
        drop(unsafe { Box::from_raw(managed.cast::<Guarded>()) });
    }
    drop(held);
}

impl Managed {
    /// As the library gets it.
    pub fn guarded(self) -> *mut Versioned {
        let flags = match &self {
            // SAFETY: owned.
            Self::Versioned(managed) => unsafe { (**managed).flags },
            Self::Legacy(_) => 0,
        };
        let managed = Versioned {
            version: VERSION,
            manager_ctx: ptr::null_mut(),
            deleter: Some(end_guarded),
            flags,
            tensor: *self.tensor(),
        };
        Box::into_raw(Box::new(Guarded { managed, inner: self })).cast()
    }

    /// Takes back what the library did not take.
    ///
    /// # Safety
    /// Made by `guarded`, and not ended.
    pub unsafe fn unguarded(managed: *mut Versioned) -> Self {
        // SAFETY: promised by the caller.
        unsafe { Box::from_raw(managed.cast::<Guarded>()) }.inner
    }
}

impl Drop for Managed {
    fn drop(&mut self) {
        // SAFETY: owned, and ended once.
        unsafe {
            match self {
                Self::Versioned(managed) => {
                    if let Some(deleter) = (**managed).deleter {
                        deleter(*managed);
                    }
                }
                Self::Legacy(managed) => {
                    if let Some(deleter) = (**managed).deleter {
                        deleter(*managed);
                    }
                }
            }
        }
    }
}

pub type ToObject = unsafe extern "C" fn(*mut Versioned, *mut *mut c_void) -> i32;

/// What a type offers to be exchanged without calls of Python: `__dlpack_c_exchange_api__`.
#[repr(C)]
pub struct Exchange {
    version: Version,
    previous: *const Exchange,
    allocate: *const c_void,
    from_object: Option<unsafe extern "C" fn(*mut c_void, *mut *mut Versioned) -> i32>,
    to_object: Option<ToObject>,
    borrow: Option<unsafe extern "C" fn(*mut c_void, *mut DLTensor) -> i32>,
    current_stream: Option<unsafe extern "C" fn(i32, i32, *mut *mut c_void) -> i32>,
}

/// What is known of a type with an exchange.
struct Exchanging {
    api: &'static Exchange,
    /// Its methods that tell whether the memory holds other numbers than the tensor shows, where it has them.
    is_neg: Option<Py<PyAny>>,
    is_conj: Option<Py<PyAny>>,
}

/// The type that was asked last, kept so that it is not asked again: as a rule all tensors are of one type.
static KNOWN: Mutex<Option<(Py<PyAny>, Arc<Exchanging>)>> = Mutex::new(None);

/// If a type has an exchange of a version that is known.
fn exchanging(of: &Bound<'_, PyAny>) -> Option<Arc<Exchanging>> {
    let known = || KNOWN.lock().unwrap_or_else(|p| p.into_inner());
    if let Some((_, found)) = known().as_ref().filter(|(kind, _)| kind.is(of)) {
        return Some(Arc::clone(found));
    }
    // Without a lock: a type may run anything to answer.
    let method = |name| of.getattr_opt(name).ok().flatten().map(Bound::unbind);
    let (is_neg, is_conj) = (method(intern!(of.py(), "is_neg")), method(intern!(of.py(), "is_conj")));
    let found = Arc::new(Exchanging { api: look_up(of)?, is_neg, is_conj });
    let before = known().replace((of.clone().unbind(), Arc::clone(&found)));
    drop(before);
    Some(found)
}

/// The exchange of a type.
pub fn look_up(of: &Bound<'_, PyAny>) -> Option<&'static Exchange> {
    let capsule = of.getattr_opt(intern!(of.py(), "__dlpack_c_exchange_api__")).ok()??;
    let name = c"dlpack_exchange_api".as_ptr();
    // SAFETY: of a capsule of that name; what it points to lives as long as the process.
    unsafe {
        if python::PyCapsule_IsValid(capsule.as_ptr(), name) == 0 {
            return None;
        }
        let mut at = python::PyCapsule_GetPointer(capsule.as_ptr(), name).cast::<Exchange>().cast_const();
        while !at.is_null() && (*at).version.major != VERSION.major {
            at = (*at).previous;
        }
        at.as_ref()
    }
}

// SAFETY: a table of functions.
unsafe impl Send for Exchange {}
// SAFETY: as above; nobody writes to it.
unsafe impl Sync for Exchange {}

impl Exchange {
    /// The stream that its library's work goes into.
    pub fn current_stream(&self, context: &Inner) -> Option<usize> {
        let mut current = ptr::null_mut();
        // SAFETY: it writes a stream.
        let told = unsafe { self.current_stream?(CUDA, context.device as i32, &mut current) };
        (told == 0).then_some(current as usize)
    }
}

/// The exception that a failed call of C has left, if it has.
fn raised(py: Python<'_>, what: &str) -> PyErr {
    PyErr::take(py)
        .unwrap_or_else(|| status(ffi::GMB_ERROR_NOT_SUPPORTED, format!("{what} failed and did not say why")))
}

/// Whether a method of a type, called on `of`, says yes.
fn says(method: &Py<PyAny>, of: &Bound<'_, PyAny>) -> PyResult<bool> {
    // SAFETY: two objects and the end of the list; the answer is owned.
    let answer = unsafe {
        let told = python::PyObject_CallFunctionObjArgs(
            method.as_ptr(),
            of.as_ptr(),
            ptr::null_mut::<python::PyObject>(),
        );
        Bound::from_owned_ptr_or_err(of.py(), told)?
    };
    answer.is_truthy()
}

/// Without calls of Python where that can be. `None` where there is no exchange, or it would not say what is wrong with a
/// tensor.
fn exchanged(of: &Bound<'_, PyAny>, context: &Inner, stream: usize) -> PyResult<Option<Managed>> {
    const COMPLEX: u8 = 5;
    let py = of.py();
    let Some(known) = exchanging(of.get_type().as_any()) else { return Ok(None) };
    let Some(from_object) = known.api.from_object else { return Ok(None) };
    // It gives such away as if they were none.
    if of.getattr_opt(intern!(py, "requires_grad"))?.is_some_and(|needed| needed.is_truthy().unwrap_or(true))
    {
        return Ok(None);
    }
    if context.cuda {
        let Some(current) = known.api.current_stream(context) else {
            let _ = PyErr::take(py);
            return Ok(None);
        };
        if current != stream {
            crate::array::order(context, current, stream)?;
        }
    }
    let mut managed = ptr::null_mut();
    // SAFETY: an object of the type; it writes a managed tensor that is ours then.
    if unsafe { from_object(of.as_ptr().cast(), &mut managed) } != 0 || managed.is_null() {
        let _ = PyErr::take(py);
        return Ok(None);
    }
    let managed = Managed::Versioned(managed);
    let is_complex = managed.tensor().dtype.code == COMPLEX;
    for (is_lazy, resolve) in [
        (known.is_neg.as_ref(), "resolve_neg"),
        (known.is_conj.as_ref().filter(|_| is_complex), "resolve_conj"),
    ] {
        if is_lazy.map_or(Ok(false), |is_lazy| says(is_lazy, of))? {
            return Err(argument(format!(
                "the tensor's memory holds other numbers than it shows: call {resolve}() first"
            )));
        }
    }
    Ok(Some(managed))
}

/// A capsule's tensor, which is ours then.
fn from_capsule(capsule: &Bound<'_, PyAny>) -> PyResult<Managed> {
    let capsule = capsule.as_ptr();
    // SAFETY: each is asked for by the name that it has.
    unsafe {
        if python::PyCapsule_IsValid(capsule, NAME.as_ptr()) != 0 {
            let managed = python::PyCapsule_GetPointer(capsule, NAME.as_ptr()).cast::<Versioned>();
            python::PyCapsule_SetName(capsule, USED.as_ptr());
            let version = (*managed).version;
            let taken = Managed::Versioned(managed);
            if version.major != VERSION.major {
                return Err(status(
                    ffi::GMB_ERROR_BAD_VERSION,
                    format!("the tensor is of DLPack {}.{}, and 1.x is known", version.major, version.minor),
                ));
            }
            return Ok(taken);
        }
        if python::PyCapsule_IsValid(capsule, LEGACY_NAME.as_ptr()) != 0 {
            let managed = python::PyCapsule_GetPointer(capsule, LEGACY_NAME.as_ptr()).cast::<Legacy>();
            python::PyCapsule_SetName(capsule, LEGACY_USED.as_ptr());
            return Ok(Managed::Legacy(managed));
        }
        for used in [USED, LEGACY_USED] {
            if python::PyCapsule_IsValid(capsule, used.as_ptr()) != 0 {
                return Err(argument("the capsule was used before: a tensor can be taken out of it once"));
            }
        }
    }
    Err(argument("it is no capsule of DLPack"))
}

/// The stream as the protocol names it: its two default streams have numbers.
fn protocol_stream(py: Python<'_>, context: &Inner, stream: usize) -> PyResult<Py<PyAny>> {
    if !context.cuda {
        return Ok(py.None());
    }
    let told = if stream == 0 { 1 } else { stream };
    Ok(told.into_pyobject(py)?.into_any().unbind())
}

/// Takes a tensor of another library; what its producer has under way comes before later work of the stream.
pub fn import(of: &Bound<'_, PyAny>, context: &Inner, stream: usize) -> PyResult<Managed> {
    let py = of.py();
    if let Some(managed) = exchanged(of, context, stream)? {
        return Ok(managed);
    }
    // SAFETY: a question.
    if unsafe { python::PyCapsule_CheckExact(of.as_ptr()) } != 0 {
        return from_capsule(of);
    }
    let Some(method) = of.getattr_opt(intern!(py, "__dlpack__"))? else {
        return Err(argument(format!(
            "{} has no __dlpack__: give a tensor of PyTorch, CuPy, JAX or NumPy",
            of.get_type().name()?
        )));
    };
    let options = PyDict::new(py);
    // Of one that lies on the CPU, only None is a stream.
    let device: Option<(i32, i32)> = match of.getattr_opt(intern!(py, "__dlpack_device__"))? {
        Some(device) => device.call0()?.extract().ok(),
        None => None,
    };
    if device.is_none_or(|(kind, _)| kind == CUDA) && context.cuda {
        options.set_item(intern!(py, "stream"), protocol_stream(py, context, stream)?)?;
    }
    options.set_item(intern!(py, "max_version"), (VERSION.major, VERSION.minor))?;
    let capsule = match method.call((), Some(&options)) {
        // Those of before the versions do not know the argument.
        Err(error) if error.is_instance_of::<pyo3::exceptions::PyTypeError>(py) => {
            options.del_item(intern!(py, "max_version"))?;
            method.call((), Some(&options))?
        }
        told => told?,
    };
    from_capsule(&capsule)
}

unsafe extern "C" fn end_unused(capsule: *mut python::PyObject) {
    // SAFETY: a capsule that `capsule` made; if its name is still the first one, nobody has taken the tensor.
    unsafe {
        if python::PyCapsule_IsValid(capsule, NAME.as_ptr()) != 0 {
            drop(Managed::Versioned(python::PyCapsule_GetPointer(capsule, NAME.as_ptr()).cast()));
        } else if python::PyCapsule_IsValid(capsule, LEGACY_NAME.as_ptr()) != 0 {
            drop(Managed::Legacy(python::PyCapsule_GetPointer(capsule, LEGACY_NAME.as_ptr()).cast()));
        }
    }
}

/// A capsule of a managed tensor.
pub fn capsule(py: Python<'_>, managed: Managed) -> PyResult<Bound<'_, PyAny>> {
    let managed = std::mem::ManuallyDrop::new(managed);
    let (at, name) = match *managed {
        Managed::Versioned(at) => (at.cast::<c_void>(), NAME),
        Managed::Legacy(at) => (at.cast::<c_void>(), LEGACY_NAME),
    };
    // SAFETY: the capsule owns it then.
    unsafe {
        let made = python::PyCapsule_New(at, name.as_ptr().cast::<c_char>(), Some(end_unused));
        match Bound::from_owned_ptr_or_err(py, made) {
            Ok(capsule) => Ok(capsule),
            Err(error) => {
                drop(std::mem::ManuallyDrop::into_inner(managed));
                Err(error)
            }
        }
    }
}

/// Whether a consumer can read tensors with a version.
pub fn wants_version(max_version: Option<(u32, u32)>) -> bool {
    max_version.is_some_and(|(major, _)| major >= VERSION.major)
}

/// Has the consumer's stream wait for ours, as `__dlpack__` promises.
pub fn order(context: &Inner, ours: usize, stream: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
    let Some(stream) = stream.filter(|_| context.cuda) else { return Ok(()) };
    let theirs: i64 = match stream.extract() {
        Ok(number) => number,
        Err(_) => streams::address(stream)? as i64,
    };
    let theirs =
        match theirs {
            -1 => return Ok(()),
            0 => return Err(argument(
                "stream 0 is ambiguous by the standard: 1 is the legacy default stream, 2 that of the thread",
            )),
            1 => 0,
            other => other as usize,
        };
    if theirs == ours || (theirs == 2 && ours == 2) {
        return Ok(());
    }
    crate::array::order(context, ours, theirs)
}

/// What makes objects of a type of tensors.
pub fn maker(of: &Bound<'_, PyAny>) -> PyResult<ToObject> {
    exchanging(of).and_then(|known| known.api.to_object).ok_or_else(|| {
        let name = of.repr().map_or_else(|_| "like".to_owned(), |name| name.to_string());
        argument(format!(
            "{name} does not offer DLPack's exchange: leave like out, and give the result to from_dlpack"
        ))
    })
}

/// As an object of the type that the maker is of: `torch.Tensor`, say.
pub fn made<'py>(py: Python<'py>, to_object: ToObject, managed: Managed) -> PyResult<Bound<'py, PyAny>> {
    let Managed::Versioned(at) = *std::mem::ManuallyDrop::new(managed) else {
        return Err(argument("only tensors with a version can be exchanged"));
    };
    let mut made = ptr::null_mut();
    // SAFETY: the object owns it then; on an error nobody does.
    unsafe {
        if to_object(at, &mut made) != 0 || made.is_null() {
            let error = raised(py, "the exchange of a tensor");
            drop(Managed::Versioned(at));
            return Err(error);
        }
        Bound::from_owned_ptr_or_err(py, made.cast())
    }
}

/// Types by their names: code and bits.
const TYPES: [(&str, u8, u8); 15] = [
    ("int8", 0, 8),
    ("int16", 0, 16),
    ("int32", 0, 32),
    ("int64", 0, 64),
    ("uint8", 1, 8),
    ("uint16", 1, 16),
    ("uint32", 1, 32),
    ("uint64", 1, 64),
    ("float16", 2, 16),
    ("float32", 2, 32),
    ("float64", 2, 64),
    ("bfloat16", 4, 16),
    ("complex64", 5, 64),
    ("complex128", 5, 128),
    ("bool", 6, 8),
];

/// A type by its name, or by an object that ends in its name (`torch.float32`, `numpy.dtype("float32")`).
pub fn dtype(of: &Bound<'_, PyAny>) -> PyResult<gmb_dtype> {
    let text = match of.cast::<PyString>() {
        Ok(name) => name.to_string(),
        Err(_) => match of.getattr_opt(intern!(of.py(), "__name__"))? {
            Some(name) => name.to_string(),
            None => of.str()?.to_string(),
        },
    };
    let name = text.rsplit('.').next().unwrap_or(&text);
    // Python's own types, as NumPy reads them.
    let name = match name {
        "float" => "float64",
        "int" => "int64",
        "complex" => "complex128",
        other => other,
    };
    match TYPES.iter().find(|(known, ..)| *known == name) {
        Some(&(_, code, bits)) => Ok(gmb_dtype { code, bits, lanes: 1 }),
        None => Err(argument(format!(
            "dtype {text:?} is none that a record can have: give \"float32\", torch.int64, ..."
        ))),
    }
}

/// Its name, as NumPy and PyTorch have it.
pub fn dtype_name(dtype: gmb_dtype) -> String {
    let known = TYPES.iter().find(|(_, code, bits)| (*code, *bits) == (dtype.code, dtype.bits));
    match known {
        Some((name, ..)) if dtype.lanes == 1 => (*name).to_owned(),
        Some((name, ..)) => format!("{name}x{}", dtype.lanes),
        None => format!("dlpack(code={}, bits={}, lanes={})", dtype.code, dtype.bits, dtype.lanes),
    }
}
