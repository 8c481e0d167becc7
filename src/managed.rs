//! Managed contexts: a coordinator, a pipeline and triple buffers in one object, and a step that uses them in one call.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use crate::context::Context;
use crate::coordinator::{Completion, Compute, Coordinator, CoordinatorOptions, OperationId, Place, Work};
use crate::error::{Error, Result};
use crate::layout::gmb_dtype;
use crate::profiler::Range;
use crate::stages::{Pipeline, PipelineOptions};
use crate::stream::Priority;
use crate::sync::lock;
use crate::triple::{TripleBuffer, TripleBufferOptions};

/// What a managed context is made with.
#[derive(Clone, Copy, Debug, Default)]
pub struct ManagedOptions {
    /// Everything on one stream: nothing overlaps.
    pub one_stream: bool,
    /// Of its streams.
    pub priority: Priority,
    /// Of its pipeline: copies of each buffer; 0 for 3.
    pub copies: u32,
    /// Steps that are queued before a call waits for the oldest; 0 for 16, at most 1,024.
    pub most_in_flight: u32,
}

const IN_FLIGHT: u32 = 16;
const MOST_IN_FLIGHT: u32 = 1024;

/// Host memory of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostRange {
    /// Address of the first byte.
    pub address: u64,
    /// Bytes.
    pub bytes: u64,
}

/// What a step took, by the device's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepTimes {
    /// Which step.
    pub step: u64,
    /// Microseconds that the upload ran.
    pub upload_us: f64,
    /// That the kernel or callback ran.
    pub compute_us: f64,
    /// That the download ran.
    pub download_us: f64,
    /// From the upload's begin to the download's end.
    pub latency_us: f64,
}

/// How it is with steps, as a step's call found it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepTelemetry {
    /// The number of the step that was queued, from 0.
    pub step: u64,
    /// Steps that are done.
    pub completed: u64,
    /// Of them, those that failed.
    pub failed: u64,
    /// Steps that are queued and not known to be done, with this one.
    pub in_flight: u64,
    /// The latest that is done and did not fail.
    pub last: Option<StepTimes>,
    /// Mean time from the end of one to the end of the next, in microseconds; zero before there are two.
    pub mean_step_us: f64,
}

/// A coordinator, a pipeline and triple buffers, and steps through one of these.
///
/// ```
/// use gpumailbox::{
///     gmb_dtype, Callback, Compute, Context, ContextOptions, HostRange, ManagedContext, ManagedOptions, TripleBufferOptions,
/// };
///
/// let context = Context::new(&ContextOptions::default())?;
/// let managed = ManagedContext::new(&context, &ManagedOptions::default())?;
/// let byte = gmb_dtype { code: 1, bits: 8, lanes: 1 };
/// let triple = managed.triple_buffer(&TripleBufferOptions { dtype: byte, elements: 64 })?;
/// let (input, output) = (vec![7u8; 64], vec![0u8; 64 * 10]);
/// for n in 0..10u8 {
///     let on = context.clone();
///     // SAFETY: the buffer has so many bytes.
///     let fill: Callback = Box::new(move |stream, address| unsafe { on.fill(address, n, 32, stream) });
///     let to = HostRange { address: output[64 * usize::from(n)..].as_ptr() as u64, bytes: 64 };
///     let from = HostRange { address: input.as_ptr() as u64, bytes: 64 };
///     // SAFETY: the memory outlives the steps, which are waited for.
///     let told = unsafe { managed.step(&triple, byte, from, Compute::Callback(fill), to)? };
///     assert_eq!(told.step, n.into());
/// }
/// managed.synchronize(None)?;
/// assert_eq!((output[64 * 9], output[64 * 9 + 63]), (9, 7));
/// assert_eq!(managed.telemetry()?.completed, 10);
/// # Ok::<(), gpumailbox::Error>(())
/// ```
pub struct ManagedContext {
    context: Context,
    pipeline: Pipeline,
    coordinator: Coordinator,
    most_in_flight: u32,
    state: Mutex<State>,
}

struct Step {
    number: u64,
    operations: [OperationId; 3],
    done: [Option<Completion>; 3],
}

#[derive(Default)]
struct State {
    next: u64,
    under_way: VecDeque<Step>,
    told: StepTelemetry,
    /// When the first and the latest step ended that did not fail, and how many there were.
    ends: Option<(f64, f64, u64)>,
}

impl ManagedContext {
    /// Makes one in a context.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` (`copies`, `most_in_flight`), `DEVICE_LOST`, `DRIVER`, `SYSTEM`.
    pub fn new(context: &Context, options: &ManagedOptions) -> Result<Self> {
        let _range = Range::new(c"make a managed context");
        let most_in_flight = match options.most_in_flight {
            0 => IN_FLIGHT,
            most if most <= MOST_IN_FLIGHT => most,
            most => return Err(Error::argument(format!("most_in_flight {most} exceeds {MOST_IN_FLIGHT}"))),
        };
        let of_pipeline = PipelineOptions {
            copies: options.copies,
            most_in_flight,
            priority: options.priority,
            one_stream: options.one_stream,
            untimed: false,
        };
        let of_coordinator = CoordinatorOptions {
            max_operations: 0,
            priority: options.priority,
            one_stream: options.one_stream,
            timed: true,
        };
        Ok(Self {
            context: context.clone(),
            pipeline: Pipeline::new(context, &of_pipeline)?,
            coordinator: Coordinator::new(context, &of_coordinator)?,
            most_in_flight,
            state: Mutex::default(),
        })
    }

    /// The context it was made in.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// The coordinator that its steps use, for operations beside them. What is done of those is told to the steps: do not poll it.
    pub fn coordinator(&self) -> &Coordinator {
        &self.coordinator
    }

    /// A pipeline of stages, on streams of its own.
    pub fn pipeline(&self) -> &Pipeline {
        &self.pipeline
    }

    /// Makes a triple buffer for steps.
    ///
    /// # Errors
    /// As for [`TripleBuffer::new`].
    pub fn triple_buffer(&self, options: &TripleBufferOptions) -> Result<TripleBuffer> {
        TripleBuffer::new(&self.context, options)
    }

    /// Queues one turn of a triple buffer: uploads elements of type `dtype` from host memory, computes on them, downloads to host
    /// memory. A kernel's `triple` is set by this; a callback gets the buffer's address. Does not wait for the device, but for
    /// the oldest step when as many are under way as may be. How it is with the steps so far.
    ///
    /// # Errors
    /// As for [`Coordinator::queue`]. If the upload was queued and what comes after it was not, the step fails and its turn is
    /// passed over.
    ///
    /// # Safety
    /// The host memory stays valid, and is not used otherwise, until the step is done.
    pub unsafe fn step(
        &self,
        triple: &TripleBuffer,
        dtype: gmb_dtype,
        from: HostRange,
        compute: Compute,
        to: HostRange,
    ) -> Result<StepTelemetry> {
        let _range = Range::new(c"a triple-buffered step");
        let compute = match compute {
            Compute::Kernel { kernel, launch, arguments, .. } => {
                Compute::Kernel { kernel, launch, arguments, triple: Some(triple) }
            }
            Compute::Callback(callback) | Compute::TripleCallback(_, callback) => {
                Compute::TripleCallback(triple, callback)
            }
        };
        self.make_room()?;
        let mut state = lock(&self.state);
        let coordinator = &self.coordinator;
        let place = Place::Triple(triple, dtype);
        // SAFETY: as promised by the caller, here and below.
        let uploaded = unsafe {
            coordinator.queue(Work::Upload { to: place, from: from.address, bytes: from.bytes }, &[])
        }?;
        // SAFETY: as above.
        let rest = unsafe { coordinator.queue(Work::Compute(compute), &[uploaded]) }.and_then(|computed| {
            let download = Work::Download { to: to.address, from: place, bytes: to.bytes };
            // SAFETY: as above.
            unsafe { coordinator.queue(download, &[computed]) }.map(|downloaded| (computed, downloaded))
        });
        let (computed, downloaded) = rest.inspect_err(|_| coordinator.give_up(triple, uploaded))?;
        let number = state.next;
        state.next += 1;
        state.under_way.push_back(Step {
            number,
            operations: [uploaded, computed, downloaded],
            done: [None; 3],
        });
        self.look(&mut state)?;
        Ok(StepTelemetry { step: number, ..self.tell(&state) })
    }

    fn make_room(&self) -> Result<()> {
        loop {
            let oldest = {
                let mut state = lock(&self.state);
                self.look(&mut state)?;
                match state.under_way.front() {
                    Some(step) if state.under_way.len() >= self.most_in_flight as usize => step.operations[2],
                    _ => return Ok(()),
                }
            };
            // How it ended is seen when it is looked at.
            let _ = self.coordinator.wait(oldest, None);
        }
    }

    fn look(&self, state: &mut State) -> Result<()> {
        for done in self.coordinator.poll(usize::MAX)? {
            for step in &mut state.under_way {
                if let Some(place) = step.operations.iter().position(|&id| id == done.operation) {
                    step.done[place] = Some(done);
                }
            }
        }
        while let Some(&Step { number, done: [Some(upload), Some(compute), Some(download)], .. }) =
            state.under_way.front()
        {
            state.under_way.pop_front();
            state.told.completed += 1;
            match (upload.span, compute.span, download.span) {
                (Some(up), Some(work), Some(down))
                    if [upload, compute, download].iter().all(|d| d.status >= 0) =>
                {
                    state.told.last = Some(StepTimes {
                        step: number,
                        upload_us: up.end_us - up.begin_us,
                        compute_us: work.end_us - work.begin_us,
                        download_us: down.end_us - down.begin_us,
                        latency_us: down.end_us - up.begin_us,
                    });
                    let (first, _, count) = state.ends.unwrap_or((down.end_us, 0.0, 0));
                    state.ends = Some((first, down.end_us, count + 1));
                }
                _ => state.told.failed += 1,
            }
        }
        Ok(())
    }

    fn tell(&self, state: &State) -> StepTelemetry {
        let mean_step_us = match state.ends {
            Some((first, last, count)) if count > 1 => (last - first) / (count - 1) as f64,
            _ => 0.0,
        };
        StepTelemetry {
            step: state.next.saturating_sub(1),
            in_flight: state.under_way.len() as u64,
            mean_step_us,
            ..state.told
        }
    }

    /// How it is with the steps so far. Never blocks for the device.
    ///
    /// # Errors
    /// `DRIVER`.
    pub fn telemetry(&self) -> Result<StepTelemetry> {
        let mut state = lock(&self.state);
        self.look(&mut state)?;
        Ok(self.tell(&state))
    }

    /// Blocks the calling thread until every step is done that was queued before, and every iteration of the pipeline.
    ///
    /// # Errors
    /// `TIMEOUT` (wait again), `DRIVER`, and as for [`Pipeline::synchronize`]. Of failed steps [`telemetry`](Self::telemetry) tells.
    pub fn synchronize(&self, timeout: Option<Duration>) -> Result<()> {
        self.coordinator.synchronize(timeout)?;
        self.pipeline.synchronize(timeout)
    }
}

impl std::fmt::Debug for ManagedContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ManagedContext").field("most_in_flight", &self.most_in_flight).finish_non_exhaustive()
    }
}
