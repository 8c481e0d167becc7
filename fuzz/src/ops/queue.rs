//! Work queues.

use std::ffi::c_void;

use gpumailbox::capi::queue::{gmb_queue, gmb_queue_info, gmb_queue_measurement, gmb_queue_options};
use gpumailbox::capi::token::gmb_token;
use gpumailbox::*;

use super::transfer::many;
use crate::arena::{pattern, SOURCE};
use crate::blob::{info, Blob, Out, POISON};
use crate::calls::call;
use crate::input::Input;
use crate::queues::{items_of, read, Item, Popped, Queue};
use crate::world::{Awaited, Operation, World};

const MOST: usize = 6;
/// Items of one of the fuzzer's own pops.
const PIECE: u64 = 512;

fn pick(world: &World, input: &mut Input) -> (gmb_queue, Option<usize>) {
    let id = world.queues.queues.pick(input, world.strangers());
    (gmb_queue { id }, world.queues.queues.find(id))
}

/// Bytes of an item, capacity, context; any where there is no queue.
fn shape(world: &World, at: Option<usize>) -> (u64, u64, Option<usize>) {
    at.map_or((4, 8, None), |at| {
        let queue = &world.queues.queues.0[at].it;
        (queue.item_bytes, queue.capacity, Some(queue.context))
    })
}

pub fn create(world: &mut World, input: &mut Input) {
    if world.queues.queues.live().count() >= MOST {
        return;
    }
    let (context, at) = world.context(input);
    let (item_bytes, capacity) =
        (input.choose(&[4, 4, 4, 8, 16]), input.choose(&[64, 1, 2, 8, 16, 256, 1024]));
    let (threads, blocks) = (input.choose(&[0, 32, 64, 1024]), input.choose(&[0, 1, 2, 1000]));
    let options = gmb_queue_options {
        struct_size: 0,
        item_bytes: input.spoil(item_bytes, 8) as u32,
        capacity: input.spoil(capacity, 8),
        block_threads: input.spoil(threads, 8) as u32,
        max_blocks: input.spoil(blocks, 8) as u32,
        reserved: input.spoil(0, 8),
    };
    let good = [4, 8, 16].contains(&options.item_bytes)
        && options.capacity.is_power_of_two()
        && options.capacity <= u64::from(GMB_MAX_RECORDS)
        && is_threads(options.block_threads)
        && options.reserved == 0;
    let (blob, sound) = Blob::sized(options, input);
    let out = Out::<gmb_queue>::new(input);
    let status = call!(queue::gmb_queue_create(context, blob.pointer(), out.pointer()));
    let good = good && sound && out.good && at.is_some();
    let full = status == GMB_ERROR_MEMORY_LIMIT;
    assert!((status == GMB_OK) == good || (full && good), "status {status}, good {good}");
    let (Some(made), Some(context)) = (out.take(status), at) else { return };
    let token = Out::<gmb_token>::good();
    let of = gpumailbox::capi::context::gmb_context { id: world.contexts.0[context].id };
    let status = call!(token::gmb_token_create(of, token.pointer()));
    let told = told(made);
    let (item_bytes, capacity) = (u64::from(options.item_bytes), options.capacity);
    assert_eq!((told.size, told.pushed, told.popped, told.workers), (0, 0, 0, 0));
    assert_eq!(told.queue_bytes, size_of::<gmb_queue_header>() as u64 + capacity * 2 * item_bytes);
    let queue = Queue {
        context,
        item_bytes,
        capacity,
        address: told.queue as u64,
        bytes: told.queue_bytes,
        items: Some(Default::default()),
        streams: Vec::new(),
        popped: Vec::new(),
        workers: Vec::new(),
        token: token.take(status).expect("a token"),
    };
    world.queues.queues.add(made.id, queue);
}

pub fn is_threads(threads: u32) -> bool {
    threads % 32 == 0 && threads <= 1024
}

pub fn told(queue: gmb_queue) -> gmb_queue_info {
    let out = Out::<gmb_queue_info>::good();
    let size = size_of::<gmb_queue_info>();
    let status = call!(queue::gmb_queue_get_info(queue, out.pointer(), size));
    out.take(status).expect("a queue tells of itself")
}

pub fn destroy(world: &mut World, input: &mut Input) {
    let (queue, at) = pick(world, input);
    match at {
        Some(at) if world.queues.queues.0[at].it.workers.is_empty() => end(world, at),
        Some(_) => assert_eq!(call!(queue::gmb_queue_destroy(queue)), GMB_ERROR_BUSY),
        None => assert_eq!(call!(queue::gmb_queue_destroy(queue)), GMB_ERROR_INVALID_HANDLE),
    }
}

pub fn end(world: &mut World, at: usize) {
    let id = world.queues.queues.0[at].id;
    assert_eq!(call!(queue::gmb_queue_destroy(gmb_queue { id })), GMB_OK);
    let queue = &mut world.queues.queues.0[at];
    queue.live = false;
    // It has waited for its launches.
    queue.it.settle();
    assert_eq!(call!(token::gmb_token_destroy(queue.it.token)), GMB_OK);
}

pub fn get_info(world: &mut World, input: &mut Input) {
    let (queue, at) = pick(world, input);
    if input.chance(96) {
        world.settle();
    }
    let told: Option<gmb_queue_info> = info(input, |to, size| {
        let status = call!(queue::gmb_queue_get_info(queue, to, size));
        assert!(at.is_some() || status != GMB_OK);
        status
    });
    let (Some(told), Some(at)) = (told, at) else { return };
    let it = &world.queues.queues.0[at].it;
    assert_eq!((u64::from(told.item_bytes), told.capacity), (it.item_bytes, it.capacity));
    assert_eq!((told.queue as u64, told.queue_bytes), (it.address, it.bytes));
    assert_eq!(told.workers as usize, it.workers.len());
    assert!(told.size <= it.capacity, "{} items", told.size);
    if it.streams.is_empty() && world.queues.runs_on(at).is_empty() {
        assert_eq!(told.size, told.pushed - told.popped);
        assert!(it.items.as_ref().is_none_or(|items| items.len() as u64 == told.size), "{} items", told.size);
    }
}

/// An address that no items can be at.
fn crooked(world: &World, input: &mut Input, at: Option<usize>, good: u64) -> u64 {
    match input.below(4) {
        0 => good + input.choose(&[1, 2]),
        1 => 0,
        2 => at.map_or(0, |at| world.queues.queues.0[at].it.address),
        _ => 0x5555_0000_1280,
    }
}

/// What all launches have in common: the call, its status, and who learns the count.
fn launch(
    world: &mut World,
    input: &mut Input,
    at: Option<usize>,
    sound: bool,
    launched: impl FnOnce(gpumailbox::capi::stream::gmb_stream, gmb_token) -> i32,
) -> Option<(usize, u64, Option<usize>)> {
    let (_, _, context) = shape(world, at);
    let (token, token_at, token_fits, busy) = super::transfer::token(world, input, context);
    let (stream, resolved) = world.stream(input, context);
    if let (Some(at), Some(stream)) = (at, resolved) {
        // Launches of several streams run beside each other: then little is known.
        if world.queues.queues.0[at].it.is_beside(stream) && !input.chance(48) {
            world.settle();
        }
    }
    let status = launched(stream, token);
    let good = at.is_some() && sound && token_fits && resolved.is_some();
    assert!(status != GMB_ERROR_BUSY || busy);
    // A stream that the queue was not used on before takes memory.
    let refused = [GMB_ERROR_BUSY, GMB_ERROR_MEMORY_LIMIT].contains(&status);
    assert_eq!(status == GMB_OK, good && !refused, "status {status}: {}", super::status::message());
    let (GMB_OK, Some(at), Some(stream), Some(context)) = (status, at, resolved, context) else {
        return None;
    };
    world.queues.confuse(at);
    let queue = &mut world.queues.queues.0[at].it;
    let beside = queue.is_beside(stream);
    queue.launched(stream);
    if beside {
        doubt(world);
    }
    world.enqueued(context, stream, &[]);
    Some((at, stream, token_at))
}

/// What was launched before may find less than there was: another launch takes it.
pub fn doubt(world: &mut World) {
    for token in &mut world.tokens.0 {
        if let Some(Awaited { what: Operation::Queue(count), .. }) = &mut token.it.awaited {
            *count = None;
        }
    }
}

/// The token's result will be this count, where that is certain.
pub fn expect(world: &mut World, token: Option<usize>, count: Option<u64>) {
    if let Some(token) = token {
        super::token::forget(world, token);
        let token = &mut world.tokens.0[token].it;
        token.submitted += 1;
        token.awaited =
            Some(Awaited { mailbox: usize::MAX, what: Operation::Queue(count.map(|n| n as u32)) });
    }
}

pub fn push(world: &mut World, input: &mut Input) {
    let (queue, at) = pick(world, input);
    let (item_bytes, capacity, _) = shape(world, at);
    let count = many(input, capacity);
    let bytes = u64::from(count) * item_bytes;
    let offset = SOURCE.checked_sub(bytes).map_or(0, |slack| (input.word() % (slack + 1)) & !15);
    let mut sound = bytes <= SOURCE && count > 0;
    let mut items = world.arenas.source + offset;
    if input.chance(16) {
        (items, sound) = (crooked(world, input, at, items), false);
    }
    let launched = launch(world, input, at, sound, |stream, token| {
        call!(queue::gmb_queue_push(queue, items as *const c_void, count, stream, token))
    });
    let Some((at, _, token)) = launched else { return };
    // SAFETY: the source is written once.
    let pushed = unsafe { read(items, count as usize, item_bytes) };
    let accepted = world.queues.queues.0[at].it.push(&pushed);
    expect(world, token, accepted);
}

pub fn pop(world: &mut World, input: &mut Input) {
    let (queue, at) = pick(world, input);
    let (item_bytes, capacity, _) = shape(world, at);
    let max = many(input, capacity);
    let bytes = u64::from(max) * item_bytes;
    let mut items = None;
    if (1..=SOURCE).contains(&bytes) {
        items = world.arenas.output.take(bytes);
        if items.is_none() {
            world.flush();
            items = world.arenas.output.take(bytes);
        }
    }
    let (mut address, mut sound) = (items.unwrap_or(0x5555_0000_1280), items.is_some());
    if input.chance(16) {
        (address, sound) = (crooked(world, input, at, address), false);
    }
    let launched = launch(world, input, at, sound, |stream, token| {
        call!(queue::gmb_queue_pop(queue, address as *mut c_void, max, stream, token))
    });
    let Some((at, _, token)) = launched else { return };
    let it = &mut world.queues.queues.0[at].it;
    let popped = it.pop(max.into());
    expect(world, token, popped.as_ref().map(|items| items.len() as u64));
    if let Some(items) = popped {
        world.queues.queues.0[at].it.popped.push(Popped { address, items });
    }
}

/// Before a call that moves items at once: usually nothing is under way any more.
fn alone(world: &mut World, input: &mut Input, at: Option<usize>) {
    let Some(at) = at else { return };
    if !world.queues.queues.0[at].it.streams.is_empty() {
        if !input.chance(32) {
            world.settle();
        } else {
            world.queues.queues.0[at].it.items = None;
        }
    }
}

pub fn push_from_host(world: &mut World, input: &mut Input) {
    let (queue, at) = pick(world, input);
    let (item_bytes, capacity, _) = shape(world, at);
    let count = many(input, capacity);
    let counted = (1..=GMB_MAX_RECORDS).contains(&count);
    let bytes = u64::from(count) * item_bytes;
    // What is not refused at once must be there.
    if counted && bytes > SOURCE {
        return;
    }
    let bytes = if counted { bytes } else { 0 };
    let offset = input.word() % (SOURCE - bytes + 1);
    let mut blob = Blob::new(bytes as usize);
    for (at, byte) in blob.bytes_mut().iter_mut().enumerate().take(bytes as usize) {
        *byte = pattern(offset + at as u64);
    }
    let null = input.chance(4);
    let items = if null { std::ptr::null() } else { blob.pointer::<c_void>().cast_const() };
    alone(world, input, at);
    let out = Out::<u64>::new(input);
    let status = call!(queue::gmb_queue_push_from_host_blocking(queue, items, count, out.pointer()));
    let good = at.is_some() && counted && !null && out.good;
    let full = status == GMB_ERROR_MEMORY_LIMIT && at.is_some();
    assert!((status == GMB_OK) == good || (full && good), "status {status}, good {good}");
    let (Some(accepted), Some(at)) = (out.take(status), at) else { return };
    let pushed = items_of(&blob.bytes()[..bytes as usize], item_bytes);
    assert!(accepted <= u64::from(count));
    let expected = world.queues.queues.0[at].it.push(&pushed);
    assert!(expected.is_none_or(|n| n == accepted), "{accepted} of {count}, expected {expected:?}");
    world.queues.moved(at, true, &pushed[..accepted as usize]);
}

pub fn pop_to_host(world: &mut World, input: &mut Input) {
    let (queue, at) = pick(world, input);
    let (item_bytes, capacity, _) = shape(world, at);
    let max = many(input, capacity);
    let counted = (1..=GMB_MAX_RECORDS).contains(&max);
    let bytes = u64::from(max) * item_bytes;
    if counted && bytes > SOURCE {
        return;
    }
    let blob = Blob::new(if counted { bytes as usize } else { 0 });
    let null = input.chance(4);
    let items = if null { std::ptr::null_mut() } else { blob.pointer::<c_void>() };
    alone(world, input, at);
    let out = Out::<u64>::new(input);
    let status = call!(queue::gmb_queue_pop_to_host_blocking(queue, items, max, out.pointer()));
    let good = at.is_some() && counted && !null && out.good;
    let full = status == GMB_ERROR_MEMORY_LIMIT && at.is_some();
    assert!((status == GMB_OK) == good || (full && good), "status {status}, good {good}");
    let (Some(popped), Some(at)) = (out.take(status), at) else {
        return assert!(blob.is_untouched(), "written by a call that gave {status}");
    };
    let written = (popped * item_bytes) as usize;
    assert!(popped <= u64::from(max));
    assert!(blob.bytes()[written..].iter().all(|&byte| byte == POISON), "written behind {popped} items");
    let found = items_of(&blob.bytes()[..written], item_bytes);
    if let Some(expected) = world.queues.queues.0[at].it.pop(max.into()) {
        assert_eq!(found, expected, "items that were popped to the host");
    }
    world.queues.moved(at, false, &found);
}

pub fn measure(world: &mut World, input: &mut Input) {
    let (queue, at) = pick(world, input);
    let (_, capacity, _) = shape(world, at);
    let (batch, iterations) = (1 + input.word() % capacity.min(200), 1 + input.below(4) as u64);
    let (batch, iterations) = (input.spoil(batch, 16) as u32, input.spoil(iterations, 16) as u32);
    if let Some(at) = at {
        certain(world, at);
        // That would take long.
        if iterations > 64 && iterations <= GMB_MAX_RECORDS {
            return;
        }
    }
    let out = Out::<gmb_queue_measurement>::new(input);
    let status = call!(queue::gmb_queue_measure(queue, batch, iterations, out.pointer()));
    let whole = |at: usize| {
        let queue = &world.queues.queues.0[at].it;
        // Where that is not certain, nobody knows.
        let empty = queue.items.as_ref().map_or(status == GMB_OK, |items| items.is_empty());
        queue.workers.is_empty() && empty && u64::from(batch) <= capacity
    };
    let counted = batch > 0 && (1..=GMB_MAX_RECORDS).contains(&iterations);
    let good = at.is_some_and(whole) && counted && out.good;
    let full = status == GMB_ERROR_MEMORY_LIMIT;
    assert!((status == GMB_OK) == good || (full && good), "status {status}, good {good}");
    let Some(found) = out.take(status) else { return };
    assert_eq!(found.items, u64::from(batch) * u64::from(iterations));
    assert!(found.seconds >= 0.0 && found.items_per_second >= 0.0);
}

/// Makes it certain what lies in a queue, where no worker runs on it and there is memory for a pop.
pub fn certain(world: &mut World, at: usize) {
    world.settle();
    if world.queues.queues.0[at].it.items.is_none() && world.queues.runs_on(at).is_empty() {
        drain(world, at);
    }
}

/// Pops all that lies in a queue, on which nothing is under way and no worker runs. None where there is no memory for that.
pub fn drain(world: &mut World, at: usize) -> Option<Vec<Item>> {
    let entry = &world.queues.queues.0[at];
    let (queue, item_bytes, context, token) =
        (gmb_queue { id: entry.id }, entry.it.item_bytes, entry.it.context, entry.it.token);
    let known = entry.it.items.clone();
    let size = told(queue).size;
    let mut found = Vec::new();
    loop {
        let Some(address) = world.arenas.output.take(PIECE * item_bytes) else {
            world.flush();
            continue;
        };
        let to = address as *mut c_void;
        let status = call!(queue::gmb_queue_pop(queue, to, PIECE as u32, std::ptr::null_mut(), token));
        if status == GMB_ERROR_MEMORY_LIMIT {
            world.queues.queues.0[at].it.items = None;
            return None;
        }
        assert_eq!(status, GMB_OK, "{}", super::status::message());
        world.enqueued(context, 0, &[]);
        let out = Out::<gmb_result>::good();
        let status = call!(token::gmb_token_wait(token, u64::MAX, u64::MAX, out.pointer()));
        let result = out.take(status).expect("a pop ends");
        assert_eq!(result.status, GMB_OK);
        // SAFETY: so many items came there.
        found.extend(unsafe { read(address, result.count as usize, item_bytes) });
        if u64::from(result.count) < PIECE {
            break;
        }
    }
    assert_eq!(found.len() as u64, size, "a queue of {size} items");
    assert!(known.is_none_or(|known| known == found), "other items than were pushed");
    world.queues.queues.0[at].it.items = Some(Default::default());
    Some(found)
}

/// Ends all that live.
pub fn end_all(world: &mut World) {
    let live: Vec<usize> = world.queues.queues.live().collect();
    for at in live {
        end(world, at);
    }
}
