//! Triple buffers and coordinators while a step cannot run yet.

use crate::support::*;
use crate::triples::triple;
use gpumailbox::*;

/// Nobody gets a buffer before the device has done the step before, but for work of a stream that waits for it.
#[test]
fn a_buffer_comes_when_the_step_before_is_done() {
    let context = context();
    let triple = triple(&context, 8);
    let [left, right] = streams(&context);
    let pinned = context.pinned_buffer(128).unwrap();
    let words = pinned.address() as *mut u64;
    unsafe { (0..16).for_each(|n| words.add(n).write_volatile(n as u64 * 7)) };
    for ask in 0..2 {
        let buffer = triple.acquire(Step::Upload).unwrap().unwrap();
        let address = buffer.address();
        let gate = Gate::close(&context, left.get());
        unsafe { context.copy(address, pinned.address(), 64, left.get()) }.unwrap();
        buffer.submit(left.get()).unwrap();
        stays_out("the upload is not done", || {
            assert_eq!(triple.advance().unwrap(), 0);
            triple.acquire(Step::Process).unwrap().is_some()
        });
        let timeout = triple.wait(Step::Process, Some(std::time::Duration::from_millis(2)));
        assert_eq!(timeout.unwrap_err().status(), GMB_ERROR_TIMEOUT);
        if ask == 0 {
            let buffer = triple.acquire_on(Step::Process, right.get()).unwrap().unwrap();
            unsafe { context.copy(pinned.address() + 64, buffer.address(), 64, right.get()) }.unwrap();
            buffer.submit(right.get()).unwrap();
            stays_out("the stream waits for the upload", || context.is_idle(right.get()).unwrap());
            gate.open();
        } else {
            gate.open();
            drop(triple.wait(Step::Process, Some(LIMIT)).unwrap());
        }
        until(
            || "what was processed or given up goes on",
            || {
                triple.advance().unwrap();
                drop(triple.acquire(Step::Download).unwrap());
                triple.info().states == [BufferState::Free; 3]
            },
        );
        context.synchronize(right.get()).unwrap();
        assert!((0..8).all(|n| unsafe { words.add(8 + n).read_volatile() } == n as u64 * 7));
    }
}

/// Operations wait for what they come after and for nothing else; queueing them waits for nothing.
#[test]
fn operations_wait_for_what_they_come_after() {
    let context = context();
    let coordinator = Coordinator::new(&context, &CoordinatorOptions::default()).unwrap();
    let [gated, free] = [(); 2].map(|()| context.device_buffer(64).unwrap());
    let pinned = context.pinned_buffer(128).unwrap();
    unsafe { std::ptr::write_bytes(pinned.address() as *mut u8, 9, 64) };
    let upload = |to: &DeviceBuffer| Work::Upload {
        to: Place::Address(to.address()),
        from: pinned.address(),
        bytes: 64,
    };
    let download = |from: &DeviceBuffer| Work::Download {
        to: pinned.address() + 64,
        from: Place::Address(from.address()),
        bytes: 64,
    };
    let nothing = || Work::Compute(Compute::Callback(Box::new(|_, _| Ok(()))));
    let queue = |work, after: &[OperationId]| unsafe { coordinator.queue(work, after) }.unwrap();
    let early = queue(upload(&free), &[]);
    coordinator.wait(early, Some(LIMIT)).unwrap();
    coordinator.poll(100).unwrap();

    let gate = Gate::close(&context, coordinator.stream(Step::Upload));
    let up = queue(upload(&gated), &[]);
    let beside = queue(nothing(), &[early]);
    assert!(coordinator.wait(beside, Some(LIMIT)).is_ok(), "it comes after nothing behind the gate");
    let compute = queue(nothing(), &[up, beside]);
    let down = queue(download(&gated), &[compute]);
    for id in [up, compute, down] {
        let error = coordinator.wait(id, Some(PATIENCE / 3)).unwrap_err();
        assert_eq!(error.status(), GMB_ERROR_TIMEOUT);
    }
    let error = coordinator.synchronize(Some(std::time::Duration::from_millis(1))).unwrap_err();
    assert_eq!(error.status(), GMB_ERROR_TIMEOUT);
    let told: Vec<OperationId> = coordinator.poll(100).unwrap().iter().map(|one| one.operation).collect();
    assert_eq!(told, [beside]);
    assert_eq!(coordinator.info().in_flight, 3);
    gate.open();
    coordinator.wait(down, Some(LIMIT)).unwrap();
    let told: Vec<OperationId> = coordinator.poll(100).unwrap().iter().map(|one| one.operation).collect();
    assert_eq!(told, [up, compute, down], "none before what it comes after");
    let view = unsafe { std::slice::from_raw_parts((pinned.address() + 64) as *const u8, 64) };
    assert!(view.iter().all(|&byte| byte == 9));
}

/// A wait for an operation that the stream waits for anyway is not made; one for a later one is.
#[test]
fn streams_wait_for_the_latest_of_each_other() {
    let context = context();
    let coordinator = Coordinator::new(&context, &CoordinatorOptions::default()).unwrap();
    let memory = context.device_buffer(64).unwrap();
    let pinned = context.pinned_buffer(64).unwrap();
    let upload = || Work::Upload { to: Place::Address(memory.address()), from: pinned.address(), bytes: 64 };
    let nothing = || Work::Compute(Compute::Callback(Box::new(|_, _| Ok(()))));
    let queue = |work, after: &[OperationId]| unsafe { coordinator.queue(work, after) }.unwrap();
    // The compute stream was made to wait for a later upload already.
    let [first, second] = [queue(upload(), &[]), queue(upload(), &[])];
    coordinator.wait(queue(nothing(), &[second]), Some(LIMIT)).unwrap();
    coordinator.wait(queue(nothing(), &[first]), Some(LIMIT)).unwrap();
    for round in 0..3 {
        let before = queue(upload(), &[]);
        coordinator.wait(before, Some(LIMIT)).unwrap();
        let gate = Gate::close(&context, coordinator.stream(Step::Upload));
        let behind = queue(upload(), &[]);
        let after: Vec<OperationId> = match round {
            0 => vec![before, behind],
            1 => vec![behind, before],
            _ => vec![first, behind, second],
        };
        let last = queue(nothing(), &after);
        let error = coordinator.wait(last, Some(PATIENCE / 3)).unwrap_err();
        assert_eq!(error.status(), GMB_ERROR_TIMEOUT, "round {round}");
        gate.open();
        coordinator.wait(last, Some(LIMIT)).unwrap();
    }
}

/// Of several operations of one stream the last one has to be done.
#[test]
fn an_operation_comes_after_the_latest_of_a_stream() {
    let context = context();
    let coordinator = Coordinator::new(&context, &CoordinatorOptions::default()).unwrap();
    let memory = context.device_buffer(64).unwrap();
    let pinned = context.pinned_buffer(64).unwrap();
    let queue = |work, after: &[OperationId]| unsafe { coordinator.queue(work, after) }.unwrap();
    let upload = || {
        let to = Place::Address(memory.address());
        queue(Work::Upload { to, from: pinned.address(), bytes: 64 }, &[])
    };
    let nothing = || Work::Compute(Compute::Callback(Box::new(|_, _| Ok(()))));
    for swapped in [false, true] {
        let before = Gate::close(&context, coordinator.stream(Step::Upload));
        let first = upload();
        let between = Gate::close(&context, coordinator.stream(Step::Upload));
        let mut after = [first, upload()];
        if swapped {
            after.reverse();
        }
        let last = queue(nothing(), &after);
        before.open();
        coordinator.wait(first, Some(LIMIT)).unwrap();
        let error = coordinator.wait(last, Some(PATIENCE / 3)).unwrap_err();
        assert_eq!(error.status(), GMB_ERROR_TIMEOUT, "it went after the first alone");
        between.open();
        coordinator.wait(last, Some(LIMIT)).unwrap();
    }
}

/// Thousands in flight; then the call is refused until some are done, and nothing is lost.
#[test]
fn thousands_in_flight() {
    let context = context();
    let coordinator = Coordinator::new(&context, &CoordinatorOptions::default()).unwrap();
    let memory = context.device_buffer(64).unwrap();
    let most = u64::from(coordinator.info().max_operations);
    let gate = Gate::close(&context, coordinator.stream(Step::Process));
    let fill = |n: u64| -> Work {
        let (context, address) = (&context, memory.address());
        let callback: Callback =
            Box::new(move |stream, _| unsafe { context.fill(address, n as u8, 64, stream) });
        Work::Compute(Compute::Callback(callback))
    };
    // Of a stream the driver holds about a thousand entries, and then it waits: far fewer are behind the gate.
    let behind = 200;
    let mut ids = Vec::new();
    for n in 0..behind {
        ids.push(unsafe { coordinator.queue(fill(n), &[]) }.unwrap());
    }
    let info = coordinator.info();
    assert_eq!((info.in_flight, info.queued), (behind, behind));
    assert!(coordinator.poll(10).unwrap().is_empty());
    gate.open();
    coordinator.synchronize(Some(LIMIT)).unwrap();
    for n in behind..3 * most {
        match unsafe { coordinator.queue(fill(n), &[]) } {
            Ok(id) => ids.push(id),
            Err(error) => {
                assert_eq!(error.status(), GMB_ERROR_FULL);
                coordinator.synchronize(Some(LIMIT)).unwrap();
                ids.push(unsafe { coordinator.queue(fill(n), &[]) }.unwrap());
            }
        }
        if n % 1000 == 999 {
            let told = coordinator.poll(usize::MAX).unwrap();
            assert!(told.iter().all(|one| one.status == GMB_OK));
        }
    }
    coordinator.wait(*ids.last().unwrap(), Some(LIMIT)).unwrap();
    assert_eq!(download(&context, memory.address(), 64), [(3 * most - 1) as u8; 64]);
    assert_eq!(coordinator.info().in_flight, 0);
}

/// Neither a copy from pageable memory nor one to it is waited for by the call, nor is a piece of it used again too early.
#[test]
fn pageable_memory_does_not_block_the_call() {
    let context = context();
    let coordinator = Coordinator::new(&context, &CoordinatorOptions::default()).unwrap();
    let device = context.device_buffer(8 << 20).unwrap();
    let (input, mut output) = ((0..1 << 20).collect::<Vec<u64>>(), vec![0u64; 1 << 20]);
    let there_and_back = |output: &mut [u64]| unsafe {
        let up = coordinator.queue(upload_of(device.address(), &input), &[]).unwrap();
        let down = coordinator.queue(download_of(output, device.address()), &[up]).unwrap();
        [up, down]
    };
    // What it is made with the first time may wait for the device.
    coordinator.wait(there_and_back(&mut output)[1], Some(LIMIT)).unwrap();
    output.fill(0);
    let gate = Gate::close(&context, coordinator.stream(Step::Upload));
    let [up, down] = there_and_back(&mut output);
    for id in [up, down] {
        let error = coordinator.wait(id, Some(PATIENCE / 3)).unwrap_err();
        assert_eq!(error.status(), GMB_ERROR_TIMEOUT);
    }
    gate.open();
    coordinator.wait(down, Some(LIMIT)).unwrap();
    assert!(output == input);
}

/// The copy out of pageable memory also waits for what the upload comes after.
#[test]
fn a_staged_upload_comes_after_what_it_is_told_to() {
    let context = context();
    let coordinator = Coordinator::new(&context, &CoordinatorOptions::default()).unwrap();
    let [first, second] = [(); 2].map(|()| context.device_buffer(8 << 17).unwrap());
    let new: Vec<u64> = (0..1 << 17).map(|n| n * 3 + 1).collect();
    let (mut shared, mut seen) = (vec![0u64; 1 << 17], vec![0u64; 1 << 17]);
    let start = unsafe { coordinator.queue(upload_of(first.address(), &new), &[]) }.unwrap();
    // What copies to pageable memory go through is made with the first: that may wait for the device.
    let warm = unsafe { coordinator.queue(download_of(&mut seen, first.address()), &[start]) }.unwrap();
    coordinator.wait(warm, Some(LIMIT)).unwrap();
    let gate = Gate::close(&context, coordinator.stream(Step::Download));
    unsafe {
        let down = coordinator.queue(download_of(&mut shared, first.address()), &[]).unwrap();
        let up = coordinator.queue(upload_of(second.address(), &shared), &[down]).unwrap();
        let error = coordinator.wait(up, Some(PATIENCE / 3)).unwrap_err();
        assert_eq!(error.status(), GMB_ERROR_TIMEOUT);
        gate.open();
        let last = coordinator.queue(download_of(&mut seen, second.address()), &[up]).unwrap();
        coordinator.wait(last, Some(LIMIT)).unwrap();
    }
    assert!(shared == new && seen == new);
}
