//! Doorbells: commands that workers answer, or nobody.

use std::os::fd::{FromRawFd, OwnedFd};

use gpumailbox::capi::doorbell::*;
use gpumailbox::capi::readiness::gmb_watch;
use gpumailbox::*;

use crate::blob::{info, Blob, Out};
use crate::calls::call;
use crate::doorbells::{Command, Doorbell, Stand};
use crate::input::Input;
use crate::world::World;

const MOST: usize = 4;

fn pick(world: &World, input: &mut Input) -> (gmb_doorbell, Option<usize>) {
    let id = world.doorbells.bells.pick(input, world.strangers());
    (gmb_doorbell { id }, world.doorbells.bells.find(id))
}

/// The capacity of a ring in pinned memory, and whether it is one. None is larger than the machine shall give.
pub fn capacity(input: &mut Input, from: &[u64]) -> Option<(u64, bool)> {
    let capacity = input.choose(from);
    let capacity = input.spoil(capacity, 8);
    let good = capacity.is_power_of_two() && capacity <= GMB_MOST_MAPPED;
    (!good || capacity <= 4096).then_some((capacity, good))
}

pub fn create(world: &mut World, input: &mut Input) {
    if world.doorbells.bells.live().count() >= MOST {
        return;
    }
    let (context, at) = world.context(input);
    let Some((capacity, good)) = capacity(input, &[4, 1, 2, 8, 64]) else { return };
    let options = gmb_doorbell_options { struct_size: 0, reserved: input.spoil(0, 8) as u32, capacity };
    let (blob, sound) = Blob::sized(options, input);
    let out = Out::<gmb_doorbell>::new(input);
    let status = call!(doorbell::gmb_doorbell_create(context, blob.pointer(), out.pointer()));
    let good = good && options.reserved == 0 && sound && out.good && at.is_some();
    let full = status == GMB_ERROR_MEMORY_LIMIT;
    assert!((status == GMB_OK) == good || (full && good), "status {status}, good {good}");
    let (Some(made), Some(context)) = (out.take(status), at) else { return };
    let bell = Doorbell { context, capacity, commands: Vec::new(), server: None, ran: false };
    world.doorbells.bells.add(made.id, bell);
}

/// Whether what is submitted now will be answered, though it is not known when: a worker is there that does not leave by itself.
fn is_attended(world: &World, at: usize) -> bool {
    let Some(server) = world.doorbells.bells.0[at].it.server else { return false };
    let worker = &world.queues.workers.0[server].it;
    let on = worker.run.as_ref().is_some_and(|run| !run.paused && !run.stopped);
    on && worker.idle_threshold == 0 && worker.max_iterations == 0
}

/// Whether a run may be on, which takes what is submitted.
fn may_be_on(world: &World, at: usize) -> bool {
    let server = world.doorbells.bells.0[at].it.server;
    server.is_some_and(|server| world.queues.workers.0[server].it.run.is_some())
}

/// Whether the worker was asked to pause, or may have been left so: then answers may never come.
fn is_paused(world: &World, at: usize) -> bool {
    let server = world.doorbells.bells.0[at].it.server;
    let run = server.and_then(|server| world.queues.workers.0[server].it.run.as_ref());
    run.is_some_and(|run| run.paused)
}

/// A command, and whether it may be submitted.
fn command(input: &mut Input) -> (Blob, *mut gmb_command, gmb_command, bool) {
    let code = input.choose(&[GMB_COMMAND_PING, GMB_COMMAND_PING, GMB_COMMAND_COUNTS, GMB_COMMAND_USER, 0]);
    let code = input.spoil(code.into(), 16) as u32;
    let flags = input.spoil(0, 8) as u32;
    let n = input.word();
    let what = gmb_command { code, flags, argument: [n, !n, n.rotate_left(17)] };
    let blob = Blob::of(&[what, what]);
    let (at, sound) = match input.byte() {
        255 => (std::ptr::null_mut(), false),
        254 => (blob.pointer::<u8>().wrapping_add(4).cast(), false),
        _ => (blob.pointer(), true),
    };
    (blob, at, what, sound && flags == 0)
}

fn enter(world: &mut World, at: usize, id: u64, what: gmb_command, stand: Stand) {
    let (will_be, may_be) = (is_attended(world, at), may_be_on(world, at));
    let bell = &mut world.doorbells.bells.0[at].it;
    assert!(id == 0 || bell.commands.iter().all(|command| command.id != id), "a number twice: {id}");
    let command =
        Command { id, what, stand, cancelled: false, never_taken: false, may_be, will_be, answered: false };
    bell.commands.push(command);
}

pub fn submit(world: &mut World, input: &mut Input) {
    let (bell, at) = pick(world, input);
    let (_memory, from, what, sound) = command(input);
    let room = at.and_then(|at| world.doorbells.bells.0[at].it.has_room());
    let timeout = input.choose(&[0, 1, 50_000, if room == Some(true) { u64::MAX } else { 1000 }]);
    let (out, wanted) = (Out::<gmb_command_id>::new(input), !input.chance(48));
    let to = if wanted { out.pointer() } else { std::ptr::null_mut() };
    // Null is for no answer.
    let sound = sound && (out.good || to.is_null());
    let status = call!(doorbell::gmb_doorbell_submit(bell, from, timeout, to));
    let full = status == GMB_ERROR_FULL && room != Some(true);
    let good = sound && at.is_some();
    assert!((status == GMB_OK) == good || (full && good), "status {status}, room {room:?}");
    assert!(status != GMB_OK || room != Some(false), "a command beyond the capacity");
    let Some(at) = at.filter(|_| status == GMB_OK) else { return };
    match to.is_null() {
        true => enter(world, at, 0, what, Stand::Unwanted),
        false => {
            let id = out.take(status).expect("it was submitted").id;
            assert_ne!(id, 0);
            enter(world, at, id, what, Stand::Wanted);
        }
    }
}

/// Usually a command that is open.
fn number(world: &World, input: &mut Input, at: Option<usize>) -> gmb_command_id {
    let commands: Vec<(u64, bool)> = at.map_or(Vec::new(), |at| {
        let of = &world.doorbells.bells.0[at].it.commands;
        of.iter().map(|command| (command.id, command.stand == Stand::Wanted)).collect()
    });
    let id = match input.byte() {
        which @ 0..=215 => {
            let open: Vec<u64> = commands.iter().filter(|(_, open)| *open).map(|&(id, _)| id).collect();
            open.get(usize::from(which) % open.len().max(1)).copied().unwrap_or(1 << 40)
        }
        which @ 216..=239 => {
            commands.get(usize::from(which) % commands.len().max(1)).map_or(7, |&(id, _)| id)
        }
        _ => input.edge(),
    };
    gmb_command_id { id }
}

pub fn wait(world: &mut World, input: &mut Input) {
    let (bell, at) = pick(world, input);
    let id = number(world, input, at);
    let open = at.and_then(|at| world.doorbells.bells.0[at].it.open(id.id).map(|n| (at, n)));
    let of = |(at, n): (usize, usize)| &world.doorbells.bells.0[at].it.commands[n];
    let comes = open.is_some_and(|(at, n)| {
        let command = of((at, n));
        command.answered || (command.will_be && !is_paused(world, at))
    });
    let timeout = input.choose(&[if comes { u64::MAX } else { 20_000 }, 0, 1000]);
    let out = Out::<gmb_answer>::new(input);
    let status = call!(doorbell::gmb_doorbell_wait(bell, id, timeout, out.pointer()));
    let good = open.is_some() && out.good;
    let late = status == GMB_ERROR_TIMEOUT && good && timeout != u64::MAX;
    assert!((status == GMB_OK) == good || late, "status {status}: {}", super::status::message());
    let (Some((at, n)), true) = (open, out.good) else { return };
    let bell = &mut world.doorbells.bells.0[at].it;
    assert!(
        !late || !bell.commands[n].answered,
        "the worker has ended, and {:?} has no answer",
        bell.commands[n].what
    );
    let Some(answer) = out.take(status) else { return };
    bell.check(&bell.commands[n], &answer);
    bell.commands[n].stand = Stand::Collected;
}

pub fn cancel(world: &mut World, input: &mut Input) {
    let (bell, at) = pick(world, input);
    let id = number(world, input, at);
    let status = call!(doorbell::gmb_doorbell_cancel(bell, id));
    let open = at.and_then(|at| world.doorbells.bells.0[at].it.open(id.id).map(|n| (at, n)));
    assert_eq!(status == GMB_OK, open.is_some(), "status {status}");
    let Some((at, n)) = open else { return };
    let command = &mut world.doorbells.bells.0[at].it.commands[n];
    command.never_taken |= !command.may_be;
    command.cancelled = true;
}

pub fn forget(world: &mut World, input: &mut Input) {
    let (bell, at) = pick(world, input);
    let id = number(world, input, at);
    let status = call!(doorbell::gmb_doorbell_forget(bell, id));
    let open = at.and_then(|at| world.doorbells.bells.0[at].it.open(id.id).map(|n| (at, n)));
    assert_eq!(status == GMB_OK, open.is_some(), "status {status}");
    if let Some((at, n)) = open {
        world.doorbells.bells.0[at].it.commands[n].stand = Stand::Unwanted;
    }
}

pub fn ring(world: &mut World, input: &mut Input) {
    let (bell, at) = pick(world, input);
    let (_memory, from, what, sound) = command(input);
    let room = at.and_then(|at| world.doorbells.bells.0[at].it.has_room());
    let attended = at.is_some_and(|at| is_attended(world, at)) && room == Some(true);
    let timeout = input.choose(&[if attended { u64::MAX } else { 20_000 }, 0, 1000]);
    let out = Out::<gmb_answer>::new(input);
    let status = call!(doorbell::gmb_doorbell_call(bell, from, timeout, out.pointer()));
    let good = sound && out.good && at.is_some();
    let full = status == GMB_ERROR_FULL && room != Some(true);
    let late = status == GMB_ERROR_TIMEOUT && room != Some(false) && timeout != u64::MAX;
    assert!((status == GMB_OK) == good || ((full || late) && good), "status {status}, room {room:?}");
    let Some(at) = at.filter(|_| good && !full) else { return };
    enter(world, at, 0, what, Stand::Unwanted);
    let Some(answer) = out.take(status) else { return };
    let bell = &mut world.doorbells.bells.0[at].it;
    let n = bell.commands.len() - 1;
    bell.check(&bell.commands[n], &answer);
    bell.commands[n].stand = Stand::Collected;
}

pub fn get_info(world: &mut World, input: &mut Input) {
    let (bell, at) = pick(world, input);
    let told: Option<gmb_doorbell_info> = info(input, |to, size| {
        let status = call!(doorbell::gmb_doorbell_get_info(bell, to, size));
        assert!(at.is_some() || status != GMB_OK);
        status
    });
    let (Some(told), Some(at)) = (told, at) else { return };
    let it = &world.doorbells.bells.0[at].it;
    assert_eq!((told.capacity, told.submitted), (it.capacity, it.commands.len() as u64));
    assert_eq!((told.served, told.reserved), (it.server.is_some().into(), 0));
    assert!(!told.doorbell.is_null());
    let (least, most) = (it.wanted(), it.capacity.min(it.wanted() + it.unwanted()));
    assert!(
        (least..=most).contains(&told.outstanding),
        "{} under way, not {least} to {most}",
        told.outstanding
    );
}

/// A watch from its making to its end.
pub fn watch(world: &mut World, input: &mut Input) {
    let (bell, at) = pick(world, input);
    let out = Out::<gmb_watch>::new(input);
    let status = call!(doorbell::gmb_doorbell_create_watch(bell, out.pointer()));
    assert_eq!(status == GMB_OK, at.is_some() && out.good, "status {status}");
    let (Some(watch), Some(at)) = (out.take(status), at) else { return };
    let it = &world.doorbells.bells.0[at].it;
    let answered = it.commands.iter().filter(|c| c.stand == Stand::Wanted && c.answered).count() as u64;
    watched(input, watch, it.capacity, answered, if it.ran { it.capacity } else { 0 });
}

/// Arms a watch, looks whether its descriptor says what it must, and ends it: so many are there at least, and at most.
pub fn watched(input: &mut Input, watch: gmb_watch, capacity: u64, least: u64, most: u64) {
    for _ in 0..input.below(3) {
        let count = input.word() % capacity + 1;
        let count = input.spoil(count, 16) as u32;
        let status = call!(readiness::gmb_watch_arm(watch, count));
        assert_eq!(status == GMB_OK, count > 0 && u64::from(count) <= capacity, "status {status}");
        let out = Out::<i32>::good();
        let descriptor = call!(readiness::gmb_watch_get_fd(watch, out.pointer()));
        let Some(descriptor) = out.take(descriptor) else { continue };
        // SAFETY: the caller's own, from now on.
        let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
        if status == GMB_OK {
            let readable = is_readable(&descriptor);
            assert!(readable || least < u64::from(count), "{least} are there, and nobody says so of {count}");
            assert!(
                !readable || most >= u64::from(count),
                "{most} are there, and somebody says so of {count}"
            );
        }
    }
    assert_eq!(call!(readiness::gmb_watch_destroy(watch)), GMB_OK);
}

#[repr(C)]
struct Poll {
    descriptor: i32,
    events: i16,
    happened: i16,
}

extern "C" {
    fn poll(all: *mut Poll, count: u64, milliseconds: i32) -> i32;
}

fn is_readable(descriptor: &OwnedFd) -> bool {
    use std::os::fd::AsRawFd;
    let mut one = Poll { descriptor: descriptor.as_raw_fd(), events: 1, happened: 0 };
    // SAFETY: one entry, as poll(2) has it.
    unsafe { poll(&mut one, 1, 0) == 1 }
}

pub fn destroy(world: &mut World, input: &mut Input) {
    let (bell, at) = pick(world, input);
    match at {
        Some(at) if world.doorbells.bells.0[at].it.server.is_none() => end(world, at),
        Some(_) => assert_eq!(call!(doorbell::gmb_doorbell_destroy(bell)), GMB_ERROR_BUSY),
        None => assert_eq!(call!(doorbell::gmb_doorbell_destroy(bell)), GMB_ERROR_INVALID_HANDLE),
    }
}

fn end(world: &mut World, at: usize) {
    let id = world.doorbells.bells.0[at].id;
    assert_eq!(call!(doorbell::gmb_doorbell_destroy(gmb_doorbell { id })), GMB_OK);
    world.doorbells.bells.0[at].live = false;
}

/// Ends all that live.
pub fn end_all(world: &mut World) {
    let live: Vec<usize> = world.doorbells.bells.live().collect();
    for at in live {
        end(world, at);
    }
}
