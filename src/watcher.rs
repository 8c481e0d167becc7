//! A thread of a context that looks after conditions in memory which only the device changes, for those who wait with
//! a file descriptor. It sleeps while nobody asks.

use std::sync::{Arc, Condvar, Mutex, Weak};
use std::thread::{JoinHandle, ThreadId};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::status::GMB_ERROR_SYSTEM;
use crate::sync::{forked, lock, wait};

/// Something that may come true.
pub(crate) trait Condition: Send + Sync {
    /// Tells whoever waits for it, once it is true; true when there is nothing left to look for.
    fn look(&self) -> bool;
}

#[derive(Default)]
struct State {
    armed: Vec<Weak<dyn Condition>>,
    ended: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// The watching thread of a context, started when first needed.
#[derive(Default)]
pub(crate) struct Watcher {
    shared: Arc<Shared>,
    thread: Mutex<Option<(JoinHandle<()>, ThreadId)>>,
}

impl Watcher {
    /// Looks after a condition until it says that there is nothing left to look for, or is gone.
    pub(crate) fn arm(&self, condition: &Arc<impl Condition + 'static>) -> Result<()> {
        let mut thread = lock(&self.thread);
        if thread.is_none() {
            let shared = Arc::clone(&self.shared);
            let started = std::thread::Builder::new()
                .name("gmb-watch".to_owned())
                .spawn(move || shared.watch())
                .map_err(|e| Error::new(GMB_ERROR_SYSTEM, format!("no thread to watch with: {e}")))?;
            let id = started.thread().id();
            *thread = Some((started, id));
        }
        drop(thread);
        let condition: Weak<dyn Condition> = Arc::downgrade(condition) as Weak<dyn Condition>;
        lock(&self.shared.state).armed.push(condition);
        self.shared.changed.notify_one();
        Ok(())
    }

    /// Ends the thread.
    pub(crate) fn end(&self) {
        let thread = lock(&self.thread).take();
        lock(&self.shared.state).ended = true;
        self.shared.changed.notify_one();
        // The last user of a context may be a condition that this very thread let go of.
        if let Some((thread, _)) = thread.filter(|(_, id)| *id != std::thread::current().id() && !forked()) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn watch(&self) {
        let mut quiet = Instant::now();
        loop {
            let armed = {
                let mut state = lock(&self.state);
                while state.armed.is_empty() && !state.ended {
                    state = wait(&self.changed, state);
                    quiet = Instant::now();
                }
                if state.ended {
                    return;
                }
                std::mem::take(&mut state.armed)
            };
            let before = armed.len();
            // Without the lock: a condition may ask the driver, and may end here.
            let left: Vec<Weak<dyn Condition>> = armed
                .into_iter()
                .filter(|weak| weak.upgrade().is_some_and(|condition| !condition.look()))
                .collect();
            if left.len() != before {
                quiet = Instant::now();
            }
            lock(&self.state).armed.extend(left);
            let state = lock(&self.state);
            if !state.armed.is_empty() && !state.ended {
                // What comes soon is told soon; what does not costs little.
                let nap = match quiet.elapsed().as_micros() {
                    0..2_000 => 20,
                    2_000..100_000 => 100,
                    _ => 500,
                };
                let _ = self.changed.wait_timeout(state, Duration::from_micros(nap));
            }
        }
    }
}
