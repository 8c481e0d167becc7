//! Tensors as Arrow arrays on a device, in and out.

use super::support::*;
use gpumailbox::*;
use std::ffi::{c_void, CStr, CString};
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

/// An array with its type, made as another program would: a level for each dimension.
struct Maker {
    format: CString,
    buffers: [*const c_void; 2],
    children: [*mut ArrowArray; 1],
    types: [*mut ArrowSchema; 1],
    released: Arc<AtomicU64>,
}

unsafe extern "C" fn release_array(array: *mut ArrowArray) {
    let array = unsafe { &mut *array };
    let maker = unsafe { Box::from_raw(array.private_data.cast::<Maker>()) };
    if !maker.children[0].is_null() {
        let mut child = unsafe { Box::from_raw(maker.children[0]) };
        if let Some(release) = child.release {
            unsafe { release(&mut *child) };
        }
    } else {
        maker.released.fetch_add(1, Ordering::AcqRel);
    }
    array.release = None;
}

unsafe extern "C" fn release_schema(schema: *mut ArrowSchema) {
    let schema = unsafe { &mut *schema };
    let maker = unsafe { Box::from_raw(schema.private_data.cast::<Maker>()) };
    if !maker.types[0].is_null() {
        let mut child = unsafe { Box::from_raw(maker.types[0]) };
        if let Some(release) = child.release {
            unsafe { release(&mut *child) };
        }
    } else {
        maker.released.fetch_add(1, Ordering::AcqRel);
    }
    schema.release = None;
}

/// Format, length and offset of a level.
type Level<'a> = (&'a str, i64, i64);

/// Levels come outermost first. `released` counts arrays and schemas.
fn made(
    data: u64,
    levels: &[(&str, i64, i64)],
    released: &Arc<AtomicU64>,
) -> (ArrowDeviceArray, ArrowSchema) {
    let (mut child, mut child_type) = (null_mut(), null_mut());
    for &(format, length, offset) in levels.iter().rev() {
        let maker = || {
            Box::into_raw(Box::new(Maker {
                format: CString::new(format).unwrap(),
                buffers: [null(), data as *const c_void],
                children: [child],
                types: [child_type],
                released: Arc::clone(released),
            }))
        };
        let list = i64::from(!child.is_null());
        let (of_array, of_type) = (maker(), maker());
        let (mine, its_type) = unsafe { (&mut *of_array, &mut *of_type) };
        child = Box::into_raw(Box::new(ArrowArray {
            length,
            null_count: 0,
            offset,
            n_buffers: 2 - list,
            n_children: list,
            buffers: mine.buffers.as_mut_ptr(),
            children: mine.children.as_mut_ptr(),
            dictionary: null_mut(),
            release: Some(release_array),
            private_data: of_array.cast(),
        }));
        child_type = Box::into_raw(Box::new(ArrowSchema {
            format: its_type.format.as_ptr(),
            name: null(),
            metadata: null(),
            flags: 0,
            n_children: list,
            children: its_type.types.as_mut_ptr(),
            dictionary: null_mut(),
            release: Some(release_schema),
            private_data: of_type.cast(),
        }));
    }
    let (array, schema) = unsafe { (*Box::from_raw(child), *Box::from_raw(child_type)) };
    let on_host = device().device_type == 1;
    let device_id = if on_host { -1 } else { 0 };
    let device_type = device().device_type;
    (ArrowDeviceArray { array, device_id, device_type, sync_event: null_mut(), reserved: [0; 3] }, schema)
}

fn end(array: &mut ArrowDeviceArray, schema: &mut ArrowSchema) {
    unsafe {
        array.array.release.unwrap()(&mut array.array);
        schema.release.unwrap()(schema);
    }
}

/// Every type that both have, in one dimension and in several, with offsets at each level.
#[test]
fn arrays_come_in_and_go_out() {
    let context = context();
    let stream = context.stream().unwrap();
    let mailbox = tensors(&context, 4, FullPolicy::Reject);
    let content: Vec<u8> = (0..4096u32).map(|i| (i * 7 + i / 256) as u8).collect();
    let memory = upload(&context, &content);
    let types: [(&str, u8, u8); 11] = [
        ("c", 0, 8),
        ("C", 1, 8),
        ("s", 0, 16),
        ("S", 1, 16),
        ("i", 0, 32),
        ("I", 1, 32),
        ("l", 0, 64),
        ("L", 1, 64),
        ("e", 2, 16),
        ("f", 2, 32),
        ("g", 2, 64),
    ];
    let mut pushed = 0;
    for (format, code, bits) in types {
        let bytes = i64::from(bits / 8);
        // Two lists of three lists of four, behind one list, five lists and two numbers.
        let levels = [("+w:3", 2, 1), ("+w:4", 20, 5), (format, 200, 2)];
        let cases: [(&[Level], &[i64], i64); 2] =
            [(&[(format, 9, 6)], &[9], 6), (&levels, &[2, 3, 4], (3 + 5) * 4 + 2)];
        for (levels, shape, first) in cases {
            let released = Arc::new(AtomicU64::new(0));
            let (mut array, mut schema) = made(memory.address(), levels, &released);
            let tensor = unsafe { Tensor::from_arrow(&mut array, &schema) }.unwrap();
            assert!(array.array.release.is_none(), "it is moved");
            unsafe { schema.release.unwrap()(&mut schema) };
            let tag = pushed;
            mailbox.push(tensor, tag, stream.get(), None).unwrap();
            pushed += 1;
            let lease = mailbox.pop(stream.get()).unwrap().unwrap();
            let record = *lease.record();
            assert_eq!((record.address, record.byte_offset), (memory.address(), (first * bytes) as u64));
            assert_eq!(record.dtype, gmb_dtype { code, bits, lanes: 1 });
            assert_eq!(&record.shape[..record.ndim as usize], shape);

            let (mut array, mut schema) = lease.to_arrow().unwrap();
            drop(lease);
            assert_eq!(mailbox.info().leases, 1, "the array holds it");
            let at = walk(&array.array, &schema, format, shape);
            assert_eq!(at, record.address + record.byte_offset);
            assert_eq!((array.device_type, array.reserved), (device().device_type, [0; 3]));
            assert_eq!(array.sync_event.is_null(), device().device_type == 1);
            let count: i64 = shape.iter().product();
            let start = (first * bytes) as usize;
            let length = (count * bytes) as usize;
            assert_eq!(download(&context, at, length), content[start..start + length]);
            assert_eq!(released.load(Ordering::Acquire), 1, "only the schema is back");
            end(&mut array, &mut schema);
            assert!(array.array.release.is_none() && schema.release.is_none());
            given_back(&mailbox, pushed);
            assert_eq!(released.load(Ordering::Acquire), 2);
        }
    }
    // A scalar goes out as an array of one, and a child may be moved out of its parent.
    let ended = Ended::default();
    for shape in [vec![], vec![5, 3]] {
        let given = Given { dtype: FLOAT, shape, ..Given::bytes(memory.address(), 0) };
        let tensor = unsafe { Tensor::from_dlpack(given.versioned(ended.once())) }.unwrap();
        mailbox.push(tensor, 0, stream.get(), None).unwrap();
    }
    let scalar = mailbox.pop(stream.get()).unwrap().unwrap();
    let (mut array, mut schema) = scalar.to_arrow().unwrap();
    assert_eq!(walk(&array.array, &schema, "f", &[1]), memory.address());
    end(&mut array, &mut schema);
    drop(scalar);
    let (mut array, mut schema) = mailbox.pop(stream.get()).unwrap().unwrap().to_arrow().unwrap();
    let child = unsafe { &mut **array.array.children };
    let mut moved = unsafe { std::ptr::read(child) };
    child.release = None;
    end(&mut array, &mut schema);
    assert_eq!((mailbox.info().leases, moved.length), (1, 15), "the child holds it");
    unsafe { moved.release.unwrap()(&mut moved) };
    given_back(&mailbox, pushed + 2);
    assert_eq!(ended.count(), 2);
}

/// Down to the numbers; gives their address.
fn walk(array: &ArrowArray, schema: &ArrowSchema, format: &str, shape: &[i64]) -> u64 {
    let text = unsafe { CStr::from_ptr(schema.format) }.to_str().unwrap();
    assert_eq!((array.null_count, array.offset), (0, 0));
    if shape.len() == 1 {
        assert_eq!((text, array.length, array.n_buffers, array.n_children), (format, shape[0], 2, 0));
        return unsafe { *array.buffers.add(1) } as u64;
    }
    assert_eq!((text, array.length), (format!("+w:{}", shape[1]).as_str(), shape[0]));
    assert_eq!((array.n_buffers, array.n_children, schema.n_children), (1, 1, 1));
    let mut inner = shape[1..].to_vec();
    inner[0] *= shape[0];
    // The lists of a level lie one behind the other.
    let (child, its_type) = unsafe { (&**array.children, &**schema.children) };
    walk(child, its_type, format, &inner)
}

#[test]
fn what_is_no_tensor_stays_the_callers() {
    let context = context();
    let memory = context.device_buffer(4096).unwrap();
    let released = Arc::new(AtomicU64::new(0));
    type Change = fn(&mut ArrowDeviceArray, &mut ArrowSchema);
    let number: &[Level] = &[("f", 8, 0)];
    let list: &[Level] = &[("+w:4", 2, 0), ("f", 8, 0)];
    static SOME: u64 = 0;
    let cases: [(&[Level], Change, gmb_status, &str); 12] = [
        (number, |a, _| a.array.null_count = 1, GMB_ERROR_NOT_SUPPORTED, "nulls"),
        (&[("u", 8, 0)], |_, _| (), GMB_ERROR_NOT_SUPPORTED, "\"u\""),
        (&[("b", 8, 0)], |_, _| (), GMB_ERROR_NOT_SUPPORTED, "\"b\""),
        (&[("+w:x", 8, 0)], |_, _| (), GMB_ERROR_NOT_SUPPORTED, "+w:x"),
        (number, |a, _| a.array.length = -1, GMB_ERROR_INVALID_ARGUMENT, "-1 elements"),
        (number, |a, _| a.array.n_buffers = 1, GMB_ERROR_INVALID_ARGUMENT, "buffer"),
        (
            number,
            |a, _| {
                a.array.null_count = -1;
                unsafe { *a.array.buffers = (&raw const SOME).cast() };
            },
            GMB_ERROR_NOT_SUPPORTED,
            "nulls",
        ),
        (number, |a, _| a.array.dictionary = &raw mut a.array, GMB_ERROR_NOT_SUPPORTED, "dictionary"),
        (number, |a, _| a.array.offset = i64::MAX, GMB_ERROR_OVERFLOW, "address space"),
        (list, |a, _| a.array.length = 3, GMB_ERROR_INVALID_ARGUMENT, "12 behind 0"),
        (list, |a, _| a.array.n_children = 2, GMB_ERROR_INVALID_ARGUMENT, "one child"),
        (
            number,
            |a, _| {
                a.device_type = 1;
                a.sync_event = (&raw const SOME).cast_mut().cast();
            },
            GMB_ERROR_INVALID_ARGUMENT,
            "event",
        ),
    ];
    let count = cases.len() as u64;
    for (levels, change, status, words) in cases {
        let (mut array, mut schema) = made(memory.address(), levels, &released);
        change(&mut array, &mut schema);
        let error = unsafe { Tensor::from_arrow(&mut array, &schema) }.unwrap_err();
        assert_eq!(error.status(), status, "{error}");
        assert!(error.message().contains(words), "{error}");
        end(&mut array, &mut schema);
        let again = unsafe { Tensor::from_arrow(&mut array, &schema) }.unwrap_err();
        assert!(again.message().contains("released"), "{again}");
    }
    assert_eq!(released.load(Ordering::Acquire), 2 * count);
    // Nine levels are one too many.
    let nine = [("+w:1", 1, 0); 8].into_iter().chain([("f", 1, 0)]).collect::<Vec<_>>();
    let (mut array, mut schema) = made(memory.address(), &nine, &released);
    let error = unsafe { Tensor::from_arrow(&mut array, &schema) }.unwrap_err();
    assert_eq!(error.status(), GMB_ERROR_NOT_SUPPORTED, "{error}");
    end(&mut array, &mut schema);

    // Gaps, and types that Arrow does not have.
    let stream = context.stream().unwrap();
    let mailbox = tensors(&context, 4, FullPolicy::Reject);
    let ended = Ended::default();
    let gaps = Given { shape: vec![2, 3], strides: Some(vec![4, 1]), ..Given::bytes(memory.address(), 0) };
    let bfloat =
        Given { dtype: gmb_dtype { code: 4, bits: 16, lanes: 1 }, ..Given::bytes(memory.address(), 4) };
    for given in [gaps, bfloat] {
        let tensor = unsafe { Tensor::from_dlpack(given.versioned(ended.once())) }.unwrap();
        mailbox.push(tensor, 0, stream.get(), None).unwrap();
        let error = mailbox.pop(stream.get()).unwrap().unwrap().to_arrow().unwrap_err();
        assert_eq!(error.status(), GMB_ERROR_NOT_SUPPORTED, "{error}");
    }
    given_back(&mailbox, 2);
}

/// In C an array that is refused, for want of room, say, is whole where it was.
#[test]
fn a_refused_array_is_where_it_was() {
    use gpumailbox::capi::tensor::*;
    let context = c_context(0);
    let released = Arc::new(AtomicU64::new(0));
    let mut mailbox = gmb_tensor_mailbox { id: 0 };
    let options = gmb_tensor_mailbox_options {
        struct_size: size_of::<gmb_tensor_mailbox_options>() as u32,
        consumer: 0,
        capacity: 1,
        full_policy: 0,
        reserved: 0,
    };
    assert_eq!(gmb_tensor_mailbox_create(context, &options, &mut mailbox), GMB_OK);
    let mut memory = null_mut();
    assert_eq!(capi::memory::gmb_memory_allocate(context, 64, &mut memory), GMB_OK);
    let mut push =
        gmb_tensor_push { struct_size: size_of::<gmb_tensor_push>() as u32, flags: 0, tag: 3, timeout_ns: 0 };
    let (mut first, mut its_type) = made(memory as u64, &[("C", 64, 0)], &released);
    let done = gmb_tensor_mailbox_push_arrow(mailbox, &mut first, &mut its_type, &push, null_mut());
    assert_eq!((done, first.array.release.is_none(), its_type.release.is_none()), (GMB_OK, true, true));
    let (mut second, mut its_type) = made(memory as u64, &[("C", 64, 0)], &released);
    let done = gmb_tensor_mailbox_push_arrow(mailbox, &mut second, &mut its_type, &push, null_mut());
    assert_eq!((done, released.load(Ordering::Acquire)), (GMB_ERROR_FULL, 1));
    assert!(second.array.release.is_some() && its_type.release.is_some());
    push.flags = GMB_TENSOR_DROP;
    let done = gmb_tensor_mailbox_push_arrow(mailbox, &mut second, &mut its_type, &push, null_mut());
    assert_eq!(done, GMB_ERROR_FULL);
    assert!(second.array.release.is_none() && its_type.release.is_none(), "both were dropped");
    assert_eq!(gmb_tensor_mailbox_destroy(mailbox), GMB_OK);
    until(|| format!("{released:?} of 4 came back"), || released.load(Ordering::Acquire) >= 4);
    assert_eq!(capi::memory::gmb_memory_free(context, memory), GMB_OK);
    assert_eq!(capi::context::gmb_context_destroy(context), GMB_OK);
}

/// The reader comes after the array's event, which another stream than that of the push has recorded.
#[test]
fn an_array_is_there_when_its_event_says_so() {
    let context = context();
    let [maker, pusher, consumer] = streams(&context);
    let mailbox = tensors(&context, 4, FullPolicy::Reject);
    let (memory, seen) = (poisoned(&context, 1 << 20, 1), poisoned(&context, 64, POISON));
    let released = Arc::new(AtomicU64::new(0));
    if context.info().backend == BackendKind::Host {
        // There is no event: an array on the CPU is there. Going out, it is waited for.
        unsafe { context.fill(memory.address(), 9, 1 << 20, pusher.get()) }.unwrap();
        let given = Given::bytes(memory.address(), 64);
        let tensor = unsafe { Tensor::from_dlpack(given.versioned(|| ())) }.unwrap();
        mailbox.push(tensor, 0, pusher.get(), None).unwrap();
        let (mut array, mut schema) = mailbox.pop(consumer.get()).unwrap().unwrap().to_arrow().unwrap();
        let bytes = unsafe { std::slice::from_raw_parts((*array.array.buffers.add(1)).cast::<u8>(), 64) };
        assert_eq!(bytes, [9; 64]);
        end(&mut array, &mut schema);
        return;
    }
    let _guard = context.guard(maker.get()).unwrap();
    let mut event = 0usize;
    assert_eq!(driver("cuEventCreate", [&raw mut event as usize, 2, 0]), 0);
    for byte in 2..20u8 {
        unsafe {
            context.fill(memory.address(), 0, 1 << 20, maker.get()).unwrap();
            context.fill(memory.address(), byte, 1 << 20, maker.get()).unwrap();
        }
        assert_eq!(driver("cuEventRecord", [event, maker.get().raw() as usize, 0]), 0);
        let (mut array, mut schema) = made(memory.address(), &[("C", 64, 0)], &released);
        array.sync_event = (&raw mut event).cast();
        let tensor = unsafe { Tensor::from_arrow(&mut array, &schema) }.unwrap();
        unsafe { schema.release.unwrap()(&mut schema) };
        mailbox.push(tensor, 0, pusher.get(), None).unwrap();
        let lease = mailbox.pop(consumer.get()).unwrap().unwrap();
        // And out again, for one that waits for the event it gets.
        let (mut array, mut schema) = lease.to_arrow().unwrap();
        let after = unsafe { *array.sync_event.cast::<usize>() };
        assert_eq!(driver("cuStreamWaitEvent", [pusher.get().raw() as usize, after, 0]), 0);
        unsafe { context.copy(seen.address(), memory.address(), 64, pusher.get()) }.unwrap();
        context.synchronize(pusher.get()).unwrap();
        assert_eq!(download(&context, seen.address(), 64), [byte; 64]);
        end(&mut array, &mut schema);
    }
    given_back(&mailbox, 18);
    drop(mailbox);
    assert_eq!(driver("cuEventDestroy_v2", [event, 0, 0]), 0);
}
