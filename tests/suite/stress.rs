//! Everything at once: sixteen threads with eight streams each push, pop, guard, make and
//! destroy at random. Nothing is lost, nothing leaks, nothing hangs.

use super::support::*;
use gpumailbox::*;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const THREADS: u64 = 16;
const STREAMS: usize = 8;
const MOST: u64 = 24;
const READERS: u32 = 2;

/// `GMB_STRESS_SECONDS`, or one second.
fn seconds() -> Duration {
    let told = std::env::var("GMB_STRESS_SECONDS").ok().and_then(|s| s.parse().ok());
    Duration::from_secs_f64(told.unwrap_or(1.0))
}

/// A mailbox and what went in and came out of it, as sums that no order changes.
struct Channel {
    mailbox: Mailbox,
    loses: bool,
    pushed: AtomicU64,
    sum_in: AtomicU64,
    popped: [AtomicU64; READERS as usize],
    sum_out: [AtomicU64; READERS as usize],
}

impl Channel {
    fn new(context: &Context, full_policy: FullPolicy, arbitration: Arbitration) -> Self {
        let options = MailboxOptions {
            capacity: 64,
            payload_bytes: 16,
            full_policy,
            arbitration,
            readers: READERS,
            ..Default::default()
        };
        Self {
            mailbox: Mailbox::new(context, &options).unwrap(),
            loses: matches!(full_policy, FullPolicy::OverwriteOldest | FullPolicy::Latest),
            pushed: AtomicU64::new(0),
            sum_in: AtomicU64::new(0),
            popped: Default::default(),
            sum_out: Default::default(),
        }
    }

    fn note_pop(&self, reader: usize, result: &gmb_result, values: impl Iterator<Item = u64>) {
        assert_eq!(result.status, GMB_OK);
        assert!(self.loses || result.lost == 0);
        self.popped[reader].fetch_add(u64::from(result.count) + result.lost, Ordering::Relaxed);
        self.sum_out[reader].fetch_add(values.fold(0, u64::wrapping_add), Ordering::Relaxed);
    }
}

/// What a stream's last operation was, to be accounted for when it has reported.
enum Last {
    Nothing,
    Push { channel: usize },
    Pop { channel: usize, reader: u32 },
}

struct Slot<'a> {
    context: &'a Context,
    stream: OwnedStream,
    token: Token,
    rows: PinnedBuffer,
    last: Last,
}

impl<'a> Slot<'a> {
    fn new(context: &'a Context) -> Self {
        Self {
            context,
            stream: context.stream().unwrap(),
            token: Token::new(context).unwrap(),
            rows: context.pinned_buffer(MOST as usize * 16).unwrap(),
            last: Last::Nothing,
        }
    }

    fn values(&mut self) -> &mut [[u64; 2]] {
        unsafe { std::slice::from_raw_parts_mut(self.rows.address() as *mut [u64; 2], MOST as usize) }
    }

    /// Waits for the last operation and puts it on the account.
    fn settle(&mut self, channels: &[Channel]) {
        let last = std::mem::replace(&mut self.last, Last::Nothing);
        if matches!(last, Last::Nothing) {
            return;
        }
        let result = self.token.wait(After::Submission, Some(Duration::from_secs(100))).unwrap();
        let values = self.values().iter().take(result.count as usize).map(|row| row[0]);
        match last {
            Last::Push { channel } => {
                assert_eq!(result.status, GMB_OK);
                channels[channel].pushed.fetch_add(u64::from(result.count), Ordering::Relaxed);
                channels[channel].sum_in.fetch_add(values.fold(0, u64::wrapping_add), Ordering::Relaxed);
            }
            Last::Pop { channel, reader } => channels[channel].note_pop(reader as usize, &result, values),
            Last::Nothing => {}
        }
    }

    fn push(&mut self, channels: &[Channel], channel: usize, random: &mut Random) {
        let count = random.between(1, MOST);
        for row in &mut self.values()[..count as usize] {
            *row = [random.next() | 1, 0];
        }
        let push = Push {
            count: count as u32,
            records: self.rows.address(),
            length: 16,
            timeout: Some(Duration::from_micros(random.between(0, 300))),
            ..Default::default()
        };
        let guarded = random.between(0, 3) == 0;
        let _guard = guarded.then(|| self.context.guard(self.stream.get()).unwrap());
        let stream = if guarded { Stream::CURRENT } else { self.stream.get() };
        match unsafe { channels[channel].mailbox.push(&push, stream, Some(&self.token)) } {
            Ok(()) => self.last = Last::Push { channel },
            Err(error) => assert_eq!(error.status(), GMB_ERROR_TIMEOUT, "{error}"),
        }
    }

    fn pop(&mut self, channels: &[Channel], channel: usize, random: &mut Random) {
        let reader = random.between(0, u64::from(READERS) - 1) as u32;
        let max = random.between(1, MOST) as u32;
        let pop = Pop { max, records: self.rows.address(), reader, ..Default::default() };
        let guarded = random.between(0, 3) == 0;
        let _guard = guarded.then(|| self.context.guard(self.stream.get()).unwrap());
        let stream = if guarded { Stream::CURRENT } else { self.stream.get() };
        unsafe { channels[channel].mailbox.pop(&pop, stream, Some(&self.token)) }.unwrap();
        self.last = Last::Pop { channel, reader };
    }
}

/// Makes, uses and destroys what the slots do not: streams, events, memory, mailboxes, readers.
fn housekeeping(context: &Context, slots: &mut [Slot<'_>], changing: &Mailbox, random: &mut Random) {
    let from = random.between(0, STREAMS as u64 - 1) as usize;
    let to = random.between(0, STREAMS as u64 - 1) as usize;
    let (from_stream, to_stream) = (slots[from].stream.get(), slots[to].stream.get());
    match random.between(0, 5) {
        0 => {
            // The stream's work goes on without it.
            slots[from].stream = context.stream_of(Priority::Focus).unwrap();
        }
        1 => {
            let event = context.event(EventKind::Untimed).unwrap();
            event.record(from_stream).unwrap();
            event.make_wait(to_stream).unwrap();
            let _ = event.is_reached().unwrap();
        }
        2 => {
            let bytes = random.between(1, 1 << 16) as usize;
            let memory = context.device_buffer_on(bytes, from_stream).unwrap();
            unsafe { context.fill(memory.address(), 1, bytes, from_stream) }.unwrap();
            unsafe { memory.free_on(from_stream) }.unwrap();
        }
        3 => {
            let mailbox = mailbox(context, 4, 8);
            let token = Token::new(context).unwrap();
            let push = Push { count: 3, ..Default::default() };
            unsafe { mailbox.push(&push, from_stream, Some(&token)) }.unwrap();
            // Both go while the push may be under way.
        }
        4 => {
            let (start, end) =
                (context.event(EventKind::Timed).unwrap(), context.event(EventKind::Timed).unwrap());
            start.record(from_stream).unwrap();
            end.record(from_stream).unwrap();
            let _ = start.elapsed_ms(&end).unwrap();
        }
        _ => match changing.add_reader(ReaderStart::Oldest, from_stream) {
            Ok(reader) => {
                let push = Push { count: 2, ..Default::default() };
                unsafe { changing.push(&push, to_stream, None) }.unwrap();
                changing.remove_reader(reader, to_stream).unwrap();
            }
            Err(error) => assert_eq!(error.status(), GMB_ERROR_OVERFLOW),
        },
    }
}

#[test]
fn sixteen_threads_with_eight_streams_each() {
    let context = context();
    let mut random = Random::new();
    let channels = [
        Channel::new(&context, FullPolicy::Reject, Arbitration::Cpu),
        Channel::new(&context, FullPolicy::Reject, Arbitration::Device),
        Channel::new(&context, FullPolicy::Wait, Arbitration::Cpu),
        Channel::new(&context, FullPolicy::OverwriteOldest, Arbitration::Device),
        Channel::new(&context, FullPolicy::Latest, Arbitration::Cpu),
    ];
    let kinds = [EventKind::Untimed, EventKind::Timed];
    let held = || kinds.map(|kind| context.event_pool(kind).in_use);
    let baseline = (held(), context.memory_info().unwrap().used, context.memory_info().unwrap().allocations);
    let changing = mailbox(&context, 16, 8);
    let end = Instant::now() + seconds();
    let operations = AtomicU64::new(0);
    let seeds: Vec<Random> = (0..THREADS).map(|_| random.split()).collect();
    std::thread::scope(|scope| {
        for mut random in seeds {
            let (context, channels, changing, operations) = (&context, &channels, &changing, &operations);
            scope.spawn(move || {
                let mut slots: Vec<Slot> = (0..STREAMS).map(|_| Slot::new(context)).collect();
                while Instant::now() < end {
                    if random.between(0, 15) == 0 {
                        housekeeping(context, &mut slots, changing, &mut random);
                    }
                    let slot = &mut slots[random.between(0, STREAMS as u64 - 1) as usize];
                    slot.settle(channels);
                    let channel = random.between(0, channels.len() as u64 - 1) as usize;
                    if random.between(0, 2) == 0 {
                        slot.push(channels, channel, &mut random);
                    } else {
                        slot.pop(channels, channel, &mut random);
                    }
                    operations.fetch_add(1, Ordering::Relaxed);
                }
                slots.iter_mut().for_each(|slot| slot.settle(channels));
            });
        }
    });
    // What is left comes out, and the accounts agree.
    let mut slot = Slot::new(&context);
    for (number, channel) in channels.iter().enumerate() {
        for reader in 0..READERS {
            loop {
                let pop =
                    Pop { max: MOST as u32, records: slot.rows.address(), reader, ..Default::default() };
                unsafe { channel.mailbox.pop(&pop, slot.stream.get(), Some(&slot.token)) }.unwrap();
                let result = slot.token.wait(After::Submission, None).unwrap();
                let values = slot.values().iter().take(result.count as usize).map(|row| row[0]);
                channel.note_pop(reader as usize, &result, values);
                if result.count == 0 {
                    break;
                }
            }
            let load = |n: &AtomicU64| n.load(Ordering::Relaxed);
            let r = reader as usize;
            assert_eq!(load(&channel.popped[r]), load(&channel.pushed), "channel {number}, reader {reader}");
            if !channel.loses {
                assert_eq!(
                    load(&channel.sum_out[r]),
                    load(&channel.sum_in),
                    "channel {number}: other records"
                );
            }
        }
        assert_eq!(channel.mailbox.info().unwrap().published, channel.pushed.load(Ordering::Relaxed));
    }
    drop((slot, changing));
    // Without pools, what was freed in stream order may still wait for its event.
    while held() != baseline.0 && !context.memory_info().unwrap().pooled {
        context.trim_memory(0).unwrap();
    }
    let info = context.memory_info().unwrap();
    assert_eq!((held(), info.used, info.allocations), baseline, "pools did not return to their baseline");
    let pool = context.event_pool(EventKind::Untimed);
    println!("{} operations; {pool:?}; {info:?}", operations.load(Ordering::Relaxed));
}
