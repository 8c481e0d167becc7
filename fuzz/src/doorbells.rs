//! Doorbells and FIFOs as they must be: which commands are under way, and what may come of each; which records lie in a FIFO.

use std::collections::VecDeque;

use gpumailbox::*;

use crate::world::Table;

#[derive(Clone, Copy, PartialEq)]
pub enum Stand {
    /// Somebody may collect the answer.
    Wanted,
    Collected,
    /// Nobody will.
    Unwanted,
}

pub struct Command {
    pub id: u64,
    pub what: gmb_command,
    pub stand: Stand,
    pub cancelled: bool,
    /// It was cancelled when no worker could have taken it.
    pub never_taken: bool,
    /// A run may have taken it.
    pub may_be: bool,
    /// A run has begun, or goes on for ever, since it was submitted: an answer will come.
    pub will_be: bool,
    /// Such a run is over: the answer is there.
    pub answered: bool,
}

pub struct Doorbell {
    pub context: usize,
    pub capacity: u64,
    pub commands: Vec<Command>,
    /// Worker that serves it.
    pub server: Option<usize>,
    /// A worker was started on it.
    pub ran: bool,
}

impl Doorbell {
    pub fn wanted(&self) -> u64 {
        self.commands.iter().filter(|command| command.stand == Stand::Wanted).count() as u64
    }

    /// Commands that may still hold a place though nobody asks for them.
    pub fn unwanted(&self) -> u64 {
        let of = |command: &&Command| command.stand == Stand::Unwanted;
        self.commands.iter().filter(of).count() as u64
    }

    /// Whether one more must be accepted, or refused; none where that is not certain.
    pub fn has_room(&self) -> Option<bool> {
        if self.wanted() >= self.capacity {
            return Some(false);
        }
        // What is answered makes room by itself, a part of a large ring at a time.
        let holds = |command: &&Command| {
            command.stand == Stand::Unwanted && !(command.answered && self.capacity <= 64)
        };
        let unwanted = self.commands.iter().filter(holds).count() as u64;
        (self.wanted() + unwanted < self.capacity).then_some(true)
    }

    pub fn open(&self, id: u64) -> Option<usize> {
        self.commands.iter().position(|command| command.id == id && command.stand == Stand::Wanted)
    }

    /// Holds an answer against its command.
    pub fn check(&self, command: &Command, answer: &gmb_answer) {
        let gmb_answer { status, flags, value } = *answer;
        assert_eq!(flags, 0, "{answer:?}");
        let what = &command.what;
        match status {
            GMB_ERROR_CANCELLED => assert!(command.cancelled && value == [0; 3], "{answer:?} of {what:?}"),
            GMB_ERROR_NOT_SERVED => assert!(self.ran && value == [0; 3], "{answer:?} of {what:?}"),
            _ => {
                assert!(self.ran && !command.never_taken, "{answer:?} of {what:?}, which nobody took");
                match what.code {
                    GMB_COMMAND_PING => assert_eq!((status, value), (GMB_OK, what.argument)),
                    GMB_COMMAND_COUNTS => assert_eq!(status, GMB_OK),
                    _ => assert_eq!((status, value), (GMB_ERROR_NOT_SUPPORTED, [0; 3])),
                }
            }
        }
    }
}

pub struct Fifo {
    pub context: usize,
    pub capacity: u64,
    /// What lies in it once all that was launched is done; none where launches ran beside each other, or beside a pop.
    pub records: Option<VecDeque<[u64; 2]>>,
    /// Streams whose launches may be under way.
    pub streams: Vec<u64>,
    pub drained: u64,
}

impl Fifo {
    pub fn launched(&mut self, stream: u64) {
        if self.streams.iter().any(|&other| other != stream) {
            self.records = None;
        }
        self.streams.push(stream);
    }

    /// Enters a push: how many were accepted, where that is certain.
    pub fn push(&mut self, new: &[[u64; 2]]) -> Option<u64> {
        let room = self.capacity as usize - self.records.as_ref()?.len();
        let accepted = room.min(new.len());
        self.records.as_mut()?.extend(&new[..accepted]);
        Some(accepted as u64)
    }
}

/// All doorbells and FIFOs of a sequence.
pub struct Doorbells {
    pub bells: Table<Doorbell>,
    pub fifos: Table<Fifo>,
}

impl Doorbells {
    pub fn new() -> Self {
        Self { bells: Table(Vec::new()), fifos: Table(Vec::new()) }
    }

    pub fn settle(&mut self) {
        for fifo in &mut self.fifos.0 {
            fifo.it.streams.clear();
        }
    }

    fn served_by(&mut self, worker: usize) -> impl Iterator<Item = &mut Doorbell> {
        let served = move |bell: &&mut Doorbell| bell.server == Some(worker);
        self.bells.0.iter_mut().filter(|bell| bell.live).map(|bell| &mut bell.it).filter(served)
    }

    /// A worker was started.
    pub fn run_begins(&mut self, worker: usize) {
        for bell in self.served_by(worker) {
            bell.ran = true;
            bell.commands.iter_mut().for_each(|command| (command.may_be, command.will_be) = (true, true));
        }
    }

    /// Its run is over.
    pub fn run_ended(&mut self, worker: usize) {
        for bell in self.served_by(worker) {
            for command in bell.commands.iter_mut().filter(|command| command.will_be) {
                command.answered = true;
            }
        }
    }

    /// A worker is gone.
    pub fn gone(&mut self, worker: usize) {
        for bell in self.served_by(worker) {
            bell.server = None;
        }
    }

    pub fn clear(&mut self) {
        self.bells.0.clear();
        self.fifos.0.clear();
    }
}
