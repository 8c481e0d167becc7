//! Leases, and what they are made into.

use std::ffi::CStr;

use gpumailbox::capi::tensor::gmb_lease;
use gpumailbox::*;

use crate::blob::Out;
use crate::calls::call;
use crate::input::Input;
use crate::probe::{compact, FORMATS};
use crate::tensors::Export;
use crate::world::World;

const MOST: usize = 40;

fn pick(world: &World, input: &mut Input) -> (gmb_lease, Option<usize>) {
    let id = world.tensors.leases.pick(input, world.strangers());
    (gmb_lease { id }, world.tensors.leases.find(id))
}

/// The tensor of a lease, and the context of its mailbox.
fn of(world: &World, at: usize) -> (usize, usize) {
    let number = world.tensors.leases.0[at].it;
    let mailbox = world.tensors.probes[number].mailbox.expect("it was popped from one");
    (number, world.tensors.mailboxes.0[mailbox].it.context)
}

pub fn use_on(world: &mut World, input: &mut Input) {
    let (lease, at) = pick(world, input);
    let known = at.map(|at| of(world, at));
    let (stream, resolved) = world.stream(input, known.map(|(_, context)| context));
    let status = call!(tensor::gmb_lease_use(lease, stream));
    assert_eq!(status == GMB_OK, known.is_some() && resolved.is_some(), "status {status}");
    let (Some((number, context)), Some(resolved)) = (known, resolved) else { return };
    world.tensors.probes[number].users.push(resolved);
    world.enqueued(context, resolved, &[]);
    world.tensors.check();
}

pub fn release(world: &mut World, input: &mut Input) {
    let (lease, at) = pick(world, input);
    let status = call!(tensor::gmb_lease_release(lease));
    assert_eq!(status, if at.is_some() { GMB_OK } else { GMB_ERROR_INVALID_HANDLE });
    if let Some(at) = at {
        let_go_of(world, at);
    }
    world.tensors.check();
}

/// A lease was released.
fn let_go_of(world: &mut World, at: usize) {
    let entry = &mut world.tensors.leases.0[at];
    entry.live = false;
    let number = entry.it;
    let_go(world, number);
}

fn let_go(world: &mut World, number: usize) {
    let mailbox = world.tensors.probes[number].mailbox.expect("it was popped from one");
    let context = world.tensors.mailboxes.0[mailbox].it.context;
    for stream in world.tensors.probes[number].let_go() {
        world.enqueued(context, stream, &[]);
    }
}

pub fn export(world: &mut World, input: &mut Input) {
    if world.tensors.exports.len() >= MOST {
        return;
    }
    let (lease, at) = pick(world, input);
    let known = at.map(|at| world.tensors.leases.0[at].it);
    let record = known.map(|number| world.tensors.probes[number].record);
    match input.below(3) {
        0 => {
            let out = Out::<*mut DLManagedTensorVersioned>::new(input);
            let status = call!(tensor::gmb_lease_to_dlpack(lease, out.pointer()));
            assert_eq!(status == GMB_OK, known.is_some() && out.good, "status {status}");
            let (Some(tensor), Some(record)) = (out.take(status), record) else { return };
            look_at(tensor, &record);
            enter(world, known, Export::Versioned(tensor));
        }
        1 => {
            let out = Out::<*mut DLManagedTensor>::new(input);
            let status = call!(tensor::gmb_lease_to_dlpack_legacy(lease, out.pointer()));
            // What such a tensor cannot say it must not be.
            let flags = record.map_or(0, |record| record.flags);
            let can = flags & 1 == 0 && (flags & 4 == 0 || status == GMB_OK);
            assert_eq!(status == GMB_OK, known.is_some() && out.good && can, "status {status}");
            let (Some(tensor), Some(record)) = (out.take(status), record) else { return };
            // SAFETY: just made.
            same(unsafe { &(*tensor).dl_tensor }, &record);
            enter(world, known, Export::Legacy(tensor));
        }
        _ => to_arrow(world, input, lease, known),
    }
    world.tensors.check();
}

fn enter(world: &mut World, number: Option<usize>, export: Export) {
    let number = number.expect("what was exported has a lease");
    if !matches!(export, Export::Schema(_)) {
        world.tensors.probes[number].hold();
    }
    world.tensors.exports.push((number, export));
}

/// The exported tensor is the one that was pushed.
pub fn look_at(tensor: *mut DLManagedTensorVersioned, record: &gmb_tensor) {
    // SAFETY: just made, and not ended.
    let tensor = unsafe { &*tensor };
    assert_eq!((tensor.version.major, tensor.flags), (1, record.flags));
    same(&tensor.dl_tensor, record);
}

fn same(tensor: &DLTensor, record: &gmb_tensor) {
    assert_eq!((tensor.data as u64, tensor.byte_offset), (record.address, record.byte_offset));
    let mut got = gmb_tensor {
        device_type: tensor.device.device_type,
        device_id: tensor.device.device_id,
        dtype: tensor.dtype,
        ndim: tensor.ndim,
        shape: [0; 8],
        strides: [0; 8],
        ..*record
    };
    for i in 0..record.ndim as usize {
        // SAFETY: of as many elements as it has dimensions.
        (got.shape[i], got.strides[i]) = unsafe { (*tensor.shape.add(i), *tensor.strides.add(i)) };
    }
    super::tensor::same(&got, record);
}

fn to_arrow(world: &mut World, input: &mut Input, lease: gmb_lease, known: Option<usize>) {
    let (array, schema) = (Out::<[u64; 16]>::new(input), Out::<[u64; 9]>::new(input));
    assert_eq!((size_of::<ArrowDeviceArray>(), size_of::<ArrowSchema>()), (128, 72));
    let status = call!(tensor::gmb_lease_to_arrow(lease, array.pointer().cast(), schema.pointer().cast()));
    let record = known.map(|number| world.tensors.probes[number].record);
    let good = record.is_some_and(|record| is_array(&record)) && array.good && schema.good;
    assert_eq!(status == GMB_OK, good, "status {status}: {}", super::status::message());
    let (Some(array), Some(schema), Some(record)) = (array.take(status), schema.take(status), record) else {
        return;
    };
    // SAFETY: written by the library, and moved out of where it was: these are the only copies.
    let (array, schema) = unsafe {
        (
            std::mem::transmute::<[u64; 16], ArrowDeviceArray>(array),
            std::mem::transmute::<[u64; 9], ArrowSchema>(schema),
        )
    };
    assert_eq!((array.device_type, array.device_id, array.sync_event.is_null()), (1, -1, true));
    look_into(&array.array, &schema, &record);
    enter(world, known, Export::Array(Box::new(array)));
    enter(world, known, Export::Schema(Box::new(schema)));
}

fn is_array(record: &gmb_tensor) -> bool {
    let shape = &record.shape[..record.ndim as usize];
    let dtype = (record.dtype.code, record.dtype.bits, record.dtype.lanes);
    let wanted = compact(shape);
    FORMATS.iter().any(|&(_, code, bits)| (code, bits, 1) == dtype)
        && !shape.contains(&i64::MAX)
        && (shape.contains(&0) || (0..shape.len()).all(|i| shape[i] == 1 || record.strides[i] == wanted[i]))
}

fn look_into(array: &ArrowArray, schema: &ArrowSchema, record: &gmb_tensor) {
    let shape = if record.ndim == 0 { &[1][..] } else { &record.shape[..record.ndim as usize] };
    let (mut array, mut schema, mut length) = (array, schema, 1);
    for (i, size) in shape.iter().enumerate() {
        length *= size;
        assert_eq!((array.length, array.offset, array.null_count), (length, 0, 0));
        // SAFETY: ends with NUL.
        let format = unsafe { CStr::from_ptr(schema.format) };
        let Some(next) = shape.get(i + 1) else {
            let known = FORMATS.iter().find(|known| known.0 == format).expect("a format of numbers");
            assert_eq!((known.1, known.2), (record.dtype.code, record.dtype.bits));
            // SAFETY: an array of numbers has two buffers.
            let data = unsafe { *array.buffers.add(1) };
            assert_eq!((array.n_buffers, data as u64), (2, record.address.wrapping_add(record.byte_offset)));
            return;
        };
        assert_eq!(format.to_str(), Ok(format!("+w:{next}").as_str()));
        assert_eq!((array.n_children, schema.n_children, array.n_buffers), (1, 1, 1));
        // SAFETY: one child each.
        (array, schema) = unsafe { (&**array.children, &**schema.children) };
    }
}

pub fn end_export(world: &mut World, input: &mut Input) {
    if world.tensors.exports.is_empty() {
        return;
    }
    let at = input.below(world.tensors.exports.len());
    let (number, export) = world.tensors.exports.swap_remove(at);
    if let Export::Array(array) = &export {
        if array.array.n_children == 1 && input.chance(64) {
            // SAFETY: a child that was not moved before: the specification lets it outlive its parent.
            let child = unsafe {
                let child = *array.array.children;
                let moved = std::ptr::read(child);
                (*child).release = None;
                moved
            };
            enter(world, Some(number), Export::Child(Box::new(child)));
        }
    }
    end(world, number, export);
    world.tensors.check();
}

/// Ends what the sequence owns, on this thread or another one.
fn end(world: &mut World, number: usize, export: Export) {
    let probe = &mut world.tensors.probes[number];
    let holds = !matches!(export, Export::Schema(_));
    // The last one may be ended before the call is over.
    probe.may_end |= holds && probe.holders == 1;
    // SAFETY: each is ended once.
    unsafe {
        match export {
            Export::Versioned(tensor) => (*tensor).deleter.expect("it has one")(tensor),
            Export::Legacy(tensor) => (*tensor).deleter.expect("it has one")(tensor),
            Export::Array(mut array) => {
                array.array.release.expect("not released")(&mut array.array);
                assert!(array.array.release.is_none());
            }
            Export::Child(mut array) => {
                array.release.expect("not released")(&mut *array);
                assert!(array.release.is_none());
            }
            Export::Schema(mut schema) => {
                schema.release.expect("not released")(&mut *schema);
                assert!(schema.release.is_none());
            }
        }
    }
    if holds {
        let_go(world, number);
    }
}

/// Ends everything, leases before their mailboxes or after.
pub fn end_all(world: &mut World, leases_first: bool) {
    for leases in [leases_first, !leases_first] {
        if !leases {
            let live: Vec<usize> = world.tensors.mailboxes.live().collect();
            for at in live {
                super::tensor::end(world, at);
            }
            continue;
        }
        let live: Vec<usize> = world.tensors.leases.live().collect();
        for at in live {
            let id = world.tensors.leases.0[at].id;
            assert_eq!(call!(tensor::gmb_lease_release(gmb_lease { id })), GMB_OK);
            let_go_of(world, at);
        }
        while let Some((number, export)) = world.tensors.exports.pop() {
            end(world, number, export);
        }
    }
}
