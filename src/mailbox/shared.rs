//! Shared mailboxes: operations of one side run beside each other, those of kernels among them. The library orders pushes
//! against pops only, as [`Arbitration`] says; what there is, and who gets which, the device says.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::attach::read_header;
use super::core::Core;
use super::readiness::Interest;
use super::submit::choose;
use super::{Arbitration, Mailbox, ReaderInfo};
use crate::backend::args::{
    gmb_pop_args, gmb_push_args, gmb_reader_args, gmb_report_args, GMB_PUSH_CREDITED,
};
use crate::backend::Kernel;
use crate::context::Context;
use crate::error::Result;
use crate::lanes::{lane_of, Held, Lane, Lanes, Meetings};
use crate::layout::*;
use crate::results::{After, Token};
use crate::status::*;
use crate::stream::{OwnedStream, Resolved};
use crate::sync::lock;

/// How long one attempt waits for a kernel of one block: long only if others leave no room for it on the device.
const PATIENCE: Duration = Duration::from_millis(200);

/// What only a shared mailbox has.
pub(super) struct Shared {
    pub(super) pushes: Lanes,
    pub(super) takes: Lanes,
    pub(super) meetings: Meetings,
    credit: Mutex<Credit>,
    /// Records that room was taken for, and that no push has used; changes under the lock of `credit`.
    held: AtomicU32,
    /// Where the last borrow of a reader's place was released: the next one there comes after that.
    pub(super) released: Mutex<HashMap<(u32, u32), Arc<Lane>>>,
}

/// Room taken for pushes that wait for it, by a kernel on a stream of its own.
#[derive(Default)]
struct Credit {
    tools: Option<(OwnedStream, Token)>,
    /// Records that a kernel under way may get room for: nobody waits for it any more, or again.
    asked: bool,
}

impl Shared {
    pub(super) fn new(context: &Context) -> Result<Self> {
        Ok(Self {
            pushes: Lanes::default(),
            takes: Lanes::default(),
            meetings: Meetings::new(context)?,
            credit: Mutex::default(),
            held: AtomicU32::new(0),
            released: Mutex::default(),
        })
    }

    /// Blocks until all that was launched is done, and gives back the room that no push has used: who attaches to the ring
    /// finds it as it should be.
    pub(super) fn finish(&self, core: &Core) -> Result<()> {
        let mut credit = lock(&self.credit);
        if let Credit { tools: Some((_, token)), asked: asked @ true } = &mut *credit {
            let result = token.wait(After::Submission, None)?;
            self.held.fetch_add(result.count, Ordering::AcqRel);
            *asked = false;
        }
        self.pushes.finish().and(self.takes.finish())?;
        let held = self.held.swap(0, Ordering::AcqRel);
        if held == 0 {
            return Ok(());
        }
        let (backend, service) = (core.context.backend(), core.context.service());
        let args = gmb_push_args {
            ring: core.ring.address,
            count: held,
            flags: GMB_PUSH_CREDITED,
            geometry: core.geometry,
            ..Default::default()
        };
        // SAFETY: the ring outlives the kernel, which is waited for.
        unsafe { backend.launch(&Kernel::Credit(args), 1, service)? };
        backend.stream_synchronize(service)
    }
}

impl Core {
    /// Launches an operation on its stream's lane, and marks the end.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn submit_shared(
        &self,
        mut held: Held<'_>,
        shared: &Shared,
        stream: Resolved,
        blocks: u32,
        report: gmb_report_args,
        kernel: impl FnOnce(gmb_report_args, u64) -> Kernel,
    ) -> Result<Arc<Lane>> {
        let lane = lane_of(&mut held, &shared.meetings, &self.context, stream)?;
        // SAFETY: the ring, the meetings and the slots outlive the kernel; the caller vouches for the rest.
        unsafe { self.context.backend().launch(&kernel(report, lane.meeting), blocks, stream.raw)? };
        lane.launched(stream)?;
        Ok(lane)
    }

    /// How many records, or how much room, there is on the device now.
    pub(super) fn ready_shared(&self, interest: Interest) -> Result<u64> {
        let header = read_header(&self.context, self.ring.address)?;
        let credits = match interest {
            Interest::Readable { reader } => {
                self.readers.get(reader)?;
                header.reader[reader as usize].credits
            }
            Interest::Writable => header.writer.credits,
        };
        // What a push did not come to use, the next one does.
        let held = match (interest, &self.shared) {
            (Interest::Writable, Some(shared)) => shared.held.load(Ordering::Acquire),
            _ => 0,
        };
        Ok((available(credits) + u64::from(held)).min(self.capacity))
    }
}

/// Those that found too few may not have given back yet what they took.
pub(super) fn available(credits: u64) -> u64 {
    (credits as i64).max(0) as u64
}

/// A reader's counts. What it has taken and not released nobody counts: it is released as soon as it is popped.
pub(super) fn reader_info(side: &gmb_ring_side) -> ReaderInfo {
    ReaderInfo { released: side.claimed, unread: available(side.credits), lost: 0, empty_pops: side.empty }
}

impl Mailbox {
    /// Submits a push. With `credited` there is room for all of it.
    pub(super) fn push_shared(
        &self,
        shared: &Shared,
        args: gmb_push_args,
        stream: Resolved,
        token: Option<&Token>,
        credited: bool,
    ) -> Result<()> {
        let core = &self.core;
        let flags = args.flags | if credited { GMB_PUSH_CREDITED } else { 0 };
        let most = u64::from(args.count).min(core.capacity);
        let grid = self.grid_of(most, &Kernel::PushShared(args), args.max_length);
        let kernel = |report, meeting| {
            Kernel::PushShared(gmb_push_args { report, meeting, flags, tile: grid.tile, ..args })
        };
        if let Some(capture) = stream.capture() {
            let meeting = shared.meetings.take(&self.context)?;
            let readers = core.readers.in_use().map(|(_, side)| side);
            let kernel = |report| kernel(report, meeting);
            return self.capture(&core.push, readers, (stream, capture), grid.blocks, token, kernel);
        }
        let only = core.check_stream(stream)?;
        if self.arbitration == Arbitration::Cpu {
            shared.takes.make_wait(stream)?;
        }
        let held = shared.pushes.hold();
        let submission = token.map(Token::submit).transpose()?;
        let report = submission.as_ref().map(|s| s.report()).unwrap_or_default();
        core.submit_shared(held, shared, stream, grid.blocks, report, kernel)?;
        if let Some(submission) = submission {
            submission.confirm();
        }
        choose(only, stream);
        Ok(())
    }

    /// Submits a pop.
    pub(super) fn pop_shared(
        &self,
        shared: &Shared,
        args: gmb_pop_args,
        stream: Resolved,
        token: Option<&Token>,
    ) -> Result<()> {
        let core = &self.core;
        let side = core.readers.get(args.reader)?;
        let most = u64::from(args.max).min(core.capacity);
        let grid = self.grid_of(most, &Kernel::PopShared(args), self.stride - HEADER_BYTES);
        let kernel =
            |report, meeting| Kernel::PopShared(gmb_pop_args { report, meeting, tile: grid.tile, ..args });
        if let Some(capture) = stream.capture() {
            let meeting = shared.meetings.take(&self.context)?;
            let push = std::iter::once(&core.push);
            let kernel = |report| kernel(report, meeting);
            return self.capture(side, push, (stream, capture), grid.blocks, token, kernel);
        }
        let only = core.check_stream(stream)?;
        if self.arbitration == Arbitration::Cpu {
            shared.pushes.make_wait(stream)?;
        }
        let held = shared.takes.hold();
        core.readers.get(args.reader)?;
        let submission = token.map(Token::submit).transpose()?;
        let report = submission.as_ref().map(|s| s.report()).unwrap_or_default();
        core.submit_shared(held, shared, stream, grid.blocks, report, kernel)?;
        if let Some(submission) = submission {
            submission.confirm();
        }
        choose(only, stream);
        Ok(())
    }

    /// Pushes all of it, if there is room.
    pub(super) fn push_with_credit(
        &self,
        shared: &Shared,
        args: gmb_push_args,
        stream: Resolved,
        token: Option<&Token>,
    ) -> Result<Option<()>> {
        let _entered = self.context.backend().enter_for_calls()?;
        if !self.take_credit(shared, &args)? {
            return Ok(None);
        }
        let pushed = self.push_shared(shared, args, stream, token, true);
        // What a push did not come to use, another one does.
        pushed.inspect_err(|_| _ = shared.held.fetch_add(args.count, Ordering::AcqRel)).map(Some)
    }

    /// One attempt to take room for a whole push: true once there is.
    fn take_credit(&self, shared: &Shared, args: &gmb_push_args) -> Result<bool> {
        let mut credit = lock(&shared.credit);
        if credit.tools.is_none() {
            credit.tools = Some((self.context.stream()?, Token::new(&self.context)?));
        }
        let Credit { tools: Some((stream, token)), asked } = &mut *credit else { return Ok(false) };
        let held = &shared.held;
        let missing = args.count.saturating_sub(held.load(Ordering::Acquire));
        if !*asked && missing > 0 {
            if self.core.ready_shared(Interest::Writable)? < u64::from(args.count) {
                return Ok(false);
            }
            let stream = self.context.resolve(stream.get())?;
            let submission = token.submit()?;
            let report = submission.report();
            let kernel = Kernel::Credit(gmb_push_args { count: missing, report, ..*args });
            // SAFETY: the ring and the token's slot outlive the kernel.
            unsafe { self.context.backend().launch(&kernel, 1, stream.raw)? };
            submission.confirm();
            *asked = true;
        }
        if *asked {
            match token.wait(After::Submission, Some(PATIENCE)) {
                Ok(result) => _ = held.fetch_add(result.count, Ordering::AcqRel),
                Err(error) if error.status() == GMB_ERROR_TIMEOUT => return Ok(false),
                Err(error) => return Err(error),
            }
            *asked = false;
        }
        let enough = held.load(Ordering::Acquire) >= args.count;
        if enough {
            held.fetch_sub(args.count, Ordering::AcqRel);
        }
        Ok(enough)
    }

    /// Lets a reader in or out, while nothing else runs: blocks until that is so, and until it is done.
    pub(super) fn change_shared_reader(&self, shared: &Shared, args: gmb_reader_args) -> Result<()> {
        let (pushes, takes) = (shared.pushes.hold(), shared.takes.hold());
        for lane in pushes.iter().chain(takes.iter()) {
            lane.event.synchronize(None)?;
        }
        let (backend, service) = (self.context.backend(), self.context.service());
        // SAFETY: the ring outlives the kernel, which is waited for.
        unsafe { backend.launch(&Kernel::ReaderShared(args), 1, service)? };
        backend.stream_synchronize(service)
    }
}
