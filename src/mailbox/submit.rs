//! Pushes and pops: arguments checked, order made, kernels launched.

use std::sync::MutexGuard;

use super::core::Core;
use super::readers::not_in_use;
use super::side::{ahead, Side, Submitted};
use super::{Arbitration, FullPolicy, Mailbox, Pop, Push};
use crate::backend::args::{
    gmb_geometry_args, gmb_pop_args, gmb_push_args, gmb_report_args, GMB_DRAW_TILES, GMB_ORDERED,
    GMB_PUSH_WHOLE,
};
use crate::backend::Kernel;
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
    /// What happens when they do not all fit is the mailbox's [`FullPolicy`]:
    /// under `Reject` the first so many are accepted; under `Wait` the call
    /// blocks, for `timeout` at most, until all are sure to fit; else old records
    /// make room. If `lengths` holds one above the payload size or stride, the
    /// records before it are accepted (none under `Wait`) and the status is
    /// `BAD_LENGTH`. Except under `Wait` the call never blocks.
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
        let args = self.push_args(push)?;
        if self.core.full_policy == FullPolicy::Wait {
            return self.push_when_sure(push, args, stream, token);
        }
        let _entered = self.context.backend().enter_for_calls()?;
        let stream = self.context.resolve(stream)?;
        self.check_token(token)?;
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
        let (most, shape) = match self.core.full_policy {
            FullPolicy::Latest => (count, Shape::default()),
            FullPolicy::OverwriteOldest => (count, self.shape_of(count, Kernel::PUSH_OVER, args.max_length)),
            FullPolicy::Reject | FullPolicy::Wait => {
                let most = count.min(self.core.capacity);
                (most, self.shape_of(most, Kernel::PUSH, args.max_length))
            }
        };
        // What overwrites must know what is borrowed: under this lock nothing is borrowed or released then.
        let borrowed = if self.core.full_policy.overwrites() { self.core.borrows.tables() } else { 0 };
        let kernel = |report| {
            let flags = args.flags | shape.flags;
            let args = gmb_push_args { report, tile: shape.tile, flags, borrowed, ..args };
            match self.core.full_policy {
                FullPolicy::Reject | FullPolicy::Wait => Kernel::Push(args),
                FullPolicy::OverwriteOldest => Kernel::PushOver(args),
                FullPolicy::Latest => Kernel::PushLatest(args),
            }
        };
        if let Some(capture) = stream.capture() {
            let readers = self.core.readers.in_use().map(|(_, side)| side);
            return self.capture(&self.core.push, readers, (stream, capture), shape.blocks, token, kernel);
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
        self.core.submit(&self.core.push, submitted, stream, shape.blocks, most, submission, kernel)?;
        choose(only, stream);
        // A length that the device refuses would end the push.
        if self.core.full_policy == FullPolicy::Wait && args.lengths == 0 {
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
        let args = self.pop_args(pop)?;
        let side = self.core.readers.get(pop.reader)?;
        self.check_token(token)?;
        let _entered = self.context.backend().enter_for_calls()?;
        let stream = self.context.resolve(stream)?;
        let (_pushes, mut submitted) = self.core.lock_reader(side);
        if !self.core.readers.is_in_use(pop.reader) {
            return Err(not_in_use(pop.reader));
        }
        self.core.borrows.check_none(pop.reader)?;
        let most = u64::from(pop.max).min(self.core.capacity);
        let longest = self.stride - size_of::<gmb_record_header>() as u32;
        let shape = match self.core.full_policy {
            FullPolicy::Latest => Shape::default(),
            FullPolicy::OverwriteOldest => self.shape_of(most, Kernel::POP_OVER, longest),
            FullPolicy::Reject | FullPolicy::Wait => self.shape_of(most, Kernel::POP, longest),
        };
        let kernel = |report| {
            let args = gmb_pop_args { report, tile: shape.tile, flags: args.flags | shape.flags, ..args };
            match self.core.full_policy {
                FullPolicy::Reject | FullPolicy::Wait => Kernel::Pop(args),
                FullPolicy::OverwriteOldest => Kernel::PopOver(args),
                FullPolicy::Latest => Kernel::PopLatest(args),
            }
        };
        if let Some(capture) = stream.capture() {
            let push = std::iter::once(&self.core.push);
            return self.capture(side, push, (stream, capture), shape.blocks, token, kernel);
        }
        let only = self.core.check_stream(stream)?;
        let submission = token.map(Token::submit).transpose()?;
        // Before the wait: what is certain now is what the stream will wait for.
        let published = self.core.push.sure();
        let captured = self.core.is_captured();
        side.make_wait(stream)?;
        let end = side.can_reach(&mut submitted).wrapping_add(u64::from(pop.max));
        // With `max` records there in any case, later pushes make no difference, unless they overwrite.
        let depends = captured
            || self.core.full_policy.overwrites()
            || ahead(self.core.push.reached(), end) > self.core.capacity;
        if self.arbitration == Arbitration::Cpu && depends {
            self.core.push.make_wait(stream)?;
        }
        // Before the launch: afterwards the pop may have reported, and would count twice.
        let released = side.sure();
        self.core.submit(side, submitted, stream, shape.blocks, most, submission, kernel)?;
        choose(only, stream);
        if self.core.full_policy == FullPolicy::Wait && self.arbitration == Arbitration::Cpu {
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
            flags: if self.core.full_policy == FullPolicy::Wait { GMB_PUSH_WHOLE } else { 0 } | self.order(),
            readers: self.core.readers.mask(),
            tile: 0,
            borrowed: 0,
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
            let headers = Extent::array("headers", pop.headers, most, size_of::<gmb_record_header>() as u64)?;
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
        gmb_geometry_args {
            capacity: self.core.capacity,
            header_bytes: size_of::<gmb_ring_header>() as u32,
            stride: self.stride,
            payload_bytes: self.payload_bytes,
            reserved: 0,
        }
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

    /// Threads that move one record together: one for each of its units, within a warp.
    fn lanes_log2(&self) -> u32 {
        let threads = self.context.backend().info().block_threads;
        (self.stride / 16).next_power_of_two().min(32).min(threads).ilog2()
    }

    /// For records of at most `longest` bytes: one block while it can move all at once; then as many as run at once,
    /// each with as many rounds as the others; for many tiles, blocks draw.
    fn shape_of(&self, records: u64, kernel: usize, longest: u32) -> Shape {
        let info = self.context.backend().info();
        let lanes_log2 = self.lanes_log2();
        let most = u64::from(info.max_blocks[kernel].min(MOST_BLOCKS));
        let groups = u64::from(info.block_threads >> lanes_log2);
        if records <= groups * IN_FLIGHT {
            return Shape::default();
        }
        // What a thread moves at once are units of one record, if that is wider than a group, or of two.
        let at_once = if 1 + longest.div_ceil(16) > 1 << lanes_log2 { 1 } else { IN_FLIGHT };
        let round = groups * at_once;
        let each = round.max(groups * u64::from(info.group_records));
        if records <= each * most {
            return Shape { blocks: records.div_ceil(each) as u32, tile: each as u32, flags: 0 };
        }
        let drawing = u64::from(info.drawing_blocks[kernel].min(MOST_BLOCKS));
        let equal = EQUAL_TILES * u64::from(info.units);
        if records > equal * round && drawing > 1 && Kernel::DRAWING.contains(&kernel) {
            let groups = u64::from(info.drawing_threads >> lanes_log2);
            let tile = (groups * at_once).max(u64::from(info.drawn_records));
            return Shape {
                blocks: records.div_ceil(tile).min(drawing) as u32,
                tile: tile as u32,
                flags: GMB_DRAW_TILES,
            };
        }
        let rounds = records.div_ceil(round * most);
        Shape { blocks: records.div_ceil(round * rounds) as u32, tile: round as u32, flags: 0 }
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

/// How an operation is laid out on the device.
#[derive(Clone, Copy)]
struct Shape {
    blocks: u32,
    /// Records of a tile; zero for as many as a block moves at once.
    tile: u32,
    flags: u32,
}

impl Default for Shape {
    fn default() -> Self {
        Self { blocks: 1, tile: 0, flags: 0 }
    }
}

/// Units that a thread moves at once, as in ring.cuh.
const IN_FLIGHT: u64 = 2;

/// Blocks that turn.cuh can count.
const MOST_BLOCKS: u32 = (1 << 16) - 1;

/// Tiles for each multiprocessor that blocks have equal shares of: the draws of so few cost more than the wait for the
/// slowest.
const EQUAL_TILES: u64 = 24;

/// The stream of an operation that was launched is a single-stream mailbox's.
pub(super) fn choose(only: Option<MutexGuard<'_, u64>>, stream: Resolved) {
    if let Some(mut only) = only {
        *only = stream.id();
    }
}

pub(super) fn check_count(name: &str, count: u32) -> Result<()> {
    match count {
        0 => Err(Error::new(GMB_ERROR_ZERO_COUNT, format!("{name} is 0: nothing to do"))),
        _ if count > GMB_MAX_RECORDS => {
            Err(Error::new(GMB_ERROR_OVERFLOW, format!("{name} {count} exceeds {GMB_MAX_RECORDS}")))
        }
        _ => Ok(()),
    }
}

fn check_address(name: &str, address: u64, alignment: u64) -> Result<()> {
    if address == 0 {
        return Err(Error::new(GMB_ERROR_NULL_POINTER, format!("{name} is null")));
    }
    if address % alignment != 0 {
        return Err(Error::new(
            GMB_ERROR_MISALIGNED,
            format!("{name} at {address:#x} is not a multiple of {alignment} bytes"),
        ));
    }
    Ok(())
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
