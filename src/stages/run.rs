//! Iterations: queued, waited for, accounted for.

use std::sync::MutexGuard;
use std::time::{Duration, Instant};

use super::define::{named, Stage, StageCall, StageWork};
use super::{lane, Iteration, Pipeline, State, Uses};
use crate::coordinator::{Callback, Completion, OperationId, Place, Work};
use crate::error::{Error, Result};
use crate::profiler::Range;
use crate::status::*;
use crate::sync::lock;
use crate::triple::Step;
use crate::{Pop, Push};

/// Failed iterations that are remembered for whoever asks.
const MOST_FAILED: usize = 64;

impl Pipeline {
    /// Queues one iteration after those before; its number. See [`execute`](Self::execute).
    ///
    /// # Errors
    /// As there.
    pub fn execute_iteration(&self) -> Result<u64> {
        self.execute(1)
    }

    /// Queues iterations, each after those before; the number of the first. They overlap as far as their data allows. Does not
    /// wait for the device, but for the oldest iteration when as many are under way as may be. After
    /// [`capture`](Self::capture) whole graphs are launched where so many iterations are left.
    ///
    /// # Errors
    /// `ZERO_COUNT`, `NOT_FOUND` (no stages), what a stage's own calls answer: the message names the stage; then that iteration
    /// ends before it, and fails, and later ones were not queued. `DEVICE_LOST`.
    pub fn execute(&self, iterations: u64) -> Result<u64> {
        let _range = Range::new(c"execute iterations");
        if iterations == 0 {
            return Err(Error::new(GMB_ERROR_ZERO_COUNT, "iterations is 0: nothing to do"));
        }
        let mut first = None;
        let mut left = iterations;
        while left > 0 {
            let mut state = self.room()?;
            if state.order.is_empty() {
                return Err(Error::new(
                    GMB_ERROR_NOT_FOUND,
                    "the pipeline has no stages: add some, and set their order",
                ));
            }
            first.get_or_insert(state.next);
            left -= match state.graph.clone() {
                Some((count, graph)) if left >= count.into() && state.next % u64::from(count) == 0 => {
                    self.launch(&mut state, count.into(), graph)?;
                    count.into()
                }
                _ => {
                    self.iterate(&mut state)?;
                    1
                }
            };
        }
        Ok(first.unwrap_or(0))
    }

    /// The state, once there is room for one more iteration.
    fn room(&self) -> Result<MutexGuard<'_, State>> {
        loop {
            let mut state = lock(&self.state);
            self.look(&mut state)?;
            let oldest = match state.under_way.front() {
                Some(oldest) if state.under_way.len() >= self.most_in_flight as usize => {
                    oldest.operations.last().copied()
                }
                _ => return Ok(state),
            };
            drop(state);
            if let Some(operation) = oldest {
                // How it ended is accounted for when it is looked at.
                let _ = self.coordinator.wait(operation, None);
            }
        }
    }

    fn iterate(&self, state: &mut State) -> Result<()> {
        let number = state.next;
        state.next += 1;
        let mut operations = Vec::with_capacity(state.order.len());
        let mut failed = None;
        for place in state.order.clone() {
            let stage = state.stages[place].clone();
            match self.queue_stage(state, &stage, number) {
                Ok(id) => {
                    state.doing.insert(id, (Some(place), number));
                    operations.push(id);
                }
                Err(error) => {
                    failed = Some(named(&stage.name, error));
                    break;
                }
            }
        }
        if !operations.is_empty() {
            state.under_way.push_back(Iteration { number, count: 1, operations });
        }
        failed.map_or(Ok(()), |error| {
            note(state, number, error.clone());
            Err(error)
        })
    }

    /// Which copy of a buffer an iteration uses, and its address.
    pub(super) fn copy_of(&self, state: &State, buffer: usize, iteration: u64) -> (usize, u64) {
        let copy = (iteration % u64::from(self.copies)) as usize;
        (copy, state.buffers[buffer].address + copy as u64 * state.buffers[buffer].bytes)
    }

    pub(super) fn addresses(&self, state: &State, buffers: &[usize], iteration: u64) -> Vec<u64> {
        buffers.iter().map(|&buffer| self.copy_of(state, buffer, iteration).1).collect()
    }

    fn queue_stage(&self, state: &mut State, stage: &Stage, iteration: u64) -> Result<OperationId> {
        let mut after = Vec::new();
        for &buffer in &stage.inputs {
            let (copy, _) = self.copy_of(state, buffer, iteration);
            after.extend(state.buffers[buffer].uses[copy].written);
        }
        for &buffer in &stage.outputs {
            let (copy, _) = self.copy_of(state, buffer, iteration);
            let uses = &state.buffers[buffer].uses[copy];
            after.extend(uses.written.into_iter().chain(uses.read.into_iter().flatten()));
        }
        let inputs = self.addresses(state, &stage.inputs, iteration);
        let outputs = self.addresses(state, &stage.outputs, iteration);
        let (input, output) = (inputs.first().copied(), outputs.first().copied());
        let work = match (&stage.work, stage.host(iteration)) {
            (StageWork::Upload { .. }, Some((from, bytes))) if stage.step == Step::Upload => {
                Work::Upload { to: Place::Address(output.unwrap_or(0)), from, bytes }
            }
            (StageWork::Download { .. }, Some((to, bytes))) if stage.step == Step::Download => {
                Work::Download { to, from: Place::Address(input.unwrap_or(0)), bytes }
            }
            (StageWork::Push { mailbox, push }, _) => {
                Work::Push { mailbox, push: Push { records: input.unwrap_or(0), ..*push }, step: stage.step }
            }
            (StageWork::Pop { mailbox, pop }, _) => {
                Work::Pop { mailbox, pop: Pop { records: output.unwrap_or(0), ..*pop }, step: stage.step }
            }
            _ => {
                let (context, inputs, outputs) = (&self.context, &inputs, &outputs);
                let function: Callback = Box::new(move |stream, _| {
                    let call = StageCall { stream, iteration, inputs, outputs, captured: false };
                    // SAFETY: whoever added the stage has promised it.
                    unsafe { stage.enqueue(context, &call) }
                });
                Work::Enqueue { step: stage.step, function }
            }
        };
        // SAFETY: as above.
        let id = unsafe { self.coordinator.queue(work, &after) }?;
        for &buffer in &stage.inputs {
            let (copy, _) = self.copy_of(state, buffer, iteration);
            state.buffers[buffer].uses[copy].read[lane(stage.step)] = Some(id);
        }
        for &buffer in &stage.outputs {
            let (copy, _) = self.copy_of(state, buffer, iteration);
            state.buffers[buffer].uses[copy] = Uses { written: Some(id), read: [None; 3] };
        }
        state.last[lane(stage.step)] = Some(id);
        Ok(id)
    }

    /// Accounts for what is done.
    pub(super) fn look(&self, state: &mut State) -> Result<()> {
        for done in self.coordinator.poll(usize::MAX)? {
            let Some((stage, iteration)) = state.doing.remove(&done.operation) else { continue };
            self.account(state, &done, stage, iteration);
        }
        while state.under_way.front().is_some_and(|front| {
            front.operations.iter().all(|operation| !state.doing.contains_key(operation))
        }) {
            if let Some(done) = state.under_way.pop_front() {
                state.books.finish(done.count);
            }
        }
        Ok(())
    }

    fn account(&self, state: &mut State, done: &Completion, stage: Option<usize>, iteration: u64) {
        let name = stage.map_or("a graph", |place| state.stages[place].name.as_str()).to_owned();
        if done.status < 0 {
            if let Err(error) = self.coordinator.wait(done.operation, Some(Duration::ZERO)) {
                note(state, iteration, named(&name, error));
            }
            return;
        }
        let Some(span) = done.span else { return };
        state.books.add(stage, span);
        let step = stage.map_or(Step::Process, |place| state.stages[place].step);
        state.timeline.add(name, step, iteration, span);
    }

    /// Blocks the calling thread until an iteration is done. `None` waits without limit, zero asks once.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` (it was never queued), `TIMEOUT` (wait again), and why it failed: the message names the stage. Of
    /// failures that nobody asked about the latest 64 are remembered.
    pub fn wait(&self, iteration: u64, timeout: Option<Duration>) -> Result<()> {
        let start = Instant::now();
        loop {
            let operation = {
                let mut state = lock(&self.state);
                self.look(&mut state)?;
                if iteration >= state.next {
                    return Err(Error::argument(format!(
                        "iteration {iteration} was never queued: there were {} so far",
                        state.next
                    )));
                }
                let found = state
                    .under_way
                    .iter()
                    .find(|one| (one.number..one.number + one.count).contains(&iteration))
                    .map(|one| one.operations.iter().copied().find(|id| state.doing.contains_key(id)));
                match found.flatten() {
                    Some(operation) => operation,
                    None => return told(&mut state, Some(iteration)),
                }
            };
            let left = timeout.map(|limit| limit.saturating_sub(start.elapsed()));
            if let Err(error) = self.coordinator.wait(operation, left) {
                if error.status() == GMB_ERROR_TIMEOUT {
                    return Err(error);
                }
            }
        }
    }

    /// Blocks the calling thread until every iteration is done that was queued before.
    ///
    /// # Errors
    /// `TIMEOUT` (wait again), and why the first iteration failed of those that nobody asked about.
    pub fn synchronize(&self, timeout: Option<Duration>) -> Result<()> {
        self.coordinator.synchronize(timeout)?;
        let mut state = lock(&self.state);
        self.look(&mut state)?;
        told(&mut state, None)
    }
}

fn note(state: &mut State, iteration: u64, error: Error) {
    if state.failed.iter().any(|&(known, _)| known == iteration) {
        return;
    }
    if state.failed.len() == MOST_FAILED {
        state.failed.remove(0);
    }
    state.failed.push((iteration, error));
}

/// Why an iteration failed, or the first that did; whoever asks is told once.
fn told(state: &mut State, iteration: Option<u64>) -> Result<()> {
    let found = match iteration {
        Some(iteration) => state.failed.iter().position(|&(failed, _)| failed == iteration),
        None => (!state.failed.is_empty()).then_some(0),
    };
    let Some(place) = found else { return Ok(()) };
    let (iteration, error) = state.failed.remove(place);
    if iteration_is_all(state) {
        state.failed.clear();
    }
    Err(Error::new(error.status(), format!("iteration {iteration}: {}", error.message())))
}

/// After a synchronize nothing is left to tell apart.
fn iteration_is_all(state: &State) -> bool {
    state.under_way.is_empty() && state.failed.len() >= MOST_FAILED
}
