//! Pushes and pops on streams.

use std::ffi::c_void;

use gpumailbox::capi::mailbox::{gmb_mailbox, gmb_pop, gmb_push};
use gpumailbox::capi::token::gmb_token;
use gpumailbox::*;

use crate::arena::SOURCE;
use crate::blob::Blob;
use crate::calls::call;
use crate::input::Input;
use crate::model::{fit, tag, Lengths, Model, Outcome, Policy, Pop, MOST_TOLD};
use crate::world::{Awaited, Operation, World};

/// A mailbox's shape, or any where there is no mailbox.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) capacity: u64,
    pub(super) payload: u32,
    pub(super) row: u64,
    pub(super) policy: Policy,
    pub(super) context: Option<usize>,
}

pub(super) fn pick(world: &World, input: &mut Input) -> (gmb_mailbox, Option<usize>, Shape) {
    let id = world.mailboxes.pick(input, world.strangers());
    let at = world.mailboxes.find(id);
    let none = Shape { capacity: 8, payload: 16, row: 16, policy: Policy::Reject, context: None };
    let shape = at.map_or(none, |at| {
        let Model { capacity, payload, policy, .. } = world.mailboxes.0[at].it.model;
        let mailbox = &world.mailboxes.0[at].it;
        Shape { capacity, payload, row: mailbox.row, policy, context: Some(mailbox.context) }
    });
    (gmb_mailbox { id }, at, shape)
}

/// A token or none, whether it fits, and whether its operation may still be under way.
pub(super) fn token(
    world: &mut World,
    input: &mut Input,
    context: Option<usize>,
) -> (gmb_token, Option<usize>, bool, bool) {
    if input.chance(64) {
        return (gmb_token { id: 0 }, None, true, false);
    }
    let id = super::token::any(world, input);
    let Some(at) = world.tokens.find(id) else { return (gmb_token { id }, None, id == 0, false) };
    super::token::collect(world, at, false);
    let token = &world.tokens.0[at].it;
    (gmb_token { id }, Some(at), Some(token.context) == context, token.awaited.is_some())
}

pub(super) fn many(input: &mut Input, capacity: u64) -> u32 {
    let most = capacity.min(600) as u32;
    match input.byte() {
        few @ 0..=199 => 1 + u32::from(few) % 12,
        200..=215 => most,
        216..=227 => most + 1,
        228..=239 => 2 * most,
        _ => input.edge() as u32,
    }
}

pub(super) fn lengths(input: &mut Input, count: u32, payload: u32, most: u64) -> Lengths {
    let all = input.word() as u32 % (payload + 1);
    if count == 0 || count > MOST_TOLD || !input.chance(64) {
        return Lengths::All(input.spoil(u64::from(all), 8) as u32);
    }
    let most = most.min(u64::from(payload)) as u32;
    let step = u32::from(input.byte());
    let mut each: Vec<u32> = (0..count).map(|i| (all + i * step) % (most + 1)).collect();
    if input.chance(48) {
        let at = input.below(each.len());
        each[at] = input.choose(&[most + 1, payload + 1, 0xffff_ffff]);
    }
    Lengths::Each(each, most)
}

/// In express mode nothing is launched, and nobody waits.
pub(super) fn is_express(world: &World, at: Option<usize>) -> bool {
    at.is_some_and(|at| world.mailboxes.0[at].it.model.mode == GMB_MODE_EXPRESS)
}

/// Whether a stream may be used, and what a single-stream mailbox makes of it.
pub(super) fn is_let_in(world: &World, at: Option<usize>, stream: Option<u64>) -> bool {
    let single = at.and_then(|at| world.mailboxes.0[at].it.single).flatten();
    stream.is_some() && (single.is_none() || single == stream) && !is_express(world, at)
}

/// Before an operation of a shared mailbox that could run beside another one of its side: usually waits for that.
pub(super) fn order(
    world: &mut World,
    input: &mut Input,
    at: Option<usize>,
    side: Option<u32>,
    stream: Option<u64>,
) {
    let (Some(at), Some(stream)) = (at, stream) else { return };
    if world.mailboxes.0[at].it.model.is_beside(side, stream) && !input.chance(64) {
        world.settle();
    }
}

/// A shared mailbox takes memory for the streams that it is used on, as they come.
pub(super) fn is_out_of_memory(world: &World, at: Option<usize>, status: i32) -> bool {
    status == GMB_ERROR_MEMORY_LIMIT && at.is_some_and(|at| world.mailboxes.0[at].it.model.is_shared())
}

/// Enters what was submitted: the token, the stream, the memory in use.
pub(super) fn launched(
    world: &mut World,
    at: usize,
    stream: u64,
    token: Option<usize>,
    what: Operation,
    uses: &[u64],
) {
    if let Some(token) = token {
        // It was ready after all, and its result is gone.
        super::token::forget(world, token);
        let token = &mut world.tokens.0[token].it;
        token.submitted += 1;
        token.awaited = Some(Awaited { mailbox: at, what });
    }
    let mailbox = &mut world.mailboxes.0[at].it;
    mailbox.single = mailbox.single.map(|_| Some(stream));
    mailbox.model.launched(what.side(), stream);
    let context = mailbox.context;
    world.enqueued(context, stream, uses);
}

/// Bytes from the first row to the end of the last, if there are so many.
pub(super) fn span(count: u64, stride: u64, last: u64) -> Option<u64> {
    (count.checked_sub(1)?).checked_mul(stride)?.checked_add(last.checked_next_multiple_of(16)?)
}

pub fn push(world: &mut World, input: &mut Input) {
    let (mailbox, at, shape) = pick(world, input);
    let count = many(input, shape.capacity);
    let stride = match input.byte() {
        0..=159 => 0,
        160..=239 => shape.row + 16 * input.below(4) as u64,
        _ => input.edge(),
    };
    let step = if stride == 0 { shape.row } else { stride };
    let lengths = lengths(input, count, shape.payload, step);
    let longest = match lengths {
        Lengths::All(length) => u64::from(length),
        Lengths::Each(_, most) => u64::from(most),
    };
    // Rows that end where their memory ends are as good as any.
    let span = span(u64::from(count), step, longest);
    let slack = span.and_then(|span| SOURCE.checked_sub(span));
    let offset = slack.map_or(0, |slack| input.choose(&[0, 16, 160, slack / 2, slack]).min(slack) & !15);
    let (mut rows, mut bytes) = (world.arenas.source + offset, Some((offset, step)));
    let mut sound = slack.is_some();
    match input.byte() {
        0..=223 => {}
        224..=239 => {
            if let (Some((memory, room, _)), Some(span)) = (super::memory::somewhere(world, input, 16), span)
            {
                (rows, bytes, sound) = (memory, None, span <= room);
            }
        }
        240..=243 => (rows, sound) = (rows + 1, false),
        244..=247 => (rows, sound) = (0, false),
        248..=251 => (rows, sound) = (at.map_or(0, |at| world.mailboxes.0[at].it.ring), false),
        _ => (rows, sound) = (0x5555_0000_1280, false),
    }
    if crate::is_broken(crate::Broken::Memory) && longest > 0 {
        // One row too many, and nothing behind the source.
        (rows, bytes) = (world.arenas.source + SOURCE, None);
    }
    // With nothing to read, the rows may be anywhere.
    sound |= longest == 0;
    let fit = fit(count, &lengths);
    let number = at.map_or(0, |at| world.mailboxes.0[at].it.model.pushes.len());
    let told = count <= MOST_TOLD && count > 0 && input.chance(96);
    let mut types = (!told).then_some(0);
    let mut each = matches!(lengths, Lengths::All(_)).then_some(0);
    for _ in 0..2 {
        if types.is_none() {
            types = world.arenas.words((0..count).map(|i| tag(number, Some(i))));
        }
        if let (None, Lengths::Each(list, _)) = (each, &lengths) {
            each = world.arenas.words(list.clone().into_iter());
        }
        if types.is_none() || each.is_none() {
            world.flush();
            (types, each) = (types.filter(|&at| at == 0), each.filter(|&at| at == 0));
        }
    }
    let (Some(types), Some(mut each)) = (types, each) else { return };
    if each != 0 && input.chance(8) {
        (each, sound) = (each + 2, false);
    }
    let (token, token_at, token_fits, busy) = token(world, input, shape.context);
    let (stream, resolved) = world.stream(input, shape.context);
    order(world, input, at, None, resolved);
    let model = at.map(|at| &world.mailboxes.0[at].it.model);
    // Waiting for ever is for what cannot but end.
    let room = model.filter(|model| model.policy == Policy::Wait).and_then(Model::room);
    let certain =
        shape.policy != Policy::Wait || (!busy && room.is_some_and(|room| room >= u64::from(count)));
    let timeout = if certain { u64::MAX } else { input.choose(&[0, 1, 3_000]) };
    let made = gmb_push {
        struct_size: 0,
        count,
        records: rows as *const c_void,
        stride,
        lengths: each as *const u32,
        types: types as *const u32,
        length: if let Lengths::All(length) = lengths { length } else { input.edge() as u32 },
        msg_type: tag(number, None),
        timeout_ns: timeout,
    };
    let (blob, intact) = Blob::sized(made, input);
    let status = call!(mailbox::gmb_mailbox_push(mailbox, blob.pointer(), stream, token));
    let all = shape.policy != Policy::Wait || u64::from(count) <= shape.capacity;
    let good = at.is_some()
        && intact
        && (1..=GMB_MAX_RECORDS).contains(&count)
        && all
        && sound
        && step % 16 == 0
        && step >= longest
        && longest <= u64::from(shape.payload)
        && token_fits
        && is_let_in(world, at, resolved);
    if !crate::is_broken(crate::Broken::Memory) {
        let patient = status != GMB_ERROR_TIMEOUT || (timeout != u64::MAX && shape.policy == Policy::Wait);
        let not_busy = status != GMB_ERROR_BUSY || busy;
        // Of two faults either may be told.
        let known = [GMB_OK, GMB_ERROR_TIMEOUT].contains(&status);
        let refused = status == GMB_ERROR_BUSY || is_out_of_memory(world, at, status);
        assert_eq!(known, good && !refused, "status {status}: {}", super::status::message());
        assert!(patient && not_busy, "status {status}");
        if good && status == GMB_OK && !busy && room.is_some_and(|room| room < u64::from(count)) {
            panic!("{count} records were pushed where there is room for {room:?}");
        }
    }
    let (GMB_OK, Some(at), Some(stream)) = (status, at, resolved) else { return };
    let model = &mut world.mailboxes.0[at].it.model;
    let pushed = model.push(count, lengths, bytes.filter(|_| longest > 0));
    assert_eq!((pushed, model.pushes[pushed].fit), (number, fit));
    launched(world, at, stream, token_at, Operation::Push(number), &[rows]);
}

pub(super) fn reader(world: &World, at: Option<usize>, input: &mut Input) -> (u32, bool) {
    let mask = at.map_or(0, |at| world.mailboxes.0[at].it.model.mask());
    let used: Vec<u64> = (0..16).filter(|r| mask >> r & 1 == 1).collect();
    let reader = used.get(input.below(used.len())).copied().unwrap_or(0);
    let reader = input.spoil(reader, 6) as u32;
    (reader, reader < 16 && mask >> reader & 1 == 1)
}

pub fn pop(world: &mut World, input: &mut Input) {
    let (mailbox, at, shape) = pick(world, input);
    let max = many(input, shape.capacity);
    let stride = match input.byte() {
        0..=159 => 0,
        160..=239 => shape.row + 16 * input.below(4) as u64,
        _ => input.edge(),
    };
    let step = if stride == 0 { shape.row } else { stride };
    let most = u64::from(max).min(shape.capacity);
    let (mut rows, mut headers, mut sound, mut ours) = (0, 0, false, false);
    let wants_headers = !input.chance(32);
    let span = span(most, step, shape.row);
    match input.byte() {
        0..=219 => {
            for _ in 0..2 {
                let Some(span) = span.filter(|_| !ours) else { break };
                rows = world.arenas.output.take(span).unwrap_or(0);
                headers = world.arenas.output.take(16 * most).unwrap_or(0);
                ours = rows != 0 && headers != 0;
                sound = ours;
                if !ours {
                    world.flush();
                }
            }
        }
        220..=239 => {
            if let (Some((memory, room, _)), Some(span)) = (super::memory::somewhere(world, input, 16), span)
            {
                (rows, sound) = (memory, span <= room);
            }
        }
        240..=243 => rows = 0x5555_0000_1280,
        244..=249 => rows = at.map_or(0, |at| world.mailboxes.0[at].it.ring),
        _ => {}
    }
    if !ours && world.arenas.holds(rows) {
        // There was room for the rows and none for the headers.
        return;
    }
    if !ours || !wants_headers {
        headers = 0;
    } else if input.chance(6) {
        (headers, sound) = (headers + 8, false);
    } else if input.chance(6) {
        (headers, sound) = (rows, false);
    }
    let (reader, used) = reader(world, at, input);
    let (token, token_at, token_fits, busy) = token(world, input, shape.context);
    let (stream, resolved) = world.stream(input, shape.context);
    order(world, input, at, Some(reader), resolved);
    let reserved = input.spoil(0, 6) as u32;
    let made = gmb_pop {
        struct_size: 0,
        max,
        records: rows as *mut c_void,
        stride,
        headers: headers as *mut gmb_record_header,
        reader,
        reserved,
    };
    let (blob, intact) = Blob::sized(made, input);
    let status = call!(mailbox::gmb_mailbox_pop(mailbox, blob.pointer(), stream, token));
    let good = at.is_some()
        && intact
        && (1..=GMB_MAX_RECORDS).contains(&max)
        && sound
        && step % 16 == 0
        && step >= u64::from(shape.payload)
        && used
        && reserved == 0
        && token_fits
        && is_let_in(world, at, resolved);
    assert!(status != GMB_ERROR_BUSY || busy);
    let refused = status == GMB_ERROR_BUSY || is_out_of_memory(world, at, status);
    assert_eq!(status == GMB_OK, good && !refused, "status {status}: {}", super::status::message());
    let (GMB_OK, Some(at), Some(stream)) = (status, at, resolved) else { return };
    let model = &mut world.mailboxes.0[at].it.model;
    let number = model.pops;
    model.pops += 1;
    let kept = if ours { rows } else { 0 };
    if let Some(Some(reader)) = model.readers.get_mut(reader as usize) {
        let outcome = Outcome::Pending;
        reader.pops.push_back(Pop { number, max, rows: kept, stride: step, headers, outcome });
    }
    if token_at.is_none() {
        model.outcome(reader, number, Outcome::Unknown);
    }
    launched(world, at, stream, token_at, Operation::Pop { reader, number }, &[rows]);
    if let Some(place) = world.allocation_of(rows) {
        world.memory.0[place].it.remains = None;
    }
}

/// What a pop that is done left in device memory.
pub fn read(model: &Model, reader: u32, number: u64, result: &gmb_result) -> Outcome {
    let pop = model.readers.get(reader as usize).and_then(Option::as_ref);
    let Some(pop) = pop.and_then(|reader| reader.pops.iter().find(|pop| pop.number == number)) else {
        return Outcome::Unknown;
    };
    let count = u64::from(result.count);
    assert!(count <= u64::from(pop.max).min(model.capacity), "{result:?}");
    let (mut headers, mut rows) = (Vec::new(), Vec::new());
    for i in 0..count {
        if pop.headers != 0 {
            // SAFETY: the header's memory is ours, and the operation is done.
            headers.push(unsafe { (pop.headers as *const gmb_record_header).add(i as usize).read() });
        }
        if pop.rows != 0 {
            let row = (pop.rows + i * pop.stride) as *const u8;
            // SAFETY: as above; a row has room for the payload.
            rows.push(unsafe { std::slice::from_raw_parts(row, model.payload as usize) }.to_vec());
        }
    }
    Outcome::Known(*result, headers, rows)
}
