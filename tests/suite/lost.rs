//! A device that breaks under the program: every call says so, every waiter wakes, and
//! everything can still be dropped. In a child process; on the host through the made-up driver.

use super::support::*;
use gpumailbox::*;
use std::time::Duration;

const CHILD: &str = "GMB_TEST_LOST";

/// Runs the calling test in a child with a CUDA context that it may break. True in the child.
fn in_child(test: &str) -> bool {
    if std::env::var_os(CHILD).is_some() {
        return true;
    }
    if !cfg!(gmb_kernels) {
        // Without kernels there is no CUDA context to lose.
        let options = ContextOptions { backend: BackendKind::Cuda, ..Default::default() };
        assert!(Context::new(&options).is_err());
        return false;
    }
    let test = format!("lost::{test}");
    if backend() == BackendKind::Cuda {
        child_passes(&test, &[(CHILD, "device"), ("GMB_CHECK_POINTERS", "0")]);
    } else {
        let library = Library::made_up(&test.replace("::", "-"));
        let folder = ("LD_LIBRARY_PATH", library.0.to_str().unwrap());
        child_passes(&test, &[(CHILD, "made up"), ("GMB_CHECK_POINTERS", "0"), folder]);
    }
    false
}

fn is_made_up() -> bool {
    std::env::var(CHILD).is_ok_and(|value| value == "made up")
}

const ILLEGAL_ADDRESS: usize = 700;
const CONTEXT_IS_DESTROYED: usize = 709;

fn open() -> Context {
    Context::new(&ContextOptions { backend: BackendKind::Cuda, ..Default::default() }).unwrap()
}

/// A kernel that reads where nothing is.
fn break_with_a_bad_address(mailbox: &Mailbox, stream: Stream) {
    if is_made_up() {
        driver("gmb_driver_break", [ILLEGAL_ADDRESS, 0, 0]);
        return;
    }
    let push = Push { count: 1, records: 0x7_0000_0000, length: 16, ..Default::default() };
    unsafe { mailbox.push(&push, stream, None) }.unwrap();
}

#[test]
fn an_illegal_address_wakes_every_waiter_and_ends_every_call() {
    if !in_child("an_illegal_address_wakes_every_waiter_and_ends_every_call") {
        return;
    }
    let context = open();
    let [left, right] = streams(&context);
    let options = MailboxOptions {
        capacity: 4,
        payload_bytes: 16,
        full_policy: FullPolicy::Wait,
        ..Default::default()
    };
    let full = Mailbox::new(&context, &options).unwrap();
    let single = MailboxOptions { full_policy: FullPolicy::Reject, single_stream: true, ..options };
    let single = Mailbox::new(&context, &single).unwrap();
    // Not the one behind the gate: its next push would wait there, too.
    let breaking = super::support::mailbox(&context, 8, 16);
    let mailbox = mailbox(&context, 64, 16);
    let records = context.device_buffer(1024).unwrap();
    let push = push_of(&records, 4);
    let tokens = tokens::<3>(&context);
    assert_eq!(push_and_wait(&full, &push, left.get(), &tokens[0]).count, 4);
    let event = context.event(EventKind::Untimed).unwrap();
    // The made-up driver runs everything at once: nothing would be left to wait for.
    let gate = (!is_made_up()).then(|| Gate::close(&context, right.get()));
    if gate.is_some() {
        unsafe { mailbox.push(&push, right.get(), Some(&tokens[1])) }.unwrap();
        unsafe { single.push(&push, right.get(), Some(&tokens[2])) }.unwrap();
        event.record(right.get()).unwrap();
    }
    let lost = |result: Result<()>, what: &str| {
        let error = result.expect_err(what);
        assert_eq!(error.status(), GMB_ERROR_DEVICE_LOST, "{what}: {error}");
        assert!(
            error.message().contains("700") && error.message().contains("first cause"),
            "{what}: {error}"
        );
    };
    std::thread::scope(|scope| {
        let (full, tokens, event, context) = (&full, &tokens, &event, &context);
        let mut waiters = Vec::new();
        for _ in 0..3 {
            let stream = left.get();
            waiters.push(scope.spawn(move || unsafe { full.push(&push, stream, None) }));
        }
        if gate.is_some() {
            for token in &tokens[1..] {
                waiters.push(scope.spawn(move || token.wait(After::Submission, None).map(|_| ())));
            }
            waiters.push(scope.spawn(move || event.synchronize(Some(Duration::from_secs(3600)))));
        }
        let stream = context.stream().unwrap();
        break_with_a_bad_address(&breaking, stream.get());
        for (number, waiter) in waiters.into_iter().enumerate() {
            lost(waiter.join().unwrap(), &format!("waiter {number}"));
        }
    });
    let stream = left.get();
    let pop = Pop { max: 4, records: records.address(), ..Default::default() };
    lost(unsafe { mailbox.push(&push, stream, None) }, "push");
    lost(unsafe { mailbox.pop(&pop, stream, None) }, "pop");
    lost(mailbox.info().map(|_| ()), "info");
    lost(mailbox.add_reader(ReaderStart::Next, stream).map(|_| ()), "add_reader");
    lost(Mailbox::new(&context, &options).map(|_| ()), "Mailbox::new");
    lost(Token::new(&context).map(|_| ()), "Token::new");
    lost(context.stream().map(|_| ()), "stream");
    lost(context.guard(stream).map(|_| ()), "guard");
    lost(event.record(stream), "record");
    lost(context.synchronize(stream), "synchronize");
    lost(context.device_buffer(64).map(|_| ()), "device_buffer");
    lost(context.device_buffer_on(64, stream).map(|_| ()), "device_buffer_on");
    lost(context.pinned_buffer(64).map(|_| ()), "pinned_buffer");
    lost(unsafe { context.fill(records.address(), 0, 64, stream) }, "fill");
    // What was told before can still be read.
    assert_eq!(tokens[0].poll().unwrap().unwrap().count, 4);
    drop(gate);
    drop((event, tokens, full, single, mailbox, breaking, records, left, right));
    drop(context);
}

#[test]
fn a_reset_by_somebody_else_is_an_error_not_a_crash() {
    if !in_child("a_reset_by_somebody_else_is_an_error_not_a_crash") {
        return;
    }
    let context = open();
    let stream = context.stream().unwrap();
    let mailbox = mailbox(&context, 16, 16);
    let token = Token::new(&context).unwrap();
    let push = Push { count: 3, ..Default::default() };
    assert_eq!(push_and_wait(&mailbox, &push, stream.get(), &token).count, 3);
    let pinned = context.pinned_buffer(4096).unwrap();
    if is_made_up() {
        driver("gmb_driver_break", [CONTEXT_IS_DESTROYED, 0, 0]);
    } else {
        assert_eq!(driver("cuDevicePrimaryCtxReset_v2", [0, 0, 0]), 0);
    }
    let error = mailbox.info().unwrap_err();
    assert_eq!(error.status(), GMB_ERROR_DEVICE_LOST, "{error}");
    for _ in 0..3 {
        let error = unsafe { mailbox.push(&push, stream.get(), None) }.unwrap_err();
        assert_eq!(error.status(), GMB_ERROR_DEVICE_LOST, "{error}");
    }
    // Memory that was pinned is still there to be read.
    assert_eq!(token.poll().unwrap().unwrap().count, 3);
    let view = unsafe { std::slice::from_raw_parts(pinned.address() as *const u8, 4096) };
    assert!(view.iter().all(|&byte| byte == 0));
    drop((mailbox, token, pinned, stream, context));
}

/// The context that others make after a reset has the same handle, and nothing of ours in it.
#[test]
fn a_context_made_again_after_a_reset_is_not_taken_for_the_old_one() {
    if !in_child("a_context_made_again_after_a_reset_is_not_taken_for_the_old_one") {
        return;
    }
    let context = open();
    let stream = context.stream().unwrap();
    let mailbox = mailbox(&context, 16, 16);
    let (event, token) = (context.event(EventKind::Untimed).unwrap(), Token::new(&context).unwrap());
    let (memory, pinned) = (context.device_buffer(4096).unwrap(), context.pinned_buffer(4096).unwrap());
    if is_made_up() {
        driver("gmb_driver_renew", [0, 0, 0]);
    } else {
        assert_eq!(driver("cuDevicePrimaryCtxReset_v2", [0, 0, 0]), 0);
        let mut made = 0usize;
        assert_eq!(driver("cuDevicePrimaryCtxRetain", [&raw mut made as usize, 0, 0]), 0);
        assert_eq!(driver("cuCtxSetCurrent", [made, 0, 0]), 0);
        assert_eq!(driver("cuMemAlloc_v2", [&raw mut made as usize, 1 << 20, 0]), 0);
    }
    let lost = |result: Result<()>, what: &str| {
        let error = result.expect_err(what);
        assert_eq!(error.status(), GMB_ERROR_DEVICE_LOST, "{what}: {error}");
        assert!(error.message().contains("reset"), "{what}: {error}");
    };
    let push = Push { count: 3, ..Default::default() };
    lost(unsafe { mailbox.push(&push, stream.get(), Some(&token)) }, "push");
    lost(event.record(stream.get()), "record");
    lost(context.device_buffer(64).map(|_| ()), "device_buffer");
    lost(context.stream().map(|_| ()), "stream");
    drop((event, token, mailbox, memory, pinned, stream, context));
    // A new context of the library is a good one.
    let context = open();
    let mailbox = super::support::mailbox(&context, 16, 16);
    let (stream, token) = (context.stream().unwrap(), Token::new(&context).unwrap());
    assert_eq!(push_and_wait(&mailbox, &push, stream.get(), &token).count, 3);
}

/// All that is in flight ends with the device, and says so; what comes after it, and what is queued later, too.
#[test]
fn a_lost_device_ends_every_operation() {
    if !in_child("a_lost_device_ends_every_operation") {
        return;
    }
    let context = open();
    let coordinator = Coordinator::new(&context, &CoordinatorOptions::default()).unwrap();
    let triple = TripleBuffer::new(&context, &TripleBufferOptions { dtype: U64, elements: 8 }).unwrap();
    let mailbox = mailbox(&context, 8, 16);
    let stream = context.stream().unwrap();
    let (memory, host) = (context.device_buffer(64).unwrap(), context.pinned_buffer(64).unwrap());
    let upload = || Work::Upload { to: Place::Address(memory.address()), from: host.address(), bytes: 64 };
    let well = unsafe { coordinator.queue(upload(), &[]) }.unwrap();
    coordinator.wait(well, None).unwrap();
    assert_eq!(coordinator.poll(10).unwrap().len(), 1);
    let mut queued = Vec::new();
    for _ in 0..20 {
        let after: Vec<OperationId> = queued.last().copied().into_iter().collect();
        queued.push(unsafe { coordinator.queue(upload(), &after) }.unwrap());
    }
    let buffer = triple.acquire(Step::Upload).unwrap().unwrap();
    break_with_a_bad_address(&mailbox, stream.get());
    // What was done before may be told as well.
    let lost = |result: Result<()>| {
        result.map_or_else(|error| assert_eq!(error.status(), GMB_ERROR_DEVICE_LOST, "{error}"), |()| ())
    };
    until(|| "the device is lost", || context.synchronize(stream.get()).is_err());
    for &id in &queued {
        lost(coordinator.wait(id, None).map(|_| ()));
    }
    coordinator.synchronize(None).unwrap();
    let told = coordinator.poll(100).unwrap();
    assert_eq!(told.iter().map(|one| one.operation).collect::<Vec<_>>(), queued);
    assert!(told.iter().all(|one| [GMB_OK, GMB_ERROR_DEVICE_LOST].contains(&one.status)));
    assert_eq!(told.last().unwrap().status, GMB_ERROR_DEVICE_LOST);
    let refused = unsafe { coordinator.queue(upload(), &[well]) }.unwrap_err();
    assert_eq!(refused.status(), GMB_ERROR_DEVICE_LOST);
    assert_eq!(buffer.submit(stream.get()).unwrap_err().status(), GMB_ERROR_DEVICE_LOST);
    drop((coordinator, triple, mailbox, memory, host, stream));
}
