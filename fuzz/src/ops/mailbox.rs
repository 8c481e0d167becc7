//! Mailboxes: made, attached to, damaged, ended.

use std::ffi::c_void;

use gpumailbox::capi::mailbox::{
    gmb_mailbox, gmb_mailbox_info, gmb_mailbox_options, GMB_MAILBOX_EXPRESS, GMB_MAILBOX_SHARED,
    GMB_MAILBOX_SINGLE_STREAM,
};
use gpumailbox::capi::placement::gmb_attach_options;
use gpumailbox::*;

use crate::blob::{info, Blob, Out};
use crate::calls::call;
use crate::input::Input;
use crate::model::{Mailbox, Model, Policy, Remains};
use crate::world::{Origin, World};

const POLICIES: [Policy; 4] = [Policy::Reject, Policy::Wait, Policy::Oldest, Policy::Latest];
const MOST: usize = 6;

fn options(input: &mut Input) -> (gmb_mailbox_options, bool) {
    let capacity = input.choose(&[8, 1, 2, 4, 16, 64, 256, 2]);
    let payload = input.choose(&[16, 1, 8, 15, 17, 32, 48, 100, 256, 1000]);
    let (arbitration, policy) = (input.below(2) as u64, input.below(4) as u64);
    let index = input.choose(&[0, 0, 1, u64::MAX, u64::MAX - 5, (1 << 40) - 3, (1 << 39) - 2, 1 << 32]);
    let flags = match input.byte() {
        0..=151 => 0,
        152..=207 => GMB_MAILBOX_SHARED,
        208..=215 => GMB_MAILBOX_EXPRESS,
        216..=219 => GMB_MAILBOX_SHARED | GMB_MAILBOX_EXPRESS,
        220..=231 => GMB_MAILBOX_SHARED | GMB_MAILBOX_SINGLE_STREAM,
        _ => GMB_MAILBOX_SINGLE_STREAM,
    };
    let (flags, readers) = (u64::from(flags), input.choose(&[0, 0, 1, 1, 2, 3, 16]));
    let made = gmb_mailbox_options {
        struct_size: 0,
        payload_bytes: input.spoil(payload, 8) as u32,
        capacity: input.spoil(capacity, 8),
        arbitration: input.spoil(arbitration, 8) as i32,
        full_policy: input.spoil(policy, 8) as i32,
        producer_id: 7,
        consumer_id: 8,
        initial_index: index,
        flags: input.spoil(flags, 8) as u32,
        readers: input.spoil(readers, 8) as u32,
    };
    let least = if made.full_policy == 3 { 2 } else { 1 };
    let good = made.capacity.is_power_of_two()
        && (least..=u64::from(GMB_MAX_RECORDS)).contains(&made.capacity)
        && (1..=u32::MAX - 31).contains(&made.payload_bytes)
        && (0..2).contains(&made.arbitration)
        && (0..4).contains(&made.full_policy)
        && made.flags < 8
        && made.readers <= 16
        && match mode_of(&made) {
            Some(GMB_MODE_SHARED) => made.full_policy < 2,
            Some(GMB_MODE_EXPRESS) => {
                made.full_policy == 0 && made.readers < 2 && made.payload_bytes <= GMB_EXPRESS_BYTES
            }
            mode => mode.is_some(),
        };
    (made, good)
}

fn mode_of(made: &gmb_mailbox_options) -> Option<gmb_mode> {
    match made.flags & (GMB_MAILBOX_SHARED | GMB_MAILBOX_EXPRESS) {
        0 => Some(GMB_MODE_ORDERED),
        GMB_MAILBOX_SHARED => Some(GMB_MODE_SHARED),
        GMB_MAILBOX_EXPRESS => Some(GMB_MODE_EXPRESS),
        _ => None,
    }
}

fn enter(world: &mut World, id: u64, context: usize, made: &gmb_mailbox_options, place: Option<usize>) {
    let policy = POLICIES[made.full_policy as usize];
    let readers = made.readers.max(1);
    let mode = mode_of(made).expect("one mode");
    let model = Model::new(mode, policy, made.capacity, made.payload_bytes, made.initial_index, readers);
    let single = (made.flags & GMB_MAILBOX_SINGLE_STREAM != 0).then_some(None);
    let mut mailbox =
        Mailbox { context, single, place, ring: 0, ring_bytes: 0, row: 0, captured: false, model };
    let told = told(id);
    (mailbox.ring, mailbox.ring_bytes) = (told.ring as u64, told.ring_bytes);
    mailbox.row = row_of(&told);
    assert_eq!(told.mode, mode);
    world.mailboxes.add(id, mailbox);
}

fn row_of(told: &gmb_mailbox_info) -> u64 {
    match told.mode {
        // Nothing is ever pushed.
        GMB_MODE_EXPRESS => u64::from(told.payload_bytes).next_multiple_of(16),
        _ => u64::from(told.slot_stride) - 16,
    }
}

fn told(id: u64) -> gmb_mailbox_info {
    let out = Out::<gmb_mailbox_info>::good();
    let size = size_of::<gmb_mailbox_info>();
    let status = call!(mailbox::gmb_mailbox_get_info(gmb_mailbox { id }, out.pointer(), size));
    out.take(status).expect("a mailbox tells of itself")
}

pub fn required_bytes(_: &mut World, input: &mut Input) {
    let (made, good) = options(input);
    let (blob, sound) = Blob::sized(made, input);
    let out = Out::<u64>::new(input);
    let status = call!(placement::gmb_mailbox_get_required_bytes(blob.pointer(), out.pointer()));
    assert_eq!(status == GMB_OK, good && sound && out.good, "status {status}");
    if let Some(bytes) = out.take(status) {
        assert_eq!(bytes, needed(&made));
    }
}

fn needed(made: &gmb_mailbox_options) -> u64 {
    let payload = u64::from(made.payload_bytes);
    let each = match mode_of(made) {
        // A word behind the slots.
        Some(GMB_MODE_SHARED) => payload.next_multiple_of(16) + 16 + 8,
        // Units of 16 bytes, of which a flag takes four, for the payload in words, its length and its type.
        Some(GMB_MODE_EXPRESS) => (payload.next_multiple_of(4) + 8).div_ceil(12) * 16,
        _ => payload.next_multiple_of(16) + 16,
    };
    size_of::<gmb_ring_header>() as u64 + made.capacity * each
}

pub fn create(world: &mut World, input: &mut Input) {
    if world.mailboxes.live().count() >= MOST {
        return;
    }
    let (context, at) = world.context(input);
    let (made, good) = options(input);
    let (blob, sound) = Blob::sized(made, input);
    let out = Out::<gmb_mailbox>::new(input);
    let status = call!(mailbox::gmb_mailbox_create(context, blob.pointer(), out.pointer()));
    let good = good && sound && out.good && at.is_some();
    let full = status == GMB_ERROR_MEMORY_LIMIT;
    assert!((status == GMB_OK) == good || (full && good), "status {status}, good {good}");
    let (Some(mailbox), Some(context)) = (out.take(status), at) else { return };
    assert!(needed(&made) <= world.contexts.0[context].it.limit);
    enter(world, mailbox.id, context, &made, None);
}

/// Memory for a mailbox that none lies in, not used by any work.
fn place(world: &mut World, input: &mut Input, prefer_remains: bool) -> Option<usize> {
    let free: Vec<usize> = world.memory.live().filter(|&at| world.memory.0[at].it.mailboxes == 0).collect();
    let kept: Vec<usize> =
        free.iter().copied().filter(|&at| world.memory.0[at].it.remains.is_some()).collect();
    let from = if prefer_remains && !kept.is_empty() { kept } else { free };
    let at = from.get(input.below(from.len())).copied()?;
    if !world.memory.0[at].it.users.is_empty() {
        world.settle();
    }
    Some(at)
}

pub fn create_in(world: &mut World, input: &mut Input) {
    if world.mailboxes.live().count() >= MOST {
        return;
    }
    let Some(place) = place(world, input, false) else { return };
    let (context, at) = world.context(input);
    let (made, good) = options(input);
    let (blob, sound) = Blob::sized(made, input);
    let offset = if input.chance(24) { input.choose(&[128, 64, 1, 8]) } else { 0 };
    let room = world.memory.0[place].it.bytes.saturating_sub(offset);
    let exact = if good { needed(&made) } else { room };
    let bytes = if input.chance(128) { exact } else { room };
    let bytes = input.spoil(bytes, 16);
    let memory = world.memory.0[place].id + offset;
    let out = Out::<gmb_mailbox>::new(input);
    let status = call!(placement::gmb_mailbox_create_in(
        context,
        blob.pointer(),
        memory as *mut c_void,
        bytes,
        out.pointer()
    ));
    let fits = offset % 128 == 0 && bytes <= room && bytes >= exact;
    let good = good && sound && out.good && at.is_some() && fits;
    // Where its streams meet is the library's memory, wherever the ring lies.
    let full = status == GMB_ERROR_MEMORY_LIMIT && mode_of(&made) == Some(GMB_MODE_SHARED);
    assert!((status == GMB_OK) == good || (full && good), "status {status}, good {good}");
    let (Some(mailbox), Some(context)) = (out.take(status), at) else { return };
    world.memory.0[place].it.mailboxes += 1;
    world.memory.0[place].it.remains = None;
    enter(world, mailbox.id, context, &made, Some(place));
}

pub fn attach(world: &mut World, input: &mut Input) {
    if world.mailboxes.live().count() >= MOST {
        return;
    }
    let Some(place) = place(world, input, true) else { return };
    let (context, at) = world.context(input);
    let (arbitration, flags) = (input.below(2) as u64, u64::from(input.chance(32)));
    let made = gmb_attach_options {
        struct_size: 0,
        arbitration: input.spoil(arbitration, 8) as i32,
        flags: input.spoil(flags, 8) as u32,
        reserved: input.spoil(0, 8) as u32,
    };
    let good = (0..2).contains(&made.arbitration) && made.flags < 2 && made.reserved == 0;
    let (blob, sound) = Blob::sized(made, input);
    let whole = world.memory.0[place].it.bytes;
    let offset = if input.chance(16) { input.choose(&[128, 64, 1]) } else { 0 };
    let bytes = input.spoil(whole.saturating_sub(offset), 16);
    let memory = (world.memory.0[place].id + offset) as *mut c_void;
    let out = Out::<gmb_mailbox>::new(input);
    let status = call!(placement::gmb_mailbox_attach(context, memory, bytes, blob.pointer(), out.pointer()));
    let within = offset % 128 == 0 && bytes <= whole.saturating_sub(offset);
    let good = good && sound && out.good && at.is_some() && within;
    assert!(good || status != GMB_OK, "attached to what is not there");
    let left = &world.memory.0[place].it.remains;
    let intact = left.as_ref().is_some_and(|left| left.model.is_some() && left.bytes <= bytes && offset == 0);
    let is_shared = left.as_ref().and_then(|left| left.model.as_ref()).is_some_and(|model| model.is_shared());
    let full = status == GMB_ERROR_MEMORY_LIMIT && is_shared;
    assert!(status == GMB_OK || !good || !intact || full, "status {status}: an intact mailbox");
    let (Some(mailbox), Some(context)) = (out.take(status), at) else { return };
    let told = told(mailbox.id);
    let left = world.memory.0[place].it.remains.take().filter(|_| intact).and_then(|left| left.model);
    let model = left.unwrap_or_else(|| {
        // A header that was damaged, and not so that it shows.
        let policy = POLICIES[told.full_policy as usize];
        let mut model = Model::new(told.mode, policy, told.capacity, told.payload_bytes, told.published, 0);
        for reader in (0..16).filter(|r| told.reader_mask >> r & 1 == 1) {
            model.readers[reader] = Some(Default::default());
        }
        model.tainted = true;
        model
    });
    assert_eq!((told.capacity, told.payload_bytes, told.mode), (model.capacity, model.payload, model.mode));
    assert_eq!(told.reader_mask, model.mask());
    world.memory.0[place].it.mailboxes += 1;
    let mailbox_of_it = Mailbox {
        context,
        single: (made.flags == 1).then_some(None),
        place: Some(place),
        ring: told.ring as u64,
        ring_bytes: told.ring_bytes,
        row: row_of(&told),
        captured: false,
        model,
    };
    world.mailboxes.add(mailbox.id, mailbox_of_it);
}

/// Writes into memory that a mailbox was left in, where it hurts.
pub fn scribble(world: &mut World, input: &mut Input) {
    let Some(place) = place(world, input, true) else { return };
    let (address, bytes) = (world.memory.0[place].id, world.memory.0[place].it.bytes);
    let header = size_of::<gmb_ring_header>() as u64;
    let side = 128 + 512 * input.below(17) as u64;
    let at = match input.byte() {
        0..=79 => 4 * input.below(20) as u64,
        80..=199 => side + input.choose(&[0, 128, 256, 264, 272, 280, 384, 392, 400, 408, 416]),
        // The headers of slots, mostly.
        _ => header + 4 * input.below(256) as u64,
    };
    let width = if at % 8 == 0 && input.chance(160) { 8 } else { 4 };
    if at + width > bytes {
        return;
    }
    let value = if input.chance(128) { input.edge() } else { input.byte() as i8 as u64 };
    let at = (address + at) as *mut u32;
    // SAFETY: within the allocation, which nothing uses, and on the host backend it is this machine's.
    unsafe {
        let old = at.read();
        at.write(if input.chance(128) { old.wrapping_add(value as u32) } else { value as u32 });
        if width == 8 {
            at.add(1).write((value >> 32) as u32);
        }
    }
    if let Some(remains) = &mut world.memory.0[place].it.remains {
        remains.model = None;
    }
}

pub fn destroy(world: &mut World, input: &mut Input) {
    let id = world.mailboxes.pick(input, world.strangers());
    match world.mailboxes.find(id) {
        Some(at) => end(world, at),
        None => {
            let status = call!(mailbox::gmb_mailbox_destroy(gmb_mailbox { id }));
            assert_eq!(status, GMB_ERROR_INVALID_HANDLE);
        }
    }
}

pub fn end(world: &mut World, at: usize) {
    let id = world.mailboxes.0[at].id;
    assert_eq!(call!(mailbox::gmb_mailbox_destroy(gmb_mailbox { id })), GMB_OK);
    world.mailboxes.0[at].live = false;
    // It has waited for its operations: each token that awaits one has its result.
    let awaiting = |t: &usize| world.tokens.0[*t].it.awaited.is_some_and(|a| a.mailbox == at);
    let tokens: Vec<usize> = world.tokens.live().filter(awaiting).collect();
    for token in tokens {
        super::token::collect(world, token, true);
    }
    let mailbox = &mut world.mailboxes.0[at].it;
    let Some(place) = mailbox.place else { return };
    let none = Model { tainted: true, ..Model::new(GMB_MODE_ORDERED, Policy::Reject, 1, 1, 0, 0) };
    let mut model = std::mem::replace(&mut mailbox.model, none);
    model.settle();
    let remains = Remains { bytes: mailbox.ring_bytes, model: Some(model).filter(|model| !model.tainted) };
    let starts_there = mailbox.ring == world.memory.0[place].id;
    let memory = &mut world.memory.0[place].it;
    memory.mailboxes -= 1;
    memory.remains = Some(remains).filter(|_| starts_there);
    debug_assert!(memory.origin == Origin::Device || memory.bytes > 0);
    // They look into memory that is the caller's.
    super::arbiter::end_of(world, at);
}

pub fn get_info(world: &mut World, input: &mut Input) {
    let id = world.mailboxes.pick(input, world.strangers());
    let at = world.mailboxes.find(id);
    let told: Option<gmb_mailbox_info> = info(input, |to, size| {
        let status = call!(mailbox::gmb_mailbox_get_info(gmb_mailbox { id }, to, size));
        assert!(at.is_some() || status != GMB_OK);
        status
    });
    let (Some(told), Some(at)) = (told, at) else { return };
    let mailbox = &world.mailboxes.0[at].it;
    let model = &mailbox.model;
    assert_eq!((told.capacity, told.payload_bytes, told.mode), (model.capacity, model.payload, model.mode));
    assert_eq!((told.ring as u64, told.ring_bytes), (mailbox.ring, mailbox.ring_bytes));
    assert_eq!(told.reader_mask, model.mask());
    if model.quiet && !model.tainted {
        assert!(model.end().is_none_or(|end| end == told.published), "published {}", told.published);
        assert!(told.high_water <= model.capacity || model.overwrites());
    }
}
