//! DLPack's structs (dmlc/dlpack, major version 1), and what of them makes a tensor.
//!
//! The exchange is by the standard: whoever has a managed tensor owns it and ends it with its deleter; a tensor of another
//! major version is only to be deleted.

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::Arc;

use super::lease::Held;
use super::{Shape, Tensor};
pub(crate) use crate::backend::{DL_CPU, DL_CUDA};
use crate::checks::{check_address, null};
use crate::error::{Error, Result};
use crate::layout::{gmb_dtype, gmb_tensor, GMB_MAX_DIMENSIONS};
use crate::status::*;
use crate::sync::forked;

/// In the flags: nobody may write to it.
pub const DL_READ_ONLY: u64 = 1;
/// In the flags: elements of less than a byte take a byte each.
pub(super) const PADDED: u64 = 4;

/// The version that is written here, and of which all minor versions are read.
const VERSION: DLPackVersion = DLPackVersion { major: 1, minor: 1 };
/// The largest `DLDataTypeCode` of that version.
const LAST_CODE: u8 = 17;

/// Where memory lies.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DLDevice {
    /// `DLDeviceType`.
    pub device_type: i32,
    /// The device's ordinal.
    pub device_id: i32,
}

/// A strided array, not owned.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DLTensor {
    /// Start of the memory; the first element lies `byte_offset` behind it.
    pub data: *mut c_void,
    /// Where it lies.
    pub device: DLDevice,
    /// Dimensions.
    pub ndim: i32,
    /// The elements' type.
    pub dtype: gmb_dtype,
    /// Elements in each dimension.
    pub shape: *mut i64,
    /// Elements from one index to the next; null for rows one behind the other.
    pub strides: *mut i64,
    /// Bytes from `data` to the first element.
    pub byte_offset: u64,
}

/// Version of a managed tensor's layout.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DLPackVersion {
    /// Tells layouts apart.
    pub major: u32,
    /// Tells what codes there may be.
    pub minor: u32,
}

/// An owned tensor.
#[repr(C)]
#[derive(Debug)]
pub struct DLManagedTensorVersioned {
    /// Of this struct.
    pub version: DLPackVersion,
    /// The maker's.
    pub manager_ctx: *mut c_void,
    /// Ends it; may be absent.
    pub deleter: Option<unsafe extern "C" fn(*mut DLManagedTensorVersioned)>,
    /// `DLPACK_FLAG_BITMASK_*`.
    pub flags: u64,
    /// What is owned.
    pub dl_tensor: DLTensor,
}

/// An owned tensor as it was before versions.
#[repr(C)]
#[derive(Debug)]
pub struct DLManagedTensor {
    /// What is owned.
    pub dl_tensor: DLTensor,
    /// The maker's.
    pub manager_ctx: *mut c_void,
    /// Ends it; may be absent.
    pub deleter: Option<unsafe extern "C" fn(*mut DLManagedTensor)>,
}

/// Who ends a tensor's memory.
pub(super) enum Owner {
    Versioned(NonNull<DLManagedTensorVersioned>),
    Legacy(NonNull<DLManagedTensor>),
    Arrow(super::arrow::Array),
    Value(Option<Box<dyn std::any::Any + Send>>),
}

// SAFETY: who hands a tensor over lets any thread end it; DLPack and Arrow say the same.
unsafe impl Send for Owner {}
// SAFETY: nothing of it is reached by reference but an event's address.
unsafe impl Sync for Owner {}

impl Drop for Owner {
    fn drop(&mut self) {
        // The parent's memory is the parent's.
        if forked() {
            if let Self::Value(value) = self {
                std::mem::forget(value.take());
            }
            return;
        }
        // SAFETY: this owns them, and ends them once.
        unsafe {
            match self {
                Self::Versioned(managed) => {
                    if let Some(deleter) = (*managed.as_ptr()).deleter {
                        deleter(managed.as_ptr());
                    }
                }
                Self::Legacy(managed) => {
                    if let Some(deleter) = (*managed.as_ptr()).deleter {
                        deleter(managed.as_ptr());
                    }
                }
                Self::Arrow(array) => array.end(),
                Self::Value(_) => {}
            }
        }
    }
}

impl Tensor {
    /// Takes over a managed tensor. On an error it is still the caller's, but for one of another major version: of such a
    /// tensor nothing may be read, so its deleter is called here, as the standard asks.
    ///
    /// # Errors
    /// `NULL_POINTER`, `BAD_VERSION`, `INVALID_ARGUMENT` (a negative size, no such type), `NOT_SUPPORTED` (more than eight
    /// dimensions), `OVERFLOW`.
    ///
    /// # Safety
    /// Null, or a managed tensor that the caller owns.
    pub unsafe fn from_dlpack(managed: *mut DLManagedTensorVersioned) -> Result<Self> {
        let owner = NonNull::new(managed).ok_or_else(|| null("the managed tensor"))?;
        check_address("the managed tensor", managed as u64, align_of::<DLManagedTensorVersioned>() as u64)?;
        // SAFETY: a managed tensor; its version comes first in every version.
        let version = unsafe { (*managed).version };
        if version.major != VERSION.major {
            drop(Owner::Versioned(owner));
            return Err(Error::new(
                GMB_ERROR_BAD_VERSION,
                format!(
                    "the tensor is of DLPack {}.{}, this library reads {}.x: it was deleted, as the standard asks",
                    version.major, version.minor, VERSION.major
                ),
            ));
        }
        // SAFETY: of this version, so its fields are where they are expected.
        let (tensor, flags) = unsafe { ((*managed).dl_tensor, (*managed).flags) };
        // SAFETY: shape and strides are the tensor's.
        Ok(Self::of(unsafe { record(&tensor, flags)? }, Owner::Versioned(owner)))
    }

    /// As [`Tensor::from_dlpack`], of the struct without a version.
    ///
    /// # Safety
    /// As of [`Tensor::from_dlpack`].
    pub unsafe fn from_dlpack_legacy(managed: *mut DLManagedTensor) -> Result<Self> {
        let owner = NonNull::new(managed).ok_or_else(|| null("the managed tensor"))?;
        check_address("the managed tensor", managed as u64, align_of::<DLManagedTensor>() as u64)?;
        // SAFETY: a managed tensor; shape and strides are its own.
        let record = unsafe { record(&(*managed).dl_tensor, 0)? };
        Ok(Self::of(record, Owner::Legacy(owner)))
    }
}

/// What is handed over of a DLPack tensor.
unsafe fn record(tensor: &DLTensor, flags: u64) -> Result<gmb_tensor> {
    let ndim = dimensions(tensor.ndim)?;
    if ndim > 0 {
        check_address("the tensor's shape", tensor.shape as u64, 8)?;
    }
    if !tensor.strides.is_null() {
        check_address("the tensor's strides", tensor.strides as u64, 8)?;
    }
    // SAFETY: not null, aligned, and of that many elements.
    let shape = unsafe { list(tensor.shape, ndim) };
    // SAFETY: as above.
    let strides = (!tensor.strides.is_null()).then(|| unsafe { list(tensor.strides, ndim) });
    let device = (tensor.device.device_type, tensor.device.device_id);
    Shape { dtype: tensor.dtype, shape, strides, byte_offset: tensor.byte_offset }.record(
        tensor.data as u64,
        device,
        flags,
    )
}

unsafe fn list<'a>(from: *const i64, count: usize) -> &'a [i64] {
    if count == 0 {
        return &[];
    }
    // SAFETY: promised by the caller.
    unsafe { std::slice::from_raw_parts(from, count) }
}

fn dimensions(ndim: i32) -> Result<usize> {
    match ndim {
        0..=8 => Ok(ndim as usize),
        9.. => Err(Error::new(
            GMB_ERROR_NOT_SUPPORTED,
            format!("the tensor has {ndim} dimensions; {GMB_MAX_DIMENSIONS} at most can be handed over"),
        )),
        _ => Err(Error::argument(format!("the tensor has {ndim} dimensions"))),
    }
}

/// Refuses types that this version of the standard does not know.
pub(crate) fn check_dtype(dtype: gmb_dtype) -> Result<()> {
    if dtype.code > LAST_CODE || dtype.bits == 0 || dtype.lanes == 0 {
        return Err(Error::argument(format!(
            "dtype {{code {}, bits {}, lanes {}}} is none of DLPack {}.{}",
            dtype.code, dtype.bits, dtype.lanes, VERSION.major, VERSION.minor
        )));
    }
    Ok(())
}

/// A managed tensor made of a lease; `managed` is what the other side sees.
#[repr(C)]
struct Exported<T> {
    managed: T,
    shape: [i64; 8],
    strides: [i64; 8],
    held: Arc<Held>,
}

fn tensor_of(record: &gmb_tensor) -> DLTensor {
    DLTensor {
        data: record.address as *mut c_void,
        device: DLDevice { device_type: record.device_type, device_id: record.device_id },
        ndim: record.ndim,
        dtype: record.dtype,
        shape: std::ptr::null_mut(),
        strides: std::ptr::null_mut(),
        byte_offset: record.byte_offset,
    }
}

/// Boxes a managed tensor with what it points to.
fn export<T>(
    held: &Arc<Held>,
    managed: T,
    tensor: impl Fn(&mut T) -> (&mut DLTensor, &mut *mut c_void),
) -> *mut T {
    let record = held.record();
    let boxed = Box::into_raw(Box::new(Exported {
        managed,
        shape: record.shape,
        strides: record.strides,
        held: Arc::clone(held),
    }));
    // SAFETY: just made, and not seen by anybody else.
    unsafe {
        let (dl_tensor, context) = tensor(&mut (*boxed).managed);
        // Scalars have neither: null is what others give and check for.
        if record.ndim > 0 {
            dl_tensor.shape = (&raw mut (*boxed).shape).cast();
            dl_tensor.strides = (&raw mut (*boxed).strides).cast();
        }
        *context = boxed.cast();
    }
    boxed.cast()
}

/// As a managed tensor; it holds the lease until its deleter is called.
pub(super) fn versioned(held: &Arc<Held>) -> *mut DLManagedTensorVersioned {
    let record = held.record();
    let managed = DLManagedTensorVersioned {
        version: VERSION,
        manager_ctx: std::ptr::null_mut(),
        deleter: Some(end_versioned),
        flags: record.flags,
        dl_tensor: tensor_of(record),
    };
    export(held, managed, |m| (&mut m.dl_tensor, &mut m.manager_ctx))
}

/// As the struct without a version, which cannot say that nobody may write to it, or how elements are padded.
pub(super) fn legacy(held: &Arc<Held>) -> Result<*mut DLManagedTensor> {
    let record = held.record();
    if record.flags & DL_READ_ONLY != 0 {
        return Err(Error::new(
            GMB_ERROR_NOT_SUPPORTED,
            "the tensor is read-only, which a DLManagedTensor cannot say: use DLManagedTensorVersioned",
        ));
    }
    if record.flags & PADDED != 0 && u32::from(record.dtype.bits) * u32::from(record.dtype.lanes) < 8 {
        return Err(Error::new(
            GMB_ERROR_NOT_SUPPORTED,
            "the tensor's elements of less than a byte are padded, which a DLManagedTensor cannot say: use DLManagedTensorVersioned",
        ));
    }
    let managed = DLManagedTensor {
        dl_tensor: tensor_of(record),
        manager_ctx: std::ptr::null_mut(),
        deleter: Some(end_legacy),
    };
    Ok(export(held, managed, |m| (&mut m.dl_tensor, &mut m.manager_ctx)))
}

unsafe extern "C" fn end_versioned(managed: *mut DLManagedTensorVersioned) {
    // SAFETY: called once, by whoever owned it.
    unsafe { end(managed) }
}

unsafe extern "C" fn end_legacy(managed: *mut DLManagedTensor) {
    // SAFETY: as above.
    unsafe { end(managed) }
}

/// What is exported ends in any thread of any program, so nothing may be thrown here; and nothing is done in a fork.
unsafe fn end<T>(managed: *mut T) {
    if managed.is_null() || forked() {
        return;
    }
    // SAFETY: it lies at the beginning of what `export` boxed.
    let exported = unsafe { Box::from_raw(managed.cast::<Exported<T>>()) };
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || drop(exported)));
}
