//! Pushes and pops that are launched.

use super::{Core, Queue};
use crate::backend::args::{gmb_queue_args, GMB_MOST_BLOCKS};
use crate::backend::{Entry, Kernel};
use crate::checks::{check_address, check_count};
use crate::error::{Error, Result};
use crate::extent::{check_disjoint, Extent};
use crate::graph::Held;
use crate::lanes::{lane_of, Lanes};
use crate::profiler::Range;
use crate::results::Token;
use crate::stream::{Resolved, Stream};

/// Items of a tile for each thread of a block; blocks of one thread have large ones.
const ITEMS_OF_A_THREAD: u32 = 8;
const LEAST_TILE: u32 = 512;

impl Queue {
    /// Pushes `count` items, dense at `items` in device memory, on a stream. They come in their order, perhaps with items of
    /// pushes at the same time between them; where there is room for fewer the first so many are pushed, and the token's result
    /// says how many. Ordered after the stream's work alone: other pushes and pops may run beside it. Does not block. Into a
    /// capture it goes as it is.
    ///
    /// # Errors
    /// `ZERO_COUNT`, `OVERFLOW`, `NULL_POINTER`, `MISALIGNED` (items are aligned to their size), `OVERLAP`,
    /// `INVALID_ARGUMENT` (a token of another context; not reachable, with `GMB_CHECK_POINTERS=1`), `INVALID_STREAM`, `BUSY` (token), `MEMORY_LIMIT`,
    /// `OUT_OF_MEMORY`, `DEVICE_LOST`, `DRIVER`. In the result: `BAD_MAGIC`, `BAD_VERSION`, `WRONG_MODE`.
    ///
    /// # Safety
    /// The items must be valid, and not written, until the operation is done.
    pub unsafe fn push(&self, items: u64, count: u32, stream: Stream, token: Option<&Token>) -> Result<()> {
        let _range = Range::new(c"push to a queue");
        let args = self.core.args("count", items, count)?;
        self.core.submit(Kernel::QueuePush, &self.core.pushes, args, stream, token)
    }

    /// Pops up to `max` items, dense to `items` in device memory, on a stream; the token's result says how many there were.
    /// Otherwise as [`Queue::push`].
    ///
    /// # Errors
    /// As for [`Queue::push`].
    ///
    /// # Safety
    /// The memory must be valid, and otherwise unused, until the operation is done.
    pub unsafe fn pop(&self, items: u64, max: u32, stream: Stream, token: Option<&Token>) -> Result<()> {
        let _range = Range::new(c"pop from a queue");
        let args = self.core.args("max", items, max)?;
        self.core.submit(Kernel::QueuePop, &self.core.pops, args, stream, token)
    }
}

impl Core {
    fn args(&self, counted: &str, items: u64, count: u32) -> Result<gmb_queue_args> {
        check_count(counted, count)?;
        check_address("items", items, self.item_bytes.into())?;
        let range = Extent::array("items", items, count, self.item_bytes.into())?;
        check_disjoint(&range, &Extent::whole("the queue", self.address, self.bytes))?;
        self.context.check_reachable(&range)?;
        Ok(gmb_queue_args {
            queue: self.address,
            items,
            count,
            item_bytes: self.item_bytes,
            threads: self.block_threads,
            tile: (self.block_threads * ITEMS_OF_A_THREAD).max(LEAST_TILE),
            ..Default::default()
        })
    }

    /// Blocks of a launch, at most.
    pub(super) fn most_blocks(&self) -> u32 {
        match self.max_blocks {
            0 => self.context.backend().info().max_blocks[Entry::QueuePush].min(GMB_MOST_BLOCKS),
            most => most.min(GMB_MOST_BLOCKS),
        }
    }

    fn submit(
        self: &std::sync::Arc<Self>,
        kernel: fn(gmb_queue_args) -> Kernel,
        lanes: &Lanes,
        args: gmb_queue_args,
        stream: Stream,
        token: Option<&Token>,
    ) -> Result<()> {
        if token.is_some_and(|token| !token.context().is(&self.context)) {
            return Err(Error::argument("the token is of another context than the queue"));
        }
        let backend = self.context.backend();
        let _entered = backend.enter_for_calls()?;
        let stream = self.context.resolve(stream)?;
        let blocks = args.count.div_ceil(args.tile).min(self.most_blocks());
        if stream.is_capturing() {
            return self.capture(kernel, args, blocks, stream, token);
        }
        let mut held = lanes.hold();
        let submission = token.map(Token::submit).transpose()?;
        let report = submission.as_ref().map(|s| s.report()).unwrap_or_default();
        let lane = lane_of(&mut held, &self.meetings, &self.context, stream)?;
        let args = gmb_queue_args { meeting: lane.meeting, report, ..args };
        // SAFETY: the queue and the meetings outlive the kernel; the caller vouches for the items.
        unsafe { backend.launch(&kernel(args), blocks, stream.raw)? };
        lane.launched(stream)?;
        if let Some(submission) = submission {
            submission.confirm();
        }
        Ok(())
    }

    /// Into a capture, with a meeting of its own for as long as the queue lasts.
    fn capture(
        self: &std::sync::Arc<Self>,
        kernel: fn(gmb_queue_args) -> Kernel,
        args: gmb_queue_args,
        blocks: u32,
        stream: Resolved,
        token: Option<&Token>,
    ) -> Result<()> {
        let backend = self.context.backend();
        let capture = stream.capture().unwrap_or_default();
        let meeting = self.meetings.take(&self.context)?;
        // What is held and does not come to be used hurts nobody.
        let captured = token.map(|token| token.capture(stream, capture)).transpose()?;
        backend.capture_keep(stream.raw, Box::new(Held::new(&self.context, self)))?;
        let report = captured.as_ref().map(|token| token.report()).unwrap_or_default();
        let args = gmb_queue_args { meeting, report, ..args };
        // SAFETY: the graph holds the queue; the caller vouches for the items.
        unsafe { backend.launch_captured(&kernel(args), blocks, stream.raw)? };
        if let Some(token) = captured {
            token.confirm();
        }
        Ok(())
    }
}
