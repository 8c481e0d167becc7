//! Records borrowed in place: what they say, that nobody writes over them, and how their space comes free.

use super::support::*;
use gpumailbox::*;
use std::collections::VecDeque;

/// The records of a borrow, read where they lie.
fn contents(context: &Context, spans: &gmb_spans) -> Vec<(u64, Item)> {
    let mut all = Vec::new();
    for span in 0..2 {
        if spans.count[span] == 0 {
            continue;
        }
        let (address, stride) = (spans.records[span] as u64 - 16, spans.stride as usize);
        let bytes = download(context, address, stride * spans.count[span] as usize);
        for slot in bytes.chunks_exact(stride) {
            let header = headers(&slot[..16])[0];
            let item =
                Item { bytes: slot[16..16 + header.length as usize].to_vec(), msg_type: header.msg_type };
            all.push((header.sequence.wrapping_sub(1), item));
        }
    }
    all
}

struct Out {
    borrow: Borrow,
    spans: gmb_spans,
    records: Vec<(u64, Item)>,
}

struct Model {
    policy: FullPolicy,
    capacity: u64,
    /// Records by index, from the first that was ever pushed.
    pushed: Vec<Item>,
    start: u64,
    published: u64,
    claimed: u64,
}

impl Model {
    fn item(&self, index: u64) -> Item {
        self.pushed[index.wrapping_sub(self.start) as usize].clone()
    }

    fn push(&mut self, records: &[Item], out: &[Out]) -> u32 {
        let held = out.iter().map(|o| o.records[0].0).min_by_key(|first| first.wrapping_sub(self.start));
        let since = |first: u64| self.published.wrapping_sub(first);
        let newest = self.published.wrapping_sub(1);
        let room = match (self.policy, held) {
            (FullPolicy::Latest, Some(_)) => {
                let newest_held = out.iter().any(|o| o.records[0].0 == newest);
                let kept = out.len() as u64 + u64::from(!newest_held);
                if kept < self.capacity {
                    u64::MAX
                } else {
                    0
                }
            }
            (FullPolicy::OverwriteOldest, Some(first)) => self.capacity - since(first),
            (FullPolicy::OverwriteOldest | FullPolicy::Latest, None) => u64::MAX,
            (FullPolicy::Reject | FullPolicy::Wait, held) => {
                self.capacity - since(held.unwrap_or(self.claimed))
            }
        };
        let accepted = room.min(records.len() as u64);
        self.pushed.extend(records[..accepted as usize].iter().cloned());
        self.published = self.published.wrapping_add(accepted);
        accepted as u32
    }

    /// What a borrow or a pop gives, and how many were lost.
    fn take(&mut self, max: u64) -> (Vec<(u64, Item)>, u64) {
        let unread = self.published.wrapping_sub(self.claimed);
        let lost = match self.policy {
            FullPolicy::Latest => unread.saturating_sub(1),
            FullPolicy::OverwriteOldest => unread.saturating_sub(self.capacity),
            _ => 0,
        };
        let count = max.min(unread - lost);
        if count == 0 {
            return (Vec::new(), 0);
        }
        let first = self.claimed.wrapping_add(lost);
        self.claimed = first.wrapping_add(count);
        ((0..count).map(|i| (first.wrapping_add(i), self.item(first.wrapping_add(i)))).collect(), lost)
    }
}

/// Random pushes, borrows, releases in any order, and pops while nothing is borrowed, on two streams, equal the model.
#[test]
fn borrowing_equals_the_model() {
    let context = context();
    let mut random = Random::new();
    for policy in [FullPolicy::Reject, FullPolicy::Wait, FullPolicy::OverwriteOldest, FullPolicy::Latest] {
        for capacity in [2u64, 8, 32] {
            let start = u64::MAX - 50;
            let options = MailboxOptions {
                capacity,
                payload_bytes: 40,
                full_policy: policy,
                initial_index: start,
                ..Default::default()
            };
            let mailbox = Mailbox::new(&context, &options).unwrap();
            let streams = [context.stream().unwrap(), context.stream().unwrap()];
            let token = Token::new(&context).unwrap();
            let mut model =
                Model { policy, capacity, pushed: Vec::new(), start, published: start, claimed: start };
            let mut out: Vec<Out> = Vec::new();
            for _ in 0..150 {
                let on = streams[random.between(0, 1) as usize].get();
                match random.between(0, 9) {
                    0..=3 => {
                        let count = random.between(1, capacity) as usize;
                        let records = random_records(&mut random, count, 40);
                        let batch = Batch::new(&context, &mailbox, &records);
                        let push = Push { timeout: Some(std::time::Duration::ZERO), ..batch.push };
                        let pushed = unsafe { mailbox.push(&push, on, Some(&token)) };
                        if policy == FullPolicy::Wait {
                            let held =
                                out.iter().map(|o| o.records[0].0).min_by_key(|f| f.wrapping_sub(start));
                            let used = model.published.wrapping_sub(held.unwrap_or(model.claimed));
                            // Room is certain only when it was reported.
                            if let Err(error) = pushed {
                                assert_eq!(error.status(), GMB_ERROR_TIMEOUT);
                                context.synchronize(streams[0].get()).unwrap();
                                context.synchronize(streams[1].get()).unwrap();
                                let again = unsafe { mailbox.push(&push, on, Some(&token)) };
                                assert_eq!(
                                    again.is_ok(),
                                    used + count as u64 <= capacity,
                                    "{used} of {capacity} used"
                                );
                                if again.is_err() {
                                    continue;
                                }
                            }
                            assert!(used + count as u64 <= capacity);
                        }
                        let result = token.wait(After::Submission, None).unwrap();
                        assert_eq!(
                            (result.count, result.status),
                            (model.push(&records, &out), GMB_OK),
                            "{policy:?}"
                        );
                    }
                    4..=6 => {
                        let max = random.between(1, capacity + 2) as u32;
                        let borrow = mailbox.borrow(0, max, on).unwrap();
                        let (result, spans) = borrow.wait(None).unwrap();
                        let (expected, lost) = model.take(u64::from(max));
                        assert_eq!(
                            (result.count as usize, result.lost),
                            (expected.len(), lost),
                            "{policy:?}"
                        );
                        assert_eq!(spans.count.iter().sum::<u32>(), result.count);
                        // What is borrowed is no longer there to be read.
                        let left = model.published.wrapping_sub(model.claimed).min(capacity);
                        let ready = mailbox.wait_readable(0, 1, Some(std::time::Duration::ZERO));
                        assert_eq!(ready.unwrap_or(0), left, "{policy:?}");
                        assert_eq!(contents(&context, &spans), expected);
                        if expected.is_empty() {
                            borrow.release(on).unwrap();
                        } else {
                            assert_eq!(spans.first, expected[0].0);
                            let told = download(&context, borrow.device_spans().0, size_of::<gmb_spans>());
                            assert_eq!(
                                words(&told)[..4],
                                [
                                    spans.first,
                                    spans.records[0] as u64,
                                    spans.records[1] as u64,
                                    u64::from(spans.count[0]) | u64::from(spans.count[1]) << 32
                                ]
                            );
                            out.push(Out { borrow, spans, records: expected });
                        }
                    }
                    7..=8 if !out.is_empty() => {
                        let gone = out.swap_remove(random.between(0, out.len() as u64 - 1) as usize);
                        assert_eq!(contents(&context, &gone.spans), gone.records, "{policy:?}: written over");
                        gone.borrow.release(on).unwrap();
                        assert_eq!(gone.borrow.release(on).unwrap_err().status(), GMB_ERROR_INVALID_ARGUMENT);
                    }
                    _ => {
                        let outlet = Outlet::new(&context, &mailbox, random.between(1, capacity + 2) as u32);
                        let popped = unsafe { mailbox.pop(&outlet.pop, on, Some(&token)) };
                        if !out.is_empty() {
                            assert_eq!(popped.unwrap_err().status(), GMB_ERROR_BUSY);
                            continue;
                        }
                        popped.unwrap();
                        let result = token.wait(After::Submission, None).unwrap();
                        let (expected, lost) = model.take(u64::from(outlet.pop.max));
                        assert_eq!(
                            (result.count as usize, result.lost),
                            (expected.len(), lost),
                            "{policy:?}"
                        );
                        let expected: Vec<Item> = expected.into_iter().map(|(_, item)| item).collect();
                        assert_eq!(outlet.records(&context, result.count).0, expected);
                    }
                }
            }
            for out in &out {
                assert_eq!(contents(&context, &out.spans), out.records, "{policy:?}: written over");
            }
        }
    }
}

/// Each reader borrows for itself, and the slowest holds the space.
#[test]
fn readers_borrow_for_themselves() {
    let context = context();
    let options = MailboxOptions { capacity: 8, payload_bytes: 16, readers: 2, ..Default::default() };
    let mailbox = Mailbox::new(&context, &options).unwrap();
    let stream = context.stream().unwrap();
    let records = poisoned(&context, 16 * 8, 9);
    let token = Token::new(&context).unwrap();
    let push = |count| {
        let push = Push { count, records: records.address(), length: 16, ..Default::default() };
        push_and_wait(&mailbox, &push, stream.get(), &token).count
    };
    assert_eq!(push(8), 8);
    let first = [0, 1].map(|reader| mailbox.borrow(reader, 4, stream.get()).unwrap());
    let second = [0, 1].map(|reader| mailbox.borrow(reader, 4, stream.get()).unwrap());
    let places = |borrow: &Borrow| borrow.wait(None).unwrap().1.records;
    assert_eq!(places(&first[0]), places(&first[1]));
    assert_eq!(places(&second[0]), places(&second[1]));
    second.iter().for_each(|borrow| borrow.release(stream.get()).unwrap());
    assert_eq!(push(8), 0, "space comes free in order");
    first[0].release(stream.get()).unwrap();
    assert_eq!(push(8), 0, "the other reader holds it still");
    first[1].release(stream.get()).unwrap();
    assert_eq!(push(8), 8);
}

/// A release on one stream, the next borrow on another, and nobody waits in between: each finds what the one before it left.
#[test]
fn borrows_and_releases_on_two_streams_follow_each_other() {
    let context = context();
    let options = MailboxOptions { capacity: 8, payload_bytes: 16, ..Default::default() };
    let mailbox = Mailbox::new(&context, &options).unwrap();
    let streams = [context.stream().unwrap(), context.stream().unwrap()];
    let records = poisoned(&context, 16 * 8, 9);
    let push = push_of(&records, 8);
    let soon = Some(LIMIT);
    for round in 0..2000u64 {
        let [here, there] = if round & 1 == 0 { [0, 1] } else { [1, 0] }.map(|i: usize| streams[i].get());
        unsafe { mailbox.push(&push, here, None) }.unwrap();
        mailbox.borrow(0, 2, here).unwrap().release(there).unwrap();
        let borrow = mailbox.borrow(0, 2, here).unwrap();
        let (result, spans) = borrow.wait(soon).unwrap();
        assert_eq!((result.count, spans.first), (2, round * 8 + 2));
        assert_eq!(mailbox.wait_readable(0, 1, soon).unwrap(), 4);
        let rest = mailbox.borrow(0, 8, there).unwrap();
        borrow.release(here).unwrap();
        assert_eq!(rest.wait(soon).unwrap().1.first, round * 8 + 4);
        let left = mailbox.wait_readable(0, 1, Some(std::time::Duration::ZERO));
        assert_eq!(left.unwrap_err().status(), GMB_ERROR_TIMEOUT);
        rest.release(there).unwrap();
    }
}

#[test]
fn what_cannot_be_borrowed_says_so() {
    let context = context();
    let stream = context.stream().unwrap();
    let records = poisoned(&context, 16 * 8, 9);
    let push = push_of(&records, 4);
    let pop = Pop { max: 4, records: records.address(), ..Default::default() };
    let status = |result: Result<Borrow>| result.map(|_| ()).unwrap_err().status();
    let ours = mailbox(&context, 8, 16);
    assert_eq!(status(ours.borrow(1, 4, stream.get())), GMB_ERROR_INVALID_ARGUMENT);
    assert_eq!(status(ours.borrow(u32::MAX, 4, stream.get())), GMB_ERROR_INVALID_ARGUMENT);
    assert_eq!(status(ours.borrow(0, 0, stream.get())), GMB_ERROR_ZERO_COUNT);
    assert_eq!(status(ours.borrow(0, GMB_MAX_RECORDS + 1, stream.get())), GMB_ERROR_OVERFLOW);
    for full_policy in [FullPolicy::OverwriteOldest, FullPolicy::Latest] {
        let options = MailboxOptions {
            capacity: 8,
            payload_bytes: 16,
            full_policy,
            arbitration: Arbitration::Device,
            ..Default::default()
        };
        let mailbox = Mailbox::new(&context, &options).unwrap();
        assert_eq!(status(mailbox.borrow(0, 4, stream.get())), GMB_ERROR_NOT_SUPPORTED);
    }
    // At most 64 at once; one that is released makes room for one more.
    let mut out: VecDeque<Borrow> = (0..64).map(|_| ours.borrow(0, 1, stream.get()).unwrap()).collect();
    assert_eq!(status(ours.borrow(0, 1, stream.get())), GMB_ERROR_OVERFLOW);
    assert_eq!(ours.remove_reader(0, stream.get()).unwrap_err().status(), GMB_ERROR_BUSY);
    out.pop_front().unwrap().release(stream.get()).unwrap();
    out.push_back(ours.borrow(0, 1, stream.get()).unwrap());
    // Graphs and borrows exclude each other.
    let refused = |result: Result<()>| assert_eq!(result.unwrap_err().status(), GMB_ERROR_NOT_SUPPORTED);
    let other = mailbox(&context, 8, 16);
    let graph = captured(&context, stream.get(), || {
        refused(unsafe { ours.push(&push, stream.get(), None) });
        assert_eq!(unsafe { ours.pop(&pop, stream.get(), None) }.unwrap_err().status(), GMB_ERROR_BUSY);
        refused(out[0].release(stream.get()));
        assert_eq!(status(other.borrow(0, 1, stream.get())), GMB_ERROR_NOT_SUPPORTED);
        unsafe { other.push(&push, stream.get(), None) }.unwrap();
    });
    assert_eq!(status(other.borrow(0, 1, stream.get())), GMB_ERROR_NOT_SUPPORTED);
    graph.launch(stream.get()).unwrap();
    out.iter().for_each(|borrow| borrow.release(stream.get()).unwrap());
    context.synchronize(stream.get()).unwrap();
}

/// One thread borrows, looks and releases, on a stream of its own, while another pushes as fast as it can: nobody ever
/// sees a record change under his eyes, and what comes is in order.
#[test]
fn nothing_is_written_over_while_it_is_borrowed() {
    let context = context();
    for policy in [FullPolicy::Reject, FullPolicy::OverwriteOldest, FullPolicy::Latest] {
        let mailbox = with_policy(&context, policy, 8, 48);
        let ended = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let stream = context.stream().unwrap();
                let mut random = Random::new();
                let batches: Vec<Batch> = (0..8u8)
                    .map(|value| {
                        let items = vec![Item { bytes: vec![value; 48], msg_type: u32::from(value) }; 12];
                        Batch::new(&context, &mailbox, &items)
                    })
                    .collect();
                while !ended.load(std::sync::atomic::Ordering::Acquire) {
                    let batch = &batches[random.between(0, 7) as usize];
                    let push = Push { count: random.between(1, 12) as u32, ..batch.push };
                    unsafe { mailbox.push(&push, stream.get(), None) }.unwrap();
                    if random.between(0, 15) == 0 {
                        context.synchronize(stream.get()).unwrap();
                    }
                }
                context.synchronize(stream.get()).unwrap();
            });
            let stream = context.stream().unwrap();
            let (mut next, mut seen) = (0u64, 0);
            while seen < 300 {
                let borrow = mailbox.borrow(0, 3, stream.get()).unwrap();
                let (result, spans) = borrow.wait(None).unwrap();
                assert_eq!(result.status, GMB_OK, "{policy:?}");
                let first = contents(&context, &spans);
                assert_eq!(contents(&context, &spans), first, "{policy:?}: written over");
                for (index, item) in &first {
                    assert!(
                        item.bytes.iter().all(|&byte| u32::from(byte) == item.msg_type),
                        "{policy:?}: torn"
                    );
                    assert!(*index >= next, "{policy:?}: not in order");
                    next = index + 1;
                    seen += 1;
                }
                borrow.release(stream.get()).unwrap();
            }
            ended.store(true, std::sync::atomic::Ordering::Release);
        });
    }
}

/// A pop finds what was pushed before it, also behind a release that has not run.
#[test]
fn a_pop_behind_a_release_finds_what_was_pushed() {
    let context = context();
    let mailbox = mailbox(&context, 64, 16);
    let streams = [context.stream().unwrap(), context.stream().unwrap(), context.stream().unwrap()];
    let records = poisoned(&context, 16 * 16, 9);
    let push = push_of(&records, 10);
    let token = Token::new(&context).unwrap();
    for _ in 0..20 {
        assert_eq!(push_and_wait(&mailbox, &push, streams[0].get(), &token).count, 10);
        let borrow = mailbox.borrow(0, 10, streams[1].get()).unwrap();
        assert_eq!(borrow.wait(None).unwrap().0.count, 10);
        borrow.release(streams[1].get()).unwrap();
        assert_eq!(borrow.wait(None).unwrap_err().status(), GMB_ERROR_INVALID_ARGUMENT);
        unsafe { mailbox.push(&push, streams[0].get(), None) }.unwrap();
        let outlet = Outlet::new(&context, &mailbox, 10);
        assert_eq!(pop_and_wait(&mailbox, &outlet.pop, streams[2].get(), &token).count, 10);
    }
}

/// What is borrowed may outlive the mailbox; not released, it holds its memory, and no longer.
#[test]
fn a_borrow_outlives_its_mailbox() {
    let context = context();
    let stream = context.stream().unwrap();
    let records = poisoned(&context, 16 * 8, 9);
    let before = context.memory_info().unwrap().used;
    let push = push_of(&records, 8);
    for released in [true, false] {
        let mailbox = mailbox(&context, 8, 16);
        unsafe { mailbox.push(&push, stream.get(), None) }.unwrap();
        let borrow = mailbox.borrow(0, 8, stream.get()).unwrap();
        drop(mailbox);
        let (result, spans) = borrow.wait(None).unwrap();
        assert_eq!(result.count, 8);
        assert!(contents(&context, &spans).iter().all(|(_, item)| item.bytes == [9; 16]));
        if released {
            borrow.release(stream.get()).unwrap();
        }
        drop(borrow);
        context.synchronize(stream.get()).unwrap();
        assert_eq!(context.memory_info().unwrap().used, before);
    }
}
