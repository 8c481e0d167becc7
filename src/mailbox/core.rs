//! What a mailbox shares with its graphs, watches and the kernels under way.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::attach::{read_header, Ring};
use super::readers::Readers;
use super::side::Side;
use super::FullPolicy;
use crate::backend::CaptureId;
use crate::context::Context;
use crate::graph::{Hold, Part};
use crate::status::GMB_OK;
use crate::sync::lock;

pub(super) struct Core {
    pub(super) context: Context,
    pub(super) full_policy: FullPolicy,
    pub(super) single_stream: bool,
    pub(super) capacity: u64,
    pub(super) push: Side,
    pub(super) readers: Readers,
    pub(super) ring: Ring,
    pub(super) closed: AtomicBool,
    /// The capture that was given this to hold last; zero before the first.
    pub(super) captured: AtomicU64,
}

impl Core {
    /// True when operations were captured: then nobody knows how many will have run, or when.
    pub(super) fn is_captured(&self) -> bool {
        self.captured.load(Ordering::Acquire) != 0
    }

    /// Notes a capture; false when it was the last one noted.
    pub(super) fn note_capture(&self, capture: CaptureId) -> bool {
        self.captured.swap(capture, Ordering::AcqRel) != capture
    }

    /// Waits for all that was enqueued; a lost device answers at once.
    pub(super) fn finish(&self) {
        let captured = self.is_captured();
        let stopped = || read_header(&self.context, self.ring.address).is_ok_and(|h| h.fault != GMB_OK);
        let _ = self.push.finish(captured, stopped);
        for side in self.readers.all() {
            let _ = side.finish(captured, stopped);
        }
    }
}

impl Part for Core {
    fn hold(&self) -> Box<dyn Hold + '_> {
        // In the order in which letting a reader in takes them.
        let push = lock(&self.push.submission);
        let pops: Vec<_> = self.readers.all().map(|side| lock(&side.submission)).collect();
        Box::new((push, pops))
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        // The ring must outlive its kernels.
        self.finish();
        if self.ring.owned {
            // SAFETY: every operation is done, and no other work may use the ring.
            let _ = unsafe { self.context.free_ring(self.ring.address) };
        }
    }
}
