//! What stages are, and what one enqueues.

use std::sync::Arc;

use super::no_buffer;
use crate::checks::check_address;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::extent::Extent;
use crate::module::{Argument, Launch, ModuleKernel};
use crate::status::*;
use crate::stream::Stream;
use crate::triple::Step;
use crate::{Mailbox, Pop, Push};

/// Rows of host memory that iterations use in turn: iteration `n` has row `n` modulo their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostRing {
    /// Address of the first row.
    pub address: u64,
    /// Bytes from one row to the next.
    pub stride: u64,
    /// Rows; 1 for the same in every iteration.
    pub count: u64,
}

impl HostRing {
    fn row(&self, iteration: u64) -> u64 {
        self.address + iteration % self.count * self.stride
    }
}

/// An argument of a stage's kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StageArgument {
    /// These bytes.
    Bytes(Vec<u8>),
    /// The address of an input, by its place among the stage's inputs.
    Input(usize),
    /// The address of an output.
    Output(usize),
    /// The iteration's number, in 8 bytes. Not in a graph, which runs again and again.
    Iteration,
}

/// What a stage's callback gets.
pub struct StageCall<'a> {
    /// Where it enqueues its work.
    pub stream: Stream<'a>,
    /// Which iteration this is, from 0. In a graph: of those in it.
    pub iteration: u64,
    /// Device addresses of the inputs.
    pub inputs: &'a [u64],
    /// Device addresses of the outputs.
    pub outputs: &'a [u64],
    /// The stream is being captured: what is enqueued runs with each launch of the graph.
    pub captured: bool,
}

/// Enqueues a stage's work. It must not call the pipeline or its coordinator, nor wait for the device.
pub type StageFunction = Box<dyn Fn(&StageCall) -> Result<()> + Send + Sync>;

/// What a stage does.
pub enum StageWork {
    /// Copies from host memory into its one output.
    Upload {
        /// Where from.
        from: HostRing,
        /// How much.
        bytes: u64,
    },
    /// Copies from its one input to host memory.
    Download {
        /// Where to.
        to: HostRing,
        /// How much.
        bytes: u64,
    },
    /// Launches a kernel.
    Kernel {
        /// Which.
        kernel: ModuleKernel,
        /// In what shape.
        launch: Launch,
        /// With what.
        arguments: Vec<StageArgument>,
    },
    /// Calls a function that enqueues something.
    Callback(StageFunction),
    /// Pushes records out of its one input into a mailbox.
    Push {
        /// Which.
        mailbox: Arc<Mailbox>,
        /// What; `records` is the input's address.
        push: Push,
    },
    /// Pops records from a mailbox into its one output.
    Pop {
        /// Which.
        mailbox: Arc<Mailbox>,
        /// What; `records` is the output's address.
        pop: Pop,
    },
}

/// What a stage is made with.
pub struct StageOptions {
    /// Its name, which no other stage of the pipeline has.
    pub name: String,
    /// On which of the three streams it runs.
    pub step: Step,
    /// Buffers that it reads.
    pub inputs: Vec<usize>,
    /// Buffers that it writes. One that is an input, too, it changes.
    pub outputs: Vec<usize>,
    /// What it does.
    pub work: StageWork,
}

/// A stage that is in order.
pub(super) struct Stage {
    pub(super) name: String,
    pub(super) step: Step,
    pub(super) inputs: Vec<usize>,
    pub(super) outputs: Vec<usize>,
    pub(super) work: StageWork,
}

impl Stage {
    pub(super) fn new(context: &Context, options: StageOptions, sizes: &[u64]) -> Result<Self> {
        let StageOptions { name, step, inputs, outputs, work } = options;
        if name.is_empty() || name.contains('\0') {
            return Err(Error::argument("a stage's name is empty, or has a NUL in it"));
        }
        if let Some(&missing) = inputs.iter().chain(&outputs).find(|&&buffer| buffer >= sizes.len()) {
            return Err(named(&name, no_buffer(missing, sizes.len())));
        }
        let stage = Self { name, step, inputs, outputs, work };
        stage.check(context, sizes).map_err(|error| named(&stage.name, error))?;
        Ok(stage)
    }

    fn check(&self, context: &Context, sizes: &[u64]) -> Result<()> {
        let one = |what: &str, given: &[usize], other: &[usize]| match (given, other) {
            ([one], []) => Ok(*one),
            _ => Err(Error::argument(format!(
                "it has {} inputs and {} outputs, and takes one {what} and no other",
                self.inputs.len(),
                self.outputs.len()
            ))),
        };
        let copied = |ring: &HostRing, bytes: u64, buffer: usize| {
            if bytes == 0 || ring.count == 0 {
                return Err(Error::new(GMB_ERROR_ZERO_COUNT, "bytes or count is 0: nothing to copy"));
            }
            check_address("the host memory", ring.address, 1)?;
            if bytes > sizes[buffer] {
                return Err(Error::argument(format!("{bytes} bytes: buffer {buffer} has {}", sizes[buffer])));
            }
            let all = ring.stride.checked_mul(ring.count - 1).and_then(|all| all.checked_add(bytes));
            Extent::bytes("the host memory", ring.address, all.unwrap_or(u64::MAX)).map(|_| ())
        };
        let here = |what: &str, of: &Context| match of.is(context) {
            true => Ok(()),
            false => Err(Error::argument(format!("{what} is of another context than the pipeline"))),
        };
        match &self.work {
            StageWork::Upload { from, bytes } => {
                copied(from, *bytes, one("output", &self.outputs, &self.inputs)?)
            }
            StageWork::Download { to, bytes } => {
                copied(to, *bytes, one("input", &self.inputs, &self.outputs)?)
            }
            StageWork::Push { mailbox, .. } => {
                one("input", &self.inputs, &self.outputs)?;
                here("the mailbox", mailbox.context())
            }
            StageWork::Pop { mailbox, .. } => {
                one("output", &self.outputs, &self.inputs)?;
                here("the mailbox", mailbox.context())
            }
            StageWork::Kernel { kernel, launch, arguments } => {
                here("the kernel", kernel.context())?;
                for (n, argument) in arguments.iter().enumerate() {
                    let (what, place, there) = match *argument {
                        StageArgument::Input(place) => ("inputs", place, self.inputs.len()),
                        StageArgument::Output(place) => ("outputs", place, self.outputs.len()),
                        _ => continue,
                    };
                    if place >= there {
                        return Err(Error::argument(format!(
                            "argument {n} is number {place} of {there} {what}, from 0"
                        )));
                    }
                }
                let zeros = |all: &[usize]| vec![0u64; all.len()];
                kernel
                    .check(launch, &values(arguments, &zeros(&self.inputs), &zeros(&self.outputs), 0))
                    .map(|_| ())
            }
            StageWork::Callback(_) => Ok(()),
        }
    }

    /// Enqueues what the stage does: not copies of pageable memory.
    ///
    /// # Safety
    /// As of [`super::Pipeline::add_stage`].
    #[allow(clippy::undocumented_unsafe_blocks)] // That is what every call below is made with.
    pub(super) unsafe fn enqueue(&self, context: &Context, call: &StageCall) -> Result<()> {
        let stream = call.stream;
        let input = call.inputs.first().copied().unwrap_or(0);
        let output = call.outputs.first().copied().unwrap_or(0);
        match &self.work {
            StageWork::Upload { from, bytes } => unsafe {
                context.copy(output, from.row(call.iteration), *bytes as usize, stream)
            },
            StageWork::Download { to, bytes } => unsafe {
                context.copy(to.row(call.iteration), input, *bytes as usize, stream)
            },
            StageWork::Kernel { kernel, launch, arguments } => {
                if call.captured && arguments.contains(&StageArgument::Iteration) {
                    return Err(Error::new(
                        GMB_ERROR_NOT_SUPPORTED,
                        "its kernel takes the iteration's number, and a graph runs again with the same one",
                    ));
                }
                let arguments = values(arguments, call.inputs, call.outputs, call.iteration);
                unsafe { kernel.launch(launch, &arguments, stream) }
            }
            StageWork::Callback(function) => function(call),
            StageWork::Push { mailbox, push } => unsafe {
                mailbox.push(&Push { records: input, ..*push }, stream, None)
            },
            StageWork::Pop { mailbox, pop } => unsafe {
                mailbox.pop(&Pop { records: output, ..*pop }, stream, None)
            },
        }
    }

    /// The host memory of an iteration, where the stage copies.
    pub(super) fn host(&self, iteration: u64) -> Option<(u64, u64)> {
        match &self.work {
            StageWork::Upload { from: ring, bytes } | StageWork::Download { to: ring, bytes } => {
                Some((ring.row(iteration), *bytes))
            }
            _ => None,
        }
    }

    /// Whether so many iterations later it does the same.
    pub(super) fn comes_round(&self, iterations: u64) -> bool {
        match &self.work {
            StageWork::Upload { from: ring, .. } | StageWork::Download { to: ring, .. } => {
                iterations % ring.count == 0
            }
            _ => true,
        }
    }
}

fn values<'a>(
    arguments: &'a [StageArgument],
    inputs: &[u64],
    outputs: &[u64],
    iteration: u64,
) -> Vec<Argument<'a>> {
    arguments
        .iter()
        .map(|argument| match argument {
            StageArgument::Bytes(bytes) => Argument::bytes(bytes),
            StageArgument::Input(n) => inputs.get(*n).copied().unwrap_or(0).into(),
            StageArgument::Output(n) => outputs.get(*n).copied().unwrap_or(0).into(),
            StageArgument::Iteration => iteration.into(),
        })
        .collect()
}

/// An error of a stage's.
pub(super) fn named(stage: &str, error: Error) -> Error {
    Error::new(error.status(), format!("stage {stage:?}: {}", error.message()))
}
