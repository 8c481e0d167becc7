//! Tensors by pointer: what is popped is what was pushed, whatever its shape; what a full mailbox does; bad input.

use super::support::*;
use gpumailbox::*;
use std::time::Duration;

/// Every type code, with bits that it can have.
const TYPES: [(u8, &[u8]); 18] = [
    (0, &[8, 16, 32, 64]),
    (1, &[1, 4, 8, 16, 32, 64]),
    (2, &[16, 32, 64]),
    (3, &[64]),
    (4, &[16]),
    (5, &[64, 128]),
    (6, &[8]),
    (7, &[8]),
    (8, &[8]),
    (9, &[8]),
    (10, &[8]),
    (11, &[8]),
    (12, &[8]),
    (13, &[8]),
    (14, &[8]),
    (15, &[6]),
    (16, &[6]),
    (17, &[4]),
];

/// Strides with gaps, in a random order of dimensions and some of them backwards; and how many elements lie before the first.
fn scattered(random: &mut Random, shape: &[i64]) -> (Vec<i64>, i64) {
    let mut order: Vec<usize> = (0..shape.len()).collect();
    for i in (1..order.len()).rev() {
        order.swap(i, random.between(0, i as u64) as usize);
    }
    let (mut strides, mut step, mut before) = (vec![0; shape.len()], 1i64, 0);
    for dimension in order {
        step += random.between(0, 2) as i64;
        let backwards = random.between(0, 3) == 0;
        strides[dimension] = if backwards { -step } else { step };
        if backwards {
            before += step * (shape[dimension] - 1).max(0);
        }
        step *= shape[dimension].max(1);
    }
    (strides, before)
}

#[test]
fn a_pop_gives_what_a_push_was_given() {
    let context = context();
    let mut random = Random::new();
    let [producer, consumer] = streams(&context);
    let mailbox = tensors(&context, 4, FullPolicy::Reject);
    let memory = context.device_buffer(16 << 20).unwrap();
    let ended = Ended::default();
    let mut pushed = 0;
    for (code, all_bits) in TYPES {
        for &bits in all_bits {
            for ndim in 0..=8usize {
                let dtype = gmb_dtype { code, bits, lanes: random.between(1, 4) as u16 };
                let shape: Vec<i64> = (0..ndim)
                    .map(|_| if random.between(0, 30) == 0 { 0 } else { random.between(1, 3) as i64 })
                    .collect();
                let (strides, before) = scattered(&mut random, &shape);
                let strides = (random.between(0, 3) != 0).then_some(strides);
                let element = u64::from(bits) * u64::from(dtype.lanes);
                let given = Given {
                    data: memory.address() + random.between(0, 100),
                    dtype,
                    shape,
                    strides,
                    byte_offset: 8 + before as u64 * element.div_ceil(8),
                    flags: random.between(0, 3),
                };
                let legacy = random.between(0, 1) == 0;
                let tensor = match legacy {
                    true => unsafe { Tensor::from_dlpack_legacy(given.legacy(ended.once())) },
                    false => unsafe { Tensor::from_dlpack(given.versioned(ended.once())) },
                };
                let tag = random.next();
                mailbox.push(tensor.unwrap(), tag, producer.get(), None).unwrap();
                pushed += 1;
                let lease = mailbox.pop(consumer.get()).unwrap().unwrap();
                check(&given, tag, legacy, &lease);
            }
        }
    }
    given_back(&mailbox, pushed);
    assert_eq!(ended.count(), pushed, "each ends once");
}

/// A popped tensor against what was given, in every form.
fn check(given: &Given, tag: u64, legacy: bool, lease: &Lease) {
    let ndim = given.shape.len();
    // Rows one behind the other, counted from the last dimension.
    let rows: Vec<i64> =
        (0..ndim).map(|i| given.shape[i + 1..].iter().map(|&size| size.max(1)).product()).collect();
    let strides = given.strides.clone().unwrap_or(rows);
    let flags = if legacy { 0 } else { given.flags };
    let record = lease.record();
    assert_eq!((record.address, record.byte_offset, record.tag), (given.data, given.byte_offset, tag));
    assert_eq!((record.dtype, record.ndim as usize, record.flags), (given.dtype, ndim, flags));
    assert_eq!((record.device_type, record.device_id), (device().device_type, 0));
    assert_eq!((&record.shape[..ndim], &record.strides[..ndim]), (&given.shape[..], &strides[..]));
    assert!(record.shape[ndim..].iter().chain(&record.strides[ndim..]).all(|&rest| rest == 0));

    let exported = lease.to_dlpack();
    let managed = unsafe { &*exported };
    assert_eq!((managed.version.major, managed.flags), (1, flags));
    same(&managed.dl_tensor, given, &strides);
    unsafe { managed.deleter.unwrap()(exported) };
    match lease.to_dlpack_legacy() {
        Ok(exported) => {
            assert_eq!(flags & 1, 0, "a read-only tensor lost that");
            same(unsafe { &(*exported).dl_tensor }, given, &strides);
            unsafe { (*exported).deleter.unwrap()(exported) };
        }
        Err(error) => assert_eq!((flags & 1, error.status()), (1, GMB_ERROR_NOT_SUPPORTED)),
    }
}

fn same(tensor: &DLTensor, given: &Given, strides: &[i64]) {
    assert_eq!((tensor.data as u64, tensor.byte_offset), (given.data, given.byte_offset));
    assert_eq!((tensor.device, tensor.dtype), (device(), given.dtype));
    assert_eq!(tensor.ndim as usize, given.shape.len());
    if given.shape.is_empty() {
        return;
    }
    let list = |from: *mut i64| unsafe { std::slice::from_raw_parts(from, given.shape.len()) };
    assert_eq!((list(tensor.shape), list(tensor.strides)), (&given.shape[..], strides));
}

#[test]
fn tensors_come_in_order_and_full_is_full() {
    let context = context();
    let stream = context.stream().unwrap();
    let memory = context.device_buffer(256).unwrap();
    let ended = Ended::default();
    let push = |mailbox: &TensorMailbox, tag, timeout| {
        mailbox.push(counted(memory.address(), 64, &ended), tag, stream.get(), timeout)
    };
    let pop = |mailbox: &TensorMailbox| mailbox.pop(stream.get()).unwrap().map(|lease| lease.record().tag);

    let rejecting = tensors(&context, 2, FullPolicy::Reject);
    assert_eq!(pop(&rejecting), None);
    for tag in 0..2 {
        push(&rejecting, tag, None).unwrap();
    }
    let refused = push(&rejecting, 2, None).unwrap_err();
    assert_eq!(refused.error.status(), GMB_ERROR_FULL);
    assert_eq!((rejecting.info().refused, ended.count()), (1, 0), "a refused tensor stays whole");
    // Given back by the library after all.
    rejecting.discard(refused, stream.get()).unwrap();
    assert_eq!([pop(&rejecting), pop(&rejecting), pop(&rejecting)], [Some(0), Some(1), None]);
    given_back(&rejecting, 3);
    let info = rejecting.info();
    assert_eq!((info.pushed, info.popped, info.dropped, info.leases, info.queued), (2, 2, 1, 0, 0));

    let waiting = tensors(&context, 1, FullPolicy::Wait);
    push(&waiting, 0, None).unwrap();
    let late = push(&waiting, 1, Some(Duration::ZERO)).unwrap_err();
    assert_eq!(late.error.status(), GMB_ERROR_TIMEOUT);
    let late = push(&waiting, 1, Some(Duration::from_millis(2))).unwrap_err();
    assert_eq!(late.error.status(), GMB_ERROR_TIMEOUT);
    drop(late);
    std::thread::scope(|scope| {
        scope.spawn(|| push(&waiting, 1, None).unwrap());
        let mut came = Vec::new();
        while came.len() < 2 {
            came.extend(pop(&waiting));
        }
        assert_eq!(came, [0, 1]);
    });

    let over = tensors(&context, 4, FullPolicy::OverwriteOldest);
    let newest = tensors(&context, 4, FullPolicy::Latest);
    for tag in 0..10 {
        push(&over, tag, None).unwrap();
        push(&newest, tag, None).unwrap();
    }
    assert_eq!((over.info().dropped, newest.info().dropped), (6, 9));
    let all: Vec<_> = std::iter::from_fn(|| pop(&over)).collect();
    assert_eq!(all, [6, 7, 8, 9]);
    assert_eq!((pop(&newest), pop(&newest)), (Some(9), None));
    given_back(&over, 10);
    given_back(&newest, 10);
}

#[test]
fn a_thread_waits_for_a_tensor_until_the_end() {
    let context = context();
    let memory = context.device_buffer(64).unwrap();
    let ended = Ended::default();
    let mailbox = capi_mailbox();
    let pop = |timeout| {
        let mut lease = capi::tensor::gmb_lease { id: 0 };
        let legacy = std::ptr::null_mut();
        let status =
            capi::tensor::gmb_tensor_mailbox_pop(mailbox, legacy, timeout, &mut lease, std::ptr::null_mut());
        (status, lease)
    };
    assert_eq!(pop(0).0, GMB_NOT_READY);
    assert_eq!(pop(2_000_000).0, GMB_NOT_READY);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| pop(u64::MAX));
        let given = Given::bytes(memory.address(), 64).versioned(ended.once());
        let legacy = std::ptr::null_mut();
        let pushed = capi::tensor::gmb_tensor_mailbox_push(mailbox, given, std::ptr::null(), legacy);
        assert_eq!(pushed, GMB_OK);
        let (status, lease) = waiting.join().unwrap();
        assert_eq!(status, GMB_OK);
        assert_eq!(capi::tensor::gmb_lease_release(lease), GMB_OK);
        assert_eq!(capi::tensor::gmb_lease_release(lease), GMB_ERROR_INVALID_HANDLE);
        let waiting = scope.spawn(|| pop(u64::MAX));
        assert_eq!(capi::tensor::gmb_tensor_mailbox_destroy(mailbox), GMB_OK);
        assert_eq!(waiting.join().unwrap().0, GMB_ERROR_INVALID_HANDLE);
    });
    ended.reach(1);
}

/// Of the backend under test, by its handle in C, in a context of its own that only it holds.
fn capi_mailbox() -> capi::tensor::gmb_tensor_mailbox {
    let context = c_context(0);
    let mut mailbox = capi::tensor::gmb_tensor_mailbox { id: 0 };
    let options = capi::tensor::gmb_tensor_mailbox_options {
        struct_size: size_of::<capi::tensor::gmb_tensor_mailbox_options>() as u32,
        consumer: 0,
        capacity: 2,
        full_policy: 0,
        reserved: 0,
    };
    assert_eq!(capi::tensor::gmb_tensor_mailbox_create(context, &options, &mut mailbox), GMB_OK);
    assert_eq!(capi::context::gmb_context_destroy(context), GMB_OK);
    mailbox
}

#[test]
fn bad_tensors_are_refused_and_stay_whole() {
    let context = context();
    let stream = context.stream().unwrap();
    let memory = context.device_buffer(4096).unwrap();
    let mailbox = tensors(&context, 4, FullPolicy::Reject);
    let ended = Ended::default();
    let good = Given {
        data: memory.address(),
        dtype: FLOAT,
        shape: vec![4, 5],
        strides: None,
        byte_offset: 0,
        flags: 0,
    };
    type Change = fn(&mut DLManagedTensorVersioned);
    let cases: [(Change, gmb_status, &str); 12] = [
        (|t| t.dl_tensor.device.device_type = 9, GMB_ERROR_INVALID_DEVICE, "type 9"),
        (
            |t| t.dl_tensor.device.device_type = 3 - t.dl_tensor.device.device_type,
            GMB_ERROR_INVALID_DEVICE,
            "mailbox is for",
        ),
        (|t| t.dl_tensor.device.device_id = 7, GMB_ERROR_INVALID_DEVICE, "mailbox is for"),
        (|t| t.dl_tensor.dtype.code = 18, GMB_ERROR_INVALID_ARGUMENT, "code 18"),
        (|t| t.dl_tensor.dtype.bits = 0, GMB_ERROR_INVALID_ARGUMENT, "bits 0"),
        (|t| t.dl_tensor.ndim = 9, GMB_ERROR_NOT_SUPPORTED, "9 dimensions"),
        (|t| t.dl_tensor.ndim = -1, GMB_ERROR_INVALID_ARGUMENT, "-1 dimensions"),
        (|t| t.dl_tensor.shape = std::ptr::null_mut(), GMB_ERROR_NULL_POINTER, "shape"),
        (|t| unsafe { *t.dl_tensor.shape = -4 }, GMB_ERROR_INVALID_ARGUMENT, "-4 elements"),
        (|t| unsafe { *t.dl_tensor.shape = i64::MAX }, GMB_ERROR_OVERFLOW, "address space"),
        (|t| t.dl_tensor.byte_offset = u64::MAX, GMB_ERROR_OVERFLOW, "address space"),
        (|t| t.dl_tensor.data = std::ptr::null_mut(), GMB_ERROR_NULL_POINTER, "data"),
    ];
    for (change, status, words) in cases {
        let managed = good.versioned(ended.once());
        change(unsafe { &mut *managed });
        let error = match unsafe { Tensor::from_dlpack(managed) } {
            Err(error) => {
                unsafe { end_versioned(managed) };
                error
            }
            Ok(tensor) => mailbox.push(tensor, 0, stream.get(), None).unwrap_err().error,
        };
        assert_eq!(error.status(), status, "{error}");
        assert!(error.message().contains(words), "{error}");
    }
    assert_eq!(ended.count(), 12, "each was the caller's, once");

    // Nothing at all may be where nothing is.
    let empty = Given { data: 0, shape: vec![3, 0, 2], ..good.clone() };
    let tensor = unsafe { Tensor::from_dlpack(empty.versioned(ended.once())) }.unwrap();
    mailbox.push(tensor, 0, stream.get(), None).unwrap();
    assert_eq!(mailbox.pop(stream.get()).unwrap().unwrap().record().address, 0);
    // A deleter that is not there is not called.
    let managed = good.versioned(ended.once());
    unsafe { (*managed).deleter = None };
    mailbox.push(unsafe { Tensor::from_dlpack(managed) }.unwrap(), 0, stream.get(), None).unwrap();
    drop(mailbox.pop(stream.get()).unwrap().unwrap());
    given_back(&mailbox, 2);
    assert_eq!(ended.count(), 13);
    unsafe { end_versioned(managed) };

    // Of another major version: nothing is read, and it is deleted at once.
    let managed = good.versioned(ended.once());
    unsafe { (*managed).version = DLPackVersion { major: 2, minor: 0 } };
    unsafe { (*managed).dl_tensor.ndim = 1_000_000 };
    let error = unsafe { Tensor::from_dlpack(managed) }.unwrap_err();
    assert_eq!((error.status(), ended.count()), (GMB_ERROR_BAD_VERSION, 15), "{error}");
    // Of a later minor one it is read.
    let managed = good.versioned(ended.once());
    unsafe { (*managed).version = DLPackVersion { major: 1, minor: 99 } };
    drop(unsafe { Tensor::from_dlpack(managed) }.unwrap());
    assert_eq!(ended.count(), 16);

    // A stream under capture is refused, and its capture goes on.
    context.begin_capture(stream.get(), CaptureMode::Global).unwrap();
    let refused = mailbox.push(counted(memory.address(), 16, &ended), 0, stream.get(), None).unwrap_err();
    assert_eq!(refused.error.status(), GMB_ERROR_NOT_SUPPORTED);
    assert_eq!(mailbox.pop(stream.get()).unwrap_err().status(), GMB_ERROR_NOT_SUPPORTED);
    context.end_capture(stream.get()).unwrap();
    for (capacity, status) in
        [(0, GMB_ERROR_INVALID_ARGUMENT), (3, GMB_ERROR_INVALID_ARGUMENT), (1 << 21, GMB_ERROR_OVERFLOW)]
    {
        let options = TensorMailboxOptions { capacity, ..Default::default() };
        assert_eq!(TensorMailbox::new(&context, &options).unwrap_err().status(), status);
    }
}
