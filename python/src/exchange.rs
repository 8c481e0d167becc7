//! Tensors of types that offer DLPack's exchange: without calls of Python.

use std::ffi::c_void;
use std::ptr;
use std::sync::{Arc, Mutex};

use pyo3::ffi as python;
use pyo3::prelude::*;
use pyo3::{intern, Bound};

use crate::context::ContextHandle;
use crate::dlpack::{DLTensor, Managed, Version, Versioned, CUDA, VERSION};
use crate::dtype::COMPLEX;
use crate::error::{argument, status};
use crate::{events, ffi, lock};

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
    let known = || lock(&KNOWN);
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
    pub fn current_stream(&self, context: &ContextHandle) -> Option<usize> {
        let mut current = ptr::null_mut();
        // SAFETY: it writes a stream.
        let told = unsafe { self.current_stream?(CUDA, context.device as i32, &mut current) };
        (told == 0).then_some(current as usize)
    }
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
pub fn exchanged(of: &Bound<'_, PyAny>, context: &ContextHandle, stream: usize) -> PyResult<Option<Managed>> {
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
            events::order(context, current, stream)?;
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
            let raised = PyErr::take(py);
            drop(Managed::Versioned(at));
            return Err(raised.unwrap_or_else(|| {
                status(ffi::GMB_ERROR_NOT_SUPPORTED, "the exchange of a tensor failed and did not say why")
            }));
        }
        Bound::from_owned_ptr_or_err(py, made.cast())
    }
}
