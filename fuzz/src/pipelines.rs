//! Triple buffers, kernels and coordinators as they must be: whose turn it is, how each operation ends, and which bytes come back.

use std::sync::atomic::{AtomicU8, Ordering};

use gpumailbox::capi::coordinator::gmb_completion;
use gpumailbox::capi::module::gmb_kernel_block;
use gpumailbox::capi::triple::gmb_triple_slot;
use gpumailbox::*;

use crate::blob::Blob;
use crate::model::VERIFIED;
use crate::world::Table;

pub const UPLOAD: usize = 0;
pub const PROCESS: usize = 1;
pub const DOWNLOAD: usize = 2;

/// Bytes of a buffer, as far as they are known.
pub type Content = Vec<Option<u8>>;

/// One turn of a triple buffer.
#[derive(Default)]
pub struct Turn {
    /// The step that it was asked for last.
    pub step: usize,
    /// That step's work is enqueued.
    pub submitted: bool,
    pub given_up: bool,
    /// The coordinator's operation that worked on it last, in this turn.
    pub operation: Option<u64>,
    pub content: Content,
}

impl Turn {
    fn is_held(&self) -> bool {
        !self.submitted && !self.given_up
    }

    /// Whether a later step comes, or has come.
    fn is_past(&self, step: usize) -> bool {
        self.step > step || (self.step == step && self.submitted && !self.given_up)
    }
}

/// A buffer in the sequence's hands.
pub struct Held {
    pub slot: gmb_triple_slot,
    /// The stream that was made to wait for the step before, or whose work is on the buffer; none where any will do.
    pub stream: Option<u64>,
    pub is_used: bool,
}

pub struct Triple {
    pub context: usize,
    pub dtype: gmb_dtype,
    pub elements: u64,
    pub bytes: u64,
    pub addresses: [u64; 3],
    pub turns: Vec<Turn>,
    pub held: Vec<Held>,
    /// All that was submitted is done.
    pub quiet: bool,
}

/// Whether a buffer comes when it is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Comes {
    Surely,
    Perhaps,
    Never,
}

impl Triple {
    /// The turn that a step is asked for next.
    pub fn next(&self, step: usize) -> usize {
        let over = |turn: &Turn| turn.step >= step || (turn.given_up && turn.step < step);
        match step {
            UPLOAD => self.turns.len(),
            _ => self.turns.iter().position(|turn| !over(turn)).unwrap_or(self.turns.len()),
        }
    }

    /// What comes of asking; `holds` says that a stream is made to wait for the step before.
    pub fn comes(&self, step: usize, holds: bool) -> Comes {
        let next = self.next(step);
        let ready = match step {
            UPLOAD if next < 3 => return Comes::Surely,
            UPLOAD => {
                let before = &self.turns[next - 3];
                before.given_up || before.is_past(DOWNLOAD)
            }
            _ => next < self.turns.len() && self.turns[next].is_past(step - 1),
        };
        match ready {
            false => Comes::Never,
            true if self.quiet || holds => Comes::Surely,
            true => Comes::Perhaps,
        }
    }

    /// Enters that a buffer came, and gives its turn.
    pub fn take(&mut self, step: usize) -> usize {
        let turn = self.next(step);
        assert_ne!(
            self.comes(step, true),
            Comes::Never,
            "a buffer that had not come to step {step}: turn {turn}"
        );
        if step == UPLOAD {
            let content = match turn {
                0..3 => vec![None; self.bytes as usize],
                _ => self.turns[turn - 3].content.clone(),
            };
            self.turns.push(Turn { content, ..Turn::default() });
        }
        let it = &mut self.turns[turn];
        (it.step, it.submitted) = (step, false);
        turn
    }

    pub fn is_held(&self, step: i32, turn: u64) -> bool {
        let at = usize::try_from(turn).ok().and_then(|turn| self.turns.get(turn));
        at.is_some_and(|turn| turn.is_held() && turn.step as i32 == step)
    }

    pub fn submit(&mut self, turn: usize) {
        self.turns[turn].submitted = true;
        self.quiet = false;
    }

    pub fn give_up(&mut self, turn: usize) {
        self.turns[turn].given_up = true;
        self.held.retain(|held| held.slot.turn as usize != turn);
    }

    /// Gives a turn up, unless somebody has asked for this step of it.
    pub fn give_up_rest(&mut self, step: usize, turn: usize) {
        let it = &self.turns[turn];
        if it.step < step && !it.given_up {
            self.give_up(turn);
        }
    }

    /// What a kernel or a fill does to a turn's bytes; nobody knows where there are no bytes.
    pub fn change(&mut self, turn: usize, bytes: usize, change: impl Fn(Option<u8>) -> Option<u8>) {
        for byte in self.turns[turn].content.iter_mut().take(bytes) {
            *byte = change(*byte);
        }
    }

    pub fn settle(&mut self) {
        self.quiet = true;
        for held in &mut self.held {
            (held.stream, held.is_used) = (None, false);
        }
    }

    /// Holds what it tells of itself against this. Buffers are passed on by whoever looks, so states may lag.
    pub fn check(&self, told: &gpumailbox::capi::triple::gmb_triple_buffer_info) {
        assert_eq!((told.elements, told.bytes), (self.elements, self.bytes));
        assert_eq!(told.addresses.map(|address| address as u64), self.addresses);
        assert_eq!(told.dtype, self.dtype);
        let freed = told.completed as usize;
        assert!(freed <= self.turns.len(), "{freed} turns are over, of {}", self.turns.len());
        for (turn, it) in self.turns.iter().enumerate() {
            let state = told.states[turn % 3];
            if turn < freed {
                assert!(it.given_up || it.is_past(DOWNLOAD), "turn {turn} is over");
                continue;
            }
            let most = match it.given_up {
                true => 3,
                false => it.step as i32 + 1 + i32::from(it.submitted && it.step < DOWNLOAD),
            };
            assert!((1..=most).contains(&state), "turn {turn} in state {state}, at step {}", it.step);
            assert!(
                it.given_up || state > it.step as i32,
                "turn {turn} in state {state}, at step {}",
                it.step
            );
        }
    }
}

/// A function that takes a kernel's place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Body {
    /// Any arguments will do.
    Nothing,
    /// Adds a byte to each of so many bytes: address, count, byte.
    Add,
}

pub struct Module {
    pub context: usize,
    pub functions: Vec<(Vec<u8>, Body)>,
}

pub struct Kernel {
    pub context: usize,
    pub body: Body,
}

/// What functions are registered with.
pub static USER: AtomicU8 = AtomicU8::new(0);

fn check_block(block: *const gmb_kernel_block) -> (u64, u64) {
    assert!(!block.is_null() && block.is_aligned());
    // SAFETY: the library's, for the call.
    let block = unsafe { &*block };
    assert!((0..3).all(|n| block.index[n] < block.grid[n]), "{:?} of {:?}", block.index, block.grid);
    assert_eq!(block.user.cast_const().cast(), std::ptr::from_ref(&USER));
    if block.shared_bytes > 0 {
        assert!(block.shared as usize % 16 == 0);
        let shared = block.shared.cast::<u8>();
        // SAFETY: so many bytes are this block's own.
        let shared = unsafe { std::slice::from_raw_parts_mut(shared, block.shared_bytes as usize) };
        assert!(shared.iter().all(|&byte| byte == 0), "shared memory that is not zero");
        shared.fill(0xA5);
    }
    assert_eq!(block.reserved, 0);
    let [x, y, z] = block.index.map(u64::from);
    let [of_x, of_y, of_z] = block.grid.map(u64::from);
    (x + of_x * (y + of_y * z), of_x * of_y * of_z)
}

pub extern "C" fn nothing(block: *const gmb_kernel_block, _: *const *const std::ffi::c_void) {
    check_block(block);
}

pub extern "C" fn add(block: *const gmb_kernel_block, arguments: *const *const std::ffi::c_void) {
    let (number, blocks) = check_block(block);
    // SAFETY: the library's, for the call; so many sizes are there.
    let sizes =
        unsafe { std::slice::from_raw_parts((*block).argument_bytes, (*block).argument_count as usize) };
    assert_eq!(sizes, [8, 4, 1]);
    // SAFETY: the arguments of this function, which every launch of it here has.
    let (address, count, what) = unsafe {
        let at = |n: usize| *arguments.add(n);
        assert!((0..3).all(|n| at(n) as usize % 16 == 0));
        (at(0).cast::<u64>().read(), at(1).cast::<u32>().read(), at(2).cast::<u8>().read())
    };
    let mut at = number;
    while at < u64::from(count) {
        // SAFETY: memory that stays until the launch is done; other launches may be there.
        unsafe { &*((address + at) as *const AtomicU8) }.fetch_add(what, Ordering::Relaxed);
        at += blocks;
    }
}

/// Host memory of an operation, kept until it is done, and what must be in it then.
pub struct Kept {
    pub memory: Blob,
    pub expected: Content,
}

/// How an operation may end: none for success, else a status, where it is known, and the number of the operation that failed first.
pub type Fates = Vec<(Option<i32>, u64)>;

pub struct Operation {
    pub id: u64,
    pub kind: i32,
    pub fates: Fates,
    /// A mailbox's answer, which may be any.
    pub any: bool,
    pub after: Vec<u64>,
    pub told: bool,
    /// The triple buffer that it was to work on, and in which turn, if it had one.
    pub turn: Option<(usize, Option<usize>)>,
}

pub struct Coordinator {
    pub context: usize,
    pub most: u64,
    pub streams: [u64; 3],
    pub operations: Vec<Operation>,
    /// Operations that may be under way, and numbers that failed calls took.
    pub since: u64,
    /// Calls that failed, and may have taken a number.
    pub refused: u64,
    /// Completions were, or may have been, dropped.
    pub lossy: bool,
}

pub const NUMBER: u64 = (1 << 48) - 1;

impl Coordinator {
    pub fn find(&self, id: u64) -> Option<&Operation> {
        self.operations.iter().find(|one| one.id == id)
    }

    /// How what comes after these may end.
    pub fn inherited(&self, after: &[u64]) -> Fates {
        after.iter().filter_map(|&id| self.find(id)).flat_map(|one| one.fates.iter().copied()).collect()
    }

    pub fn may_fail(&self, after: &[u64]) -> bool {
        after.iter().filter_map(|&id| self.find(id)).any(|one| one.any || !one.fates.is_empty())
    }

    /// Whether an operation may be forgotten: of numbers that failed calls took nobody knows here.
    pub fn may_be_forgotten(&self, id: u64) -> bool {
        let latest = self.operations.last().map_or(0, |one| one.id & NUMBER);
        latest - (id & NUMBER) + self.refused >= self.most
    }

    /// Completions that it keeps.
    pub fn kept(&self) -> u64 {
        (2 * self.most).next_power_of_two()
    }

    pub fn untold(&self) -> u64 {
        self.operations.iter().filter(|one| !one.told).count() as u64
    }

    pub fn add(&mut self, operation: Operation) {
        let last = self.operations.last();
        assert!(last.is_none_or(|last| last.id < operation.id), "ids that do not grow");
        assert!(last.is_none_or(|last| last.id & !NUMBER == operation.id & !NUMBER));
        self.operations.push(operation);
        self.lossy |= self.untold() > self.kept();
        self.since += 1;
    }

    /// Holds how an operation ended against what may be.
    pub fn ended(&self, done: &gmb_completion) -> usize {
        let id = done.operation.id;
        let at = self.operations.iter().position(|one| one.id == id);
        let at = at.unwrap_or_else(|| panic!("{id:#x} was never queued"));
        let one = &self.operations[at];
        assert_eq!((done.kind, done.timed), (one.kind, 0), "operation {at}");
        assert_eq!(done.status < 0, done.cause.id != 0, "status {}, cause {:#x}", done.status, done.cause.id);
        let fits = |&(status, cause): &(Option<i32>, u64)| {
            status.is_none_or(|status| status == done.status) && cause == done.cause.id
        };
        let well = done.status == GMB_OK && done.cause.id == 0;
        let right = match one.fates.is_empty() {
            true => well,
            false => done.status < 0 && one.fates.iter().any(fits),
        };
        assert!(right || one.any, "status {}, {:?}", done.status, one.fates);
        at
    }
}

/// All of them of a sequence.
pub struct Pipelines {
    pub triples: Table<Triple>,
    pub modules: Table<Module>,
    pub kernels: Table<Kernel>,
    pub coordinators: Table<Coordinator>,
    pub kept: Vec<Kept>,
}

impl Pipelines {
    pub fn new() -> Self {
        Self {
            triples: Table(Vec::new()),
            modules: Table(Vec::new()),
            kernels: Table(Vec::new()),
            coordinators: Table(Vec::new()),
            kept: Vec::new(),
        }
    }

    /// All operations are done, and all streams' work.
    pub fn settle(&mut self) {
        for triple in &mut self.triples.0 {
            triple.it.settle();
        }
        for coordinator in &mut self.coordinators.0 {
            coordinator.it.since = 0;
        }
        for kept in self.kept.drain(..) {
            for (at, (&byte, expected)) in kept.memory.bytes().iter().zip(&kept.expected).enumerate() {
                assert!(
                    expected.is_none_or(|wanted| wanted == byte),
                    "byte {at} of {} is {byte}, wanted {expected:?}",
                    kept.expected.len()
                );
            }
            if kept.expected.iter().any(Option::is_some) {
                VERIFIED.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    pub fn clear(&mut self) {
        assert!(self.kept.is_empty());
        self.triples.0.clear();
        self.modules.0.clear();
        self.kernels.0.clear();
        self.coordinators.0.clear();
    }
}
