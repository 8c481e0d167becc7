//! FIFOs: records that launches push, and the host pops.

use std::sync::atomic::Ordering;

use gpumailbox::capi::fifo::*;
use gpumailbox::capi::readiness::gmb_watch;
use gpumailbox::*;

use super::transfer::many;
use crate::arena::SOURCE;
use crate::blob::{info, Blob, Out, POISON};
use crate::calls::call;
use crate::doorbells::Fifo;
use crate::input::Input;
use crate::model::VERIFIED;
use crate::world::World;

const MOST: usize = 4;
const RECORD: u64 = size_of::<gmb_fifo_record>() as u64;

fn pick(world: &World, input: &mut Input) -> (gmb_fifo, Option<usize>) {
    let id = world.doorbells.fifos.pick(input, world.strangers());
    (gmb_fifo { id }, world.doorbells.fifos.find(id))
}

pub fn create(world: &mut World, input: &mut Input) {
    if world.doorbells.fifos.live().count() >= MOST {
        return;
    }
    let (context, at) = world.context(input);
    let Some((capacity, good)) = super::doorbell::capacity(input, &[16, 1, 2, 64, 1024]) else { return };
    let options = gmb_fifo_options { struct_size: 0, reserved: input.spoil(0, 8) as u32, capacity };
    let (blob, sound) = Blob::sized(options, input);
    let out = Out::<gmb_fifo>::new(input);
    let status = call!(fifo::gmb_fifo_create(context, blob.pointer(), out.pointer()));
    let good = good && options.reserved == 0 && sound && out.good && at.is_some();
    let full = status == GMB_ERROR_MEMORY_LIMIT;
    assert!((status == GMB_OK) == good || (full && good), "status {status}, good {good}");
    let (Some(made), Some(context)) = (out.take(status), at) else { return };
    let records = Some(Default::default());
    world.doorbells.fifos.add(made.id, Fifo { context, capacity, records, streams: Vec::new(), drained: 0 });
}

fn shape(world: &World, at: Option<usize>) -> (u64, Option<usize>) {
    at.map_or((8, None), |at| {
        let fifo = &world.doorbells.fifos.0[at].it;
        (fifo.capacity, Some(fifo.context))
    })
}

/// # Safety
/// So many records lie there, and nobody writes them.
unsafe fn read(address: u64, count: usize) -> Vec<[u64; 2]> {
    // SAFETY: the caller's.
    unsafe { std::slice::from_raw_parts(address as *const [u64; 2], count) }.to_vec()
}

pub fn push(world: &mut World, input: &mut Input) {
    let (fifo, at) = pick(world, input);
    let (capacity, context) = shape(world, at);
    let count = many(input, capacity);
    let bytes = u64::from(count) * RECORD;
    let offset = SOURCE.checked_sub(bytes).map_or(0, |slack| (input.word() % (slack + 1)) & !7);
    let mut sound = bytes <= SOURCE && count > 0;
    let mut records = world.arenas.source + offset;
    if input.chance(16) {
        records = input.choose(&[records + 1, records + 4, 0, 0x5555_0000_1280]);
        sound = false;
    }
    let (token, token_at, token_fits, busy) = super::transfer::token(world, input, context);
    let (stream, resolved) = world.stream(input, context);
    if let (Some(at), Some(stream)) = (at, resolved) {
        let beside = world.doorbells.fifos.0[at].it.streams.iter().any(|&other| other != stream);
        if beside && !input.chance(48) {
            world.settle();
        }
    }
    let status = call!(fifo::gmb_fifo_push(fifo, records as *const gmb_fifo_record, count, stream, token));
    let good = at.is_some() && sound && token_fits && resolved.is_some();
    assert!(status != GMB_ERROR_BUSY || busy);
    // A stream that it was not used on before takes memory.
    let refused = [GMB_ERROR_BUSY, GMB_ERROR_MEMORY_LIMIT].contains(&status);
    assert_eq!(status == GMB_OK, good && !refused, "status {status}: {}", super::status::message());
    let (GMB_OK, Some(at), Some(stream), Some(context)) = (status, at, resolved, context) else { return };
    world.enqueued(context, stream, &[]);
    world.doorbells.fifos.0[at].it.launched(stream);
    if world.doorbells.fifos.0[at].it.records.is_none() {
        super::queue::doubt(world);
    }
    // SAFETY: the source is written once.
    let pushed = unsafe { read(records, count as usize) };
    let accepted = world.doorbells.fifos.0[at].it.push(&pushed);
    super::queue::expect(world, token_at, accepted);
}

pub fn pop_to_host(world: &mut World, input: &mut Input) {
    let (fifo, at) = pick(world, input);
    let (capacity, _) = shape(world, at);
    let max = many(input, capacity);
    let counted = (1..=GMB_MAX_RECORDS).contains(&max);
    let bytes = u64::from(max) * RECORD;
    // What is not refused at once must be there.
    if counted && bytes > SOURCE {
        return;
    }
    let blob = Blob::new(if counted { bytes as usize } else { 0 });
    let to = match input.byte() {
        255 => std::ptr::null_mut(),
        254 => blob.pointer::<u8>().wrapping_add(4),
        _ => blob.pointer::<u8>(),
    };
    let sound = to == blob.pointer::<u8>();
    if let Some(at) = at.filter(|&at| !world.doorbells.fifos.0[at].it.streams.is_empty()) {
        if !input.chance(32) {
            world.settle();
        } else {
            world.doorbells.fifos.0[at].it.records = None;
        }
    }
    let known = at.and_then(|at| world.doorbells.fifos.0[at].it.records.clone());
    let some = known.as_ref().is_some_and(|records| !records.is_empty());
    let timeout = input.choose(&[if some { u64::MAX } else { 0 }, 1, 20_000]);
    let out = Out::<u64>::new(input);
    let status = call!(fifo::gmb_fifo_pop_to_host(fifo, to.cast(), max, timeout, out.pointer()));
    let good = at.is_some() && counted && sound && out.good;
    assert_eq!(status == GMB_OK, good, "status {status}");
    let (Some(popped), Some(at)) = (out.take(status), at) else {
        return assert!(blob.is_untouched(), "written by a call that gave {status}");
    };
    assert!(popped <= u64::from(max).min(capacity), "{popped} of {max}");
    let written = (popped * RECORD) as usize;
    assert!(blob.bytes()[written..].iter().all(|&byte| byte == POISON), "written behind {popped} records");
    // SAFETY: so many are in the blob.
    let found = unsafe { read(blob.pointer::<u8>() as u64, popped as usize) };
    let it = &mut world.doorbells.fifos.0[at].it;
    it.drained += popped;
    if let Some(mut known) = known {
        let expected: Vec<[u64; 2]> = known.drain(..known.len().min(max as usize)).collect();
        assert_eq!(found, expected, "records that were popped");
        VERIFIED.fetch_add(popped, Ordering::Relaxed);
        it.records = Some(known);
    } else if popped < u64::from(max) && it.streams.is_empty() {
        // It is empty, whatever was there before.
        it.records = Some(Default::default());
    }
}

pub fn get_info(world: &mut World, input: &mut Input) {
    let (fifo, at) = pick(world, input);
    let told: Option<gmb_fifo_info> = info(input, |to, size| {
        let status = call!(fifo::gmb_fifo_get_info(fifo, to, size));
        assert!(at.is_some() || status != GMB_OK);
        status
    });
    let (Some(told), Some(at)) = (told, at) else { return };
    let it = &world.doorbells.fifos.0[at].it;
    assert_eq!((told.capacity, told.drained), (it.capacity, it.drained));
    assert!(!told.fifo.is_null());
}

/// A watch from its making to its end.
pub fn watch(world: &mut World, input: &mut Input) {
    let (fifo, at) = pick(world, input);
    let out = Out::<gmb_watch>::new(input);
    let status = call!(fifo::gmb_fifo_create_watch(fifo, out.pointer()));
    assert_eq!(status == GMB_OK, at.is_some() && out.good, "status {status}");
    let (Some(watch), Some(at)) = (out.take(status), at) else { return };
    let it = &world.doorbells.fifos.0[at].it;
    let (least, most) = match it.records.as_ref().map(|records| records.len() as u64) {
        Some(there) => (if it.streams.is_empty() { there } else { 0 }, there),
        None => (0, it.capacity),
    };
    super::doorbell::watched(input, watch, it.capacity, least, most);
}

pub fn destroy(world: &mut World, input: &mut Input) {
    let (fifo, at) = pick(world, input);
    match at {
        Some(at) => end(world, at),
        None => assert_eq!(call!(fifo::gmb_fifo_destroy(fifo)), GMB_ERROR_INVALID_HANDLE),
    }
}

fn end(world: &mut World, at: usize) {
    let id = world.doorbells.fifos.0[at].id;
    assert_eq!(call!(fifo::gmb_fifo_destroy(gmb_fifo { id })), GMB_OK);
    world.doorbells.fifos.0[at].live = false;
}

/// Ends all that live.
pub fn end_all(world: &mut World) {
    let live: Vec<usize> = world.doorbells.fifos.live().collect();
    for at in live {
        end(world, at);
    }
}
