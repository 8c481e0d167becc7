//! The Arrow C data interface and its device extension, as far as arrays are tensors: numbers one behind the other, in one
//! dimension, or in several as lists of fixed size. The structs are those of the specification ("The Arrow C Data
//! Interface", "The Arrow C Device Data Interface").

use std::ffi::{c_char, c_void, CStr, CString};
use std::ptr::{null, null_mut};
use std::sync::Arc;

use super::dlpack::{Owner, DL_CPU};
use super::lease::Held;
use super::shape::{compact, Shape};
use super::Tensor;
use crate::backend::RawEvent;
use crate::checks::check_address;
use crate::error::{Error, Result};
use crate::layout::{gmb_dtype, gmb_tensor, GMB_MAX_DIMENSIONS};
use crate::status::*;
use crate::sync::forked;

/// The type of an array.
#[repr(C)]
#[derive(Debug)]
pub struct ArrowSchema {
    /// The type's code.
    pub format: *const c_char,
    /// The field's name, or null.
    pub name: *const c_char,
    /// Key-value pairs, or null.
    pub metadata: *const c_char,
    /// `ARROW_FLAG_*`.
    pub flags: i64,
    /// Children.
    pub n_children: i64,
    /// As many pointers.
    pub children: *mut *mut ArrowSchema,
    /// The type of a dictionary's values, or null.
    pub dictionary: *mut ArrowSchema,
    /// Ends it; null once it has ended or was moved.
    pub release: Option<unsafe extern "C" fn(*mut ArrowSchema)>,
    /// The maker's.
    pub private_data: *mut c_void,
}

/// An array's buffers.
#[repr(C)]
#[derive(Debug)]
pub struct ArrowArray {
    /// Elements.
    pub length: i64,
    /// Elements that are null, or -1.
    pub null_count: i64,
    /// Elements of the buffers before the first one.
    pub offset: i64,
    /// Buffers.
    pub n_buffers: i64,
    /// Children.
    pub n_children: i64,
    /// As many pointers.
    pub buffers: *mut *const c_void,
    /// As many pointers.
    pub children: *mut *mut ArrowArray,
    /// A dictionary's values, or null.
    pub dictionary: *mut ArrowArray,
    /// Ends it; null once it has ended or was moved.
    pub release: Option<unsafe extern "C" fn(*mut ArrowArray)>,
    /// The maker's.
    pub private_data: *mut c_void,
}

/// An array on a device.
#[repr(C)]
#[derive(Debug)]
pub struct ArrowDeviceArray {
    /// The buffers; ends all of it.
    pub array: ArrowArray,
    /// The device's ordinal, -1 for the CPU.
    pub device_id: i64,
    /// `ArrowDeviceType`, which is `DLDeviceType`.
    pub device_type: i32,
    /// On CUDA a pointer to a `cudaEvent_t` after which the buffers are there, or null.
    pub sync_event: *mut c_void,
    /// Zero.
    pub reserved: [i64; 3],
}

/// An array that was taken over, with the event of its producer.
pub(super) struct Array {
    array: ArrowArray,
    event: *mut c_void,
}

impl Array {
    /// The CUDA event after which the buffers are there.
    pub(super) fn sync_event(&self) -> Option<usize> {
        // SAFETY: not null, and a pointer to an event as long as the array is not released.
        (!self.event.is_null()).then(|| unsafe { *self.event.cast::<usize>() })
    }

    /// Releases it.
    ///
    /// # Safety
    /// Once.
    pub(super) unsafe fn end(&mut self) {
        if let Some(release) = self.array.release {
            // SAFETY: the array was moved here and is its only copy.
            unsafe { release(&mut self.array) };
        }
    }
}

/// One entry for each format that is a dtype.
const FORMATS: [(&CStr, u8, u8); 11] = [
    (c"c", 0, 8),
    (c"C", 1, 8),
    (c"s", 0, 16),
    (c"S", 1, 16),
    (c"i", 0, 32),
    (c"I", 1, 32),
    (c"l", 0, 64),
    (c"L", 1, 64),
    (c"e", 2, 16),
    (c"f", 2, 32),
    (c"g", 2, 64),
];

fn not_supported(why: impl Into<String>) -> Error {
    Error::new(GMB_ERROR_NOT_SUPPORTED, why)
}

/// What is read of an array and its type, level by level.
struct Numbers {
    data: u64,
    /// Elements before the first.
    first: i64,
    dtype: gmb_dtype,
    shape: Vec<i64>,
}

/// # Safety
/// Both are what the specification says.
unsafe fn read(array: &ArrowArray, schema: &ArrowSchema) -> Result<Numbers> {
    let (mut array, mut schema) = (array, schema);
    let overflow = || Error::new(GMB_ERROR_OVERFLOW, "the array's lengths exceed the address space");
    let mut first = 0i64;
    let mut needed = array.length;
    let mut shape = vec![array.length];
    loop {
        check_address("an array's format", schema.format as u64, 1)?;
        // SAFETY: not null, and ends with NUL.
        let format = unsafe { CStr::from_ptr(schema.format) };
        if array.length < 0 || array.offset < 0 || array.n_buffers < 1 {
            return Err(Error::argument(format!(
                "an array of {} elements behind {}, in {} buffers",
                array.length, array.offset, array.n_buffers
            )));
        }
        if !array.dictionary.is_null() || !schema.dictionary.is_null() {
            return Err(not_supported("an array with a dictionary is no tensor"));
        }
        check_address("an array's buffers", array.buffers as u64, 8)?;
        // SAFETY: not null, and of at least one pointer.
        let validity = unsafe { *array.buffers };
        if array.null_count > 0 || (array.null_count != 0 && !validity.is_null()) {
            return Err(not_supported("an array with nulls is no tensor: fill them first"));
        }
        // More than it has: of a list, what the level above reaches for.
        first = first.checked_add(array.offset).ok_or_else(overflow)?;
        if let Some(&(_, code, bits)) = FORMATS.iter().find(|(known, ..)| *known == format) {
            if array.n_buffers < 2 {
                return Err(Error::argument("an array of numbers has a buffer for its values"));
            }
            // SAFETY: of at least two pointers.
            let data = unsafe { *array.buffers.add(1) } as u64;
            return Ok(Numbers { data, first, dtype: gmb_dtype { code, bits, lanes: 1 }, shape });
        }
        let size = format.to_str().ok().and_then(|text| text.strip_prefix("+w:")).map(str::parse::<i64>);
        let Some(Ok(size)) = size else {
            return Err(not_supported(format!(
                "an array of format {format:?}: numbers, and lists of them of a fixed size, can be handed over"
            )));
        };
        if array.n_children != 1 || schema.n_children != 1 || size < 0 {
            return Err(Error::argument("a list of fixed size has one child"));
        }
        if shape.len() == GMB_MAX_DIMENSIONS as usize {
            return Err(not_supported(format!(
                "the array has more than {GMB_MAX_DIMENSIONS} dimensions, the most that can be handed over"
            )));
        }
        check_address("an array's children", array.children as u64, 8)?;
        check_address("a schema's children", schema.children as u64, 8)?;
        // SAFETY: each of one pointer.
        let (child, its_type) = unsafe { (*array.children, *schema.children) };
        check_address("an array's child", child as u64, 8)?;
        check_address("a schema's child", its_type as u64, 8)?;
        // SAFETY: not null, and what the specification says.
        (array, schema) = unsafe { (&*child, &*its_type) };
        first = first.checked_mul(size).ok_or_else(overflow)?;
        needed = needed.checked_mul(size).ok_or_else(overflow)?;
        shape.push(size);
        if first.checked_add(needed).is_none_or(|end| end > array.length) {
            return Err(Error::argument(format!(
                "a list's child has {} elements, and {needed} behind {first} are needed",
                array.length
            )));
        }
    }
}

impl Tensor {
    /// Takes over an array, as moved: on success it is marked as released where it was, and its schema, which is only read, is
    /// still the caller's; on an error both are. What is pushed waits for the array's `sync_event`.
    ///
    /// # Errors
    /// `NULL_POINTER`, `INVALID_ARGUMENT` (released already; lengths that do not fit; an event on the CPU), `NOT_SUPPORTED`
    /// (no tensor: other types, nulls, a dictionary, over eight dimensions), `OVERFLOW`.
    ///
    /// # Safety
    /// Null, or what the specification says, and the caller's.
    pub unsafe fn from_arrow(array: *mut ArrowDeviceArray, schema: *const ArrowSchema) -> Result<Self> {
        check_address("the array", array as u64, 8)?;
        check_address("the schema", schema as u64, 8)?;
        // SAFETY: not null, aligned, and the caller's.
        let (from, its_type) = unsafe { (&mut *array, &*schema) };
        if from.array.release.is_none() || its_type.release.is_none() {
            return Err(Error::argument("the array or its schema was released, or moved, before"));
        }
        if from.device_type == DL_CPU && !from.sync_event.is_null() {
            return Err(Error::argument("the array is on the CPU, where there is no event to wait for"));
        }
        // SAFETY: neither was released.
        let numbers = unsafe { read(&from.array, its_type)? };
        let bytes = i64::from(numbers.dtype.bits / 8);
        let byte_offset =
            numbers.first.checked_mul(bytes).map(|offset| offset as u64).ok_or_else(|| {
                Error::new(GMB_ERROR_OVERFLOW, "the array's offset exceeds the address space")
            })?;
        // What is no ordinal is none of ours.
        let device_id = match from.device_type {
            DL_CPU => 0,
            _ => i32::try_from(from.device_id).unwrap_or(-1),
        };
        let record = Shape { dtype: numbers.dtype, shape: &numbers.shape, strides: None, byte_offset }
            .record(numbers.data, (from.device_type, device_id), 0)?;
        // SAFETY: moved by the specification's rule: copied, and marked as released where it was.
        let moved = unsafe { std::ptr::read(&from.array) };
        from.array.release = None;
        Ok(Self::of(record, Owner::Arrow(Array { array: moved, event: from.sync_event })))
    }
}

impl Tensor {
    /// The array is the caller's again, where it was.
    ///
    /// # Safety
    /// `to` is what it came from, and nothing was put there since.
    pub(crate) unsafe fn undo_arrow(self, to: *mut ArrowDeviceArray) {
        if let Owner::Arrow(array) = self.owner() {
            // SAFETY: what was moved here is moved back, and not ended here.
            unsafe { (*to).array.release = array.array.release };
        }
        self.forget();
    }

    /// Ends the schema of an array that was taken.
    ///
    /// # Safety
    /// Both are what was given, and the schema is not released.
    pub(crate) unsafe fn end_schema_of(array: *const ArrowDeviceArray, schema: *mut ArrowSchema) {
        // SAFETY: promised by the caller.
        let release = unsafe { (*array).array.release.is_none().then_some((*schema).release).flatten() };
        if let Some(release) = release {
            // SAFETY: not released before.
            unsafe { release(schema) };
        }
    }
}

/// What an exported array or schema holds.
struct Level<T> {
    child: *mut T,
    children: [*mut T; 1],
    buffers: [*const c_void; 2],
    format: CString,
    /// Of the outermost array.
    event: Option<RawEvent>,
    held: Option<Arc<Held>>,
}

impl<T> Drop for Level<T> {
    fn drop(&mut self) {
        if let (Some(event), Some(held)) = (self.event, &self.held) {
            held.give_event_back(event);
        }
    }
}

impl<T> Level<T> {
    fn new(child: *mut T, held: Option<&Arc<Held>>) -> Box<Self> {
        Box::new(Self {
            child,
            children: [child],
            buffers: [null(); 2],
            format: CString::default(),
            event: None,
            held: held.cloned(),
        })
    }
}

/// What both structs have.
trait Releasable: Sized {
    fn parts(&mut self) -> (&mut Option<unsafe extern "C" fn(*mut Self)>, &mut *mut c_void);
}

impl Releasable for ArrowArray {
    fn parts(&mut self) -> (&mut Option<unsafe extern "C" fn(*mut Self)>, &mut *mut c_void) {
        (&mut self.release, &mut self.private_data)
    }
}

impl Releasable for ArrowSchema {
    fn parts(&mut self) -> (&mut Option<unsafe extern "C" fn(*mut Self)>, &mut *mut c_void) {
        (&mut self.release, &mut self.private_data)
    }
}

/// Called by whoever owns it, on any thread; a child that was moved out has no release any more.
unsafe extern "C" fn release<T: Releasable>(ended: *mut T) {
    if ended.is_null() || forked() {
        return;
    }
    // SAFETY: made here, and not released before.
    let (callback, private) = unsafe { (*ended).parts() };
    if callback.take().is_none() {
        return;
    }
    // SAFETY: `private_data` is the box of this level.
    let level = unsafe { Box::from_raw(private.cast::<Level<T>>()) };
    if !level.child.is_null() {
        // SAFETY: the child was boxed with its parent.
        let mut child = unsafe { Box::from_raw(level.child) };
        let end = *child.parts().0;
        if let Some(end) = end {
            // SAFETY: still the parent's.
            unsafe { end(&mut *child) };
        }
    }
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || drop(level)));
}

fn format_of(record: &gmb_tensor) -> Result<CString> {
    let dtype = record.dtype;
    let known =
        FORMATS.iter().find(|&&(_, code, bits)| (code, bits, 1) == (dtype.code, dtype.bits, dtype.lanes));
    known.map(|(format, ..)| (*format).to_owned()).ok_or_else(|| {
        not_supported(format!(
            "dtype {{code {}, bits {}, lanes {}}} has no type in Arrow",
            dtype.code, dtype.bits, dtype.lanes
        ))
    })
}

fn is_compact(record: &gmb_tensor) -> bool {
    let ndim = record.ndim as usize;
    // What no compact tensor can be is none.
    let Ok(wanted) = compact(record) else { return false };
    // The step of a dimension of one element is never taken.
    record.shape[..ndim].contains(&0)
        || (0..ndim).all(|i| record.shape[i] == 1 || record.strides[i] == wanted[i])
}

/// As an array and its type; both hold what they need.
pub(super) fn export(held: &Arc<Held>) -> Result<(ArrowDeviceArray, ArrowSchema)> {
    let record = held.record();
    let format = format_of(record)?;
    if !is_compact(record) {
        return Err(not_supported(
            "there are gaps between the tensor's elements: an array has none, copy it first",
        ));
    }
    let event = if record.device_type == DL_CPU {
        if let Some(produced) = held.produced() {
            held.context().backend().event_synchronize(produced)?;
        }
        None
    } else {
        Some(held.mark_first()?)
    };
    // A scalar is an array of one.
    let shape = if record.ndim == 0 { vec![1] } else { record.shape[..record.ndim as usize].to_vec() };
    let (mut array, mut schema) = (null_mut(), null_mut());
    let mut lengths = Vec::new();
    let mut length = 1i64;
    for &size in &shape {
        length *= size;
        lengths.push(length);
    }
    // From the innermost outwards.
    for level in (0..shape.len()).rev() {
        let innermost = level + 1 == shape.len();
        let mut arrays = Level::new(array, Some(held));
        arrays.buffers[1] = record.address.wrapping_add(record.byte_offset) as *const c_void;
        let mut types = Level::new(schema, None);
        types.format = match innermost {
            true => format.clone(),
            false => CString::new(format!("+w:{}", shape[level + 1])).unwrap_or_default(),
        };
        let children = i64::from(!innermost);
        array = Box::into_raw(Box::new(ArrowArray {
            length: lengths[level],
            null_count: 0,
            offset: 0,
            n_buffers: if innermost { 2 } else { 1 },
            n_children: children,
            buffers: arrays.buffers.as_mut_ptr(),
            children: if innermost { null_mut() } else { arrays.children.as_mut_ptr() },
            dictionary: null_mut(),
            release: Some(release::<ArrowArray>),
            private_data: Box::into_raw(arrays).cast(),
        }));
        schema = Box::into_raw(Box::new(ArrowSchema {
            format: types.format.as_ptr(),
            name: c"".as_ptr(),
            metadata: null(),
            flags: 0,
            n_children: children,
            children: if innermost { null_mut() } else { types.children.as_mut_ptr() },
            dictionary: null_mut(),
            release: Some(release::<ArrowSchema>),
            private_data: Box::into_raw(types).cast(),
        }));
    }
    // SAFETY: both were boxed just now; the outermost are moved out of their boxes.
    let (array, schema) = unsafe { (*Box::from_raw(array), *Box::from_raw(schema)) };
    let mut sync_event = null_mut();
    if let Some(event) = event {
        // SAFETY: the outermost level's box, which the array holds.
        let level = unsafe { &mut *array.private_data.cast::<Level<ArrowArray>>() };
        sync_event = (&raw mut level.event.insert(event).0).cast();
    }
    let device_id = if record.device_type == DL_CPU { -1 } else { i64::from(record.device_id) };
    Ok((
        ArrowDeviceArray { array, device_id, device_type: record.device_type, sync_event, reserved: [0; 3] },
        schema,
    ))
}
