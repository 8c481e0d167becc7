//! What operations put on their streams.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::Ordering;

use super::outcome::{Before, Failure, Turn};
use super::{Coordinator, Lane, OperationId, OperationKind};
use crate::error::{Error, Result};
use crate::extent::Extent;
use crate::layout::gmb_dtype;
use crate::module::{Argument, Launch, ModuleKernel};
use crate::results::Token;
use crate::status::*;
use crate::stream::{Resolved, Stream};
use crate::sync::thread_number;
use crate::triple::{Buffer, Step, TripleBuffer};
use crate::{Mailbox, Pop, Push};

/// Where in device memory an operation works.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// There.
    Address(u64),
    /// In the next buffer of a triple buffer that has come to the operation's step; the stream waits for the step before. The
    /// elements are of this type.
    Triple(&'a TripleBuffer, gmb_dtype),
}

/// Enqueues work on the stream that it is given; `address` is that of the triple buffer's buffer, or zero. It must not call the
/// coordinator, and must not wait for the device.
pub type Callback<'a> = Box<dyn FnOnce(Stream, u64) -> Result<()> + 'a>;

/// What computes.
pub enum Compute<'a> {
    /// A kernel of a module.
    Kernel {
        /// Which.
        kernel: &'a ModuleKernel,
        /// In what shape.
        launch: Launch,
        /// Its arguments, copied by the call. With a triple buffer the address of the buffer comes before them.
        arguments: &'a [Argument<'a>],
        /// The buffer it works on, if it is one of these.
        triple: Option<&'a TripleBuffer>,
    },
    /// Whatever this enqueues.
    Callback(Callback<'a>),
    /// The same on the next buffer of a triple buffer that is to be processed.
    TripleCallback(&'a TripleBuffer, Callback<'a>),
}

/// What an operation is to do.
pub enum Work<'a> {
    /// Copies host memory, pinned or pageable, to the device.
    Upload {
        /// Where to.
        to: Place<'a>,
        /// Address in host memory.
        from: u64,
        /// How much.
        bytes: u64,
    },
    /// Runs something on the compute stream.
    Compute(Compute<'a>),
    /// Copies from the device to host memory, pinned or pageable.
    Download {
        /// Address in host memory.
        to: u64,
        /// Where from.
        from: Place<'a>,
        /// How much.
        bytes: u64,
    },
    /// Whatever this enqueues on the stream of a step.
    Enqueue {
        /// On whose stream.
        step: Step,
        /// What enqueues it.
        function: Callback<'a>,
    },
    /// Pushes records into a mailbox.
    Push {
        /// Which.
        mailbox: &'a Mailbox,
        /// What.
        push: Push,
        /// On the stream of this step.
        step: Step,
    },
    /// Pops records from a mailbox.
    Pop {
        /// Which.
        mailbox: &'a Mailbox,
        /// Where to.
        pop: Pop,
        /// On the stream of this step.
        step: Step,
    },
}

impl Work<'_> {
    pub(super) fn kind(&self) -> OperationKind {
        match self {
            Self::Upload { .. } => OperationKind::Upload,
            Self::Compute(_) | Self::Enqueue { .. } => OperationKind::Compute,
            Self::Download { .. } => OperationKind::Download,
            Self::Push { .. } => OperationKind::Push,
            Self::Pop { .. } => OperationKind::Pop,
        }
    }

    /// The triple buffer that it works on.
    fn triple(&self) -> Option<&TripleBuffer> {
        match self {
            Self::Upload { to: Place::Triple(triple, _), .. }
            | Self::Download { from: Place::Triple(triple, _), .. }
            | Self::Compute(Compute::TripleCallback(triple, _)) => Some(triple),
            Self::Compute(Compute::Kernel { triple, .. }) => *triple,
            _ => None,
        }
    }

    /// On whose stream it goes.
    pub(super) fn step(&self) -> Step {
        match self {
            Self::Upload { .. } => Step::Upload,
            Self::Compute(_) => Step::Process,
            Self::Download { .. } => Step::Download,
            Self::Push { step, .. } | Self::Pop { step, .. } | Self::Enqueue { step, .. } => *step,
        }
    }
}

/// What was enqueued.
#[derive(Default)]
pub(super) struct Done {
    pub(super) token: Option<Token>,
    pub(super) failed: Option<Failure>,
    /// The buffer that it works on, still to be submitted.
    pub(super) buffer: Option<Buffer>,
    /// What worked on the buffer before, in this turn, and is under way.
    pub(super) before: Option<u64>,
    /// That of the buffer, if it is not this one's to submit.
    pub(super) turn: Option<Turn>,
}

/// A copy: to, from, bytes.
type Copy = (u64, u64, u64);

/// An address that stands for that of a buffer, as long as there is none: any but zero.
const SOMEWHERE: u64 = 256;

// Every call below is made with what the caller of `queue` has promised.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Coordinator {
    /// Puts an operation on its stream. `after` are those that it has to wait for, also where the stream itself need not.
    ///
    /// # Safety
    /// As of [`Coordinator::queue`].
    pub(super) unsafe fn enqueue(
        &self,
        work: Work,
        lane: &Lane,
        stream: Resolved,
        after: &[u64],
    ) -> Result<Done> {
        let raw = lane.stream.get();
        // SAFETY: as promised by the caller, here and below.
        match work {
            Work::Upload { to: Place::Address(to), from, bytes } => {
                check_copy(to, from, bytes)?;
                self.context.check_reachable(&Extent::bytes("to", to, bytes)?)?;
                unsafe { self.upload((to, from, bytes), stream, after)? };
                Ok(Done::default())
            }
            Work::Upload { to: Place::Triple(triple, dtype), from, bytes } => {
                check_copy(SOMEWHERE, from, bytes)?;
                triple.check_bytes(dtype, bytes)?;
                self.with_buffer(triple, Step::Upload, raw, |to| unsafe {
                    self.upload((to, from, bytes), stream, after).map(|()| None)
                })
            }
            Work::Download { to, from: Place::Address(from), bytes } => {
                check_copy(to, from, bytes)?;
                self.context.check_reachable(&Extent::bytes("from", from, bytes)?)?;
                unsafe { self.download((to, from, bytes), stream)? };
                Ok(Done::default())
            }
            Work::Download { to, from: Place::Triple(triple, dtype), bytes } => {
                check_copy(to, SOMEWHERE, bytes)?;
                triple.check_bytes(dtype, bytes)?;
                self.with_buffer(triple, Step::Download, raw, |from| unsafe {
                    self.download((to, from, bytes), stream).map(|()| None)
                })
            }
            Work::Compute(compute) => unsafe { self.compute(compute, lane, stream) },
            Work::Enqueue { function, .. } => {
                let failed = lane.call(function, 0).err().map(Failure::Itself);
                Ok(Done { failed, ..Default::default() })
            }
            Work::Push { mailbox, push, .. } => {
                self.check_context("the mailbox", mailbox.context())?;
                self.with_token(|token| unsafe { mailbox.push(&push, raw, Some(token)) })
            }
            Work::Pop { mailbox, pop, .. } => {
                self.check_context("the mailbox", mailbox.context())?;
                self.with_token(|token| unsafe { mailbox.pop(&pop, raw, Some(token)) })
            }
        }
    }

    unsafe fn compute(&self, compute: Compute, lane: &Lane, stream: Resolved) -> Result<Done> {
        let raw = lane.stream.get();
        match compute {
            Compute::Kernel { kernel, launch, arguments, triple } => {
                self.check_context("the kernel", kernel.context())?;
                let Some(triple) = triple else {
                    // SAFETY: as promised by the caller.
                    unsafe { kernel.check(&launch, arguments)?.launch(stream.raw)? };
                    return Ok(Done::default());
                };
                let with = |address: u64| -> Vec<Argument> {
                    std::iter::once(Argument::from(address)).chain(arguments.iter().copied()).collect()
                };
                kernel.check(&launch, &with(SOMEWHERE))?;
                self.with_buffer(triple, Step::Process, raw, |address| {
                    // SAFETY: as above.
                    unsafe { kernel.check(&launch, &with(address))?.launch(stream.raw) }.map(|()| None)
                })
            }
            Compute::Callback(callback) => {
                let failed = lane.call(callback, 0).err().map(Failure::Itself);
                Ok(Done { failed, ..Default::default() })
            }
            Compute::TripleCallback(triple, callback) => {
                // What it enqueued before it failed still uses the buffer.
                self.with_buffer(triple, Step::Process, raw, |address| Ok(lane.call(callback, address).err()))
            }
        }
    }

    /// Takes a triple buffer's next buffer for work that may fail midway, if what worked on it before in this turn did not
    /// fail. The turn is as it was if the work was refused.
    fn with_buffer(
        &self,
        triple: &TripleBuffer,
        step: Step,
        stream: Stream,
        work: impl FnOnce(u64) -> Result<Option<Error>>,
    ) -> Result<Done> {
        let buffer = self.take(triple, step, stream)?;
        let before = match step {
            Step::Upload => None,
            _ => self.books.own(triple.operation(buffer.turn())),
        };
        let (before, fails) = match before.map(|number| (number, self.books.before(number))) {
            Some((_, Before::Done(outcome))) => (None, Some(outcome).filter(|outcome| outcome.status < 0)),
            Some((number, Before::UnderWay(_, fails))) => (Some(number), fails),
            None => (None, None),
        };
        if let Some(outcome) = fails {
            let turn = Some((triple.key(), Some(buffer.turn())));
            // The buffer is given up here: its turn is passed over.
            let failed = Some(Failure::Before(outcome.of_dependant()));
            return Ok(Done { failed, before, turn, ..Default::default() });
        }
        match work(buffer.address()) {
            Ok(failed) => {
                let failed = failed.map(Failure::Itself);
                Ok(Done { failed, buffer: Some(buffer), before, ..Default::default() })
            }
            Err(error) => {
                buffer.put_back();
                Err(error)
            }
        }
    }

    fn with_token(&self, submit: impl FnOnce(&Token) -> Result<()>) -> Result<Done> {
        let token = self.books.token(&self.context)?;
        match submit(&token) {
            Ok(()) => Ok(Done { token: Some(token), ..Default::default() }),
            Err(error) => {
                self.books.keep_token(token);
                Err(error)
            }
        }
    }

    fn check_context(&self, what: &str, context: &crate::Context) -> Result<()> {
        if context.is(&self.context) {
            return Ok(());
        }
        Err(Error::argument(format!("{what} is of another context than the coordinator")))
    }

    fn take(&self, triple: &TripleBuffer, step: Step, stream: Stream) -> Result<Buffer> {
        self.check_context("the triple buffer", triple.context())?;
        triple.acquire_on(step, stream)?.ok_or_else(|| {
            Error::new(
                GMB_ERROR_UNAVAILABLE,
                format!(
                    "no buffer has come to be {}: its step before was not submitted, or all three are on their way",
                    step.participle()
                ),
            )
        })
    }

    /// An operation on a triple buffer fails with what it was to come after, and so its turn is passed over: that of those
    /// operations, or the next one.
    pub(super) fn pass_over(&self, work: &Work, after: &[u64]) -> Option<Turn> {
        let (triple, step) = (work.triple()?, work.step());
        // Of several the latest: that of the step before.
        let known = after.iter().filter_map(|&number| self.books.turn_of(number, triple.key()));
        if let Some(turn) = known.max_by_key(|&(_, turn)| turn) {
            if let (_, Some(number)) = turn {
                triple.give_up_rest(step, number);
            }
            return Some(turn);
        }
        // The upload that there is not has no turn.
        let taken = match step {
            Step::Upload => None,
            _ => triple.acquire_on(step, self.stream(step)).ok().flatten(),
        };
        Some((triple.key(), taken.map(|buffer| buffer.turn())))
    }

    /// What comes after an operation on a triple buffer in its turn will not come: the turn is passed over.
    pub(crate) fn give_up(&self, triple: &TripleBuffer, operation: OperationId) {
        if let Some((_, Some(turn))) = self.books.turn_of(operation.number(), triple.key()) {
            for step in [Step::Process, Step::Download] {
                triple.give_up_rest(step, turn);
            }
        }
    }

    /// # Safety
    /// As of [`Coordinator::queue`].
    unsafe fn upload(&self, (to, from, bytes): Copy, stream: Resolved, after: &[u64]) -> Result<()> {
        let size = bytes as usize;
        if !self.context.is_pageable(from, bytes)? {
            // SAFETY: as promised by the caller.
            return unsafe { self.context.backend().copy(to, from, size, stream.raw) };
        }
        let hold = |own: Resolved| after.iter().try_for_each(|&number| self.books.hold(number, own));
        // SAFETY: as promised by the caller.
        unsafe { self.uploads.upload(&self.context, (to, from, size), stream, after.is_empty(), hold) }
    }

    /// # Safety
    /// As of [`Coordinator::queue`].
    unsafe fn download(&self, (to, from, bytes): Copy, stream: Resolved) -> Result<()> {
        let size = bytes as usize;
        if !self.context.is_pageable(to, bytes)? {
            // SAFETY: as promised by the caller.
            return unsafe { self.context.backend().copy(to, from, size, stream.raw) };
        }
        // SAFETY: as promised by the caller.
        unsafe { self.downloads.download(&self.context, (to, from, size), stream) }
    }
}

impl Lane {
    /// Calls a callback, during which this thread must not come back.
    fn call(&self, callback: Callback, address: u64) -> Result<()> {
        struct Inside<'a>(&'a Lane);
        impl Drop for Inside<'_> {
            fn drop(&mut self) {
                self.0.inside.store(0, Ordering::Relaxed);
            }
        }
        self.inside.store(thread_number(), Ordering::Relaxed);
        let _inside = Inside(self);
        let call = || callback(self.stream.get(), address);
        catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| {
            Err(Error::new(GMB_ERROR_CALLBACK, "the callback panicked: what it enqueued before runs"))
        })
    }
}

fn check_copy(to: u64, from: u64, bytes: u64) -> Result<()> {
    if bytes == 0 {
        return Err(Error::new(GMB_ERROR_ZERO_COUNT, "bytes is 0: nothing to copy"));
    }
    crate::checks::check_address("to", to, 1)?;
    crate::checks::check_address("from", from, 1)?;
    Extent::bytes("to", to, bytes)?;
    Extent::bytes("from", from, bytes).map(|_| ())
}
