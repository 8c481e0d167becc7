//! Captures and graphs: operations replay, stay in order with each other and with all other work,
//! and keep alive what they use. What cannot be captured says so, and the capture goes on.

use super::support::*;
use gpumailbox::capi::graph::*;
use gpumailbox::*;

enum Operation {
    Push { token: Token, records: Vec<Item>, batch: Batch },
    Pop { token: Token, outlet: Outlet },
}

/// A random program on one or two streams, captured once, is launched many times, with other
/// operations between the launches: all of it equals the model.
#[test]
fn replays_equal_the_model() {
    let context = context();
    let mut random = Random::new();
    for policy in [FullPolicy::Reject, FullPolicy::OverwriteOldest, FullPolicy::Latest] {
        for (capacity, single_stream, forked) in
            [(8, true, false), (8, false, true), (64, false, false), (1024, false, true)]
        {
            let options = MailboxOptions {
                capacity,
                payload_bytes: 40,
                full_policy: policy,
                single_stream,
                initial_index: u64::MAX - 100,
                ..Default::default()
            };
            let mailbox = Mailbox::new(&context, &options).unwrap();
            let [stream, side] = streams(&context);
            let (fork, join) =
                (context.event(EventKind::Capture).unwrap(), context.event(EventKind::Capture).unwrap());
            let program: Vec<Operation> = (0..random.between(2, 10))
                .map(|_| {
                    let token = Token::new(&context).unwrap();
                    if random.next() % 2 == 0 {
                        let count = random.between(1, capacity + capacity / 2) as usize;
                        let records = random_records(&mut random, count, 40);
                        let batch = Batch::new(&context, &mailbox, &records);
                        Operation::Push { token, records, batch }
                    } else {
                        let outlet = Outlet::new(&context, &mailbox, random.between(1, capacity + 3) as u32);
                        Operation::Pop { token, outlet }
                    }
                })
                .collect();
            let graph = captured(&context, stream.get(), || {
                if forked {
                    fork.record(stream.get()).unwrap();
                    fork.make_wait(side.get()).unwrap();
                }
                for operation in &program {
                    let on = if forked && random.next() % 2 == 0 { side.get() } else { stream.get() };
                    match operation {
                        Operation::Push { token, batch, .. } => unsafe {
                            mailbox.push(&batch.push, on, Some(token))
                        },
                        Operation::Pop { token, outlet } => unsafe {
                            mailbox.pop(&outlet.pop, on, Some(token))
                        },
                    }
                    .unwrap();
                }
                if forked {
                    join.record(side.get()).unwrap();
                    join.make_wait(stream.get()).unwrap();
                }
            });
            let mut model = Model::new(policy, capacity);
            let other = context.stream().unwrap();
            let token = Token::new(&context).unwrap();
            for launch in 1..=20 {
                graph.launch(stream.get()).unwrap();
                for operation in &program {
                    match operation {
                        Operation::Push { token, records, .. } => {
                            let accepted = model.push(records);
                            assert_eq!(u64::from(of_launch(token, launch).count), accepted, "{policy:?}");
                        }
                        Operation::Pop { token, outlet } => {
                            let result = of_launch(token, launch);
                            let (_, expected, lost) = model.pop(u64::from(outlet.pop.max));
                            assert_eq!(
                                (result.count as usize, result.lost),
                                (expected.len(), lost),
                                "{policy:?}"
                            );
                            context.synchronize(stream.get()).unwrap();
                            // A later pop of the same launch has room of its own.
                            assert_eq!(outlet.records(&context, result.count).0, expected);
                        }
                    }
                }
                // In between, without a graph, on this stream or another.
                let on = if single_stream { stream.get() } else { other.get() };
                let records = random_records(&mut random, 3, 40);
                let batch = Batch::new(&context, &mailbox, &records);
                assert_eq!(
                    u64::from(push_and_wait(&mailbox, &batch.push, on, &token).count),
                    model.push(&records)
                );
                context.synchronize(on).unwrap();
            }
        }
    }
}

/// The library joins operations on two streams of a capture: the capturing program joins nothing but the end.
#[test]
fn work_of_two_streams_is_joined_by_edges() {
    let context = context();
    let mailbox = mailbox(&context, 8, 16);
    let [left, right] = streams(&context);
    let memory = poisoned(&context, 16 * 8, 9);
    let push = push_of(&memory, 4);
    let (outlet, token) = (Outlet::new(&context, &mailbox, 8), Token::new(&context).unwrap());
    let fork = context.event(EventKind::Capture).unwrap();
    context.begin_capture(left.get(), CaptureMode::ThreadLocal).unwrap();
    fork.record(left.get()).unwrap();
    fork.make_wait(right.get()).unwrap();
    unsafe { mailbox.push(&push, right.get(), None) }.unwrap();
    // Comes after the push by itself, and so joins the other stream's work.
    unsafe { mailbox.pop(&outlet.pop, left.get(), Some(&token)) }.unwrap();
    let graph = context.end_capture(left.get()).expect("the push's stream was not joined by the pop");
    for launch in 1..=20 {
        graph.launch(left.get()).unwrap();
        assert_eq!(of_launch(&token, launch).count, 4);
    }
}

/// The same with launches as fast as they come, from several threads: nothing is lost or doubled.
#[test]
fn launches_beside_other_work_lose_nothing() {
    let context = context();
    let mailbox = mailbox(&context, 64, 16);
    let streams = streams::<4>(&context);
    let records = poisoned(&context, 16 * 16, 9);
    let push = push_of(&records, 5);
    let outlets = [Outlet::new(&context, &mailbox, 7), Outlet::new(&context, &mailbox, 6)];
    let graph = captured(&context, streams[0].get(), || unsafe {
        mailbox.push(&push, streams[0].get(), None).unwrap();
        mailbox.pop(&outlets[0].pop, streams[0].get(), None).unwrap();
    });
    std::thread::scope(|scope| {
        let launches = scope.spawn(|| {
            for launch in 0..300 {
                graph.launch(streams[launch % 2].get()).unwrap();
            }
        });
        for operation in 0..300 {
            let stream = streams[2 + operation % 2].get();
            unsafe { mailbox.push(&push, stream, None) }.unwrap();
            unsafe { mailbox.pop(&outlets[1].pop, stream, None) }.unwrap();
        }
        launches.join().unwrap();
    });
    for stream in &streams {
        context.synchronize(stream.get()).unwrap();
    }
    let info = mailbox.info().unwrap();
    assert_eq!(info.published + info.rejected, 600 * 5);
    let header = download(&context, info.ring, size_of::<gmb_ring_header>());
    assert_eq!(&header[offset_of_fault()..][..4], [0; 4], "the mailbox was stopped");
    // What is left comes out, and no more.
    let left = info.published - info.released;
    let last = Outlet::new(&context, &mailbox, 64);
    let token = Token::new(&context).unwrap();
    assert_eq!(u64::from(pop_and_wait(&mailbox, &last.pop, streams[0].get(), &token).count), left);
}

fn offset_of_fault() -> usize {
    std::mem::offset_of!(gmb_ring_header, fault)
}

/// A graph holds its mailbox and its tokens' slots when their owners are gone, and lets go of them at its end.
#[test]
fn a_graph_outlives_the_handles_of_what_it_uses() {
    let context = context();
    let stream = context.stream().unwrap();
    let records = poisoned(&context, 16 * 8, 9);
    let out = poisoned(&context, 16 * 8, POISON);
    let before = context.memory_info().unwrap().used;
    let pop = Pop { max: 8, records: out.address(), ..Default::default() };
    let push = push_of(&records, 8);
    let (mailbox, token) = (mailbox(&context, 8, 16), Token::new(&context).unwrap());
    let graph = captured(&context, stream.get(), || unsafe {
        mailbox.push(&push, stream.get(), Some(&token)).unwrap();
        mailbox.pop(&pop, stream.get(), None).unwrap();
    });
    drop((mailbox, token));
    // Whoever gets slots and memory now gets none that the graph still writes to.
    let fresh: Vec<Token> = (0..200).map(|_| Token::new(&context).unwrap()).collect();
    let others: Vec<Mailbox> = (0..20).map(|_| super::support::mailbox(&context, 8, 16)).collect();
    for _ in 0..100 {
        graph.launch(stream.get()).unwrap();
    }
    context.synchronize(stream.get()).unwrap();
    assert_eq!(download(&context, out.address(), 16 * 8), [9; 16 * 8]);
    for token in &fresh {
        let rows = download(&context, token.device_result(), size_of::<gmb_result>());
        assert!(rows.iter().all(|&byte| byte == 0), "a slot in use was given out");
    }
    assert!(others.iter().all(|mailbox| mailbox.info().unwrap().published == 0));
    drop(others);
    graph.launch(stream.get()).unwrap();
    drop(graph);
    // A thread of the library lets go.
    until(|| "the mailbox is still there", || context.memory_info().unwrap().used == before);
}

/// A capture that loses its mailbox, or a handle, goes on; a graph that is never launched takes nothing with it.
#[test]
fn a_mailbox_may_end_within_a_capture() {
    let context = context();
    let stream = context.stream().unwrap();
    let records = poisoned(&context, 16 * 8, 9);
    let push = push_of(&records, 8);
    context.begin_capture(stream.get(), CaptureMode::Global).unwrap();
    let (first, unused) = (mailbox(&context, 8, 16), mailbox(&context, 8, 16));
    unsafe { first.push(&push, stream.get(), None) }.unwrap();
    drop((first, unused));
    let graph = context.end_capture(stream.get()).unwrap();
    graph.launch(stream.get()).unwrap();
    context.synchronize(stream.get()).unwrap();
    drop(graph);
    let second = mailbox(&context, 8, 16);
    let never = captured(&context, stream.get(), || {
        unsafe { second.push(&push, stream.get(), None) }.unwrap();
    });
    drop(never);
    let token = Token::new(&context).unwrap();
    assert_eq!(push_and_wait(&second, &push, stream.get(), &token).count, 8);
}

/// Captures that come to nothing leave their streams as they were.
#[test]
fn a_capture_that_fails_is_over() {
    let context = context();
    let [stream, other] = streams(&context);
    let memory = poisoned(&context, 256, 1);
    let ends = |stream: Stream| context.end_capture(stream).map(|_| ()).unwrap_err().status();
    assert_eq!(ends(stream.get()), GMB_ERROR_CAPTURE);
    // Work of another stream that nobody joins.
    let fork = context.event(EventKind::Capture).unwrap();
    context.begin_capture(stream.get(), CaptureMode::ThreadLocal).unwrap();
    fork.record(stream.get()).unwrap();
    fork.make_wait(other.get()).unwrap();
    unsafe { context.fill(memory.address(), 7, 256, other.get()) }.unwrap();
    assert_eq!(ends(stream.get()), GMB_ERROR_CAPTURE);
    for stream in [&stream, &other] {
        unsafe { context.fill(memory.address(), 5, 256, stream.get()) }.unwrap();
        context.synchronize(stream.get()).unwrap();
    }
    assert_eq!(download(&context, memory.address(), 256), [5; 256]);
    // A mailbox and a token that were in it go on.
    let mailbox = mailbox(&context, 8, 16);
    let token = Token::new(&context).unwrap();
    let push = push_of(&memory, 4);
    context.begin_capture(stream.get(), CaptureMode::ThreadLocal).unwrap();
    unsafe { mailbox.push(&push, stream.get(), Some(&token)) }.unwrap();
    fork.record(stream.get()).unwrap();
    fork.make_wait(other.get()).unwrap();
    unsafe { context.fill(memory.address(), 7, 16, other.get()) }.unwrap();
    assert_eq!(ends(stream.get()), GMB_ERROR_CAPTURE);
    let next = Token::new(&context).unwrap();
    assert_eq!(push_and_wait(&mailbox, &push, stream.get(), &next).count, 4);
    let graph = captured(&context, stream.get(), || {
        unsafe { mailbox.push(&push, stream.get(), Some(&token)) }.unwrap();
    });
    graph.launch(stream.get()).unwrap();
    assert_eq!(of_launch(&token, 1).count, 4);
}

/// To end a capture on a stream that was only pulled in changes nothing.
#[test]
fn a_capture_ends_where_it_began() {
    let context = context();
    let [stream, other] = streams(&context);
    let mailbox = mailbox(&context, 64, 16);
    let rows = poisoned(&context, 64, 3);
    let push = push_of(&rows, 4);
    let (fork, join) =
        (context.event(EventKind::Capture).unwrap(), context.event(EventKind::Capture).unwrap());
    context.begin_capture(stream.get(), CaptureMode::ThreadLocal).unwrap();
    fork.record(stream.get()).unwrap();
    let capturing = || [&stream, &other].map(|stream| context.is_capturing(stream.get()).unwrap());
    assert_eq!(capturing(), [true, false]);
    fork.make_wait(other.get()).unwrap();
    assert_eq!(capturing(), [true, true], "pulled in by the event");
    unsafe { mailbox.push(&push, other.get(), None) }.unwrap();
    if context.info().backend == BackendKind::Host {
        // The driver's own answer differs from version to version.
        assert_eq!(context.end_capture(other.get()).unwrap_err().status(), GMB_ERROR_CAPTURE);
    }
    join.record(other.get()).unwrap();
    join.make_wait(stream.get()).unwrap();
    let graph = context.end_capture(stream.get()).unwrap();
    assert_eq!(capturing(), [false, false]);
    graph.launch(other.get()).unwrap();
    context.synchronize(other.get()).unwrap();
    assert_eq!(mailbox.info().unwrap().published, 4);
    if context.info().backend == BackendKind::Host {
        // A stream that goes takes its capture with it; one that was pulled in is free again.
        let origin = context.stream().unwrap();
        context.begin_capture(origin.get(), CaptureMode::ThreadLocal).unwrap();
        fork.record(origin.get()).unwrap();
        fork.make_wait(other.get()).unwrap();
        drop(origin);
        unsafe { mailbox.push(&push, other.get(), None) }.unwrap();
        context.synchronize(other.get()).unwrap();
        assert_eq!(mailbox.info().unwrap().published, 8);
    }
}

#[test]
fn graphs_from_c() {
    use gpumailbox::capi::context::*;
    use gpumailbox::capi::stream::*;
    let context = c_context(0);
    let mut stream = std::ptr::null_mut();
    assert_eq!(gmb_stream_create(context, GMB_PRIORITY_NORMAL, &mut stream), GMB_OK);
    for mode in [-1, 3, i32::MAX] {
        assert_eq!(gmb_stream_begin_capture(context, stream, mode), GMB_ERROR_INVALID_ARGUMENT);
    }
    let mut graph = gmb_graph { id: 0 };
    assert_eq!(gmb_stream_end_capture(context, stream, &mut graph), GMB_ERROR_CAPTURE);
    assert_eq!(graph.id, 0, "written on success only");
    let capturing = || {
        let mut told = -1;
        assert_eq!(gmb_stream_is_capturing(context, stream, &mut told), GMB_OK);
        told
    };
    assert_eq!(capturing(), 0);
    assert_eq!(gmb_stream_begin_capture(context, stream, GMB_CAPTURE_RELAXED), GMB_OK);
    assert_eq!(capturing(), 1);
    assert_eq!(gmb_stream_end_capture(context, stream, std::ptr::null_mut()), GMB_ERROR_NULL_POINTER);
    assert_eq!(gmb_stream_end_capture(context, stream, &mut graph), GMB_OK);
    assert_eq!(capturing(), 0);
    assert_eq!(gmb_graph_launch(graph, stream), GMB_OK);
    assert_eq!(gmb_stream_synchronize(context, stream), GMB_OK);
    assert_eq!(gmb_graph_destroy(graph), GMB_OK);
    assert_eq!(gmb_graph_destroy(graph), GMB_ERROR_INVALID_HANDLE);
    assert_eq!(gmb_graph_launch(graph, stream), GMB_ERROR_INVALID_HANDLE);
    assert_eq!(gmb_stream_destroy(context, stream), GMB_OK);
    assert_eq!(gmb_context_destroy(context), GMB_OK);
}
