//! Tensor mailboxes, from the pushes to the pops; what becomes of leases is in `lease`.

use std::sync::atomic::{AtomicU64, Ordering};

use gpumailbox::capi::stream::gmb_stream;
use gpumailbox::capi::tensor::*;
use gpumailbox::*;

use super::graph::patiently;
use crate::blob::{info, Blob, Out};
use crate::calls::call;
use crate::input::Input;
use crate::model::Policy;
use crate::probe::{Kind, Probe};
use crate::tensors::{Export, Inbox};
use crate::world::World;

const POLICIES: [Policy; 4] = [Policy::Reject, Policy::Wait, Policy::Oldest, Policy::Latest];
const MOST: usize = 5;

fn pick(world: &World, input: &mut Input) -> (gmb_tensor_mailbox, Option<usize>) {
    let id = world.tensors.mailboxes.pick(input, world.strangers());
    (gmb_tensor_mailbox { id }, world.tensors.mailboxes.find(id))
}

pub fn create(world: &mut World, input: &mut Input) {
    if world.tensors.mailboxes.live().count() >= MOST {
        return;
    }
    let (context, at) = world.context(input);
    let (capacity, consumer) = (input.choose(&[2, 1, 4, 8, 64, 2]), u64::from(input.chance(80)));
    let policy = input.below(if consumer == 1 { 2 } else { 4 }) as u64;
    let options = gmb_tensor_mailbox_options {
        struct_size: 0,
        consumer: input.spoil(consumer, 8) as i32,
        capacity: input.spoil(capacity, 8),
        full_policy: input.spoil(policy, 8) as i32,
        reserved: input.spoil(0, 8) as u32,
    };
    let good = (0..2).contains(&options.consumer)
        && options.capacity.is_power_of_two()
        && options.capacity <= 1 << 20
        && (0..4).contains(&options.full_policy)
        && (options.consumer == 0 || options.full_policy < 2)
        && options.reserved == 0;
    // Larger ones take longer than they tell.
    if options.capacity > 4096 && good && options.consumer == 1 {
        return;
    }
    let (blob, sound) = Blob::sized(options, input);
    let out = Out::<gmb_tensor_mailbox>::new(input);
    let status = call!(tensor::gmb_tensor_mailbox_create(context, blob.pointer(), out.pointer()));
    let good = good && sound && out.good && at.is_some();
    // A ring is device memory.
    let full = status == GMB_ERROR_MEMORY_LIMIT && options.consumer == 1;
    assert!((status == GMB_OK) == good || (full && good), "status {status}, good {good}");
    let (Some(made), Some(context)) = (out.take(status), at) else { return };
    let inbox = Inbox {
        context,
        on_device: options.consumer == 1,
        policy: POLICIES[options.full_policy as usize],
        capacity: options.capacity,
        queue: Default::default(),
        next: 0,
        taken: 0,
        pushed: 0,
        popped: 0,
        refused: 0,
        dropped: 0,
        view: None,
        users: Vec::new(),
    };
    world.tensors.mailboxes.add(made.id, inbox);
}

pub fn destroy(world: &mut World, input: &mut Input) {
    let (mailbox, at) = pick(world, input);
    match at {
        Some(at) => end(world, at),
        None => {
            let status = call!(tensor::gmb_tensor_mailbox_destroy(mailbox));
            assert_eq!(status, GMB_ERROR_INVALID_HANDLE);
        }
    }
}

pub fn end(world: &mut World, at: usize) {
    let entry = &mut world.tensors.mailboxes.0[at];
    for (_, probe) in std::mem::take(&mut entry.it.queue) {
        world.tensors.probes[probe].may_end = true;
    }
    let id = entry.id;
    assert_eq!(call!(tensor::gmb_tensor_mailbox_destroy(gmb_tensor_mailbox { id })), GMB_OK);
    let entry = &mut world.tensors.mailboxes.0[at];
    entry.live = false;
    entry.it.view = None;
    let (context, users) = (entry.it.context, std::mem::take(&mut entry.it.users));
    for stream in users {
        // What they hold now is waited for.
        world.enqueued(context, stream, &[]);
    }
    world.tensors.check();
}

fn told(mailbox: gmb_tensor_mailbox) -> gmb_tensor_mailbox_info {
    let out = Out::<gmb_tensor_mailbox_info>::good();
    let size = size_of::<gmb_tensor_mailbox_info>();
    let status = call!(tensor::gmb_tensor_mailbox_get_info(mailbox, out.pointer(), size));
    out.take(status).expect("a tensor mailbox tells of itself")
}

pub fn get_info(world: &mut World, input: &mut Input) {
    let (mailbox, at) = pick(world, input);
    let told: Option<gmb_tensor_mailbox_info> = info(input, |to, size| {
        let status = call!(tensor::gmb_tensor_mailbox_get_info(mailbox, to, size));
        assert!(at.is_some() || status != GMB_OK);
        status
    });
    let (Some(told), Some(at)) = (told, at) else { return };
    let inbox = &world.tensors.mailboxes.0[at].it;
    assert_eq!((told.consumer == 1, told.capacity), (inbox.on_device, inbox.capacity));
    assert_eq!(POLICIES[told.full_policy as usize], inbox.policy);
    assert_eq!((told.pushed, told.popped), (inbox.pushed, inbox.popped), "pushed and popped");
    assert_eq!((told.refused, told.dropped), (inbox.refused, inbox.dropped), "refused and dropped");
    assert_eq!(told.queued, inbox.queue.len() as u64, "queued");
    assert_eq!(told.leases, world.tensors.leases_of(at), "leases");
    let ending = world.tensors.ending(at);
    assert!(
        told.released <= ending && told.retiring + told.released >= ending,
        "{} and {} of {ending}",
        told.retiring,
        told.released
    );
    if input.chance(64) {
        world.settle();
        patiently(|| self::told(mailbox).retiring == 0);
        let told = self::told(mailbox);
        assert_eq!((told.released, told.retiring), (ending, 0), "all work is done");
    }
    world.tensors.check();
}

/// What `how` may be, and whether it is good; none for the defaults.
fn how(
    world: &World,
    input: &mut Input,
    at: Option<usize>,
    tag: u64,
) -> (Option<Blob>, gmb_tensor_push, bool) {
    let usual = gmb_tensor_push { struct_size: 0, flags: 0, tag, timeout_ns: u64::MAX };
    let would_wait = at.is_some_and(|at| {
        let inbox = &world.tensors.mailboxes.0[at].it;
        inbox.policy == Policy::Wait && !inbox.has_room()
    });
    if input.chance(32) && !would_wait {
        return (None, gmb_tensor_push { tag: 0, ..usual }, true);
    }
    let flags = u64::from(input.chance(96));
    let how = gmb_tensor_push {
        flags: input.spoil(flags, 8) as u32,
        timeout_ns: if would_wait { input.choose(&[0, 1, 3_000]) } else { input.choose(&[u64::MAX, 0]) },
        ..usual
    };
    let (blob, sound) = Blob::sized(how, input);
    (Some(blob), how, sound && how.flags < 2)
}

pub fn push(world: &mut World, input: &mut Input) {
    if world.tensors.probes.len() >= 120 {
        return;
    }
    let (mailbox, at) = pick(world, input);
    let context = at.map(|at| world.tensors.mailboxes.0[at].it.context);
    let kind = input.choose(&[Kind::Versioned, Kind::Legacy, Kind::Arrow, Kind::Versioned]);
    let source = world.arenas.source;
    let mut probe = match kind {
        Kind::Arrow => Probe::arrow(input, source),
        _ => Probe::dlpack(input, source, kind),
    };
    let (blob, how, sound) = how(world, input, at, world.tensors.probes.len() as u64 + 1);
    let (stream, resolved) = world.stream(input, context);
    probe.record.tag = how.tag;
    probe.mailbox = at;
    let crooked = input.chance(4);
    let status = submit(&mut probe, mailbox, blob.as_ref(), stream, crooked);

    let reached = at.is_some() && sound && !crooked;
    let whole = reached && resolved.is_some() && probe.status == GMB_OK;
    let room = at.is_some_and(|at| world.tensors.mailboxes.0[at].it.has_room());
    let policy = at.map(|at| world.tensors.mailboxes.0[at].it.policy);
    let wanted = match policy {
        Some(Policy::Reject) if !room => GMB_ERROR_FULL,
        Some(Policy::Wait) if !room => GMB_ERROR_TIMEOUT,
        _ => GMB_OK,
    };
    if whole {
        assert_eq!(status, wanted, "{}", super::status::message());
    } else {
        assert!(status < 0 && ![GMB_ERROR_FULL, GMB_ERROR_TIMEOUT].contains(&status), "status {status}");
    }
    if reached && resolved.is_some() {
        let of_its_own = if probe.status == GMB_OK { wanted } else { probe.status };
        assert_eq!(status, of_its_own, "{kind:?}: {}", super::status::message());
    }
    let number = world.tensors.probes.len();
    let dropped = whole && status != GMB_OK && how.flags == 1;
    // Of another version: ended inside the call.
    let of_another = status == GMB_ERROR_BAD_VERSION;
    assert_eq!(of_another, reached && probe.status == GMB_ERROR_BAD_VERSION, "status {status}");
    probe.is_taken = status == GMB_OK || dropped || of_another;
    probe.may_end = dropped || of_another;
    if let (Some(at), true) = (at, whole) {
        let inbox = &mut world.tensors.mailboxes.0[at].it;
        inbox.refused += u64::from(status != GMB_OK);
        inbox.dropped += u64::from(dropped);
        if status == GMB_OK {
            let gone = match inbox.policy {
                Policy::Latest => inbox.queue.len(),
                Policy::Oldest if !room => 1,
                _ => 0,
            };
            inbox.dropped += gone as u64;
            for (_, old) in inbox.queue.drain(..gone) {
                world.tensors.probes[old].may_end = true;
            }
            inbox.queue.push_back((inbox.next, number));
            inbox.next += 1;
            inbox.pushed += 1;
        }
    }
    if of_another {
        // Never the mailbox's.
        probe.mailbox = None;
    }
    world.tensors.probes.push(probe);
    // Also of one that was refused the stream is marked.
    if let (Some(context), Some(resolved)) = (context, resolved) {
        world.enqueued(context, resolved, &[]);
    }
    world.tensors.check();
}

fn submit(
    probe: &mut Probe,
    mailbox: gmb_tensor_mailbox,
    how: Option<&Blob>,
    stream: gmb_stream,
    crooked: bool,
) -> i32 {
    let how = how.map_or(std::ptr::null(), |blob| blob.pointer::<gmb_tensor_push>().cast_const());
    let off = usize::from(crooked) * 4;
    match probe.kind {
        Kind::Versioned => {
            let tensor = (&raw mut probe.versioned).wrapping_byte_add(off);
            call!(tensor::gmb_tensor_mailbox_push(mailbox, tensor, how, stream))
        }
        Kind::Legacy => {
            let tensor = (&raw mut probe.legacy).wrapping_byte_add(off);
            call!(tensor::gmb_tensor_mailbox_push_legacy(mailbox, tensor, how, stream))
        }
        Kind::Arrow => {
            let (array, schema) = ((&raw mut probe.array).wrapping_byte_add(off), &raw mut probe.schema);
            call!(tensor::gmb_tensor_mailbox_push_arrow(mailbox, array, schema, how, stream))
        }
    }
}

/// How long to wait for a tensor: not for ever when none will come.
fn patience(world: &World, input: &mut Input, at: Option<usize>) -> u64 {
    let some = at.is_some_and(|at| !world.tensors.mailboxes.0[at].it.queue.is_empty());
    input.choose(&[0, 1, 3_000, if some { u64::MAX } else { 0 }])
}

/// Holds a pop's status against the model; the tensor that came, if one did.
fn popped(
    world: &mut World,
    at: Option<usize>,
    resolved: Option<u64>,
    sound: bool,
    status: i32,
) -> Option<usize> {
    let inbox = at.map(|at| &mut world.tensors.mailboxes.0[at].it).filter(|inbox| !inbox.on_device);
    let good = inbox.is_some() && resolved.is_some() && sound;
    assert_eq!(status >= 0, good, "status {status}");
    let (inbox, stream) = (inbox.filter(|_| good)?, resolved?);
    let Some((_, number)) = inbox.queue.pop_front() else {
        assert_eq!(status, GMB_NOT_READY);
        return None;
    };
    assert_eq!(status, GMB_OK, "it holds a tensor");
    inbox.popped += 1;
    let context = inbox.context;
    let probe = &mut world.tensors.probes[number];
    probe.hold();
    probe.users.push(stream);
    world.enqueued(context, stream, &[]);
    Some(number)
}

pub fn pop(world: &mut World, input: &mut Input) {
    let (mailbox, at) = pick(world, input);
    let context = at.map(|at| world.tensors.mailboxes.0[at].it.context);
    let (stream, resolved) = world.stream(input, context);
    let patience = patience(world, input, at);
    let (lease, record) = (Out::<gmb_lease>::new(input), Out::<gmb_tensor>::new(input));
    let not_asked = record.pointer().is_null();
    let status =
        call!(tensor::gmb_tensor_mailbox_pop(mailbox, stream, patience, lease.pointer(), record.pointer()));
    let came = popped(world, at, resolved, lease.good && (record.good || not_asked), status);
    let (lease, record) = (lease.take(status), if not_asked { None } else { record.take(status) });
    let (Some(number), Some(lease)) = (came, lease) else { return };
    if let Some(record) = record {
        same(&record, &world.tensors.probes[number].record);
    }
    world.tensors.leases.add(lease.id, number);
    world.tensors.check();
}

pub fn pop_dlpack(world: &mut World, input: &mut Input) {
    let (mailbox, at) = pick(world, input);
    let context = at.map(|at| world.tensors.mailboxes.0[at].it.context);
    let (stream, resolved) = world.stream(input, context);
    let patience = patience(world, input, at);
    let out = Out::<*mut DLManagedTensorVersioned>::new(input);
    let status = call!(tensor::gmb_tensor_mailbox_pop_dlpack(mailbox, stream, patience, out.pointer()));
    let came = popped(world, at, resolved, out.good, status);
    let (Some(number), Some(tensor)) = (came, out.take(status)) else { return };
    super::lease::look_at(tensor, &world.tensors.probes[number].record);
    world.tensors.exports.push((number, Export::Versioned(tensor)));
    world.tensors.check();
}

/// A tensor is where its producer said, and as it said.
pub fn same(got: &gmb_tensor, wanted: &gmb_tensor) {
    assert_eq!((got.address, got.byte_offset, got.tag), (wanted.address, wanted.byte_offset, wanted.tag));
    assert_eq!((got.device_type, got.device_id), (wanted.device_type, wanted.device_id));
    assert_eq!((got.ndim, got.flags, got.shape), (wanted.ndim, wanted.flags, wanted.shape));
    assert_eq!(got.strides, wanted.strides);
    let parts = |dtype: gmb_dtype| (dtype.code, dtype.bits, dtype.lanes);
    assert_eq!(parts(got.dtype), parts(wanted.dtype));
}

/// Asks for a view, and takes and releases tensors as a kernel would.
pub fn consume(world: &mut World, input: &mut Input) {
    let (mailbox, at) = pick(world, input);
    let context = at.map(|at| world.tensors.mailboxes.0[at].it.context);
    let (stream, resolved) = world.stream(input, context);
    let out = Out::<gmb_tensor_view>::new(input);
    let status = call!(tensor::gmb_tensor_mailbox_get_view(mailbox, stream, out.pointer()));
    let device = at.is_some_and(|at| world.tensors.mailboxes.0[at].it.on_device);
    assert_eq!(status == GMB_OK, device && resolved.is_some() && out.good, "status {status}");
    let Some(at) = at.filter(|_| device) else { return };
    if let (Some(view), Some(stream)) = (out.take(status), resolved) {
        let inbox = &mut world.tensors.mailboxes.0[at].it;
        inbox.view = Some(view);
        inbox.users.push(stream);
    }
    let Some(view) = world.tensors.mailboxes.0[at].it.view else { return };
    // Then everything that was pushed is published.
    world.settle();
    for _ in 0..input.below(4) {
        take(world, at, &view);
    }
    for _ in 0..input.below(4) {
        let inbox = &world.tensors.mailboxes.0[at].it;
        let taken: Vec<usize> = (0..inbox.queue.len()).filter(|&i| inbox.queue[i].0 < inbox.taken).collect();
        let Some(&which) = taken.get(input.below(taken.len())) else { break };
        release(world, at, &view, which);
    }
    patiently(|| told(mailbox).popped == world.tensors.mailboxes.0[at].it.popped);
    world.tensors.check();
}

/// As `try_take` of tensor.cuh.
fn take(world: &mut World, at: usize, view: &gmb_tensor_view) {
    let inbox = &mut world.tensors.mailboxes.0[at].it;
    let index = inbox.taken;
    // SAFETY: host memory of a mailbox that lives, with a slot for each of its tensors, and nobody works on it now.
    let (taken, slot) = unsafe {
        let slots = view.ring.add(1).cast::<gmb_tensor_slot>();
        (AtomicU64::from_ptr(&raw mut (*view.ring).taken), slots.add((index % view.capacity) as usize))
    };
    assert_eq!((taken.load(Ordering::Acquire), view.capacity), (index, inbox.capacity));
    // SAFETY: as above.
    let (sequence, record) = unsafe { ((*slot).sequence, (*slot).tensor) };
    let there = inbox.queue.iter().find(|&&(known, _)| known == index);
    assert_eq!(sequence == index + 1, there.is_some(), "slot of tensor {index}");
    let Some(&(_, number)) = there else { return };
    same(&record, &world.tensors.probes[number].record);
    taken.store(index + 1, Ordering::Release);
    inbox.taken += 1;
}

/// As `release` of tensor.cuh.
fn release(world: &mut World, at: usize, view: &gmb_tensor_view, which: usize) {
    let inbox = &mut world.tensors.mailboxes.0[at].it;
    let Some((index, number)) = inbox.queue.remove(which) else { return };
    inbox.popped += 1;
    world.tensors.probes[number].may_end = true;
    // SAFETY: the word of a slot that was taken here.
    let word = unsafe { AtomicU64::from_ptr(view.released.add((index % view.capacity) as usize)) };
    word.store(index + 1, Ordering::Release);
}
