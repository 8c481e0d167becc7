//! What coordinators refuse, and operations that fail: their dependants with them, nobody else.

use super::support::*;
use gpumailbox::*;

fn coordinator(context: &Context) -> Coordinator {
    Coordinator::new(context, &CoordinatorOptions::default()).unwrap()
}

/// Enqueues nothing, and answers with a status.
pub fn answers(status: gmb_status) -> Work<'static> {
    Work::Compute(Compute::Callback(Box::new(move |_, _| match status {
        GMB_OK => Ok(()),
        _ => Err(failure(status)),
    })))
}

/// An error of the library's, by its status.
fn failure(status: gmb_status) -> Error {
    let context = Context::new(&ContextOptions { backend: BackendKind::Host, ..Default::default() }).unwrap();
    let error = match status {
        GMB_ERROR_ZERO_COUNT => context.device_buffer(0).unwrap_err(),
        _ => Module::new(&context, &[]).unwrap().kernel("none").unwrap_err(),
    };
    assert_eq!(error.status(), status);
    error
}

/// Every subset of a small random graph's operations fails by itself: just those fail that come after one of them, with the
/// status and the id of one that failed by itself before them.
#[test]
fn a_failure_goes_to_what_comes_after_it_and_no_further() {
    let (context, mut random) = (context(), Random::new());
    let memory = poisoned(&context, 64, POISON);
    let host = context.pinned_buffer(64).unwrap();
    for round in 0..40 {
        let coordinator = coordinator(&context);
        let mut ids: Vec<OperationId> = Vec::new();
        let mut roots: Vec<Vec<usize>> = Vec::new();
        let mut own: Vec<gmb_status> = Vec::new();
        for n in 0..60usize {
            let after: Vec<usize> = (0..random.between(0, 3).min(n as u64))
                .map(|_| random.between(0, n as u64 - 1) as usize)
                .collect();
            let status = match random.between(0, 9) {
                0 => GMB_ERROR_ZERO_COUNT,
                1 => GMB_ERROR_NOT_FOUND,
                _ => GMB_OK,
            };
            let inherited: Vec<usize> = after.iter().flat_map(|&before| roots[before].clone()).collect();
            let work = match (status, random.between(0, 2)) {
                (GMB_OK, 0) => {
                    Work::Upload { to: Place::Address(memory.address()), from: host.address(), bytes: 64 }
                }
                (GMB_OK, 1) => {
                    Work::Download { to: host.address(), from: Place::Address(memory.address()), bytes: 64 }
                }
                _ => answers(status),
            };
            let given: Vec<OperationId> = after.iter().map(|&before| ids[before]).collect();
            ids.push(unsafe { coordinator.queue(work, &given) }.unwrap());
            own.push(status);
            roots.push(if status == GMB_OK { inherited } else { [inherited, vec![n]].concat() });
            // Half of them are known to have failed when others come after them.
            if random.between(0, 3) == 0 {
                coordinator.synchronize(Some(LIMIT)).unwrap();
            }
        }
        coordinator.synchronize(Some(LIMIT)).unwrap();
        let done = coordinator.poll(usize::MAX).unwrap();
        assert_eq!(done.len(), ids.len(), "round {round}");
        for one in &done {
            let n = ids.iter().position(|&id| id == one.operation).unwrap();
            if roots[n].is_empty() {
                assert_eq!((one.status, one.cause), (GMB_OK, None), "operation {n}");
                assert_eq!(coordinator.wait(one.operation, Some(LIMIT)).unwrap(), *one);
                continue;
            }
            let cause = ids.iter().position(|&id| Some(id) == one.cause).unwrap();
            assert!(roots[n].contains(&cause), "operation {n} failed by {cause}, of {:?}", roots[n]);
            assert_eq!(one.status, own[cause], "operation {n}");
            let error = coordinator.wait(one.operation, Some(LIMIT)).unwrap_err();
            assert_eq!(error.status(), own[cause]);
            assert_eq!(error.message().contains("which it came after"), cause != n, "{}", error.message());
        }
    }
}

/// What comes after an operation that is known to have failed is never begun.
#[test]
fn dependants_of_what_has_failed_are_not_begun() {
    let context = context();
    let coordinator = coordinator(&context);
    let failed = unsafe { coordinator.queue(answers(GMB_ERROR_NOT_FOUND), &[]) }.unwrap();
    assert_eq!(coordinator.wait(failed, Some(LIMIT)).unwrap_err().status(), GMB_ERROR_NOT_FOUND);
    let mut begun = false;
    let work = Work::Compute(Compute::Callback(Box::new(|_, _| {
        begun = true;
        Ok(())
    })));
    let after = unsafe { coordinator.queue(work, &[failed]) }.unwrap();
    assert_eq!(coordinator.wait(after, Some(LIMIT)).unwrap_err().status(), GMB_ERROR_NOT_FOUND);
    assert!(!begun);
    // However long ago it was.
    let small = CoordinatorOptions { max_operations: 4, ..Default::default() };
    let coordinator = Coordinator::new(&context, &small).unwrap();
    let queue = |status, after: &[OperationId]| unsafe { coordinator.queue(answers(status), after) }.unwrap();
    let (well, failed) = (queue(GMB_OK, &[]), queue(GMB_ERROR_ZERO_COUNT, &[]));
    for _ in 0..100 {
        coordinator.wait(queue(GMB_OK, &[]), Some(LIMIT)).unwrap();
    }
    for forgotten in [well, failed] {
        let error = coordinator.wait(forgotten, Some(LIMIT)).unwrap_err();
        assert_eq!(error.status(), GMB_ERROR_INVALID_HANDLE);
    }
    coordinator.wait(queue(GMB_OK, &[well]), Some(LIMIT)).unwrap();
    let error = coordinator.wait(queue(GMB_OK, &[well, failed]), Some(LIMIT)).unwrap_err();
    assert_eq!(error.status(), GMB_ERROR_ZERO_COUNT);
}

/// What the device finds wrong with a push or a pop is the operation's status; its count comes with it.
#[test]
fn pushes_and_pops_are_operations() {
    let context = context();
    let (coordinator, mailbox) = (coordinator(&context), mailbox(&context, 8, 16));
    let records = upload(&context, &[7u8; 16 * 12]);
    let lengths = upload(&context, &[16u32, 16, 99, 16]);
    let out = context.device_buffer(16 * 8).unwrap();
    let push = |count, lengths| Work::Push {
        mailbox: &mailbox,
        push: Push { count, records: records.address(), lengths, length: 16, ..Default::default() },
        step: Step::Upload,
    };
    let pop = || Work::Pop {
        mailbox: &mailbox,
        pop: Pop { max: 8, records: out.address(), ..Default::default() },
        step: Step::Download,
    };
    let queue = |work, after: &[OperationId]| unsafe { coordinator.queue(work, after) }.unwrap();
    let pushed = queue(push(5, 0), &[]);
    let popped = queue(pop(), &[pushed]);
    let done = coordinator.wait(popped, Some(LIMIT)).unwrap();
    assert_eq!((done.count, done.kind), (5, OperationKind::Pop));
    // More than there is room for: that is no failure.
    let done = coordinator.wait(queue(push(12, 0), &[popped]), Some(LIMIT)).unwrap();
    assert_eq!((done.count, done.status), (8, GMB_OK));
    queue(pop(), &[]);
    let bad = queue(push(4, lengths.address()), &[]);
    let after = queue(pop(), &[bad]);
    let beside = queue(answers(GMB_OK), &[popped]);
    assert_eq!(coordinator.wait(after, Some(LIMIT)).unwrap_err().status(), GMB_ERROR_BAD_LENGTH);
    let done = coordinator.poll(100).unwrap();
    let told = |id| done.iter().find(|one| one.operation == id).copied().unwrap();
    assert_eq!((told(bad).status, told(bad).count, told(bad).cause), (GMB_ERROR_BAD_LENGTH, 2, Some(bad)));
    assert_eq!((told(after).status, told(after).cause), (GMB_ERROR_BAD_LENGTH, Some(bad)));
    assert!(coordinator.wait(beside, Some(LIMIT)).is_ok(), "it came after neither");
}

#[test]
fn bad_input() {
    let context = context();
    let (one, other) = (coordinator(&context), coordinator(&context));
    let memory = context.device_buffer(64).unwrap();
    let host = [0u8; 64];
    let upload =
        |bytes| Work::Upload { to: Place::Address(memory.address()), from: host.as_ptr() as u64, bytes };
    let refused = |work, after: &[OperationId]| unsafe { one.queue(work, after) }.unwrap_err();
    let foreign = unsafe { other.queue(answers(GMB_OK), &[]) }.unwrap();
    let own = unsafe { one.queue(answers(GMB_OK), &[]) }.unwrap();
    for none in [foreign.raw(), 0, 1, own.raw() + 1, u64::MAX, own.raw() ^ 1 << 47] {
        let none = OperationId::from_raw(none);
        assert_eq!(refused(upload(64), &[own, none]).status(), GMB_ERROR_INVALID_HANDLE, "{none:?}");
        assert_eq!(one.wait(none, None).unwrap_err().status(), GMB_ERROR_INVALID_HANDLE, "{none:?}");
    }
    assert_eq!(refused(upload(0), &[]).status(), GMB_ERROR_ZERO_COUNT);
    assert_eq!(refused(upload(u64::MAX), &[]).status(), GMB_ERROR_OVERFLOW);
    let null = Work::Upload { to: Place::Address(0), from: host.as_ptr() as u64, bytes: 8 };
    assert_eq!(refused(null, &[]).status(), GMB_ERROR_NULL_POINTER);
    let elsewhere = super::support::context();
    let mailbox = mailbox(&elsewhere, 8, 16);
    let pop = Pop { max: 8, records: memory.address(), ..Default::default() };
    let foreign = Work::Pop { mailbox: &mailbox, pop, step: Step::Download };
    assert_eq!(refused(foreign, &[]).status(), GMB_ERROR_INVALID_ARGUMENT);
    let options = CoordinatorOptions { max_operations: u32::MAX, ..Default::default() };
    assert_eq!(Coordinator::new(&context, &options).unwrap_err().status(), GMB_ERROR_INVALID_ARGUMENT);
    // None of them was queued.
    one.synchronize(Some(LIMIT)).unwrap();
    assert_eq!(one.poll(100).unwrap().len(), 1);
}

/// From within a callback the coordinator refuses what could wait for that callback.
#[test]
fn a_callback_cannot_come_back() {
    let context = context();
    let coordinator = coordinator(&context);
    let mut seen = Vec::new();
    let inner = &coordinator;
    let work = Work::Compute(Compute::Callback(Box::new(|stream, address| {
        assert_eq!((stream, address), (inner.stream(Step::Process), 0));
        seen.push(unsafe { inner.queue(answers(GMB_OK), &[]) }.map(|_| ()));
        seen.push(inner.synchronize(None));
        seen.push(unsafe { inner.queue_graph(vec![Task { work: answers(GMB_OK), after: &[] }]) }.map(|_| ()));
        Ok(())
    })));
    let id = unsafe { coordinator.queue(work, &[]) }.unwrap();
    for result in seen {
        assert_eq!(result.unwrap_err().status(), GMB_ERROR_INVALID_ARGUMENT);
    }
    coordinator.wait(id, Some(LIMIT)).unwrap();
    assert_eq!(coordinator.poll(10).unwrap().len(), 1);
}

#[test]
fn graphs_come_in_any_order_but_not_in_circles() {
    let context = context();
    let coordinator = coordinator(&context);
    let memory = upload(&context, &[0u64; 4]);
    let (input, mut output) = ([1u64, 2, 3, 4], [0u64; 4]);
    let kernel = kernels(&context).kernel("mix").unwrap();
    let a = memory.address();
    let arguments = mix_arguments(a, a, a, 9, 4);
    let compute = || Compute::Kernel {
        kernel: &kernel,
        launch: Launch::new(1, 4),
        arguments: &arguments,
        triple: None,
    };
    let first = unsafe { coordinator.queue(answers(GMB_OK), &[]) }.unwrap();
    use TaskAfter::{Operation, Task as After};
    let ids = unsafe {
        coordinator.queue_graph(vec![
            Task { work: download_of(&mut output, a), after: &[After(2)] },
            Task { work: upload_of(a, &input), after: &[Operation(first)] },
            Task { work: Work::Compute(compute()), after: &[After(3), Operation(first)] },
            Task { work: Work::Compute(compute()), after: &[After(1)] },
        ])
    }
    .unwrap();
    assert_eq!(ids.len(), 4);
    coordinator.wait(ids[0], Some(LIMIT)).unwrap();
    let twice = |n: usize| {
        let once = mixed(input[n], input[n], 9, n as u64);
        mixed(once, once, 9, n as u64)
    };
    assert_eq!(output, std::array::from_fn(twice));
    coordinator.poll(100).unwrap();

    let refused = |after: [&[TaskAfter]; 4]| {
        let tasks = after.into_iter().map(|after| Task { work: answers(GMB_OK), after }).collect();
        let error = unsafe { coordinator.queue_graph(tasks) }.unwrap_err();
        (error.status(), error.message().to_owned())
    };
    let (status, words) = refused([&[], &[After(3)], &[After(1)], &[After(2), After(0)]]);
    assert_eq!(status, GMB_ERROR_CYCLE);
    assert!(words.contains("1 after 3 after 2 after 1"), "{words}");
    let (status, words) = refused([&[], &[], &[After(2)], &[]]);
    assert_eq!(status, GMB_ERROR_CYCLE);
    assert!(words.contains("2 after 2"), "{words}");
    let (status, words) = refused([&[], &[After(4)], &[], &[]]);
    assert_eq!(status, GMB_ERROR_INVALID_ARGUMENT);
    assert!(words.contains("task 1") && words.contains("task 4"), "{words}");
    let unknown = OperationId::from_raw(77);
    assert_eq!(refused([&[], &[], &[Operation(unknown)], &[]]).0, GMB_ERROR_INVALID_HANDLE);
    assert_eq!(unsafe { coordinator.queue_graph(vec![]) }.unwrap_err().status(), GMB_ERROR_ZERO_COUNT);
    assert!(coordinator.poll(100).unwrap().is_empty(), "something of a refused graph was queued");

    // One that cannot be enqueued fails, and what comes after it; the others do not.
    let nowhere = || Work::Upload { to: Place::Address(0), from: input.as_ptr() as u64, bytes: 8 };
    let ids = unsafe {
        coordinator.queue_graph(vec![
            Task { work: answers(GMB_OK), after: &[After(1)] },
            Task { work: nowhere(), after: &[] },
            Task { work: answers(GMB_OK), after: &[] },
        ])
    }
    .unwrap();
    coordinator.synchronize(Some(LIMIT)).unwrap();
    let done = coordinator.poll(100).unwrap();
    let told = |id| done.iter().find(|one| one.operation == id).map(|one| (one.status, one.cause)).unwrap();
    assert_eq!(told(ids[0]), (GMB_ERROR_NULL_POINTER, Some(ids[1])));
    assert_eq!(told(ids[1]), (GMB_ERROR_NULL_POINTER, Some(ids[1])));
    assert_eq!(told(ids[2]), (GMB_OK, None));
}

/// As many as may be: then the call is refused, and goes through once the oldest is done.
#[test]
fn in_flight_is_bounded() {
    let context = context();
    let options = CoordinatorOptions { max_operations: 8, ..Default::default() };
    let coordinator = Coordinator::new(&context, &options).unwrap();
    let events = context.event_pool(EventKind::Untimed).size;
    for _ in 0..1000 {
        match unsafe { coordinator.queue(answers(GMB_OK), &[]) } {
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error.status(), GMB_ERROR_FULL);
                coordinator.synchronize(Some(LIMIT)).unwrap();
            }
        }
    }
    let info = coordinator.info();
    assert!(info.high_water <= 8 && info.events <= 8, "{info:?}");
    assert!(context.event_pool(EventKind::Untimed).size <= events + 8);
    // What nobody polled for is dropped: no more than are remembered.
    coordinator.synchronize(Some(LIMIT)).unwrap();
    assert_eq!(coordinator.poll(usize::MAX).unwrap().len(), 16);
}

/// Destroyed with operations in flight, a coordinator ends when they are done: nothing of theirs is lost.
#[test]
fn destroyed_in_flight() {
    let context = context();
    for _ in 0..20 {
        let mut output = vec![0u64; 1 << 16];
        let input = vec![5u64; 1 << 16];
        let device = context.device_buffer(8 << 16).unwrap();
        let coordinator = coordinator(&context);
        unsafe {
            let up = coordinator.queue(upload_of(device.address(), &input), &[]).unwrap();
            coordinator.queue(download_of(&mut output, device.address()), &[up]).unwrap();
        }
        drop(coordinator);
        assert_eq!(output, input);
    }
}

/// A coordinator's streams are readable, and not the reader's to destroy; what is told to come after absurdly much is refused.
#[test]
fn what_belongs_to_a_coordinator_stays_with_it() {
    use capi::coordinator::*;
    let context = c_context(0);
    let options = gmb_coordinator_options {
        struct_size: size_of::<gmb_coordinator_options>() as u32,
        max_operations: 0,
        priority: 0,
        flags: 0,
    };
    let mut coordinator = gmb_coordinator { id: 0 };
    assert_eq!(gmb_coordinator_create(context, &options, &mut coordinator), GMB_OK);
    let mut stream = std::ptr::null_mut();
    assert_eq!(gmb_coordinator_get_stream(coordinator, 0, &mut stream), GMB_OK);
    assert_eq!(capi::stream::gmb_stream_destroy(context, stream), GMB_ERROR_INVALID_STREAM);
    assert_eq!(capi::stream::gmb_stream_synchronize(context, stream), GMB_OK);
    let (one, mut operation) = (gmb_operation { id: 0 }, gmb_operation { id: 7 });
    let mut memory = [0u64; 8];
    let at = memory.as_mut_ptr().cast();
    let status =
        gmb_coordinator_queue_upload(coordinator, at, at.cast_const(), 8, &one, u32::MAX, &mut operation);
    assert_eq!((status, operation.id), (GMB_ERROR_INVALID_ARGUMENT, 7));
    assert_eq!(gmb_coordinator_destroy(coordinator), GMB_OK);
    assert_eq!(capi::context::gmb_context_destroy(context), GMB_OK);
}
