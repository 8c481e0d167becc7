//! Records that are values of a Rust type; what is made drops in any order.

use super::support::*;
use gpumailbox::*;

#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
struct Sample {
    time: u64,
    values: [f32; 5],
    channel: u32,
}
unsafe impl Record for Sample {}

fn samples(random: &mut Random, count: usize) -> Vec<Sample> {
    (0..count)
        .map(|_| Sample {
            time: random.next(),
            values: std::array::from_fn(|_| random.next() as i32 as f32),
            channel: random.next() as u32,
        })
        .collect()
}

#[test]
fn values_come_out_as_they_went_in() {
    let context = context();
    let mut random = Random::new();
    let options = MailboxOptions { capacity: 64, readers: 2, ..Default::default() };
    let mailbox = TypedMailbox::<Sample>::new(&context, &options).unwrap();
    assert_eq!(mailbox.info().unwrap().payload_bytes, 32);
    let sent = samples(&mut random, 50);
    assert_eq!(mailbox.push_blocking(&sent, 9, None).unwrap().count, 50);
    let got = mailbox.pop_blocking(1, 100).unwrap();
    assert_eq!((got.malformed, got.result.count), (0, 50));
    assert!(got.values.iter().map(|(kind, value)| (*kind, *value)).eq(sent.iter().map(|&value| (9, value))));
    // From rows to rows, with nothing in between.
    let stream = context.stream().unwrap();
    let token = Token::new(&context).unwrap();
    let mut rows = mailbox.rows(64).unwrap();
    unsafe { mailbox.pop_rows(0, &mut rows, 64, stream.get(), Some(&token)) }.unwrap();
    assert_eq!(token.wait(After::Submission, None).unwrap().count, 50);
    unsafe { mailbox.push_rows(&rows, 50, 4, stream.get(), Some(&token)) }.unwrap();
    assert_eq!(token.wait(After::Submission, None).unwrap().count, 50);
    for reader in 0..2 {
        let got = mailbox.pop_blocking(reader, u32::MAX).unwrap();
        assert!(got
            .values
            .iter()
            .map(|(kind, value)| (*kind, *value))
            .eq(sent.iter().map(|&value| (4, value))));
    }
    let error = unsafe { mailbox.push_rows(&rows, 65, 4, stream.get(), None) }.unwrap_err();
    assert_eq!(error.status(), GMB_ERROR_INVALID_ARGUMENT);
    // A record that is no Sample between two that are.
    let row = HostRows { rows: &[1; 3], stride: 3, lengths: &[3], types: &[] };
    mailbox.push_blocking(&sent[..1], 1, None).unwrap();
    mailbox.push_from_host_blocking(&row, None).unwrap();
    mailbox.push_blocking(&sent[1..2], 2, None).unwrap();
    let got = mailbox.pop_blocking(0, 8).unwrap();
    assert_eq!((got.malformed, got.values), (1, vec![(1, sent[0]), (2, sent[1])]));
    let numbers =
        TypedMailbox::<[u16; 3]>::new(&context, &MailboxOptions { capacity: 8, ..Default::default() })
            .unwrap();
    numbers.push_blocking(&[[1, 2, 3], [4, 5, 6]], 0, None).unwrap();
    assert_eq!(numbers.pop_blocking(0, 8).unwrap().values, [(0, [1, 2, 3]), (0, [4, 5, 6])]);
    let empty = TypedMailbox::<[u8; 0]>::new(&context, &options);
    assert_eq!(empty.unwrap_err().status(), GMB_ERROR_INVALID_ARGUMENT);
}

/// Whatever is dropped first, nothing is freed too early and nothing stays.
#[test]
fn what_is_made_drops_in_any_order() {
    let mut random = Random::new();
    for _ in 0..20 {
        let context = context();
        let witness = context.clone();
        let stream = context.stream().unwrap();
        let options = MailboxOptions { capacity: 16, readers: 3, ..Default::default() };
        let mailbox = TypedMailbox::<u64>::new(&context, &options).unwrap();
        let token = Token::new(&context).unwrap();
        let rows = mailbox.rows(16).unwrap();
        let event = context.event(EventKind::Untimed).unwrap();
        unsafe { mailbox.push_rows(&rows, 8, 0, stream.get(), Some(&token)) }.unwrap();
        event.record(stream.get()).unwrap();
        let ordered = context.device_buffer_on(1024, stream.get()).unwrap();
        let pinned = context.pinned_buffer(64).unwrap();
        // The rows are in use until the push is done.
        token.wait(After::Submission, None).unwrap();
        context.synchronize(stream.get()).unwrap();
        let mut things: Vec<Box<dyn std::any::Any>> = vec![
            Box::new(mailbox),
            Box::new(token),
            Box::new(rows),
            Box::new(event),
            Box::new(ordered),
            Box::new(pinned),
            Box::new(stream),
            Box::new(context),
        ];
        while !things.is_empty() {
            things.swap_remove(random.between(0, things.len() as u64 - 1) as usize);
        }
        // Without pools, what was freed in stream order still waits for its event.
        let held = || witness.event_pool(EventKind::Untimed).in_use;
        while held() > 0 && !witness.memory_info().unwrap().pooled {
            witness.trim_memory(0).unwrap();
        }
        let left = witness.memory_info().unwrap();
        assert_eq!((left.used, left.allocations), (0, 0));
        assert_eq!(held(), 0);
    }
}
