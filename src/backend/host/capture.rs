//! Captures of the host backend: the work of streams goes into a list, in the order of the calls. That is an
//! order which all of their orders allow, so a launch runs the list in one stream.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::stream::Stream;
use crate::backend::{BlockFunction, CaptureId, Kept, Kernel, StreamId};
use crate::error::{Error, Result};
use crate::status::*;
use crate::sync::lock;

/// A piece of work that can be done again and again.
#[derive(Clone)]
pub(super) enum Step {
    Launch {
        kernel: Kernel,
        blocks: u32,
    },
    Blocks {
        function: BlockFunction,
        blocks: u32,
    },
    Copy {
        to: u64,
        from: u64,
        bytes: usize,
    },
    Fill {
        to: u64,
        value: u8,
        bytes: usize,
    },
    /// Records an event for those outside.
    Record(usize),
    /// Waits for what an event stands for at the launch.
    Wait(usize),
}

/// How much of each stream's work comes before a point.
pub(super) type Clock = HashMap<StreamId, u64>;

fn join(clock: &mut Clock, other: &Clock) {
    for (&stream, &count) in other {
        let known = clock.entry(stream).or_default();
        *known = count.max(*known);
    }
}

/// What is captured so far.
pub(super) struct Capture {
    pub(super) id: CaptureId,
    origin: StreamId,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    steps: Vec<Step>,
    /// Of each stream that takes part: it, and what its next work comes after.
    streams: HashMap<StreamId, (Arc<Stream>, Clock)>,
    kept: Vec<Kept>,
    /// The clock of each node that was asked for.
    nodes: Vec<Clock>,
    /// Why the capture cannot become a graph.
    broken: Option<&'static str>,
    ended: bool,
}

/// A capture that ended well.
pub(super) struct Graph {
    pub(super) steps: Vec<Step>,
    _kept: Vec<Kept>,
}

impl Capture {
    /// Captures are told apart in the whole process, as the driver's are.
    pub(super) fn begin(origin: &Arc<Stream>) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let capture = Arc::new(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            origin: origin.id(),
            state: Mutex::default(),
        });
        lock(&capture.state).streams.insert(origin.id(), (Arc::clone(origin), Clock::new()));
        capture
    }

    pub(super) fn add(&self, stream: StreamId, step: Step) -> Result<()> {
        let mut state = lock(&self.state);
        let (_, clock) = state.streams.get_mut(&stream).ok_or_else(ended)?;
        *clock.entry(stream).or_default() += 1;
        state.steps.push(step);
        Ok(())
    }

    pub(super) fn keep(&self, kept: Kept) {
        lock(&self.state).kept.push(kept);
    }

    /// What comes before the stream's next work.
    pub(super) fn clock(&self, stream: StreamId) -> Result<Clock> {
        lock(&self.state).streams.get(&stream).map(|(_, clock)| clock.clone()).ok_or_else(ended)
    }

    pub(super) fn node(&self, stream: StreamId) -> Result<usize> {
        let clock = self.clock(stream)?;
        let mut state = lock(&self.state);
        state.nodes.push(clock);
        Ok(state.nodes.len() - 1)
    }

    pub(super) fn after(&self, stream: StreamId, node: usize) -> Result<()> {
        let mut state = lock(&self.state);
        let before = state.nodes.get(node).cloned().ok_or_else(ended)?;
        let (_, clock) = state.streams.get_mut(&stream).ok_or_else(ended)?;
        join(clock, &before);
        Ok(())
    }

    /// The stream's later work comes after a point of this capture; one that took no part does so from now on.
    pub(super) fn pull_in(self: &Arc<Self>, stream: &Arc<Stream>, before: &Clock) -> Result<()> {
        let mut state = lock(&self.state);
        if state.ended {
            return Err(ended());
        }
        let (_, clock) = state.streams.entry(stream.id()).or_insert_with(|| {
            stream.set_capture(Some(Arc::clone(self)));
            (Arc::clone(stream), Clock::new())
        });
        join(clock, before);
        Ok(())
    }

    /// Nothing becomes of this capture any more.
    pub(super) fn spoil(&self, why: &'static str) {
        lock(&self.state).broken.get_or_insert(why);
    }

    /// Lets all its streams go; gives the graph if the work of each was joined by the stream it began on.
    pub(super) fn end(&self, origin: StreamId) -> Result<Graph> {
        if origin != self.origin {
            return Err(Error::new(GMB_ERROR_CAPTURE, "the capture began on another stream: end it there"));
        }
        let mut state =
            std::mem::replace(&mut *lock(&self.state), State { ended: true, ..Default::default() });
        let joined = state.streams.get(&origin).map(|(_, clock)| clock.clone()).unwrap_or_default();
        let mut left = false;
        for (id, (stream, clock)) in state.streams.drain() {
            stream.set_capture(None);
            left |= clock.get(&id).copied().unwrap_or(0) > joined.get(&id).copied().unwrap_or(0);
        }
        if left {
            state.broken.get_or_insert("the work of another stream was not joined by an event");
        }
        match state.broken {
            Some(why) => Err(Error::new(GMB_ERROR_CAPTURE, format!("there is no graph: {why}"))),
            None => Ok(Graph { steps: state.steps, _kept: state.kept }),
        }
    }
}

fn ended() -> Error {
    Error::new(GMB_ERROR_CAPTURE, "the capture has ended")
}
