//! Waiting for records and room, and watches.

use std::os::fd::{FromRawFd, OwnedFd};

use gpumailbox::capi::mailbox::gmb_mailbox;
use gpumailbox::capi::readiness::gmb_watch;
use gpumailbox::*;

use crate::blob::Out;
use crate::calls::call;
use crate::input::Input;
use crate::model::Model;
use crate::world::World;

use super::transfer::is_express;

/// Records that a reader has not taken, while that is certain.
fn unread(model: &Model, reader: u32) -> Option<u64> {
    let reader = model.readers.get(reader as usize)?.as_ref()?;
    if !model.quiet || model.tainted || !reader.pops.is_empty() {
        return None;
    }
    Some(model.end()?.wrapping_sub(reader.next?).min(model.capacity))
}

pub fn wait(world: &mut World, input: &mut Input) {
    let id = world.mailboxes.pick(input, world.strangers());
    let at = world.mailboxes.find(id);
    let mailbox = gmb_mailbox { id };
    let capacity = at.map_or(8, |at| world.mailboxes.0[at].it.model.capacity);
    let count = input.word() % capacity.min(12) + 1;
    let count = input.spoil(count, 12) as u32;
    let fits = count > 0 && u64::from(count) <= capacity;
    let timeout = input.choose(&[0, 0, 0, 1, 3_000]);
    let out = Out::<u64>::new(input);
    let wanted = if input.chance(32) { std::ptr::null_mut() } else { out.pointer() };
    let sound = out.good || wanted.is_null();
    let known = |status: i32| [GMB_OK, GMB_ERROR_TIMEOUT].contains(&status);
    let waits = fits && sound && !is_express(world, at);
    if input.chance(128) {
        let reader = input.below(4) as u64;
        let reader = input.spoil(reader, 12) as u32;
        let status = call!(readiness::gmb_mailbox_wait_readable(mailbox, reader, count, timeout, wanted));
        let model = at.map(|at| &world.mailboxes.0[at].it.model);
        let used = reader < 16 && model.is_some_and(|model| model.mask() >> reader & 1 == 1);
        // A single stream's graphs do not tell: the operation on graphs leaves such mailboxes out.
        assert_eq!(known(status), used && waits, "status {status}");
        let certain = model.and_then(|model| unread(model, reader)).filter(|_| known(status));
        if let Some(unread) = certain {
            assert_eq!(status == GMB_OK, unread >= u64::from(count), "{unread} unread of {count}");
            if !wanted.is_null() {
                assert!(out.take(status).is_none_or(|told| told == unread), "{unread} unread");
            }
        }
        return;
    }
    let status = call!(readiness::gmb_mailbox_wait_writable(mailbox, count, timeout, wanted));
    assert_eq!(known(status), at.is_some() && waits, "status {status}");
    let room = at.and_then(|at| world.mailboxes.0[at].it.model.room()).filter(|_| known(status));
    if let Some(room) = room {
        assert_eq!(status == GMB_OK, room >= u64::from(count), "room for {room} of {count}");
    }
}

/// A watch from its making to its end.
pub fn watch(world: &mut World, input: &mut Input) {
    let id = world.mailboxes.pick(input, world.strangers());
    let at = world.mailboxes.find(id);
    let interest = input.below(2) as u64;
    let interest = input.spoil(interest, 12) as i32;
    let reader = if interest == 1 { 0 } else { input.below(3) as u64 };
    let reader = input.spoil(reader, 12) as u32;
    let out = Out::<gmb_watch>::new(input);
    let status = call!(readiness::gmb_watch_create(gmb_mailbox { id }, interest, reader, out.pointer()));
    let mask = at.map_or(0, |at| world.mailboxes.0[at].it.model.mask());
    let used = if interest == 1 { reader == 0 } else { reader < 16 && mask >> reader & 1 == 1 };
    let good = at.is_some() && !is_express(world, at) && (0..2).contains(&interest) && used && out.good;
    assert_eq!(status == GMB_OK, good, "status {status}");
    let Some(watch) = out.take(status) else { return };
    let capacity = at.map_or(0, |at| world.mailboxes.0[at].it.model.capacity);
    for _ in 0..input.below(3) {
        let count = input.word() % capacity + 1;
        let count = input.spoil(count, 16) as u32;
        let status = call!(readiness::gmb_watch_arm(watch, count));
        assert_eq!(status == GMB_OK, count > 0 && u64::from(count) <= capacity, "status {status}");
    }
    let out = Out::<i32>::new(input);
    let status = call!(readiness::gmb_watch_get_fd(watch, out.pointer()));
    assert_eq!(status == GMB_OK, out.good, "status {status}");
    if let Some(descriptor) = out.take(status) {
        // SAFETY: the caller's own, from now on.
        drop(unsafe { OwnedFd::from_raw_fd(descriptor) });
    }
    assert_eq!(call!(readiness::gmb_watch_destroy(watch)), GMB_OK);
    assert_eq!(call!(readiness::gmb_watch_arm(watch, 1)), GMB_ERROR_INVALID_HANDLE);
}
