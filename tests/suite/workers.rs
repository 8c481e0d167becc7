//! Persistent workers.

use std::time::Duration;

use super::queues::{item, items, numbers, queue};
use super::support::*;
use gpumailbox::*;

/// All that is in a queue, sorted.
fn drained(queue: &Queue) -> Vec<u64> {
    let info = queue.info().unwrap();
    let mut out = vec![0; (info.size as usize + 1) * info.item_bytes as usize];
    let popped = queue.pop_to_host_blocking(&mut out).unwrap();
    assert_eq!(popped, info.size);
    let mut all = plain(&out[..popped as usize * info.item_bytes as usize], info.item_bytes);
    all.sort_unstable();
    all
}

/// The numbers in their first bytes.
fn plain(from: &[u8], bytes: u32) -> Vec<u64> {
    from.chunks_exact(bytes as usize)
        .map(|one| one.iter().take(8).rev().fold(0, |n, &byte| n << 8 | u64::from(byte)))
        .collect()
}

pub fn counted(queue: &Queue, numbers: std::ops::Range<u64>) {
    let bytes = queue.info().unwrap().item_bytes;
    let given: Vec<u8> = numbers.clone().flat_map(|n| item(n, 16)[..bytes as usize].to_vec()).collect();
    assert_eq!(queue.push_from_host_blocking(&given).unwrap(), numbers.end - numbers.start);
}

/// The sequential model: which of the items, by their places in the queue, end in `finished` and which in `spawn`.
fn model(items: std::ops::Range<u64>, increment: u64, interval: u64) -> (Vec<u64>, Vec<u64>) {
    let (mut finished, mut spawned) = (Vec::new(), Vec::new());
    for (place, n) in items.enumerate() {
        let to =
            if interval != 0 && (place as u64 + 1) % interval == 0 { &mut spawned } else { &mut finished };
        to.push(n.wrapping_add(increment));
    }
    finished.sort_unstable();
    spawned.sort_unstable();
    (finished, spawned)
}

pub fn run(worker: &Worker) -> (WorkerReason, WorkerCounts) {
    worker.start().unwrap();
    worker.wait(Some(LIMIT)).unwrap()
}

/// 100,000 items, one block and 32 of them.
#[test]
fn what_comes_out_is_what_the_model_says() {
    let _budget = some_of_the_budget();
    let context = context();
    for grid_blocks in [1, 32] {
        let [active, finished, spawn] = [17, 17, 15].map(|log2| queue(&context, 1 << log2, 4));
        counted(&active, 0..100_000);
        let options = WorkerOptions {
            max_iterations: 200_000,
            idle_threshold: 2048,
            spawn_interval: 5,
            increment: 1,
            block_threads: 128,
            grid_blocks,
            ..Default::default()
        };
        let worker = Worker::new(&active, Some(&finished), Some(&spawn), &options).unwrap();
        let (reason, counts) = run(&worker);
        assert_eq!(reason, WorkerReason::Idle);
        assert_eq!((counts.processed, counts.finished, counts.spawned), (100_000, 80_000, 20_000));
        assert!(counts.idle_polls >= 2048 * u64::from(grid_blocks) && counts.rejected == 0);
        let (wanted_finished, wanted_spawned) = model(0..100_000, 1, 5);
        assert_eq!(drained(&finished), wanted_finished);
        assert_eq!(drained(&spawn), wanted_spawned);
        assert_eq!(active.info().unwrap().size, 0);
        let info = worker.info();
        assert_eq!((info.state, info.counts, info.heartbeat), (WorkerState::Ended, counts, 0));
        assert_eq!(info.ended, Some(Some(WorkerReason::Idle)));
    }
}

/// One block keeps the order; parameters at their extremes; items of each size.
#[test]
fn parameters_at_their_extremes() {
    let _budget = some_of_the_budget();
    let context = context();
    for (bytes, increment, interval) in
        [(4, u64::MAX, 1), (8, u64::MAX, u64::MAX), (16, 1 << 63, 2), (4, 1 << 32, 0), (8, 0, 3)]
    {
        let [active, finished, spawn] = [(); 3].map(|()| queue(&context, 1 << 10, bytes));
        counted(&active, 0..1000);
        let options = WorkerOptions {
            max_iterations: u64::MAX,
            idle_threshold: 1,
            spawn_interval: interval,
            increment,
            block_threads: 1024,
            slice: Some(Duration::MAX),
            watchdog: Some(Duration::MAX),
            ..Default::default()
        };
        let worker = Worker::new(&active, Some(&finished), Some(&spawn), &options).unwrap();
        let (reason, counts) = run(&worker);
        assert_eq!((reason, counts.processed, counts.slices), (WorkerReason::Idle, 1000, 1));
        let mask = if bytes == 4 { u64::from(u32::MAX) } else { u64::MAX };
        for (queue, to_spawn) in [(&finished, false), (&spawn, true)] {
            let wanted: Vec<u64> = (0..1000u64)
                .filter(|n| (interval != 0 && (n + 1) % interval == 0) == to_spawn)
                .map(|n| n.wrapping_add(increment) & mask)
                .collect();
            let mut out = vec![0; 1000 * bytes as usize];
            let popped = queue.pop_to_host_blocking(&mut out).unwrap() as usize;
            assert_eq!(plain(&out[..popped * bytes as usize], bytes), wanted, "in their order");
            if bytes == 16 {
                let high = out.chunks_exact(16).take(popped).map(|one| one[8..].to_vec());
                let all =
                    (0..1000u64).filter(|n| (n % 2 == 1) == to_spawn).map(|n| item(n, 16)[8..].to_vec());
                assert!(high.eq(all), "the high half stays");
            }
        }
    }
}

/// Whatever is full, nothing is lost: what could not go on is still there.
#[test]
fn full_outputs_lose_nothing() {
    let _budget = some_of_the_budget();
    let (context, mut random) = (context(), Random::new());
    for grid_blocks in [1, 5] {
        let active = queue(&context, 1 << 12, 8);
        let (finished, spawn) = (queue(&context, 64, 8), queue(&context, 16, 8));
        counted(&active, 0..4000);
        let options = WorkerOptions {
            max_iterations: 200,
            spawn_interval: 3,
            increment: 7,
            block_threads: 64,
            grid_blocks,
            ..Default::default()
        };
        let worker = Worker::new(&active, Some(&finished), Some(&spawn), &options).unwrap();
        let (mut done, mut spawned, mut rejected, mut processed) = (Vec::new(), Vec::new(), 0, 0);
        for round in 0.. {
            assert!(round < 4000, "it does not come to an end");
            let (reason, counts) = run(&worker);
            assert_eq!(reason, WorkerReason::Iterations);
            assert_eq!(counts.iterations, 200 * u64::from(grid_blocks));
            assert_eq!(counts.processed, counts.finished + counts.spawned);
            rejected += counts.rejected;
            processed += counts.processed;
            let sizes = [&active, &finished, &spawn].map(|queue| queue.info().unwrap().size);
            assert!(sizes[1] <= 64 && sizes[2] <= 16);
            assert_eq!(sizes.iter().sum::<u64>() + (done.len() + spawned.len()) as u64, 4000);
            if sizes == [0, 0, 0] {
                break;
            }
            // One is drained, or both.
            if random.between(0, 2) != 0 {
                done.extend(drained(&finished));
            }
            if random.between(0, 2) != 0 {
                spawned.extend(drained(&spawn));
            }
        }
        done.sort_unstable();
        spawned.sort_unstable();
        assert_eq!((done, spawned), model(0..4000, 7, 3));
        assert!(rejected > 0 && processed == 4000);
    }
}

/// Stopped at any instant, with items coming in all the while: each is in one of the queues, and counted up if it moved.
#[test]
fn stopped_at_any_instant() {
    let _budget = some_of_the_budget();
    let (context, mut random) = (context(), Random::new());
    // Room for all that comes: a worker may do nothing before it is stopped.
    let [active, finished, spawn] = [18, 14, 14].map(|log2| queue(&context, 1 << log2, 4));
    let options = WorkerOptions {
        spawn_interval: 4,
        increment: 1 << 24,
        grid_blocks: 3,
        slice: Some(Duration::from_millis(2)),
        ..Default::default()
    };
    let worker = Worker::new(&active, Some(&finished), Some(&spawn), &options).unwrap();
    let (mut given, mut moved) = (0u64, Vec::new());
    for _ in 0..30 {
        worker.start().unwrap();
        for _ in 0..random.between(0, 5) {
            let count = random.between(1, 1000);
            counted(&active, given..given + count);
            given += count;
        }
        worker.stop();
        let (reason, counts) = worker.wait(Some(LIMIT)).unwrap();
        assert_eq!(reason, WorkerReason::Stopped);
        let came = [drained(&finished), drained(&spawn)].concat();
        assert_eq!(counts.processed, came.len() as u64);
        moved.extend(came.iter().map(|n| n.checked_sub(1 << 24).expect("counted up")));
    }
    moved.extend(drained(&active));
    moved.sort_unstable();
    assert_eq!(moved, (0..given).collect::<Vec<_>>(), "each once");
}

/// A run over many slices is the same run; a paused worker does nothing, and goes on.
#[test]
fn slices_and_pauses() {
    let _budget = some_of_the_budget();
    let context = context();
    let [active, finished] = [(); 2].map(|()| queue(&context, 1 << 12, 4));
    let options = WorkerOptions {
        grid_blocks: 2,
        increment: 1,
        slice: Some(Duration::from_micros(200)),
        ..Default::default()
    };
    let worker = Worker::new(&active, Some(&finished), None, &options).unwrap();
    assert_eq!(worker.info().state, WorkerState::Ready);
    worker.start().unwrap();
    counted(&active, 0..500);
    until(|| "items are finished", || finished.info().unwrap().size == 500);
    until(|| "several slices", || worker.info().counts.slices > 3);
    until(|| "a heartbeat", || worker.info().heartbeat != 0);
    worker.pause().unwrap();
    until(|| "a pause", || worker.info().state == WorkerState::Paused);
    let paused = worker.info();
    assert_eq!((paused.counts.processed, paused.heartbeat), (500, 0));
    counted(&active, 500..600);
    stays_out("a paused worker works", || active.info().unwrap().size != 100);
    worker.resume().unwrap();
    until(|| "items are finished", || finished.info().unwrap().size == 600);
    worker.stop();
    let (reason, counts) = worker.wait(Some(LIMIT)).unwrap();
    assert_eq!(
        (reason, counts.processed, counts.finished, counts.spawned),
        (WorkerReason::Stopped, 600, 600, 0)
    );
    assert!(counts.slices > paused.counts.slices);
    assert_eq!(drained(&finished), model(0..600, 1, 0).0);
}

/// Stopped while it starts, started again, started twice, and what makes no sense.
#[test]
fn starts_and_stops_in_any_order() {
    let _budget = some_of_the_budget();
    let context = context();
    let [active, finished] = [(); 2].map(|()| queue(&context, 64, 4));
    let worker = Worker::new(&active, Some(&finished), None, &WorkerOptions::default()).unwrap();
    let status = |result: Result<()>| result.map_err(|error| error.status());
    assert_eq!(status(worker.wait(None).map(|_| ())), Err(GMB_ERROR_INVALID_ARGUMENT));
    worker.stop();
    assert_eq!(status(worker.pause()), Err(GMB_ERROR_INVALID_ARGUMENT));
    assert_eq!(status(worker.resume()), Err(GMB_ERROR_INVALID_ARGUMENT));
    for round in 0..50 {
        worker.start().unwrap();
        if round % 3 == 0 {
            assert_eq!(status(worker.start()), Err(GMB_ERROR_BUSY));
        }
        if round % 3 == 1 {
            worker.pause().unwrap();
        }
        if round % 2 == 0 {
            let early = worker.wait(Some(Duration::ZERO)).map(|_| ());
            assert_eq!(status(early), Err(GMB_ERROR_TIMEOUT));
        }
        worker.stop();
        assert_eq!(worker.wait(Some(LIMIT)).unwrap().0, WorkerReason::Stopped);
    }
    // Dropped while it runs, it is stopped.
    worker.start().unwrap();
    drop(worker);
    assert_eq!(active.info().unwrap().workers, 0);
}

/// Workers hold so much of the device and no more, all of them together.
#[test]
fn residency_has_a_budget() {
    let _budget = all_of_the_budget();
    let context = context();
    let queues: Vec<_> = (0..4).map(|_| queue(&context, 64, 4)).collect();
    let of = |n: usize, grid_blocks| {
        let options = WorkerOptions { grid_blocks, ..Default::default() };
        Worker::new(&queues[n], None, None, &options)
    };
    let most = of(0, 1).unwrap().info().most_blocks;
    assert!(most >= 32);
    let refused = of(0, most + 1).unwrap_err();
    assert_eq!(refused.status(), GMB_ERROR_INVALID_ARGUMENT);
    assert!(refused.message().contains(&format!("that is {most}")), "{}", refused.message());
    // One block more than the budget is one too many.
    let (all, one) = (of(0, most).unwrap(), of(1, 1).unwrap());
    one.start().unwrap();
    assert_eq!(all.start().unwrap_err().status(), GMB_ERROR_BUSY);
    one.stop();
    one.wait(Some(LIMIT)).unwrap();
    drop((all, one));
    let (large, half, rest) = (of(0, most).unwrap(), of(1, most / 2).unwrap(), of(2, most / 2).unwrap());
    half.start().unwrap();
    let refused = large.start().unwrap_err();
    assert_eq!(refused.status(), GMB_ERROR_BUSY, "{}", refused.message());
    rest.start().unwrap();
    assert_eq!(of(3, most / 8).unwrap().start().unwrap_err().status(), GMB_ERROR_BUSY);
    for worker in [&half, &rest] {
        worker.stop();
        worker.wait(Some(LIMIT)).unwrap();
    }
    large.start().unwrap();
    large.stop();
    large.wait(Some(LIMIT)).unwrap();
    let little =
        Context::new(&ContextOptions { backend: backend(), resident_percent: 1, ..Default::default() });
    let few = queue(&little.unwrap(), 64, 4);
    let options = WorkerOptions { grid_blocks: most, ..Default::default() };
    assert_eq!(Worker::new(&few, None, None, &options).unwrap_err().status(), GMB_ERROR_INVALID_ARGUMENT);
    let percent = ContextOptions { backend: backend(), resident_percent: 101, ..Default::default() };
    assert_eq!(Context::new(&percent).unwrap_err().status(), GMB_ERROR_INVALID_ARGUMENT);
}

#[test]
fn queues_that_do_not_fit_together() {
    let context = context();
    let (narrow, other, wide) = (queue(&context, 64, 4), queue(&context, 64, 4), queue(&context, 64, 8));
    let elsewhere = super::support::context();
    let foreign = queue(&elsewhere, 64, 4);
    let plain = WorkerOptions::default();
    for (finished, spawn, options, names) in [
        (Some(&wide), None, plain, "finished has items of 8 bytes"),
        (Some(&other), Some(&wide), plain, "spawn has items of 8 bytes"),
        (Some(&narrow), None, plain, "finished is active itself"),
        (Some(&other), Some(&other), plain, "finished and spawn are the same"),
        (Some(&foreign), None, plain, "finished is of another context"),
        (Some(&other), None, WorkerOptions { spawn_interval: 2, ..plain }, "no queue spawn"),
        (Some(&other), None, WorkerOptions { block_threads: 100, ..plain }, "block_threads 100"),
        (Some(&other), None, WorkerOptions { grid_blocks: u32::MAX, ..plain }, "grid_blocks 4294967295"),
    ] {
        let refused = Worker::new(&narrow, finished, spawn, &options).unwrap_err();
        assert_eq!(refused.status(), GMB_ERROR_INVALID_ARGUMENT);
        assert!(refused.message().contains(names), "{}", refused.message());
    }
    assert_eq!(narrow.info().unwrap().workers, 0);
}

/// A queue in C cannot be destroyed under a worker.
#[test]
fn a_queue_with_a_worker_on_it_stays() {
    let _budget = some_of_the_budget();
    use capi::queue::*;
    use capi::worker::*;
    let context = c_context(0);
    let options = gmb_queue_options {
        struct_size: size_of::<gmb_queue_options>() as u32,
        item_bytes: 4,
        capacity: 64,
        block_threads: 0,
        max_blocks: 0,
        reserved: 0,
    };
    let [mut active, mut finished] = [gmb_queue { id: 0 }; 2];
    assert_eq!(gmb_queue_create(context, &options, &mut active), GMB_OK);
    assert_eq!(gmb_queue_create(context, &options, &mut finished), GMB_OK);
    let options = gmb_worker_options {
        struct_size: size_of::<gmb_worker_options>() as u32,
        block_threads: 0,
        active,
        finished,
        spawn: gmb_queue { id: 0 },
        max_iterations: 0,
        idle_threshold: 0,
        spawn_interval: 0,
        increment: 1,
        grid_blocks: 0,
        reserved: 0,
        slice_ns: 0,
        watchdog_ns: 0,
        function: std::ptr::null(),
        user: std::ptr::null_mut(),
        doorbell: capi::doorbell::gmb_doorbell { id: 0 },
    };
    let mut worker = gmb_worker { id: 0 };
    assert_eq!(gmb_worker_create(&options, &mut worker), GMB_OK);
    assert_eq!(gmb_worker_start(worker), GMB_OK);
    assert_eq!(gmb_queue_destroy(active), GMB_ERROR_BUSY);
    assert_eq!(gmb_queue_destroy(finished), GMB_ERROR_BUSY);
    let (mut popped, item) = (0, 41u32);
    assert_eq!(gmb_queue_push_from_host_blocking(active, (&raw const item).cast(), 1, &mut popped), GMB_OK);
    let mut out = 0u32;
    until(
        || "the worker goes on",
        || {
            assert_eq!(
                gmb_queue_pop_to_host_blocking(finished, (&raw mut out).cast(), 1, &mut popped),
                GMB_OK
            );
            popped == 1
        },
    );
    assert_eq!(out, 42);
    assert_eq!(gmb_worker_destroy(worker), GMB_OK);
    assert_eq!(gmb_queue_destroy(active), GMB_OK);
    assert_eq!(gmb_queue_destroy(finished), GMB_OK);
    assert_eq!(capi::context::gmb_context_destroy(context), GMB_OK);
}

/// What needs the device to itself goes on beside several kernels that stay: memory is freed, modules are loaded and unloaded.
#[test]
fn others_go_on_beside_workers() {
    let _budget = some_of_the_budget();
    let context = context();
    let [active, finished, other] = [(); 3].map(|()| queue(&context, 1 << 10, 4));
    let watched = mailbox(&context, 16, 16);
    let options = WorkerOptions { grid_blocks: 4, increment: 1, ..Default::default() };
    let worker = Worker::new(&active, Some(&finished), None, &options).unwrap();
    let second = Worker::new(&other, None, None, &WorkerOptions { grid_blocks: 1, ..options }).unwrap();
    worker.start().unwrap();
    until(|| "it comes", || worker.info().heartbeat != 0);
    // These come later, and leave with it.
    second.start().unwrap();
    until(|| "the second one comes", || second.info().heartbeat != 0);
    let arbitrated = Arbitrated { mailbox: &watched, reader: 0, class: Class::Focus };
    let arbiter = Arbiter::new(&context, &[arbitrated], None).unwrap();
    until(|| "the arbiter comes", || arbiter.info().unwrap().heartbeat != 0);
    for n in 0..3 {
        drop(poisoned(&context, 1 << 20, n));
        let another = super::support::context();
        let mailbox = mailbox(&another, 16, 16);
        assert_eq!(mailbox.info().unwrap().published, 0);
        counted(&active, u64::from(n) * 10..u64::from(n) * 10 + 10);
        counted(&other, 0..10);
    }
    context.device_buffer(1 << 20).unwrap();
    until(|| "items are finished", || finished.info().unwrap().size == 30);
    until(|| "several slices", || arbiter.info().unwrap().slices > 2);
    for worker in [&worker, &second] {
        worker.stop();
        assert_eq!(worker.wait(Some(LIMIT)).unwrap().1.processed, 30);
    }
    assert_eq!(drained(&finished), (1..31).collect::<Vec<_>>());
}

/// Streams push to a worker's queue and pop from it while it works.
#[test]
fn launches_beside_a_worker() {
    let _budget = some_of_the_budget();
    let context = context();
    let [active, finished] = [(); 2].map(|()| queue(&context, 1 << 10, 8));
    let options = WorkerOptions { grid_blocks: 3, increment: 1, ..Default::default() };
    let worker = Worker::new(&active, Some(&finished), None, &options).unwrap();
    worker.start().unwrap();
    let ([push, pop], [pushed, popped]) = (streams(&context), tokens(&context));
    let (mut sent, mut came) = (0u64, Vec::new());
    let out = poisoned(&context, 8 << 10, POISON);
    until(
        || "all items come",
        || {
            if sent < 20_000 {
                let given = items(sent..(sent + 700).min(20_000), 8);
                let from = upload(&context, &given);
                unsafe {
                    active.push(from.address(), (given.len() / 8) as u32, push.get(), Some(&pushed)).unwrap()
                };
                sent += u64::from(pushed.wait(After::Submission, Some(LIMIT)).unwrap().count);
            }
            unsafe { finished.pop(out.address(), 1 << 10, pop.get(), Some(&popped)).unwrap() };
            let count = popped.wait(After::Submission, Some(LIMIT)).unwrap().count as usize;
            came.extend(plain(&download(&context, out.address(), count * 8), 8));
            came.len() == 20_000
        },
    );
    drop(worker);
    came.sort_unstable();
    assert_eq!(came, (1..20_001).collect::<Vec<_>>());
    assert_eq!(numbers(&items(0..3, 8), 8), [0, 1, 2]);
}
