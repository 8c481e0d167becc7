//! Waiting until records or room are there, by a thread and by a file descriptor.

use super::support::*;
use gpumailbox::capi::readiness::*;
use gpumailbox::*;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

const FOREVER: i32 = 20_000;

/// Whether the descriptor becomes readable within so many milliseconds.
fn polls(descriptor: BorrowedFd, milliseconds: i32) -> bool {
    let mut waiting = libc::pollfd { fd: descriptor.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let found = unsafe { libc::poll(&mut waiting, 1, milliseconds) };
    assert!(found >= 0);
    found == 1 && waiting.revents & libc::POLLIN != 0
}

#[test]
fn what_is_ready_follows_pushes_and_pops() {
    let bed = Bed::new();
    let options = MailboxOptions {
        capacity: 8,
        payload_bytes: 16,
        readers: 2,
        initial_index: u64::MAX - 3,
        ..Default::default()
    };
    let mailbox = Mailbox::new(&bed.context, &options).unwrap();
    let timed_out = |result: Result<u64>| assert_eq!(result.unwrap_err().status(), GMB_ERROR_TIMEOUT);
    let now = Some(Duration::ZERO);
    timed_out(mailbox.wait_readable(0, 1, now));
    assert_eq!(mailbox.wait_writable(8, now).unwrap(), 8);
    bed.push(&mailbox, 5);
    assert_eq!(mailbox.wait_readable(0, 5, None).unwrap(), 5);
    timed_out(mailbox.wait_readable(1, 6, Some(Duration::from_millis(2))));
    bed.finish();
    assert_eq!(mailbox.wait_writable(3, now).unwrap(), 3);
    timed_out(mailbox.wait_writable(4, now));
    // Room is what the slowest reader leaves.
    bed.pop(&mailbox, 0, 5);
    bed.finish();
    timed_out(mailbox.wait_readable(0, 1, now));
    timed_out(mailbox.wait_writable(4, now));
    bed.pop(&mailbox, 1, 2);
    assert_eq!(mailbox.wait_writable(5, None).unwrap(), 5);
    assert_eq!(mailbox.wait_readable(1, 3, now).unwrap(), 3);
    for policy in [FullPolicy::OverwriteOldest, FullPolicy::Latest] {
        let mailbox = with_policy(&bed.context, policy, 8, 16);
        bed.push(&mailbox, 60);
        bed.finish();
        assert_eq!(mailbox.wait_writable(8, now).unwrap(), 8);
        assert_eq!(mailbox.wait_readable(0, 8, now).unwrap(), 8);
    }
    for (count, status) in [(0, GMB_ERROR_ZERO_COUNT), (9, GMB_ERROR_INVALID_ARGUMENT)] {
        assert_eq!(mailbox.wait_readable(0, count, None).unwrap_err().status(), status);
        assert_eq!(mailbox.wait_writable(count, None).unwrap_err().status(), status);
    }
    for reader in [2, 16, u32::MAX] {
        let error = mailbox.wait_readable(reader, 1, None).unwrap_err();
        assert_eq!(error.status(), GMB_ERROR_INVALID_ARGUMENT);
        assert!(mailbox.watch(Interest::Readable { reader }).is_err());
    }
}

/// A producer and a consumer that push and pop only what is ready never meet a full or an empty mailbox.
#[test]
fn whoever_waits_first_is_never_refused() {
    let bed = Bed::new();
    let mailbox = mailbox(&bed.context, 16, 16);
    let other = Bed {
        context: bed.context.clone(),
        stream: bed.context.stream().unwrap(),
        rows: poisoned(&bed.context, 16 * 64, 3),
    };
    const ROUNDS: u32 = 2000;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = Random::new();
            for _ in 0..ROUNDS {
                let count = random.between(1, 16) as u32;
                assert!(
                    mailbox.wait_writable(count, Some(Duration::from_secs(20))).unwrap() >= u64::from(count)
                );
                bed.push(&mailbox, count);
                // The rest, so that a round has 16 records.
                if count < 16 {
                    mailbox.wait_writable(16 - count, Some(Duration::from_secs(20))).unwrap();
                    bed.push(&mailbox, 16 - count);
                }
            }
        });
        for _ in 0..2 * ROUNDS {
            mailbox.wait_readable(0, 8, Some(Duration::from_secs(20))).unwrap();
            other.pop(&mailbox, 0, 8);
            other.finish();
        }
    });
    let info = mailbox.info().unwrap();
    let all = u64::from(ROUNDS) * 16;
    assert_eq!((info.published, info.released, info.rejected, info.empty_pops), (all, all, 0, 0));
}

#[test]
fn a_descriptor_is_readable_once_for_each_arming() {
    let bed = Bed::new();
    let mailbox = mailbox(&bed.context, 8, 16);
    let readable = mailbox.watch(Interest::Readable { reader: 0 }).unwrap();
    let writable = mailbox.watch(Interest::Writable).unwrap();
    let patience = PATIENCE.as_millis() as i32 / 4;
    assert!(!polls(readable.as_fd(), 0), "nothing was armed");
    bed.push(&mailbox, 2);
    bed.finish();
    assert!(!polls(readable.as_fd(), patience), "nothing was armed");
    // What is there is told at once.
    readable.arm(2).unwrap();
    assert!(polls(readable.as_fd(), 0));
    readable.arm(3).unwrap();
    assert!(!polls(readable.as_fd(), patience), "two are not three");
    bed.push(&mailbox, 1);
    assert!(polls(readable.as_fd(), FOREVER));
    // Read, it is quiet until it is armed again.
    let mut value = 0u64;
    let read = unsafe { libc::read(readable.as_fd().as_raw_fd(), (&raw mut value).cast(), 8) };
    assert_eq!((read, value), (8, 1));
    assert!(!polls(readable.as_fd(), patience));
    // Armed twice, it counts once, with the newer count.
    writable.arm(8).unwrap();
    writable.arm(6).unwrap();
    assert!(!polls(writable.as_fd(), patience));
    bed.pop(&mailbox, 0, 1);
    assert!(polls(writable.as_fd(), FOREVER));
    writable.arm(8).unwrap();
    assert!(!polls(writable.as_fd(), patience), "what was wanted before is taken back");
    bed.pop(&mailbox, 0, 2);
    assert!(polls(writable.as_fd(), FOREVER));
    assert_eq!(readable.arm(0).unwrap_err().status(), GMB_ERROR_ZERO_COUNT);
    assert_eq!(readable.arm(9).unwrap_err().status(), GMB_ERROR_INVALID_ARGUMENT);
}

/// Many watches of many mailboxes, armed from many threads: each wakes for its own.
#[test]
fn many_watches_wake_for_their_own() {
    let bed = Bed::new();
    let boxes: Vec<Mailbox> = (0..8).map(|_| mailbox(&bed.context, 8, 16)).collect();
    std::thread::scope(|scope| {
        for mailbox in &boxes {
            let bed = &bed;
            scope.spawn(move || {
                let stream = bed.context.stream().unwrap();
                let rows = poisoned(&bed.context, 16 * 8, 1);
                let watch = mailbox.watch(Interest::Readable { reader: 0 }).unwrap();
                let token = Token::new(&bed.context).unwrap();
                for _ in 0..50 {
                    watch.arm(3).unwrap();
                    bed.push(mailbox, 3);
                    assert!(polls(watch.as_fd(), FOREVER));
                    let pop = Pop { max: 8, records: rows.address(), ..Default::default() };
                    assert_eq!(pop_and_wait(mailbox, &pop, stream.get(), &token).count, 3);
                }
            });
        }
    });
}

/// Whoever waits for a mailbox that ends is woken; a watch does not keep it.
#[test]
fn the_end_of_a_mailbox_wakes_everybody() {
    let bed = Bed::new();
    let before = bed.context.memory_info().unwrap().used;
    let mailbox = mailbox(&bed.context, 8, 16);
    let watch = mailbox.watch(Interest::Readable { reader: 0 }).unwrap();
    watch.arm(1).unwrap();
    let descriptor = watch.try_clone_fd().unwrap();
    drop(mailbox);
    assert!(polls(descriptor.as_fd(), FOREVER));
    assert_eq!(watch.arm(1).unwrap_err().status(), GMB_ERROR_INVALID_HANDLE);
    until(|| "the mailbox is still there", || bed.context.memory_info().unwrap().used == before);
    // And the other way round: an armed watch goes, its descriptor stays quiet, also if somebody looks just then.
    let mailbox = super::support::mailbox(&bed.context, 8, 16);
    let mut descriptors = Vec::new();
    for round in 0..300 {
        let watch = mailbox.watch(Interest::Readable { reader: 0 }).unwrap();
        watch.arm(1).unwrap();
        descriptors.push(watch.try_clone_fd().unwrap());
        for _ in 0..round % 50 {
            std::thread::yield_now();
        }
        drop(watch);
        bed.push(&mailbox, 1);
        bed.finish();
        bed.pop(&mailbox, 0, 1);
        bed.finish();
    }
    bed.push(&mailbox, 1);
    bed.finish();
    for descriptor in &descriptors {
        assert!(!polls(descriptor.as_fd(), 0));
    }
    let last = descriptors.last().unwrap();
    assert!(!polls(last.as_fd(), PATIENCE.as_millis() as i32 / 4));
}

/// The caller's descriptor is his own: what he does with it, closing it included, leaves the watch as it is.
#[test]
fn a_descriptor_closed_by_its_owner_hurts_nobody() {
    use gpumailbox::capi::context::*;
    use gpumailbox::capi::mailbox::*;
    let context = c_context(0);
    let mailbox = c_mailbox(context, &c_options(8, GMB_FULL_REJECT));
    let mut watch = gmb_watch { id: 0 };
    for (interest, reader) in [(-1, 0), (2, 0), (GMB_INTEREST_READABLE, 1), (GMB_INTEREST_WRITABLE, 1)] {
        assert_eq!(gmb_watch_create(mailbox, interest, reader, &mut watch), GMB_ERROR_INVALID_ARGUMENT);
    }
    assert_eq!(watch.id, 0, "written on success only");
    assert_eq!(gmb_watch_create(mailbox, GMB_INTEREST_WRITABLE, 0, &mut watch), GMB_OK);
    let mut raw = -1;
    assert_eq!(gmb_watch_get_fd(watch, &mut raw), GMB_OK);
    drop(unsafe { OwnedFd::from_raw_fd(raw) });
    // Somebody else gets its number, and nothing is written there.
    let file = std::fs::File::open("/dev/null").unwrap();
    assert_eq!(gmb_watch_arm(watch, 1), GMB_OK);
    assert_eq!(gmb_watch_get_fd(watch, &mut raw), GMB_OK);
    let own = unsafe { OwnedFd::from_raw_fd(raw) };
    assert!(polls(own.as_fd(), FOREVER));
    drop(file);
    let mut ready = 0;
    assert_eq!(gmb_mailbox_wait_writable(mailbox, 1, 0, &mut ready), GMB_OK);
    assert_eq!(ready, 8);
    assert_eq!(gmb_mailbox_wait_readable(mailbox, 0, 1, 0, std::ptr::null_mut()), GMB_ERROR_TIMEOUT);
    assert_eq!(gmb_watch_destroy(watch), GMB_OK);
    assert_eq!(gmb_watch_arm(watch, 1), GMB_ERROR_INVALID_HANDLE);
    assert_eq!(gmb_mailbox_destroy(mailbox), GMB_OK);
    assert_eq!(gmb_context_destroy(context), GMB_OK);
}

/// Flags of a descriptor are those of all of a watch's: one that its owner makes a blocking one blocks nobody else.
#[test]
fn a_descriptor_made_blocking_blocks_nobody() {
    let bed = Bed::new();
    let mailbox = mailbox(&bed.context, 8, 16);
    let watch = mailbox.watch(Interest::Readable { reader: 0 }).unwrap();
    let own = watch.try_clone_fd().unwrap();
    assert_eq!(unsafe { libc::fcntl(own.as_raw_fd(), libc::F_SETFL, 0) }, 0);
    watch.arm(1).unwrap();
    watch.arm(1).unwrap();
    bed.push(&mailbox, 1);
    assert!(polls(own.as_fd(), FOREVER));
}

/// The watching thread sleeps while nothing is armed: it takes no time of the CPU then.
#[test]
fn nobody_watches_while_nothing_is_armed() {
    let bed = Bed::new();
    let mailbox = mailbox(&bed.context, 8, 16);
    let watch = mailbox.watch(Interest::Writable).unwrap();
    watch.arm(1).unwrap();
    let waiting = mailbox.watch(Interest::Readable { reader: 0 }).unwrap();
    waiting.arm(1).unwrap();
    bed.push(&mailbox, 1);
    assert!(polls(waiting.as_fd(), FOREVER));
    // It may still be on its way to sleep: then it is asked again.
    let is_asleep = || {
        let before = switches();
        std::thread::sleep(Duration::from_millis(50));
        switches() == before
    };
    until(|| "the watching thread goes on", is_asleep);
}

/// How often the watching threads of this process gave up the CPU.
fn switches() -> u64 {
    let mut all = 0;
    for thread in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
        let read = |file| std::fs::read_to_string(thread.path().join(file)).unwrap_or_default();
        if read("comm").trim() != "gmb-watch" {
            continue;
        }
        let status = read("status");
        all += status
            .lines()
            .filter(|line| line.contains("ctxt_switches"))
            .filter_map(|line| line.split_whitespace().last()?.parse::<u64>().ok())
            .sum::<u64>();
    }
    all
}
