use super::support::*;
use gpumailbox::*;
use std::collections::VecDeque;

/// What was submitted, in order, with what is needed to check it.
enum Submitted {
    Push { token: Token, records: Vec<Item>, _batch: Batch },
    Pop { token: Token, outlet: Outlet },
}

fn submit_random(random: &mut Random, mailbox: &Mailbox, stream: Stream) -> Submitted {
    let context = mailbox.context();
    let capacity = mailbox.info().unwrap().capacity;
    let token = Token::new(context).unwrap();
    if random.next() % 2 == 0 {
        let count = random.between(1, capacity + capacity / 2 + 1) as usize;
        let records = random_records(random, count, 40);
        let batch = Batch::new(context, mailbox, &records);
        unsafe { mailbox.push(&batch.push, stream, Some(&token)) }.unwrap();
        Submitted::Push { token, records, _batch: batch }
    } else {
        let outlet = Outlet::new(context, mailbox, random.between(1, capacity + 3) as u32);
        unsafe { mailbox.pop(&outlet.pop, stream, Some(&token)) }.unwrap();
        Submitted::Pop { token, outlet }
    }
}

/// Whatever streams operations use: records come once and in order, a push
/// accepts at least what fits after all pops submitted before it, and a pop
/// gets at least what pushes submitted before it left. On one stream that is exact.
fn random_operations(streams: u64) {
    let context = context();
    let mut random = Random::new();
    for (capacity, first) in [(1, 0), (8, (1 << 32) - 20), (64, u64::MAX - 100), (1024, 0)] {
        let options =
            MailboxOptions { capacity, payload_bytes: 40, initial_index: first, ..Default::default() };
        let mailbox = Mailbox::new(&context, &options).unwrap();
        let streams: Vec<OwnedStream> = (0..streams).map(|_| context.stream().unwrap()).collect();
        // Submitted without waiting in between; checked when all are.
        let submitted: Vec<Submitted> = (0..120)
            .map(|_| {
                let stream = &streams[random.between(0, streams.len() as u64 - 1) as usize];
                submit_random(&mut random, &mailbox, stream.get())
            })
            .collect();
        let mut accepted: VecDeque<Item> = VecDeque::new();
        for operation in &submitted {
            if let Submitted::Push { token, records, .. } = operation {
                let count = token.wait(After::Submission, None).unwrap().count as usize;
                accepted.extend(records.iter().take(count).cloned());
            }
        }
        let (mut pushed, mut popped) = (0u64, 0u64);
        for operation in &submitted {
            match operation {
                Submitted::Push { token, records, .. } => {
                    let count = u64::from(token.wait(After::Submission, None).unwrap().count);
                    let room = (capacity + popped).saturating_sub(pushed).min(records.len() as u64);
                    assert!(count >= room && count <= records.len() as u64, "{count} of {room}");
                    assert!(streams.len() > 1 || count == room);
                    pushed += count;
                }
                Submitted::Pop { token, outlet } => {
                    let count = token.wait(After::Submission, None).unwrap().count;
                    let there = pushed.saturating_sub(popped).min(u64::from(outlet.pop.max));
                    assert!(u64::from(count) >= there && count <= outlet.pop.max, "{count} of {there}");
                    assert!(streams.len() > 1 || u64::from(count) == there);
                    let (records, sequences) = outlet.records(&context, count);
                    for (record, sequence) in records.iter().zip(sequences) {
                        assert_eq!(Some(record), accepted.pop_front().as_ref());
                        popped += 1;
                        assert_eq!(sequence, first.wrapping_add(popped));
                    }
                }
            }
        }
    }
}

#[test]
fn random_operations_on_one_stream_equal_a_queue() {
    random_operations(1);
}

#[test]
fn random_operations_on_many_streams_lose_and_reorder_nothing() {
    random_operations(4);
}

#[test]
fn threads_share_a_mailbox() {
    let context = context();
    let mailbox = mailbox(&context, 256, 16);
    const THREADS: u64 = 4;
    let each = (total_records() / THREADS).min(2000);
    let received = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (context, mailbox) = (&context, &mailbox);
            scope.spawn(move || {
                let stream = context.stream().unwrap();
                let token = Token::new(context).unwrap();
                let data: Vec<u64> = (0..each).flat_map(|n| [thread, n]).collect();
                let rows = upload(context, &data);
                let mut sent = 0;
                while sent < each {
                    let push = Push {
                        count: (each - sent).min(50) as u32,
                        records: rows.address() + sent * 16,
                        length: 16,
                        ..Default::default()
                    };
                    sent += u64::from(push_and_wait(mailbox, &push, stream.get(), &token).count);
                }
            });
        }
        for _ in 0..2 {
            let (context, mailbox, received) = (&context, &mailbox, &received);
            scope.spawn(move || {
                let stream = context.stream().unwrap();
                let token = Token::new(context).unwrap();
                let outlet = Outlet::new(context, mailbox, 64);
                loop {
                    let count = pop_and_wait(mailbox, &outlet.pop, stream.get(), &token).count;
                    let (records, sequences) =
                        if count > 0 { outlet.records(context, count) } else { Default::default() };
                    let mut all = received.lock().unwrap();
                    for (record, sequence) in records.iter().zip(sequences) {
                        let words = words(&record.bytes);
                        all.push((sequence, words[0], words[1]));
                    }
                    if all.len() as u64 == THREADS * each {
                        return;
                    }
                }
            });
        }
    });
    let mut all = received.into_inner().unwrap();
    all.sort_unstable();
    let mut next = [0; THREADS as usize];
    for (position, (sequence, thread, n)) in all.into_iter().enumerate() {
        assert_eq!(sequence, position as u64 + 1, "a record came twice or not at all");
        assert_eq!(n, next[thread as usize], "records of thread {thread} out of order");
        next[thread as usize] += 1;
    }
}

#[test]
fn a_single_stream_mailbox_keeps_to_its_first_stream() {
    let context = context();
    let options =
        MailboxOptions { capacity: 64, payload_bytes: 16, single_stream: true, ..Default::default() };
    let mailbox = Mailbox::new(&context, &options).unwrap();
    let [first, other] = streams(&context);
    let mut random = Random::new();
    let token = Token::new(&context).unwrap();
    let outlet = Outlet::new(&context, &mailbox, 64);
    // A call that fails changes nothing, so it does not choose the stream either.
    let foreign = Token::new(&super::support::context()).unwrap();
    unsafe { mailbox.pop(&outlet.pop, other.get(), Some(&foreign)) }.unwrap_err();
    for _ in 0..20 {
        let count = random.between(1, 64) as usize;
        let sent = random_records(&mut random, count, 16);
        let batch = Batch::new(&context, &mailbox, &sent);
        unsafe {
            mailbox.push(&batch.push, first.get(), None).unwrap();
            for error in [
                mailbox.push(&batch.push, other.get(), None).unwrap_err(),
                mailbox.pop(&outlet.pop, Stream::LEGACY, Some(&token)).unwrap_err(),
            ] {
                assert_eq!(error.status(), GMB_ERROR_INVALID_STREAM);
            }
            mailbox.pop(&outlet.pop, first.get(), Some(&token)).unwrap();
        }
        let result = token.wait(After::Submission, None).unwrap();
        assert_eq!(result.count as usize, sent.len());
        assert_eq!(outlet.records(&context, result.count).0, sent);
    }
}
