//! Pushes and pops from and to host memory, which wait.

use std::ffi::c_void;

use gpumailbox::*;

use super::transfer::*;
use crate::arena::{pattern, SOURCE};
use crate::blob::{Blob, Out, POISON};
use crate::calls::call;
use crate::input::Input;
use crate::model::{tag, Lengths, Model, Outcome, Policy, Pop, MOST_TOLD};
use crate::world::World;

/// What the blocking calls use instead of a caller's stream: one each.
const STAGING: u64 = 1 << 62;

pub fn push(world: &mut World, input: &mut Input) {
    let (mailbox, at, shape) = pick(world, input);
    let count = many(input, shape.capacity);
    let payload = u64::from(shape.payload);
    let stride = match input.byte() {
        0..=127 => payload,
        128..=191 => shape.row,
        192..=239 => input.below(64) as u64,
        _ => input.edge(),
    };
    let bytes = u64::from(count).checked_mul(stride).filter(|&bytes| bytes <= i64::MAX as u64);
    // What is not refused at once must be there.
    let counted = (1..=GMB_MAX_RECORDS).contains(&count) && bytes.is_some();
    if counted && (count > MOST_TOLD || bytes.is_some_and(|bytes| bytes > SOURCE)) {
        return;
    }
    let there = if counted { bytes.unwrap_or(0) } else { 0 };
    let offset = input.word() % (SOURCE - there + 1);
    let mut rows = Blob::new(there as usize);
    for (at, byte) in rows.bytes_mut().iter_mut().take(there as usize).enumerate() {
        *byte = pattern(offset + at as u64);
    }
    let most = stride.min(payload) as u32;
    let listed = if counted { count } else { 0 };
    let (seed, step) = (input.word() as u32 % (most + 1), u32::from(input.byte()));
    let mut each: Vec<u32> = (0..listed).map(|i| (seed + i * step) % (most + 1)).collect();
    if counted && input.chance(16) {
        let at = input.below(each.len());
        each[at] = input.choose(&[most + 1, u32::MAX]);
    }
    let short = each.iter().all(|&length| length <= most);
    let number = at.map_or(0, |at| world.mailboxes.0[at].it.model.pushes.len());
    let types: Vec<u32> = (0..listed).map(|i| tag(number, Some(i))).collect();
    let (list, types) = (Blob::of(&each), Blob::of(&types));
    let (no_rows, no_lengths) = (input.chance(4), input.chance(4));
    let at_rows = if no_rows { std::ptr::null() } else { rows.pointer::<c_void>().cast_const() };
    let at_lengths = if no_lengths { std::ptr::null() } else { list.pointer::<u32>().cast_const() };
    let model = at.map(|at| &world.mailboxes.0[at].it.model);
    let room = model.filter(|model| model.policy == Policy::Wait).and_then(Model::room);
    let certain = shape.policy != Policy::Wait || room.is_some_and(|room| room >= u64::from(count));
    let timeout = if certain { u64::MAX } else { input.choose(&[0, 1, 3_000]) };
    order(world, input, at, None, Some(STAGING));
    let out = Out::<gmb_result>::new(input);
    let status = call!(host_copy::gmb_mailbox_push_from_host_blocking(
        mailbox,
        count,
        at_rows,
        stride,
        at_lengths,
        types.pointer(),
        timeout,
        out.pointer()
    ));
    let all = shape.policy != Policy::Wait || u64::from(count) <= shape.capacity;
    let good = at.is_some()
        && counted
        && all
        && short
        && out.good
        && !no_rows
        && !no_lengths
        && is_let_in(world, at, Some(STAGING));
    let in_time = status != GMB_ERROR_TIMEOUT || !certain;
    let known = [GMB_OK, GMB_ERROR_TIMEOUT, GMB_ERROR_MEMORY_LIMIT].contains(&status);
    assert!(known || !good, "status {status}: {}", super::status::message());
    assert!((status != GMB_OK || good) && in_time, "status {status}: {}", super::status::message());
    let (Some(result), Some(at)) = (out.take(status), at) else { return };
    let mailbox = &mut world.mailboxes.0[at].it;
    mailbox.single = mailbox.single.map(|_| Some(STAGING));
    mailbox.model.tainted |= mailbox.model.is_beside(None, STAGING);
    let exact = mailbox.model.room().filter(|_| shape.policy == Policy::Reject);
    let pushed = mailbox.model.push(count, Lengths::Each(each, most), Some((offset, stride)));
    // Nothing else is under way that could make room.
    assert!(exact.is_none_or(|room| u64::from(result.count) == room.min(u64::from(count))), "{result:?}");
    mailbox.model.pushed(pushed, &result);
}

pub fn pop(world: &mut World, input: &mut Input) {
    let (mailbox, at, shape) = pick(world, input);
    let max = many(input, shape.capacity);
    let payload = u64::from(shape.payload);
    let stride = match input.byte() {
        0..=127 => payload,
        128..=191 => shape.row,
        192..=223 => payload + input.below(40) as u64,
        224..=239 => payload.saturating_sub(1),
        _ => input.edge(),
    };
    let bytes = u64::from(max).checked_mul(stride).filter(|&bytes| bytes <= i64::MAX as u64);
    let counted = (1..=GMB_MAX_RECORDS).contains(&max) && bytes.is_some();
    if counted && (max > MOST_TOLD || bytes.is_some_and(|bytes| bytes > SOURCE)) {
        return;
    }
    let (there, listed) = if counted { (bytes.unwrap_or(0), max) } else { (0, 0) };
    let (rows, headers) = (Blob::new(there as usize), Blob::new(16 * listed as usize));
    let (reader, used) = reader(world, at, input);
    let out = Out::<gmb_result>::new(input);
    order(world, input, at, Some(reader), Some(STAGING + 1));
    let no_rows = input.chance(4);
    let at_rows = if no_rows { std::ptr::null_mut() } else { rows.pointer::<c_void>() };
    let status = call!(host_copy::gmb_mailbox_pop_to_host_blocking(
        mailbox,
        reader,
        max,
        at_rows,
        stride,
        headers.pointer(),
        out.pointer()
    ));
    let good = at.is_some()
        && counted
        && stride >= payload
        && used
        && out.good
        && !no_rows
        && is_let_in(world, at, Some(STAGING + 1));
    let known = [GMB_OK, GMB_ERROR_MEMORY_LIMIT].contains(&status);
    assert!(known || !good, "status {status}: {}", super::status::message());
    assert!(status != GMB_OK || good, "status {status}");
    let (Some(result), Some(at)) = (out.take(status), at) else {
        assert!(rows.is_untouched() && headers.is_untouched(), "written by a call that gave {status}");
        return;
    };
    let mailbox = &mut world.mailboxes.0[at].it;
    mailbox.single = mailbox.single.map(|_| Some(STAGING + 1));
    let count = result.count as usize;
    assert!(count <= max as usize);
    let rest = |bytes: &[u8], from: usize| bytes.iter().skip(from).all(|&byte| byte == POISON);
    assert!(rest(headers.bytes(), 16 * count) && rest(rows.bytes(), count * stride as usize), "{result:?}");
    // SAFETY: so many headers were written.
    let headers = unsafe { std::slice::from_raw_parts(headers.pointer::<gmb_record_header>(), count) };
    let mut found = Vec::new();
    for (i, header) in headers.iter().enumerate() {
        let row = &rows.bytes()[i * stride as usize..(i + 1) * stride as usize];
        let length = header.length as usize;
        assert!(length <= row.len() && rest(row, length), "row {i} beyond its {length} bytes");
        found.push(row.to_vec());
    }
    let model = &mut mailbox.model;
    model.tainted |= model.is_beside(Some(reader), STAGING + 1);
    let number = model.pops;
    model.pops += 1;
    if let Some(Some(reader)) = model.readers.get_mut(reader as usize) {
        let outcome = Outcome::Pending;
        reader.pops.push_back(Pop { number, max, rows: 0, stride, headers: 0, outcome });
    }
    model.outcome(reader, number, Outcome::Known(result, headers.to_vec(), found));
}
