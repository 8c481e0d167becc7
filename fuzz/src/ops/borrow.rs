//! Borrows, from their making to their release.

use gpumailbox::capi::borrow::gmb_borrow;
use gpumailbox::capi::mailbox::gmb_mailbox;
use gpumailbox::*;

use super::transfer::{is_let_in, is_out_of_memory, launched, order};
use crate::blob::Out;
use crate::calls::call;
use crate::input::Input;
use crate::model::{Outcome, Pop};
use crate::world::{Operation, World};

pub fn borrow(world: &mut World, input: &mut Input) {
    let id = world.mailboxes.pick(input, world.strangers());
    let at = world.mailboxes.find(id);
    let context = at.map(|at| world.mailboxes.0[at].it.context);
    let (mask, overwrites) = at.map_or((0, false), |at| {
        let model = &world.mailboxes.0[at].it.model;
        (model.mask(), model.overwrites())
    });
    let reader = input.below(3) as u64;
    let reader = input.spoil(reader, 12) as u32;
    let max = 1 + input.below(12) as u64;
    let max = input.spoil(max, 8) as u32;
    let (stream, resolved) = world.stream(input, context);
    order(world, input, at, Some(reader), resolved);
    let out = Out::<gmb_borrow>::new(input);
    let status = call!(borrow::gmb_mailbox_borrow(gmb_mailbox { id }, reader, max, stream, out.pointer()));
    let good = at.is_some()
        && reader < 16
        && mask >> reader & 1 == 1
        && (1..=GMB_MAX_RECORDS).contains(&max)
        && is_let_in(world, at, resolved)
        && out.good;
    assert!(status != GMB_OK || good, "status {status}");
    // What was captured, and what overwrites without the library's order, cannot be borrowed from.
    let known = [GMB_OK, GMB_ERROR_NOT_SUPPORTED, GMB_ERROR_MEMORY_LIMIT].contains(&status);
    assert!(known || !good, "status {status}: {}", super::status::message());
    let (Some(borrow), Some(at), Some(stream)) = (out.take(status), at, resolved) else { return };
    let capacity = {
        let model = &mut world.mailboxes.0[at].it.model;
        // The model does not follow what is borrowed; the records tell it later where the reader is.
        let number = model.pops;
        model.pops += 1;
        if let Some(Some(reader)) = model.readers.get_mut(reader as usize) {
            reader.pops.push_back(Pop {
                number,
                max,
                rows: 0,
                stride: 0,
                headers: 0,
                outcome: Outcome::Pending,
            });
        }
        model.outcome(reader, number, Outcome::Unknown);
        model.tainted |= overwrites;
        let capacity = model.capacity;
        launched(world, at, stream, None, Operation::Pop { reader, number }, &[]);
        capacity
    };
    look(input, borrow, max, capacity);
    let (other, other_resolved) = world.stream(input, context);
    let status = call!(borrow::gmb_borrow_release(borrow, other));
    let let_in = is_let_in(world, Some(at), other_resolved);
    let released = let_in && !is_out_of_memory(world, Some(at), status);
    assert_eq!(status == GMB_OK, released, "status {status}");
    if let Some(other) = other_resolved.filter(|_| released) {
        world.enqueued(context.unwrap_or(0), other, &[]);
    } else {
        assert_eq!(call!(borrow::gmb_borrow_release(borrow, stream as capi::stream::gmb_stream)), GMB_OK);
    }
    let status = call!(borrow::gmb_borrow_release(borrow, std::ptr::null_mut()));
    assert_eq!(status, GMB_ERROR_INVALID_HANDLE);
}

/// What came lies where it says, one record after the other.
fn look(input: &mut Input, borrow: gmb_borrow, max: u32, capacity: u64) {
    let address = Out::<*const gmb_spans>::new(input);
    let status = call!(borrow::gmb_borrow_get_device_spans(borrow, address.pointer()));
    assert_eq!(status == GMB_OK, address.good);
    let (result, spans) = (Out::<gmb_result>::new(input), Out::<gmb_spans>::new(input));
    let polled = call!(borrow::gmb_borrow_poll(borrow, result.pointer(), spans.pointer()));
    assert_eq!(polled >= 0, result.good && spans.good, "status {polled}");
    let (result, spans) = (Out::<gmb_result>::good(), Out::<gmb_spans>::good());
    let status = call!(borrow::gmb_borrow_wait(borrow, u64::MAX, result.pointer(), spans.pointer()));
    let (result, spans) = (result.take(status).expect("it came"), spans.take(status).expect("it came"));
    assert!(u64::from(result.count) <= u64::from(max).min(capacity), "{result:?}");
    assert_eq!(spans.count[0] + spans.count[1], result.count, "{spans:?}");
    let mut index = spans.first;
    for span in 0..2 {
        for i in 0..u64::from(spans.count[span]) {
            let header =
                (spans.records[span] as u64 + i * u64::from(spans.stride) - 16) as *const gmb_record_header;
            // SAFETY: a slot of a living mailbox in host memory, which nobody writes while it is borrowed.
            let header = unsafe { header.read() };
            index = index.wrapping_add(1);
            assert_eq!(header.sequence, index, "{header:?} of {spans:?}");
        }
    }
}
