//! Commands to running workers, and records from the device to the host.

use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use super::queues::queue;
use super::support::*;
use super::workers::counted;
use gpumailbox::*;

const NOW: Option<Duration> = Some(Duration::ZERO);

fn ping(n: u64) -> gmb_command {
    gmb_command { code: GMB_COMMAND_PING, flags: 0, argument: [n, !n, n.rotate_left(32)] }
}

fn pong(n: u64) -> gmb_answer {
    gmb_answer { status: GMB_OK, flags: 0, value: [n, !n, n.rotate_left(32)] }
}

/// A worker that serves a doorbell, with nothing else to do.
fn served<'a>(active: &Queue, doorbell: &'a Doorbell, options: WorkerOptions<'a>) -> Worker {
    Worker::new(active, None, None, &WorkerOptions { doorbell: Some(doorbell), ..options }).unwrap()
}

fn status<T>(result: Result<T>) -> gmb_status {
    result.map(|_| GMB_OK).unwrap_or_else(|error| error.status())
}

/// Whether a descriptor becomes readable in time.
fn readable(watch: &Watch, milliseconds: i32) -> bool {
    let mut waiting = libc::pollfd { fd: watch.as_fd().as_raw_fd(), events: libc::POLLIN, revents: 0 };
    unsafe { libc::poll(&raw mut waiting, 1, milliseconds) == 1 }
}

fn write_word(context: &Context, address: u64, value: u64) {
    let stream = context.stream().unwrap();
    unsafe { context.copy(address, std::ptr::from_ref(&value) as u64, 8, stream.get()).unwrap() };
    context.synchronize(stream.get()).unwrap();
}

fn read_word(context: &Context, address: u64) -> u64 {
    let (stream, mut value) = (context.stream().unwrap(), 0u64);
    unsafe { context.copy((&raw mut value) as u64, address, 8, stream.get()).unwrap() };
    context.synchronize(stream.get()).unwrap();
    value
}

/// Each command has its own answer, whoever asks in whatever order, over many slices.
#[test]
fn every_command_is_answered_once() {
    let _budget = some_of_the_budget();
    let (context, mut random) = (context(), Random::new());
    let active = queue(&context, 64, 4);
    let doorbell = Doorbell::new(&context, 16).unwrap();
    let worker = served(
        &active,
        &doorbell,
        WorkerOptions { slice: Some(Duration::from_millis(3)), ..Default::default() },
    );
    worker.start().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let doorbell = &doorbell;
            let mut random = random.split();
            scope.spawn(move || {
                let mut out: Vec<(CommandId, u64)> = Vec::new();
                for n in 0..3000 {
                    // Three at most, so that no thread waits for room that it holds itself.
                    if out.len() == 3 || (!out.is_empty() && random.between(0, 1) == 0) {
                        let (id, n) = out.swap_remove(random.between(0, out.len() as u64 - 1) as usize);
                        assert_eq!(doorbell.wait(id, Some(LIMIT)).unwrap(), pong(n));
                        assert_eq!(status(doorbell.wait(id, NOW)), GMB_ERROR_INVALID_ARGUMENT);
                    }
                    let n = thread << 32 | n;
                    out.push((doorbell.submit(&ping(n), Some(LIMIT)).unwrap(), n));
                }
                for (id, n) in out {
                    assert_eq!(doorbell.wait(id, Some(LIMIT)).unwrap(), pong(n));
                }
            });
        }
    });
    let info = doorbell.info();
    assert_eq!((info.submitted, info.outstanding, info.served), (12000, 0, true));
    worker.stop();
    assert_eq!(worker.wait(Some(LIMIT)).unwrap().0, WorkerReason::Stopped);
}

/// A worker that has work to do answers, too, and tells how far it is.
#[test]
fn a_busy_worker_answers() {
    let _budget = some_of_the_budget();
    let context = context();
    let [active, finished] = [(); 2].map(|()| queue(&context, 1 << 12, 8));
    let doorbell = Doorbell::new(&context, 4).unwrap();
    let options =
        WorkerOptions { doorbell: Some(&doorbell), grid_blocks: 3, increment: 1, ..Default::default() };
    let worker = Worker::new(&active, Some(&finished), None, &options).unwrap();
    worker.start().unwrap();
    counted(&active, 0..1000);
    until(|| "items are finished", || finished.info().unwrap().size == 1000);
    let counts = gmb_command { code: GMB_COMMAND_COUNTS, ..Default::default() };
    until(
        || "the counts are told",
        || {
            doorbell.call(&counts, Some(LIMIT)).unwrap()
                == gmb_answer { value: [1000, 1000, 0], ..Default::default() }
        },
    );
    for code in [0, 3, GMB_COMMAND_USER, u32::MAX] {
        let answer = doorbell.call(&gmb_command { code, ..Default::default() }, Some(LIMIT)).unwrap();
        assert_eq!(answer.status, GMB_ERROR_NOT_SUPPORTED, "{code}");
    }
    // It ends as if there were no doorbell.
    worker.stop();
    worker.wait(Some(LIMIT)).unwrap();
    let idle = WorkerOptions { idle_threshold: 100, ..options };
    drop(worker);
    let worker = Worker::new(&active, Some(&finished), None, &idle).unwrap();
    counted(&active, 0..10);
    let (reason, counts) = super::workers::run(&worker);
    assert_eq!((reason, counts.processed, counts.finished), (WorkerReason::Idle, 10, 10));
}

/// As many as there is room for, and no more, until answers are collected.
#[test]
fn a_full_doorbell_says_so() {
    let _budget = some_of_the_budget();
    let context = context();
    let active = queue(&context, 64, 4);
    let doorbell = Doorbell::new(&context, 4).unwrap();
    let ids: Vec<_> = (0..4).map(|n| doorbell.submit(&ping(n), NOW).unwrap()).collect();
    assert_eq!(status(doorbell.submit(&ping(4), NOW)), GMB_ERROR_FULL);
    assert_eq!(status(doorbell.submit(&ping(4), Some(Duration::from_millis(2)))), GMB_ERROR_FULL);
    assert_eq!(status(doorbell.wait(ids[0], Some(Duration::from_millis(2)))), GMB_ERROR_TIMEOUT);
    assert_eq!(doorbell.info().outstanding, 4);
    let worker = served(&active, &doorbell, WorkerOptions::default());
    worker.start().unwrap();
    // Answered, and not collected, it counts; in whatever order they are collected, there is room for another one.
    assert_eq!(doorbell.wait(ids[3], Some(LIMIT)).unwrap(), pong(3));
    let fifth = doorbell.submit(&ping(4), NOW).unwrap();
    assert_eq!(status(doorbell.submit(&ping(5), NOW)), GMB_ERROR_FULL);
    assert_eq!(doorbell.wait(fifth, Some(LIMIT)).unwrap(), pong(4));
    assert_eq!(doorbell.wait(ids[0], NOW).unwrap(), pong(0));
    assert_eq!(status(doorbell.wait(ids[0], NOW)), GMB_ERROR_INVALID_ARGUMENT);
    // What nobody asks for makes room by itself.
    for (n, id) in ids.iter().enumerate().take(3).skip(1) {
        assert_eq!(doorbell.wait(*id, Some(LIMIT)).unwrap(), pong(n as u64));
    }
    for n in 0..1000 {
        doorbell.post(&ping(n), Some(LIMIT)).unwrap();
    }
    assert_eq!(doorbell.call(&ping(7), Some(LIMIT)).unwrap(), pong(7));
    // Of a wanted one that is forgotten so does the answer, also when its place is the last that there is.
    let ids: Vec<_> = (0..4).map(|n| doorbell.submit(&ping(n), Some(LIMIT)).unwrap()).collect();
    let watch = doorbell.watch().unwrap();
    watch.arm(4).unwrap();
    assert!(readable(&watch, -1));
    doorbell.forget(ids[2]).unwrap();
    assert_eq!(status(doorbell.wait(ids[2], NOW)), GMB_ERROR_INVALID_ARGUMENT);
    assert_eq!(status(doorbell.forget(ids[2])), GMB_ERROR_INVALID_ARGUMENT);
    let fifth = doorbell.submit(&ping(4), NOW).unwrap();
    for (id, n) in [(ids[0], 0), (ids[1], 1), (ids[3], 3), (fifth, 4)] {
        assert_eq!(doorbell.wait(id, Some(LIMIT)).unwrap(), pong(n));
    }
    assert_eq!(doorbell.info().outstanding, 0);
    worker.stop();
    worker.wait(Some(LIMIT)).unwrap();
    let timeout = Some(Duration::from_millis(2));
    assert_eq!(status(doorbell.call(&ping(1), timeout)), GMB_ERROR_TIMEOUT);
    worker.start().unwrap();
    assert_eq!(doorbell.call(&ping(2), Some(LIMIT)).unwrap(), pong(2));
}

/// One that was cancelled in time is not done, the others are.
#[test]
fn cancelled_commands() {
    let _budget = some_of_the_budget();
    let context = context();
    let active = queue(&context, 64, 4);
    let doorbell = Doorbell::new(&context, 8).unwrap();
    let ids: Vec<_> = (0..6).map(|n| doorbell.submit(&ping(n), NOW).unwrap()).collect();
    for at in [0, 3, 5] {
        doorbell.cancel(ids[at]).unwrap();
    }
    let worker = served(&active, &doorbell, WorkerOptions::default());
    worker.start().unwrap();
    for (n, &id) in ids.iter().enumerate() {
        let answer = doorbell.wait(id, Some(LIMIT)).unwrap();
        match n {
            0 | 3 | 5 => assert_eq!((answer.status, answer.value), (GMB_ERROR_CANCELLED, [0; 3])),
            _ => assert_eq!(answer, pong(n as u64)),
        }
        assert_eq!(status(doorbell.cancel(id)), GMB_ERROR_INVALID_ARGUMENT);
    }
    // Too late is no error, and changes nothing.
    let id = doorbell.submit(&ping(9), NOW).unwrap();
    let watch = doorbell.watch().unwrap();
    watch.arm(1).unwrap();
    assert!(readable(&watch, -1));
    doorbell.cancel(id).unwrap();
    assert_eq!(doorbell.wait(id, NOW).unwrap(), pong(9));
}

/// A kernel answers in any order: what nobody wants makes room wherever it lies, once the next command has a place.
#[test]
fn room_is_found_wherever_it_is() {
    let context = context();
    let doorbell = Doorbell::new(&context, 4).unwrap();
    let answers = read_word(&context, doorbell.info().doorbell + 24);
    let answer = |index: u64| {
        for word in 0..8 {
            write_word(&context, answers + (index % 4 * 8 + word) * 8, (index / 4 + 1) << 32);
        }
    };
    let none = gmb_answer::default();
    let first = doorbell.submit(&ping(0), NOW).unwrap();
    for n in 1..4 {
        doorbell.post(&ping(n), NOW).unwrap();
    }
    answer(2);
    // Its place is not the next one.
    assert_eq!(status(doorbell.submit(&ping(4), NOW)), GMB_ERROR_FULL);
    answer(0);
    // The first one's is, and keeps its answer; the third one's makes the room.
    let fifth = doorbell.submit(&ping(4), NOW).unwrap();
    assert_eq!(doorbell.info().outstanding, 4);
    assert_eq!(doorbell.wait(first, NOW).unwrap(), none);
    assert_eq!(status(doorbell.post(&ping(5), NOW)), GMB_ERROR_FULL);
    answer(1);
    doorbell.post(&ping(5), NOW).unwrap();
    // In their order it is the same.
    for index in 3..6 {
        answer(index);
    }
    doorbell.forget(fifth).unwrap();
    for n in 6..10 {
        doorbell.post(&ping(n), NOW).unwrap();
    }
    assert_eq!(status(doorbell.post(&ping(10), NOW)), GMB_ERROR_FULL);
    assert_eq!(doorbell.info().outstanding, 4);
}

/// Commands that a worker leaves are answered when it has ended; those that come later wait for the next run.
#[test]
fn a_worker_that_is_gone() {
    let _budget = some_of_the_budget();
    let context = context();
    let active = queue(&context, 64, 4);
    let doorbell = Doorbell::new(&context, 4).unwrap();
    let worker = served(&active, &doorbell, WorkerOptions::default());
    for round in 0..20u64 {
        // Before it is there, and while it goes.
        let ids: Vec<_> = (0..2).map(|n| doorbell.submit(&ping(n), NOW).unwrap()).collect();
        worker.start().unwrap();
        if round % 2 == 0 {
            assert_eq!(doorbell.wait(ids[1], Some(LIMIT)).unwrap(), pong(1));
        }
        worker.stop();
        let last = doorbell.submit(&ping(2), Some(LIMIT)).unwrap();
        assert_eq!(worker.wait(Some(LIMIT)).unwrap().0, WorkerReason::Stopped);
        let late = doorbell.info().outstanding;
        let answer = doorbell.wait(ids[0], Some(LIMIT)).unwrap();
        assert!(answer == pong(0) || (answer.status == GMB_ERROR_NOT_SERVED && round % 2 == 1), "{answer:?}");
        if round % 2 == 1 {
            let answer = doorbell.wait(ids[1], Some(LIMIT)).unwrap();
            assert!(answer == pong(1) || answer.status == GMB_ERROR_NOT_SERVED);
        }
        let answer = match doorbell.wait(last, NOW) {
            Ok(answer) => answer,
            // It came when all others were answered already.
            Err(error) => {
                assert_eq!((error.status(), late), (GMB_ERROR_TIMEOUT, if round % 2 == 0 { 2 } else { 3 }));
                worker.start().unwrap();
                let answer = doorbell.wait(last, Some(LIMIT)).unwrap();
                worker.stop();
                worker.wait(Some(LIMIT)).unwrap();
                answer
            }
        };
        assert!(answer == pong(2) || answer.status == GMB_ERROR_NOT_SERVED);
        assert_eq!(doorbell.info().outstanding, 0);
    }
}

/// What something else wrote into the rings is told, on both sides.
#[test]
fn what_was_spoilt_is_told() {
    let _budget = some_of_the_budget();
    let context = context();
    let active = queue(&context, 64, 4);
    for ring in [16, 24] {
        let doorbell = Doorbell::new(&context, 2).unwrap();
        let words = read_word(&context, doorbell.info().doorbell + ring);
        let worker = served(&active, &doorbell, WorkerOptions::default());
        let id = doorbell.submit(&ping(1), NOW).unwrap();
        write_word(&context, words + 8, 77 << 32);
        worker.start().unwrap();
        if ring == 16 {
            assert_eq!(status(worker.wait(Some(LIMIT))), GMB_ERROR_CORRUPT);
            assert_eq!(doorbell.wait(id, Some(LIMIT)).unwrap().status, GMB_ERROR_NOT_SERVED);
        } else {
            // Its answer may have come after that, and be whole.
            let answer = doorbell.wait(id, Some(LIMIT));
            assert!(
                answer.as_ref().is_ok_and(|answer| *answer == pong(1)) || status(answer) == GMB_ERROR_CORRUPT
            );
            worker.stop();
            worker.wait(Some(LIMIT)).unwrap();
        }
    }
    // Something that is no doorbell.
    let doorbell = Doorbell::new(&context, 2).unwrap();
    write_word(&context, doorbell.info().doorbell, 1);
    let worker = served(&active, &doorbell, WorkerOptions::default());
    worker.start().unwrap();
    assert_eq!(status(worker.wait(Some(LIMIT))), GMB_ERROR_CORRUPT);
}

/// What makes no sense is refused, and changes nothing.
#[test]
fn what_is_refused() {
    let _budget = some_of_the_budget();
    let (context, other) = (context(), super::support::context());
    for (capacity, expected) in [
        (0, GMB_ERROR_INVALID_ARGUMENT),
        (3, GMB_ERROR_INVALID_ARGUMENT),
        (1 << 21, GMB_ERROR_OVERFLOW),
        (1 << 40, GMB_ERROR_OVERFLOW),
    ] {
        assert_eq!(status(Doorbell::new(&context, capacity)), expected, "{capacity}");
        assert_eq!(status(Fifo::new(&context, capacity)), expected, "{capacity}");
    }
    let doorbell = Doorbell::new(&context, 2).unwrap();
    let flagged = gmb_command { flags: GMB_COMMAND_CANCELLED, ..ping(1) };
    assert_eq!(status(doorbell.submit(&flagged, NOW)), GMB_ERROR_INVALID_ARGUMENT);
    let id = doorbell.submit(&ping(1), NOW).unwrap();
    let elsewhere = Doorbell::new(&context, 2).unwrap();
    assert_eq!(status(elsewhere.wait(id, NOW)), GMB_ERROR_INVALID_ARGUMENT);
    assert_eq!(status(elsewhere.cancel(id)), GMB_ERROR_INVALID_ARGUMENT);
    let watch = doorbell.watch().unwrap();
    for (count, expected) in [(0, GMB_ERROR_ZERO_COUNT), (3, GMB_ERROR_INVALID_ARGUMENT), (2, GMB_OK)] {
        assert_eq!(status(watch.arm(count)), expected);
    }
    assert!(!readable(&watch, 5));
    let [active, foreign] = [&context, &other].map(|context| queue(context, 64, 4));
    let options = WorkerOptions { doorbell: Some(&doorbell), ..Default::default() };
    assert_eq!(status(Worker::new(&foreign, None, None, &options)), GMB_ERROR_INVALID_ARGUMENT);
    let worker = Worker::new(&active, None, None, &options).unwrap();
    assert_eq!(status(Worker::new(&active, None, None, &options)), GMB_ERROR_BUSY);
    // The block that serves counts, too.
    let most = worker.info().most_blocks;
    drop(worker);
    let whole = WorkerOptions { grid_blocks: most, ..options };
    let refused = Worker::new(&active, None, None, &whole).unwrap_err();
    assert_eq!(refused.status(), GMB_ERROR_INVALID_ARGUMENT);
    // The number is the one that was given.
    let told = format!("grid_blocks {most}, and one more for the doorbell: ");
    assert!(refused.message().starts_with(&told), "{}", refused.message());
    Worker::new(&active, None, None, &WorkerOptions { grid_blocks: most - 1, ..options }).unwrap();
    assert_eq!(doorbell.info().outstanding, 1);
}

/// Destroyed with commands under way: who waits hears of it; not while a worker serves it.
#[test]
fn destroyed_with_commands_under_way() {
    use capi::doorbell::*;
    let context = c_context(0);
    let options = gmb_doorbell_options {
        struct_size: size_of::<gmb_doorbell_options>() as u32,
        reserved: 0,
        capacity: 4,
    };
    let mut bell = gmb_doorbell { id: 0 };
    assert_eq!(gmb_doorbell_create(context, &options, &mut bell), GMB_OK);
    let mut ids = [gmb_command_id { id: 0 }; 4];
    for id in &mut ids {
        assert_eq!(gmb_doorbell_submit(bell, &ping(1), 0, id), GMB_OK);
    }
    let waiting = std::thread::spawn(move || {
        let mut answer = gmb_answer::default();
        gmb_doorbell_wait(bell, ids[2], u64::MAX, &mut answer)
    });
    let pushing = std::thread::spawn(move || {
        let mut id = gmb_command_id { id: 0 };
        gmb_doorbell_submit(bell, &ping(2), u64::MAX, &mut id)
    });
    assert_eq!(gmb_doorbell_destroy(bell), GMB_OK);
    assert_eq!(waiting.join().unwrap(), GMB_ERROR_INVALID_HANDLE);
    assert_eq!(pushing.join().unwrap(), GMB_ERROR_INVALID_HANDLE);
    assert_eq!(gmb_doorbell_destroy(bell), GMB_ERROR_INVALID_HANDLE);
    assert_eq!(capi::context::gmb_context_destroy(context), GMB_OK);
}

fn records(from: u64, count: u64) -> Vec<u64> {
    (from..from + count).flat_map(|n| [n, !n]).collect()
}

/// Pushes numbered records from device memory.
fn push(context: &Context, fifo: &Fifo, from: u64, count: u64, token: &Token) -> gmb_result {
    let (stream, rows) = (context.stream().unwrap(), records(from, count));
    let memory = context.device_buffer(rows.len() * 8).unwrap();
    unsafe {
        context.copy(memory.address(), rows.as_ptr() as u64, rows.len() * 8, stream.get()).unwrap();
        fifo.push(memory.address(), count as u32, stream.get(), Some(token)).unwrap();
    }
    context.synchronize(stream.get()).unwrap();
    token.wait(After::Submission, Some(LIMIT)).unwrap()
}

fn pop(fifo: &Fifo, max: usize) -> Vec<gmb_fifo_record> {
    let mut into = vec![gmb_fifo_record { word: [POISON; 2] }; max];
    let count = fifo.pop(&mut into, NOW).unwrap();
    assert!(into[count..].iter().all(|record| record.word == [POISON; 2]));
    into.truncate(count);
    into
}

const POISON: u64 = 0xa5a5_a5a5_a5a5_a5a5;

/// A FIFO does as a list does, through many rounds of its ring.
#[test]
fn a_fifo_does_as_a_list() {
    let (context, mut random) = (context(), Random::new());
    let (fifo, token) = (Fifo::new(&context, 64).unwrap(), Token::new(&context).unwrap());
    let (mut pushed, mut popped) = (0u64, 0u64);
    for _ in 0..400 {
        let count = random.between(1, 80);
        if random.between(0, 1) == 0 {
            let fits = count.min(64 - (pushed - popped));
            let result = push(&context, &fifo, pushed, count, &token);
            assert_eq!((result.status, u64::from(result.count)), (GMB_OK, fits));
            assert_eq!(result.flags & GMB_RESULT_PARTIAL != 0, fits < count);
            pushed += fits;
        } else {
            for record in pop(&fifo, count as usize) {
                assert_eq!(record.word, [popped, !popped]);
                popped += 1;
            }
            assert!(popped == pushed || count < 80);
        }
    }
    while popped < pushed {
        popped += pop(&fifo, 7).len() as u64;
    }
    assert_eq!(fifo.info().drained, pushed);
}

/// Launches on several streams push while the host drains: each record once, those of a launch in their order.
#[test]
fn many_producers_of_a_fifo() {
    let context = context();
    let fifo = Fifo::new(&context, 256).unwrap();
    const EACH: u64 = 6000;
    std::thread::scope(|scope| {
        for producer in 0..3u64 {
            let (context, fifo) = (&context, &fifo);
            scope.spawn(move || {
                let token = Token::new(context).unwrap();
                let mut sent = 0;
                while sent < EACH {
                    let count = (EACH - sent).min(100);
                    sent += u64::from(push(context, fifo, producer << 32 | sent, count, &token).count);
                }
            });
        }
        let mut next = [0u64; 3];
        while next.iter().sum::<u64>() < 3 * EACH {
            let mut into = [gmb_fifo_record::default(); 50];
            let count = fifo.pop(&mut into, Some(LIMIT)).unwrap();
            assert!(count > 0, "nothing came in time: {next:?}");
            for record in &into[..count] {
                let (producer, n) = ((record.word[0] >> 32) as usize, record.word[0] & 0xffff_ffff);
                assert_eq!((n, record.word[1]), (next[producer], !record.word[0]));
                next[producer] += 1;
            }
        }
    });
    assert!(pop(&fifo, 1).is_empty());
}

/// A descriptor tells of records; what was spoilt is told, after what came before it.
#[test]
fn a_fifo_is_watched_and_spoilt() {
    let context = context();
    let (fifo, token) = (Fifo::new(&context, 8).unwrap(), Token::new(&context).unwrap());
    let watch = fifo.watch().unwrap();
    assert_eq!(status(watch.arm(9)), GMB_ERROR_INVALID_ARGUMENT);
    watch.arm(3).unwrap();
    push(&context, &fifo, 0, 2, &token);
    assert!(!readable(&watch, 5));
    push(&context, &fifo, 2, 1, &token);
    assert!(readable(&watch, -1));
    let ring = read_word(&context, fifo.info().fifo + 16);
    write_word(&context, ring + 2 * 32 + 8, 99 << 32);
    assert_eq!(pop(&fifo, 8).len(), 2);
    assert_eq!(status(fifo.pop(&mut [gmb_fifo_record::default()], NOW)), GMB_ERROR_CORRUPT);
    assert_eq!(status(fifo.pop(&mut [], NOW)), GMB_ERROR_ZERO_COUNT);
    write_word(&context, fifo.info().fifo, 1);
    assert_eq!(push(&context, &fifo, 3, 1, &token).status, GMB_ERROR_BAD_MAGIC);
}
