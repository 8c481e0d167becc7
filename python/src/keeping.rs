//! What kernels use, kept until they are done.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pyo3::PyResult;

use crate::context::{ended, nanoseconds, without_lock, Inner, Token, EMPTY};
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

type What = Vec<Box<dyn Any + Send>>;

/// In the order of the operations.
#[derive(Default)]
pub struct Keeping(Mutex<VecDeque<(Until, What)>>);

impl Keeping {
    pub fn keep(&self, until: Until, what: What) {
        self.0.lock().unwrap_or_else(|p| p.into_inner()).push_back((until, what));
    }

    /// Until what the stream holds now is done.
    pub fn keep_until_reached(&self, context: &Arc<Inner>, stream: usize, what: What) -> PyResult<()> {
        match Reached::new(context, stream) {
            Ok(reached) => self.keep(Until::Reached(reached), what),
            Err(error) => {
                // Nobody will say when that is.
                std::mem::forget(what);
                return Err(error);
            }
        }
        self.look(context);
        Ok(())
    }

    /// Gives back what is no longer used.
    pub fn look(&self, context: &Arc<Inner>) {
        let mut done = Vec::new();
        {
            let mut kept = self.0.lock().unwrap_or_else(|p| p.into_inner());
            while kept.front().is_some_and(|(until, _)| until.is_past()) {
                done.extend(kept.pop_front());
            }
        }
        for (until, what) in done {
            if let Until::Told(token) = until {
                context.keep(token);
            }
            drop(what);
        }
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        for kept in std::mem::take(self.0.get_mut().unwrap_or_else(|p| p.into_inner())) {
            // Never freed under a kernel.
            if ended() || !kept.0.wait() {
                std::mem::forget(kept);
            }
        }
    }
}
