//! The memory of tensors: there as long as somebody reads it, given back once, by a thread of the library.

use super::support::*;
use gpumailbox::*;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

/// Memory in the order of a stream; dropped, it is freed there, and the next allocation gets it.
struct Reused {
    buffer: Option<DeviceBuffer>,
    stream: Stream<'static>,
    freed: Arc<AtomicU64>,
}

impl Drop for Reused {
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            unsafe { buffer.free_on(self.stream) }.unwrap();
        }
        self.freed.fetch_add(1, Ordering::AcqRel);
    }
}

/// 10,000 times: the producer allocates, fills, pushes, and has its memory again as soon as the library gives it back;
/// the consumer reads on two streams, late.
#[test]
fn memory_is_used_again_and_no_reader_sees_it() {
    const TIMES: u64 = 10_000;
    const BYTES: u64 = 4096;
    const ZONE: u64 = 256;
    let context = context();
    let streams = streams::<3>(&context);
    let [producer, consumer, second] = [0, 1, 2].map(|i: usize| streams[i].get());
    // It is destroyed after everything that is freed there.
    let freeing = unsafe { Stream::from_raw(producer.raw()) };
    let mailbox = tensors(&context, 64, FullPolicy::Wait);
    let seen = poisoned(&context, (TIMES * 2 * 16) as usize, POISON);
    let slow = [(); 2].map(|()| context.device_buffer(1 << 20).unwrap());
    let freed = Arc::new(AtomicU64::new(0));
    let mut addresses = std::collections::HashSet::new();
    std::thread::scope(|scope| {
        let mailbox = &mailbox;
        let (seen, slow) = (seen.address(), [slow[0].address(), slow[1].address()]);
        let context = &context;
        scope.spawn(move || {
            for i in 0..TIMES {
                let lease = mailbox.pop_within(consumer, None).unwrap().unwrap();
                let record = *lease.record();
                assert_eq!(record.tag, i);
                lease.use_on(second).unwrap();
                let first = record.address + record.byte_offset;
                // Now and then one of the streams is late.
                let late = if i % 2 == 0 { consumer } else { second };
                if i % 16 < 4 {
                    unsafe { context.fill(slow[(i % 2) as usize], 1, 1 << 20, late) }.unwrap();
                }
                for (way, stream) in [consumer, second].into_iter().enumerate() {
                    let from = first + if way == 0 { 0 } else { BYTES - 16 };
                    let to = seen + (2 * i + way as u64) * 16;
                    unsafe { context.copy(to, from, 16, stream) }.unwrap();
                }
            }
        });
        for i in 0..TIMES {
            let bytes = BYTES + 2 * ZONE;
            let buffer = context.device_buffer_on(bytes as usize, producer).unwrap();
            let address = buffer.address();
            addresses.insert(address);
            // What lies around the elements is not theirs.
            unsafe { context.fill(address, 0xEE, bytes as usize, producer) }.unwrap();
            let given = Given { byte_offset: ZONE, ..Given::bytes(address, BYTES as i64) };
            unsafe { context.fill(address + ZONE, i as u8, BYTES as usize, producer) }.unwrap();
            let owner = Reused { buffer: Some(buffer), stream: freeing, freed: Arc::clone(&freed) };
            let tensor = unsafe { Tensor::from_dlpack(given.versioned(move || drop(owner))) }.unwrap();
            mailbox.push(tensor, i, producer, None).unwrap();
        }
    });
    given_back(&mailbox, TIMES);
    assert_eq!(freed.load(Ordering::Acquire), TIMES);
    context.synchronize(producer).unwrap();
    for (n, read) in
        download(&context, seen.address(), (TIMES * 2 * 16) as usize).chunks_exact(16).enumerate()
    {
        assert!(read.iter().all(|&byte| byte == (n / 2) as u8), "reading {n}: {read:x?}");
    }
    println!("{} places for {TIMES} tensors", addresses.len());
    assert!((addresses.len() as u64) < TIMES / 2, "memory is not used again");
}

/// A million, or a tenth of `GMB_TEST_RECORDS`.
#[test]
fn a_million_tensors_leave_nothing_behind() {
    let total = total_records() / 10;
    let context = context();
    let [producer, consumer] = streams(&context);
    let memory = context.device_buffer(256).unwrap();
    let ended = Ended::default();
    for full_policy in [FullPolicy::Wait, FullPolicy::OverwriteOldest] {
        let mailbox = tensors(&context, 256, full_policy);
        let before = (context.memory_info().unwrap().allocations, ended.count());
        let events = context.event_pool(EventKind::Untimed).in_use;
        let done = std::sync::atomic::AtomicBool::new(false);
        let share = total / 2;
        let popped = std::thread::scope(|scope| {
            let popping = scope.spawn(|| {
                let (mut popped, mut last) = (0, None);
                loop {
                    let over = done.load(Ordering::Acquire);
                    match mailbox.pop(consumer.get()).unwrap() {
                        Some(lease) => {
                            let tag = lease.record().tag;
                            assert!(last.is_none_or(|last| last < tag), "{tag} after {last:?}");
                            last = Some(tag);
                            popped += 1;
                        }
                        None if over => return popped,
                        None => std::hint::spin_loop(),
                    }
                }
            });
            for tag in 0..share {
                mailbox.push(counted(memory.address(), 256, &ended), tag, producer.get(), None).unwrap();
            }
            done.store(true, Ordering::Release);
            popping.join().unwrap()
        });
        given_back(&mailbox, share);
        let info = mailbox.info();
        assert_eq!((info.pushed, info.popped, info.popped + info.dropped), (share, popped, share));
        assert_eq!((info.leases, info.retiring, info.queued, info.released), (0, 0, 0, share));
        assert_eq!(ended.count() - before.1, share, "each ends once");
        assert_eq!(context.memory_info().unwrap().allocations, before.0);
        let pool = context.event_pool(EventKind::Untimed);
        assert_eq!(pool.in_use, events, "{pool:?}");
        assert!(pool.size < share / 4 + 1000, "{pool:?}: events are not used again");
    }
}

/// A deleter may call the library, and may take its time: nobody else waits for it.
#[test]
fn a_deleter_runs_on_a_thread_of_the_library_under_no_lock() {
    let context = context();
    let stream = context.stream().unwrap();
    let memory = context.device_buffer(64).unwrap();
    let address = memory.address();
    let mailbox = Arc::new(tensors(&context, 4, FullPolicy::Reject));
    let ended = Ended::default();
    let (tell, told) = channel();
    let (go_on, may_go_on) = channel::<()>();
    let again = (Arc::clone(&mailbox), context.clone(), ended.clone());
    let caller = std::thread::current().id();
    let deleter = move || {
        let (mailbox, context, ended) = again;
        tell.send(std::thread::current().id()).unwrap();
        may_go_on.recv().unwrap();
        let buffer = context.device_buffer(64).unwrap();
        assert!(mailbox.info().pushed >= 2);
        drop(buffer);
        mailbox.push(counted(address, 64, &ended), 99, Stream::LEGACY, None).unwrap();
        tell.send(std::thread::current().id()).unwrap();
    };
    let tensor = unsafe { Tensor::from_dlpack(Given::bytes(address, 64).versioned(deleter)) }.unwrap();
    mailbox.push(tensor, 0, stream.get(), None).unwrap();
    drop(mailbox.pop(stream.get()).unwrap().unwrap());
    let there = told.recv().unwrap();
    assert_ne!(there, caller);
    // The deleter stands still; everything else goes on.
    mailbox.push(counted(address, 64, &ended), 1, stream.get(), None).unwrap();
    let lease = mailbox.pop(stream.get()).unwrap().unwrap();
    assert_eq!((lease.record().tag, mailbox.info().leases), (1, 1));
    let exported = lease.to_dlpack();
    drop(lease);
    unsafe { (*exported).deleter.unwrap()(exported) };
    assert_eq!(ended.count(), 0);
    go_on.send(()).unwrap();
    assert_eq!(told.recv().unwrap(), there);
    assert_eq!(mailbox.pop(stream.get()).unwrap().unwrap().record().tag, 99);
    given_back(&mailbox, 3);
    assert_eq!(ended.count(), 2);
}

/// Whoever still has a tensor has it: the mailbox and the context's handles may go.
#[test]
fn leases_outlive_everything() {
    let context = context();
    let stream = context.stream().unwrap();
    let memory = upload(&context, &[7u8; 64]);
    let ended = Ended::default();
    let mailbox = tensors(&context, 8, FullPolicy::Reject);
    for tag in 0..5 {
        mailbox.push(counted(memory.address(), 64, &ended), tag, stream.get(), None).unwrap();
    }
    let [one, two, three] = [(); 3].map(|()| mailbox.pop(stream.get()).unwrap().unwrap());
    let exported = two.to_dlpack();
    let twice = two.to_dlpack_legacy().unwrap();
    drop(two);
    let info = mailbox.info();
    assert_eq!((info.leases, info.queued), (3, 2));
    // Those that nobody has popped go with the mailbox.
    drop(mailbox);
    let wait = |count| {
        ended.reach(count);
        assert_eq!(ended.count(), count);
    };
    wait(2);
    let address = unsafe { (*exported).dl_tensor.data } as u64;
    assert_eq!(download(&context, address, 64), [7; 64]);
    unsafe { (*exported).deleter.unwrap()(exported) };
    let clone = one.clone();
    drop(one);
    drop(three);
    wait(3);
    assert_eq!(clone.record().address, memory.address());
    unsafe { (*twice).deleter.unwrap()(twice) };
    wait(4);
    drop(clone);
    wait(5);
    // A context that only a tensor holds: it ends on the library's own thread.
    let mailbox = tensors(&context, 1, FullPolicy::Reject);
    let last = super::support::context();
    let far = tensors(&last, 1, FullPolicy::Reject);
    let stream = last.stream().unwrap();
    let buffer = last.device_buffer(64).unwrap();
    let tensor = Tensor::new(buffer, &last, memory.address(), BYTES, &[64], None).unwrap();
    far.push(tensor, 0, stream.get(), None).unwrap();
    let lease = far.pop(stream.get()).unwrap().unwrap();
    drop((far, last));
    drop(lease);
    drop(stream);
    drop(mailbox);
}

/// What deleters of other code do must not end somebody's capture.
#[test]
fn a_deleter_spoils_nobodys_capture() {
    let context = context();
    let [stream, captured] = streams(&context);
    let memory = context.device_buffer(64).unwrap();
    let mailbox = tensors(&context, 4, FullPolicy::Reject);
    let is_cuda = context.info().backend == BackendKind::Cuda;
    let answers = Arc::new(Mutex::new(Vec::new()));
    let tensor = |answers: &Arc<Mutex<Vec<i32>>>| {
        let answers = Arc::clone(answers);
        let deleter = move || {
            let mut address = 0u64;
            let mut all = vec![0, 0];
            if is_cuda {
                // As a framework's allocator does it: its context must be current, too.
                all[0] = driver("cuMemAlloc_v2", [&raw mut address as usize, 4096, 0]);
                all[1] = driver("cuMemFree_v2", [address as usize, 0, 0]);
            }
            answers.lock().unwrap().extend(all);
        };
        unsafe { Tensor::from_dlpack(Given::bytes(memory.address(), 64).versioned(deleter)) }.unwrap()
    };
    for turn in 1..=3 {
        mailbox.push(tensor(&answers), 0, stream.get(), None).unwrap();
        let lease = mailbox.pop(stream.get()).unwrap().unwrap();
        context.begin_capture(captured.get(), CaptureMode::Global).unwrap();
        drop(lease);
        given_back(&mailbox, turn);
        let graph = context.end_capture(captured.get());
        assert!(graph.is_ok(), "{:?}: the capture was spoilt", graph.err());
    }
    assert_eq!(*answers.lock().unwrap(), [0; 6]);
}

/// A lease that ends while its stream is being captured waits for the capture's end, and is not part of it.
#[test]
fn a_lease_may_end_under_capture() {
    let context = context();
    let stream = context.stream().unwrap();
    let memory = context.device_buffer(64).unwrap();
    let mailbox = tensors(&context, 4, FullPolicy::Reject);
    let ended = Ended::default();
    mailbox.push(counted(memory.address(), 64, &ended), 0, stream.get(), None).unwrap();
    let lease = mailbox.pop(stream.get()).unwrap().unwrap();
    context.begin_capture(stream.get(), CaptureMode::Global).unwrap();
    assert_eq!(lease.use_on(stream.get()).unwrap_err().status(), GMB_ERROR_NOT_SUPPORTED);
    drop(lease);
    assert_eq!((mailbox.info().leases, mailbox.info().retiring), (0, 1));
    let graph = context.end_capture(stream.get()).unwrap();
    given_back(&mailbox, 1);
    assert_eq!(ended.count(), 1);
    graph.launch(stream.get()).unwrap();
    context.synchronize(stream.get()).unwrap();
}
