//! Coordinators: made, asked, waited for, polled, ended.

use gpumailbox::capi::coordinator::*;
use gpumailbox::capi::stream::gmb_stream;
use gpumailbox::*;

use crate::blob::{info, Blob, Out};
use crate::calls::call;
use crate::input::Input;
use crate::pipelines::{Coordinator, NUMBER};
use crate::world::World;

/// Each comes with threads.
const MOST: usize = 2;
/// Numbers that failed calls took count, too; more operations take more memory than a sequence may.
const MOST_OPERATIONS: u64 = 4096;

pub fn pick(world: &World, input: &mut Input) -> (gmb_coordinator, Option<usize>) {
    let coordinators = &world.pipelines.coordinators;
    let id = coordinators.pick(input, world.strangers());
    (gmb_coordinator { id }, coordinators.find(id))
}

pub fn create(world: &mut World, input: &mut Input) {
    if world.pipelines.coordinators.live().count() >= MOST {
        return;
    }
    let (context, at) = world.context(input);
    let most = input.choose(&[64, 0, 1, 2, 3, 8, 64, 64]);
    let most = input.spoil(most, 12) as u32;
    if (MOST_OPERATIONS + 1..=1 << 20).contains(&most.into()) {
        return;
    }
    let priority = input.below(3) as u64;
    let options = gmb_coordinator_options {
        struct_size: 0,
        max_operations: most,
        priority: input.spoil(priority, 8) as i32,
        flags: input.spoil(0, 8) as u32,
    };
    // Untimed and on three streams; with other flags what is told is another.
    if options.flags != 0 && options.flags < 4 {
        return;
    }
    let good = most <= 1 << 20 && (0..3).contains(&options.priority) && options.flags == 0;
    let (blob, sound) = Blob::sized(options, input);
    let out = Out::<gmb_coordinator>::new(input);
    let status = call!(coordinator::gmb_coordinator_create(context, blob.pointer(), out.pointer()));
    assert_eq!(status == GMB_OK, good && sound && out.good && at.is_some(), "status {status}");
    let (Some(made), Some(context)) = (out.take(status), at) else { return };
    let streams = [0, 1, 2].map(|step| {
        let out = Out::<gmb_stream>::good();
        let status = call!(coordinator::gmb_coordinator_get_stream(made, step, out.pointer()));
        out.take(status).expect("each step has a stream") as u64
    });
    assert!(streams[0] != streams[1] && streams[1] != streams[2] && streams.iter().all(|&one| one > 2));
    let most = if most == 0 { MOST_OPERATIONS } else { most.into() };
    let it =
        Coordinator { context, most, streams, operations: Vec::new(), since: 0, refused: 0, lossy: false };
    world.pipelines.coordinators.add(made.id, it);
    check(world, world.pipelines.coordinators.0.len() - 1, &told(made));
}

fn told(coordinator: gmb_coordinator) -> gmb_coordinator_info {
    let out = Out::<gmb_coordinator_info>::good();
    let size = size_of::<gmb_coordinator_info>();
    let status = call!(coordinator::gmb_coordinator_get_info(coordinator, out.pointer(), size));
    out.take(status).expect("a coordinator tells of itself")
}

fn check(world: &World, at: usize, told: &gmb_coordinator_info) {
    let it = &world.pipelines.coordinators.0[at].it;
    assert_eq!((u64::from(told.max_operations), told.reserved), (it.most, 0));
    let known = it.operations.len() as u64;
    assert!(told.queued >= known && told.in_flight <= known.min(it.most) && told.high_water <= it.most);
    assert!(told.in_flight <= told.events && told.events <= it.most);
}

pub fn get_info(world: &mut World, input: &mut Input) {
    let (coordinator, at) = pick(world, input);
    let told: Option<gmb_coordinator_info> = info(input, |to, size| {
        let status = call!(coordinator::gmb_coordinator_get_info(coordinator, to, size));
        assert!(at.is_some() || status != GMB_OK);
        status
    });
    if let (Some(told), Some(at)) = (told, at) {
        check(world, at, &told);
    }
}

/// Its streams are for work of one's own, too, but nobody else's to end.
pub fn stream(world: &mut World, input: &mut Input) {
    let (coordinator, at) = pick(world, input);
    let wanted = input.below(3) as u64;
    let step = input.spoil(wanted, 16) as i32;
    let out = Out::<gmb_stream>::new(input);
    let status = call!(coordinator::gmb_coordinator_get_stream(coordinator, step, out.pointer()));
    assert_eq!(status == GMB_OK, at.is_some() && (0..3).contains(&step) && out.good, "status {status}");
    let (Some(stream), Some(at)) = (out.take(status), at) else { return };
    let it = &world.pipelines.coordinators.0[at].it;
    let context = it.context;
    assert_eq!(stream as u64, it.streams[step as usize]);
    if !world.contexts.0[context].live {
        return;
    }
    let handle = capi::context::gmb_context { id: world.contexts.0[context].id };
    if input.chance(24) {
        assert_eq!(call!(stream::gmb_stream_destroy(handle, stream)), GMB_ERROR_INVALID_STREAM);
    }
    let Some((memory, room, _)) = super::memory::somewhere(world, input, 1) else { return };
    let bytes = 1 + input.word() % room;
    let status = call!(memory::gmb_memory_fill(handle, memory as *mut _, 5, bytes, stream));
    assert_eq!(status, GMB_OK, "{}", super::status::message());
    super::module::written(world, memory);
    world.enqueued(context, stream as u64, &[memory]);
}

/// Asks what is done, and holds what comes against what must be.
fn ask(world: &mut World, at: usize, max: u32, room: &Blob) -> Option<u64> {
    let id = world.pipelines.coordinators.0[at].id;
    let out = Out::<u32>::good();
    let status =
        call!(coordinator::gmb_coordinator_poll(gmb_coordinator { id }, max, room.pointer(), out.pointer()));
    assert_eq!(status == GMB_OK, (1..=GMB_MAX_RECORDS).contains(&max), "status {status}");
    let count = out.take(status)?;
    let it = &mut world.pipelines.coordinators.0[at].it;
    assert!(u64::from(count) <= u64::from(max).min(it.kept()), "{count} completions of {max}");
    for n in 0..count as usize {
        // SAFETY: so many were written.
        let done = unsafe { room.pointer::<gmb_completion>().add(n).read() };
        let one = it.ended(&done);
        assert!(!std::mem::replace(&mut it.operations[one].told, true), "operation {one} was told of twice");
        let early = |id: &u64| it.find(*id).is_some_and(|before| !before.told && !it.lossy);
        assert!(!it.operations[one].after.iter().any(early), "operation {one} before what it came after");
    }
    Some(count.into())
}

/// Says what is done.
pub fn poll(world: &mut World, input: &mut Input) {
    let (coordinator, at) = pick(world, input);
    let max = input.choose(&[8, 1, 2, 100]);
    let max = input.spoil(max, 16) as u32;
    // A coordinator keeps no more.
    let room = Blob::new(size_of::<gmb_completion>() * u64::from(max).min(2 * MOST_OPERATIONS) as usize);
    let all = input.chance(96);
    if let Some(at) = at.filter(|_| !input.chance(8)) {
        if all {
            world.settle();
        }
        let it = &world.pipelines.coordinators.0[at].it;
        let (untold, lossy) = (it.untold(), it.lossy);
        let count = ask(world, at, max, &room);
        let right = !all || lossy || count.is_none_or(|count| count == untold.min(max.into()));
        return assert!(right, "{count:?} completions of {untold}, at most {max}");
    }
    let out = Out::<u32>::new(input);
    let to = match input.chance(64) {
        true => std::ptr::null_mut(),
        false => room.pointer::<u8>().wrapping_add(4).cast(),
    };
    let status = call!(coordinator::gmb_coordinator_poll(coordinator, max, to, out.pointer()));
    assert!(status < 0, "status {status}");
    assert!(room.is_untouched() && out.take(status).is_none());
}

/// An id to wait for: of one of its operations, of another's, or of none.
fn operation(world: &World, input: &mut Input, at: Option<usize>) -> gmb_operation {
    let coordinators = &world.pipelines.coordinators;
    let of = |at: usize| coordinators.0[at].it.operations.iter().map(|one| one.id).collect::<Vec<_>>();
    let own = at.map(of).unwrap_or_default();
    let id = match input.byte() {
        usual @ 0..=223 => {
            own.len().checked_sub(1 + usize::from(usual) % own.len().max(1)).map_or(0, |n| own[n])
        }
        other @ 224..=231 => {
            let all: Vec<u64> = coordinators.live().filter(|&other| Some(other) != at).flat_map(of).collect();
            all.get(usize::from(other) % all.len().max(1)).copied().unwrap_or(1)
        }
        232..=235 => own.last().copied().unwrap_or(1) ^ 1 << 63,
        236..=239 => own.last().copied().unwrap_or(1) | 1 << 40,
        240..=243 => 0,
        244..=247 => u64::MAX,
        _ => own.first().copied().unwrap_or(1) & !NUMBER,
    };
    gmb_operation { id }
}

/// What operations come after, with a pointer to them, and whether that is in order.
pub struct After {
    pub list: Vec<u64>,
    pub at: *const gmb_operation,
    pub count: u32,
    pub good: bool,
    _blob: Blob,
}

pub fn after(world: &World, input: &mut Input, at: Option<usize>) -> After {
    let count = input.choose(&[0, 1, 0, 1, 2, 3]);
    let given: Vec<_> = (0..count).map(|_| operation(world, input, at)).collect();
    let blob = Blob::of(&given);
    let list: Vec<u64> = given.iter().map(|one| one.id).collect();
    let pointer = match input.byte() {
        255 => std::ptr::null(),
        254 => blob.pointer::<u8>().wrapping_add(4).cast_const().cast(),
        _ => blob.pointer::<gmb_operation>().cast_const(),
    };
    let there = count == 0 || pointer == blob.pointer::<gmb_operation>().cast_const();
    let it = at.map(|at| &world.pipelines.coordinators.0[at].it);
    let good = there && it.is_some_and(|it| list.iter().all(|&id| it.find(id).is_some()));
    After { list, at: pointer, count: count as u32, good, _blob: blob }
}

/// One good id, or one that is none: for graphs.
pub fn one_operation(world: &World, input: &mut Input, at: Option<usize>) -> (u64, bool) {
    let id = operation(world, input, at).id;
    (id, at.is_some_and(|at| world.pipelines.coordinators.0[at].it.find(id).is_some()))
}

pub fn wait(world: &mut World, input: &mut Input) {
    let (coordinator, at) = pick(world, input);
    let wanted = operation(world, input, at);
    let patient = input.chance(160);
    let timeout = if patient { input.choose(&[u64::MAX, 1 << 63]) } else { input.choose(&[0, 1, 5_000]) };
    let null = input.chance(64);
    let out = Out::<gmb_completion>::new(input);
    let to = if null { std::ptr::null_mut() } else { out.pointer() };
    let status = call!(coordinator::gmb_coordinator_wait(coordinator, wanted, timeout, to));
    let given = !to.is_null();
    let it = at.map(|at| &world.pipelines.coordinators.0[at].it);
    let known = it.and_then(|it| it.operations.iter().position(|one| one.id == wanted.id));
    let (Some(it), Some(n), true) = (it, known, !given || out.good) else { return assert!(status < 0) };
    if status == GMB_OK {
        if given {
            let done = out.take(status).expect("the completion");
            assert_eq!(done.operation.id, wanted.id);
            assert_eq!(it.ended(&done), n);
        }
        return assert!(it.operations[n].fates.is_empty() || it.operations[n].any, "it was to fail");
    }
    let forgotten = status == GMB_ERROR_INVALID_HANDLE && it.may_be_forgotten(wanted.id);
    let late = status == GMB_ERROR_TIMEOUT && !patient;
    let one = &it.operations[n];
    let own = one.any || one.fates.iter().any(|&(fate, _)| fate.is_none_or(|fate| fate == status));
    assert!(forgotten || late || own, "status {status}, {:?}: {}", one.fates, super::status::message());
}

pub fn synchronize(world: &mut World, input: &mut Input) {
    let (coordinator, at) = pick(world, input);
    let timeout = input.choose(&[u64::MAX, u64::MAX, 0, 1, 5_000, 1 << 63]);
    let status = call!(coordinator::gmb_coordinator_synchronize(coordinator, timeout));
    let Some(at) = at else { return assert_eq!(status, GMB_ERROR_INVALID_HANDLE) };
    assert!(status == GMB_OK || (status == GMB_ERROR_TIMEOUT && timeout <= 5_000), "status {status}");
    if status == GMB_OK {
        world.pipelines.coordinators.0[at].it.since = 0;
    }
}

/// All operations of all that live are done.
pub fn settle(world: &mut World) {
    for at in world.pipelines.coordinators.live().collect::<Vec<_>>() {
        let id = world.pipelines.coordinators.0[at].id;
        assert_eq!(call!(coordinator::gmb_coordinator_synchronize(gmb_coordinator { id }, u64::MAX)), GMB_OK);
        assert_eq!(told(gmb_coordinator { id }).in_flight, 0);
    }
}

pub fn destroy(world: &mut World, input: &mut Input) {
    let (coordinator, at) = pick(world, input);
    match at {
        Some(at) => end(world, at),
        None => {
            assert_eq!(call!(coordinator::gmb_coordinator_destroy(coordinator)), GMB_ERROR_INVALID_HANDLE)
        }
    }
}

fn end(world: &mut World, at: usize) {
    // Work of one's own on its streams.
    let streams = world.pipelines.coordinators.0[at].it.streams;
    if world.dirty.iter().any(|(_, stream)| streams.contains(stream)) {
        world.settle();
    }
    let id = world.pipelines.coordinators.0[at].id;
    assert_eq!(call!(coordinator::gmb_coordinator_destroy(gmb_coordinator { id })), GMB_OK);
    world.pipelines.coordinators.0[at].live = false;
    // It has waited for its operations.
    for allocation in &mut world.memory.0 {
        allocation.it.users.retain(|&(_, stream)| stream != super::operation::mark(at));
    }
}

/// Ends all that live.
pub fn end_all(world: &mut World) {
    for at in world.pipelines.coordinators.live().collect::<Vec<_>>() {
        end(world, at);
    }
}
