//! Tensors for device code. Its part is played by copies and by words that this program stores: what kernels do with the
//! same ring, the example tensor_consumer shows.

use super::support::*;
use gpumailbox::*;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

fn device_tensors(context: &Context, capacity: u64, full_policy: FullPolicy) -> TensorMailbox {
    let options = TensorMailboxOptions { capacity, full_policy, consumer: Consumer::Device };
    TensorMailbox::new(context, &options).unwrap()
}

/// The slot of an index, once its tensor is there.
fn slot(context: &Context, view: &gmb_tensor_view, index: u64) -> gmb_tensor_slot {
    let at = view.ring as u64
        + size_of::<gmb_tensor_ring>() as u64
        + (index & (view.capacity - 1)) * size_of::<gmb_tensor_slot>() as u64;
    // On the host the ring is this process's: to copy what a thread may be writing would be a data race.
    let sequence = (at + std::mem::offset_of!(gmb_tensor_slot, sequence) as u64) as *mut u64;
    let is_cuda = context.info().backend == BackendKind::Cuda;
    let may_look =
        || is_cuda || unsafe { AtomicU64::from_ptr(sequence) }.load(Ordering::Acquire) == index + 1;
    let read = || {
        let bytes = download(context, at, size_of::<gmb_tensor_slot>());
        unsafe { bytes.as_ptr().cast::<gmb_tensor_slot>().read_unaligned() }
    };
    let mut found = None;
    until(
        || format!("tensor {index} is not published"),
        || {
            found = may_look().then(read).filter(|slot| slot.sequence == index + 1);
            found.is_some()
        },
    );
    found.unwrap()
}

fn release(view: &gmb_tensor_view, index: u64) {
    let word = unsafe { AtomicU64::from_ptr(view.released.add((index & (view.capacity - 1)) as usize)) };
    word.store(index + 1, Ordering::Release);
}

#[test]
fn tensors_are_published_and_come_back() {
    let context = context();
    let [producer, consumer] = streams(&context);
    let memory = context.device_buffer(4096).unwrap();
    let mailbox = device_tensors(&context, 4, FullPolicy::Reject);
    let view = mailbox.view(consumer.get()).unwrap();
    assert_eq!(view.capacity, 4);
    let ended = Ended::default();
    let mut random = Random::new();
    let mut given_up = 0;
    for round in 0..50u64 {
        let first = round * 4;
        let mut expected = Vec::new();
        for tag in first..first + 4 {
            let given = Given {
                byte_offset: random.between(0, 100),
                shape: vec![random.between(1, 8) as i64, random.between(1, 8) as i64],
                strides: Some(vec![random.between(8, 20) as i64, 1]),
                ..Given::bytes(memory.address() + random.between(0, 1000), 0)
            };
            let tensor = unsafe { Tensor::from_dlpack(given.versioned(ended.once())) }.unwrap();
            let mut record = *tensor.record();
            record.tag = tag;
            expected.push(record);
            mailbox.push(tensor, tag, producer.get(), None).unwrap();
        }
        assert_eq!(mailbox.info().queued, 4);
        let tensor = counted(memory.address(), 8, &Ended::default());
        let refused = mailbox.push(tensor, 0, producer.get(), None).unwrap_err();
        assert_eq!(refused.error.status(), GMB_ERROR_FULL);
        for (index, expected) in (first..).zip(&expected) {
            assert_eq!(slot(&context, &view, index).tensor, *expected);
        }
        // In any order; room comes with the oldest.
        let mut order: Vec<u64> = (first..first + 4).collect();
        for i in (1..4).rev() {
            order.swap(i, random.between(0, i as u64) as usize);
        }
        for index in order {
            assert_eq!(ended.count(), given_up, "it came back before it was released");
            release(&view, index);
            given_up += 1;
            given_back(&mailbox, given_up);
        }
        assert_eq!((ended.count(), mailbox.info().queued), (given_up, 0));
    }
    let info = mailbox.info();
    assert_eq!((info.pushed, info.popped, info.refused, info.released), (200, 200, 50, 200));
}

#[test]
fn a_push_waits_for_room_and_the_end_takes_what_is_left() {
    let context = context();
    let [producer, consumer] = streams(&context);
    let memory = context.device_buffer(64).unwrap();
    let ended = Ended::default();
    let mailbox = device_tensors(&context, 2, FullPolicy::Wait);
    let view = mailbox.view(consumer.get()).unwrap();
    let push =
        |tag, timeout| mailbox.push(counted(memory.address(), 64, &ended), tag, producer.get(), timeout);
    push(0, None).unwrap();
    push(1, None).unwrap();
    let late = push(2, Some(Duration::from_millis(3))).unwrap_err();
    assert_eq!(late.error.status(), GMB_ERROR_TIMEOUT);
    drop(late);
    // The next slot is the oldest one's, whichever else is free.
    release(&view, 1);
    given_back(&mailbox, 1);
    let late = push(2, Some(Duration::ZERO)).unwrap_err();
    assert_eq!(late.error.status(), GMB_ERROR_TIMEOUT);
    drop(late);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| push(2, None).map_err(|refused| refused.error));
        release(&view, 0);
        waiting.join().unwrap().unwrap();
    });
    assert_eq!(slot(&context, &view, 2).tensor.tag, 2);
    push(3, None).unwrap();
    assert_eq!(mailbox.info().queued, 2);
    drop(mailbox);
    ended.reach(6);
    // And the ring is freed: what is left is the tensors' own memory.
    until(|| "the ring is still there", || context.memory_info().unwrap().allocations <= 1);
}

#[test]
fn sides_are_told_apart() {
    let context = context();
    let stream = context.stream().unwrap();
    let device = device_tensors(&context, 4, FullPolicy::Reject);
    assert_eq!(device.pop(stream.get()).unwrap_err().status(), GMB_ERROR_NOT_SUPPORTED);
    let host = tensors(&context, 4, FullPolicy::Reject);
    assert_eq!(host.view(stream.get()).unwrap_err().status(), GMB_ERROR_NOT_SUPPORTED);
    for full_policy in [FullPolicy::OverwriteOldest, FullPolicy::Latest] {
        let options = TensorMailboxOptions { capacity: 4, full_policy, consumer: Consumer::Device };
        assert_eq!(TensorMailbox::new(&context, &options).unwrap_err().status(), GMB_ERROR_NOT_SUPPORTED);
    }
}
