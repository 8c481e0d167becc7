//! Triple buffers: asked for their buffers in turn, used, handed on, given up.

use std::ffi::c_void;

use gpumailbox::capi::context::gmb_context;
use gpumailbox::capi::stream::gmb_stream;
use gpumailbox::capi::triple::*;
use gpumailbox::*;

use crate::blob::{info, Blob, Out};
use crate::calls::call;
use crate::input::Input;
use crate::pipelines::{Comes, Held, Triple, DOWNLOAD};
use crate::world::World;

const MOST: usize = 3;

pub fn pick(world: &World, input: &mut Input) -> (gmb_triple_buffer, Option<usize>) {
    let triples = &world.pipelines.triples;
    let id = triples.pick(input, world.strangers());
    (gmb_triple_buffer { id }, triples.find(id))
}

pub fn create(world: &mut World, input: &mut Input) {
    if world.pipelines.triples.live().count() >= MOST {
        return;
    }
    let (context, at) = world.context(input);
    let code = input.choose(&[1, 2, 0, 4]);
    let bits = input.choose(&[8, 32, 64, 1, 4]);
    let dtype = gmb_dtype {
        code: input.spoil(code, 6) as u8,
        bits: input.spoil(bits, 6) as u8,
        lanes: input.choose(&[1, 1, 1, 1, 2, 4, 0]),
    };
    let elements = input.choose(&[64, 1, 3, 1000, 2048]);
    let elements = input.spoil(elements, 12);
    let wide = u128::from(dtype.bits) * u128::from(dtype.lanes) * u128::from(elements);
    let bytes = wide.div_ceil(8);
    // Of what the model keeps for each byte there shall not be too much.
    if (1 << 14..=i64::MAX as u128).contains(&bytes) && bytes <= super::context::LIMIT.into() {
        return;
    }
    let (blob, sound) = Blob::sized(gmb_triple_buffer_options { struct_size: 0, dtype, elements }, input);
    let out = Out::<gmb_triple_buffer>::new(input);
    let status = call!(triple::gmb_triple_buffer_create(context, blob.pointer(), out.pointer()));
    let typed = dtype.code <= 17 && dtype.bits > 0 && dtype.lanes > 0;
    let good = sound && out.good && at.is_some() && typed && elements > 0 && wide <= u64::MAX.into();
    assert!(
        (status == GMB_OK) == good || (good && status == GMB_ERROR_MEMORY_LIMIT),
        "status {status}, good {good}"
    );
    let (Some(made), Some(context)) = (out.take(status), at) else { return };
    let told = told(made);
    assert_eq!((told.states, told.completed), ([GMB_BUFFER_FREE; 3], 0));
    let triple = Triple {
        context,
        dtype,
        elements,
        bytes: bytes as u64,
        addresses: told.addresses.map(|address| address as u64),
        turns: Vec::new(),
        held: Vec::new(),
        quiet: true,
    };
    triple.check(&told);
    assert!(triple.addresses.iter().all(|&at| at != 0 && at % 256 == 0));
    world.pipelines.triples.add(made.id, triple);
}

fn told(triple: gmb_triple_buffer) -> gmb_triple_buffer_info {
    let out = Out::<gmb_triple_buffer_info>::good();
    let size = size_of::<gmb_triple_buffer_info>();
    let status = call!(triple::gmb_triple_buffer_get_info(triple, out.pointer(), size));
    out.take(status).expect("a triple buffer tells of itself")
}

pub fn get_info(world: &mut World, input: &mut Input) {
    let (triple, at) = pick(world, input);
    let told: Option<gmb_triple_buffer_info> = info(input, |to, size| {
        let status = call!(triple::gmb_triple_buffer_get_info(triple, to, size));
        assert!(at.is_some() || status != GMB_OK);
        status
    });
    if let (Some(told), Some(at)) = (told, at) {
        world.pipelines.triples.0[at].it.check(&told);
    }
}

/// Asks for a buffer: now, for a stream, or with some patience.
pub fn acquire(world: &mut World, input: &mut Input) {
    let (triple, at) = pick(world, input);
    if input.chance(64) {
        world.settle();
    }
    let wanted = input.below(3) as u64;
    let step = input.spoil(wanted, 8) as i32;
    let how = input.below(4);
    let context = at.map(|at| world.pipelines.triples.0[at].it.context);
    let (stream, resolved) =
        if how < 2 { world.stream(input, context) } else { (std::ptr::null_mut(), Some(0)) };
    let out = Out::<gmb_triple_slot>::new(input);
    let known = at.filter(|_| (0..3).contains(&step) && resolved.is_some() && out.good);
    let comes = known.map(|at| world.pipelines.triples.0[at].it.comes(step as usize, how < 2));
    let status = match how {
        0 | 1 => call!(triple::gmb_triple_buffer_acquire_on(triple, step, stream, out.pointer())),
        2 => call!(triple::gmb_triple_buffer_acquire(triple, step, out.pointer())),
        _ => {
            let timeout = match comes {
                Some(Comes::Surely) => input.choose(&[0, u64::MAX, 1 << 63]),
                _ => input.choose(&[0, 1, 3_000]),
            };
            call!(triple::gmb_triple_buffer_wait(triple, step, timeout, out.pointer()))
        }
    };
    let none = if how == 3 { GMB_ERROR_TIMEOUT } else { GMB_NOT_READY };
    let right = match comes {
        Some(Comes::Surely) => status == GMB_OK,
        Some(Comes::Perhaps) => status == GMB_OK || status == none,
        Some(Comes::Never) => status == none,
        None => status < 0,
    };
    assert!(right, "status {status} where it comes {comes:?}: {}", super::status::message());
    let (Some(slot), Some(at)) = (out.take(status), at) else { return };
    let it = &mut world.pipelines.triples.0[at].it;
    let turn = it.take(step as usize);
    let (index, bytes) = (slot.index as usize, slot.bytes);
    assert_eq!((slot.turn as usize, index, slot.step), (turn, turn % 3, step));
    assert_eq!((slot.address as u64, bytes), (it.addresses[turn % 3], it.bytes));
    let stream = resolved.filter(|_| how < 2);
    it.held.push(Held { slot, stream, is_used: false });
    if let (Some(stream), Some(context)) = (stream, context) {
        world.enqueued(context, stream, &[]);
    }
}

/// One of the buffers in hand, and of which triple buffer it is.
fn in_hand(world: &World, input: &mut Input) -> Option<(usize, usize)> {
    let triples = &world.pipelines.triples;
    let all: Vec<_> =
        triples.live().flat_map(|at| (0..triples.0[at].it.held.len()).map(move |n| (at, n))).collect();
    all.get(input.below(all.len())).copied()
}

/// Enqueues work on a buffer in hand, on a stream that may use it.
pub fn work(world: &mut World, input: &mut Input) {
    let Some((at, n)) = in_hand(world, input) else { return };
    let context = world.pipelines.triples.0[at].it.context;
    let held = &world.pipelines.triples.0[at].it.held[n];
    let (stream, resolved) = match held.stream {
        Some(stream) => (stream as gmb_stream, world.resolve(context, stream)),
        None => world.stream(input, Some(context)),
    };
    let (Some(resolved), true) = (resolved, world.contexts.0[context].live) else { return };
    let (address, turn) = (held.slot.address, held.slot.turn as usize);
    let bytes = 1 + input.word() % held.slot.bytes;
    let value = input.byte();
    let handle = gmb_context { id: world.contexts.0[context].id };
    let status = call!(memory::gmb_memory_fill(handle, address, value, bytes, stream));
    assert_eq!(status, GMB_OK, "{}", super::status::message());
    let it = &mut world.pipelines.triples.0[at].it;
    (it.held[n].stream, it.held[n].is_used) = (Some(resolved), true);
    it.change(turn, bytes as usize, |_| Some(value));
    world.enqueued(context, resolved, &[]);
}

/// A slot to hand back: one in hand, perhaps damaged, or none that ever was.
fn slot(world: &World, input: &mut Input) -> (gmb_triple_slot, gmb_triple_buffer, Option<usize>) {
    let (of, mut at) = pick(world, input);
    let mut given = of;
    let none = gmb_triple_slot { address: std::ptr::null_mut(), bytes: 0, turn: 0, index: 0, step: 0 };
    let mut slot = match in_hand(world, input) {
        Some((own, n)) if !input.chance(16) => {
            (given.id, at) = (world.pipelines.triples.0[own].id, Some(own));
            world.pipelines.triples.0[own].it.held[n].slot
        }
        _ => none,
    };
    if input.chance(24) {
        slot.turn = input.edge();
        slot.address = input.edge() as *mut c_void;
        slot.bytes = input.edge();
        slot.index = input.edge() as u32;
    }
    slot.step = input.spoil(slot.step as u64, 8) as i32;
    (slot, given, at)
}

/// A pointer to a slot, or one that is none.
fn pointer(blob: &Blob, input: &mut Input) -> (*const gmb_triple_slot, bool) {
    match input.byte() {
        255 => (std::ptr::null(), false),
        254 => (blob.pointer::<u8>().wrapping_add(input.choose(&[1, 2, 4])).cast_const().cast(), false),
        _ => (blob.pointer(), true),
    }
}

pub fn submit(world: &mut World, input: &mut Input) {
    let (slot, triple, at) = slot(world, input);
    let context = at.map(|at| world.pipelines.triples.0[at].it.context);
    let held = at.and_then(|at| {
        let it = &world.pipelines.triples.0[at].it;
        let n = it.held.iter().position(|held| held.slot.turn == slot.turn && held.slot.step == slot.step)?;
        Some((at, n))
    });
    let bound = held.and_then(|(at, n)| world.pipelines.triples.0[at].it.held[n].stream);
    let (stream, resolved) = match (bound, context) {
        // What it hands on is what this stream holds.
        (Some(stream), Some(context)) => (stream as gmb_stream, world.resolve(context, stream)),
        _ => world.stream(input, context),
    };
    let blob = Blob::of(&[slot]);
    let (at_slot, there) = pointer(&blob, input);
    let known = at.is_some_and(|at| world.pipelines.triples.0[at].it.is_held(slot.step, slot.turn));
    let good = known && there && resolved.is_some();
    let status = call!(triple::gmb_triple_buffer_submit(triple, at_slot, stream));
    assert_eq!(status == GMB_OK, good, "status {status}: {}", super::status::message());
    if at.is_some() && there && resolved.is_some() && (0..3).contains(&slot.step) && !known {
        assert_eq!(status, GMB_ERROR_WRONG_STATE);
    }
    let (GMB_OK, Some((at, n)), Some(resolved)) = (status, held, resolved) else { return };
    let it = &mut world.pipelines.triples.0[at].it;
    it.held.swap_remove(n);
    it.submit(slot.turn as usize);
    let context = it.context;
    world.enqueued(context, resolved, &[]);
}

pub fn give_up(world: &mut World, input: &mut Input) {
    let (slot, triple, at) = slot(world, input);
    // Nothing may use it.
    if at.is_some_and(|at| world.pipelines.triples.0[at].it.held.iter().any(|held| held.is_used)) {
        world.settle();
    }
    let blob = Blob::of(&[slot]);
    let (at_slot, there) = pointer(&blob, input);
    let known = at.is_some_and(|at| world.pipelines.triples.0[at].it.is_held(slot.step, slot.turn));
    let status = call!(triple::gmb_triple_buffer_give_up(triple, at_slot));
    assert_eq!(status == GMB_OK, known && there, "status {status}: {}", super::status::message());
    let (GMB_OK, Some(at)) = (status, at) else { return };
    let it = &mut world.pipelines.triples.0[at].it;
    it.give_up(slot.turn as usize);
}

pub fn advance(world: &mut World, input: &mut Input) {
    let (triple, at) = pick(world, input);
    let null = input.chance(32);
    let out = Out::<u32>::new(input);
    let to = if null { std::ptr::null_mut() } else { out.pointer() };
    let status = call!(triple::gmb_triple_buffer_advance(triple, to));
    let given = !to.is_null();
    assert_eq!(status == GMB_OK, at.is_some() && (!given || out.good), "status {status}");
    if given {
        assert!(out.take(status).is_none_or(|passed| passed <= 3));
    }
    if let Some(at) = at {
        world.pipelines.triples.0[at].it.check(&told(triple));
    }
}

/// When all that was submitted is done, what a download would find is what was put there.
pub fn look(world: &mut World, _: &mut Input) {
    world.settle();
    for at in world.pipelines.triples.live().collect::<Vec<_>>() {
        let it = &world.pipelines.triples.0[at].it;
        for held in it.held.iter().filter(|held| held.slot.step as usize == DOWNLOAD) {
            let turn = &it.turns[held.slot.turn as usize];
            for (n, wanted) in turn.content.iter().enumerate() {
                // SAFETY: on the host backend it is this machine's memory, and no work is under way.
                let byte = unsafe { held.slot.address.cast::<u8>().add(n).read() };
                assert!(wanted.is_none_or(|wanted| wanted == byte), "byte {n} of turn {}", held.slot.turn);
            }
        }
    }
}

pub fn destroy(world: &mut World, input: &mut Input) {
    let (triple, at) = pick(world, input);
    match at {
        Some(at) => end(world, at),
        None => assert_eq!(call!(triple::gmb_triple_buffer_destroy(triple)), GMB_ERROR_INVALID_HANDLE),
    }
}

fn end(world: &mut World, at: usize) {
    // It waits for what was submitted, and knows nothing of other work.
    if world.pipelines.triples.0[at].it.held.iter().any(|held| held.is_used) {
        world.settle();
    }
    let id = world.pipelines.triples.0[at].id;
    assert_eq!(call!(triple::gmb_triple_buffer_destroy(gmb_triple_buffer { id })), GMB_OK);
    let entry = &mut world.pipelines.triples.0[at];
    entry.live = false;
    entry.it.held.clear();
}

/// Ends all that live.
pub fn end_all(world: &mut World) {
    for at in world.pipelines.triples.live().collect::<Vec<_>>() {
        end(world, at);
    }
}
