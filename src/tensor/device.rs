//! The ring of a tensor mailbox whose consumer is device code.
//!
//! A push launches a small kernel behind the producer's work, which puts the tensor's record into a slot. Whoever has taken
//! it says in a word of pinned memory that it is done; the releasing thread reads those words.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::books::{Books, Item};
use super::lease::User;
use super::queue::{closed, full, late};
use super::release::{self, end_all, Mark, Marks, Retired};
use super::{Tensor, TensorMailboxOptions};
use crate::backend::args::gmb_tensor_args;
use crate::backend::Kernel;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::layout::{gmb_tensor_ring, gmb_tensor_slot, gmb_tensor_view};
use crate::lines::Line;
use crate::mailbox::FullPolicy;
use crate::stream::Resolved;
use crate::sync::lock;

/// Slots and words, for as long as kernels may use them.
struct Memory {
    context: Context,
    ring: u64,
    words: Line,
}

impl Memory {
    fn new(context: &Context, capacity: u64) -> Result<Self> {
        let bytes = size_of::<gmb_tensor_ring>() + capacity as usize * size_of::<gmb_tensor_slot>();
        let words = Line::of(context, capacity as usize)?;
        for slot in 0..capacity as usize {
            words.word(slot).store(0, Ordering::Release);
        }
        let made = Self { context: context.clone(), ring: context.allocate_ring(bytes)?, words };
        let (backend, service) = (context.backend(), context.service());
        // SAFETY: the ring has that size, and is waited for.
        unsafe { backend.fill(made.ring, 0, bytes, service)? };
        backend.stream_synchronize(service)?;
        Ok(made)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: whoever lets go of it last knows that no kernel uses it.
        let _ = unsafe { self.context.free_ring(self.ring) };
    }
}

/// A tensor in its slot.
struct Placed {
    index: u64,
    /// Its event is behind its kernel.
    item: Item,
}

#[derive(Default)]
struct State {
    /// Index of the next tensor.
    next: u64,
    /// In the order of their indices.
    placed: VecDeque<Placed>,
    /// Streams whose kernels take tensors.
    users: Vec<User>,
    /// The releasing thread looks after this.
    looked_after: bool,
    closed: bool,
}

pub(super) struct Ring {
    context: Context,
    capacity: u64,
    policy: FullPolicy,
    books: Arc<Books>,
    memory: Arc<Memory>,
    state: Mutex<State>,
    room: Condvar,
}

impl Ring {
    pub(super) fn new(context: &Context, options: &TensorMailboxOptions) -> Result<Arc<Self>> {
        Ok(Arc::new(Self {
            context: context.clone(),
            capacity: options.capacity,
            policy: options.full_policy,
            books: Books::new(context),
            memory: Arc::new(Memory::new(context, options.capacity)?),
            state: Mutex::default(),
            room: Condvar::new(),
        }))
    }

    pub(super) fn books(&self) -> &Arc<Books> {
        &self.books
    }

    pub(super) fn queued(&self) -> u64 {
        lock(&self.state).placed.len() as u64
    }

    fn word(&self, index: u64) -> &AtomicU64 {
        self.memory.words.word((index & (self.capacity - 1)) as usize)
    }

    /// True when the next tensor's slot is nobody's. Released out of order, others may be free and this one not.
    fn has_room(&self, state: &State) -> bool {
        state.placed.front().is_none_or(|oldest| state.next - oldest.index < self.capacity)
    }

    pub(super) fn push(
        self: &Arc<Self>,
        item: Item,
        timeout: Option<Duration>,
    ) -> std::result::Result<(), (Error, Tensor)> {
        let refuse = |error, item: Item| {
            self.books.refused.add(1);
            Err((error, self.books.unpack(item)))
        };
        let mut state = lock(&self.state);
        if !state.closed && !self.has_room(&state) {
            if !self.policy.rules().waits {
                drop(state);
                return refuse(full(self.capacity), item);
            }
            state = match self.wait(state, timeout) {
                Ok(state) => state,
                Err(error) => return refuse(error, item),
            };
        }
        if state.closed {
            drop(state);
            return refuse(closed(), item);
        }
        let args = gmb_tensor_args {
            ring: self.memory.ring,
            capacity: self.capacity,
            index: state.next,
            tensor: *item.tensor.record(),
        };
        // SAFETY: the ring stays until this kernel is done, and its slot is nobody else's.
        let launched = unsafe { self.context.backend().launch(&Kernel::Tensor(args), 1, item.stream.raw) };
        if let Err(error) = launched {
            drop(state);
            return refuse(error, item);
        }
        // What cannot be recorded stands for nothing: then the device is lost.
        let _ = self.context.backend().event_record(item.produced, item.stream.raw);
        let index = state.next;
        state.next += 1;
        state.placed.push_back(Placed { index, item });
        let look = !std::mem::replace(&mut state.looked_after, true);
        drop(state);
        self.books.pushed.add(1);
        if look {
            self.context.releaser().look_after(self);
        }
        Ok(())
    }

    /// Until the next slot is free; the releasing thread tells.
    fn wait<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        timeout: Option<Duration>,
    ) -> Result<MutexGuard<'a, State>> {
        let start = Instant::now();
        while !state.closed && !self.has_room(&state) {
            let left = timeout.map(|limit| limit.saturating_sub(start.elapsed()));
            if left == Some(Duration::ZERO) {
                return Err(late(false));
            }
            // Now and then the driver is asked: a lost device releases nothing.
            let nap = left.unwrap_or(Duration::MAX).min(Duration::from_millis(100));
            let (again, slept) = match self.room.wait_timeout(state, nap) {
                Ok(woken) => woken,
                Err(poisoned) => poisoned.into_inner(),
            };
            state = again;
            if slept.timed_out() {
                drop(state);
                self.context.pulse()?;
                state = lock(&self.state);
            }
        }
        Ok(state)
    }

    pub(super) fn view(&self, stream: Resolved) -> Result<gmb_tensor_view> {
        let user = User::new(stream);
        let mut state = lock(&self.state);
        if !state.users.iter().any(|known| known.id() == user.id()) {
            state.users.push(user);
        }
        Ok(gmb_tensor_view {
            ring: self.memory.ring as *mut gmb_tensor_ring,
            released: self.memory.words.address() as *mut u64,
            capacity: self.capacity,
        })
    }

    pub(super) fn close(&self) {
        lock(&self.state).closed = true;
        self.room.notify_all();
    }

    /// Gives back what was not released, and the ring, once the work of the streams that could take it is done.
    pub(super) fn end(&self) {
        let (placed, users) = {
            let mut state = lock(&self.state);
            (std::mem::take(&mut state.placed), std::mem::take(&mut state.users))
        };
        if crate::sync::forked() {
            std::mem::forget(placed);
            return;
        }
        // Events cannot be shared: each tensor waits for those of all users. Few are left as a rule.
        let marks = || Marks::All(users.iter().map(|&user| Mark::of(&self.books, user)).collect());
        let releaser = self.context.releaser();
        for place in placed {
            self.books.retire();
            let mut retired = Retired::new(place.item, marks(), Arc::clone(&self.books)).unread();
            retired.keep = Some(Arc::clone(&self.memory) as _);
            releaser.retire(retired);
        }
        releaser.retire(Retired::memory(Arc::clone(&self.books), Arc::clone(&self.memory) as _, marks()));
    }
}

impl release::Ring for Ring {
    fn context(&self) -> &Context {
        &self.context
    }

    fn collect(&self) -> (bool, bool) {
        let mut released = Vec::new();
        let more = {
            let mut state = lock(&self.state);
            let mut i = 0;
            while i < state.placed.len() {
                let index = state.placed[i].index;
                if self.word(index).load(Ordering::Acquire) == index + 1 {
                    // Before it leaves: it is always somewhere in the books.
                    self.books.retire();
                    released.extend(state.placed.remove(i));
                } else {
                    i += 1;
                }
            }
            state.looked_after = !state.placed.is_empty();
            state.looked_after
        };
        if !released.is_empty() {
            self.room.notify_all();
        }
        let count = released.len() as u64;
        self.books.popped.add(count);
        let retired = released
            .into_iter()
            .map(|place| Retired::new(place.item, Marks::All(Vec::new()), Arc::clone(&self.books)));
        end_all(retired.collect());
        (count > 0, more)
    }
}
