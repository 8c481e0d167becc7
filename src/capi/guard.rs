//! `gmb_stream_guard`.

use super::boundary::boundary;
use super::context::gmb_context;
use super::stream::{gmb_stream, stream};
use super::{output, CONTEXTS, GUARDS};
use crate::guard::GuardCore;
use crate::status::*;

/// Handle of a stream guard: while it lives, its stream is `GMB_STREAM_CURRENT` on the thread
/// that made it. Zero is null.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_stream_guard {
    /// Opaque.
    pub id: u64,
}

/// Makes a stream current for this thread: `GMB_STREAM_CURRENT` then means it in calls on objects of
/// the same device, and on CUDA its context is current. Guards nest, up to 64 on a thread. The
/// caller owns the guard and ends it on the same thread with `gmb_stream_guard_destroy`; a thread
/// that exits without doing so leaks it. Without a guard `GMB_STREAM_CURRENT` is the legacy default
/// stream. The stream must outlive the guard. Never blocks; thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_INVALID_STREAM`, `_OVERFLOW` (64 are held), `_DEVICE_LOST`.
#[no_mangle]
pub extern "C" fn gmb_stream_guard_create(
    context: gmb_context,
    stream: gmb_stream,
    guard: *mut gmb_stream_guard,
) -> gmb_status {
    boundary(|| {
        let out = output(guard, "guard")?;
        let core = GuardCore::new(&*CONTEXTS.get(context.id)?, self::stream(stream))?;
        out.write(gmb_stream_guard { id: GUARDS.insert(core)? });
        Ok(())
    })
}

/// Puts back the stream and the CUDA context that were current before. A guard that ends before
/// an inner one takes effect when that has ended, too. Never blocks; on the thread that made it, and no other.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_WRONG_THREAD` (the guard stays in force on its thread).
#[no_mangle]
pub extern "C" fn gmb_stream_guard_destroy(guard: gmb_stream_guard) -> gmb_status {
    boundary(|| {
        GUARDS.get(guard.id)?.end()?;
        GUARDS.remove(guard.id)
    })
}
