//! Tensors that are pushed, and what must come of each: nobody ends it too early, and in the end it was ended once.

use std::collections::VecDeque;

use gpumailbox::*;

use crate::model::Policy;
use crate::probe::Probe;
use crate::world::Table;

pub struct Inbox {
    pub context: usize,
    pub on_device: bool,
    pub policy: Policy,
    pub capacity: u64,
    /// Tensors in it with their indices; of a device consumer also those that were taken.
    pub queue: VecDeque<(u64, usize)>,
    pub next: u64,
    /// Index of the next tensor that nobody has taken, of a device consumer.
    pub taken: u64,
    pub pushed: u64,
    pub popped: u64,
    pub refused: u64,
    pub dropped: u64,
    pub view: Option<gmb_tensor_view>,
    /// Streams whose kernels take its tensors.
    pub users: Vec<u64>,
}

impl Inbox {
    pub fn has_room(&self) -> bool {
        match self.on_device {
            true => self.queue.front().is_none_or(|&(oldest, _)| self.next - oldest < self.capacity),
            false => (self.queue.len() as u64) < self.capacity,
        }
    }
}

/// What a lease was made into.
pub enum Export {
    Versioned(*mut DLManagedTensorVersioned),
    Legacy(*mut DLManagedTensor),
    Array(Box<ArrowDeviceArray>),
    /// Moved out of its parent.
    Child(Box<ArrowArray>),
    Schema(Box<ArrowSchema>),
}

/// All tensors of a sequence.
pub struct Tensors {
    pub mailboxes: Table<Inbox>,
    /// Of which tensor each lease is.
    pub leases: Table<usize>,
    pub probes: Vec<Box<Probe>>,
    pub exports: Vec<(usize, Export)>,
}

impl Tensors {
    pub fn new() -> Self {
        Self {
            mailboxes: Table(Vec::new()),
            leases: Table(Vec::new()),
            probes: Vec::new(),
            exports: Vec::new(),
        }
    }

    /// Streams that must not be destroyed yet.
    pub fn need(&self, stream: u64) -> bool {
        self.probes.iter().any(|probe| probe.users.contains(&stream))
            || self.mailboxes.live().any(|at| self.mailboxes.0[at].it.users.contains(&stream))
    }

    pub fn check(&self) {
        self.probes.iter().for_each(|probe| probe.check());
    }

    /// Leases of a mailbox that are out.
    pub fn leases_of(&self, mailbox: usize) -> u64 {
        let of = |probe: &&Box<Probe>| probe.mailbox == Some(mailbox) && probe.holders > 0;
        self.probes.iter().filter(of).count() as u64
    }

    /// Tensors of a mailbox that have gone back, or are about to.
    pub fn ending(&self, mailbox: usize) -> u64 {
        let of = |probe: &&Box<Probe>| probe.mailbox == Some(mailbox) && probe.may_end;
        self.probes.iter().filter(of).count() as u64
    }

    pub fn are_back(&self) -> bool {
        self.probes.iter().all(|probe| probe.ended() == probe.wanted())
    }

    /// Nobody has anything of them any more.
    pub fn clear(&mut self) {
        self.check();
        assert!(self.exports.is_empty() && self.leases.live().next().is_none());
        for probe in self.probes.drain(..) {
            assert!(probe.may_end == probe.is_taken && probe.holders == 0);
            assert_eq!(probe.ended(), probe.wanted(), "a tensor that was pushed is to be ended once");
            if probe.is_taken && !probe.has_deleter {
                // Nobody says when the library has looked for its deleter.
                Box::leak(probe);
            }
        }
        self.mailboxes.0.clear();
        self.leases.0.clear();
    }
}
