//! Ranges that NVIDIA's profilers show (NVTX, domain `gpumailbox`). Built without the toolkit's headers, or run
//! without a profiler, they are nothing.

use std::ffi::CStr;

#[cfg(gmb_nvtx)]
extern "C" {
    fn gmb_profiler_begin(name: *const std::ffi::c_char) -> i32;
    fn gmb_profiler_end();
}

/// From its making to its end, on one thread.
#[must_use]
pub(crate) struct Range {
    #[cfg(gmb_nvtx)]
    begun: bool,
    _on_this_thread: std::marker::PhantomData<*const ()>,
}

impl Range {
    #[inline]
    pub(crate) fn new(name: &'static CStr) -> Self {
        #[cfg(not(gmb_nvtx))]
        let _ = name;
        Self {
            // SAFETY: the name ends with NUL and stays.
            #[cfg(gmb_nvtx)]
            begun: unsafe { gmb_profiler_begin(name.as_ptr()) } != 0,
            _on_this_thread: std::marker::PhantomData,
        }
    }
}

#[cfg(gmb_nvtx)]
impl Drop for Range {
    fn drop(&mut self) {
        if self.begun {
            // SAFETY: the range was begun by this thread, and those within it have ended.
            unsafe { gmb_profiler_end() };
        }
    }
}
