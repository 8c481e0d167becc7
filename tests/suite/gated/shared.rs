//! Shared mailboxes: what waits for what, and what does not.

use super::super::support::*;
use gpumailbox::*;

fn shared(context: &Context, arbitration: Arbitration) -> Mailbox {
    let options = MailboxOptions {
        capacity: 16,
        payload_bytes: 16,
        mode: Mode::Shared,
        arbitration,
        ..Default::default()
    };
    Mailbox::new(context, &options).unwrap()
}

/// What is pushed on a stream that does not move on keeps nobody from pushing and popping on another.
#[test]
fn a_stream_that_waits_keeps_nobody_else() {
    let context = context();
    let [slow, stream] = streams(&context);
    let mailbox = shared(&context, Arbitration::Device);
    let (rows, token, late) =
        (poisoned(&context, 16 * 16, 3), Token::new(&context).unwrap(), Token::new(&context).unwrap());
    let outlet = Outlet::new(&context, &mailbox, 16);
    let gate = Gate::close(&context, slow.get());
    unsafe { mailbox.push(&push_of(&rows, 5), slow.get(), Some(&late)) }.unwrap();
    for _ in 0..3 {
        assert_eq!(push_and_wait(&mailbox, &push_of(&rows, 16), stream.get(), &token).count, 16);
        assert_eq!(pop_and_wait(&mailbox, &outlet.pop, stream.get(), &token).count, 16);
    }
    assert_eq!(late.poll().unwrap(), None);
    gate.open();
    assert_eq!(late.wait(After::Submission, None).unwrap().count, 5);
    assert_eq!(pop_and_wait(&mailbox, &outlet.pop, stream.get(), &token).count, 5);
}

/// Arbitrated by the CPU, a pop waits for the pushes before it, and a push for the pops; not for those of its own side.
#[test]
fn one_side_waits_for_the_other_and_not_for_itself() {
    let context = context();
    let [slow, stream, third] = streams(&context);
    let mailbox = shared(&context, Arbitration::Cpu);
    let rows = poisoned(&context, 16 * 16, 3);
    let [pushed, beside, popped] = tokens(&context);
    let outlet = Outlet::new(&context, &mailbox, 16);
    let gate = Gate::close(&context, slow.get());
    unsafe {
        mailbox.push(&push_of(&rows, 5), slow.get(), Some(&pushed)).unwrap();
        mailbox.push(&push_of(&rows, 3), stream.get(), Some(&beside)).unwrap();
    }
    assert_eq!(beside.wait(After::Submission, Some(LIMIT)).unwrap().count, 3);
    unsafe { mailbox.pop(&outlet.pop, stream.get(), Some(&popped)) }.unwrap();
    does_not_come(&popped, "the pop came before a push before it");
    gate.open();
    assert_eq!(popped.wait(After::Submission, Some(LIMIT)).unwrap().count, 8);
    let gate = Gate::close(&context, slow.get());
    unsafe {
        mailbox.pop(&outlet.pop, slow.get(), None).unwrap();
        mailbox.push(&push_of(&rows, 2), third.get(), Some(&beside)).unwrap();
    }
    does_not_come(&beside, "the push came before a pop before it");
    gate.open();
    assert_eq!(beside.wait(After::Submission, Some(LIMIT)).unwrap().count, 2);
}

/// A borrow is released after it was taken, and its place is taken again after that, whatever the streams.
#[test]
fn a_borrow_and_its_release_keep_their_order() {
    let context = context();
    let [slow, stream, third] = streams(&context);
    let mailbox = shared(&context, Arbitration::Device);
    let rows = poisoned(&context, 16 * 16, 3);
    let token = Token::new(&context).unwrap();
    assert_eq!(push_and_wait(&mailbox, &push_of(&rows, 16), stream.get(), &token).count, 16);
    let taken = mailbox.borrow(0, 9, stream.get()).unwrap();
    assert_eq!(taken.wait(Some(LIMIT)).unwrap().0.count, 9);
    let gate = Gate::close(&context, slow.get());
    let late = mailbox.borrow(0, 4, slow.get()).unwrap();
    late.release(stream.get()).unwrap();
    taken.release(slow.get()).unwrap();
    let again = mailbox.borrow(0, 16, third.get()).unwrap();
    stays_out("what is borrowed is free", || {
        mailbox.wait_writable(1, Some(std::time::Duration::ZERO)).is_ok()
    });
    gate.open();
    assert_eq!(again.wait(Some(LIMIT)).unwrap().0.count, 3);
    assert_eq!(mailbox.wait_writable(13, Some(LIMIT)).unwrap(), 13);
    again.release(third.get()).unwrap();
    assert_eq!(mailbox.wait_writable(16, Some(LIMIT)).unwrap(), 16);
}
