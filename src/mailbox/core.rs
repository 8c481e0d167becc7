//! What a mailbox shares with its graphs, watches and the kernels under way.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use super::attach::{read_header, Ring};
use super::borrow::Borrows;
use super::readers::Readers;
use super::shared::Shared;
use super::side::{Side, Submitted};
use super::{FullPolicy, Mode};
use crate::backend::args::gmb_geometry_args;
use crate::backend::CaptureId;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::graph::{Hold, Part};
use crate::status::{GMB_ERROR_DEVICE_LOST, GMB_ERROR_NOT_SUPPORTED, GMB_OK};
use crate::sync::lock;

pub(super) struct Core {
    pub(super) context: Context,
    pub(super) full_policy: FullPolicy,
    pub(super) single_stream: bool,
    pub(super) mode: Mode,
    /// Of a shared mailbox.
    pub(super) shared: Option<Shared>,
    pub(super) capacity: u64,
    pub(super) geometry: gmb_geometry_args,
    pub(super) push: Side,
    pub(super) readers: Readers,
    pub(super) ring: Ring,
    pub(super) borrows: Borrows,
    /// Of a single-stream mailbox: the stream of its first operation, held while one is submitted.
    pub(super) only: Mutex<u64>,
    pub(super) closed: AtomicBool,
    /// The capture that was given this to hold last; zero before the first.
    pub(super) captured: AtomicU64,
}

impl Core {
    /// For what an express mailbox does not have.
    pub(super) fn check_launches(&self) -> Result<()> {
        if self.mode != Mode::Express {
            return Ok(());
        }
        Err(Error::new(
            GMB_ERROR_NOT_SUPPORTED,
            "in express mode kernels push and pop by themselves (gpumailbox/express.cuh), and nothing is launched",
        ))
    }

    /// True when operations were captured: then nobody knows how many will have run, or when.
    pub(super) fn is_captured(&self) -> bool {
        self.captured.load(Ordering::Acquire) != 0
    }

    /// True when pushes, pops, borrows and releases must not run beside each other: of a mailbox that overwrites, once
    /// something was borrowed. Then its slots are not always those of their indices, and what a push may write over changes.
    pub(super) fn is_serial(&self) -> bool {
        self.full_policy.rules().overwrites && self.borrows.were_made()
    }

    /// A reader's submission lock, and before it the pushes' where its operations must not be submitted beside them.
    pub(super) fn lock_reader<'a>(
        &'a self,
        side: &'a Side,
    ) -> (Option<MutexGuard<'a, Submitted>>, MutexGuard<'a, Submitted>) {
        loop {
            let pushes = self.is_serial().then(|| lock(&self.push.submission));
            let pops = lock(&side.submission);
            // It becomes so under all of these locks.
            if pushes.is_some() || !self.is_serial() {
                return (pushes, pops);
            }
        }
    }

    /// True for the capture that was given this to hold last.
    pub(super) fn is_held_by(&self, capture: CaptureId) -> bool {
        self.captured.load(Ordering::Acquire) == capture
    }

    /// Notes a capture that holds this now. From here on operations that are not captured rely on events alone.
    pub(super) fn note_capture(&self, capture: CaptureId) {
        self.push.begin_captures();
        self.readers.all().for_each(Side::begin_captures);
        self.captured.store(capture, Ordering::Release);
    }

    /// Waits for all that was enqueued; false when it may go on after all. A lost device answers at once.
    pub(super) fn finish(&self) -> bool {
        let stopped = || read_header(&self.context, self.ring.address).is_ok_and(|h| h.fault != GMB_OK);
        let done = |side: &Side| match side.finish(stopped) {
            Ok(()) => true,
            Err(error) => error.status() == GMB_ERROR_DEVICE_LOST,
        };
        let lanes = match self.shared.as_ref().map_or(Ok(()), |shared| shared.finish(self)) {
            Ok(()) => true,
            Err(error) => error.status() == GMB_ERROR_DEVICE_LOST,
        };
        // Each of them, whatever the others say.
        self.readers.all().map(done).fold(done(&self.push) & lanes, |all, one| all & one)
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
        // The ring must outlive its kernels: if they may still run, it stays.
        if !self.finish() {
            return;
        }
        self.borrows.free(&self.context);
        if let Some(shared) = &self.shared {
            shared.meetings.free(&self.context);
        }
        if self.ring.owned {
            // SAFETY: every operation is done, and no other work may use the ring.
            let _ = unsafe { self.context.free_ring(self.ring.address) };
        }
    }
}
