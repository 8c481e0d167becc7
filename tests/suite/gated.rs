//! What happens while an operation cannot run yet: a gate holds its stream.
//! compute-sanitizer runs launches one by one and cannot run these. The driver
//! runs one host function at a time: with two gates, the first one opens first.

mod arbiters;
mod graphs;
mod memory;
mod pipelines;
mod shared;
mod tensors;
mod workers;

use super::support::*;
use gpumailbox::*;
use std::time::Duration;

/// "Zeros on pop" cannot come back: who asks at once gets *not ready*, then
/// the exact count, with the records already in the buffer.
#[test]
fn not_ready_then_the_exact_count_with_the_records_in_place() {
    let context = context();
    let mut random = Random::new();
    let mailbox = mailbox(&context, 64, 48);
    let [producer, consumer] = streams(&context);
    let token = Token::new(&context).unwrap();
    for round in 0..50 {
        let count = random.between(0, 64) as usize;
        let sent: Vec<Item> = (0..count).map(|_| Item { bytes: random.bytes(48), msg_type: round }).collect();
        let out = context.pinned_buffer(48 * 64).unwrap();
        let view = |i: usize| unsafe { std::ptr::read_volatile((out.address() + i as u64) as *const u8) };
        unsafe { std::ptr::write_bytes(out.address() as *mut u8, POISON, 48 * 64) };
        // Made before the gate: allocating may wait for the device.
        let batch = (count > 0).then(|| Batch::new(&context, &mailbox, &sent));
        let gate = Gate::close(&context, producer.get());
        if let Some(batch) = &batch {
            unsafe { mailbox.push(&batch.push, producer.get(), None) }.unwrap();
        } else {
            // Nothing is pushed: make the pop wait for the gate all the same.
            drop(gate);
            let pop = Pop { max: 64, records: out.address(), ..Default::default() };
            let result = pop_and_wait(&mailbox, &pop, consumer.get(), &token);
            assert_eq!((result.count, result.status), (0, GMB_OK));
            continue;
        }
        let pop = Pop { max: 64, records: out.address(), ..Default::default() };
        unsafe { mailbox.pop(&pop, consumer.get(), Some(&token)) }.unwrap();
        for _ in 0..100 {
            assert_eq!(token.poll().unwrap(), None, "ready behind a closed gate");
        }
        assert!((0..48 * 64).all(|i| view(i) == POISON));
        gate.open();
        let result = loop {
            // No synchronize of any kind: the result alone says that the records are there.
            if let Some(result) = token.poll().unwrap() {
                break result;
            }
            std::hint::spin_loop();
        };
        assert_eq!(result.count as usize, count);
        for (i, record) in sent.iter().enumerate() {
            let got: Vec<u8> = (0..48).map(|b| view(i * 48 + b)).collect();
            assert_eq!(got, record.bytes, "record {i} of {count}");
        }
        // The rows are freed only when nothing uses them.
        context.synchronize(consumer.get()).unwrap();
    }
}

#[test]
fn a_waiting_token_is_busy_and_times_out_without_loss() {
    let context = context();
    let mailbox = mailbox(&context, 64, 16);
    let stream = context.stream().unwrap();
    let records = poisoned(&context, 16 * 8, 3);
    let push = push_of(&records, 8);
    let token = Token::new(&context).unwrap();
    assert_eq!(token.poll().unwrap_err().status(), GMB_ERROR_INVALID_ARGUMENT);
    assert_eq!(
        token.wait(After::Submission, Some(Duration::ZERO)).unwrap_err().status(),
        GMB_ERROR_INVALID_ARGUMENT
    );
    let gate = Gate::close(&context, stream.get());
    unsafe { mailbox.push(&push, stream.get(), Some(&token)) }.unwrap();
    let busy = unsafe { mailbox.push(&push, stream.get(), Some(&token)) }.unwrap_err();
    assert_eq!(busy.status(), GMB_ERROR_BUSY);
    for limit in [Duration::ZERO, Duration::from_millis(2)] {
        let error = token.wait(After::Submission, Some(limit)).unwrap_err();
        assert_eq!(error.status(), GMB_ERROR_TIMEOUT);
    }
    gate.open();
    let result = token.wait(After::Submission, None).unwrap();
    assert_eq!((result.epoch, result.count), (1, 8));
    // The refused push left nothing behind.
    assert_eq!(mailbox.info().unwrap().published, 8);
}

#[test]
fn a_token_dropped_under_way_is_not_reused_before_it_is_written() {
    let context = context();
    let mailbox = mailbox(&context, 1024, 16);
    let stream = context.stream().unwrap();
    let records = poisoned(&context, 16 * 8, 3);
    let push = push_of(&records, 8);
    // Slots for all that follows: allocating behind a closed gate may wait for the device.
    drop((0..200).map(|_| Token::new(&context).unwrap()).collect::<Vec<_>>());
    let gate = Gate::close(&context, stream.get());
    let mut abandoned = Vec::new();
    for _ in 0..100 {
        let token = Token::new(&context).unwrap();
        unsafe { mailbox.push(&push, stream.get(), Some(&token)) }.unwrap();
        abandoned.push(token.device_result());
    }
    let fresh: Vec<Token> = (0..100).map(|_| Token::new(&context).unwrap()).collect();
    assert!(fresh.iter().all(|t| !abandoned.contains(&t.device_result())), "an unwritten slot was reused");
    gate.open();
    context.synchronize(stream.get()).unwrap();
    // Now all slots are written: no new ones are needed.
    let all: Vec<u64> = abandoned.iter().copied().chain(fresh.iter().map(Token::device_result)).collect();
    drop(fresh);
    for _ in 0..3 {
        let again: Vec<Token> = (0..200).map(|_| Token::new(&context).unwrap()).collect();
        let known = again.iter().filter(|t| all.contains(&t.device_result())).count();
        // 256 slots of four chunks: 200 of them were seen before.
        assert!(known >= 144, "slots leak: only {known} of 200 were seen before");
    }
    // Slots that were used before start over.
    for token in (0..200).map(|_| Token::new(&context).unwrap()).collect::<Vec<_>>() {
        // Submission: a slot that kept its epoch would go on counting from there.
        assert_eq!(push_and_wait(&mailbox, &push, stream.get(), &token).epoch, 1);
    }
}

#[test]
fn many_threads_wait_for_one_token() {
    let context = context();
    let mailbox = mailbox(&context, 64, 16);
    let stream = context.stream().unwrap();
    let records = poisoned(&context, 16 * 5, 3);
    let push = push_of(&records, 5);
    let token = Token::new(&context).unwrap();
    let gate = Gate::close(&context, stream.get());
    unsafe { mailbox.push(&push, stream.get(), Some(&token)) }.unwrap();
    std::thread::scope(|scope| {
        let waiters: Vec<_> =
            (0..8).map(|_| scope.spawn(|| token.wait(After::Submission, None).unwrap().count)).collect();
        gate.open();
        assert!(waiters.into_iter().all(|w| w.join().unwrap() == 5));
    });
}

#[test]
fn a_pop_waits_for_the_push_before_it_and_a_push_for_the_room_it_needs() {
    let context = context();
    let mailbox = mailbox(&context, 8, 16);
    let [left, right] = streams(&context);
    let records = poisoned(&context, 16 * 8, 9);
    let push = push_of(&records, 8);
    let [first, second, popped] = tokens(&context);
    let outlet = Outlet::new(&context, &mailbox, 8);
    let gate = Gate::close(&context, left.get());
    unsafe {
        mailbox.push(&push, left.get(), Some(&first)).unwrap();
        mailbox.pop(&outlet.pop, right.get(), Some(&popped)).unwrap();
        mailbox.push(&push, left.get(), Some(&second)).unwrap();
    }
    does_not_come(&popped, "the pop did not wait for the push");
    gate.open();
    for token in [first, popped, second] {
        assert_eq!(token.wait(After::Submission, None).unwrap().count, 8);
    }
}

#[test]
fn a_push_waits_for_room_that_pushes_before_it_will_have_taken() {
    let context = context();
    let mailbox = mailbox(&context, 8, 16);
    let [left, right] = streams(&context);
    let records = poisoned(&context, 16 * 8, 9);
    let push = push_of(&records, 6);
    let tokens = tokens::<3>(&context);
    let outlet = Outlet::new(&context, &mailbox, 6);
    // Two gates, but never two closed at once when the second push could run.
    let before_push = Gate::close(&context, left.get());
    unsafe { mailbox.push(&push, left.get(), Some(&tokens[0])) }.unwrap();
    let before_pop = Gate::close(&context, right.get());
    unsafe {
        mailbox.pop(&outlet.pop, right.get(), Some(&tokens[1])).unwrap();
        mailbox.push(&push, left.get(), Some(&tokens[2])).unwrap();
    }
    before_push.open();
    assert_eq!(tokens[0].wait(After::Submission, None).unwrap().count, 6);
    does_not_come(&tokens[2], "the push did not wait for the room it needs");
    before_pop.open();
    assert_eq!(tokens[1].wait(After::Submission, None).unwrap().count, 6);
    assert_eq!(tokens[2].wait(After::Submission, None).unwrap().count, 6);
}

#[test]
fn operations_of_one_side_keep_their_order_across_streams() {
    let context = context();
    let mailbox = mailbox(&context, 16, 16);
    let [left, right] = streams(&context);
    let records = poisoned(&context, 16 * 8, 9);
    let push = |msg_type| Push { msg_type, ..push_of(&records, 4) };
    let tokens = tokens::<4>(&context);
    let outlets = [Outlet::new(&context, &mailbox, 4), Outlet::new(&context, &mailbox, 4)];
    let gate = Gate::close(&context, left.get());
    unsafe {
        mailbox.push(&push(1), left.get(), Some(&tokens[0])).unwrap();
        mailbox.push(&push(2), right.get(), Some(&tokens[1])).unwrap();
    }
    does_not_come(&tokens[1], "the second push went first");
    gate.open();
    context.synchronize(right.get()).unwrap();
    let gate = Gate::close(&context, left.get());
    unsafe {
        mailbox.pop(&outlets[0].pop, left.get(), Some(&tokens[2])).unwrap();
        mailbox.pop(&outlets[1].pop, right.get(), Some(&tokens[3])).unwrap();
    }
    does_not_come(&tokens[3], "the second pop went first");
    gate.open();
    for (i, outlet) in outlets.iter().enumerate() {
        assert_eq!(tokens[2 + i].wait(After::Submission, None).unwrap().count, 4);
        let (records, _) = outlet.records(&context, 4);
        assert!(records.iter().all(|r| r.msg_type == i as u32 + 1));
    }
}

#[test]
fn device_arbitration_pops_what_is_there_without_waiting() {
    let context = context();
    let options = MailboxOptions {
        capacity: 8,
        payload_bytes: 16,
        arbitration: Arbitration::Device,
        ..Default::default()
    };
    let mailbox = Mailbox::new(&context, &options).unwrap();
    let [left, right] = streams(&context);
    let records = poisoned(&context, 16 * 8, 9);
    let push = push_of(&records, 3);
    let [pushed, popped] = tokens(&context);
    let outlet = Outlet::new(&context, &mailbox, 8);
    let gate = Gate::close(&context, left.get());
    unsafe {
        mailbox.push(&push, left.get(), Some(&pushed)).unwrap();
        mailbox.pop(&outlet.pop, right.get(), Some(&popped)).unwrap();
    }
    // The push is behind the gate; the pop is not.
    assert_eq!(popped.wait(After::Submission, None).unwrap().count, 0);
    assert_eq!(pushed.poll().unwrap(), None);
    gate.open();
    assert_eq!(pushed.wait(After::Submission, None).unwrap().count, 3);
    assert_eq!(pop_and_wait(&mailbox, &outlet.pop, right.get(), &popped).count, 3);
}

#[test]
fn with_room_and_records_for_sure_neither_side_waits_for_the_other() {
    let context = context();
    let mailbox = mailbox(&context, 64, 16);
    let [left, right] = streams(&context);
    let records = poisoned(&context, 16 * 8, 9);
    let push = push_of(&records, 8);
    let token = Token::new(&context).unwrap();
    assert_eq!(push_and_wait(&mailbox, &push, left.get(), &token).count, 8);
    let outlet = Outlet::new(&context, &mailbox, 8);
    let gate = Gate::close(&context, left.get());
    unsafe { mailbox.push(&push, left.get(), None) }.unwrap();
    // Eight records are published for sure: this pop needs nothing of the gated push.
    assert_eq!(pop_and_wait(&mailbox, &outlet.pop, right.get(), &token).count, 8);
    gate.open();
    context.synchronize(left.get()).unwrap();
}

#[test]
fn work_of_a_destroyed_stream_still_completes() {
    let context = context();
    let mailbox = mailbox(&context, 64, 16);
    let records = poisoned(&context, 16 * 10, 7);
    let push = push_of(&records, 10);
    let token = Token::new(&context).unwrap();
    let stream = context.stream().unwrap();
    let gate = Gate::close(&context, stream.get());
    unsafe { mailbox.push(&push, stream.get(), Some(&token)) }.unwrap();
    drop(stream);
    assert_eq!(token.poll().unwrap(), None);
    gate.open();
    assert_eq!(token.wait(After::Submission, None).unwrap().count, 10);
}

#[test]
fn an_event_given_back_unreached_is_kept_aside() {
    let context = context();
    let stream = context.stream().unwrap();
    let kind = EventKind::Untimed;
    let event = context.event(kind).unwrap();
    let gate = Gate::close(&context, stream.get());
    event.record(stream.get()).unwrap();
    assert!(!event.is_reached().unwrap());
    for limit in [Duration::ZERO, Duration::from_millis(2)] {
        assert_eq!(event.synchronize(Some(limit)).unwrap_err().status(), GMB_ERROR_TIMEOUT);
    }
    drop(event);
    let before = context.event_pool(kind);
    assert_eq!(before.pending, 1);
    let other = context.event(kind).unwrap();
    let after = context.event_pool(kind);
    assert_eq!((after.pending, after.size), (1, before.size + 1), "an unreached event was given out");
    assert!(other.is_reached().unwrap());
    gate.open();
    context.synchronize(stream.get()).unwrap();
    let again = context.event(kind).unwrap();
    let last = context.event_pool(kind);
    assert_eq!((last.pending, last.size), (0, after.size));
    assert!(again.is_reached().unwrap());
    // A wait that was enqueued holds although its event is with the next user.
    let other_stream = context.stream().unwrap();
    let done = context.event(kind).unwrap();
    let gate = Gate::close(&context, stream.get());
    again.record(stream.get()).unwrap();
    again.make_wait(other_stream.get()).unwrap();
    drop(again);
    done.record(other_stream.get()).unwrap();
    assert!(!done.is_reached().unwrap());
    gate.open();
    done.synchronize(None).unwrap();
}

#[test]
fn a_waiting_push_counts_on_pops_that_are_enqueued() {
    let context = context();
    for arbitration in [Arbitration::Cpu, Arbitration::Device] {
        let options = MailboxOptions {
            capacity: 8,
            payload_bytes: 16,
            full_policy: FullPolicy::Wait,
            arbitration,
            ..Default::default()
        };
        let mailbox = Mailbox::new(&context, &options).unwrap();
        let [left, right] = streams(&context);
        let records = poisoned(&context, 16 * 8, 9);
        let push = |count| Push {
            count,
            records: records.address(),
            length: 16,
            timeout: Some(Duration::from_millis(2)),
            ..Default::default()
        };
        let [pushed, popped] = tokens(&context);
        let outlet = Outlet::new(&context, &mailbox, 5);
        assert_eq!(push_and_wait(&mailbox, &push(8), left.get(), &pushed).count, 8);
        let gate = Gate::close(&context, right.get());
        unsafe { mailbox.pop(&outlet.pop, right.get(), Some(&popped)) }.unwrap();
        let status =
            |count| unsafe { mailbox.push(&push(count), left.get(), Some(&pushed)) }.map_err(|e| e.status());
        // Five will be free for certain, six will not.
        assert_eq!(status(6), Err(GMB_ERROR_TIMEOUT));
        if arbitration == Arbitration::Device {
            // Nobody would make the push's stream wait for the pop.
            assert_eq!(status(5), Err(GMB_ERROR_TIMEOUT));
            gate.open();
            assert_eq!(popped.wait(After::Submission, None).unwrap().count, 5);
            assert_eq!(status(5), Ok(()));
        } else {
            assert_eq!(status(5), Ok(()));
            does_not_come(&pushed, "the push did not wait for the pop that makes room");
            gate.open();
            assert_eq!(popped.wait(After::Submission, None).unwrap().count, 5);
        }
        assert_eq!(pushed.wait(After::Submission, None).unwrap().count, 5);
        assert_eq!(mailbox.info().unwrap().rejected, 0);
    }
}

#[test]
fn a_push_that_overwrites_waits_for_pops_enqueued_before_it() {
    let context = context();
    for policy in [FullPolicy::OverwriteOldest, FullPolicy::Latest] {
        let mailbox = with_policy(&context, policy, 8, 16);
        let [left, right] = streams(&context);
        let records = poisoned(&context, 16 * 8, 9);
        let push = |msg_type| Push {
            count: 8,
            records: records.address(),
            length: 16,
            msg_type,
            ..Default::default()
        };
        let tokens = tokens::<4>(&context);
        let outlets = [Outlet::new(&context, &mailbox, 8), Outlet::new(&context, &mailbox, 8)];
        assert_eq!(push_and_wait(&mailbox, &push(1), left.get(), &tokens[0]).count, 8);
        let gate = Gate::close(&context, right.get());
        unsafe {
            mailbox.pop(&outlets[0].pop, right.get(), Some(&tokens[1])).unwrap();
            mailbox.push(&push(2), left.get(), Some(&tokens[2])).unwrap();
        }
        does_not_come(&tokens[2], "the push overtook a pop that was there first");
        gate.open();
        let first = tokens[1].wait(After::Submission, None).unwrap();
        let latest = policy == FullPolicy::Latest;
        assert_eq!((first.count, first.lost), if latest { (1, 7) } else { (8, 0) });
        assert!(outlets[0].records(&context, first.count).0.iter().all(|r| r.msg_type == 1));
        assert_eq!(tokens[2].wait(After::Submission, None).unwrap().count, 8);
        // And a pop finds what was pushed before it.
        let gate = Gate::close(&context, left.get());
        unsafe {
            mailbox.push(&push(3), left.get(), Some(&tokens[2])).unwrap();
            mailbox.pop(&outlets[1].pop, right.get(), Some(&tokens[3])).unwrap();
        }
        does_not_come(&tokens[3], "the pop did not wait for the push");
        gate.open();
        let second = tokens[3].wait(After::Submission, None).unwrap();
        assert_eq!((second.count, second.lost), if latest { (1, 15) } else { (8, 8) });
        assert!(outlets[1].records(&context, second.count).0.iter().all(|r| r.msg_type == 3));
    }
}

#[test]
fn a_reader_let_out_is_gone_after_its_own_pops() {
    let context = context();
    let options = MailboxOptions {
        capacity: 8,
        payload_bytes: 16,
        full_policy: FullPolicy::Wait,
        readers: 2,
        ..Default::default()
    };
    let mailbox = Mailbox::new(&context, &options).unwrap();
    let [left, right] = streams(&context);
    let records = poisoned(&context, 16 * 8, 9);
    let push = Push { timeout: Some(Duration::ZERO), ..push_of(&records, 8) };
    let tokens = tokens::<3>(&context);
    let outlet = Outlet::new(&context, &mailbox, 8);
    let slow = Outlet::new(&context, &mailbox, 3);
    unsafe {
        mailbox.push(&push, left.get(), None).unwrap();
        mailbox.pop(&outlet.pop, left.get(), Some(&tokens[0])).unwrap();
    }
    assert_eq!(tokens[0].wait(After::Submission, None).unwrap().count, 8);
    let gate = Gate::close(&context, right.get());
    unsafe { mailbox.pop(&Pop { reader: 1, ..slow.pop }, right.get(), Some(&tokens[1])) }.unwrap();
    // Three would be free, five are held.
    let error = unsafe { mailbox.push(&push, left.get(), Some(&tokens[2])) }.unwrap_err();
    assert_eq!(error.status(), GMB_ERROR_TIMEOUT);
    mailbox.remove_reader(1, left.get()).unwrap();
    unsafe { mailbox.push(&push, left.get(), Some(&tokens[2])) }.unwrap();
    does_not_come(&tokens[2], "the reader's pop was cut off");
    gate.open();
    assert_eq!(tokens[1].wait(After::Submission, None).unwrap().count, 3);
    assert_eq!(slow.records(&context, 3).1, [1, 2, 3]);
    assert_eq!(tokens[2].wait(After::Submission, None).unwrap().count, 8);
}

#[test]
fn memory_freed_behind_a_gate_is_not_reused_before() {
    let context = context();
    let [left, right] = streams(&context);
    let out = context.pinned_buffer(1 << 16).unwrap();
    let first = context.device_buffer_on(1 << 16, left.get()).unwrap();
    context.synchronize(left.get()).unwrap();
    let gate = Gate::close(&context, left.get());
    unsafe {
        context.fill(first.address(), 1, 1 << 16, left.get()).unwrap();
        context.copy(out.address(), first.address(), 1 << 16, left.get()).unwrap();
        first.free_on(left.get()).unwrap();
        let second = context.device_buffer_on(1 << 16, right.get()).unwrap();
        context.fill(second.address(), 2, 1 << 16, right.get()).unwrap();
        context.synchronize(right.get()).unwrap();
        gate.open();
        context.synchronize(left.get()).unwrap();
        let got = std::slice::from_raw_parts(out.address() as *const u8, 1 << 16);
        assert!(got.iter().all(|&byte| byte == 1));
        second.free_on(right.get()).unwrap();
    }
}

#[test]
fn one_stuck_event_does_not_make_the_pool_grow() {
    let context = context();
    let [stuck, free] = streams(&context);
    let kind = EventKind::Untimed;
    let gate = Gate::close(&context, stuck.get());
    let event = context.event(kind).unwrap();
    event.record(stuck.get()).unwrap();
    drop(event);
    let before = context.event_pool(kind).size;
    for round in 0..200 {
        let event = context.event(kind).unwrap();
        event.record(free.get()).unwrap();
        if round % 2 == 0 {
            event.synchronize(None).unwrap();
        } else {
            // Nobody has asked this one; the stream has passed it all the same.
            context.synchronize(free.get()).unwrap();
        }
    }
    let after = context.event_pool(kind).size;
    assert!(after <= before + 2, "{before} events became {after}");
    gate.open();
}

#[test]
fn a_push_waits_for_a_pop_of_a_reader_that_was_let_in_again() {
    let context = context();
    let mailbox = mailbox(&context, 8, 16);
    let [left, right] = streams(&context);
    let records = poisoned(&context, 16 * 8, 9);
    let push = push_of(&records, 8);
    let tokens = tokens::<3>(&context);
    let outlet = Outlet::new(&context, &mailbox, 8);
    unsafe {
        mailbox.push(&push, left.get(), None).unwrap();
        mailbox.pop(&outlet.pop, left.get(), Some(&tokens[0])).unwrap();
    }
    assert_eq!(tokens[0].wait(After::Submission, None).unwrap().count, 8);
    let gate = Gate::close(&context, right.get());
    mailbox.remove_reader(0, right.get()).unwrap();
    assert_eq!(mailbox.add_reader(ReaderStart::Next, right.get()).unwrap(), 0);
    unsafe {
        mailbox.push(&push, right.get(), None).unwrap();
        mailbox.pop(&outlet.pop, right.get(), Some(&tokens[1])).unwrap();
        mailbox.push(&push, left.get(), Some(&tokens[2])).unwrap();
    }
    does_not_come(&tokens[2], "the push did not wait for the pop");
    gate.open();
    for token in &tokens[1..] {
        assert_eq!(token.wait(After::Submission, None).unwrap().count, 8);
    }
}

/// A call that is refused for its token has made its stream wait for nothing.
#[test]
fn a_refused_call_leaves_nothing_in_its_stream() {
    let context = context();
    let mailbox = mailbox(&context, 64, 16);
    let [left, right] = streams(&context);
    let rows = context.device_buffer(64 * 16).unwrap();
    let push = Push { count: 4, length: 16, records: rows.address(), ..Default::default() };
    let pop = Pop { max: 4, records: rows.address(), ..Default::default() };
    let [pushing, popping] = tokens(&context);
    let gate = Gate::close(&context, left.get());
    unsafe { mailbox.push(&push, left.get(), Some(&pushing)) }.unwrap();
    unsafe { mailbox.pop(&pop, left.get(), Some(&popping)) }.unwrap();
    let refused = [unsafe { mailbox.push(&push, right.get(), Some(&pushing)) }, unsafe {
        mailbox.pop(&pop, right.get(), Some(&popping))
    }];
    for result in refused {
        assert_eq!(result.unwrap_err().status(), GMB_ERROR_BUSY);
        assert!(context.is_idle(right.get()).unwrap());
    }
    gate.open();
    assert_eq!(popping.wait(After::Submission, None).unwrap().count, 4);
    context.synchronize(left.get()).unwrap();
}
