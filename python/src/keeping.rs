//! What kernels use, kept until they are done.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pyo3::PyResult;

use crate::array::Memory;
use crate::context::{ended, nanoseconds, without_lock, Inner, Token, EMPTY};
use crate::dlpack::Managed;
use crate::error::check;
use crate::{ffi, streams::raw};

/// When that is.
pub enum Until {
    /// The result of the token's last operation is told.
    Told(Token),
    Reached(Reached),
}

/// What a stream held is done.
pub struct Reached(ffi::gmb_event);

impl Reached {
    pub fn new(context: &Inner, stream: usize) -> PyResult<Self> {
        let mut event = ffi::gmb_event { id: 0 };
        // SAFETY: it writes a handle.
        check(unsafe {
            ffi::gmb_event_create(context.handle_at_end(), ffi::GMB_EVENT_UNTIMED as i32, &mut event)
        })?;
        let made = Self(event);
        // SAFETY: checked by the library.
        check(unsafe { ffi::gmb_event_record(event, raw(stream)) })?;
        Ok(made)
    }
}

impl Drop for Reached {
    fn drop(&mut self) {
        // SAFETY: nobody has it any more.
        unsafe { ffi::gmb_event_destroy(self.0) };
    }
}

impl Until {
    fn is_past(&self) -> bool {
        match self {
            Self::Told(token) => token.is_told(),
            // SAFETY: checked by the library.
            Self::Reached(event) => unsafe { ffi::gmb_event_query(event.0) == 0 },
        }
    }

    /// Blocks for a while: whether it is so then.
    fn wait(&self) -> bool {
        let limit = nanoseconds(Duration::from_secs(10));
        // SAFETY: checked by the library; it writes a result.
        let told = without_lock(|| unsafe {
            match self {
                Self::Told(token) => {
                    ffi::gmb_token_wait(token.handle, token.epoch.saturating_sub(1), limit, &mut { EMPTY })
                }
                Self::Reached(event) => ffi::gmb_event_synchronize(event.0, limit),
            }
        });
        told == 0
    }
}

/// What it is: arrays that were given, and memory of the package's own; held, and not looked into.
#[allow(dead_code)]
pub struct What {
    pub given: [Option<Managed>; 3],
    pub made: [Option<Arc<Memory>>; 2],
    /// All of it, so that little is not looked after at each call.
    pub bytes: u64,
}

/// Less is not looked after, nor are fewer operations.
const WORTH_A_LOOK: u64 = 1 << 20;
const OPERATIONS: usize = 16;

#[derive(Default)]
struct Kept {
    /// In the order of the operations.
    all: VecDeque<(Until, What)>,
    bytes: u64,
}

#[derive(Default)]
pub struct Keeping(Mutex<Kept>);

impl Keeping {
    /// Gives back what is no longer used, too, where there is much.
    pub fn keep(&self, context: &Arc<Inner>, until: Until, what: What) {
        let much = {
            let mut kept = self.0.lock().unwrap_or_else(|p| p.into_inner());
            kept.bytes += what.bytes;
            kept.all.push_back((until, what));
            kept.bytes >= WORTH_A_LOOK || kept.all.len() >= OPERATIONS
        };
        if much {
            self.look(context);
        }
    }

    /// Until what the stream holds now is done.
    pub fn keep_until_reached(&self, context: &Arc<Inner>, stream: usize, what: What) -> PyResult<()> {
        match Reached::new(context, stream) {
            Ok(reached) => self.keep(context, Until::Reached(reached), what),
            Err(error) => {
                // Nobody will say when that is.
                std::mem::forget(what);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Gives back what is no longer used.
    pub fn look(&self, context: &Arc<Inner>) {
        // One at a time: what is given back may run anything.
        while let Some((until, what)) = self.next() {
            if let Until::Told(token) = until {
                context.keep(token);
            }
            drop(what);
        }
    }

    fn next(&self) -> Option<(Until, What)> {
        let mut kept = self.0.lock().unwrap_or_else(|p| p.into_inner());
        if !kept.all.front().is_some_and(|(until, _)| until.is_past()) {
            return None;
        }
        let first = kept.all.pop_front()?;
        kept.bytes -= first.1.bytes;
        Some(first)
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        for kept in std::mem::take(&mut self.0.get_mut().unwrap_or_else(|p| p.into_inner()).all) {
            // Never freed under a kernel.
            if ended() || !kept.0.wait() {
                std::mem::forget(kept);
            }
        }
    }
}
