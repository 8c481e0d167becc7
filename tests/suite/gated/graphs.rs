//! Graphs and readiness beside work behind a gate.

use super::super::support::*;
use gpumailbox::*;
use std::time::Duration;

/// Launches and other operations on streams of their own wait for each other without being told to.
#[test]
fn graphs_and_other_work_keep_their_order() {
    let context = context();
    let mailbox = mailbox(&context, 8, 16);
    let streams = streams::<4>(&context);
    let [left, right, capturing, other] = [0, 1, 2, 3].map(|i: usize| streams[i].get());
    let records = poisoned(&context, 16 * 8, 9);
    let outlets = [0, 1].map(|_| Outlet::new(&context, &mailbox, 8));
    let tokens = tokens::<5>(&context);
    let push = |msg_type| Push { msg_type, ..push_of(&records, 8) };
    let pushes = captured(&context, capturing, || {
        unsafe { mailbox.push(&push(1), capturing, Some(&tokens[0])) }.unwrap();
    });
    let pops = captured(&context, capturing, || {
        unsafe { mailbox.pop(&outlets[0].pop, capturing, Some(&tokens[1])) }.unwrap();
    });
    // A pop after a launch that pushes, on another stream.
    let gate = Gate::close(&context, left);
    pushes.launch(left).unwrap();
    unsafe { mailbox.pop(&outlets[1].pop, right, Some(&tokens[2])) }.unwrap();
    does_not_come(&tokens[2], "the pop did not wait for the launch before it");
    gate.open();
    assert_eq!(tokens[2].wait(After::Submission, None).unwrap().count, 8);
    // A launch that pops after a push.
    let gate = Gate::close(&context, left);
    unsafe { mailbox.push(&push(2), left, Some(&tokens[3])) }.unwrap();
    pops.launch(right).unwrap();
    does_not_come(&tokens[1], "the launch did not wait for the push before it");
    gate.open();
    assert_eq!(of_launch(&tokens[1], 1).count, 8);
    // One graph after the other.
    let gate = Gate::close(&context, left);
    pushes.launch(left).unwrap();
    pops.launch(right).unwrap();
    let early = tokens[1].wait(After::Epoch(1), Some(PATIENCE)).map_err(|error| error.status());
    assert_eq!(early, Err(GMB_ERROR_TIMEOUT), "one launch did not wait for the other");
    gate.open();
    assert_eq!(of_launch(&tokens[0], 2).count, 8);
    assert_eq!(of_launch(&tokens[1], 2).count, 8);
    // And a push after a launch of the same side.
    let gate = Gate::close(&context, left);
    pushes.launch(left).unwrap();
    unsafe { mailbox.push(&push(3), other, Some(&tokens[4])) }.unwrap();
    does_not_come(&tokens[4], "the push overtook a launch of its side");
    gate.open();
    assert_eq!(of_launch(&tokens[0], 3).count, 8);
    assert_eq!(tokens[4].wait(After::Submission, None).unwrap().count, 0);
}

#[test]
fn what_cannot_be_captured_leaves_the_capture_as_it_is() {
    let context = context();
    let [stream, other] = streams(&context);
    let waiting = with_policy(&context, FullPolicy::Wait, 8, 16);
    let mailbox = mailbox(&context, 8, 16);
    let memory = poisoned(&context, 4096, 1);
    let [busy, token] = tokens(&context);
    let events: Vec<Event> = [EventKind::Untimed, EventKind::Timed, EventKind::Capture]
        .iter()
        .map(|&kind| context.event(kind).unwrap())
        .collect();
    let push = push_of(&memory, 4);
    let pop = Pop { max: 4, records: memory.address() + 1024, ..Default::default() };
    let graph = captured(&context, stream.get(), || {
        unsafe { mailbox.push(&push, stream.get(), None) }.unwrap();
    });
    let gate = Gate::close(&context, other.get());
    unsafe { mailbox.push(&push, other.get(), Some(&busy)) }.unwrap();
    context.begin_capture(stream.get(), CaptureMode::ThreadLocal).unwrap();
    let refused = |result: Result<()>, status| assert_eq!(result.unwrap_err().status(), status);
    for mailbox in [&waiting, &mailbox] {
        refused(mailbox.add_reader(ReaderStart::Next, stream.get()).map(|_| ()), GMB_ERROR_NOT_SUPPORTED);
        refused(mailbox.remove_reader(0, stream.get()), GMB_ERROR_NOT_SUPPORTED);
    }
    refused(unsafe { waiting.push(&push, stream.get(), Some(&token)) }, GMB_ERROR_NOT_SUPPORTED);
    refused(unsafe { waiting.pop(&pop, stream.get(), Some(&token)) }, GMB_ERROR_NOT_SUPPORTED);
    refused(unsafe { mailbox.push(&push, stream.get(), Some(&busy)) }, GMB_ERROR_BUSY);
    refused(
        unsafe { mailbox.pop(&Pop { reader: 3, ..pop }, stream.get(), None) },
        GMB_ERROR_INVALID_ARGUMENT,
    );
    for event in &events[..2] {
        refused(event.record(stream.get()), GMB_ERROR_NOT_SUPPORTED);
        refused(event.make_wait(stream.get()), GMB_ERROR_NOT_SUPPORTED);
    }
    refused(context.synchronize(stream.get()), GMB_ERROR_NOT_SUPPORTED);
    refused(context.is_idle(stream.get()).map(|_| ()), GMB_ERROR_NOT_SUPPORTED);
    refused(context.device_buffer_on(64, stream.get()).map(|_| ()), GMB_ERROR_NOT_SUPPORTED);
    refused(context.run_in_order(stream.get(), || ()), GMB_ERROR_NOT_SUPPORTED);
    refused(context.begin_capture(stream.get(), CaptureMode::Relaxed), GMB_ERROR_CAPTURE);
    refused(graph.launch(stream.get()), GMB_ERROR_NOT_SUPPORTED);
    // The library's own questions in between are nobody's business.
    assert_eq!(busy.poll().unwrap(), None);
    gate.open();
    busy.wait(After::Submission, None).unwrap();
    context.synchronize(other.get()).unwrap();
    events[0].record(other.get()).unwrap();
    events[0].synchronize(None).unwrap();
    drop(context.device_buffer(1 << 20).unwrap());
    // A fork and a join within the capture, by events of the kind that is made for it.
    unsafe { context.fill(memory.address(), 7, 256, stream.get()) }.unwrap();
    events[2].record(stream.get()).unwrap();
    events[2].make_wait(other.get()).unwrap();
    unsafe { context.fill(memory.address() + 256, 8, 256, other.get()) }.unwrap();
    let join = context.event(EventKind::Capture).unwrap();
    join.record(other.get()).unwrap();
    join.make_wait(stream.get()).unwrap();
    let filled = context.end_capture(stream.get()).expect("the capture was spoilt");
    assert_eq!(download(&context, memory.address(), 512), [1; 512], "what is captured does not run");
    filled.launch(stream.get()).unwrap();
    context.synchronize(stream.get()).unwrap();
    let bytes = download(&context, memory.address(), 512);
    assert!(bytes[..256].iter().all(|&b| b == 7) && bytes[256..].iter().all(|&b| b == 8));
    // Nothing of what was refused was done.
    let info = waiting.info().unwrap();
    assert_eq!((info.published, info.readers), (0, 1));
    assert_eq!(mailbox.info().unwrap().published, 4);
    // A token that reports for a graph takes no other operation, and can be captured again.
    let again = captured(&context, stream.get(), || {
        unsafe { mailbox.pop(&pop, stream.get(), Some(&token)) }.unwrap();
    });
    refused(unsafe { mailbox.pop(&pop, stream.get(), Some(&token)) }, GMB_ERROR_BUSY);
    assert_eq!(token.poll().unwrap(), None);
    again.launch(stream.get()).unwrap();
    assert_eq!(of_launch(&token, 1).count, 4);
    assert_eq!(token.poll().unwrap().unwrap().epoch, 1);
}

#[test]
fn room_that_enqueued_pushes_may_take_is_not_there() {
    let bed = Bed::new();
    let mailbox = mailbox(&bed.context, 8, 16);
    let gate = Gate::close(&bed.context, bed.stream.get());
    bed.push(&mailbox, 5);
    assert_eq!(mailbox.wait_writable(3, Some(Duration::ZERO)).unwrap(), 3);
    assert_eq!(mailbox.wait_writable(4, Some(Duration::ZERO)).unwrap_err().status(), GMB_ERROR_TIMEOUT);
    gate.open();
    bed.finish();
    assert_eq!(mailbox.wait_writable(1, None).unwrap(), 3);
}

/// Launches count for nobody: what is ready afterwards is what kernels have told.
#[test]
fn room_and_records_after_launches_are_those_that_are_there() {
    let bed = Bed::new();
    let mailbox = mailbox(&bed.context, 8, 16);
    let rows = poisoned(&bed.context, 16 * 8, 3);
    let push = push_of(&rows, 3);
    let graph = captured(&bed.context, bed.stream.get(), || {
        unsafe { mailbox.push(&push, bed.stream.get(), None) }.unwrap();
    });
    graph.launch(bed.stream.get()).unwrap();
    bed.finish();
    assert_eq!(mailbox.wait_readable(0, 3, Some(Duration::ZERO)).unwrap(), 3);
    // Most of this is refused.
    bed.push(&mailbox, 8);
    bed.finish();
    let token = Token::new(&bed.context).unwrap();
    let out = Outlet::new(&bed.context, &mailbox, 8);
    assert_eq!(pop_and_wait(&mailbox, &out.pop, bed.stream.get(), &token).count, 8);
    assert_eq!(mailbox.wait_writable(8, Some(PATIENCE)).unwrap(), 8);
    // Graphs go on with the readers there were.
    let added = mailbox.add_reader(ReaderStart::Next, bed.stream.get()).map(|_| ());
    assert_eq!(added.unwrap_err().status(), GMB_ERROR_NOT_SUPPORTED);
    assert_eq!(mailbox.remove_reader(0, bed.stream.get()).unwrap_err().status(), GMB_ERROR_NOT_SUPPORTED);
}

#[test]
fn a_reader_that_is_being_let_in_has_nothing_to_read() {
    let bed = Bed::new();
    let mailbox = mailbox(&bed.context, 8, 16);
    let gate = Gate::close(&bed.context, bed.stream.get());
    let reader = mailbox.add_reader(ReaderStart::Next, bed.stream.get()).unwrap();
    let error = mailbox.wait_readable(reader, 1, Some(Duration::ZERO)).unwrap_err();
    assert_eq!(error.status(), GMB_ERROR_TIMEOUT);
    gate.open();
    bed.push(&mailbox, 2);
    assert_eq!(mailbox.wait_readable(reader, 2, None).unwrap(), 2);
}

/// A mailbox for a single stream waits for its own operations at its end, also when others of it are in a graph.
#[test]
fn the_end_of_a_captured_mailbox_waits_for_what_is_under_way() {
    let context = context();
    let stream = context.stream().unwrap();
    let options =
        MailboxOptions { capacity: 8, payload_bytes: 16, single_stream: true, ..Default::default() };
    let rows = poisoned(&context, 16 * 8, 3);
    let push = push_of(&rows, 3);
    for before in [true, false] {
        let mailbox = Mailbox::new(&context, &options).unwrap();
        let capturing = context.stream().unwrap();
        let mut gate = None;
        if before {
            gate = Some(Gate::close(&context, stream.get()));
            unsafe { mailbox.push(&push, stream.get(), None) }.unwrap();
        }
        let graph = captured(&context, capturing.get(), || {
            unsafe { mailbox.push(&push, capturing.get(), None) }.unwrap();
        });
        if !before {
            gate = Some(Gate::close(&context, stream.get()));
            unsafe { mailbox.push(&push, stream.get(), None) }.unwrap();
        }
        drop(graph);
        std::thread::scope(|scope| {
            let (ended, is_ended) = std::sync::mpsc::channel();
            scope.spawn(move || {
                drop(mailbox);
                ended.send(()).unwrap();
            });
            assert!(is_ended.recv_timeout(PATIENCE).is_err(), "ended while a push was under way");
            drop(gate.take());
            is_ended.recv().unwrap();
        });
        context.synchronize(stream.get()).unwrap();
    }
}
