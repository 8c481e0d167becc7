//! What a push does when the mailbox is full, held against a model of each policy.

use super::support::*;
use gpumailbox::*;
use std::time::Duration;

const ALL: [FullPolicy; 4] =
    [FullPolicy::Reject, FullPolicy::Wait, FullPolicy::OverwriteOldest, FullPolicy::Latest];

/// An operation under way, and what the model says of it.
struct UnderWay {
    token: Token,
    count: u64,
    /// Of a pop: where its records go, their first index, the records, and how many are lost before them.
    popped: Option<(Outlet, u64, Vec<Item>, u64)>,
    _batch: Option<Batch>,
}

/// Random pushes and pops equal the model's, operation by operation: enqueued all at once on one
/// stream, or one after the other on any of two. (Beside each other on two, one may find more.)
fn equals_the_model(policy: FullPolicy) {
    let context = context();
    let mut random = Random::new();
    for round in 0..6 {
        let capacity = 1u64 << random.between(1, 6);
        let payload = random.between(1, 200) as u32;
        let mailbox = with_policy(&context, policy, capacity, payload);
        let streams = [context.stream().unwrap(), context.stream().unwrap()];
        let mut model = Model::new(policy, capacity);
        let mut waiting: Vec<UnderWay> = Vec::new();
        for _ in 0..40 {
            let stream = streams[if round % 2 == 0 { 0 } else { random.between(0, 1) as usize }].get();
            if let Some(last) = waiting.last().filter(|_| round % 2 == 1) {
                last.token.wait(After::Submission, None).unwrap();
            }
            let token = Token::new(&context).unwrap();
            if random.between(0, 1) == 0 {
                let most = if policy == FullPolicy::Wait { model.room() } else { 3 * capacity };
                if most == 0 {
                    continue;
                }
                let count = random.between(1, most) as usize;
                let records = random_records(&mut random, count, payload);
                let batch = Batch::new(&context, &mailbox, &records);
                let push = Push { timeout: Some(Duration::ZERO), ..batch.push };
                if policy == FullPolicy::Wait {
                    // Lengths in device memory are not sure to be good: make room certain first.
                    streams.iter().for_each(|s| context.synchronize(s.get()).unwrap());
                }
                unsafe { mailbox.push(&push, stream, Some(&token)) }.unwrap();
                let count = model.push(&records);
                waiting.push(UnderWay { token, count, popped: None, _batch: Some(batch) });
            } else {
                let max = random.between(1, 2 * capacity) as u32;
                let outlet = Outlet::new(&context, &mailbox, max);
                unsafe { mailbox.pop(&outlet.pop, stream, Some(&token)) }.unwrap();
                let (first, records, lost) = model.pop(u64::from(max));
                let (count, popped) = (records.len() as u64, Some((outlet, first, records, lost)));
                waiting.push(UnderWay { token, count, popped, _batch: None });
            }
        }
        for (number, UnderWay { token, count, popped, .. }) in waiting.into_iter().enumerate() {
            let result = token.wait(After::Submission, None).unwrap();
            let what = format!("round {round}, operation {number}, capacity {capacity}");
            assert_eq!((result.status, u64::from(result.count)), (GMB_OK, count), "{what}");
            let Some((outlet, first, records, lost)) = popped else { continue };
            let (got, sequences) = outlet.records(&context, result.count);
            assert_eq!(got, records, "{what}");
            assert!(sequences.iter().zip(first + 1..).all(|(&s, expected)| s == expected), "{what}");
            assert_eq!(result.lost, lost, "{what}");
            assert_eq!(result.flags & GMB_RESULT_LOST != 0, lost != 0, "{what}");
        }
        let info = mailbox.info().unwrap();
        assert_eq!((info.published, info.full_policy), (model.records.len() as u64, policy));
        assert!(info.high_water <= capacity);
        assert_eq!(mailbox.reader_info(0).unwrap().released, model.released);
    }
}

#[test]
fn rejecting_equals_the_model() {
    equals_the_model(FullPolicy::Reject);
}

#[test]
fn waiting_equals_the_model() {
    equals_the_model(FullPolicy::Wait);
}

#[test]
fn overwriting_equals_the_model() {
    equals_the_model(FullPolicy::OverwriteOldest);
}

#[test]
fn latest_equals_the_model() {
    equals_the_model(FullPolicy::Latest);
}

/// What a record holds: its index in every word, mixed, so that a torn one shows.
fn content(index: u64, word: u64) -> u64 {
    (index << 8 | word).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

const WORDS: u64 = 30;
const ROW: usize = WORDS as usize * 8;

/// A producer that never waits and a consumer beside it: what is popped is whole and in
/// order, and what is not popped is counted.
fn never_torn(policy: FullPolicy, capacity: u64, batch: u64, total: u64) {
    let context = context();
    let options = MailboxOptions {
        capacity,
        payload_bytes: ROW as u32,
        full_policy: policy,
        arbitration: Arbitration::Device,
        ..Default::default()
    };
    let mailbox = Mailbox::new(&context, &options).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    let (mut got, mut lost) = (0u64, 0u64);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let stream = context.stream().unwrap();
            let token = Token::new(&context).unwrap();
            let rows = context.pinned_buffer(batch as usize * ROW).unwrap();
            let view = unsafe {
                std::slice::from_raw_parts_mut(rows.address() as *mut u64, (batch * WORDS) as usize)
            };
            let mut sent = 0;
            while sent < total {
                let count = batch.min(total - sent);
                for i in 0..count {
                    for word in 0..WORDS {
                        view[(i * WORDS + word) as usize] = content(sent + i, word);
                    }
                }
                let push = Push {
                    count: count as u32,
                    records: rows.address(),
                    length: ROW as u32,
                    ..Default::default()
                };
                let result = push_and_wait(&mailbox, &push, stream.get(), &token);
                assert_eq!((result.status, u64::from(result.count)), (GMB_OK, count));
                sent += count;
            }
            done.store(true, std::sync::atomic::Ordering::Release);
        });
        let stream = context.stream().unwrap();
        let token = Token::new(&context).unwrap();
        let max = 2 * capacity;
        let rows = context.pinned_buffer(max as usize * ROW).unwrap();
        let heads = context.pinned_buffer(max as usize * 16).unwrap();
        unsafe { std::ptr::write_bytes(rows.address() as *mut u8, POISON, max as usize * ROW) };
        let view =
            unsafe { std::slice::from_raw_parts(rows.address() as *const u64, (max * WORDS) as usize) };
        let headers =
            unsafe { std::slice::from_raw_parts(heads.address() as *const gmb_record_header, max as usize) };
        let mut next = 0u64;
        loop {
            let last = done.load(std::sync::atomic::Ordering::Acquire);
            let pop = Pop {
                max: max as u32,
                records: rows.address(),
                headers: heads.address(),
                ..Default::default()
            };
            let result = pop_and_wait(&mailbox, &pop, stream.get(), &token);
            assert_eq!(result.status, GMB_OK);
            next += result.lost;
            lost += result.lost;
            for i in 0..u64::from(result.count) {
                assert_eq!(headers[i as usize].sequence, next + i + 1);
                for word in 0..WORDS {
                    let value = view[(i * WORDS + word) as usize];
                    assert_eq!(value, content(next + i, word), "record {}, word {word}", next + i);
                }
            }
            next += u64::from(result.count);
            got += u64::from(result.count);
            if last && result.count == 0 {
                break;
            }
        }
        assert_eq!(next, total, "every record is popped or counted as lost");
        let past = &view[(capacity * WORDS) as usize..];
        assert!(
            past.iter().all(|&word| word == u64::from_ne_bytes([POISON; 8])),
            "more rows than the ring holds"
        );
    });
    assert_eq!(got + lost, total);
    let reader = mailbox.reader_info(0).unwrap();
    assert_eq!((reader.lost, reader.unread), (lost, 0));
    println!("{policy:?}: {got} popped, {lost} lost");
}

#[test]
fn an_overwritten_record_is_never_seen_torn() {
    never_torn(FullPolicy::OverwriteOldest, 64, 48, total_records() / 50);
    never_torn(FullPolicy::OverwriteOldest, 1024, 700, total_records() / 20);
}

#[test]
fn the_latest_record_is_never_seen_torn() {
    never_torn(FullPolicy::Latest, 2, 1, total_records() / 200);
    never_torn(FullPolicy::Latest, 4, 9, total_records() / 100);
}

#[test]
fn a_push_of_more_than_the_ring_keeps_the_last() {
    let context = context();
    let mut random = Random::new();
    let stream = context.stream().unwrap();
    let mailbox = with_policy(&context, FullPolicy::OverwriteOldest, 16, 40);
    let sent = random_records(&mut random, 100, 40);
    let batch = Batch::new(&context, &mailbox, &sent);
    let (token, outlet) = (Token::new(&context).unwrap(), Outlet::new(&context, &mailbox, 32));
    assert_eq!(push_and_wait(&mailbox, &batch.push, stream.get(), &token).count, 100);
    let result = pop_and_wait(&mailbox, &outlet.pop, stream.get(), &token);
    assert_eq!((result.count, result.lost), (16, 84));
    assert_eq!(result.flags, GMB_RESULT_LOST | GMB_RESULT_PARTIAL);
    assert_eq!(outlet.records(&context, 16).0, sent[84..]);
    outlet.check_untouched_past(&context, 16);
}

/// The records before a bad length are published, and what the rest would have
/// written over is lost, never given out damaged.
#[test]
fn a_bad_length_under_overwriting_policies() {
    let context = context();
    let mut random = Random::new();
    let stream = context.stream().unwrap();
    for policy in [FullPolicy::OverwriteOldest, FullPolicy::Latest] {
        for _ in 0..20 {
            let mailbox = with_policy(&context, policy, 32, 32);
            let before = random_records(&mut random, 32, 32);
            let batch = Batch::new(&context, &mailbox, &before);
            let token = Token::new(&context).unwrap();
            unsafe { mailbox.push(&batch.push, stream.get(), None) }.unwrap();
            let count = random.between(1, 60) as usize;
            let bad = random.between(0, count as u64 - 1) as usize;
            let mut lengths = vec![32u32; count];
            lengths[bad] = 33;
            let data = random.bytes(count * 32);
            let (rows, lengths) = (upload(&context, &data), upload(&context, &lengths));
            let push = Push {
                count: count as u32,
                records: rows.address(),
                lengths: lengths.address(),
                ..Default::default()
            };
            let result = push_and_wait(&mailbox, &push, stream.get(), &token);
            assert_eq!((result.status, result.count as usize), (GMB_ERROR_BAD_LENGTH, bad));
            let outlet = Outlet::new(&context, &mailbox, 64);
            let result = pop_and_wait(&mailbox, &outlet.pop, stream.get(), &token);
            assert_eq!(result.status, GMB_OK);
            let (records, sequences) = outlet.records(&context, result.count);
            for (record, sequence) in records.iter().zip(sequences) {
                let index = sequence as usize - 1;
                let expected = match index {
                    0..32 => before[index].bytes.clone(),
                    _ => data[(index - 32) * 32..(index - 31) * 32].to_vec(),
                };
                assert_eq!(record.bytes, expected, "record {index} of {count}, bad {bad}");
            }
            assert_eq!(result.lost + u64::from(result.count), 32 + bad as u64);
            // The mailbox goes on.
            let good = push_of(&rows, 1);
            unsafe { mailbox.push(&good, stream.get(), None) }.unwrap();
            let result = pop_and_wait(&mailbox, &outlet.pop, stream.get(), &token);
            assert_eq!((result.status, result.count, result.lost), (GMB_OK, 1, 0));
        }
    }
}

/// The blocking calls from host memory keep each policy's promise.
#[test]
fn pushes_from_host_memory_follow_the_policy() {
    let context = context();
    let rows: Vec<u8> = (0..6 * 16).collect();
    let records = HostRows { rows: &rows, stride: 16, lengths: &[16; 6], types: &[] };
    let pop = |mailbox: &Mailbox| {
        let (mut out, mut headers) = ([POISON; 8 * 16], [gmb_record_header::default(); 8]);
        let result = mailbox.pop_to_host_blocking(0, &mut out, 16, &mut headers).unwrap();
        (result, out[..16 * result.count as usize].to_vec())
    };
    for (policy, accepted, kept) in
        [(FullPolicy::Reject, 4, 0..4), (FullPolicy::OverwriteOldest, 6, 2..6), (FullPolicy::Latest, 6, 5..6)]
    {
        let mailbox = with_policy(&context, policy, 4, 16);
        let result = mailbox.push_from_host_blocking(&records, None).unwrap();
        assert_eq!((result.count, result.flags != 0), (accepted, accepted < 6), "{policy:?}");
        let (result, got) = pop(&mailbox);
        assert_eq!(got, rows[16 * kept.start..16 * kept.end], "{policy:?}");
        assert_eq!(result.lost, kept.start as u64);
    }
    let mailbox = with_policy(&context, FullPolicy::Wait, 4, 16);
    let status = |records: &HostRows<'_>, timeout| {
        mailbox.push_from_host_blocking(records, timeout).map(|result| result.count).map_err(|e| e.status())
    };
    assert_eq!(status(&records, None), Err(GMB_ERROR_INVALID_ARGUMENT));
    let three = HostRows { lengths: &[16; 3], ..records };
    // The device finds the lengths: what was pushed is certain once it has.
    assert_eq!(status(&three, Some(Duration::ZERO)), Ok(3));
    for _ in 0..50 {
        // The rows may go as soon as the call is back, also when it failed.
        let gone = vec![7u8; 48];
        let three = HostRows { rows: &gone, ..three };
        assert_eq!(status(&three, Some(Duration::ZERO)), Err(GMB_ERROR_TIMEOUT));
    }
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| status(&three, None));
        // Nor does it hold up another that would not wait.
        for _ in 0..20 {
            assert_eq!(status(&three, Some(Duration::ZERO)), Err(GMB_ERROR_TIMEOUT));
        }
        // A push that waits does not keep pops from making room.
        assert_eq!(pop(&mailbox).0.count, 3);
        assert_eq!(waiting.join().unwrap(), Ok(3));
    });
    assert_eq!(pop(&mailbox).1, rows[..48]);
}

/// The table of policies and modes: what is not supported says so.
#[test]
fn what_overwrites_cannot_be_shared() {
    use gpumailbox::capi::{mailbox as c_mailbox, placement};
    for policy in ALL {
        let options = c_options(
            4,
            match policy {
                FullPolicy::Reject => GMB_FULL_REJECT,
                FullPolicy::Wait => GMB_FULL_WAIT,
                FullPolicy::OverwriteOldest => GMB_FULL_OVERWRITE_OLDEST,
                FullPolicy::Latest => GMB_FULL_LATEST,
            },
        );
        let mut bytes = 0;
        assert_eq!(placement::gmb_mailbox_get_required_bytes(&options, &mut bytes), GMB_OK);
        assert!(bytes > 4 * 32);
        let shared = c_mailbox::gmb_mailbox_options { flags: c_mailbox::GMB_MAILBOX_SHARED, ..options };
        let overwrites = matches!(policy, FullPolicy::OverwriteOldest | FullPolicy::Latest);
        let wanted = if overwrites { GMB_ERROR_NOT_SUPPORTED } else { GMB_OK };
        assert_eq!(placement::gmb_mailbox_get_required_bytes(&shared, &mut bytes), wanted);
    }
}
