//! Arbiters: which mailboxes have records, as running kernels are told.

use std::time::Duration;

use super::support::*;
use gpumailbox::*;

/// The arbiter's header as it lies in device memory, in words of 32 bits.
pub fn header(context: &Context, arbiter: &Arbiter) -> Vec<u32> {
    let (stream, mut words) = (context.stream().unwrap(), vec![0u32; size_of::<gmb_arbiter_header>() / 4]);
    let from = arbiter.info().unwrap().arbiter;
    unsafe { context.copy(words.as_mut_ptr() as u64, from, words.len() * 4, stream.get()).unwrap() };
    context.synchronize(stream.get()).unwrap();
    words
}

/// Whether the arbiter says that a mailbox, by its number, is ready.
pub fn says(words: &[u32], number: usize) -> bool {
    let place = words[256 / 4 + number / 2] >> (number % 2 * 16) & 0xffff;
    words[128 / 4 + place as usize / 32] >> (place % 32) & 1 == 1
}

pub fn boxes(context: &Context, count: usize, options: MailboxOptions) -> Vec<Mailbox> {
    let options = MailboxOptions { capacity: 8, payload_bytes: 16, ..options };
    (0..count).map(|_| Mailbox::new(context, &options).unwrap()).collect()
}

pub fn put(mailbox: &Mailbox) {
    let row = HostRows { rows: &[7; 16], stride: 16, lengths: &[16], types: &[] };
    assert_eq!(mailbox.push_from_host_blocking(&row, None).unwrap().count, 1);
}

pub fn take(mailbox: &Mailbox, reader: u32) -> u32 {
    let (mut rows, mut headers) = ([0; 16], [gmb_record_header::default()]);
    mailbox.pop_to_host_blocking(reader, &mut rows, 16, &mut headers).unwrap().count
}

pub fn of(mailboxes: &[Mailbox], class: impl Fn(usize) -> Class) -> Vec<Arbitrated<'_>> {
    mailboxes
        .iter()
        .enumerate()
        .map(|(n, mailbox)| Arbitrated { mailbox, reader: 0, class: class(n) })
        .collect()
}

/// What is said follows what is pushed and popped, in every mode, over many slices.
#[test]
fn readiness_is_told() {
    let _budget = some_of_the_budget();
    let (context, mut random) = (context(), Random::new());
    let shared = MailboxOptions { mode: Mode::Shared, ..Default::default() };
    let latest = MailboxOptions { full_policy: FullPolicy::Latest, ..Default::default() };
    let mut mailboxes = boxes(&context, 40, MailboxOptions::default());
    mailboxes.extend(boxes(&context, 20, shared));
    mailboxes.extend(boxes(&context, 10, latest));
    let third = |n: usize| if n % 3 == 0 { Class::Focus } else { Class::Peripheral };
    let arbiter = Arbiter::new(&context, &of(&mailboxes, third), Some(Duration::from_millis(2))).unwrap();
    let info = arbiter.info().unwrap();
    assert_eq!((info.mailboxes, info.focus), (70, 24));
    let mut full = [false; 70];
    for _ in 0..60 {
        for _ in 0..random.between(1, 12) {
            let n = random.between(0, 69) as usize;
            if full[n] {
                assert_eq!(take(&mailboxes[n], 0), 1);
            } else {
                put(&mailboxes[n]);
            }
            full[n] = !full[n];
        }
        until(
            || "it says so",
            || {
                let words = header(&context, &arbiter);
                (0..70).all(|n| says(&words, n) == full[n])
            },
        );
    }
    // Focus has the first places, each class in the order in which it was given.
    let words = header(&context, &arbiter);
    let place = |n: usize| words[256 / 4 + n / 2] >> (n % 2 * 16) & 0xffff;
    let expected = (0..70).filter(|n| n % 3 == 0).chain((0..70).filter(|n| n % 3 != 0));
    assert!(expected.enumerate().all(|(at, n)| place(n) as usize == at));
    until(|| "several slices", || arbiter.info().unwrap().slices > 3);
    until(|| "a heartbeat", || arbiter.info().unwrap().heartbeat != 0);
    // It says where it is.
    let words = header(&context, &arbiter);
    assert_ne!((words[8], words[9]), (0, 0));
}

/// Each reader of a mailbox has its own say; the mailbox may go before the arbiter.
#[test]
fn readers_and_mailboxes_that_go() {
    let _budget = some_of_the_budget();
    let context = context();
    let two = MailboxOptions { readers: 2, ..Default::default() };
    let mailboxes = boxes(&context, 1, two);
    let both: Vec<_> =
        (0..2).map(|reader| Arbitrated { mailbox: &mailboxes[0], reader, class: Class::Focus }).collect();
    let arbiter = Arbiter::new(&context, &both, None).unwrap();
    let is = |expected: [bool; 2]| {
        until(
            || "it says so",
            || {
                let words = header(&context, &arbiter);
                [says(&words, 0), says(&words, 1)] == expected
            },
        );
    };
    put(&mailboxes[0]);
    is([true, true]);
    assert_eq!(take(&mailboxes[0], 0), 1);
    is([false, true]);
    assert_eq!(take(&mailboxes[0], 1), 1);
    is([false, false]);
    put(&mailboxes[0]);
    drop(mailboxes);
    is([true, true]);
}

/// What makes no sense is refused.
#[test]
fn what_is_refused() {
    let _budget = all_of_the_budget();
    let (context, other) = (context(), super::support::context());
    let status = |made: Result<Arbiter>| made.map(|_| GMB_OK).unwrap_or_else(|error| error.status());
    let focus = |_| Class::Focus;
    assert_eq!(status(Arbiter::new(&context, &[], None)), GMB_ERROR_ZERO_COUNT);
    let one = boxes(&context, 1, MailboxOptions::default());
    let many: Vec<_> =
        (0..1025).map(|_| Arbitrated { mailbox: &one[0], reader: 0, class: Class::Focus }).collect();
    assert_eq!(status(Arbiter::new(&context, &many, None)), GMB_ERROR_INVALID_ARGUMENT);
    assert_eq!(status(Arbiter::new(&context, &many[..1024], None)), GMB_OK);
    let no_reader = [Arbitrated { reader: 1, ..many[0] }];
    assert_eq!(status(Arbiter::new(&context, &no_reader, None)), GMB_ERROR_INVALID_ARGUMENT);
    let express = boxes(&context, 1, MailboxOptions { mode: Mode::Express, ..Default::default() });
    assert_eq!(status(Arbiter::new(&context, &of(&express, focus), None)), GMB_ERROR_NOT_SUPPORTED);
    let foreign = boxes(&other, 1, MailboxOptions::default());
    assert_eq!(status(Arbiter::new(&context, &of(&foreign, focus), None)), GMB_ERROR_INVALID_ARGUMENT);
    // Its block is of the workers' budget.
    let queue = super::queues::queue(&context, 64, 4);
    let most = Worker::new(&queue, None, None, &WorkerOptions::default()).unwrap().info().most_blocks;
    let whole = WorkerOptions { grid_blocks: most, ..Default::default() };
    let worker = Worker::new(&queue, None, None, &whole).unwrap();
    worker.start().unwrap();
    assert_eq!(status(Arbiter::new(&context, &of(&one, focus), None)), GMB_ERROR_BUSY);
    worker.stop();
    worker.wait(Some(LIMIT)).unwrap();
    assert_eq!(status(Arbiter::new(&context, &of(&one, focus), None)), GMB_OK);
}

/// It leaves when it is asked to, and others go on beside it.
#[test]
fn made_and_ended() {
    let _budget = some_of_the_budget();
    let context = context();
    let mailboxes = boxes(&context, 33, MailboxOptions::default());
    for n in 0..20 {
        let slice = [None, Some(Duration::from_micros(300)), Some(Duration::ZERO)][n % 3];
        let arbiter = Arbiter::new(&context, &of(&mailboxes, |_| Class::Focus), slice).unwrap();
        if n % 2 == 0 {
            until(
                || "it comes",
                || arbiter.info().unwrap().heartbeat != 0 || arbiter.info().unwrap().slices > 0,
            );
            put(&mailboxes[32]);
            until(|| "it says so", || says(&header(&context, &arbiter), 32));
            assert_eq!(take(&mailboxes[32], 0), 1);
        }
    }
}
