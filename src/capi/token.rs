//! `gmb_token`.

use super::boundary::{boundary, boundary_status};
use super::context::gmb_context;
use super::{output, timeout, CONTEXTS, TOKENS};
use crate::error::Error;
use crate::layout::gmb_result;
use crate::status::*;
use crate::{After, Token};

/// Handle of a token: holds the result of one operation at a time. Zero is null.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_token {
    /// Opaque.
    pub id: u64,
}

/// Waits without limit, as a timeout in nanoseconds.
pub const GMB_WAIT_FOREVER: u64 = u64::MAX;

/// As `after_epoch`: wait for the operation that was submitted last with the token.
pub const GMB_EPOCH_LAST: u64 = u64::MAX;

/// Makes a token for the operations of one context, to be used again and again.
/// The caller owns it and ends it with `gmb_token_destroy`. May block; thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_OUT_OF_MEMORY`, `_OUT_OF_HOST_MEMORY`, `_DEVICE_LOST`.
#[no_mangle]
pub extern "C" fn gmb_token_create(context: gmb_context, token: *mut gmb_token) -> gmb_status {
    boundary(|| {
        let out = output(token, "token")?;
        let context = CONTEXTS.get(context.id)?;
        out.write(gmb_token { id: TOKENS.insert(Token::new(&context)?)? });
        Ok(())
    })
}

/// Ends a token, also while its operation is under way: nothing leaks and the operation goes on.
/// Does not block, unless it is the last of a context whose handle is gone; thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`.
#[no_mangle]
pub extern "C" fn gmb_token_destroy(token: gmb_token) -> gmb_status {
    boundary(|| TOKENS.remove(token.id))
}

/// Asks for the result of the operation submitted last with the token: `GMB_OK` when it is
/// ready, else `GMB_NOT_READY`, and then `result` is not written. *Ready* means that the
/// records are where they should be; ready with a count of 0 means that there was nothing, or no room.
/// Never blocks and asks no driver; thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_INVALID_ARGUMENT` (never used).
#[no_mangle]
pub extern "C" fn gmb_token_poll(token: gmb_token, result: *mut gmb_result) -> gmb_status {
    boundary_status(|| {
        let out = output(result, "result")?;
        Ok(match TOKENS.get(token.id)?.poll()? {
            Some(value) => {
                out.write(value);
                GMB_OK
            }
            None => GMB_NOT_READY,
        })
    })
}

/// Blocks the calling thread until there is a result later than `after_epoch`, or that of the
/// operation submitted last (`GMB_EPOCH_LAST`). Spins, then yields, then sleeps.
/// `timeout_ns` is in nanoseconds; `GMB_WAIT_FOREVER` waits without limit, 0 asks once. Thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_INVALID_ARGUMENT` (never used, or no epoch),
/// `_TIMEOUT` (nothing is lost, wait again), `_DEVICE_LOST`.
#[no_mangle]
pub extern "C" fn gmb_token_wait(
    token: gmb_token,
    after_epoch: u64,
    timeout_ns: u64,
    result: *mut gmb_result,
) -> gmb_status {
    boundary(|| {
        let out = output(result, "result")?;
        let after = match u32::try_from(after_epoch) {
            Ok(epoch) => After::Epoch(epoch),
            Err(_) if after_epoch == GMB_EPOCH_LAST => After::Submission,
            Err(_) => return Err(Error::argument(format!("after_epoch {after_epoch} is no epoch"))),
        };
        out.write(TOKENS.get(token.id)?.wait(after, timeout(timeout_ns))?);
        Ok(())
    })
}

/// Address of the token's `gmb_result` in device memory, for kernels and graphs: written in the
/// order of the operation's stream, `epoch` last. Valid as long as the token.
/// Never blocks; thread-safe. Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`.
#[no_mangle]
pub extern "C" fn gmb_token_get_device_result(
    token: gmb_token,
    result: *mut *const gmb_result,
) -> gmb_status {
    boundary(|| {
        let out = output(result, "result")?;
        out.write(TOKENS.get(token.id)?.device_result() as *const gmb_result);
        Ok(())
    })
}
