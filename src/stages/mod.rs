//! Pipelines of stages: each iteration goes through the stages in their order, on three streams, and iterations overlap as far
//! as their data allows.
//!
//! A buffer of a pipeline is several buffers that iterations use in turn. A stage comes after what wrote its inputs in the same
//! iteration, and after what still uses the memory of its outputs: of an iteration as many before as there are copies. Nothing
//! else keeps it from running.

mod define;
mod graph;
mod run;
mod statistics;
mod timeline;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

pub use define::{HostRing, StageArgument, StageCall, StageFunction, StageOptions, StageWork};
pub use statistics::{PipelineStatistics, StageStatistics};

use crate::context::Context;
use crate::coordinator::{Coordinator, CoordinatorOptions, OperationId};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::profiler::Range;
use crate::status::*;
use crate::stream::Priority;
use crate::sync::lock;
use crate::triple::Step;
use define::Stage;
use statistics::Books;
use timeline::Timeline;

/// What a pipeline is made with.
#[derive(Clone, Copy, Debug, Default)]
pub struct PipelineOptions {
    /// Copies of each buffer, which iterations use in turn: so many iterations can be under way beside each other; 0 for 3, at most
    /// 64.
    pub copies: u32,
    /// Iterations that are queued before a call waits for the oldest; 0 for 16, at most 1,024.
    pub most_in_flight: u32,
    /// Of its streams.
    pub priority: Priority,
    /// One stream for all steps: nothing overlaps.
    pub one_stream: bool,
    /// Without statistics and a timeline: an event less for each stage of an iteration.
    pub untimed: bool,
}

const COPIES: u32 = 3;
const MOST_COPIES: u32 = 64;
const IN_FLIGHT: u32 = 16;
const MOST_IN_FLIGHT: u32 = 1024;
/// Stages of a pipeline, at most.
const MOST_STAGES: usize = 64;

/// Stages in an order, and the buffers between them.
///
/// ```
/// use gpumailbox::{
///     Context, ContextOptions, HostRing, Pipeline, PipelineOptions, StageCall, StageOptions, StageWork, Step,
/// };
///
/// let context = Context::new(&ContextOptions::default())?;
/// let pipeline = Pipeline::new(&context, &PipelineOptions::default())?;
/// let data = pipeline.add_buffer(1024)?;
/// // Ten iterations, each with bytes of its own.
/// let (input, output) = (context.pinned_buffer(10 * 1024)?, context.pinned_buffer(10 * 1024)?);
/// let rows = |buffer: &gpumailbox::PinnedBuffer| HostRing { address: buffer.address(), stride: 1024, count: 10 };
/// let on = context.clone();
/// let fill = Box::new(move |call: &StageCall| {
///     // SAFETY: the buffer has so many bytes.
///     unsafe { on.fill(call.outputs[0], call.iteration as u8, 512, call.stream) }
/// });
/// let stage = |name: &str, step, inputs: &[usize], outputs: &[usize], work| StageOptions {
///     name: name.to_owned(),
///     step,
///     inputs: inputs.to_vec(),
///     outputs: outputs.to_vec(),
///     work,
/// };
/// // SAFETY: the memory outlives the iterations, which are waited for.
/// unsafe {
///     pipeline.add_stage(stage("in", Step::Upload, &[], &[data], StageWork::Upload { from: rows(&input), bytes: 1024 }))?;
///     pipeline.add_stage(stage("fill", Step::Process, &[data], &[data], StageWork::Callback(fill)))?;
///     pipeline.add_stage(stage("out", Step::Download, &[data], &[], StageWork::Download { to: rows(&output), bytes: 1024 }))?;
/// }
/// pipeline.execute(10)?;
/// pipeline.synchronize(None)?;
/// assert_eq!(pipeline.statistics()?.iterations, 10);
/// # Ok::<(), gpumailbox::Error>(())
/// ```
pub struct Pipeline {
    context: Context,
    coordinator: Arc<Coordinator>,
    copies: u32,
    most_in_flight: u32,
    untimed: bool,
    state: Mutex<State>,
}

/// Who uses one copy of a buffer.
#[derive(Clone, Default)]
struct Uses {
    written: Option<OperationId>,
    /// The latest of each stream that reads what was written.
    read: [Option<OperationId>; 3],
}

struct Buffer {
    address: u64,
    bytes: u64,
    uses: Vec<Uses>,
}

/// An iteration, or several in a graph, that is under way.
struct Iteration {
    number: u64,
    count: u64,
    operations: Vec<OperationId>,
}

#[derive(Default)]
struct State {
    buffers: Vec<Buffer>,
    stages: Vec<Arc<Stage>>,
    /// Places in `stages`.
    order: Vec<usize>,
    /// Number of the next iteration.
    next: u64,
    under_way: VecDeque<Iteration>,
    /// What operations do: the stage, or none for a graph, and the iteration.
    doing: HashMap<OperationId, (Option<usize>, u64)>,
    /// The latest operation of each stream.
    last: [Option<OperationId>; 3],
    /// Why an iteration failed, of those that nobody was told of.
    failed: Vec<(u64, Error)>,
    graph: Option<(u32, Arc<Graph>)>,
    books: Books,
    timeline: Timeline,
}

impl Pipeline {
    /// Makes one without buffers and stages.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`, `DEVICE_LOST`, `DRIVER`, `SYSTEM`.
    pub fn new(context: &Context, options: &PipelineOptions) -> Result<Self> {
        let _range = Range::new(c"make a pipeline");
        let chosen = |name: &str, asked: u32, choice: u32, most: u32| match asked {
            0 => Ok(choice),
            asked if asked <= most => Ok(asked),
            asked => Err(Error::argument(format!("{name} {asked} exceeds {most}"))),
        };
        let copies = chosen("copies", options.copies, COPIES, MOST_COPIES)?;
        let most_in_flight = chosen("most_in_flight", options.most_in_flight, IN_FLIGHT, MOST_IN_FLIGHT)?;
        let coordinator = Coordinator::new(
            context,
            &CoordinatorOptions {
                max_operations: (most_in_flight + 2) * (MOST_STAGES as u32 + 3),
                priority: options.priority,
                one_stream: options.one_stream,
                timed: !options.untimed,
            },
        )?;
        Ok(Self {
            context: context.clone(),
            coordinator: Arc::new(coordinator),
            copies,
            most_in_flight,
            untimed: options.untimed,
            state: Mutex::default(),
        })
    }

    /// The context it works in.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// The coordinator whose streams it uses, for work beside it. Its completions are the pipeline's: do not poll it.
    pub fn coordinator(&self) -> &Coordinator {
        &self.coordinator
    }

    /// Adds a buffer of so many bytes, with its copies; its index. Blocks until the memory is there.
    ///
    /// # Errors
    /// `ZERO_COUNT`, `OVERFLOW`, `BUSY` (iterations are under way), `OUT_OF_MEMORY`, `MEMORY_LIMIT`, `DEVICE_LOST`.
    pub fn add_buffer(&self, bytes: u64) -> Result<usize> {
        let mut state = lock(&self.state);
        self.check_idle(&mut state, "a buffer can be added")?;
        let overflow = || Error::new(GMB_ERROR_OVERFLOW, format!("{bytes} bytes exceed any memory"));
        if bytes == 0 {
            return Err(Error::new(GMB_ERROR_ZERO_COUNT, "a buffer of zero bytes"));
        }
        let each = bytes.checked_next_multiple_of(256).ok_or_else(overflow)?;
        let all = each
            .checked_mul(self.copies.into())
            .filter(|&all| all <= isize::MAX as u64)
            .ok_or_else(overflow)?;
        let address = self.context.allocate_ring(all as usize)?;
        self.context.backend().stream_synchronize(self.context.service())?;
        let uses = vec![Uses::default(); self.copies as usize];
        state.buffers.push(Buffer { address, bytes: each, uses });
        state.graph = None;
        Ok(state.buffers.len() - 1)
    }

    /// Device address of a buffer's copy: iteration `n` uses copy `n` modulo their number.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` (no such buffer).
    pub fn buffer_address(&self, buffer: usize, copy: u32) -> Result<u64> {
        let state = lock(&self.state);
        let found = state.buffers.get(buffer).ok_or_else(|| no_buffer(buffer, state.buffers.len()))?;
        Ok(found.address + u64::from(copy % self.copies) * found.bytes)
    }

    /// Adds a stage at the end of the order.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` (an empty name, or one that there is; a buffer that there is not; inputs or outputs that the work
    /// cannot have; too many stages; a kernel's launch beyond the device), `BUSY` (iterations are under way), `NULL_POINTER`,
    /// `ZERO_COUNT`, `OVERFLOW`.
    ///
    /// # Safety
    /// All memory that the stage names stays valid as long as the pipeline runs it; a kernel's arguments are its own.
    pub unsafe fn add_stage(&self, options: StageOptions) -> Result<()> {
        let mut state = lock(&self.state);
        self.check_idle(&mut state, "a stage can be added")?;
        if state.stages.len() == MOST_STAGES {
            return Err(Error::argument(format!("a pipeline has {MOST_STAGES} stages at most")));
        }
        if state.stages.iter().any(|stage| stage.name == options.name) {
            return Err(Error::argument(format!("there is a stage {:?} already", options.name)));
        }
        let sizes: Vec<u64> = state.buffers.iter().map(|buffer| buffer.bytes).collect();
        let stage = Stage::new(&self.context, options, &sizes)?;
        state.stages.push(Arc::new(stage));
        let place = state.stages.len() - 1;
        state.order.push(place);
        state.graph = None;
        Ok(())
    }

    /// Sets which stages an iteration goes through, in which order. Those that are not named are left out.
    ///
    /// # Errors
    /// `NOT_FOUND` (no stage of this name), `INVALID_ARGUMENT` (a stage twice), `BUSY` (iterations are under way: synchronize).
    pub fn set_order(&self, names: &[&str]) -> Result<()> {
        let mut state = lock(&self.state);
        self.check_idle(&mut state, "the order can change")?;
        let mut order = Vec::with_capacity(names.len());
        for name in names {
            let place = state.stages.iter().position(|stage| stage.name == *name).ok_or_else(|| {
                let known: Vec<&str> = state.stages.iter().map(|stage| stage.name.as_str()).collect();
                Error::new(
                    GMB_ERROR_NOT_FOUND,
                    format!("no stage is called {name:?}: there are {}", known.join(", ")),
                )
            })?;
            if order.contains(&place) {
                return Err(Error::argument(format!("stage {name:?} comes twice")));
            }
            order.push(place);
        }
        state.order = order;
        state.graph = None;
        Ok(())
    }

    fn check_idle(&self, state: &mut State, what: &str) -> Result<()> {
        self.look(state)?;
        match state.under_way.len() {
            0 => Ok(()),
            count => Err(Error::new(
                GMB_ERROR_BUSY,
                format!("{count} iterations are under way: synchronize before {what}"),
            )),
        }
    }
}

fn no_buffer(buffer: usize, there_are: usize) -> Error {
    Error::argument(format!("buffer {buffer}: the pipeline has {there_are}, from 0"))
}

/// Which stream a step goes on, by its place among the three.
fn lane(step: Step) -> usize {
    step.index()
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        let mut finished = Ok(());
        for step in Step::ALL {
            finished = finished.and(self.context.synchronize(self.coordinator.stream(step)));
        }
        if finished.is_err_and(|error| error.status() != GMB_ERROR_DEVICE_LOST) {
            return;
        }
        for buffer in &lock(&self.state).buffers {
            // SAFETY: every operation is done, and no other work may use the buffers.
            let _ = unsafe { self.context.free_ring(buffer.address) };
        }
    }
}

impl std::fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipeline").field("copies", &self.copies).finish_non_exhaustive()
    }
}
