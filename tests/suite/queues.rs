//! Work queues: launches on streams, items from and to host memory, graphs.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use super::support::*;
use gpumailbox::*;

pub fn queue(context: &Context, capacity: u64, item_bytes: u32) -> Queue {
    Queue::new(context, &QueueOptions { capacity, item_bytes, ..Default::default() }).unwrap()
}

/// Items that say which they are, in all of their bytes.
pub fn items(numbers: impl Iterator<Item = u64>, bytes: u32) -> Vec<u8> {
    numbers.flat_map(|n| item(n, bytes)).collect()
}

pub fn item(n: u64, bytes: u32) -> Vec<u8> {
    let wide = u128::from(n) | u128::from(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) << 64;
    wide.to_le_bytes()[..bytes as usize].to_vec()
}

/// The numbers in their first bytes; the rest must fit.
pub fn numbers(from: &[u8], bytes: u32) -> Vec<u64> {
    from.chunks_exact(bytes as usize)
        .map(|one| {
            let mut low = [0u8; 8];
            low[..one.len().min(8)].copy_from_slice(&one[..one.len().min(8)]);
            let n = u64::from_le_bytes(low);
            assert_eq!(one, item(n, bytes), "an item is whole");
            n
        })
        .collect()
}

fn push(queue: &Queue, given: &[u8], stream: Stream, token: &Token) -> u32 {
    let from = upload(queue.context(), given);
    let count = (given.len() / queue.info().unwrap().item_bytes as usize) as u32;
    unsafe { queue.push(from.address(), count, stream, Some(token)).unwrap() };
    let result = token.wait(After::Submission, Some(LIMIT)).unwrap();
    assert_eq!(result.status, GMB_OK);
    assert_eq!(result.flags & GMB_RESULT_PARTIAL != 0, result.count < count);
    result.count
}

fn pop(queue: &Queue, max: u32, stream: Stream, token: &Token) -> Vec<u8> {
    let bytes = queue.info().unwrap().item_bytes as usize;
    let to = poisoned(queue.context(), (max as usize + 1) * bytes, POISON);
    unsafe { queue.pop(to.address(), max, stream, Some(token)).unwrap() };
    let result = token.wait(After::Submission, Some(LIMIT)).unwrap();
    assert_eq!(result.status, GMB_OK);
    let mut all = download(queue.context(), to.address(), (max as usize + 1) * bytes);
    let past = all.split_off(result.count as usize * bytes);
    assert!(past.iter().all(|&byte| byte == POISON), "nothing is written past the items");
    all
}

/// Random batches, also such that many blocks work at: the same as a deque does.
#[test]
fn items_come_out_as_they_went_in() {
    let (context, mut random) = (context(), Random::new());
    let (stream, [token]) = (context.stream().unwrap(), tokens(&context));
    for (bytes, capacity) in
        [(4, 1), (8, 2), (16, 64), (4, 1 << 15), (8, 1 << 14), (16, 1 << 13), (4, 1 << 10), (8, 1 << 10)]
    {
        let (queue, mut model, mut next) = (queue(&context, capacity, bytes), VecDeque::new(), 0u64);
        for _ in 0..60 {
            let count = random.between(1, (capacity * 3 / 2).max(3));
            if random.between(0, 1) == 0 {
                let given: Vec<u64> = (0..count).map(|n| (next + n) * 3 + 1).collect();
                let room = capacity - model.len() as u64;
                let pushed = push(&queue, &items(given.iter().copied(), bytes), stream.get(), &token);
                assert_eq!(u64::from(pushed), room.min(count));
                model.extend(&given[..pushed as usize]);
                next += u64::from(pushed);
            } else {
                let wanted: Vec<u64> = model.drain(..model.len().min(count as usize)).collect();
                let got = pop(&queue, count as u32, stream.get(), &token);
                assert_eq!(
                    numbers(&got, bytes),
                    wanted.iter().map(|&n| truncated(n, bytes)).collect::<Vec<_>>()
                );
            }
            let info = queue.info().unwrap();
            assert_eq!((info.size, info.pushed), (model.len() as u64, next));
            assert_eq!(info.popped, next - info.size);
        }
    }
}

fn truncated(n: u64, bytes: u32) -> u64 {
    if bytes == 4 {
        n & u64::from(u32::MAX)
    } else {
        n
    }
}

/// Producers and consumers at once, each a thread with a stream of its own: every item comes once, those of a producer in
/// their order.
#[test]
fn many_producers_and_consumers_on_streams_of_their_own() {
    let (context, mut random) = (context(), Random::new());
    let each = total_records() / 500;
    const PRODUCERS: u64 = 3;
    for (bytes, capacity, threads, max_blocks) in [(8, 512, 0, 0), (4, 1 << 13, 64, 0), (16, 1 << 12, 0, 3)] {
        let options = QueueOptions { capacity, item_bytes: bytes, block_threads: threads, max_blocks };
        let queue = Queue::new(&context, &options).unwrap();
        let popped = AtomicU64::new(0);
        let all: Vec<u64> = std::thread::scope(|scope| {
            for producer in 0..PRODUCERS {
                let (queue, mut random) = (&queue, random.split());
                scope.spawn(move || {
                    let (stream, [token]) = (queue.context().stream().unwrap(), tokens(queue.context()));
                    let mut sent = 0;
                    while sent < each {
                        let count = random.between(1, (each - sent).min(capacity));
                        let given = items((sent..sent + count).map(|n| producer << 28 | n), bytes);
                        sent += u64::from(push(queue, &given, stream.get(), &token));
                    }
                });
            }
            let consumers: Vec<_> = (0..3)
                .map(|_| {
                    let (queue, popped, mut random) = (&queue, &popped, random.split());
                    scope.spawn(move || {
                        let (stream, [token]) = (queue.context().stream().unwrap(), tokens(queue.context()));
                        let mut mine = Vec::new();
                        until(
                            || "not all items came",
                            || {
                                let max = random.between(1, capacity) as u32;
                                let got = numbers(&pop(queue, max, stream.get(), &token), bytes);
                                let total =
                                    popped.fetch_add(got.len() as u64, Ordering::AcqRel) + got.len() as u64;
                                mine.extend(got);
                                total >= PRODUCERS * each
                            },
                        );
                        for producer in 0..PRODUCERS {
                            let of: Vec<_> = mine.iter().filter(|&&n| n >> 28 == producer).collect();
                            assert!(
                                of.windows(2).all(|two| two[0] < two[1]),
                                "in the order of their producer"
                            );
                        }
                        mine
                    })
                })
                .collect();
            consumers.into_iter().flat_map(|consumer| consumer.join().unwrap()).collect()
        });
        let mut all = all;
        all.sort_unstable();
        let wanted: Vec<u64> = (0..PRODUCERS).flat_map(|p| (0..each).map(move |n| p << 28 | n)).collect();
        assert_eq!(all, wanted, "every item once");
    }
}

/// Several pieces each way; the queue takes what fits.
#[test]
fn from_host_memory_and_to_it() {
    let context = context();
    for (bytes, capacity) in [(4, 1 << 19), (16, 1 << 17)] {
        let queue = queue(&context, capacity, bytes);
        let given = items(0..capacity + 1000, bytes);
        assert_eq!(queue.push_from_host_blocking(&given).unwrap(), capacity);
        let mut out = vec![POISON; given.len() + bytes as usize];
        let first = 999 * bytes as usize;
        assert_eq!(queue.pop_to_host_blocking(&mut out[..first]).unwrap(), 999);
        assert_eq!(queue.pop_to_host_blocking(&mut out[first..]).unwrap(), capacity - 999);
        let all = capacity as usize * bytes as usize;
        assert_eq!(out[..all], given[..all]);
        assert!(out[all..].iter().all(|&byte| byte == POISON));
        assert_eq!(queue.pop_to_host_blocking(&mut out).unwrap(), 0);
    }
}

#[test]
fn what_is_refused() {
    let context = context();
    let new = |capacity, item_bytes, block_threads| {
        let options = QueueOptions { capacity, item_bytes, block_threads, ..Default::default() };
        Queue::new(&context, &options)
            .map(|_| ())
            .map_err(|error| (error.status(), error.message().to_owned()))
    };
    for (made, status, names) in [
        (new(8, 3, 0), GMB_ERROR_INVALID_ARGUMENT, "item_bytes 3"),
        (new(8, 0, 0), GMB_ERROR_INVALID_ARGUMENT, "item_bytes 0"),
        (new(0, 4, 0), GMB_ERROR_INVALID_ARGUMENT, "capacity 0"),
        (new(3, 4, 0), GMB_ERROR_INVALID_ARGUMENT, "use 4"),
        (new(1 << 40, 4, 0), GMB_ERROR_OVERFLOW, "capacity 1099511627776"),
        (new(8, 4, 33), GMB_ERROR_INVALID_ARGUMENT, "block_threads 33"),
        (new(8, 4, 2048), GMB_ERROR_INVALID_ARGUMENT, "block_threads 2048"),
    ] {
        let (told, words) = made.unwrap_err();
        assert_eq!(told, status, "{words}");
        assert!(words.contains(names), "{words}");
    }
    let (queue, stream, [token]) = (queue(&context, 8, 8), context.stream().unwrap(), tokens(&context));
    let memory = poisoned(&context, 256, 1);
    let at = memory.address();
    let push =
        |items, count| unsafe { queue.push(items, count, stream.get(), Some(&token)) }.unwrap_err().status();
    let pop = |items, max| unsafe { queue.pop(items, max, stream.get(), Some(&token)) }.unwrap_err().status();
    assert_eq!((push(at, 0), pop(at, 0)), (GMB_ERROR_ZERO_COUNT, GMB_ERROR_ZERO_COUNT));
    assert_eq!((push(0, 1), pop(0, 1)), (GMB_ERROR_NULL_POINTER, GMB_ERROR_NULL_POINTER));
    assert_eq!((push(at + 4, 1), pop(at + 4, 1)), (GMB_ERROR_MISALIGNED, GMB_ERROR_MISALIGNED));
    assert_eq!(push(at, GMB_MAX_RECORDS + 1), GMB_ERROR_OVERFLOW);
    assert_eq!(push(u64::MAX - 15, 4), GMB_ERROR_OVERFLOW);
    assert_eq!(pop(queue.info().unwrap().queue + 128, 1), GMB_ERROR_OVERLAP);
    assert_eq!(queue.push_from_host_blocking(&[0; 12]).unwrap_err().status(), GMB_ERROR_INVALID_ARGUMENT);
    assert_eq!(queue.pop_to_host_blocking(&mut []).unwrap_err().status(), GMB_ERROR_ZERO_COUNT);
    assert_eq!(queue.measure(9, 1).unwrap_err().status(), GMB_ERROR_INVALID_ARGUMENT);
    let foreign = Token::new(&super::support::context()).unwrap();
    let refused = unsafe { queue.push(at, 1, stream.get(), Some(&foreign)) }.unwrap_err();
    assert_eq!(
        (refused.status(), refused.message()),
        (GMB_ERROR_INVALID_ARGUMENT, "the token is of another context than the queue")
    );
    // Nothing of it has reached the queue, and the token is free.
    assert_eq!(queue.info().unwrap().pushed, 0);
    unsafe { queue.push(at, 3, stream.get(), Some(&token)).unwrap() };
    assert_eq!(token.wait(After::Submission, Some(LIMIT)).unwrap().count, 3);
    assert!(queue.measure(4, 1).unwrap_err().message().contains("holds 3 items"));
}

/// What something else wrote over is said, and moves nothing.
#[test]
fn what_is_no_queue_is_told() {
    let context = context();
    let (stream, [token]) = (context.stream().unwrap(), tokens(&context));
    for (offset, value, status) in [
        (0, 1u64, GMB_ERROR_BAD_MAGIC),
        (8, 4 << 32 | 99, GMB_ERROR_BAD_VERSION),
        (8, 8 << 32 | u64::from(GMB_LAYOUT_VERSION), GMB_ERROR_WRONG_MODE),
    ] {
        for blocks in [1, 0] {
            let options =
                QueueOptions { capacity: 1 << 14, item_bytes: 4, max_blocks: blocks, ..Default::default() };
            let queue = Queue::new(&context, &options).unwrap();
            let (at, memory) = (queue.info().unwrap().queue, poisoned(&context, 1 << 16, 1));
            unsafe { context.copy(at + offset, std::ptr::from_ref(&value) as u64, 8, stream.get()).unwrap() };
            context.synchronize(stream.get()).unwrap();
            for operation in [Queue::push, Queue::pop] {
                unsafe { operation(&queue, memory.address(), 1 << 14, stream.get(), Some(&token)).unwrap() };
                let result = token.wait(After::Submission, Some(LIMIT)).unwrap();
                assert_eq!((result.status, result.count), (status, 0));
            }
            let mut items = [0u8; 8];
            assert_eq!(queue.push_from_host_blocking(&items).unwrap_err().status(), status);
            assert_eq!(queue.pop_to_host_blocking(&mut items).unwrap_err().status(), status);
        }
    }
}

/// A graph's launches each push and pop; the queue may go before the graph does.
#[test]
fn in_a_graph() {
    let context = context();
    let (stream, [token]) = (context.stream().unwrap(), tokens(&context));
    let queue = queue(&context, 1 << 12, 8);
    let (given, out) = (items(0..5000, 8), poisoned(&context, 5000 * 8, POISON));
    let from = upload(&context, &given);
    context.begin_capture(stream.get(), CaptureMode::ThreadLocal).unwrap();
    unsafe {
        queue.push(from.address(), 5000, stream.get(), None).unwrap();
        queue.pop(out.address(), 5000, stream.get(), Some(&token)).unwrap();
    }
    let graph = context.end_capture(stream.get()).unwrap();
    for _ in 0..10 {
        graph.launch(stream.get()).unwrap();
    }
    context.synchronize(stream.get()).unwrap();
    let info = queue.info().unwrap();
    assert_eq!((info.pushed, info.size), (10 << 12, 0));
    drop(queue);
    graph.launch(stream.get()).unwrap();
    context.synchronize(stream.get()).unwrap();
    assert_eq!(token.wait(After::Epoch(10), Some(LIMIT)).unwrap().count, 1 << 12);
    assert_eq!(download(&context, out.address(), 8 << 12), given[..8 << 12]);
}

/// What is measured has really moved.
#[test]
fn round_trips_are_measured() {
    let context = context();
    let queue = queue(&context, 1 << 12, 4);
    let found = queue.measure(1 << 12, 20).unwrap();
    assert_eq!(found.items, 20 << 12);
    assert!(
        found.seconds > 0.0
            && (found.items_per_second * found.seconds / found.items as f64 - 1.0).abs() < 1e-9
    );
    let info = queue.info().unwrap();
    assert_eq!((info.pushed, info.popped), (21 << 12, 21 << 12));
}

/// A queue that is dropped waits for its launches: their memory is given to somebody else only then.
#[test]
fn dropped_with_launches_under_way() {
    let context = context();
    let stream = context.stream().unwrap();
    for _ in 0..20 {
        let queue = queue(&context, 1 << 12, 4);
        let from = upload(&context, &items(0..1 << 12, 4));
        unsafe { queue.push(from.address(), 1 << 12, stream.get(), None).unwrap() };
        drop(queue);
        let other = self::queue(&context, 1 << 12, 4);
        assert_eq!(other.info().unwrap().size, 0);
        assert_eq!(pop(&other, 10, stream.get(), &Token::new(&context).unwrap()), Vec::<u8>::new());
    }
}
