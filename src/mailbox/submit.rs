//! Pushes and pops: arguments checked, order made, kernels launched.

use std::sync::MutexGuard;

use super::core::Core;
use super::readers::not_in_use;
use super::side::{ahead, Side, Submitted};
use super::{Arbitration, Mailbox, Pop, Push};
use crate::backend::args::{
    gmb_geometry_args, gmb_pop_args, gmb_push_args, gmb_report_args, GMB_ORDERED, GMB_PUSH_WHOLE,
};
use crate::backend::Kernel;
use crate::checks::{check_address, check_count};
use crate::error::{Error, Result};
use crate::extent::{check_disjoint, Extent};
use crate::layout::*;
use crate::profiler::Range;
use crate::results::{Submission, Token};
use crate::status::*;
use crate::stream::{Resolved, Stream};
use crate::sync::lock;

impl Mailbox {
    /// Pushes records on a stream. With a token, the outcome says how many were accepted.
    ///
    /// What happens when they do not all fit is the mailbox's [`FullPolicy`](crate::FullPolicy):
    /// under `Reject` the first so many are accepted; under `Wait` the call
    /// blocks, for `timeout` at most, until all are sure to fit; else old records
    /// make room. If `lengths` holds one above the payload size or stride, the
    /// records before it are accepted (none under `Wait`) and the status is
    /// `BAD_LENGTH`. Except under `Wait` the call never blocks. Of a shared mailbox pushes do not wait for each
    /// other, and under `Wait` pops do not count before they ran.
    ///
    /// # Errors
    /// `ZERO_COUNT`, `NULL_POINTER`, `MISALIGNED`, `OVERLAP`, `OVERFLOW`,
    /// `BAD_LENGTH`, `INVALID_STREAM`, `BUSY` (token), `NOT_SUPPORTED` (the stream
    /// is being captured), `DEVICE_LOST`, `DRIVER`; under `Wait` also
    /// `TIMEOUT`, and `INVALID_ARGUMENT` for more than the capacity. Then
    /// nothing was pushed and the token is as before.
    ///
    /// # Safety
    /// The source memory must be valid, and not written, until the operation is done.
    pub unsafe fn push(&self, push: &Push, stream: Stream, token: Option<&Token>) -> Result<()> {
        let _range = Range::new(c"push");
        self.core.check_launches()?;
        let args = self.push_args(push)?;
        if self.core.full_policy.rules().waits {
            return self.push_when_sure(push, args, stream, token);
        }
        let _entered = self.context.backend().enter_for_calls()?;
        let stream = self.context.resolve(stream)?;
        self.check_token(token)?;
        if let Some(shared) = &self.core.shared {
            return self.push_shared(shared, args, stream, token, false);
        }
        self.push_now(lock(&self.core.push.submission), args, stream, token)
    }

    /// Submits a push, under the side's submission lock.
    pub(super) fn push_now(
        &self,
        mut submitted: MutexGuard<'_, Submitted>,
        args: gmb_push_args,
        stream: Resolved,
        token: Option<&Token>,
    ) -> Result<()> {
        let count = u64::from(args.count);
        let rules = self.core.full_policy.rules();
        let most = if rules.overwrites { count } else { count.min(self.core.capacity) };
        let grid = self.grid_of(most, &(rules.push)(args), args.max_length);
        // What overwrites must know what is borrowed: under this lock nothing is borrowed or released then.
        let borrowed = if rules.overwrites { self.core.borrows.tables() } else { 0 };
        let kernel = |report| {
            let flags = args.flags | grid.flags;
            (rules.push)(gmb_push_args { report, tile: grid.tile, flags, borrowed, ..args })
        };
        if let Some(capture) = stream.capture() {
            let readers = self.core.readers.in_use().map(|(_, side)| side);
            return self.capture(&self.core.push, readers, (stream, capture), grid.blocks, token, kernel);
        }
        let only = self.core.check_stream(stream)?;
        // Before the waits: a call that is refused leaves nothing in the stream.
        let submission = token.map(Token::submit).transpose()?;
        let captured = self.core.is_captured();
        let serial = self.core.is_serial();
        self.core.push.make_wait(stream)?;
        let end = self.core.push.can_reach(&mut submitted).wrapping_add(count);
        if self.arbitration == Arbitration::Cpu {
            for (_, reader) in self.core.readers.in_use() {
                // With room in any case, how far its pops are makes no difference.
                if captured || serial || ahead(end, reader.reached()) > self.core.capacity {
                    reader.make_wait(stream)?;
                }
            }
        }
        let after = self.core.push.sure().wrapping_add(count);
        self.core.submit(&self.core.push, submitted, stream, grid.blocks, most, submission, kernel)?;
        choose(only, stream);
        // A length that the device refuses would end the push.
        if rules.waits && args.lengths == 0 {
            self.core.push.make_sure(after);
        }
        Ok(())
    }

    /// Pops up to `max` records of a reader on a stream, dense or strided, into
    /// device memory; under `Latest` at most one, the newest. With a token, the
    /// outcome is the count; without one nobody learns it. Bytes past a
    /// record's length and rows past the count are unspecified: a push beside
    /// the pop may have been copied in part.
    ///
    /// # Errors
    /// As for [`Mailbox::push`], and `INVALID_ARGUMENT` for a reader that is not
    /// in use; with a token also `CORRUPT`: a slot does not hold the record it
    /// should, and the pop ends before it.
    ///
    /// # Safety
    /// The output memory must be valid, and not otherwise used, until the operation is done.
    pub unsafe fn pop(&self, pop: &Pop, stream: Stream, token: Option<&Token>) -> Result<()> {
        let _range = Range::new(c"pop");
        self.core.check_launches()?;
        let args = self.pop_args(pop)?;
        let side = self.core.readers.get(pop.reader)?;
        self.check_token(token)?;
        let _entered = self.context.backend().enter_for_calls()?;
        let stream = self.context.resolve(stream)?;
        if let Some(shared) = &self.core.shared {
            return self.pop_shared(shared, args, stream, token);
        }
        let (_pushes, mut submitted) = self.core.lock_reader(side);
        if !self.core.readers.is_in_use(pop.reader) {
            return Err(not_in_use(pop.reader));
        }
        self.core.borrows.check_none(pop.reader)?;
        let most = u64::from(pop.max).min(self.core.capacity);
        let longest = self.stride - HEADER_BYTES;
        let rules = self.core.full_policy.rules();
        let grid = self.grid_of(most, &(rules.pop)(args), longest);
        let kernel = |report| {
            (rules.pop)(gmb_pop_args { report, tile: grid.tile, flags: args.flags | grid.flags, ..args })
        };
        if let Some(capture) = stream.capture() {
            let push = std::iter::once(&self.core.push);
            return self.capture(side, push, (stream, capture), grid.blocks, token, kernel);
        }
        let only = self.core.check_stream(stream)?;
        let submission = token.map(Token::submit).transpose()?;
        // Before the wait: what is certain now is what the stream will wait for.
        let published = self.core.push.sure();
        let captured = self.core.is_captured();
        side.make_wait(stream)?;
        let end = side.can_reach(&mut submitted).wrapping_add(u64::from(pop.max));
        // With `max` records there in any case, later pushes make no difference, unless they overwrite.
        let depends =
            captured || rules.overwrites || ahead(self.core.push.reached(), end) > self.core.capacity;
        if self.arbitration == Arbitration::Cpu && depends {
            self.core.push.make_wait(stream)?;
        }
        // Before the launch: afterwards the pop may have reported, and would count twice.
        let released = side.sure();
        self.core.submit(side, submitted, stream, grid.blocks, most, submission, kernel)?;
        choose(only, stream);
        if rules.waits && self.arbitration == Arbitration::Cpu {
            let unread = ahead(published, released);
            // Nothing is certain when the reader may be past what is surely published.
            if unread <= self.core.capacity {
                side.make_sure(released.wrapping_add(u64::from(pop.max).min(unread)));
            }
        }
        Ok(())
    }

    pub(super) fn check_token(&self, token: Option<&Token>) -> Result<()> {
        if token.is_some_and(|token| !token.context().is(&self.context)) {
            return Err(Error::argument("the token is of another context than the mailbox"));
        }
        Ok(())
    }

    fn push_args(&self, push: &Push) -> Result<gmb_push_args> {
        check_count("count", push.count)?;
        let stride = if push.stride == 0 { self.row_bytes() } else { push.stride };
        let payload = u64::from(self.payload_bytes);
        // The most that any row can hold: the device checks lengths in an array against it.
        let longest = if push.lengths == 0 { u64::from(push.length) } else { payload.min(stride) };
        if longest > payload {
            return Err(Error::new(
                GMB_ERROR_BAD_LENGTH,
                format!("length {longest} exceeds the mailbox's payload size of {payload} bytes"),
            ));
        }
        check_stride(stride, longest)?;
        if longest > 0 {
            check_address("records", push.records, 16)?;
            self.check_range(&Extent::rows("records", push.records, push.count, stride, longest)?)?;
        }
        for (name, address) in [("lengths", push.lengths), ("types", push.types)] {
            if address != 0 {
                check_address(name, address, 4)?;
                self.check_range(&Extent::array(name, address, push.count, 4)?)?;
            }
        }
        Ok(gmb_push_args {
            ring: self.core.ring.address,
            records: push.records,
            stride,
            lengths: push.lengths,
            types: push.types,
            count: push.count,
            length: push.length,
            msg_type: push.msg_type,
            lanes_log2: self.lanes_log2(),
            max_length: longest as u32,
            flags: if self.core.full_policy.rules().whole { GMB_PUSH_WHOLE } else { 0 } | self.order(),
            readers: self.core.readers.mask(),
            tile: 0,
            borrowed: 0,
            meeting: 0,
            geometry: self.geometry(),
            report: gmb_report_args::default(),
        })
    }

    fn pop_args(&self, pop: &Pop) -> Result<gmb_pop_args> {
        check_count("max", pop.max)?;
        let stride = if pop.stride == 0 { self.row_bytes() } else { pop.stride };
        check_address("records", pop.records, 16)?;
        check_stride(stride, u64::from(self.payload_bytes))?;
        // No more than the capacity is ever written.
        let most = u64::from(pop.max).min(self.core.capacity) as u32;
        let rows = Extent::rows("records", pop.records, most, stride, self.row_bytes())?;
        self.check_range(&rows)?;
        if pop.headers != 0 {
            check_address("headers", pop.headers, 16)?;
            let headers = Extent::array("headers", pop.headers, most, u64::from(HEADER_BYTES))?;
            self.check_range(&headers)?;
            check_disjoint(&rows, &headers)?;
        }
        Ok(gmb_pop_args {
            ring: self.core.ring.address,
            records: pop.records,
            stride,
            headers: pop.headers,
            max: pop.max,
            reader: pop.reader,
            lanes_log2: self.lanes_log2(),
            flags: self.order(),
            tile: 0,
            reserved: 0,
            meeting: 0,
            geometry: self.geometry(),
            report: gmb_report_args::default(),
        })
    }

    fn check_range(&self, range: &Extent) -> Result<()> {
        let ring = Extent::whole("the mailbox's own ring", self.core.ring.address, self.core.ring.bytes);
        check_disjoint(&ring, range)?;
        self.context.check_reachable(range)
    }

    pub(super) fn geometry(&self) -> gmb_geometry_args {
        self.core.geometry
    }

    /// Kernels of a single stream run one after the other. Arbitrated by the device, another mailbox over the same memory
    /// may have the other side, and a stream of its own.
    fn order(&self) -> u32 {
        if self.core.single_stream && self.arbitration == Arbitration::Cpu {
            GMB_ORDERED
        } else {
            0
        }
    }
}

impl Core {
    /// Keeps what is not captured out of captures, and holds a single-stream mailbox to its first stream: that is
    /// chosen, by `choose`, when an operation was launched there. Called under a submission lock.
    pub(super) fn check_stream(&self, stream: Resolved) -> Result<Option<MutexGuard<'_, u64>>> {
        if stream.is_capturing() {
            return Err(Error::new(
                GMB_ERROR_NOT_SUPPORTED,
                "the stream is being captured into a graph, and this operation cannot be; the capture goes on",
            ));
        }
        if !self.single_stream {
            return Ok(None);
        }
        let only = lock(&self.only);
        if *only != 0 && *only != stream.id() {
            return Err(Error::new(
                GMB_ERROR_INVALID_STREAM,
                "the mailbox was made for a single stream and its first operation came on another one",
            ));
        }
        Ok(Some(only))
    }

    /// Launches and marks the end, all under the side's submission lock.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn submit(
        &self,
        side: &Side,
        mut submitted: MutexGuard<'_, Submitted>,
        stream: Resolved,
        blocks: u32,
        most: u64,
        submission: Option<Submission<'_>>,
        kernel: impl FnOnce(gmb_report_args) -> Kernel,
    ) -> Result<()> {
        let mut report = submission.as_ref().map(|s| s.report()).unwrap_or_default();
        report.host_progress = side.progress();
        report.operation = side.next_operation() as u32;
        side.launches(most);
        // SAFETY: the ring and the slots outlive the kernel; the caller vouches for the rest.
        unsafe { self.context.backend().launch(&kernel(report), blocks, stream.raw)? };
        if let Some(submission) = submission {
            submission.confirm();
        }
        side.launched(&mut submitted, stream, most)
    }
}

/// The stream of an operation that was launched is a single-stream mailbox's.
pub(super) fn choose(only: Option<MutexGuard<'_, u64>>, stream: Resolved) {
    if let Some(mut only) = only {
        *only = stream.id();
    }
}

fn check_stride(stride: u64, payload: u64) -> Result<()> {
    if stride % u64::from(GMB_ALIGNMENT) != 0 {
        return Err(Error::new(
            GMB_ERROR_MISALIGNED,
            format!("stride {stride} is not a multiple of 16 bytes"),
        ));
    }
    if stride < payload {
        return Err(Error::argument(format!("stride {stride} is less than the {payload} bytes of a record")));
    }
    Ok(())
}
