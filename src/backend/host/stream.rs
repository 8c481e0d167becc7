//! A stream of the host backend: a queue and the thread that works it off in order.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::Instant;

use super::blocks::BlockPool;
use super::capture::{Capture, Graph, Step};
use crate::backend::{BlockFunction, HostFunction, Kernel, StreamId};
use crate::error::{Error, Result};
use crate::status::{GMB_ERROR_INVALID_STREAM, GMB_ERROR_SYSTEM};
use crate::sync::{lock, thread_number, wait};

/// One piece of work.
pub(super) enum Task {
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
    Free {
        address: u64,
    },
    Function(HostFunction),
    Complete(Arc<Completion>),
    Wait(Arc<Completion>),
    /// The end of a launch of a graph: what it keeps alive may go.
    Release(Arc<Graph>),
}

/// A point in a stream that others can wait for.
#[derive(Default)]
pub(super) struct Completion {
    done: AtomicBool,
    at: OnceLock<Instant>,
    gate: Mutex<()>,
    changed: Condvar,
}

impl Completion {
    pub(super) fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }

    pub(super) fn wait(&self) {
        let mut gate = lock(&self.gate);
        while !self.is_done() {
            gate = wait(&self.changed, gate);
        }
    }

    /// When it was reached.
    pub(super) fn reached_at(&self) -> Option<Instant> {
        self.at.get().copied()
    }

    fn complete(&self) {
        let _ = self.at.set(Instant::now());
        let _gate = lock(&self.gate);
        self.done.store(true, Ordering::Release);
        self.changed.notify_all();
    }
}

#[derive(Default)]
struct Queue {
    tasks: VecDeque<Task>,
    running: bool,
    closed: bool,
}

pub(super) struct Stream {
    id: StreamId,
    priority: i32,
    queue: Mutex<Queue>,
    arrived: Condvar,
    idle: Condvar,
    /// Number of the thread that does the work.
    worker: AtomicU64,
    /// Where its work goes instead of being done.
    capture: Mutex<Option<Arc<Capture>>>,
}

impl Stream {
    pub(super) fn start(id: StreamId, priority: i32, pool: Arc<BlockPool>) -> Result<Arc<Self>> {
        let stream = Arc::new(Self {
            id,
            priority,
            queue: Mutex::default(),
            arrived: Condvar::new(),
            idle: Condvar::new(),
            worker: AtomicU64::new(0),
            capture: Mutex::default(),
        });
        let worker = Arc::clone(&stream);
        std::thread::Builder::new()
            .name(format!("gmb-stream-{id}"))
            .spawn(move || worker.work(&pool))
            .map_err(|e| Error::new(GMB_ERROR_SYSTEM, format!("no thread for a host stream: {e}")))?;
        Ok(stream)
    }

    pub(super) fn id(&self) -> StreamId {
        self.id
    }

    pub(super) fn priority(&self) -> i32 {
        self.priority
    }

    pub(super) fn capture(&self) -> Option<Arc<Capture>> {
        lock(&self.capture).clone()
    }

    pub(super) fn set_capture(&self, capture: Option<Arc<Capture>>) {
        *lock(&self.capture) = capture;
    }

    /// Has work done, or captured. Refused once the stream is closed: nobody would do it.
    pub(super) fn submit(&self, step: Step) -> Result<()> {
        if let Some(capture) = self.capture() {
            return capture.add(self.id, step);
        }
        match step {
            Step::Launch { kernel, blocks } => self.enqueue([Task::Launch { kernel, blocks }]),
            Step::Blocks { function, blocks } => self.enqueue([Task::Blocks { function, blocks }]),
            Step::Copy { to, from, bytes } => self.enqueue([Task::Copy { to, from, bytes }]),
            Step::Fill { to, value, bytes } => self.enqueue([Task::Fill { to, value, bytes }]),
            // Of events only a graph's are steps.
            Step::Record(_) | Step::Wait(_) => Ok(()),
        }
    }

    /// Enqueues all of it at once. Refused once the stream is closed: nobody would do the work.
    pub(super) fn enqueue(&self, tasks: impl IntoIterator<Item = Task>) -> Result<()> {
        let mut queue = lock(&self.queue);
        if queue.closed {
            return Err(Error::new(GMB_ERROR_INVALID_STREAM, "the stream was destroyed during the call"));
        }
        queue.tasks.extend(tasks);
        drop(queue);
        self.arrived.notify_one();
        Ok(())
    }

    /// No more work will come; the thread ends once it has done what is queued.
    pub(super) fn close(&self) {
        lock(&self.queue).closed = true;
        self.arrived.notify_one();
    }

    pub(super) fn is_idle(&self) -> bool {
        let queue = lock(&self.queue);
        queue.tasks.is_empty() && !queue.running
    }

    /// Waits until nothing is left to do; a function of the stream itself does not wait for its own end.
    pub(super) fn drain(&self) {
        if self.worker.load(Ordering::Relaxed) == thread_number() {
            return;
        }
        let mut queue = lock(&self.queue);
        while !queue.tasks.is_empty() || queue.running {
            queue = wait(&self.idle, queue);
        }
    }

    fn work(&self, pool: &Arc<BlockPool>) {
        self.worker.store(thread_number(), Ordering::Relaxed);
        let mut queue = lock(&self.queue);
        loop {
            if let Some(task) = queue.tasks.pop_front() {
                queue.running = true;
                // Who sees an event reached must also see the stream idle behind it.
                if let Task::Complete(completion) = &task {
                    completion.complete();
                } else {
                    drop(queue);
                    run(task, self.priority, pool);
                    queue = lock(&self.queue);
                }
                queue.running = false;
                if queue.tasks.is_empty() {
                    self.idle.notify_all();
                }
            } else if queue.closed {
                return;
            } else {
                queue = wait(&self.arrived, queue);
            }
        }
    }
}

fn run(task: Task, priority: i32, pool: &Arc<BlockPool>) {
    match task {
        Task::Launch { kernel, blocks } => pool.run(kernel, blocks, priority),
        Task::Blocks { function, blocks } => pool.run_function(function, blocks, priority),
        // SAFETY: whoever enqueued the copy keeps both ranges valid until it is done.
        Task::Copy { to, from, bytes } => unsafe {
            std::ptr::copy(from as *const u8, to as *mut u8, bytes);
        },
        // SAFETY: whoever enqueued the fill keeps the range valid until it is done.
        Task::Fill { to, value, bytes } => unsafe {
            std::ptr::write_bytes(to as *mut u8, value, bytes);
        },
        Task::Free { address } => pool.heap().free(address),
        // A panic in a caller's function must not end the stream's thread.
        Task::Function(function) => {
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(function));
        }
        // Done by the worker, under its lock.
        Task::Complete(_) => {}
        Task::Wait(completion) => completion.wait(),
        Task::Release(graph) => drop(graph),
    }
}
