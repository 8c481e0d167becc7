//! Tensors of other libraries, and ours for them, by DLPack (dmlc/dlpack, major version 1).

use std::ffi::{c_char, c_void, CStr};
use std::ptr;

use pyo3::ffi as python;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use pyo3::{intern, Bound};

use crate::context::ContextHandle;
use crate::error::{argument, status};
use crate::exchange::exchanged;
use crate::ffi::{self, gmb_dtype};
use crate::{events, interpreter, streams};

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

/// A tensor for the library, which ends the one in it, unless the interpreter has ended before.
#[repr(C)]
struct Guarded {
    managed: Versioned,
    inner: Managed,
}

unsafe extern "C" fn end_guarded(managed: *mut Versioned) {
    let _held_up = interpreter::hold_up_end();
    // Whoever made it may not be called any more; its memory ends with the process.
    if !interpreter::ended() {
        // SAFETY: boxed by `guarded`, and ended once.
        drop(unsafe { Box::from_raw(managed.cast::<Guarded>()) });
    }
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

/// Takes a tensor of another library; what its producer has under way comes before later work of the stream.
pub fn import(of: &Bound<'_, PyAny>, context: &ContextHandle, stream: usize) -> PyResult<Managed> {
    let py = of.py();
    if let Some(managed) = exchanged(of, context, stream)? {
        return Ok(managed);
    }
    // SAFETY: a question.
    if unsafe { python::PyCapsule_CheckExact(of.as_ptr()) } != 0 {
        return from_capsule(of);
    }
    let options = PyDict::new(py);
    // Of one that lies on the CPU, only None is a stream.
    let device: Option<(i32, i32)> = match of.getattr_opt(intern!(py, "__dlpack_device__"))? {
        Some(device) => device.call0()?.extract().ok(),
        None => None,
    };
    if device.is_none_or(|(kind, _)| kind == CUDA) && context.cuda {
        // The protocol has a number of its own for the default stream, and forbids 0.
        options.set_item(intern!(py, "stream"), stream.max(1))?;
    }
    taken(of, &options)
}

/// What an object's `__dlpack__` gives, with these options.
pub fn taken(of: &Bound<'_, PyAny>, options: &Bound<'_, PyDict>) -> PyResult<Managed> {
    let py = of.py();
    let Some(method) = of.getattr_opt(intern!(py, "__dlpack__"))? else {
        return Err(argument(format!(
            "{} has no __dlpack__: give a tensor of PyTorch, CuPy, JAX or NumPy",
            of.get_type().name()?
        )));
    };
    options.set_item(intern!(py, "max_version"), (VERSION.major, VERSION.minor))?;
    let capsule = match method.call((), Some(options)) {
        // Those of before the versions do not know the argument.
        Err(error) if error.is_instance_of::<pyo3::exceptions::PyTypeError>(py) => {
            options.del_item(intern!(py, "max_version"))?;
            method.call((), Some(options))?
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
pub fn order(context: &ContextHandle, ours: usize, stream: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
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
    if theirs == ours {
        return Ok(());
    }
    events::order(context, ours, theirs)
}
