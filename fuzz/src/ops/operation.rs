//! Operations of coordinators, one at a time and in graphs.

use std::ffi::c_void;

use gpumailbox::capi::context::gmb_context;
use gpumailbox::capi::coordinator::*;
use gpumailbox::capi::mailbox::{gmb_mailbox, gmb_pop, gmb_push};
use gpumailbox::capi::module::gmb_kernel;
use gpumailbox::capi::stream::gmb_stream;
use gpumailbox::capi::task::{gmb_task, gmb_task_after};
use gpumailbox::capi::triple::gmb_triple_buffer;
use gpumailbox::*;

use super::coordinator::{after, one_operation, pick, After};
use super::module::{launch, written, Launched};
use crate::arena::{pattern, SOURCE};
use crate::blob::{Blob, Out};
use crate::calls::call;
use crate::input::Input;
use crate::model::{tag, Policy};
use crate::pipelines::{Body, Comes, Fates, Kept, Operation, DOWNLOAD, NUMBER, PROCESS, UPLOAD};
use crate::world::World;

/// Streams by which the memory that operations use is marked.
pub fn mark(coordinator: usize) -> u64 {
    1 << 61 | coordinator as u64
}

/// What a callback does.
#[derive(Clone, Copy, PartialEq)]
enum Does {
    Nothing,
    Fill(u64, u8),
    Fail(i32),
    /// Calls what must not be called.
    Call,
}

struct Call {
    coordinator: gmb_coordinator,
    context: gmb_context,
    does: Does,
    /// Of a triple buffer's buffer.
    bytes: u64,
    called: bool,
}

extern "C" fn callback(stream: gmb_stream, address: *mut c_void, user: *mut c_void) -> i32 {
    // SAFETY: what the call was given, which is still inside it.
    let it = unsafe { &mut *user.cast::<Call>() };
    it.called = true;
    let of = it.coordinator;
    match it.does {
        Does::Nothing => GMB_OK,
        Does::Fail(status) => status,
        Does::Fill(other, value) => {
            let (to, bytes) = if address.is_null() { (other, 16) } else { (address as u64, it.bytes) };
            call!(memory::gmb_memory_fill(it.context, to as *mut c_void, value, bytes, stream))
        }
        Does::Call => {
            let made = Out::<gmb_operation>::good();
            let status = call!(coordinator::gmb_coordinator_queue_compute(
                of,
                &OF_NOTHING,
                std::ptr::null(),
                0,
                made.pointer()
            ));
            assert!(made.take(status).is_none(), "queued inside a callback");
            let status = call!(coordinator::gmb_coordinator_synchronize(of, u64::MAX));
            assert_eq!(status, GMB_ERROR_INVALID_ARGUMENT);
            GMB_OK
        }
    }
}

extern "C" fn enqueue_nothing(_: gmb_stream, _: *mut c_void, _: *mut c_void) -> i32 {
    GMB_OK
}

const OF_NOTHING: gmb_compute = gmb_compute {
    struct_size: size_of::<gmb_compute>() as u32,
    reserved: 0,
    kernel: gmb_kernel { id: 0 },
    launch: std::ptr::null(),
    callback: Some(enqueue_nothing),
    user: std::ptr::null_mut(),
    triple: gmb_triple_buffer { id: 0 },
};

/// Host memory: the source, which is pinned, or a piece of the sequence's own.
struct Host {
    address: u64,
    own: Option<Blob>,
    bytes: Content,
}
type Content = crate::pipelines::Content;

fn host_source(world: &World, input: &mut Input, bytes: u64) -> Host {
    let offset = input.word() % (SOURCE - bytes + 1);
    let known: Content = (0..bytes).map(|n| Some(pattern(offset + n))).collect();
    if input.chance(96) {
        return Host { address: world.arenas.source + offset, own: None, bytes: known };
    }
    let mut own = Blob::new(bytes as usize);
    for (to, byte) in own.bytes_mut().iter_mut().zip(&known) {
        *to = byte.unwrap_or(0);
    }
    Host { address: own.pointer::<u8>() as u64, own: Some(own), bytes: known }
}

/// What may be wrong with the address of host memory.
fn spoilt(input: &mut Input, address: u64) -> (u64, bool) {
    match input.byte() {
        254 => (0, false),
        255 => (input.choose(&[u64::MAX, 1 << 63, i64::MAX as u64]), false),
        _ => (address, true),
    }
}

/// A number of bytes that must be refused, where it is one.
fn odd_bytes(input: &mut Input) -> Option<u64> {
    input.chance(12).then(|| input.choose(&[0, i64::MAX as u64, 1 << 63, u64::MAX]))
}

/// How an operation was submitted.
struct Submitted {
    kind: i32,
    status: i32,
    operation: Option<u64>,
    fates: Fates,
}

/// Enters an operation that was queued, by itself or by what came before.
fn enter(world: &mut World, at: usize, it: Submitted, after: &[u64], any: bool) {
    let coordinator = &mut world.pipelines.coordinators.0[at].it;
    let Some(id) = it.operation else {
        coordinator.since += 1;
        coordinator.refused += 1;
        return;
    };
    let fates =
        it.fates.into_iter().map(|(status, cause)| (status, if cause == 0 { id } else { cause })).collect();
    let after = after.to_vec();
    coordinator.add(Operation { id, kind: it.kind, fates, any, after, told: false, turn: None });
}

/// Whether there may be no room for so many.
fn may_be_full(world: &World, at: Option<usize>, count: u64) -> bool {
    at.is_some_and(|at| {
        let it = &world.pipelines.coordinators.0[at].it;
        it.since + count > it.most
    })
}

/// Whether an operation fails before anything of it is enqueued, as is known when it is queued.
#[derive(Clone, Copy, PartialEq)]
enum Fails {
    No,
    /// With what it is to come after: its turn of a triple buffer is passed over.
    After,
    /// With what worked on its buffer before.
    Buffer(u64),
}

/// What becomes of an operation on a triple buffer, or on none. Nobody knows after a mailbox's operation.
fn decide(
    world: &mut World,
    at: Option<usize>,
    after: &After,
    of: Option<usize>,
    step: usize,
) -> Option<Fails> {
    let Some(at) = at else { return Some(Fails::No) };
    let it = &world.pipelines.coordinators.0[at].it;
    let known = || after.list.iter().filter_map(|&id| it.find(id));
    if known().any(|one| one.any || (of.is_some() && it.may_be_forgotten(one.id))) {
        return None;
    }
    if it.may_fail(&after.list) {
        // The turn that is passed over may be in hand.
        if of.is_some_and(|of| world.pipelines.triples.0[of].it.held.iter().any(|held| held.is_used)) {
            world.settle();
        }
        return Some(Fails::After);
    }
    let Some(triple) = of.map(|of| &world.pipelines.triples.0[of].it) else { return Some(Fails::No) };
    let before = triple.turns.get(triple.next(step)).and_then(|turn| turn.operation);
    match before.and_then(|id| it.find(id)) {
        Some(one) if !one.fates.is_empty() => Some(Fails::Buffer(one.id)),
        _ => Some(Fails::No),
    }
}

/// Enters what became of the turn of an operation that was just entered; that of one that works on its buffer, if it does.
fn take_turn(
    world: &mut World,
    at: usize,
    after: &After,
    of: usize,
    step: usize,
    fails: Fails,
) -> Option<usize> {
    let same = same_context(world, Some(at), Some(of));
    let triple = &mut world.pipelines.triples.0[of].it;
    let it = &mut world.pipelines.coordinators.0[at].it;
    let turns = after.list.iter().filter_map(|&id| it.find(id)?.turn);
    let known = turns.filter(|&(key, _)| key == of).map(|(_, turn)| turn).max();
    let taken = match (fails, known) {
        (Fails::After, Some(turn)) => {
            if let Some(turn) = turn {
                triple.give_up_rest(step, turn);
            }
            turn
        }
        (Fails::After, None) if step == UPLOAD || !same || triple.comes(step, true) == Comes::Never => None,
        _ => Some(triple.take(step)),
    };
    let operation = it.operations.last_mut().expect("it was just entered");
    operation.turn = Some((of, taken));
    match (fails, taken) {
        (Fails::No, Some(turn)) => {
            operation
                .after
                .extend(triple.turns[turn].operation.filter(|id| id & !NUMBER == operation.id & !NUMBER));
            triple.turns[turn].operation = Some(operation.id);
            return taken;
        }
        (Fails::After, Some(turn)) if known.is_none() => triple.give_up(turn),
        (Fails::Buffer(before), Some(turn)) => {
            triple.give_up(turn);
            operation.after.push(before);
            let inherited = it.inherited(&[before]);
            it.operations.last_mut().expect("as before").fates = inherited;
        }
        _ => {}
    }
    None
}

fn uses(world: &mut World, at: usize, address: u64) {
    let context = world.pipelines.coordinators.0[at].it.context;
    if let Some(place) = world.allocation_of(address) {
        let users = &mut world.memory.0[place].it.users;
        if !users.contains(&(context, mark(at))) {
            users.push((context, mark(at)));
        }
    }
}

/// Copies between host memory and memory of the sequence's, both ways.
pub fn copy(world: &mut World, input: &mut Input) {
    let (coordinator, at) = pick(world, input);
    let after = after(world, input, at);
    let up = input.chance(128);
    let Some((place, room, _)) = super::memory::somewhere(world, input, 1) else { return };
    let within = 1 + input.word() % room.min(SOURCE);
    let odd = odd_bytes(input);
    let bytes = odd.unwrap_or(within);
    let (device, there) = match input.byte() {
        255 => (0, false),
        254 => (0x5555_0000_1280, false),
        _ => (place, true),
    };
    let out = Out::<gmb_operation>::new(input);
    let (host, kind) = match up {
        true => (host_source(world, input, within), GMB_OPERATION_UPLOAD),
        false => {
            let own = Blob::new(within as usize);
            let address = own.pointer::<u8>() as u64;
            (Host { address, own: Some(own), bytes: vec![None; within as usize] }, GMB_OPERATION_DOWNLOAD)
        }
    };
    let (address, sound) = spoilt(input, host.address);
    let (to, from) = if up { (device, address) } else { (address, device) };
    let (to, from) = (to as *mut c_void, from as *const c_void);
    let (list, count) = (after.at, after.count);
    let status = match up {
        true => call!(coordinator::gmb_coordinator_queue_upload(
            coordinator,
            to,
            from,
            bytes,
            list,
            count,
            out.pointer()
        )),
        false => call!(coordinator::gmb_coordinator_queue_download(
            coordinator,
            to,
            from,
            bytes,
            list,
            count,
            out.pointer()
        )),
    };
    let good = at.is_some() && after.good && out.good && odd.is_none() && there && sound;
    finish(world, at, &after, status, good, &[], Ends { kind, out: &out, fates: Vec::new(), any: false });
    let (GMB_OK, Some(at)) = (status, at) else { return };
    if up {
        written(world, device);
    }
    uses(world, at, device);
    if let Some(memory) = host.own {
        let expected = if up { host.bytes } else { Vec::new() };
        world.pipelines.kept.push(Kept { memory, expected });
    }
}

struct Ends<'a> {
    kind: i32,
    out: &'a Out<gmb_operation>,
    fates: Fates,
    any: bool,
}

/// Holds the status of a call that queues against what it must be, and enters the operation.
fn finish(
    world: &mut World,
    at: Option<usize>,
    after: &After,
    status: i32,
    good: bool,
    also: &[i32],
    ends: Ends,
) {
    // What it came after has failed: then nobody looks at the rest.
    let failed = at.is_some_and(|at| world.pipelines.coordinators.0[at].it.may_fail(&after.list));
    let full = status == GMB_ERROR_FULL && may_be_full(world, at, 1);
    let named = after.good && ends.out.good && at.is_some();
    let right = match status {
        GMB_OK => good || (failed && named),
        status => !good || full || also.contains(&status),
    };
    assert!(right, "status {status}, good {good}: {}", super::status::message());
    let operation = ends.out.take(status).map(|made| made.id);
    let Some(at) = at else { return };
    let mut fates = world.pipelines.coordinators.0[at].it.inherited(&after.list);
    fates.extend(ends.fates);
    let it = &world.pipelines.coordinators.0[at].it;
    let any = ends.any || after.list.iter().filter_map(|&id| it.find(id)).any(|one| one.any);
    let it = Submitted { kind: ends.kind, status, operation, fates };
    debug_assert!(it.status == GMB_OK || it.operation.is_none());
    enter(world, at, it, &after.list, any);
}

/// A type for a triple buffer, and whether it is its own.
fn dtype(world: &World, input: &mut Input, at: Option<usize>) -> (gmb_dtype, bool) {
    let own =
        at.map_or(gmb_dtype { code: 0, bits: 8, lanes: 1 }, |at| world.pipelines.triples.0[at].it.dtype);
    let given = match input.chance(8) {
        true => gmb_dtype { code: input.byte(), bits: input.byte(), lanes: input.edge() as u16 },
        false => own,
    };
    (given, given == own)
}

fn same_context(world: &World, coordinator: Option<usize>, triple: Option<usize>) -> bool {
    let (Some(coordinator), Some(triple)) = (coordinator, triple) else { return false };
    world.pipelines.coordinators.0[coordinator].it.context == world.pipelines.triples.0[triple].it.context
}

fn comes(world: &World, triple: Option<usize>, step: usize) -> Comes {
    triple.map_or(Comes::Never, |at| world.pipelines.triples.0[at].it.comes(step, true))
}

/// Uploads to triple buffers, and downloads from them.
pub fn triple_copy(world: &mut World, input: &mut Input) {
    let (coordinator, at) = pick(world, input);
    let (triple, of) = super::triple::pick(world, input);
    let after = after(world, input, at);
    let up = input.chance(128);
    let step = if up { UPLOAD } else { DOWNLOAD };
    let Some(fails) = decide(world, at, &after, of, step) else { return };
    let most = of.map_or(64, |of| world.pipelines.triples.0[of].it.bytes);
    let within = 1 + input.word() % most;
    let odd = match input.byte() {
        240..=247 => Some(most + 1),
        248..=251 => Some(0),
        252..=255 => Some(input.choose(&[i64::MAX as u64, 1 << 63, u64::MAX])),
        _ => None,
    };
    let bytes = odd.unwrap_or(within);
    let (dtype, typed) = dtype(world, input, of);
    let out = Out::<gmb_operation>::new(input);
    let host = match up {
        true => host_source(world, input, within),
        false => {
            let own = Blob::new(within as usize);
            Host { address: own.pointer::<u8>() as u64, own: Some(own), bytes: Vec::new() }
        }
    };
    let (address, sound) = spoilt(input, host.address);
    let (list, count) = (after.at, after.count);
    let comes = comes(world, of, step);
    let (status, kind) = match up {
        true => (
            call!(coordinator::gmb_coordinator_queue_triple_upload(
                coordinator,
                triple,
                dtype,
                address as *const c_void,
                bytes,
                list,
                count,
                out.pointer()
            )),
            GMB_OPERATION_UPLOAD,
        ),
        false => (
            call!(coordinator::gmb_coordinator_queue_triple_download(
                coordinator,
                triple,
                dtype,
                address as *mut c_void,
                bytes,
                list,
                count,
                out.pointer()
            )),
            GMB_OPERATION_DOWNLOAD,
        ),
    };
    let sound = sound && odd.is_none() && typed && same_context(world, at, of);
    let good = of.is_some() && at.is_some() && after.good && out.good && sound && comes != Comes::Never;
    let ends = Ends { kind, out: &out, fates: Vec::new(), any: false };
    finish(world, at, &after, status, good, &[], ends);
    let (GMB_OK, Some(at), Some(of)) = (status, at, of) else { return };
    let turn = take_turn(world, at, &after, of, step, fails);
    let it = &mut world.pipelines.triples.0[of].it;
    let mut expected = host.bytes;
    if let Some(turn) = turn {
        if up {
            for (to, byte) in it.turns[turn].content.iter_mut().zip(&expected) {
                *to = *byte;
            }
        } else {
            expected = it.turns[turn].content[..within as usize].to_vec();
        }
        it.submit(turn);
    }
    if let Some(memory) = host.own {
        world.pipelines.kept.push(Kept { memory, expected });
    }
}

/// What computes, as C has it.
struct Computing {
    blob: Blob,
    at: *const gmb_compute,
    /// In order, but for what only the coordinator can know.
    good: bool,
    is_callback: bool,
    launched: Option<Launched>,
    call: Box<Call>,
    triple: Option<usize>,
    body: Body,
}

fn computing(
    world: &World,
    input: &mut Input,
    of: (gmb_coordinator, Option<usize>),
    plain: bool,
) -> Option<Computing> {
    let (coordinator, at) = of;
    let its_context = at.map(|at| world.pipelines.coordinators.0[at].it.context);
    let (triple, of) = match plain || input.chance(96) {
        true => (gmb_triple_buffer { id: 0 }, None),
        false => super::triple::pick(world, input),
    };
    let wrong_triple = triple.id != 0 && of.is_none();
    let bytes = of.map_or(0, |of| world.pipelines.triples.0[of].it.bytes);
    let is_callback = input.chance(128);
    let (mut kernel, kernel_at) = super::module::pick_kernel(world, input);
    let body = super::module::body(world, kernel_at);
    let spare = super::memory::somewhere(world, input, 1).filter(|&(_, room, _)| room >= 16);
    let does = match (input.byte(), spare) {
        (0..=95, _) => Does::Nothing,
        (96..=191, Some((memory, ..))) => Does::Fill(memory, input.byte()),
        (96..=191, None) if of.is_some() => Does::Fill(0, input.byte()),
        (192..=223, _) => {
            Does::Fail(input.choose(&[GMB_ERROR_TIMEOUT, -9999, i32::MIN, GMB_NOT_READY, i32::MAX]))
        }
        (224..=239, _) => Does::Call,
        _ => Does::Nothing,
    };
    // Memory of a context whose handle is gone is not to be filled.
    let alive = its_context.is_some_and(|context| world.contexts.0[context].live);
    let does = if matches!(does, Does::Fill(..)) && !alive { Does::Nothing } else { does };
    let context = gmb_context { id: its_context.map_or(0, |context| world.contexts.0[context].id) };
    let mut call = Box::new(Call { coordinator, context, does, bytes, called: false });
    let launched = match is_callback {
        true => None,
        false => Some(launch(world, input, body, of.map(|_| bytes))?),
    };
    let mut good = !wrong_triple && of.is_none_or(|_| same_context(world, at, of));
    let (usual, other): (gmb_enqueue_function, gmb_enqueue_function) =
        (Some(callback), Some(enqueue_nothing));
    let mut function = usual;
    if is_callback {
        kernel.id = 0;
    } else {
        function = None;
        let its = kernel_at.map(|kernel| world.pipelines.kernels.0[kernel].it.context);
        good &= its.is_some() && its == its_context && launched.as_ref().is_some_and(|made| made.good);
    }
    match input.byte() {
        // Both, or neither.
        255 if is_callback => (function, good) = (None, false),
        255 => (function, good) = (other, false),
        _ => {}
    }
    let reserved = input.spoil(0, 4) as u32;
    let made = gmb_compute {
        struct_size: 0,
        reserved,
        kernel,
        launch: launched.as_ref().map_or(std::ptr::null(), |made| made.at),
        callback: function,
        user: std::ptr::from_mut(&mut *call).cast(),
        triple,
    };
    let (blob, intact) = Blob::sized(made, input);
    let at = blob.pointer::<gmb_compute>().cast_const();
    good &= intact && reserved == 0;
    Some(Computing { blob, at, good, is_callback, launched, call, triple: of, body })
}

impl Computing {
    fn fates(&self) -> Fates {
        match self.call.does {
            Does::Fail(status) if self.is_callback && status < 0 => vec![(Some(status), 0)],
            _ => Vec::new(),
        }
    }

    /// What it did, or will have done, to memory and to its turn of a triple buffer.
    fn enter(self, world: &mut World, at: usize, turn: Option<usize>) {
        let does = if self.is_callback { self.call.does } else { Does::Nothing };
        let used = match (&self.launched, does) {
            (Some(launched), _) => launched.address,
            (None, Does::Fill(address, _)) if self.triple.is_none() => address,
            _ => 0,
        };
        written(world, used);
        uses(world, at, used);
        let (Some(of), Some(turn)) = (self.triple, turn) else { return };
        let it = &mut world.pipelines.triples.0[of].it;
        match (&self.launched, does) {
            (Some(made), _) if self.body == Body::Add => {
                it.change(turn, made.bytes as usize, |byte| byte.map(|byte| byte.wrapping_add(made.value)));
            }
            (None, Does::Fill(_, value)) => it.change(turn, self.call.bytes as usize, |_| Some(value)),
            _ => {}
        }
        it.submit(turn);
        drop(self.blob);
    }
}

pub fn compute(world: &mut World, input: &mut Input) {
    let (coordinator, at) = pick(world, input);
    let after = after(world, input, at);
    let Some(made) = computing(world, input, (coordinator, at), false) else { return };
    let of = made.triple;
    let Some(fails) = decide(world, at, &after, of, PROCESS) else { return };
    let out = Out::<gmb_operation>::new(input);
    let pointer = match input.byte() {
        255 => std::ptr::null(),
        254 => made.blob.pointer::<u8>().wrapping_add(4).cast_const().cast(),
        _ => made.at,
    };
    let comes = of.map_or(Comes::Surely, |of| comes(world, Some(of), PROCESS));
    let status = call!(coordinator::gmb_coordinator_queue_compute(
        coordinator,
        pointer,
        after.at,
        after.count,
        out.pointer()
    ));
    let good =
        at.is_some() && after.good && out.good && made.good && pointer == made.at && comes != Comes::Never;
    let called = made.is_callback && status == GMB_OK && fails == Fails::No;
    assert_eq!(made.call.called, called, "status {status}: the callback was called: {}", made.call.called);
    let ends = Ends { kind: GMB_OPERATION_COMPUTE, out: &out, fates: made.fates(), any: false };
    finish(world, at, &after, status, good, &[], ends);
    let (GMB_OK, Some(at)) = (status, at) else { return };
    let turn = of.and_then(|of| take_turn(world, at, &after, of, PROCESS, fails));
    if fails == Fails::No {
        made.enter(world, at, turn);
    }
}

/// Pushes into mailboxes, and pops: what is in them then is not known.
pub fn moves(world: &mut World, input: &mut Input) {
    let (coordinator, at) = pick(world, input);
    let after = after(world, input, at);
    // Nobody knows which of them would move something.
    if at.is_some_and(|at| world.pipelines.coordinators.0[at].it.may_fail(&after.list)) {
        return;
    }
    let wanted = input.below(3) as u64;
    let step = input.spoil(wanted, 6) as i32;
    let pushes = input.chance(128);
    let (mailbox, of, shape) = super::transfer::pick(world, input);
    let stream = at
        .filter(|_| (0..3).contains(&step))
        .map(|at| world.pipelines.coordinators.0[at].it.streams[step as usize]);
    let its_context = at.map(|at| world.pipelines.coordinators.0[at].it.context);
    let let_in = super::transfer::is_let_in(world, of, stream) && shape.context == its_context;
    let out = Out::<gmb_operation>::new(input);
    let count = input.choose(&[1, 2, 7, 0, u32::MAX, GMB_MAX_RECORDS + 1]);
    let counted = (1..=7).contains(&count);
    let reader = super::transfer::reader(world, of, input);
    // Beside others of its side a shared mailbox's order is nobody's.
    super::transfer::order(world, input, of, (!pushes).then_some(reader.0), stream);
    let (status, good, kind) = match pushes {
        true => {
            let (made, good) = push(world, input, (of, shape), count);
            let (blob, intact) = Blob::sized(made, input);
            let status = call!(coordinator::gmb_coordinator_queue_push(
                coordinator,
                mailbox,
                blob.pointer(),
                step,
                after.at,
                after.count,
                out.pointer()
            ));
            (status, good && intact, GMB_OPERATION_PUSH)
        }
        false => {
            let most = u64::from(count.min(7)).min(shape.capacity);
            let rows = super::transfer::span(most.max(1), shape.row, shape.row);
            let rows = rows.and_then(|bytes| world.arenas.output.take(bytes));
            let Some(rows) = rows else { return world.flush() };
            let made = gmb_pop {
                struct_size: 0,
                max: count,
                records: rows as *mut c_void,
                stride: 0,
                headers: std::ptr::null_mut(),
                reader: reader.0,
                reserved: 0,
            };
            let (blob, intact) = Blob::sized(made, input);
            let status = call!(coordinator::gmb_coordinator_queue_pop(
                coordinator,
                mailbox,
                blob.pointer(),
                step,
                after.at,
                after.count,
                out.pointer()
            ));
            (status, intact && reader.1, GMB_OPERATION_POP)
        }
    };
    let good = good
        && counted
        && of.is_some()
        && at.is_some()
        && let_in
        && after.good
        && out.good
        && (0..3).contains(&step);
    let waits = pushes && shape.policy == Policy::Wait;
    let mut also = vec![GMB_ERROR_MEMORY_LIMIT];
    if waits {
        also.push(GMB_ERROR_TIMEOUT);
    }
    finish(world, at, &after, status, good, &also, Ends { kind, out: &out, fates: Vec::new(), any: true });
    let (GMB_OK, Some(of), Some(stream)) = (status, of, stream) else { return };
    let it = &mut world.mailboxes.0[of].it;
    it.single = it.single.map(|_| Some(stream));
    it.model.tainted = true;
    it.model.launched((!pushes).then_some(reader.0), stream);
}

fn push(
    world: &World,
    input: &mut Input,
    (of, shape): (Option<usize>, super::transfer::Shape),
    count: u32,
) -> (gmb_push, bool) {
    let length = input.word() as u32 % (shape.payload + 1);
    let number = of.map_or(0, |of| world.mailboxes.0[of].it.model.pushes.len());
    let fits = super::transfer::span(u64::from(count.clamp(1, 7)), shape.row, length.into());
    let made = gmb_push {
        struct_size: 0,
        count,
        records: world.arenas.source as *const c_void,
        stride: 0,
        lengths: std::ptr::null(),
        types: std::ptr::null(),
        length,
        msg_type: tag(number, None),
        timeout_ns: 0,
    };
    let whole = shape.policy != Policy::Wait || u64::from(count) <= shape.capacity;
    (made, fits.is_some_and(|bytes| bytes <= SOURCE) && whole)
}

const MOST_TASKS: usize = 6;

/// A graph: copies, callbacks and kernels that come after each other and after others, sometimes in a circle.
pub fn graph(world: &mut World, input: &mut Input) {
    let (coordinator, at) = pick(world, input);
    let count = 1 + input.below(MOST_TASKS);
    let mut tasks: Vec<gmb_task> = Vec::new();
    let mut afters: Vec<(Vec<gmb_task_after>, Blob)> = Vec::new();
    let mut made: Vec<Option<Computing>> = Vec::new();
    let mut hosts: Vec<Option<Blob>> = Vec::new();
    let mut used: Vec<u64> = Vec::new();
    // Well formed, and each in order but for what is found when it is enqueued.
    let (mut good, mut right) = (true, Vec::new());
    for n in 0..count {
        let mut task = gmb_task {
            struct_size: size_of::<gmb_task>() as u32,
            kind: GMB_OPERATION_UPLOAD,
            to: std::ptr::null_mut(),
            from: std::ptr::null(),
            bytes: 0,
            triple: gmb_triple_buffer { id: 0 },
            dtype: gmb_dtype::default(),
            step: 0,
            compute: std::ptr::null(),
            mailbox: gmb_mailbox { id: 0 },
            push: std::ptr::null(),
            pop: std::ptr::null(),
            after: std::ptr::null(),
            after_count: 0,
            reserved: input.spoil(0, 2) as u32,
        };
        good &= task.reserved == 0;
        let (mut computing_of, mut host, mut sound) = (None, None, true);
        let address;
        if input.chance(128) {
            let Some(one) = computing(world, input, (coordinator, at), true) else { return };
            task.kind = GMB_OPERATION_COMPUTE;
            task.compute = one.at;
            // Which of its faults are found before is not told.
            sound = one.good;
            good &= one.good;
            address = match (&one.launched, one.call.does) {
                (Some(launched), _) => launched.address,
                (None, Does::Fill(address, _)) => address,
                _ => 0,
            };
            computing_of = Some(one);
        } else {
            let Some((place, room, _)) = super::memory::somewhere(world, input, 1) else { return };
            let bytes = 1 + input.word() % room.min(4096);
            let blob = Blob::new(bytes as usize);
            let own = blob.pointer::<c_void>();
            task.bytes = bytes;
            address = place;
            if input.chance(128) {
                (task.to, task.from) = (place as *mut c_void, own.cast_const());
            } else {
                task.kind = GMB_OPERATION_DOWNLOAD;
                (task.to, task.from) = (own, place as *const c_void);
            }
            match input.byte() {
                252 => (task.to, sound) = (std::ptr::null_mut(), false),
                253 => (task.from, sound) = (std::ptr::null(), false),
                254 => (task.bytes, sound) = (input.choose(&[0, u64::MAX]), false),
                255 => (task.kind, good) = (input.choose(&[-1, 5, i32::MIN]), false),
                _ => {}
            }
            host = Some(blob);
        }
        let wanted = input.choose(&[0, 1, 1, 2]);
        let mut list = Vec::new();
        for _ in 0..wanted {
            let mut one = gmb_task_after { operation: gmb_operation { id: 0 }, task: 0, reserved: 0 };
            if input.chance(64) {
                let (id, known) = one_operation(world, input, at);
                one.operation.id = id;
                one.task = input.edge() as u32;
                good &= known || id == 0;
                if id == 0 {
                    good &= (one.task as usize) < count;
                }
            } else {
                // Usually one before it, so that it is no circle.
                let before = if n == 0 || input.chance(12) { input.below(count) } else { input.below(n) };
                one.task = input.spoil(before as u64, 4) as u32;
                good &= (one.task as usize) < count;
            }
            one.reserved = input.spoil(0, 2) as u32;
            good &= one.reserved == 0;
            list.push(one);
        }
        let blob = Blob::of(&list);
        (task.after, task.after_count) = (blob.pointer(), wanted as u32);
        if wanted > 0 && input.chance(4) {
            (task.after, good) = (std::ptr::null(), false);
        }
        tasks.push(task);
        afters.push((list, blob));
        made.push(computing_of);
        hosts.push(host);
        used.push(address);
        right.push(sound);
    }
    // Of another library all are; and one may be damaged.
    let mut apart = size_of::<gmb_task>();
    if input.chance(16) {
        apart += 8;
    }
    let mut whole = Blob::new(apart * count);
    whole.bytes_mut().fill(0);
    for (n, task) in tasks.iter_mut().enumerate() {
        task.struct_size = apart as u32;
        if input.chance(3) {
            task.struct_size = input.edge() as u32;
            good &= task.struct_size as usize == apart;
        }
        // SAFETY: room for each, and aligned to 8.
        unsafe { whole.pointer::<u8>().add(n * apart).cast::<gmb_task>().write(*task) };
    }
    // What the first says of the others' place must hold.
    if tasks[0].struct_size as usize != apart && count > 1 && (96..=4096).contains(&tasks[0].struct_size) {
        return;
    }
    if tasks[0].struct_size as usize > apart && tasks[0].struct_size <= 4096 {
        return;
    }
    let order = order_of(&afters, count);
    let ids = Blob::new(8 * count);
    let told = input.spoil(count as u64, 4) as u32;
    if told as usize != count
        && (told != 0
            && u64::from(told) <= at.map_or(u64::MAX, |at| world.pipelines.coordinators.0[at].it.most))
    {
        return;
    }
    good &= told as usize == count;
    let status = call!(task::gmb_coordinator_queue_graph(coordinator, whole.pointer(), told, ids.pointer()));
    let most = at.map_or(0, |at| world.pipelines.coordinators.0[at].it.most);
    let good = good && at.is_some() && order.is_some() && count as u64 <= most;
    let full = status == GMB_ERROR_FULL && may_be_full(world, at, count as u64);
    assert!(
        (status == GMB_OK) == good || (good && full),
        "status {status}, good {good}: {}",
        super::status::message()
    );
    let (GMB_OK, Some(at), Some(order)) = (status, at, order) else {
        assert!(ids.is_untouched(), "ids were written by a call that gave {status}");
        return;
    };
    // SAFETY: so many were written.
    let ids: Vec<u64> = (0..count).map(|n| unsafe { ids.pointer::<u64>().add(n).read() }).collect();
    let after: Vec<Vec<u64>> = afters
        .iter()
        .map(|(list, _)| {
            list.iter()
                .map(|one| if one.operation.id == 0 { ids[one.task as usize] } else { one.operation.id })
                .collect()
        })
        .collect();
    let mut fates: Vec<Fates> = vec![Vec::new(); count];
    let mut any = vec![false; count];
    for n in order {
        let it = &world.pipelines.coordinators.0[at].it;
        let mut own: Fates = made[n].as_ref().map_or_else(Vec::new, Computing::fates);
        if !right[n] {
            own.push((None, 0));
        }
        for id in &after[n] {
            match ids.iter().position(|other| other == id) {
                Some(other) => {
                    own.extend(
                        fates[other]
                            .iter()
                            .map(|&(status, cause)| (status, if cause == 0 { ids[other] } else { cause })),
                    );
                    any[n] |= any[other];
                }
                None => {
                    own.extend(it.inherited(std::slice::from_ref(id)));
                    any[n] |= it.find(*id).is_some_and(|one| one.any);
                }
            }
        }
        fates[n] = own;
    }
    for (n, task) in tasks.iter().enumerate() {
        let it = Submitted {
            kind: task.kind,
            status,
            operation: Some(ids[n]),
            fates: std::mem::take(&mut fates[n]),
        };
        enter(world, at, it, &after[n], any[n]);
        written(world, used[n]);
        uses(world, at, used[n]);
    }
    world
        .pipelines
        .kept
        .extend(hosts.into_iter().flatten().map(|memory| Kept { memory, expected: Vec::new() }));
}

/// An order in which each comes after what it has to, if there is one.
fn order_of(afters: &[(Vec<gmb_task_after>, Blob)], count: usize) -> Option<Vec<usize>> {
    let mut order = Vec::new();
    while order.len() < count {
        let ready = |list: &[gmb_task_after]| {
            list.iter().all(|one| one.operation.id != 0 || order.contains(&(one.task as usize)))
        };
        let next = (0..count).find(|n| !order.contains(n) && ready(&afters[*n].0))?;
        order.push(next);
    }
    Some(order)
}
