//! Sequences of calls of the C API, decoded from bytes, on the host backend.
//!
//! What the library cannot check stays as the header asks: memory that operations use is valid and large enough,
//! an object in memory is ended before the memory. All else may be wrong, and what must come of it is known.

mod arbiters;
mod arena;
mod blob;
mod calls;
mod doorbells;
mod input;
mod model;
mod ops;
mod pipelines;
mod probe;
mod queues;
mod tensors;
mod world;

use std::cell::RefCell;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use gpumailbox::capi::context::{gmb_context, gmb_context_options};
use gpumailbox::capi::event::gmb_event;
use gpumailbox::*;

use arena::Arenas;
use calls::call;
use input::Input;
use world::{Context, Table, World};

extern "C" {
    fn atexit(function: extern "C" fn()) -> i32;
    fn raise(signal: i32) -> i32;
}

/// Asks libFuzzer to end, which it does without what `atexit` has.
const SIGUSR1: i32 = 10;
/// Calls after which the process ends; zero for never.
static ENOUGH: AtomicU64 = AtomicU64::new(0);

/// Calls in a sequence, at most about.
const MOST_OPERATIONS: usize = 240;
/// Sequences that share their first context.
const SHARED: u32 = 2000;

/// Faults put in on purpose, to see that they are found.
#[derive(Clone, Copy, PartialEq)]
enum Broken {
    No,
    /// The model expects other bytes.
    Bytes,
    /// A kernel reads beyond its memory.
    Memory,
    /// A token is never ended.
    Books,
}

static BROKEN: AtomicU32 = AtomicU32::new(0);

fn is_broken(how: Broken) -> bool {
    BROKEN.load(Ordering::Relaxed) == how as u32
}

/// Once for the process.
pub fn start() {
    if std::env::args().any(|argument| argument == "--list") {
        calls::NAMES.iter().for_each(|name| println!("{name}"));
        std::process::exit(0);
    }
    let broken = match std::env::var("GMB_FUZZ_BROKEN").as_deref() {
        Err(_) => Broken::No,
        Ok("bytes") => Broken::Bytes,
        Ok("memory") => Broken::Memory,
        Ok("books") => Broken::Books,
        Ok(other) => panic!("GMB_FUZZ_BROKEN={other}"),
    };
    BROKEN.store(broken as u32, Ordering::Relaxed);
    let enough = std::env::var("GMB_FUZZ_CALLS").ok().and_then(|calls| calls.parse().ok());
    ENOUGH.store(enough.unwrap_or(0), Ordering::Relaxed);
    calls::TRACE.store(std::env::var_os("GMB_FUZZ_TRACE").is_some(), Ordering::Relaxed);
    std::env::set_var("GMB_BACKEND", "host");
    // Without this the library believes every address, and only AddressSanitizer can tell.
    let check = if broken == Broken::Memory { "0" } else { "1" };
    std::env::set_var("GMB_CHECK_POINTERS", check);
    // SAFETY: it only prints.
    unsafe { atexit(calls::report) };
}

pub fn run(bytes: &[u8]) {
    thread_local! {
        static WORLD: RefCell<Option<(World, u32)>> = const { RefCell::new(None) };
    }
    WORLD.with_borrow_mut(|kept| {
        let (mut world, runs) = kept.take().unwrap_or_else(|| (first(), 0));
        sequence(&mut world, &mut Input::new(bytes));
        if runs < SHARED {
            *kept = Some((world, runs + 1));
        } else {
            ops::teardown::end(world);
        }
    });
    calls::RUNS.fetch_add(1, Ordering::Relaxed);
    let enough = ENOUGH.load(Ordering::Relaxed);
    if enough > 0 && calls::total() >= enough {
        ENOUGH.store(0, Ordering::Relaxed);
        calls::report();
        // SAFETY: libFuzzer handles it.
        unsafe { raise(SIGUSR1) };
    }
}

fn first() -> World {
    let options = gmb_context_options {
        struct_size: size_of::<gmb_context_options>() as u32,
        backend: capi::context::GMB_BACKEND_HOST,
        device: 0,
        resident_percent: 0,
        memory_limit: ops::context::LIMIT,
    };
    let (mut context, mut fence) = (gmb_context { id: 0 }, gmb_event { id: 0 });
    assert_eq!(call!(context::gmb_context_create(&options, &mut context)), GMB_OK);
    assert_eq!(call!(event::gmb_event_create(context, 0, &mut fence)), GMB_OK);
    let mut world = World {
        contexts: Table(Vec::new()),
        streams: Table(Vec::new()),
        guards: Table(Vec::new()),
        events: Table(Vec::new()),
        mailboxes: Table(Vec::new()),
        tokens: Table(Vec::new()),
        memory: Table(Vec::new()),
        tensors: tensors::Tensors::new(),
        queues: queues::Queues::new(),
        doorbells: doorbells::Doorbells::new(),
        arbiters: Table(Vec::new()),
        pipelines: pipelines::Pipelines::new(),
        dirty: Vec::new(),
        stack: Vec::new(),
        arenas: Arenas::new(context),
        baseline: Default::default(),
    };
    world.contexts.add(context.id, Context { fence, limit: ops::context::LIMIT, resident_percent: 0 });
    world.baseline = ops::teardown::held(context);
    world
}

fn sequence(world: &mut World, input: &mut Input) {
    for _ in 0..MOST_OPERATIONS {
        if input.is_empty() {
            break;
        }
        ops::run(world, input);
    }
    ops::teardown::all(world, input);
}
