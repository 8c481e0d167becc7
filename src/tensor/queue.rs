//! The ring of a tensor mailbox whose consumers are threads of the host.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::books::{Books, Item};
use super::{Tensor, TensorMailboxOptions};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::mailbox::FullPolicy;
use crate::status::*;
use crate::sync::lock;

#[derive(Default)]
struct State {
    items: VecDeque<Item>,
    /// Threads that wait for tensors, and for room.
    readers: u32,
    writers: u32,
    closed: bool,
}

pub(super) struct Queue {
    capacity: usize,
    policy: FullPolicy,
    books: Arc<Books>,
    state: Mutex<State>,
    readable: Condvar,
    writable: Condvar,
}

/// Polls before a thread sleeps.
const POLLS: u32 = 500;

impl Queue {
    pub(super) fn new(context: &Context, options: &TensorMailboxOptions) -> Arc<Self> {
        Arc::new(Self {
            capacity: options.capacity as usize,
            policy: options.full_policy,
            books: Books::new(context),
            state: Mutex::default(),
            readable: Condvar::new(),
            writable: Condvar::new(),
        })
    }

    pub(super) fn books(&self) -> &Arc<Books> {
        &self.books
    }

    pub(super) fn queued(&self) -> u64 {
        lock(&self.state).items.len() as u64
    }

    pub(super) fn push(
        &self,
        item: Item,
        timeout: Option<Duration>,
    ) -> std::result::Result<(), (Error, Tensor)> {
        let mut state = lock(&self.state);
        let (mut dropped, mut all) = (None, VecDeque::new());
        let full_now = state.items.len() >= self.capacity;
        let error = match self.policy {
            _ if state.closed => Some(closed()),
            FullPolicy::Reject => full_now.then(|| full(self.capacity as u64)),
            FullPolicy::Wait => None,
            FullPolicy::OverwriteOldest => {
                dropped = full_now.then(|| state.items.pop_front()).flatten();
                None
            }
            FullPolicy::Latest => {
                all = std::mem::take(&mut state.items);
                None
            }
        };
        if let Some(error) = error {
            drop(state);
            return Err(self.refuse(error, item));
        }
        if self.policy.rules().waits {
            state = match self.wait(state, timeout, false) {
                Ok(state) => state,
                Err(error) => return Err(self.refuse(error, item)),
            };
        }
        state.items.push_back(item);
        let waiting = state.readers > 0;
        drop(state);
        self.books.pushed.add(1);
        if waiting {
            self.readable.notify_one();
        }
        for old in dropped.into_iter().chain(all) {
            self.books.drop_unread(old);
        }
        Ok(())
    }

    fn refuse(&self, error: Error, item: Item) -> (Error, Tensor) {
        self.books.refused.add(1);
        (error, self.books.unpack(item))
    }

    /// The next one; `None` when none came in time.
    pub(super) fn pop(&self, timeout: Option<Duration>) -> Result<Option<Item>> {
        let mut state = lock(&self.state);
        if state.items.is_empty() {
            if timeout == Some(Duration::ZERO) && !state.closed {
                return Ok(None);
            }
            state = match self.wait(state, timeout, true) {
                Ok(state) => state,
                Err(error) if error.status() == GMB_ERROR_TIMEOUT => return Ok(None),
                Err(error) => return Err(error),
            };
        }
        let item = state.items.pop_front();
        let waiting = state.writers > 0;
        drop(state);
        if waiting {
            self.writable.notify_one();
        }
        if item.is_some() {
            self.books.popped.add(1);
        }
        Ok(item)
    }

    /// What could not be popped after all is the next one again.
    pub(super) fn put_back(&self, item: Item) {
        self.books.popped.take_back();
        let mut state = lock(&self.state);
        if state.closed {
            drop(state);
            self.books.give_back(item);
            return;
        }
        state.items.push_front(item);
        let waiting = state.readers > 0;
        drop(state);
        if waiting {
            self.readable.notify_one();
        }
    }

    /// Until there is a tensor, or room: polls for a moment, then sleeps.
    fn wait<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        timeout: Option<Duration>,
        reads: bool,
    ) -> Result<MutexGuard<'a, State>> {
        let start = Instant::now();
        let mut polls = 0;
        loop {
            if state.closed {
                return Err(closed());
            }
            let ready = if reads { !state.items.is_empty() } else { state.items.len() < self.capacity };
            if ready {
                return Ok(state);
            }
            let left = timeout.map(|limit| limit.saturating_sub(start.elapsed()));
            if left == Some(Duration::ZERO) {
                return Err(late(reads));
            }
            polls += 1;
            if polls < POLLS {
                drop(state);
                std::hint::spin_loop();
                state = lock(&self.state);
                continue;
            }
            *(if reads { &mut state.readers } else { &mut state.writers }) += 1;
            let changed = if reads { &self.readable } else { &self.writable };
            state = match left {
                // Some platforms cannot count longer times.
                Some(left) => match changed.wait_timeout(state, left.min(Duration::from_secs(3600))) {
                    Ok((state, _)) => state,
                    Err(poisoned) => poisoned.into_inner().0,
                },
                None => crate::sync::wait(changed, state),
            };
            *(if reads { &mut state.readers } else { &mut state.writers }) -= 1;
        }
    }

    pub(super) fn close(&self) {
        lock(&self.state).closed = true;
        self.readable.notify_all();
        self.writable.notify_all();
    }

    /// Gives back what nobody has popped.
    pub(super) fn end(&self) {
        let left = std::mem::take(&mut lock(&self.state).items);
        for item in left {
            self.books.give_back(item);
        }
    }
}

pub(super) fn full(capacity: u64) -> Error {
    Error::new(
        GMB_ERROR_FULL,
        format!(
            "all {capacity} places are taken: pop and release, make it larger, or use another full policy"
        ),
    )
}

pub(super) fn closed() -> Error {
    Error::new(GMB_ERROR_INVALID_HANDLE, "the mailbox was destroyed meanwhile")
}

pub(super) fn late(reads: bool) -> Error {
    let what = if reads { "no tensor came" } else { "no place came free" };
    Error::new(GMB_ERROR_TIMEOUT, format!("{what} in time: nothing was lost, try again"))
}
