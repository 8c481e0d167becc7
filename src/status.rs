//! Status codes. Numbers are stable; a retired number is never used again.

/// Result of every function: `GMB_OK`, `GMB_NOT_READY` or a negative error.
#[allow(non_camel_case_types)]
pub type gmb_status = i32;

macro_rules! statuses {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $text:literal;)*) => {
        /// The name of a status constant, such as `GMB_ERROR_BUSY`, NUL-terminated.
        pub(crate) fn status_name_c(status: gmb_status) -> &'static std::ffi::CStr {
            const fn terminated(name: &'static str) -> &'static std::ffi::CStr {
                match std::ffi::CStr::from_bytes_with_nul(name.as_bytes()) {
                    Ok(name) => name,
                    Err(_) => c"",
                }
            }
            match status {
                $($value => const { terminated(concat!(stringify!($name), "\0")) },)*
                _ => c"GMB_ERROR_UNKNOWN",
            }
        }

        /// The name of a status constant.
        pub(crate) fn status_name(status: gmb_status) -> &'static str {
            status_name_c(status).to_str().unwrap_or_default()
        }

        /// A static sentence for a status, NUL-terminated.
        pub(crate) fn status_text(status: gmb_status) -> &'static std::ffi::CStr {
            match status {
                $($value => $text,)*
                _ => c"unknown status",
            }
        }

        #[cfg(test)]
        pub(crate) const ALL: &[(gmb_status, gmb_status)] = &[$(($name, $value)),*];
    };
}

// cbindgen cannot see into macros: the constants stand alone, and a test ties
// them to the table below.

/// Success.
pub const GMB_OK: gmb_status = 0;
/// Not an error: the result has not been written yet; ask again or wait.
pub const GMB_NOT_READY: gmb_status = 1;
/// A handle is zero, stale, of another type or was never given out.
pub const GMB_ERROR_INVALID_HANDLE: gmb_status = -1;
/// A required pointer is null.
pub const GMB_ERROR_NULL_POINTER: gmb_status = -2;
/// An argument is out of its range; the message names it.
pub const GMB_ERROR_INVALID_ARGUMENT: gmb_status = -3;
/// A pointer or stride is not a multiple of the alignment it needs.
pub const GMB_ERROR_MISALIGNED: gmb_status = -4;
/// Two memory ranges overlap that must not.
pub const GMB_ERROR_OVERLAP: gmb_status = -5;
/// A size computed from the arguments does not fit.
pub const GMB_ERROR_OVERFLOW: gmb_status = -6;
/// `struct_size` is none that this library knows, or unknown fields are set.
pub const GMB_ERROR_STRUCT_SIZE: gmb_status = -7;
/// This backend, device or combination cannot do it; the message says why.
pub const GMB_ERROR_NOT_SUPPORTED: gmb_status = -8;
/// The token still waits for its last operation.
pub const GMB_ERROR_BUSY: gmb_status = -9;
/// The time given ran out; nothing was lost, wait again.
pub const GMB_ERROR_TIMEOUT: gmb_status = -10;
/// A record's length exceeds the mailbox's payload size.
pub const GMB_ERROR_BAD_LENGTH: gmb_status = -11;
/// The mailbox header in device memory does not begin with `GMB_MAGIC`.
pub const GMB_ERROR_BAD_MAGIC: gmb_status = -12;
/// A mailbox header, or a DLPack tensor, has another layout version than this library reads.
pub const GMB_ERROR_BAD_VERSION: gmb_status = -13;
/// Two operations of one side ran at once; the mailbox is stopped for good.
pub const GMB_ERROR_ORDER_VIOLATION: gmb_status = -14;
/// A slot or a header does not hold what it should: something else wrote there.
pub const GMB_ERROR_CORRUPT: gmb_status = -15;
/// Device memory is exhausted.
pub const GMB_ERROR_OUT_OF_MEMORY: gmb_status = -16;
/// Host memory is exhausted.
pub const GMB_ERROR_OUT_OF_HOST_MEMORY: gmb_status = -17;
/// No CUDA driver library on this machine.
pub const GMB_ERROR_NO_DRIVER: gmb_status = -18;
/// The driver reports no usable device.
pub const GMB_ERROR_NO_DEVICE: gmb_status = -19;
/// The driver library found is the toolkit's link-time stub.
pub const GMB_ERROR_STUB_DRIVER: gmb_status = -20;
/// The driver is older than the toolkit this library was built with needs.
pub const GMB_ERROR_DRIVER_TOO_OLD: gmb_status = -21;
/// The library was built without CUDA kernels.
pub const GMB_ERROR_NO_KERNELS: gmb_status = -22;
/// No device has this ordinal, or a tensor lies on another device than the mailbox is for.
pub const GMB_ERROR_INVALID_DEVICE: gmb_status = -23;
/// The stream is unknown, destroyed, or belongs to another device or context.
pub const GMB_ERROR_INVALID_STREAM: gmb_status = -24;
/// The device or its context is lost; everything can still be destroyed.
pub const GMB_ERROR_DEVICE_LOST: gmb_status = -25;
/// The CUDA driver refused a call; the message holds its words.
pub const GMB_ERROR_DRIVER: gmb_status = -26;
/// This process is a fork of one that used the library; only the parent may go on.
pub const GMB_ERROR_FORKED: gmb_status = -27;
/// A fault in the library itself, caught at the boundary.
pub const GMB_ERROR_PANIC: gmb_status = -28;
/// `max` or `count` is zero: there is nothing to do.
pub const GMB_ERROR_ZERO_COUNT: gmb_status = -29;
/// The operating system refused a thread or another resource.
pub const GMB_ERROR_SYSTEM: gmb_status = -30;
/// The allocation would exceed the limit that the context was made with.
pub const GMB_ERROR_MEMORY_LIMIT: gmb_status = -31;
/// The call belongs to another thread than the one that made it.
pub const GMB_ERROR_WRONG_THREAD: gmb_status = -32;
/// The memory is smaller than the mailbox in it, or for it.
pub const GMB_ERROR_TRUNCATED: gmb_status = -33;
/// The stream is not being captured, or is already, or its capture was spoilt: there is no graph.
pub const GMB_ERROR_CAPTURE: gmb_status = -34;
/// A tensor mailbox, a doorbell or a coordinator is full.
pub const GMB_ERROR_FULL: gmb_status = -35;
/// The mailbox is in another mode than the code that uses it is for: `GMB_MODE_*`.
pub const GMB_ERROR_WRONG_MODE: gmb_status = -36;
/// Nobody has done the command: what served the doorbell has ended.
pub const GMB_ERROR_NOT_SERVED: gmb_status = -37;
/// The command was cancelled before it was done.
pub const GMB_ERROR_CANCELLED: gmb_status = -38;
/// No buffer has come to the step that asks for one.
pub const GMB_ERROR_UNAVAILABLE: gmb_status = -39;
/// The buffer is not in the state that the call needs.
pub const GMB_ERROR_WRONG_STATE: gmb_status = -40;
/// There is nothing of this name.
pub const GMB_ERROR_NOT_FOUND: gmb_status = -41;
/// The elements are of another type.
pub const GMB_ERROR_WRONG_TYPE: gmb_status = -42;
/// Operations wait for each other in a circle.
pub const GMB_ERROR_CYCLE: gmb_status = -43;
/// A function of the caller's failed, and said nothing more: in C++, Rust or Python by an exception or a panic.
pub const GMB_ERROR_CALLBACK: gmb_status = -44;

statuses! {
    GMB_OK = 0, c"success";
    GMB_NOT_READY = 1, c"not ready yet: poll again or wait";
    GMB_ERROR_INVALID_HANDLE = -1, c"invalid handle: zero, stale, of another type or never given out";
    GMB_ERROR_NULL_POINTER = -2, c"a required pointer is null";
    GMB_ERROR_INVALID_ARGUMENT = -3, c"an argument is out of its range";
    GMB_ERROR_MISALIGNED = -4, c"a pointer or stride is not aligned as required";
    GMB_ERROR_OVERLAP = -5, c"two memory ranges overlap that must not";
    GMB_ERROR_OVERFLOW = -6, c"a size computed from the arguments does not fit";
    GMB_ERROR_STRUCT_SIZE = -7, c"struct_size is unknown or unknown fields are set: use the initializer";
    GMB_ERROR_NOT_SUPPORTED = -8, c"not supported here";
    GMB_ERROR_BUSY = -9, c"the token still waits for its last operation";
    GMB_ERROR_TIMEOUT = -10, c"timed out: nothing was lost, wait again";
    GMB_ERROR_BAD_LENGTH = -11, c"a record's length exceeds the mailbox's payload size";
    GMB_ERROR_BAD_MAGIC = -12, c"the mailbox header does not begin with the magic number";
    GMB_ERROR_BAD_VERSION = -13, c"a mailbox header or a DLPack tensor of another layout version";
    GMB_ERROR_ORDER_VIOLATION = -14, c"two operations of one side ran at once; the mailbox is stopped";
    GMB_ERROR_CORRUPT = -15, c"a slot or a header does not hold what it should";
    GMB_ERROR_OUT_OF_MEMORY = -16, c"out of device memory";
    GMB_ERROR_OUT_OF_HOST_MEMORY = -17, c"out of host memory";
    GMB_ERROR_NO_DRIVER = -18, c"no CUDA driver library: install the NVIDIA driver or use the host backend";
    GMB_ERROR_NO_DEVICE = -19, c"no CUDA device: check CUDA_VISIBLE_DEVICES or use the host backend";
    GMB_ERROR_STUB_DRIVER = -20, c"the CUDA driver library is the toolkit's stub: take its folder off the library path";
    GMB_ERROR_DRIVER_TOO_OLD = -21, c"the CUDA driver is too old for this build: update it or rebuild with an older toolkit";
    GMB_ERROR_NO_KERNELS = -22, c"built without CUDA kernels: rebuild with GMB_CUDA=ON or use the host backend";
    GMB_ERROR_INVALID_DEVICE = -23, c"no device has this ordinal, or a tensor lies on another one";
    GMB_ERROR_INVALID_STREAM = -24, c"the stream is unknown, destroyed, or of another device or context";
    GMB_ERROR_DEVICE_LOST = -25, c"the device or its context is lost: destroy everything and restart";
    GMB_ERROR_DRIVER = -26, c"the CUDA driver refused a call";
    GMB_ERROR_FORKED = -27, c"this process was forked after the library was used: use it in the parent, or exec";
    GMB_ERROR_PANIC = -28, c"a fault in the library, caught at its boundary: please report it";
    GMB_ERROR_ZERO_COUNT = -29, c"count or max is zero";
    GMB_ERROR_SYSTEM = -30, c"the operating system refused a thread or another resource";
    GMB_ERROR_MEMORY_LIMIT = -31, c"the context's memory limit is reached: free memory, or raise the limit";
    GMB_ERROR_WRONG_THREAD = -32, c"called on another thread than the object belongs to";
    GMB_ERROR_TRUNCATED = -33, c"the memory is smaller than the mailbox takes";
    GMB_ERROR_CAPTURE = -34, c"the stream is not being captured, or is already, or its capture was spoilt";
    GMB_ERROR_FULL = -35, c"full: take out what is there, or use another full policy";
    GMB_ERROR_WRONG_MODE = -36, c"the mailbox is in another mode than the code that uses it is for";
    GMB_ERROR_NOT_SERVED = -37, c"nobody has done the command: what served the doorbell has ended";
    GMB_ERROR_CANCELLED = -38, c"the command was cancelled before it was done";
    GMB_ERROR_UNAVAILABLE = -39, c"no buffer has come to this step: submit the step before, or try again later";
    GMB_ERROR_WRONG_STATE = -40, c"the buffer is not in the state that the call needs";
    GMB_ERROR_NOT_FOUND = -41, c"there is nothing of this name";
    GMB_ERROR_WRONG_TYPE = -42, c"the elements are of another type";
    GMB_ERROR_CYCLE = -43, c"operations wait for each other in a circle";
    GMB_ERROR_CALLBACK = -44, c"a function of the caller's failed, by an exception or a panic";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_a_text_and_a_name_of_its_own() {
        let mut names = std::collections::HashSet::new();
        for &(constant, value) in ALL {
            assert_eq!(constant, value);
            assert!(names.insert(status_name(value)), "{value} named twice");
            assert!(!status_text(value).to_bytes().is_empty());
        }
        assert_eq!(status_name(-9999), "GMB_ERROR_UNKNOWN");
    }
}
