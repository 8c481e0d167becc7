//! What waiting costs: the time that a thread was on a core, as a part of the time that it waited. A loaded machine makes
//! that less, never more.

use std::time::{Duration, Instant};

use super::support::*;
use gpumailbox::*;

/// Long enough that the spins at the beginning are little of it.
const WHILE: Option<Duration> = Some(Duration::from_millis(1500));

/// Percent of a core that this thread takes within `wait`.
fn percent(wait: impl FnOnce()) -> f64 {
    let used = || {
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut now) }, 0);
        now.tv_sec as f64 + now.tv_nsec as f64 * 1e-9
    };
    let (began, before) = (Instant::now(), used());
    wait();
    (used() - before) / began.elapsed().as_secs_f64() * 100.0
}

fn check(what: &str, wait: impl FnOnce()) {
    let cost = percent(wait);
    println!("{what}: {cost:.2} % of a core");
    assert!(cost < 5.0, "{what}: {cost:.1} % of a core");
}

#[test]
fn who_waits_for_an_answer() {
    let context = context();
    let doorbell = Doorbell::new(&context, 4).unwrap();
    let id = doorbell.submit(&gmb_command::default(), None).unwrap();
    check("an answer", || {
        assert_eq!(doorbell.wait(id, WHILE).unwrap_err().status(), GMB_ERROR_TIMEOUT);
    });
}

/// However many there are that nobody serves, and whoever wants their answers.
#[test]
fn who_waits_for_room_in_a_doorbell() {
    let context = context();
    for (capacity, wanted) in [(65_536, 0), (65_536, 1), (65_536, 65_536), (1, 1)] {
        let doorbell = Doorbell::new(&context, capacity).unwrap();
        for n in 0..capacity {
            match n < wanted {
                true => drop(doorbell.submit(&gmb_command::default(), None).unwrap()),
                false => doorbell.post(&gmb_command::default(), None).unwrap(),
            }
        }
        check("room in a doorbell", || {
            assert_eq!(doorbell.post(&gmb_command::default(), WHILE).unwrap_err().status(), GMB_ERROR_FULL);
        });
    }
}

#[test]
fn who_waits_for_a_record() {
    let context = context();
    let fifo = Fifo::new(&context, 64).unwrap();
    check("a record", || {
        assert_eq!(fifo.pop(&mut [gmb_fifo_record::default()], WHILE).unwrap(), 0);
    });
}
