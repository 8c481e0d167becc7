//! Tensors beside work behind a gate: who waits for whom.

use super::super::support::*;
use gpumailbox::*;

/// A consumer's later work comes after what the producer's stream held at the push, on every stream that it names.
#[test]
fn readers_wait_for_the_producer() {
    let context = context();
    let [producer, consumer, second, after] = streams(&context);
    let memory = poisoned(&context, 64, 1);
    let (seen, again) = (poisoned(&context, 64, POISON), poisoned(&context, 64, POISON));
    let mailbox = tensors(&context, 4, FullPolicy::Reject);
    let ended = Ended::default();
    let gate = Gate::close(&context, producer.get());
    unsafe { context.fill(memory.address(), 5, 64, producer.get()) }.unwrap();
    mailbox.push(counted(memory.address(), 64, &ended), 0, producer.get(), None).unwrap();
    // What comes later on that stream is not waited for.
    let later = Gate::close(&context, after.get());
    let event = context.event(EventKind::Untimed).unwrap();
    event.record(after.get()).unwrap();
    event.make_wait(producer.get()).unwrap();

    let lease = mailbox.pop(consumer.get()).unwrap().unwrap();
    lease.use_on(second.get()).unwrap();
    for (stream, to) in [(&consumer, &seen), (&second, &again)] {
        unsafe { context.copy(to.address(), memory.address(), 64, stream.get()) }.unwrap();
    }
    let marks = [&consumer, &second].map(|stream| {
        let event = context.event(EventKind::Untimed).unwrap();
        event.record(stream.get()).unwrap();
        event
    });
    stays_out("a reader did not wait", || marks.iter().any(|mark| mark.is_reached().unwrap()));
    gate.open();
    marks.iter().for_each(|mark| mark.synchronize(None).unwrap());
    drop(lease);
    given_back(&mailbox, 1);
    later.open();
    context.synchronize(producer.get()).unwrap();
    for to in [&seen, &again] {
        assert_eq!(download(&context, to.address(), 64), [5; 64]);
    }
}

/// The memory stays until the work of each stream that was named is done.
#[test]
fn the_end_waits_for_every_stream() {
    let context = context();
    let [producer, first, second] = streams(&context);
    let memory = poisoned(&context, 64, 1);
    let mailbox = tensors(&context, 4, FullPolicy::Reject);
    for which in 0..3 {
        let ended = Ended::default();
        mailbox.push(counted(memory.address(), 64, &ended), 0, producer.get(), None).unwrap();
        let lease = mailbox.pop(first.get()).unwrap().unwrap();
        lease.use_on(second.get()).unwrap();
        let late = [&first, &second, &first][which];
        let gate = Gate::close(&context, late.get());
        if which == 2 {
            // By the other end of a lease.
            let exported = lease.to_dlpack();
            drop(lease);
            unsafe { (*exported).deleter.unwrap()(exported) };
        } else {
            drop(lease);
        }
        stays_out("it was given back under a reader", || ended.count() > 0);
        assert_eq!(mailbox.info().retiring, 1);
        gate.open();
        given_back(&mailbox, which as u64 + 1);
        assert_eq!(ended.count(), 1);
    }
}

/// What nobody reads waits for its producer: its work may still write there.
#[test]
fn what_is_dropped_waits_for_its_producer() {
    let context = context();
    let producer = context.stream().unwrap();
    let memory = poisoned(&context, 64, 1);
    let gate = Gate::close(&context, producer.get());
    let ended = Ended::default();
    let push = |mailbox: &TensorMailbox| {
        mailbox.push(counted(memory.address(), 64, &ended), 0, producer.get(), None)
    };
    let over = tensors(&context, 1, FullPolicy::OverwriteOldest);
    let full = tensors(&context, 1, FullPolicy::Reject);
    for _ in 0..2 {
        push(&over).unwrap();
    }
    push(&full).unwrap();
    let refused = push(&full).unwrap_err();
    full.discard(refused, producer.get()).unwrap();
    drop(full);
    stays_out("it was given back while its producer may write", || ended.count() > 0);
    assert_eq!(over.info().retiring, 1);
    gate.open();
    given_back(&over, 1);
    drop(over);
    ended.reach(4);
}

/// A line of tensors behind one that is late comes back when it may, and not before.
#[test]
fn a_line_comes_back_in_parts() {
    let context = context();
    let [producer, consumer] = streams(&context);
    let memory = poisoned(&context, 64, 1);
    let mailbox = tensors(&context, 64, FullPolicy::Reject);
    let ended = Ended::default();
    let hand_over = |count| {
        for tag in 0..count {
            mailbox.push(counted(memory.address(), 64, &ended), tag, producer.get(), None).unwrap();
            drop(mailbox.pop(consumer.get()).unwrap().unwrap());
        }
    };
    let mut gates = Vec::new();
    for part in 0..5 {
        hand_over(10 + part);
        gates.push(Gate::close(&context, consumer.get()));
    }
    hand_over(7);
    let mut expected = 0;
    for (part, gate) in gates.into_iter().enumerate() {
        expected += 10 + part as u64;
        given_back(&mailbox, expected);
        assert_eq!(ended.count(), expected, "more came back than was read");
        gate.open();
    }
    given_back(&mailbox, expected + 7);
}

/// A device consumer's stream that has the view keeps everything, also when the mailbox is gone.
#[test]
fn a_device_consumer_keeps_ring_and_tensors() {
    let context = context();
    let [producer, consumer] = streams(&context);
    let memory = poisoned(&context, 64, 1);
    let options = TensorMailboxOptions { capacity: 4, consumer: Consumer::Device, ..Default::default() };
    let mailbox = TensorMailbox::new(&context, &options).unwrap();
    mailbox.view(consumer.get()).unwrap();
    let ended = Ended::default();
    mailbox.push(counted(memory.address(), 64, &ended), 0, producer.get(), None).unwrap();
    context.synchronize(producer.get()).unwrap();
    let allocations = context.memory_info().unwrap().allocations;
    let gate = Gate::close(&context, consumer.get());
    drop(mailbox);
    stays_out("it was given back under a consumer", || ended.count() > 0);
    assert_eq!(context.memory_info().unwrap().allocations, allocations, "the ring is gone");
    gate.open();
    ended.reach(1);
    until(|| "the ring does not come back", || context.memory_info().unwrap().allocations != allocations);
}
