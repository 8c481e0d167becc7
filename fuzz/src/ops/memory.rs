//! Device memory, pinned memory, copies.

use std::ffi::c_void;

use gpumailbox::capi::memory::gmb_memory_info;
use gpumailbox::*;

use crate::arena::SOURCE;
use crate::blob::{info, Out};
use crate::calls::call;
use crate::input::Input;
use crate::world::{Allocation, Origin, World};

const MOST: usize = 12;

fn bytes(input: &mut Input) -> u64 {
    let usual = input.choose(&[4096, 16, 100, 1000, 10_000, 20_000, 65_536, 300_000]);
    input.spoil(usual, 24)
}

fn enter(world: &mut World, out: &Out<*mut c_void>, status: i32, context: usize, bytes: u64, origin: Origin) {
    let Some(memory) = out.take(status) else { return };
    assert_eq!(memory as u64 % 256, 0);
    assert!(world.allocation_of(memory as u64).is_none(), "memory that is somebody's already");
    let allocation = Allocation { context, bytes, origin, mailboxes: 0, remains: None, users: Vec::new() };
    world.memory.add(memory as u64, allocation);
}

pub fn allocate(world: &mut World, input: &mut Input) {
    let (context, at) = world.context(input);
    let bytes = bytes(input);
    if world.memory.live().count() >= MOST {
        return;
    }
    let out = Out::<*mut c_void>::new(input);
    let status = call!(memory::gmb_memory_allocate(context, bytes, out.pointer()));
    let Some(at) = at else { return assert!(status < 0) };
    let fits = bytes > 0 && bytes <= world.contexts.0[at].it.limit;
    assert!(status != GMB_OK || fits, "{bytes} bytes");
    assert!(status == GMB_OK || !fits || !out.good || status == GMB_ERROR_MEMORY_LIMIT, "status {status}");
    enter(world, &out, status, at, bytes, Origin::Device);
}

pub fn allocate_async(world: &mut World, input: &mut Input) {
    let (context, at) = world.context(input);
    let bytes = bytes(input);
    if world.memory.live().count() >= MOST {
        return;
    }
    let (stream, resolved) = world.stream(input, at);
    let out = Out::<*mut c_void>::new(input);
    let status = call!(memory::gmb_memory_allocate_async(context, bytes, stream, out.pointer()));
    let (Some(at), Some(resolved)) = (at, resolved) else { return assert!(status < 0) };
    let fits = bytes > 0 && bytes <= world.contexts.0[at].it.limit;
    assert!(status != GMB_OK || fits, "{bytes} bytes");
    assert!(status == GMB_OK || !fits || !out.good || status == GMB_ERROR_MEMORY_LIMIT, "status {status}");
    enter(world, &out, status, at, bytes, Origin::Device);
    if status == GMB_OK {
        world.enqueued(at, resolved, &[]);
        // For work of other streams only when it comes after this one's.
        world.settle();
    }
}

pub fn pinned_allocate(world: &mut World, input: &mut Input) {
    let (context, at) = world.context(input);
    let mut bytes = bytes(input);
    if world.memory.live().count() >= MOST {
        return;
    }
    // Nothing limits it but the machine.
    if bytes > 1 << 20 && bytes <= i64::MAX as u64 {
        bytes = 1 << 20;
    }
    let out = Out::<*mut c_void>::new(input);
    let status = call!(memory::gmb_pinned_allocate(context, bytes, out.pointer()));
    assert_eq!(
        status == GMB_OK,
        at.is_some() && out.good && (1..=1 << 20).contains(&bytes),
        "status {status}"
    );
    if let (GMB_OK, Some(at)) = (status, at) {
        enter(world, &out, status, at, bytes, Origin::Pinned);
    }
}

/// What to free: the start of an allocation, or what nobody can free.
fn target(world: &World, input: &mut Input, origin: Origin) -> u64 {
    let own: Vec<usize> = world.memory.live().filter(|&at| world.memory.0[at].it.origin == origin).collect();
    let of_own = |nth: usize| own.get(nth % own.len().max(1)).map_or(0, |&at| world.memory.0[at].id);
    let address = match input.byte() {
        byte @ 0..=207 => of_own(usize::from(byte)),
        byte @ 208..=215 => of_own(usize::from(byte)) + input.choose(&[1, 16, 256]),
        byte @ 216..=223 => {
            world.memory.0.get(usize::from(byte) % world.memory.0.len().max(1)).map_or(0, |e| e.id)
        }
        224..=231 => 0,
        // A mailbox's own ring.
        232..=239 => world.mailboxes.live().map(|at| world.mailboxes.0[at].it.ring).next().unwrap_or(0),
        _ => input.edge(),
    };
    if world.arenas.holds(address) {
        0
    } else {
        address
    }
}

/// Nothing is done while a mailbox lies there, or other work uses it: that is the caller's duty.
fn is_free(world: &mut World, at: Option<usize>, waits_for: impl Fn(&(usize, u64)) -> bool) -> bool {
    let Some(at) = at else { return true };
    if world.memory.0[at].it.mailboxes > 0 {
        return false;
    }
    if !world.memory.0[at].it.users.iter().all(waits_for) {
        world.settle();
    }
    true
}

/// Whether this call may free it, and whose it is.
fn owner(world: &World, address: u64, context: Option<usize>, origin: Origin) -> (Option<usize>, bool) {
    let at = world.memory.find(address);
    let its = at.is_some_and(|at| {
        let it = &world.memory.0[at].it;
        Some(it.context) == context && it.origin == origin
    });
    (at, its)
}

pub fn free(world: &mut World, input: &mut Input) {
    let (context, of) = world.context(input);
    let address = target(world, input, Origin::Device);
    let (at, its) = owner(world, address, of, Origin::Device);
    // It waits for all work of its context, that of streams destroyed since included.
    if !is_free(world, at, |&(context, _)| Some(context) == of) {
        return;
    }
    let status = call!(memory::gmb_memory_free(context, address as *mut c_void));
    assert_eq!(status == GMB_OK, of.is_some() && (its || address == 0), "status {status}");
    if let (GMB_OK, Some(at)) = (status, at) {
        world.memory.0[at].live = false;
    }
}

pub fn free_async(world: &mut World, input: &mut Input) {
    let (context, of) = world.context(input);
    let (stream, resolved) = world.stream(input, of);
    let address = target(world, input, Origin::Device);
    let (at, its) = owner(world, address, of, Origin::Device);
    if !is_free(world, at, |&(context, stream)| (Some(context), Some(stream)) == (of, resolved)) {
        return;
    }
    let status = call!(memory::gmb_memory_free_async(context, address as *mut c_void, stream));
    assert_eq!(status == GMB_OK, resolved.is_some() && (its || address == 0), "status {status}");
    let (GMB_OK, Some(of), Some(resolved)) = (status, of, resolved) else { return };
    world.enqueued(of, resolved, &[]);
    if let Some(at) = at {
        world.memory.0[at].live = false;
    }
}

pub fn pinned_free(world: &mut World, input: &mut Input) {
    let (context, of) = world.context(input);
    let address = target(world, input, Origin::Pinned);
    let (at, its) = owner(world, address, of, Origin::Pinned);
    if !is_free(world, at, |&(context, _)| Some(context) == of) {
        return;
    }
    let status = call!(memory::gmb_pinned_free(context, address as *mut c_void));
    assert_eq!(status == GMB_OK, of.is_some() && (its || address == 0), "status {status}");
    if let (GMB_OK, Some(at)) = (status, at) {
        world.memory.0[at].live = false;
    }
}

/// Somewhere in memory that no mailbox lies in, and the bytes that follow.
pub fn somewhere(world: &World, input: &mut Input, alignment: u64) -> Option<(u64, u64, usize)> {
    let free: Vec<usize> = world.memory.live().filter(|&at| world.memory.0[at].it.mailboxes == 0).collect();
    let at = free.get(input.below(free.len())).copied()?;
    let bytes = world.memory.0[at].it.bytes;
    let offset = if input.chance(96) { input.word() % bytes / alignment * alignment } else { 0 };
    Some((world.memory.0[at].id + offset, bytes - offset, at))
}

pub fn copy(world: &mut World, input: &mut Input) {
    let (context, of) = world.context(input);
    let (stream, resolved) = world.stream(input, of);
    let Some((to, room, at)) = somewhere(world, input, 1) else { return };
    let from = somewhere(world, input, 1).filter(|_| input.chance(128));
    let (from, left) = from.map_or((world.arenas.source, SOURCE), |(from, left, _)| (from, left));
    let most = room.min(left);
    let within = 1 + input.word() % most;
    // Beyond the memory only so far that it must be refused.
    let edge = input.choose(&[0, 1 << 63, i64::MAX as u64, u64::MAX, u64::MAX - 15]);
    let bytes = if input.chance(16) { edge } else { within };
    let to = if input.chance(6) { 0 } else { to };
    let from = if input.chance(6) { 0 } else { from };
    let status =
        call!(memory::gmb_memory_copy(context, to as *mut c_void, from as *const c_void, bytes, stream));
    let apart = to.checked_add(bytes).is_some_and(|end| end <= from)
        || from.checked_add(bytes).is_some_and(|end| end <= to);
    let good = resolved.is_some() && to != 0 && from != 0 && bytes == within && apart;
    assert_eq!(status == GMB_OK, good, "status {status}");
    if let (true, Some(of), Some(resolved)) = (good, of, resolved) {
        world.memory.0[at].it.remains = None;
        world.enqueued(of, resolved, &[to, from]);
    }
}

pub fn fill(world: &mut World, input: &mut Input) {
    let (context, of) = world.context(input);
    let (stream, resolved) = world.stream(input, of);
    let Some((memory, room, at)) = somewhere(world, input, 1) else { return };
    let bytes = 1 + input.word() % room;
    let bytes = input.spoil(bytes, 32);
    let memory = input.spoil(memory, 8);
    if world.arenas.holds(memory) {
        return;
    }
    let value = input.byte();
    let status = call!(memory::gmb_memory_fill(context, memory as *mut c_void, value, bytes, stream));
    let inside = memory == world.memory.0[at].id || world.allocation_of(memory) == Some(at);
    let good = resolved.is_some() && inside && bytes > 0 && bytes <= room;
    assert_eq!(status == GMB_OK, good, "status {status}");
    if let (true, Some(of), Some(resolved)) = (good, of, resolved) {
        world.memory.0[at].it.remains = None;
        world.enqueued(of, resolved, &[memory]);
    }
}

pub fn get_info(world: &mut World, input: &mut Input) {
    let (context, at) = world.context(input);
    let told: Option<gmb_memory_info> = info(input, |to, size| {
        let status = call!(memory::gmb_memory_get_info(context, to, size));
        assert!(at.is_some() || status != GMB_OK);
        status
    });
    let (Some(told), Some(at)) = (told, at) else { return };
    assert_eq!(told.limit, world.contexts.0[at].it.limit);
    assert!(told.used <= told.limit && told.used <= told.high_water && told.high_water <= told.limit);
    let ours = world.memory.live().filter(|&m| {
        let it = &world.memory.0[m].it;
        it.context == at && it.origin == Origin::Device
    });
    let (count, bytes) = ours.fold((0, 0), |(n, sum), m| (n + 1, sum + world.memory.0[m].it.bytes));
    assert!(told.allocations >= count && told.used >= bytes);
}

pub fn trim(world: &mut World, input: &mut Input) {
    let (context, at) = world.context(input);
    let status = call!(memory::gmb_memory_trim(context, input.edge()));
    assert_eq!(status == GMB_OK, at.is_some(), "status {status}");
}
