//! What the sequence has made, what of it still lives, and how all of it ends.

use std::ffi::c_void;
use std::sync::atomic::{AtomicU64, Ordering};

use gpumailbox::capi::context::gmb_context;
use gpumailbox::capi::event::gmb_event;
use gpumailbox::capi::stream::gmb_stream;
use gpumailbox::*;

use crate::arbiters::Arbiters;
use crate::arena::Arenas;
use crate::calls::call;
use crate::doorbells::Doorbells;
use crate::input::Input;
use crate::model::Mailbox;
use crate::pipelines::Pipelines;
use crate::queues::Queues;
use crate::tensors::Tensors;

/// Stream work that a destroyed stream still has to do ends with this many calls of `arrived`.
pub static POSTED: AtomicU64 = AtomicU64::new(0);
static ARRIVED: AtomicU64 = AtomicU64::new(0);

pub extern "C" fn arrived(counter: *mut c_void) {
    assert!(counter.cast_const() == std::ptr::from_ref(&ARRIVED).cast());
    ARRIVED.fetch_add(1, Ordering::SeqCst);
}

pub fn arrived_argument() -> *mut c_void {
    std::ptr::from_ref(&ARRIVED).cast_mut().cast()
}

pub struct Entry<T> {
    pub id: u64,
    pub live: bool,
    pub it: T,
}

/// All objects of one type, the dead ones too: their ids are stale.
pub struct Table<T>(pub Vec<Entry<T>>);

impl<T> Table<T> {
    pub fn add(&mut self, id: u64, it: T) {
        self.0.push(Entry { id, live: true, it });
    }

    /// The live object behind an id, however the id was come by.
    pub fn find(&self, id: u64) -> Option<usize> {
        self.0.iter().rposition(|entry| entry.live && entry.id == id)
    }

    pub fn live(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.0.len()).filter(|&at| self.0[at].live)
    }

    /// Usually the id of a live object, else one that is stale, zero, foreign or garbage.
    pub fn pick(&self, input: &mut Input, strangers: [u64; 4]) -> u64 {
        let live: Vec<usize> = self.live().collect();
        match input.byte() {
            which @ 0..=231 => {
                let newest = live.len().wrapping_sub(1 + usize::from(which) % live.len().max(1));
                live.get(newest).map_or(0, |&at| self.0[at].id)
            }
            which @ 232..=241 => {
                let stale: Vec<u64> = self.0.iter().filter(|e| !e.live).map(|e| e.id).collect();
                stale.get(usize::from(which) % stale.len().max(1)).copied().unwrap_or(1)
            }
            242..=245 => 0,
            which @ 246..=251 => strangers[usize::from(which) % strangers.len()],
            252..=253 => input.word(),
            _ => live.first().map_or(0, |&at| self.0[at].id) ^ 1 << input.below(64),
        }
    }
}

pub struct Context {
    /// An event of the context, to wait for its streams also when its handle is gone.
    pub fence: gmb_event,
    pub limit: u64,
    pub resident_percent: u32,
}

pub struct Stream {
    pub context: usize,
}

pub struct Guard {
    pub context: usize,
    pub raw: u64,
    pub ended: bool,
}

pub struct Event {
    pub context: usize,
    pub kind: i32,
    pub recorded: bool,
}

/// What a token's last operation was, until its result is read.
#[derive(Clone, Copy)]
pub struct Awaited {
    pub mailbox: usize,
    pub what: Operation,
}

#[derive(Clone, Copy)]
pub enum Operation {
    Push(usize),
    Pop {
        reader: u32,
        number: u64,
    },
    /// A push to a queue, or a pop: how many items it moves, where that is certain. The mailbox says nothing.
    Queue(Option<u32>),
}

impl Operation {
    /// The reader whose operation it is, or none for a push.
    pub fn side(self) -> Option<u32> {
        match self {
            Self::Push(_) | Self::Queue(_) => None,
            Self::Pop { reader, .. } => Some(reader),
        }
    }
}

pub struct Token {
    pub context: usize,
    pub submitted: u32,
    pub awaited: Option<Awaited>,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Origin {
    Device,
    Pinned,
}

pub struct Allocation {
    pub context: usize,
    pub bytes: u64,
    pub origin: Origin,
    /// Mailboxes that lie there.
    pub mailboxes: u32,
    /// What a mailbox left there that was destroyed.
    pub remains: Option<crate::model::Remains>,
    /// Streams whose work may still use it.
    pub users: Vec<(usize, u64)>,
}

pub struct World {
    pub contexts: Table<Context>,
    pub streams: Table<Stream>,
    pub guards: Table<Guard>,
    pub events: Table<Event>,
    pub mailboxes: Table<Mailbox>,
    pub tokens: Table<Token>,
    pub memory: Table<Allocation>,
    pub tensors: Tensors,
    pub queues: Queues,
    pub doorbells: Doorbells,
    pub arbiters: Arbiters,
    pub pipelines: Pipelines,
    /// Streams with work that was not waited for.
    pub dirty: Vec<(usize, u64)>,
    /// Guards in the order in which they are in force.
    pub stack: Vec<usize>,
    pub arenas: Arenas,
    pub baseline: Baseline,
}

/// What the first context holds between sequences.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Baseline {
    pub used: u64,
    pub allocations: u64,
    pub events: [u64; 3],
}

impl World {
    /// A handle of each type, for calls that want another one.
    pub fn strangers(&self) -> [u64; 4] {
        let first = |id: Option<u64>| id.unwrap_or(u64::MAX);
        [
            first(self.contexts.0.last().map(|e| e.id)),
            first(self.events.0.last().map(|e| e.id)),
            first(self.mailboxes.0.last().map(|e| e.id)),
            first(self.tokens.0.last().map(|e| e.id)),
        ]
    }

    pub fn context(&self, input: &mut Input) -> (gmb_context, Option<usize>) {
        // The first context is the usual one: it is there from the start.
        let id = if input.chance(80) {
            self.contexts.pick(input, self.strangers())
        } else {
            self.contexts.0[0].id
        };
        (gmb_context { id }, self.contexts.find(id))
    }

    /// Any stream for calls on an object of this context, and which one it is there.
    pub fn stream(&self, input: &mut Input, context: Option<usize>) -> (gmb_stream, Option<u64>) {
        let of = |own: bool| -> Vec<u64> {
            let wanted = |&at: &usize| (Some(self.streams.0[at].it.context) == context) == own;
            self.streams.live().filter(wanted).map(|at| self.streams.0[at].id).collect()
        };
        let byte = input.byte();
        let nth = |from: Vec<u64>| from.get(usize::from(byte) % from.len().max(1)).copied();
        let raw = match byte {
            0..=159 => nth(of(true)).unwrap_or(0),
            160..=179 => 0,
            180..=187 => 1,
            188..=195 => 2,
            196..=219 => u64::MAX,
            220..=231 => nth(self.streams.0.iter().filter(|e| !e.live).map(|e| e.id).collect()).unwrap_or(0),
            232..=243 => nth(of(false)).unwrap_or(2),
            // Small numbers are the library's own streams, which nobody else may name.
            _ => input.word() | 1 << 63,
        };
        (raw as gmb_stream, context.and_then(|context| self.resolve(context, raw)))
    }

    pub fn resolve(&self, context: usize, raw: u64) -> Option<u64> {
        match raw {
            0 | 1 => Some(0),
            2 => Some(2),
            u64::MAX => {
                let in_force = |&&at: &&usize| {
                    let guard = &self.guards.0[at].it;
                    !guard.ended && guard.context == context
                };
                Some(self.stack.iter().rev().find(in_force).map_or(0, |&at| self.guards.0[at].it.raw))
            }
            _ => self.streams.find(raw).filter(|&at| self.streams.0[at].it.context == context).map(|_| raw),
        }
    }

    /// Notes that a stream has work, and memory of ours that the work uses.
    pub fn enqueued(&mut self, context: usize, stream: u64, uses: &[u64]) {
        if !self.dirty.contains(&(context, stream)) {
            self.dirty.push((context, stream));
        }
        for &address in uses {
            if let Some(at) = self.allocation_of(address) {
                let users = &mut self.memory.0[at].it.users;
                if !users.contains(&(context, stream)) {
                    users.push((context, stream));
                }
            }
        }
    }

    pub fn allocation_of(&self, address: u64) -> Option<usize> {
        self.memory.live().find(|&at| {
            let entry = &self.memory.0[at];
            (entry.id..entry.id + entry.it.bytes).contains(&address)
        })
    }

    /// Waits for all work of all streams.
    pub fn settle(&mut self) {
        for (context, stream) in std::mem::take(&mut self.dirty) {
            let fence = self.contexts.0[context].it.fence;
            assert_eq!(call!(event::gmb_event_record(fence, stream as gmb_stream)), GMB_OK);
            assert_eq!(call!(event::gmb_event_synchronize(fence, u64::MAX)), GMB_OK);
        }
        crate::ops::coordinator::settle(self);
        while ARRIVED.load(Ordering::SeqCst) < POSTED.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        for allocation in &mut self.memory.0 {
            allocation.it.users.clear();
        }
        for mailbox in &mut self.mailboxes.0 {
            mailbox.it.model.settle();
        }
        self.queues.settle();
        self.doorbells.settle();
        self.pipelines.settle();
    }

    /// Waits for all work, reads every token, and holds what came against the model.
    pub fn flush(&mut self) {
        self.settle();
        let tokens: Vec<usize> = self.tokens.live().collect();
        for at in tokens {
            crate::ops::token::collect(self, at, true);
        }
        self.arenas.reset();
    }
}
