//! Arbiters that stay.

use std::time::Duration;

use crate::arbiters::*;
use crate::support::*;
use gpumailbox::*;

/// One that would stay for ever leaves when it is asked to, and others go on beside it.
#[test]
fn one_that_stays_for_ever_leaves() {
    let _budget = some_of_the_budget();
    let context = context();
    let mailboxes = boxes(&context, 33, MailboxOptions::default());
    // What has to be made for this may wait until the device is idle.
    put(&mailboxes[32]);
    assert_eq!(take(&mailboxes[32], 0), 1);
    for _ in 0..10 {
        let arbiter = Arbiter::new(&context, &of(&mailboxes, |_| Class::Focus), Some(Duration::MAX)).unwrap();
        until(|| "it comes", || arbiter.info().unwrap().heartbeat != 0);
        put(&mailboxes[32]);
        until(|| "it says so", || says(&header(&context, &arbiter), 32));
        assert_eq!(take(&mailboxes[32], 0), 1);
        assert_eq!(arbiter.info().unwrap().slices, 0);
    }
}
