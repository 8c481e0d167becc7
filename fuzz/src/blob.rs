//! Host memory of exact size, so that one byte too many is seen.

use std::alloc::{alloc, dealloc, Layout};
use std::ffi::c_void;

use crate::input::Input;

/// Nothing that the library writes by chance.
pub const POISON: u8 = 0xA5;

extern "C" {
    fn __asan_poison_memory_region(start: *const c_void, bytes: usize);
    fn __asan_unpoison_memory_region(start: *const c_void, bytes: usize);
}

/// Makes touching the range an error, for all that is instrumented.
pub fn forbid(start: u64, bytes: usize) {
    // SAFETY: the caller's memory; only its shadow changes.
    unsafe { __asan_poison_memory_region(start as *const c_void, bytes) };
}

pub fn allow(start: u64, bytes: usize) {
    // SAFETY: as above.
    unsafe { __asan_unpoison_memory_region(start as *const c_void, bytes) };
}

pub struct Blob {
    start: *mut u8,
    layout: Layout,
}

impl Blob {
    pub fn new(bytes: usize) -> Self {
        let layout = Layout::from_size_align(bytes.max(1), 16).expect("blobs are small");
        // SAFETY: at least one byte.
        let start = unsafe { alloc(layout) };
        assert!(!start.is_null());
        // SAFETY: it was allocated with this size.
        unsafe { start.write_bytes(POISON, layout.size()) };
        Self { start, layout }
    }

    pub fn of<T: Copy>(values: &[T]) -> Self {
        let mut blob = Self::new(size_of_val(values));
        // SAFETY: plain values of the header's structs.
        let bytes = unsafe { std::slice::from_raw_parts(values.as_ptr().cast::<u8>(), size_of_val(values)) };
        blob.bytes_mut()[..bytes.len()].copy_from_slice(bytes);
        blob
    }

    /// A struct that begins with its size; sometimes of another library, sometimes damaged.
    pub fn sized<T: Copy>(value: T, input: &mut Input) -> (Self, bool) {
        let size = size_of::<T>();
        if !input.chance(12) {
            let mut blob = Self::of(&[value]);
            blob.bytes_mut()[..4].copy_from_slice(&(size as u32).to_ne_bytes());
            return (blob, true);
        }
        let near = size as u64 + input.below(3) as u64;
        let told = input.spoil(near, 128) as u32;
        let plausible = (told as usize) >= size && told <= 4096;
        let mut blob = Self::new(if plausible { told as usize } else { size });
        let whole = Self::of(&[value]);
        blob.bytes_mut().fill(0);
        blob.bytes_mut()[..size].copy_from_slice(whole.bytes());
        blob.bytes_mut()[..4].copy_from_slice(&told.to_ne_bytes());
        let mut good = plausible;
        if plausible && told as usize > size && input.chance(128) {
            *blob.bytes_mut().last_mut().expect("not empty") = 1;
            good = false;
        }
        (blob, good)
    }

    pub fn bytes(&self) -> &[u8] {
        // SAFETY: it was allocated with this size and is always initialised.
        unsafe { std::slice::from_raw_parts(self.start, self.layout.size()) }
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.layout.size()) }
    }

    pub fn pointer<T>(&self) -> *mut T {
        self.start.cast()
    }

    pub fn is_untouched(&self) -> bool {
        self.bytes().iter().all(|&byte| byte == POISON)
    }
}

impl Drop for Blob {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, once.
        unsafe { dealloc(self.start, self.layout) };
    }
}

/// Where a call writes one value.
pub struct Out<T> {
    blob: Blob,
    at: *mut T,
    /// Null and crooked pointers are not.
    pub good: bool,
}

impl<T: Copy> Out<T> {
    pub fn new(input: &mut Input) -> Self {
        if !input.chance(6) {
            return Self::good();
        }
        if input.chance(128) {
            return Self { blob: Blob::new(1), at: std::ptr::null_mut(), good: false };
        }
        let blob = Blob::new(size_of::<T>() + 1);
        let at = blob.pointer::<u8>().wrapping_add(1).cast();
        Self { blob, at, good: align_of::<T>() == 1 }
    }

    pub fn good() -> Self {
        let blob = Blob::new(size_of::<T>());
        Self { at: blob.pointer(), blob, good: true }
    }

    pub fn pointer(&self) -> *mut T {
        self.at
    }

    /// What was written by a call that succeeded; after any other, nothing was.
    pub fn take(&self, status: i32) -> Option<T> {
        if status != 0 {
            assert!(self.blob.is_untouched(), "an output was written by a call that gave {status}");
            return None;
        }
        assert!(self.good, "a bad pointer for an output was accepted");
        // SAFETY: aligned, and the library wrote it, or it is still POISON: any bits are valid.
        Some(unsafe { self.at.read() })
    }
}

/// An info struct of any size: cut off, or filled with zeros.
pub fn info<T: Copy>(input: &mut Input, call: impl FnOnce(*mut T, usize) -> i32) -> Option<T> {
    let whole = size_of::<T>();
    let size = input.spoil(whole as u64, 16) as usize;
    let blob = Blob::new(if size <= 4096 { size } else { whole });
    let null = input.chance(4);
    let at = if null { std::ptr::null_mut() } else { blob.pointer() };
    let status = call(at, size);
    if status != 0 {
        assert!(blob.is_untouched(), "an info was written by a call that gave {status}");
        return None;
    }
    assert!(!null && (1..=4096).contains(&size), "info_size {size} was accepted");
    assert!(blob.bytes().iter().skip(whole).all(|&byte| byte == 0), "the rest of an info is not zero");
    // SAFETY: it has at least the struct's size, and any bits are valid.
    (size >= whole).then(|| unsafe { blob.pointer::<T>().read() })
}
