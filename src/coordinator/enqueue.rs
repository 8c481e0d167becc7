//! What operations put on their streams.

use std::sync::atomic::Ordering;

use super::{Coordinator, Lane, OperationKind};
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
    pub(super) failed: Option<Error>,
}

/// A copy: to, from, bytes.
type Copy = (u64, u64, u64);

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
            Work::Upload { to, from, bytes } => {
                let buffer = self.buffer(&to, Step::Upload, bytes, raw)?;
                let to = address_of(&to, buffer.as_ref());
                unsafe { self.upload((to, from, bytes), stream, after)? };
                submit(buffer, raw)?;
                Ok(Done::default())
            }
            Work::Download { to, from, bytes } => {
                let buffer = self.buffer(&from, Step::Download, bytes, raw)?;
                let from = address_of(&from, buffer.as_ref());
                unsafe { self.download((to, from, bytes), stream)? };
                submit(buffer, raw)?;
                Ok(Done::default())
            }
            Work::Compute(compute) => unsafe { self.compute(compute, lane, stream) },
            Work::Enqueue { function, .. } => {
                Ok(Done { failed: lane.call(function, 0).err(), ..Default::default() })
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
                let buffer = triple.map(|triple| self.take(triple, Step::Process, raw)).transpose()?;
                let address = buffer.as_ref().map(|buffer| Argument::from(buffer.address()));
                let all: Vec<Argument> = address.into_iter().chain(arguments.iter().copied()).collect();
                // SAFETY: as promised by the caller.
                unsafe { kernel.check(&launch, &all)?.launch(stream.raw)? };
                submit(buffer, raw)?;
                Ok(Done::default())
            }
            Compute::Callback(callback) => {
                let failed = lane.call(callback, 0).err();
                Ok(Done { failed, ..Default::default() })
            }
            Compute::TripleCallback(triple, callback) => {
                let buffer = self.take(triple, Step::Process, raw)?;
                let failed = lane.call(callback, buffer.address()).err();
                // What it enqueued before it failed still uses the buffer.
                buffer.submit(raw)?;
                Ok(Done { failed, ..Default::default() })
            }
        }
    }

    fn with_token(&self, submit: impl FnOnce(&Token) -> Result<()>) -> Result<Done> {
        let token = self.books.token(&self.context)?;
        match submit(&token) {
            Ok(()) => Ok(Done { token: Some(token), failed: None }),
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

    fn buffer(&self, place: &Place, step: Step, bytes: u64, stream: Stream) -> Result<Option<Buffer>> {
        match *place {
            Place::Address(_) => Ok(None),
            Place::Triple(triple, dtype) => {
                triple.check_bytes(dtype, bytes)?;
                self.take(triple, step, stream).map(Some)
            }
        }
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

    unsafe fn upload(&self, (to, from, bytes): Copy, stream: Resolved, after: &[u64]) -> Result<()> {
        let size = check_copy(to, from, bytes)?;
        self.context.check_reachable(&Extent::bytes("to", to, bytes)?)?;
        if !self.context.is_pageable(from, bytes)? {
            // SAFETY: as promised by the caller.
            return unsafe { self.context.backend().copy(to, from, size, stream.raw) };
        }
        let hold = |own: Resolved| after.iter().try_for_each(|&number| self.books.hold(number, own));
        // SAFETY: as promised by the caller.
        unsafe { self.uploads.upload(&self.context, (to, from, size), stream, after.is_empty(), hold) }
    }

    unsafe fn download(&self, (to, from, bytes): Copy, stream: Resolved) -> Result<()> {
        let size = check_copy(to, from, bytes)?;
        self.context.check_reachable(&Extent::bytes("from", from, bytes)?)?;
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
        callback(self.stream.get(), address)
    }
}

fn address_of(place: &Place, buffer: Option<&Buffer>) -> u64 {
    match (place, buffer) {
        (_, Some(buffer)) => buffer.address(),
        (Place::Address(address), None) => *address,
        (Place::Triple(..), None) => 0,
    }
}

fn submit(buffer: Option<Buffer>, stream: Stream) -> Result<()> {
    buffer.map_or(Ok(()), |buffer| buffer.submit(stream))
}

fn check_copy(to: u64, from: u64, bytes: u64) -> Result<usize> {
    if bytes == 0 {
        return Err(Error::new(GMB_ERROR_ZERO_COUNT, "bytes is 0: nothing to copy"));
    }
    crate::checks::check_address("to", to, 1)?;
    crate::checks::check_address("from", from, 1)?;
    Extent::bytes("to", to, bytes)?;
    Extent::bytes("from", from, bytes)?;
    Ok(bytes as usize)
}
