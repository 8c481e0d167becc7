//! Readers let in and out.

use gpumailbox::capi::mailbox::gmb_mailbox;
use gpumailbox::capi::readers::gmb_reader_info;
use gpumailbox::*;

use crate::blob::{info, Out};
use crate::calls::call;
use crate::input::Input;
use crate::model::Reader;
use crate::world::World;

use super::transfer::is_let_in;

fn launched(world: &mut World, at: usize, resolved: u64) {
    let mailbox = &mut world.mailboxes.0[at].it;
    // It was waited for, and nothing came on the stream.
    if mailbox.model.is_shared() {
        mailbox.model.settle();
        return;
    }
    mailbox.single = mailbox.single.map(|_| Some(resolved));
    mailbox.model.quiet = false;
    let context = mailbox.context;
    world.enqueued(context, resolved, &[]);
}

pub fn add(world: &mut World, input: &mut Input) {
    let id = world.mailboxes.pick(input, world.strangers());
    let at = world.mailboxes.find(id);
    let start = input.below(2) as u64;
    let start = input.spoil(start, 12) as i32;
    let (stream, resolved) = world.stream(input, at.map(|at| world.mailboxes.0[at].it.context));
    let out = Out::<u32>::new(input);
    let status = call!(readers::gmb_mailbox_add_reader(gmb_mailbox { id }, start, stream, out.pointer()));
    let mask = at.map_or(0, |at| world.mailboxes.0[at].it.model.mask());
    let captured = at.is_some_and(|at| world.mailboxes.0[at].it.captured);
    let good =
        is_let_in(world, at, resolved) && !captured && (0..2).contains(&start) && out.good && mask != 0xffff;
    assert_eq!(status == GMB_OK, good, "status {status}");
    let (Some(reader), Some(at), Some(resolved)) = (out.take(status), at, resolved) else { return };
    assert_eq!(reader, mask.trailing_ones(), "not the least number that is free");
    world.mailboxes.0[at].it.model.readers[reader as usize] = Some(Reader::default());
    launched(world, at, resolved);
}

pub fn remove(world: &mut World, input: &mut Input) {
    let id = world.mailboxes.pick(input, world.strangers());
    let at = world.mailboxes.find(id);
    let mask = at.map_or(0, |at| world.mailboxes.0[at].it.model.mask());
    let reader = input.below(16.min(mask.count_ones() as usize + 1)) as u64;
    let reader = input.spoil(reader, 16) as u32;
    let (stream, resolved) = world.stream(input, at.map(|at| world.mailboxes.0[at].it.context));
    let status = call!(readers::gmb_mailbox_remove_reader(gmb_mailbox { id }, reader, stream));
    let captured = at.is_some_and(|at| world.mailboxes.0[at].it.captured);
    let good = is_let_in(world, at, resolved) && !captured && reader < 16 && mask >> reader & 1 == 1;
    assert_eq!(status == GMB_OK, good, "status {status}");
    if let (GMB_OK, Some(at), Some(resolved)) = (status, at, resolved) {
        world.mailboxes.0[at].it.model.readers[reader as usize] = None;
        launched(world, at, resolved);
    }
}

pub fn get_info(world: &mut World, input: &mut Input) {
    let id = world.mailboxes.pick(input, world.strangers());
    let at = world.mailboxes.find(id);
    let mask = at.map_or(0, |at| world.mailboxes.0[at].it.model.mask());
    let reader = input.below(16.min(mask.count_ones() as usize + 1)) as u64;
    let reader = input.spoil(reader, 16) as u32;
    let used = reader < 16 && mask >> reader & 1 == 1;
    let told: Option<gmb_reader_info> = info(input, |to, size| {
        let status = call!(readers::gmb_mailbox_get_reader_info(gmb_mailbox { id }, reader, to, size));
        assert!(used || status != GMB_OK);
        status
    });
    let (Some(told), Some(at)) = (told, at) else { return };
    let model = &mut world.mailboxes.0[at].it.model;
    if !model.quiet || model.tainted {
        return;
    }
    let end = model.end();
    let Some(known) = &mut model.readers[reader as usize] else { return };
    if !known.pops.is_empty() {
        return;
    }
    // Now it is certain where the reader stands, if it was not before.
    let next = *known.next.get_or_insert(told.released);
    assert_eq!(told.released, next, "reader {reader}");
    assert!(end.is_none_or(|end| end.wrapping_sub(next) == told.unread), "{} unread", told.unread);
}
