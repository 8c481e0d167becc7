//! What kernels use, kept until they are done.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pyo3::PyResult;

use crate::context::ContextHandle;
use crate::dlpack::Managed;
use crate::events::Point;
use crate::interpreter::{ended, without_lock};
use crate::lock;
use crate::memory::Memory;
use crate::token::Token;
use crate::waiting::nanoseconds;

/// When that is.
pub enum Until {
    /// The result of the token's last operation is told.
    Told(Token),
    /// What its stream held is done.
    Reached(Point),
}

impl Until {
    fn is_past(&self) -> bool {
        match self {
            Self::Told(token) => token.is_told(),
            Self::Reached(point) => point.is_past(),
        }
    }

    /// Blocks for a while: whether it is so then.
    fn wait(&self) -> bool {
        let limit = nanoseconds(Duration::from_secs(10));
        let told = without_lock(|| match self {
            Self::Told(token) => token.wait_told(limit),
            Self::Reached(point) => point.wait(limit),
        });
        told == 0
    }
}

/// Anything else.
pub type Kept = Box<dyn Send + Sync>;

/// What it is: arrays that were given, and memory of the package's own; held, and not looked into.
#[allow(dead_code)]
#[derive(Default)]
pub struct What {
    pub given: [Option<Managed>; 3],
    pub made: [Option<Arc<Memory>>; 2],
    pub more: Vec<Kept>,
    /// All of it, so that little is not looked after at each call.
    pub bytes: u64,
}

/// A look is worth it when so much has come since the last one: it reads what the device writes.
const BYTES: u64 = 1 << 20;
const OPERATIONS: usize = 16;

#[derive(Default)]
struct All {
    /// In the order of the operations.
    all: VecDeque<(Until, What)>,
    /// Come since the last look.
    bytes: u64,
    operations: usize,
}

#[derive(Default)]
pub struct Keeping(Mutex<All>);

impl Keeping {
    /// Gives back what is no longer used, too, where much has come.
    pub fn keep(&self, context: &Arc<ContextHandle>, until: Until, what: What) {
        let much = {
            let mut kept = lock(&self.0);
            kept.bytes += what.bytes;
            kept.operations += 1;
            kept.all.push_back((until, what));
            kept.bytes >= BYTES || kept.operations >= OPERATIONS
        };
        if much {
            self.look(context);
        }
    }

    /// Until what the stream holds now is done.
    pub fn keep_until_reached(
        &self,
        context: &Arc<ContextHandle>,
        stream: usize,
        what: What,
    ) -> PyResult<()> {
        match Point::of(context, stream) {
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
    pub fn look(&self, context: &Arc<ContextHandle>) {
        {
            let mut kept = lock(&self.0);
            (kept.bytes, kept.operations) = (0, 0);
        }
        // One at a time: what is given back may run anything.
        while let Some((until, what)) = self.next() {
            if let Until::Told(token) = until {
                context.keep(token);
            }
            drop(what);
        }
    }

    fn next(&self) -> Option<(Until, What)> {
        let mut kept = lock(&self.0);
        if !kept.all.front().is_some_and(|(until, _)| until.is_past()) {
            return None;
        }
        kept.all.pop_front()
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
