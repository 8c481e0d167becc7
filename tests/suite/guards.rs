//! Which stream is current: guards, nested, across threads and devices.

use super::support::*;
use gpumailbox::*;

/// An operation on the current stream, which should be the expected one: a single-stream mailbox
/// refuses any but that of its first operation.
fn goes_to(context: &Context, mailbox: &Mailbox, records: &DeviceBuffer, expected: Stream) {
    assert_eq!(context.current_stream(), expected.raw());
    let token = Token::new(context).unwrap();
    let push = push_of(records, 1);
    assert_eq!(push_and_wait(mailbox, &push, Stream::CURRENT, &token).count, 1);
}

#[test]
fn guards_nest_and_put_back_what_was() {
    let context = context();
    let streams = streams::<3>(&context);
    // Single-stream mailboxes: each takes the stream it was used on first, and no other.
    let mailboxes: Vec<Mailbox> = (0..4)
        .map(|_| {
            let options =
                MailboxOptions { capacity: 64, payload_bytes: 16, single_stream: true, ..Default::default() };
            Mailbox::new(&context, &options).unwrap()
        })
        .collect();
    let records = poisoned(&context, 16, 1);
    let go = |n: usize, expected: Stream| goes_to(&context, &mailboxes[n], &records, expected);
    go(3, Stream::LEGACY);
    {
        let _outer = context.guard(streams[0].get()).unwrap();
        go(0, streams[0].get());
        {
            let _inner = context.guard(streams[1].get()).unwrap();
            go(1, streams[1].get());
            // The current stream itself can be made current again.
            let _same = context.guard(Stream::CURRENT).unwrap();
            go(1, streams[1].get());
        }
        go(0, streams[0].get());
        // On an error path, too.
        let failing = || -> Result<()> {
            let _guard = context.guard(streams[2].get())?;
            go(2, streams[2].get());
            context.device_buffer_on(0, Stream::CURRENT).map(|_| ())
        };
        assert_eq!(failing().unwrap_err().status(), GMB_ERROR_ZERO_COUNT);
        go(0, streams[0].get());
        // Another thread has a current stream of its own.
        std::thread::scope(|scope| {
            scope.spawn(|| {
                go(3, Stream::LEGACY);
                let _guard = context.guard(streams[1].get()).unwrap();
                go(1, streams[1].get());
            });
        });
        go(0, streams[0].get());
    }
    go(3, Stream::LEGACY);
    // Every call takes the current stream.
    let _guard = context.guard(streams[0].get()).unwrap();
    let event = context.event(EventKind::Untimed).unwrap();
    event.record(Stream::CURRENT).unwrap();
    event.make_wait(Stream::CURRENT).unwrap();
    context.synchronize(Stream::CURRENT).unwrap();
    assert!(context.is_idle(Stream::CURRENT).unwrap());
    let memory = context.device_buffer_on(64, Stream::CURRENT).unwrap();
    unsafe { context.fill(memory.address(), 3, 64, Stream::CURRENT) }.unwrap();
    unsafe { memory.free_on(Stream::CURRENT) }.unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    context.run_in_order(Stream::CURRENT, move || sender.send(7).unwrap()).unwrap();
    assert_eq!(receiver.recv().unwrap(), 7);
    let classes = context.priority(Stream::CURRENT).unwrap();
    assert_eq!(classes, context.priority(streams[0].get()).unwrap());
}

#[test]
fn guards_dropped_out_of_order_take_effect_in_order() {
    let context = context();
    let streams = streams::<3>(&context);
    let first = context.guard(streams[0].get()).unwrap();
    let second = context.guard(streams[1].get()).unwrap();
    let third = context.guard(streams[2].get()).unwrap();
    drop(second);
    assert_eq!(context.current_stream(), streams[2].get().raw());
    drop(third);
    assert_eq!(context.current_stream(), streams[0].get().raw());
    drop(first);
    assert_eq!(context.current_stream(), std::ptr::null_mut());
    let guards: Vec<StreamGuard> = (0..64).map(|_| context.guard(streams[0].get()).unwrap()).collect();
    assert_eq!(context.guard(streams[0].get()).unwrap_err().status(), GMB_ERROR_OVERFLOW);
    // The first one first: the opposite of the usual order.
    guards.into_iter().for_each(drop);
    assert_eq!(context.current_stream(), std::ptr::null_mut());
}

/// Each device has its own current stream; a second device where there is one, else a second context.
#[test]
fn guards_nest_across_contexts_and_devices() {
    let ours = context();
    let options = ContextOptions { backend: backend(), device: 1, ..Default::default() };
    let (theirs, second_device) = match Context::new(&options) {
        Ok(context) => (context, true),
        Err(error) => {
            assert_eq!(error.status(), GMB_ERROR_INVALID_DEVICE);
            (context(), false)
        }
    };
    println!("second device: {second_device}");
    let (left, right) = (ours.stream().unwrap(), theirs.stream().unwrap());
    let _outer = ours.guard(left.get()).unwrap();
    {
        let _inner = theirs.guard(right.get()).unwrap();
        assert_eq!(theirs.current_stream(), right.get().raw());
        if second_device || backend() == BackendKind::Host {
            // The other context's current stream is no use here: ours stays.
            assert_eq!(ours.current_stream(), left.get().raw());
            let mailbox = mailbox(&ours, 8, 16);
            let records = poisoned(&ours, 16, 1);
            goes_to(&ours, &mailbox, &records, left.get());
            let push = push_of(&records, 1);
            let error = unsafe { mailbox.push(&push, right.get(), None) }.unwrap_err();
            assert_eq!(error.status(), GMB_ERROR_INVALID_STREAM);
        } else {
            // Two contexts of one device share its streams.
            assert_eq!(ours.current_stream(), right.get().raw());
        }
    }
    assert_eq!(ours.current_stream(), left.get().raw());
    let _default = ours.guard(Stream::LEGACY).unwrap();
    assert_eq!(ours.current_stream(), std::ptr::null_mut());
}

/// In C a guard can be passed to another thread: it does not end there.
#[test]
fn a_guard_ended_on_another_thread_stays() {
    use gpumailbox::capi::{context::gmb_context_destroy, guard::*, stream::*};
    let context = c_context(0);
    let mut stream = std::ptr::null_mut();
    assert_eq!(gmb_stream_create(context, GMB_PRIORITY_FOCUS, &mut stream), GMB_OK);
    let current = usize::MAX as gmb_stream;
    let priority_of = |stream| {
        let mut priority = 1;
        assert_eq!(gmb_stream_get_priority(context, stream, &mut priority), GMB_OK);
        priority
    };
    let mut guard = gmb_stream_guard { id: 0 };
    assert_eq!(gmb_stream_guard_create(context, stream, &mut guard), GMB_OK);
    assert_eq!(priority_of(current), priority_of(stream));
    let elsewhere = std::thread::spawn(move || gmb_stream_guard_destroy(guard)).join().unwrap();
    assert_eq!(elsewhere, GMB_ERROR_WRONG_THREAD);
    assert_eq!(priority_of(current), priority_of(stream), "the guard is no longer in force");
    assert_eq!(gmb_stream_guard_destroy(guard), GMB_OK);
    assert_eq!(priority_of(current), priority_of(std::ptr::null_mut()));
    assert_eq!(gmb_stream_guard_destroy(guard), GMB_ERROR_INVALID_HANDLE);
    let mut unmade = gmb_stream_guard { id: 77 };
    // On CUDA a handle that is no stream cannot be asked about.
    if backend() == BackendKind::Host {
        assert_eq!(
            gmb_stream_guard_create(context, 4096 as gmb_stream, &mut unmade),
            GMB_ERROR_INVALID_STREAM
        );
        assert_eq!(unmade.id, 77, "written on an error");
    }
    assert_eq!(gmb_stream_destroy(context, current), GMB_ERROR_INVALID_STREAM);
    assert_eq!(gmb_stream_destroy(context, stream), GMB_OK);
    assert_eq!(gmb_context_destroy(context), GMB_OK);
}
