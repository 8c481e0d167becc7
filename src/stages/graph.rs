//! The steady state captured: several iterations as one graph, launched again and again.

use std::sync::Arc;

use super::define::{named, Stage, StageCall};
use super::{lane, Iteration, Pipeline, State, Uses};
use crate::coordinator::{Callback, OperationId, Work};
use crate::error::{Error, Result};
use crate::events::{Event, EventKind};
use crate::graph::{CaptureMode, Graph};
use crate::profiler::Range;
use crate::status::*;
use crate::sync::lock;
use crate::triple::Step;

/// The same of a buffer's copy under capture: after whose event a stage of which stream comes.
#[derive(Clone, Default)]
struct Captured {
    written: Option<(usize, usize)>,
    read: [Option<usize>; 3],
}

/// A capture under way: an event after each stage of an iteration.
struct Capturing<'a> {
    pipeline: &'a Pipeline,
    events: Vec<Event>,
    uses: Vec<Vec<Captured>>,
}

impl Pipeline {
    /// Captures so many iterations, as they follow each other without end, as one graph; from then on
    /// [`execute`](Self::execute) launches it for so many iterations, from each one whose number is a multiple of them. It does the
    /// same as they do, with one call. Until stages, order or buffers change; 0 goes back to calls for each.
    ///
    /// Statistics count a graph's iterations; what its stages took each is not known. Iterations of one graph overlap, those of
    /// two launches do not: capture many.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` (no multiple of the copies; a stage whose host memory does not come round after so many iterations),
    /// `NOT_SUPPORTED` (pageable memory, a mailbox under the full policy `Wait`, a kernel that takes the iteration's number, what a
    /// callback enqueues cannot be captured), `NOT_FOUND` (no stages), `BUSY` (iterations are under way), `CAPTURE`, `DEVICE_LOST`,
    /// `DRIVER`. Then there is no graph.
    pub fn capture(&self, iterations: u32) -> Result<()> {
        let _range = Range::new(c"capture iterations");
        let mut state = lock(&self.state);
        self.check_idle(&mut state, "capturing")?;
        state.graph = None;
        if iterations == 0 {
            return Ok(());
        }
        if iterations % self.copies != 0 {
            return Err(Error::argument(format!(
                "iterations {iterations} is no multiple of the {} copies of a buffer",
                self.copies
            )));
        }
        if state.order.is_empty() {
            return Err(Error::new(GMB_ERROR_NOT_FOUND, "the pipeline has no stages to capture"));
        }
        for &place in &state.order {
            self.check_capturable(&state.stages[place], iterations)?;
        }
        let graph = self.captured(&state, iterations)?;
        state.graph = Some((iterations, Arc::new(graph)));
        Ok(())
    }

    fn check_capturable(&self, stage: &Stage, iterations: u32) -> Result<()> {
        if !stage.comes_round(iterations.into()) {
            return Err(named(
                &stage.name,
                Error::argument(format!(
                    "{iterations} iterations do not end where its host memory begins again"
                )),
            ));
        }
        let Some((address, bytes)) = stage.host(0) else { return Ok(()) };
        if self.context.is_pageable(address, bytes)? {
            return Err(named(
                &stage.name,
                Error::new(
                    GMB_ERROR_NOT_SUPPORTED,
                    "its host memory is pageable, and a graph needs pinned memory",
                ),
            ));
        }
        Ok(())
    }

    fn captured(&self, state: &State, iterations: u32) -> Result<Graph> {
        let first = self.coordinator.stream(Step::Upload);
        self.context.begin_capture(first, CaptureMode::ThreadLocal)?;
        let uses = state.buffers.iter().map(|_| vec![Captured::default(); self.copies as usize]).collect();
        let mut capturing = Capturing { pipeline: self, events: Vec::new(), uses };
        let filled = capturing.fill(state, iterations);
        let ended = self.context.end_capture(first);
        filled.and(ended)
    }

    /// Launches the graph as one operation: after all that was queued, and before all that comes.
    pub(super) fn launch(&self, state: &mut State, count: u64, graph: Arc<Graph>) -> Result<()> {
        let before: Vec<OperationId> = state.last.into_iter().flatten().collect();
        let function: Callback = Box::new(|stream, _| graph.launch(stream));
        // SAFETY: whoever added the stages has promised that their memory stays valid.
        let id = unsafe { self.coordinator.queue(Work::Enqueue { step: Step::Upload, function }, &before) }?;
        let number = state.next;
        state.next += count;
        state.doing.insert(id, (None, number));
        state.under_way.push_back(Iteration { number, count, operations: vec![id] });
        for buffer in &mut state.buffers {
            buffer.uses.fill(Uses { written: Some(id), read: [None; 3] });
        }
        // Stages without buffers, too, come after it.
        for step in [Step::Process, Step::Download] {
            let nothing: Callback = Box::new(|_, _| Ok(()));
            // SAFETY: it uses no memory.
            let held = unsafe { self.coordinator.queue(Work::Enqueue { step, function: nothing }, &[id]) }?;
            state.last[lane(step)] = Some(held);
        }
        state.last[lane(Step::Upload)] = Some(id);
        Ok(())
    }
}

impl Capturing<'_> {
    fn fill(&mut self, state: &State, iterations: u32) -> Result<()> {
        let [first, others @ ..] = Step::ALL;
        let (context, coordinator) = (&self.pipeline.context, &self.pipeline.coordinator);
        let begin = context.event(EventKind::Capture)?;
        begin.record(coordinator.stream(first))?;
        for step in others {
            begin.make_wait(coordinator.stream(step))?;
        }
        for iteration in 0..iterations.into() {
            for &place in &state.order {
                let stage = &state.stages[place];
                self.stage(state, stage, iteration).map_err(|error| named(&stage.name, error))?;
            }
        }
        for step in others {
            let end = context.event(EventKind::Capture)?;
            end.record(coordinator.stream(step))?;
            end.make_wait(coordinator.stream(first))?;
        }
        Ok(())
    }

    fn stage(&mut self, state: &State, stage: &Stage, iteration: u64) -> Result<()> {
        let pipeline = self.pipeline;
        let own = lane(stage.step);
        let stream = pipeline.coordinator.stream(stage.step);
        let mut after: Vec<usize> = Vec::new();
        let mut come_after = |of: Option<(usize, usize)>| {
            after.extend(of.filter(|&(lane, _)| lane != own).map(|(_, event)| event))
        };
        for &buffer in &stage.inputs {
            come_after(self.uses[buffer][pipeline.copy_of(state, buffer, iteration).0].written);
        }
        for &buffer in &stage.outputs {
            let uses = &self.uses[buffer][pipeline.copy_of(state, buffer, iteration).0];
            come_after(uses.written);
            for (lane, &event) in uses.read.iter().enumerate() {
                come_after(event.map(|event| (lane, event)));
            }
        }
        for event in after {
            self.events[event].make_wait(stream)?;
        }
        let inputs = pipeline.addresses(state, &stage.inputs, iteration);
        let outputs = pipeline.addresses(state, &stage.outputs, iteration);
        let call = StageCall { stream, iteration, inputs: &inputs, outputs: &outputs, captured: true };
        // SAFETY: whoever added the stage has promised it for as long as the pipeline runs it.
        unsafe { stage.enqueue(&pipeline.context, &call)? };
        let done = pipeline.context.event(EventKind::Capture)?;
        done.record(stream)?;
        self.events.push(done);
        let event = self.events.len() - 1;
        for &buffer in &stage.inputs {
            let copy = pipeline.copy_of(state, buffer, iteration).0;
            self.uses[buffer][copy].read[own] = Some(event);
        }
        for &buffer in &stage.outputs {
            let copy = pipeline.copy_of(state, buffer, iteration).0;
            self.uses[buffer][copy] = Captured { written: Some((own, event)), read: [None; 3] };
        }
        Ok(())
    }
}
