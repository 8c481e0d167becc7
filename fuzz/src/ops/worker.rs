//! Workers: small ones, which end soon or are stopped.

use gpumailbox::capi::doorbell::gmb_doorbell;
use gpumailbox::capi::queue::gmb_queue;
use gpumailbox::capi::worker::*;
use gpumailbox::*;

use super::queue::{certain, drain, is_threads, told as told_of_queue};
use crate::blob::{info, Blob, Out};
use crate::calls::call;
use crate::input::Input;
use crate::queues::{Run, Worker};
use crate::world::World;

const MOST: usize = 4;
/// Each block is a thread here.
const MOST_BLOCKS: u32 = 16;
/// Blocks that fit on the host, of which a context's percent may be held.
const FITTING: u32 = 512;

fn pick(world: &World, input: &mut Input) -> (gmb_worker, Option<usize>) {
    let id = world.queues.workers.pick(input, world.strangers());
    (gmb_worker { id }, world.queues.workers.find(id))
}

/// A queue for a worker: usually one that fits to others.
fn queue(world: &World, input: &mut Input, fits: Option<(usize, u64)>, not: &[u64]) -> u64 {
    if input.chance(24) {
        return world.queues.queues.pick(input, world.strangers());
    }
    let fitting = |&at: &usize| {
        let entry = &world.queues.queues.0[at];
        fits.is_none_or(|fits| fits == (entry.it.context, entry.it.item_bytes)) && !not.contains(&entry.id)
    };
    let fitting: Vec<usize> = world.queues.queues.live().filter(fitting).collect();
    let which = input.below(fitting.len());
    fitting.get(which).map_or(0, |&at| world.queues.queues.0[at].id)
}

pub fn create(world: &mut World, input: &mut Input) {
    if world.queues.workers.live().count() >= MOST {
        return;
    }
    let queues = &world.queues.queues;
    let active = queue(world, input, None, &[]);
    let fits = queues.find(active).map(|at| (queues.0[at].it.context, queues.0[at].it.item_bytes));
    let finished = if input.chance(32) { 0 } else { queue(world, input, fits, &[active]) };
    let spawn = if input.chance(96) { 0 } else { queue(world, input, fits, &[active, finished]) };
    let ids = [active, finished, spawn];
    let (iterations, idle) = (input.choose(&[0, 0, 1, 20, 1000]), input.choose(&[16, 1, 4, 64, 0]));
    let interval = if spawn == 0 { 0 } else { input.choose(&[2, 1, 3, 0]) };
    let (increment, blocks) = (input.choose(&[1, 0, 3]), input.choose(&[1, 0, 2, 4]));
    // Where the kernel stays for ever, calls that need an idle device wait for its end, which must come then.
    let longest = if iterations > 0 { u64::MAX } else { 0 };
    let (threads, slice) =
        (input.choose(&[0, 32, 1024]), input.choose(&[100_000, 1, 1000, 1_000_000, longest]));
    let doorbell = doorbell(world, input);
    let options = gmb_worker_options {
        struct_size: 0,
        block_threads: input.spoil(threads, 8) as u32,
        active: gmb_queue { id: active },
        finished: gmb_queue { id: finished },
        spawn: gmb_queue { id: spawn },
        max_iterations: if slice == u64::MAX { iterations } else { input.spoil(iterations, 8) },
        idle_threshold: input.spoil(idle, 8),
        spawn_interval: input.spoil(interval, 8),
        increment: input.spoil(increment, 16),
        grid_blocks: input.spoil(blocks, 8) as u32,
        reserved: input.spoil(0, 8) as u32,
        slice_ns: slice,
        watchdog_ns: input.choose(&[0, 1, u64::MAX]),
        function: std::ptr::null(),
        user: std::ptr::null_mut(),
        doorbell: gmb_doorbell { id: doorbell },
    };
    let found = ids.map(|id| queues.find(id));
    let there = found[0].is_some() && ids.iter().zip(&found).all(|(&id, at)| id == 0 || at.is_some());
    let fit =
        found.iter().flatten().all(|&at| Some((queues.0[at].it.context, queues.0[at].it.item_bytes)) == fits);
    let apart = ids[0] != ids[1] && ids[0] != ids[2] && (ids[1] != ids[2] || ids[1] == 0);
    let bell = world.doorbells.bells.find(doorbell);
    let bell_fits = doorbell == 0
        || bell.is_some_and(|at| {
            let bell = &world.doorbells.bells.0[at].it;
            bell.server.is_none() && fits.is_some_and(|(context, _)| context == bell.context)
        });
    let most = found[0].map_or(0, |at| FITTING * percent(world, queues.0[at].it.context) / 100);
    let good = there
        && fit
        && apart
        && (options.spawn_interval == 0 || spawn != 0)
        && is_threads(options.block_threads)
        && bell_fits
        && options.grid_blocks.max(1).saturating_add((doorbell != 0).into()) <= most
        && options.reserved == 0;
    if good && options.grid_blocks > MOST_BLOCKS {
        return;
    }
    let (blob, sound) = Blob::sized(options, input);
    // The first version of the struct, and what is cut off in its last field.
    let told = u32::from_ne_bytes(blob.bytes()[..4].try_into().expect("four bytes")) as usize;
    if (std::mem::offset_of!(gmb_worker_options, doorbell)..size_of::<gmb_worker_options>()).contains(&told) {
        return;
    }
    let out = Out::<gmb_worker>::new(input);
    let status = call!(worker::gmb_worker_create(blob.pointer(), out.pointer()));
    let good = good && sound && out.good;
    let full = status == GMB_ERROR_MEMORY_LIMIT;
    assert!((status == GMB_OK) == good || (full && good), "status {status}: {}", super::status::message());
    let (Some(made), Some((context, _))) = (out.take(status), fits) else { return };
    let at = world.queues.workers.0.len();
    for queue in found.into_iter().flatten() {
        world.queues.queues.0[queue].it.workers.push(at);
    }
    let worker = Worker {
        context,
        queues: found,
        increment: options.increment,
        interval: options.spawn_interval,
        idle_threshold: options.idle_threshold,
        max_iterations: options.max_iterations,
        blocks: options.grid_blocks.max(1),
        started: false,
        run: None,
    };
    world.queues.workers.add(made.id, worker);
    if let Some(bell) = bell {
        world.doorbells.bells.0[bell].it.server = Some(at);
    }
}

/// A doorbell for a worker: usually one that is free.
fn doorbell(world: &World, input: &mut Input) -> u64 {
    let bells = &world.doorbells.bells;
    if bells.live().next().is_none() || input.chance(96) {
        return 0;
    }
    if input.chance(24) {
        return bells.pick(input, world.strangers());
    }
    let free: Vec<usize> = bells.live().filter(|&at| bells.0[at].it.server.is_none()).collect();
    free.get(input.below(free.len())).map_or(0, |&at| bells.0[at].id)
}

/// Whether workers and arbiters may hold what a small budget allows.
pub fn is_small(world: &World, context: usize) -> bool {
    let most = MOST as u32 * (MOST_BLOCKS + 1) + super::arbiter::MOST as u32;
    percent(world, context) * FITTING / 100 < most
}

fn percent(world: &World, context: usize) -> u32 {
    match world.contexts.0[context].it.resident_percent {
        0 => 50,
        percent => percent,
    }
}

pub fn start(world: &mut World, input: &mut Input) {
    let (worker, at) = pick(world, input);
    if let Some(at) = at {
        look(world, at);
    }
    let Some(at) = at else {
        assert_eq!(call!(worker::gmb_worker_start(worker)), GMB_ERROR_INVALID_HANDLE);
        return;
    };
    if world.queues.workers.0[at].it.run.is_some() {
        // It runs, or did when it was last looked at.
        let status = call!(worker::gmb_worker_start(worker));
        assert!([GMB_OK, GMB_ERROR_BUSY].contains(&status));
        if let (GMB_OK, Some(run)) = (status, &mut world.queues.workers.0[at].it.run) {
            (run.again, run.paused, run.stopped) = (true, false, false);
        }
        if status == GMB_OK {
            world.doorbells.run_begins(at);
        }
        return;
    }
    let queues = world.queues.workers.0[at].it.queues;
    for &queue in queues.iter().flatten() {
        certain(world, queue);
        // What two workers make of a queue nobody knows beforehand.
        world.queues.confuse(queue);
    }
    let shared = queues.iter().flatten().any(|&queue| !world.queues.runs_on(queue).is_empty());
    let known = queues.iter().flatten().all(|&queue| world.queues.queues.0[queue].it.items.is_some());
    let first =
        queues[0].map_or(0, |at| told_of_queue(gmb_queue { id: world.queues.queues.0[at].id }).popped);
    let status = call!(worker::gmb_worker_start(worker));
    let small = is_small(world, world.queues.workers.0[at].it.context);
    assert!(status == GMB_OK || (status == GMB_ERROR_BUSY && small), "status {status}");
    if status != GMB_OK {
        return;
    }
    let items = queues.map(|queue| {
        let items = queue.and_then(|at| world.queues.queues.0[at].it.items.take());
        items.map(Vec::from).unwrap_or_default()
    });
    let worker = &mut world.queues.workers.0[at].it;
    worker.started = true;
    world.doorbells.run_begins(at);
    let exact = known && !shared;
    let popped = Default::default();
    worker.run = Some(Run { exact, again: false, first, items, popped, paused: false, stopped: false });
}

fn told(worker: gmb_worker) -> gmb_worker_info {
    let out = Out::<gmb_worker_info>::good();
    let size = size_of::<gmb_worker_info>();
    let status = call!(worker::gmb_worker_get_info(worker, out.pointer(), size));
    out.take(status).expect("a worker tells of itself")
}

/// Sees whether a worker has ended.
fn look(world: &mut World, at: usize) {
    let worker = &world.queues.workers.0[at];
    if worker.it.run.is_some() && told(gmb_worker { id: worker.id }).state == GMB_WORKER_STATE_ENDED {
        ended(world, at);
    }
}

/// A run is over: what must be in the queues, if that is certain.
fn ended(world: &mut World, at: usize) {
    // Also launches that were under way on its queues.
    world.settle();
    let worker = &mut world.queues.workers.0[at].it;
    let Some(run) = worker.run.take() else { return };
    world.doorbells.run_ended(at);
    let worker = &mut world.queues.workers.0[at].it;
    let queues = worker.queues;
    let Some(active) = queues[0].filter(|_| run.exact) else { return };
    let of = &world.queues.queues.0[active];
    let (popped, item_bytes) = (told_of_queue(gmb_queue { id: of.id }).popped, of.it.item_bytes);
    let mut left: [Vec<_>; 3] = Default::default();
    for (part, queue) in queues.iter().enumerate() {
        let Some(queue) = *queue else { continue };
        // Where there is no memory for a pop, nobody learns what came.
        let Some(found) = drain(world, queue) else { return };
        left[part] = found;
    }
    let taken = popped.wrapping_sub(run.first);
    world.queues.workers.0[at].it.check(run, taken, left, item_bytes);
}

pub fn stop(world: &mut World, input: &mut Input) {
    let (worker, at) = pick(world, input);
    let status = call!(worker::gmb_worker_stop(worker));
    assert_eq!(status == GMB_OK, at.is_some(), "status {status}");
    if let Some(run) = at.and_then(|at| world.queues.workers.0[at].it.run.as_mut()) {
        run.stopped = true;
    }
}

/// After a pause or a resume: none of a worker that does not run.
fn while_on(world: &mut World, at: Option<usize>, status: i32, paused: bool) {
    let Some(at) = at else { return assert_eq!(status, GMB_ERROR_INVALID_HANDLE) };
    let worker = &mut world.queues.workers.0[at].it;
    match (&mut worker.run, status) {
        (Some(run), GMB_OK) => run.paused = paused && !run.stopped,
        (Some(_), GMB_ERROR_INVALID_ARGUMENT) => {
            look(world, at);
            assert!(world.queues.workers.0[at].it.run.is_none(), "a worker that runs, and does not");
        }
        (None, GMB_ERROR_INVALID_ARGUMENT) => {}
        _ => panic!("status {status}"),
    }
}

pub fn pause(world: &mut World, input: &mut Input) {
    let (worker, at) = pick(world, input);
    let status = call!(worker::gmb_worker_pause(worker));
    while_on(world, at, status, true);
}

pub fn resume(world: &mut World, input: &mut Input) {
    let (worker, at) = pick(world, input);
    let status = call!(worker::gmb_worker_resume(worker));
    while_on(world, at, status, false);
}

pub fn wait(world: &mut World, input: &mut Input) {
    let (worker, at) = pick(world, input);
    let it = at.map(|at| &world.queues.workers.0[at].it);
    let ends = it.is_some_and(|it| match &it.run {
        Some(run) => run.stopped || (!run.paused && (1..=4096).contains(&it.max_iterations)),
        None => true,
    });
    let timeout = input.choose(&[if ends { u64::MAX } else { 200_000 }, 0, 1000, 1_000_000]);
    let out = Out::<gmb_worker_result>::new(input);
    let status = call!(worker::gmb_worker_wait(worker, timeout, out.pointer()));
    let runs = it.is_some_and(|it| it.run.is_some());
    let good = it.is_some_and(|it| it.started) && out.good;
    let late = status == GMB_ERROR_TIMEOUT && good && runs && timeout != u64::MAX;
    assert!((status == GMB_OK) == good || late, "status {status}: {}", super::status::message());
    let (Some(result), Some(at)) = (out.take(status), at) else { return };
    let worker = &world.queues.workers.0[at].it;
    let Some(run) = &worker.run else { return };
    match result.reason {
        GMB_WORKER_STOPPED => assert!(run.stopped),
        GMB_WORKER_IDLE => assert!(worker.idle_threshold != 0),
        GMB_WORKER_ITERATIONS => assert!(worker.max_iterations != 0),
        other => panic!("ended with {other}"),
    }
    assert_eq!((result.reserved, result.returned), (0, 0));
    let routed = result.finished + result.spawned;
    let whole = worker.queues[1].is_some();
    assert!(if whole { routed == result.processed } else { routed <= result.processed }, "{routed} items");
    assert!(result.iterations >= result.idle_polls + result.rejected);
    if run.exact && !run.again {
        let active = worker.queues[0].map_or(0, |at| world.queues.queues.0[at].id);
        let taken = told_of_queue(gmb_queue { id: active }).popped.wrapping_sub(run.first);
        assert_eq!(result.processed, taken, "items of a run");
    }
    ended(world, at);
}

pub fn get_info(world: &mut World, input: &mut Input) {
    let (worker, at) = pick(world, input);
    let told: Option<gmb_worker_info> = info(input, |to, size| {
        let status = call!(worker::gmb_worker_get_info(worker, to, size));
        assert!(at.is_some() || status != GMB_OK);
        status
    });
    let (Some(told), Some(at)) = (told, at) else { return };
    let it = &world.queues.workers.0[at].it;
    // On the host backend a block is a thread.
    assert_eq!((told.grid_blocks, told.block_threads, told.reserved), (it.blocks, 1, 0));
    assert_eq!(told.most_blocks, FITTING * percent(world, it.context) / 100);
    // The block of a doorbell may be one of them.
    assert!(told.stalled_blocks <= told.grid_blocks + 1);
    match (told.state, &it.run) {
        (GMB_WORKER_STATE_READY, None) => assert!(!it.started),
        (GMB_WORKER_STATE_ENDED, None) => assert!(it.started),
        (GMB_WORKER_STATE_ENDED, Some(_)) => ended(world, at),
        // It was told to go on, and has not yet.
        (GMB_WORKER_STATE_RUNNING | GMB_WORKER_STATE_PAUSED, Some(_)) => {}
        (state, _) => panic!("state {state}"),
    }
}

pub fn destroy(world: &mut World, input: &mut Input) {
    let (worker, at) = pick(world, input);
    match at {
        Some(at) => end(world, at),
        None => assert_eq!(call!(worker::gmb_worker_destroy(worker)), GMB_ERROR_INVALID_HANDLE),
    }
}

fn end(world: &mut World, at: usize) {
    let id = world.queues.workers.0[at].id;
    assert_eq!(call!(worker::gmb_worker_destroy(gmb_worker { id })), GMB_OK);
    world.queues.workers.0[at].live = false;
    for queue in world.queues.workers.0[at].it.queues.into_iter().flatten() {
        world.queues.queues.0[queue].it.workers.retain(|&worker| worker != at);
    }
    ended(world, at);
    world.doorbells.gone(at);
}

/// Ends all that live.
pub fn end_all(world: &mut World) {
    let live: Vec<usize> = world.queues.workers.live().collect();
    for at in live {
        end(world, at);
    }
}
