//! When kernels that stay leave for a moment: all of a device together, or it would never be idle beside several of them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use once_cell::sync::OnceCell;

use super::residency::{place, Place};
use crate::context::Context;
use crate::sync::lock;

/// Of each device, and each moment at which kernels that are there leave: how many of them.
static THERE: Mutex<BTreeMap<(Place, u64), u32>> = Mutex::new(BTreeMap::new());
static LEFT: Condvar = Condvar::new();

/// Nanoseconds of a clock that all kernels have in common.
fn now() -> u64 {
    static BEGAN: OnceCell<Instant> = OnceCell::new();
    BEGAN.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

/// When a slice that begins now ends: slices of one length, or of multiples of it, end at the same moments. One that would be very
/// short takes the next one, too.
fn end_of(now: u64, slice: u64) -> u64 {
    let next = (now / slice + 1).saturating_mul(slice);
    if next - now < slice / 8 {
        next.saturating_add(slice)
    } else {
        next
    }
}

/// The slices of one kernel.
pub(crate) struct Slices {
    place: Place,
    slice: Duration,
    /// When the last one was to end.
    last: AtomicU64,
}

impl Slices {
    pub(crate) fn new(context: &Context, slice: Duration) -> Self {
        Self { place: place(context), slice, last: AtomicU64::new(0) }
    }

    /// Begins one, once those that were to leave together with it have left: they are waited for, but not for long.
    pub(crate) fn begin(&self) -> Slice<'_> {
        self.begin_by(now)
    }

    fn begin_by(&self, now: impl Fn() -> u64) -> Slice<'_> {
        let nanoseconds = u64::try_from(self.slice.as_nanos()).unwrap_or(u64::MAX);
        if nanoseconds == 0 || nanoseconds == u64::MAX {
            return Slice { of: self, end: None, length: self.slice };
        }
        let before = (self.place, self.last.load(Ordering::Relaxed));
        // Who has left sooner, for whatever reason, joins them again.
        let together = now() >= before.1;
        let limit = Instant::now() + self.slice / 8;
        let mut there = lock(&THERE);
        while together && there.contains_key(&before) {
            let left = limit.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            there = LEFT.wait_timeout(there, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let now = now();
        let end = end_of(now, nanoseconds);
        *there.entry((self.place, end)).or_default() += 1;
        Slice { of: self, end: Some(end), length: Duration::from_nanos(end - now) }
    }
}

/// A kernel that is there; dropped once it has left.
pub(crate) struct Slice<'a> {
    of: &'a Slices,
    end: Option<u64>,
    /// How long it shall stay.
    pub(crate) length: Duration,
}

impl Drop for Slice<'_> {
    fn drop(&mut self) {
        let Some(end) = self.end else { return };
        self.of.last.store(end, Ordering::Relaxed);
        let mut there = lock(&THERE);
        if let Some(count) = there.get_mut(&(self.of.place, end)) {
            *count -= 1;
            if *count == 0 {
                there.remove(&(self.of.place, end));
                LEFT.notify_all();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    fn slices(place: u64, slice: Duration) -> Slices {
        Slices { place: (false, place), slice, last: AtomicU64::new(0) }
    }

    #[test]
    fn slices_end_together() {
        for (now, slice, end) in [
            (0, 100, 100),
            (30, 100, 100),
            (87, 100, 100),
            // Too short to be worth it.
            (89, 100, 200),
            (100, 100, 200),
            (460, 50, 500),
            (460, 250, 500),
            (7, 1, 8),
            (u64::MAX - 1, u64::MAX / 2, u64::MAX),
        ] {
            assert_eq!(end_of(now, slice), end, "{now} {slice}");
        }
    }

    #[test]
    fn a_kernel_comes_again_when_those_that_leave_with_it_have_left() {
        const DAY: u64 = 86_400_000_000_000;
        let (at, slice) = (AtomicU64::new(5), Duration::from_nanos(DAY));
        let clock = || at.load(Ordering::Acquire);
        let (one, other, elsewhere) = (slices(1, slice), slices(1, slice), slices(2, slice));
        let (mine, its, theirs) = (one.begin_by(clock), other.begin_by(clock), elsewhere.begin_by(clock));
        assert_eq!((mine.end, mine.length), (Some(DAY), Duration::from_nanos(DAY - 5)));
        assert_eq!(its.end, mine.end);
        // Before its time nobody is waited for.
        drop(mine);
        let mine = one.begin_by(clock);
        assert_eq!(mine.end, Some(DAY));
        drop(mine);
        at.store(DAY, Ordering::Release);
        let left = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let again = scope.spawn(|| {
                let mine = one.begin_by(clock);
                assert!(left.load(Ordering::Acquire), "it came while the other was there");
                assert_eq!(mine.end, Some(2 * DAY));
            });
            // What must not happen can only be given time.
            let began = Instant::now();
            while began.elapsed() < Duration::from_millis(100) && !again.is_finished() {
                std::thread::yield_now();
            }
            left.store(true, Ordering::Release);
            drop(its);
        });
        drop(theirs);
    }

    #[test]
    fn nobody_waits_for_long() {
        let slice = Duration::from_secs(1);
        let (one, other) = (slices(3, slice), slices(3, slice));
        let (mine, _stuck) = (one.begin_by(|| 0), other.begin_by(|| 0));
        drop(mine);
        assert_eq!(one.begin_by(|| 1_000_000_000).end, Some(2_000_000_000));
        // Those without an end, or without a length, are none of these.
        for slice in [Duration::ZERO, Duration::MAX] {
            let slices = slices(3, slice);
            let stays = slices.begin();
            assert_eq!((stays.end, stays.length), (None, slice));
        }
    }
}
