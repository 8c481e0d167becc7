//! Several readers: every record reaches each of them, and pops of one share its records.

use super::support::*;
use gpumailbox::*;
use std::time::Duration;

fn with_readers(context: &Context, readers: u32, capacity: u64, full_policy: FullPolicy) -> Mailbox {
    let options = MailboxOptions { capacity, payload_bytes: 24, readers, full_policy, ..Default::default() };
    Mailbox::new(context, &options).unwrap()
}

/// Random pushes and pops of up to sixteen readers equal a model with a cursor for each.
#[test]
fn every_record_reaches_every_reader() {
    let context = context();
    let mut random = Random::new();
    for readers in [1, 2, 3, 7, 16] {
        let capacity = 32u64;
        let mailbox = with_readers(&context, readers, capacity, FullPolicy::Reject);
        assert_eq!(mailbox.info().unwrap().readers, (1u32 << readers) - 1);
        let streams = streams::<3>(&context);
        let mut records: Vec<Item> = Vec::new();
        let mut cursors = vec![0usize; readers as usize];
        for _ in 0..60 {
            let stream = streams[random.between(0, 2) as usize].get();
            if random.between(0, 2) == 0 {
                let count = random.between(1, 40) as usize;
                let batch = random_records(&mut random, count, 24);
                let slowest = *cursors.iter().min().unwrap();
                let accepted = count.min(capacity as usize - (records.len() - slowest));
                assert_eq!(push_records(&mailbox, &batch, stream).count as usize, accepted);
                records.extend_from_slice(&batch[..accepted]);
            } else {
                let reader = random.between(0, u64::from(readers) - 1) as usize;
                let max = random.between(1, 40) as usize;
                let expected = max.min(records.len() - cursors[reader]);
                let (result, got, _) = pop_records(&mailbox, reader as u32, max as u32, stream);
                assert_eq!((result.count as usize, result.lost), (expected, 0));
                assert_eq!(got, records[cursors[reader]..cursors[reader] + expected]);
                cursors[reader] += expected;
            }
        }
        for (reader, &cursor) in cursors.iter().enumerate() {
            let info = mailbox.reader_info(reader as u32).unwrap();
            assert_eq!((info.released, info.unread), (cursor as u64, (records.len() - cursor) as u64));
        }
        assert_eq!(mailbox.info().unwrap().released, *cursors.iter().min().unwrap() as u64);
    }
}

/// Each reader of a mailbox that overwrites loses what it was too slow for, and nothing else.
#[test]
fn a_slow_reader_of_an_overwriting_mailbox_loses_for_itself_alone() {
    let context = context();
    let mut random = Random::new();
    let stream = context.stream().unwrap();
    let mailbox = with_readers(&context, 2, 16, FullPolicy::OverwriteOldest);
    let sent = random_records(&mut random, 60, 24);
    let mut fast = Vec::new();
    for chunk in sent.chunks(12) {
        assert_eq!(push_records(&mailbox, chunk, stream.get()).count, 12);
        let (result, got, _) = pop_records(&mailbox, 0, 16, stream.get());
        assert_eq!(result.lost, 0);
        fast.extend(got);
    }
    assert_eq!(fast, sent);
    let (result, slow, _) = pop_records(&mailbox, 1, 64, stream.get());
    assert_eq!((result.count, result.lost), (16, 44));
    assert_eq!(slow, sent[44..]);
    assert_eq!(mailbox.reader_info(1).unwrap().lost, 44);
    assert_eq!(mailbox.reader_info(0).unwrap().lost, 0);
}

/// Threads that pop as one reader share its records: each comes once.
#[test]
fn competing_pops_of_one_reader_share_its_records() {
    let context = context();
    let mailbox = with_readers(&context, 2, 64, FullPolicy::Wait);
    let total = 4000u64;
    let seen: Vec<std::sync::atomic::AtomicU32> = (0..total).map(|_| Default::default()).collect();
    let taken = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        for consumer in 0..4 {
            let (context, mailbox, seen, taken) = (&context, &mailbox, &seen, &taken);
            scope.spawn(move || {
                // Three compete for reader 0, the fourth has reader 1 for itself.
                let reader = u32::from(consumer == 3);
                let stream = context.stream().unwrap();
                let token = Token::new(context).unwrap();
                let rows = context.pinned_buffer(32 * 16).unwrap();
                let view = unsafe { std::slice::from_raw_parts(rows.address() as *const [u64; 4], 16) };
                let mut alone = 0;
                while if reader == 0 {
                    taken.load(std::sync::atomic::Ordering::SeqCst) < total
                } else {
                    alone < total
                } {
                    let pop = Pop { max: 16, records: rows.address(), reader, ..Default::default() };
                    let result = pop_and_wait(mailbox, &pop, stream.get(), &token);
                    for row in &view[..result.count as usize] {
                        if reader == 0 {
                            seen[row[0] as usize].fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                            taken.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                        } else {
                            assert_eq!(row[0], alone);
                            alone += 1;
                        }
                    }
                }
            });
        }
        let stream = context.stream().unwrap();
        let token = Token::new(&context).unwrap();
        let rows = context.pinned_buffer(32 * 40).unwrap();
        let view = unsafe { std::slice::from_raw_parts_mut(rows.address() as *mut [u64; 4], 40) };
        let mut sent = 0;
        while sent < total {
            let count = (1 + sent % 40).min(total - sent);
            for (i, row) in view.iter_mut().enumerate().take(count as usize) {
                row[0] = sent + i as u64;
            }
            let push = Push { count: count as u32, records: rows.address(), length: 8, ..Default::default() };
            assert_eq!(u64::from(push_and_wait(&mailbox, &push, stream.get(), &token).count), count);
            sent += count;
        }
    });
    assert!(seen.iter().all(|n| n.load(std::sync::atomic::Ordering::SeqCst) == 1));
}

#[test]
fn a_late_reader_begins_with_the_next_or_the_oldest_record() {
    let context = context();
    let mut random = Random::new();
    let stream = context.stream().unwrap();
    for policy in [FullPolicy::Reject, FullPolicy::OverwriteOldest] {
        let mailbox = with_readers(&context, 1, 32, policy);
        let sent = random_records(&mut random, 60, 24);
        assert_eq!(push_records(&mailbox, &sent[..20], stream.get()).count, 20);
        assert_eq!(pop_records(&mailbox, 0, 5, stream.get()).0.count, 5);
        let next = mailbox.add_reader(ReaderStart::Next, stream.get()).unwrap();
        let oldest = mailbox.add_reader(ReaderStart::Oldest, stream.get()).unwrap();
        assert_eq!((next, oldest), (1, 2));
        assert_eq!(mailbox.info().unwrap().readers, 0b111);
        // Where space is held, the oldest record is the one that reader 0 still holds.
        let first = if policy == FullPolicy::Reject { 5 } else { 0 };
        assert_eq!(pop_records(&mailbox, oldest, 64, stream.get()).1, sent[first..20]);
        assert_eq!(pop_records(&mailbox, next, 64, stream.get()).0.count, 0);
        assert_eq!(push_records(&mailbox, &sent[20..30], stream.get()).count, 10);
        assert_eq!(pop_records(&mailbox, next, 64, stream.get()).1, sent[20..30]);
        assert_eq!(pop_records(&mailbox, oldest, 64, stream.get()).1, sent[20..30]);
        assert_eq!(pop_records(&mailbox, 0, 64, stream.get()).1, sent[5..30]);
    }
    let mailbox = with_readers(&context, 1, 8, FullPolicy::Latest);
    let sent = random_records(&mut random, 5, 24);
    push_records(&mailbox, &sent, stream.get());
    let late = mailbox.add_reader(ReaderStart::Oldest, stream.get()).unwrap();
    let (result, got, _) = pop_records(&mailbox, late, 1, stream.get());
    assert_eq!((result.count, result.lost), (1, 0));
    assert_eq!(got, sent[4..]);
}

#[test]
fn readers_come_and_go() {
    let context = context();
    let mut random = Random::new();
    let stream = context.stream().unwrap();
    let mailbox = with_readers(&context, 2, 16, FullPolicy::Reject);
    let sent = random_records(&mut random, 64, 24);
    assert_eq!(push_records(&mailbox, &sent[..16], stream.get()).count, 16);
    assert_eq!(pop_records(&mailbox, 0, 16, stream.get()).0.count, 16);
    // Reader 1 holds everything; without it there is room.
    assert_eq!(push_records(&mailbox, &sent[16..20], stream.get()).count, 0);
    mailbox.remove_reader(1, stream.get()).unwrap();
    assert_eq!(push_records(&mailbox, &sent[16..20], stream.get()).count, 4);
    let outlet = Outlet::new(&context, &mailbox, 4);
    for reader in [1, 2, 15] {
        let error = unsafe { mailbox.pop(&Pop { reader, ..outlet.pop }, stream.get(), None) }.unwrap_err();
        assert_eq!(error.status(), GMB_ERROR_INVALID_ARGUMENT);
        assert!(error.message().contains("not in use"), "{error}");
        assert_eq!(
            mailbox.remove_reader(reader, stream.get()).unwrap_err().status(),
            GMB_ERROR_INVALID_ARGUMENT
        );
        assert_eq!(mailbox.reader_info(reader).unwrap_err().status(), GMB_ERROR_INVALID_ARGUMENT);
    }
    for reader in [16, 17, u32::MAX] {
        let error = unsafe { mailbox.pop(&Pop { reader, ..outlet.pop }, stream.get(), None) }.unwrap_err();
        assert_eq!(error.status(), GMB_ERROR_INVALID_ARGUMENT);
        assert!(error.message().contains("0 to 15"), "{error}");
    }
    // Numbers are used again, and all sixteen can be had.
    for expected in 1..16 {
        assert_eq!(mailbox.add_reader(ReaderStart::Next, stream.get()).unwrap(), expected);
    }
    let error = mailbox.add_reader(ReaderStart::Next, stream.get()).unwrap_err();
    assert_eq!(error.status(), GMB_ERROR_OVERFLOW);
    for reader in 0..16 {
        mailbox.remove_reader(reader, stream.get()).unwrap();
    }
    // Nobody reads: nobody holds space.
    for chunk in sent[20..].chunks(11) {
        assert_eq!(push_records(&mailbox, chunk, stream.get()).count as usize, chunk.len());
    }
    assert_eq!(mailbox.add_reader(ReaderStart::Next, stream.get()).unwrap(), 0);
    assert_eq!(push_records(&mailbox, &sent[..3], stream.get()).count, 3);
    assert_eq!(pop_records(&mailbox, 0, 8, stream.get()).1, sent[..3]);
    for (readers, expected) in [(0, 0b1), (16, 0xffff)] {
        assert_eq!(with_readers(&context, readers, 8, FullPolicy::Reject).info().unwrap().readers, expected);
    }
    let options = MailboxOptions { capacity: 8, payload_bytes: 8, readers: 17, ..Default::default() };
    assert_eq!(Mailbox::new(&context, &options).unwrap_err().status(), GMB_ERROR_INVALID_ARGUMENT);
}

/// A thread that waits for room goes on when the reader that holds it is let out.
#[test]
fn removing_the_slowest_reader_lets_waiting_pushes_go_on() {
    let context = context();
    let mut random = Random::new();
    let stream = context.stream().unwrap();
    let mailbox = with_readers(&context, 2, 8, FullPolicy::Wait);
    let sent = random_records(&mut random, 16, 24);
    assert_eq!(push_records(&mailbox, &sent[..8], stream.get()).count, 8);
    assert_eq!(pop_records(&mailbox, 0, 8, stream.get()).1, sent[..8]);
    std::thread::scope(|scope| {
        let (context, mailbox) = (&context, &mailbox);
        let rest = &sent[8..];
        let waiters: Vec<_> = (0..2)
            .map(|half| {
                scope.spawn(move || {
                    let stream = context.stream().unwrap();
                    push_records(mailbox, &rest[4 * half..4 * half + 4], stream.get()).count
                })
            })
            .collect();
        mailbox.remove_reader(1, stream.get()).unwrap();
        assert!(waiters.into_iter().all(|waiter| waiter.join().unwrap() == 4));
    });
    assert_eq!(pop_records(&mailbox, 0, 8, stream.get()).0.count, 8);
    // One that still waits when nobody removes anything times out.
    let memory = poisoned(&context, 32 * 8, 1);
    mailbox.add_reader(ReaderStart::Next, stream.get()).unwrap();
    assert_eq!(push_records(&mailbox, &sent[..8], stream.get()).count, 8);
    let push = Push {
        count: 1,
        records: memory.address(),
        length: 8,
        timeout: Some(Duration::from_millis(2)),
        ..Default::default()
    };
    assert_eq!(unsafe { mailbox.push(&push, stream.get(), None) }.unwrap_err().status(), GMB_ERROR_TIMEOUT);
}

/// What a reader had come to before it was let out says nothing about its next life.
#[test]
fn a_reader_let_in_again_holds_space_from_where_it_begins() {
    let context = context();
    let mut random = Random::new();
    let stream = context.stream().unwrap();
    for arbitration in [Arbitration::Cpu, Arbitration::Device] {
        let options = MailboxOptions {
            capacity: 16,
            payload_bytes: 24,
            readers: 2,
            full_policy: FullPolicy::Wait,
            arbitration,
            ..Default::default()
        };
        let mailbox = Mailbox::new(&context, &options).unwrap();
        let sent = random_records(&mut random, 16, 24);
        let batch = Batch::new(&context, &mailbox, &sent);
        let token = Token::new(&context).unwrap();
        let again = Push { timeout: Some(Duration::ZERO), ..batch.push };
        for _ in 0..4 {
            assert_eq!(push_records(&mailbox, &sent, stream.get()).count, 16);
            assert_eq!(pop_records(&mailbox, 1, 16, stream.get()).0.count, 16);
            mailbox.remove_reader(1, stream.get()).unwrap();
            assert_eq!(mailbox.add_reader(ReaderStart::Oldest, stream.get()).unwrap(), 1);
            // Reader 0 gives everything back; reader 1 now holds it all from the beginning.
            assert_eq!(pop_records(&mailbox, 0, 16, stream.get()).1, sent);
            let error = unsafe { mailbox.push(&again, stream.get(), Some(&token)) }.unwrap_err();
            assert_eq!(error.status(), GMB_ERROR_TIMEOUT, "room was promised that a reader holds");
            assert_eq!(pop_records(&mailbox, 1, 16, stream.get()).1, sent);
            let info = mailbox.reader_info(1).unwrap();
            assert_eq!((info.unread, info.empty_pops), (0, 0));
        }
    }
}
