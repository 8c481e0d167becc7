//! Shared mailboxes: operations of one side at once, on any streams.

use super::support::*;
use gpumailbox::*;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

fn shared(context: &Context, capacity: u64, payload_bytes: u32, more: MailboxOptions) -> Mailbox {
    let options = MailboxOptions { capacity, payload_bytes, mode: Mode::Shared, ..more };
    Mailbox::new(context, &options).unwrap()
}

const NOW: Option<Duration> = Some(Duration::ZERO);

/// Record n of a producer: all of its bytes follow from that.
fn record(producer: u64, n: u64, payload: usize) -> Item {
    let number = producer << 40 | n;
    let length = 8 + (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as usize % (payload - 7);
    let mut bytes = number.to_le_bytes().to_vec();
    bytes
        .extend((8..length).map(|i| (number as u8).wrapping_mul(31).wrapping_add(7u8.wrapping_mul(i as u8))));
    Item { bytes, msg_type: (number ^ number >> 32) as u32 }
}

/// Producers and consumers at once, each a thread with a stream of its own: every reader gets every record once and whole,
/// those of a producer in their order.
#[test]
fn many_producers_and_consumers_on_streams_of_their_own() {
    let (context, mut random) = (context(), Random::new());
    const PAYLOAD: usize = 40;
    let each = total_records() / 2_000;
    for (arbitration, full_policy, initial_index, readers) in [
        (Arbitration::Cpu, FullPolicy::Reject, 0, 1),
        (Arbitration::Device, FullPolicy::Reject, u64::MAX - 100, 2),
        (Arbitration::Device, FullPolicy::Wait, (1 << 32) - 50, 1),
        (Arbitration::Cpu, FullPolicy::Wait, 7, 2),
    ] {
        let more = MailboxOptions { arbitration, full_policy, initial_index, readers, ..Default::default() };
        let mailbox = shared(&context, 256, PAYLOAD as u32, more);
        let producers = 3u64;
        let popped: Vec<AtomicU64> = (0..readers).map(|_| AtomicU64::new(0)).collect();
        let mut seen: Vec<Vec<(u64, Item)>> = vec![Vec::new(); readers as usize];
        std::thread::scope(|scope| {
            for producer in 0..producers {
                let (mailbox, context, mut random) = (&mailbox, &context, random.split());
                scope.spawn(move || {
                    let (stream, token) = (context.stream().unwrap(), Token::new(context).unwrap());
                    let mut sent = 0;
                    while sent < each {
                        let count = random.between(1, 200.min(each - sent));
                        let items: Vec<_> =
                            (sent..sent + count).map(|n| record(producer, n, PAYLOAD)).collect();
                        let batch = Batch::new(context, mailbox, &items);
                        let result = push_and_wait(mailbox, &batch.push, stream.get(), &token);
                        assert_eq!(result.status, GMB_OK);
                        assert!(full_policy == FullPolicy::Reject || u64::from(result.count) == count);
                        sent += u64::from(result.count);
                    }
                });
            }
            let consumers: Vec<_> = (0..2 * readers)
                .map(|c| {
                    let (mailbox, context, popped) = (&mailbox, &context, &popped);
                    let mut random = random.split();
                    scope.spawn(move || {
                        let (stream, token) = (context.stream().unwrap(), Token::new(context).unwrap());
                        let (reader, mut mine) = (c % readers, Vec::new());
                        let total = &popped[reader as usize];
                        let start = Instant::now();
                        while total.load(Ordering::Acquire) < producers * each {
                            assert!(start.elapsed() < LIMIT, "not all records came");
                            let mut outlet = Outlet::new(context, mailbox, random.between(1, 300) as u32);
                            outlet.pop.reader = reader;
                            let result = pop_and_wait(mailbox, &outlet.pop, stream.get(), &token);
                            assert_eq!(result.status, GMB_OK);
                            let (items, sequences) = outlet.records(context, result.count);
                            outlet.check_untouched_past(context, result.count);
                            mine.extend(
                                sequences.iter().map(|s| s.wrapping_sub(1 + initial_index)).zip(items),
                            );
                            total.fetch_add(u64::from(result.count), Ordering::AcqRel);
                        }
                        (reader, mine)
                    })
                })
                .collect();
            for consumer in consumers {
                let (reader, mine) = consumer.join().unwrap();
                assert!(mine.windows(2).all(|two| two[0].0 < two[1].0), "a consumer sees them in order");
                seen[reader as usize].extend(mine);
            }
        });
        for mut all in seen {
            all.sort_by_key(|(index, _)| *index);
            let mut next = vec![0; producers as usize];
            for (place, (index, item)) in all.iter().enumerate() {
                assert_eq!(*index, place as u64, "every index once");
                let number = u64::from_le_bytes(item.bytes[..8].try_into().unwrap());
                let producer = number >> 40;
                assert_eq!(*item, record(producer, next[producer as usize], PAYLOAD));
                next[producer as usize] += 1;
            }
            assert_eq!(next, vec![each; producers as usize]);
        }
        let info = mailbox.info().unwrap();
        assert_eq!((info.published, info.released), (info.published, info.published));
        assert_eq!(info.published, initial_index.wrapping_add(producers * each));
        assert_eq!((info.mode, info.fault), (Mode::Shared, GMB_OK));
        assert!(info.high_water <= 256);
    }
}

/// A whole grid moves large operations, of narrow and of wide records, at any start.
#[test]
fn large_operations() {
    let (context, mut random) = (context(), Random::new());
    let [stream, other] = streams(&context);
    for (capacity, payload) in [(1 << 14, 200u32), (1 << 12, 1000), (1 << 15, 16)] {
        let more = MailboxOptions { initial_index: random.next(), ..Default::default() };
        let mailbox = shared(&context, capacity, payload, more);
        for round in 0..3 {
            let count = random.between(capacity / 2, capacity + 100) as usize;
            let sent = random_records(&mut random, count, payload);
            let fits = count.min(capacity as usize);
            assert_eq!(push_records(&mailbox, &sent, stream.get()).count as usize, fits, "round {round}");
            let part = random.between(1, fits as u64 - 1) as u32;
            let token = Token::new(&context).unwrap();
            let (first, rest) =
                (Outlet::new(&context, &mailbox, part), Outlet::new(&context, &mailbox, capacity as u32));
            assert_eq!(pop_and_wait(&mailbox, &first.pop, stream.get(), &token).count, part);
            let left = pop_and_wait(&mailbox, &rest.pop, other.get(), &token);
            assert_eq!(left.count as usize, fits - part as usize);
            let mut got = first.records(&context, part).0;
            got.extend(rest.records(&context, left.count).0);
            assert!(got == sent[..fits], "other records came out");
            rest.check_untouched_past(&context, left.count);
        }
        assert_eq!(mailbox.wait_writable(capacity as u32, NOW).unwrap(), capacity);
    }
}

/// Arbitrated by the CPU, a pop comes after all pushes before it, whatever their streams.
#[test]
fn a_pop_finds_what_was_pushed_before_it() {
    let context = context();
    let (consumer, token) = (context.stream().unwrap(), Token::new(&context).unwrap());
    // More than there are lanes to begin with.
    let producers: [OwnedStream; 45] = streams(&context);
    let mailbox = shared(&context, 64, 16, MailboxOptions::default());
    let rows = poisoned(&context, 16 * 16, 3);
    let outlet = Outlet::new(&context, &mailbox, 64);
    for _ in 0..20 {
        for stream in &producers {
            unsafe { mailbox.push(&push_of(&rows, 1), stream.get(), None) }.unwrap();
        }
        assert_eq!(pop_and_wait(&mailbox, &outlet.pop, consumer.get(), &token).count, 45);
    }
}

/// Captured once and launched often; the graph keeps what its operations use.
#[test]
fn captured_operations_replay() {
    let (context, mut random) = (context(), Random::new());
    let stream = context.stream().unwrap();
    let mailbox = shared(&context, 1024, 24, MailboxOptions::default());
    let sent = random_records(&mut random, 700, 24);
    let batch = Batch::new(&context, &mailbox, &sent);
    let (outlet, token, pushed) =
        (Outlet::new(&context, &mailbox, 1000), Token::new(&context).unwrap(), Token::new(&context).unwrap());
    let graph = captured(&context, stream.get(), || unsafe {
        mailbox.push(&batch.push, stream.get(), Some(&pushed)).unwrap();
        mailbox.pop(&outlet.pop, stream.get(), Some(&token)).unwrap();
    });
    for launch in 1..=5 {
        graph.launch(stream.get()).unwrap();
        assert_eq!(of_launch(&token, launch).count, 700);
        assert_eq!(of_launch(&pushed, launch).count, 700);
        assert!(outlet.records(&context, 700).0 == sent);
        // Outside of it, in between.
        assert_eq!(push_records(&mailbox, &sent[..9], stream.get()).count, 9);
        let got = pop_records(&mailbox, 0, 9, stream.get()).1;
        assert_eq!(got, sent[..9]);
    }
    drop(mailbox);
    graph.launch(stream.get()).unwrap();
    assert_eq!(of_launch(&token, 6).count, 700);
    context.synchronize(stream.get()).unwrap();
}

/// Readers come and go; records are borrowed in place on several streams at once and released in any order.
#[test]
fn readers_and_borrows() {
    let (context, mut random) = (context(), Random::new());
    let [stream, other] = streams(&context);
    let mailbox = shared(&context, 32, 48, MailboxOptions { initial_index: 90, ..Default::default() });
    let sent = random_records(&mut random, 32, 48);
    assert_eq!(push_records(&mailbox, &sent[..20], stream.get()).count, 20);
    let late = mailbox.add_reader(ReaderStart::Oldest, stream.get()).unwrap();
    let next = mailbox.add_reader(ReaderStart::Next, stream.get()).unwrap();
    assert_eq!((late, next, mailbox.info().unwrap().readers), (1, 2, 7));
    assert_eq!(mailbox.reader_info(late).unwrap().unread, 20);
    assert_eq!(mailbox.reader_info(next).unwrap().unread, 0);
    // Space is free when the slowest reader has released it.
    assert_eq!(pop_records(&mailbox, late, 3, stream.get()).1, sent[..3]);
    assert_eq!(pop_records(&mailbox, 0, 20, stream.get()).0.count, 20);
    assert_eq!(mailbox.wait_writable(15, NOW).unwrap(), 15);
    assert_eq!(pop_records(&mailbox, late, 1, stream.get()).1, sent[3..4]);
    assert_eq!(mailbox.wait_writable(16, NOW).unwrap(), 16);
    assert_eq!(pop_records(&mailbox, late, 20, stream.get()).0.count, 16);
    assert_eq!(push_records(&mailbox, &sent[..20], stream.get()).count, 20);
    for round in 0..5 {
        let first = mailbox.borrow(0, 7, stream.get()).unwrap();
        let second = mailbox.borrow(0, 9, other.get()).unwrap();
        let (a, b) = (first.wait(None).unwrap(), second.wait(None).unwrap());
        assert_eq!((a.0.count, b.0.count), (7, 9), "round {round}");
        assert_ne!(a.1.first, b.1.first);
        for (result, spans) in [a, b] {
            let mut bytes = Vec::new();
            for (records, count) in spans.records.iter().zip(spans.count) {
                bytes.extend(download(
                    &context,
                    *records as u64,
                    (count * spans.stride) as usize - if count > 0 { 16 } else { 0 },
                ));
                bytes.resize(bytes.len().next_multiple_of(spans.stride as usize), 0);
            }
            let wanted = &sent[(spans.first - 90) as usize % 20..];
            for (row, item) in
                bytes.chunks_exact(spans.stride as usize).zip(wanted).take(result.count as usize)
            {
                assert_eq!(row[..item.bytes.len()], item.bytes);
            }
        }
        second.release(stream.get()).unwrap();
        first.release(other.get()).unwrap();
        assert_eq!(first.release(stream.get()).unwrap_err().status(), GMB_ERROR_INVALID_ARGUMENT);
        for (reader, wanted) in [(0, 4), (late, 20), (next, 20)] {
            let mut outlet = Outlet::new(&context, &mailbox, 32);
            outlet.pop.reader = reader;
            let token = Token::new(&context).unwrap();
            assert_eq!(pop_and_wait(&mailbox, &outlet.pop, stream.get(), &token).count, wanted);
        }
        assert_eq!(mailbox.wait_writable(32, NOW).unwrap(), 32);
        assert_eq!(push_records(&mailbox, &sent[..20], other.get()).count, 20);
    }
    assert_eq!(mailbox.wait_readable(next, 20, NOW).unwrap(), 20);
    mailbox.remove_reader(next, stream.get()).unwrap();
    mailbox.remove_reader(late, stream.get()).unwrap();
    let error = mailbox.wait_readable(late, 1, NOW).unwrap_err();
    assert_eq!(error.status(), GMB_ERROR_INVALID_ARGUMENT);
    assert_eq!(pop_records(&mailbox, 0, 32, stream.get()).1, sent[..20]);
    assert_eq!(mailbox.wait_writable(32, NOW).unwrap(), 32);
}

/// A push that waits for room is all or nothing, and gets it when it comes.
#[test]
fn waiting_for_room() {
    let context = context();
    let stream = context.stream().unwrap();
    let more = MailboxOptions { full_policy: FullPolicy::Wait, ..Default::default() };
    let mailbox = shared(&context, 16, 16, more);
    let (rows, token) = (poisoned(&context, 16 * 32, 5), Token::new(&context).unwrap());
    let push = |count, timeout| Push { timeout, ..push_of(&rows, count) };
    let error = unsafe { mailbox.push(&push(17, NOW), stream.get(), Some(&token)) }.unwrap_err();
    assert_eq!(error.status(), GMB_ERROR_INVALID_ARGUMENT);
    assert_eq!(push_and_wait(&mailbox, &push(10, NOW), stream.get(), &token).count, 10);
    for timeout in [Duration::ZERO, Duration::from_millis(3)] {
        let error = unsafe { mailbox.push(&push(7, Some(timeout)), stream.get(), Some(&token)) }.unwrap_err();
        assert_eq!(error.status(), GMB_ERROR_TIMEOUT);
    }
    assert_eq!(token.poll().unwrap().unwrap().epoch, 1, "a push that timed out used the token");
    let bad = upload(&context, &[16u32, 99, 16]);
    let refused = Push { lengths: bad.address(), ..push(3, NOW) };
    let result = push_and_wait(&mailbox, &refused, stream.get(), &token);
    assert_eq!((result.status, result.count), (GMB_ERROR_BAD_LENGTH, 0));
    assert_eq!(mailbox.wait_writable(6, NOW).unwrap(), 6, "its room is free again");
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| {
            let (stream, token) = (context.stream().unwrap(), Token::new(&context).unwrap());
            push_and_wait(&mailbox, &push(12, None), stream.get(), &token).count
        });
        stays_out("the push waits", || mailbox.info().unwrap().published != 10);
        assert_eq!(pop_records(&mailbox, 0, 10, stream.get()).0.count, 10);
        assert_eq!(waits.join().unwrap(), 12);
    });
    context.begin_capture(stream.get(), CaptureMode::Global).unwrap();
    let error = unsafe { mailbox.push(&push(1, NOW), stream.get(), None) };
    context.end_capture(stream.get()).unwrap();
    assert_eq!(error.unwrap_err().status(), GMB_ERROR_NOT_SUPPORTED);
}

/// Room that was taken for a push which is refused then is the next one's, or the ring's again.
#[test]
fn room_of_a_refused_push() {
    let context = context();
    let [stream, other] = [(); 2].map(|()| context.stream().unwrap());
    let options = MailboxOptions {
        capacity: 8,
        payload_bytes: 16,
        mode: Mode::Shared,
        full_policy: FullPolicy::Wait,
        ..Default::default()
    };
    let bytes = Mailbox::required_bytes(&options).unwrap();
    let memory = context.device_buffer(bytes as usize).unwrap();
    let (rows, token) = (poisoned(&context, 8 * 32, 5), Token::new(&context).unwrap());
    let full = unsafe { Mailbox::new_in(&context, &options, memory.address(), bytes) }.unwrap();
    assert_eq!(push_and_wait(&full, &push_of(&rows, 8), stream.get(), &token).count, 8);
    drop(full);
    let attach = Attach { single_stream: true, ..Default::default() };
    let attach = || unsafe { Mailbox::attach(&context, memory.address(), bytes, &attach) }.unwrap();
    let again = attach();
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| {
            let (token, push) = (Token::new(&context).unwrap(), push_of(&rows, 5));
            unsafe { again.push(&push, other.get(), Some(&token)) }.unwrap_err().status()
        });
        stays_out("the push waits", || waits.is_finished());
        // The mailbox's first operation chooses its stream, and makes the room.
        assert_eq!(pop_records(&again, 0, 8, stream.get()).0.count, 8);
        assert_eq!(waits.join().unwrap(), GMB_ERROR_INVALID_STREAM);
    });
    assert_eq!(again.wait_writable(8, NOW).unwrap(), 8);
    let push = |count| Push { timeout: NOW, ..push_of(&rows, count) };
    assert_eq!(push_and_wait(&again, &push(3), stream.get(), &token).count, 3);
    drop(again);
    // Two are the ring's again: or who attaches would find them missing.
    assert_eq!(attach().wait_writable(5, NOW).unwrap(), 5);
}

/// Left in memory and gone on with, as it was and in its mode; what cannot be is refused.
#[test]
fn in_memory_of_the_callers_and_what_is_refused() {
    let context = context();
    let stream = context.stream().unwrap();
    let options = MailboxOptions {
        capacity: 8,
        payload_bytes: 16,
        mode: Mode::Shared,
        readers: 2,
        initial_index: 5,
        ..Default::default()
    };
    for full_policy in [FullPolicy::OverwriteOldest, FullPolicy::Latest] {
        let error = Mailbox::new(&context, &MailboxOptions { full_policy, ..options }).unwrap_err();
        assert_eq!(error.status(), GMB_ERROR_NOT_SUPPORTED);
    }
    let bytes = Mailbox::required_bytes(&options).unwrap();
    let ordered = Mailbox::required_bytes(&MailboxOptions { mode: Mode::Ordered, ..options }).unwrap();
    assert_eq!(bytes, ordered + 8 * 8);
    let memory = context.device_buffer(bytes as usize).unwrap();
    let made = unsafe { Mailbox::new_in(&context, &options, memory.address(), bytes) }.unwrap();
    let sent: Vec<_> = (0..6).map(|n| record(1, n, 16)).collect();
    assert_eq!(push_records(&made, &sent, stream.get()).count, 6);
    assert_eq!(pop_records(&made, 0, 2, stream.get()).1, sent[..2]);
    let borrow = made.borrow(0, 1, stream.get()).unwrap();
    borrow.wait(None).unwrap();
    let attach = || unsafe { Mailbox::attach(&context, memory.address(), bytes, &Attach::default()) };
    assert_eq!(attach().unwrap_err().status(), GMB_ERROR_BUSY);
    borrow.release(stream.get()).unwrap();
    drop(made);
    let error =
        unsafe { Mailbox::attach(&context, memory.address(), ordered, &Attach::default()) }.unwrap_err();
    assert_eq!(error.status(), GMB_ERROR_TRUNCATED);
    let again = attach().unwrap();
    let info = again.info().unwrap();
    assert_eq!((info.mode, info.published, info.released), (Mode::Shared, 11, 5));
    let mut outlet = Outlet::new(&context, &again, 8);
    let token = Token::new(&context).unwrap();
    assert_eq!(pop_and_wait(&again, &outlet.pop, stream.get(), &token).count, 3);
    assert_eq!(outlet.records(&context, 3).0, sent[3..]);
    outlet.pop.reader = 1;
    assert_eq!(pop_and_wait(&again, &outlet.pop, stream.get(), &token).count, 6);
    assert_eq!(push_records(&again, &sent, stream.get()).count, 6);
    assert_eq!(again.wait_writable(2, NOW).unwrap(), 2);
    drop(again);
    // Another mode, or a stride that is not that of the payload, would lead beyond the slots.
    let damaged = |offset: usize, value: u32| {
        let at = memory.address() + offset as u64;
        let before = download(&context, at, 4);
        let write = |bytes: &[u8]| unsafe {
            context.copy(at, bytes.as_ptr() as u64, 4, stream.get()).unwrap();
            context.synchronize(stream.get()).unwrap();
        };
        write(&value.to_ne_bytes());
        let status = attach().map(|_| ()).unwrap_err().status();
        write(&before);
        status
    };
    for (offset, value) in [
        (std::mem::offset_of!(gmb_ring_header, mode), 3),
        (std::mem::offset_of!(gmb_ring_header, mode), GMB_MODE_EXPRESS as u32),
        (std::mem::offset_of!(gmb_ring_header, stride), 64),
        (std::mem::offset_of!(gmb_ring_header, payload_bytes), 400),
    ] {
        assert_eq!(damaged(offset, value), GMB_ERROR_CORRUPT, "{value} at {offset}");
    }
    attach().unwrap();
}

/// A watch tells when records are there, whoever pushed them.
#[test]
fn a_watch_tells() {
    use std::os::fd::{AsFd, AsRawFd};
    let context = context();
    let stream = context.stream().unwrap();
    let mailbox = shared(&context, 8, 16, MailboxOptions::default());
    let watch = mailbox.watch(Interest::Readable { reader: 0 }).unwrap();
    watch.arm(3).unwrap();
    let readable = |timeout| {
        let mut waiting = libc::pollfd { fd: watch.as_fd().as_raw_fd(), events: libc::POLLIN, revents: 0 };
        unsafe { libc::poll(&mut waiting, 1, timeout) == 1 }
    };
    let sent: Vec<_> = (0..3).map(|n| record(0, n, 16)).collect();
    push_records(&mailbox, &sent[..2], stream.get());
    stays_out("two are not three", || readable(0));
    push_records(&mailbox, &sent[2..], stream.get());
    assert!(readable(60_000));
    assert_eq!(mailbox.wait_readable(0, 3, NOW).unwrap(), 3);
    assert_eq!(
        mailbox.wait_readable(0, 4, Some(Duration::from_millis(2))).unwrap_err().status(),
        GMB_ERROR_TIMEOUT
    );
}
