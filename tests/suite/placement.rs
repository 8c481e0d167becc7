//! Mailboxes in the caller's memory: made there, attached to, and what is refused.

use super::support::*;
use gpumailbox::*;

const OPTIONS: MailboxOptions = MailboxOptions {
    capacity: 32,
    payload_bytes: 40,
    producer_id: 5,
    consumer_id: 6,
    arbitration: Arbitration::Cpu,
    full_policy: FullPolicy::Reject,
    readers: 2,
    initial_index: u64::MAX - 10,
    single_stream: false,
    mode: Mode::Ordered,
};

fn memory(context: &Context, options: &MailboxOptions) -> (DeviceBuffer, u64) {
    let bytes = Mailbox::required_bytes(options).unwrap();
    (poisoned(context, bytes as usize + 256, POISON), bytes)
}

fn exchange(mailbox: &Mailbox, random: &mut Random, stream: Stream, expected: &mut [Vec<Item>; 2]) {
    let context = mailbox.context();
    let token = Token::new(context).unwrap();
    let sent = random_records(random, 8, 40);
    let batch = Batch::new(context, mailbox, &sent);
    assert_eq!(push_and_wait(mailbox, &batch.push, stream, &token).count, 8);
    for (reader, expected) in expected.iter_mut().enumerate() {
        expected.extend_from_slice(&sent);
        let max = 6 + 2 * reader as u32;
        let outlet = Outlet::new(context, mailbox, max);
        let pop = Pop { reader: reader as u32, ..outlet.pop };
        let result = pop_and_wait(mailbox, &pop, stream, &token);
        assert_eq!((result.status, result.count), (GMB_OK, max));
        let rest = expected.split_off(max as usize);
        assert_eq!(outlet.records(context, max).0, *expected);
        *expected = rest;
    }
}

/// Made in memory of the caller, left, and gone on with again and again.
#[test]
fn a_mailbox_in_the_callers_memory_is_left_and_gone_on_with() {
    let context = context();
    let mut random = Random::new();
    let stream = context.stream().unwrap();
    let (memory, bytes) = memory(&context, &OPTIONS);
    let at = memory.address() + 128;
    let mut unread = [Vec::new(), Vec::new()];
    let made = unsafe { Mailbox::new_in(&context, &OPTIONS, at, bytes) }.unwrap();
    let info = made.info().unwrap();
    assert_eq!((info.ring, info.ring_bytes, info.readers), (at, bytes, 0b11));
    exchange(&made, &mut random, stream.get(), &mut unread);
    drop(made);
    for arbitration in [Arbitration::Cpu, Arbitration::Device, Arbitration::Cpu] {
        // In another context, as another program part would.
        let elsewhere = super::support::context();
        let stream = elsewhere.stream().unwrap();
        let attach = Attach { arbitration, single_stream: arbitration == Arbitration::Device };
        let found = unsafe { Mailbox::attach(&elsewhere, at, bytes + 100, &attach) }.unwrap();
        let info = found.info().unwrap();
        assert_eq!((info.capacity, info.payload_bytes, info.ring_bytes, info.readers), (32, 40, bytes, 0b11));
        exchange(&found, &mut random, stream.get(), &mut unread);
        elsewhere.synchronize(stream.get()).unwrap();
    }
    // What lies around it was never touched.
    let around = download(&context, memory.address(), memory.bytes());
    assert!(around[..128].iter().chain(&around[128 + bytes as usize..]).all(|&byte| byte == POISON));
    let context_info = context.memory_info().unwrap();
    assert_eq!(context_info.used, memory.bytes() as u64, "the ring was allocated, too");
}

#[test]
fn two_attached_sides_pass_records() {
    let context = context();
    let stream = context.stream().unwrap();
    let options =
        MailboxOptions { arbitration: Arbitration::Device, readers: 1, initial_index: 0, ..OPTIONS };
    let (memory, bytes) = memory(&context, &options);
    let producer = unsafe { Mailbox::new_in(&context, &options, memory.address(), bytes) }.unwrap();
    let attach = Attach { arbitration: Arbitration::Device, ..Default::default() };
    let consumer = unsafe { Mailbox::attach(&context, memory.address(), bytes, &attach) }.unwrap();
    let mut random = Random::new();
    let token = Token::new(&context).unwrap();
    for _ in 0..20 {
        let count = random.between(1, 32) as usize;
        let sent = random_records(&mut random, count, 40);
        let batch = Batch::new(&context, &producer, &sent);
        assert_eq!(push_and_wait(&producer, &batch.push, stream.get(), &token).count as usize, count);
        let outlet = Outlet::new(&context, &consumer, 32);
        assert_eq!(pop_and_wait(&consumer, &outlet.pop, stream.get(), &token).count as usize, count);
        assert_eq!(outlet.records(&context, count as u32).0, sent);
    }
}

#[test]
fn what_is_no_mailbox_is_not_attached_to() {
    let context = context();
    let (memory, bytes) = memory(&context, &OPTIONS);
    let at = memory.address();
    let attach = |address: u64, bytes: u64| {
        unsafe { Mailbox::attach(&context, address, bytes, &Attach::default()) }.map(|_| ())
    };
    let status = |address: u64, bytes: u64| attach(address, bytes).unwrap_err().status();
    let write = |offset: u64, word: u32| {
        let stream = context.stream().unwrap();
        let from = &raw const word as u64;
        unsafe { context.copy(at + offset, from, 4, stream.get()) }.unwrap();
        context.synchronize(stream.get()).unwrap();
    };
    let read = |offset: u64| u32::from_ne_bytes(download(&context, at + offset, 4).try_into().unwrap());
    assert_eq!(status(at, bytes), GMB_ERROR_BAD_MAGIC);
    drop(unsafe { Mailbox::new_in(&context, &OPTIONS, at, bytes) }.unwrap());
    attach(at, bytes).unwrap();
    assert_eq!(status(0, bytes), GMB_ERROR_NULL_POINTER);
    assert_eq!(status(at + 16, bytes), GMB_ERROR_MISALIGNED);
    assert_eq!(status(at, u64::MAX), GMB_ERROR_OVERFLOW);
    for short in [0, 1, 127, size_of::<gmb_ring_header>() as u64, bytes - 1] {
        assert_eq!(status(at, short), GMB_ERROR_TRUNCATED, "{short} bytes");
    }
    let place = |offset: usize| offset as u64;
    use std::mem::offset_of;
    let writer = offset_of!(gmb_ring_header, writer);
    let cases = [
        (0, 7, GMB_ERROR_BAD_MAGIC),
        (offset_of!(gmb_ring_header, version), GMB_LAYOUT_VERSION + 1, GMB_ERROR_BAD_VERSION),
        (offset_of!(gmb_ring_header, version), 0, GMB_ERROR_BAD_VERSION),
        (offset_of!(gmb_ring_header, header_bytes), 64, GMB_ERROR_CORRUPT),
        (offset_of!(gmb_ring_header, capacity), 33, GMB_ERROR_CORRUPT),
        (offset_of!(gmb_ring_header, capacity), 64, GMB_ERROR_CORRUPT),
        (offset_of!(gmb_ring_header, capacity) + 4, 1 << 20, GMB_ERROR_CORRUPT),
        (offset_of!(gmb_ring_header, stride), 48, GMB_ERROR_CORRUPT),
        (offset_of!(gmb_ring_header, payload_bytes), 0, GMB_ERROR_CORRUPT),
        (offset_of!(gmb_ring_header, payload_bytes), u32::MAX, GMB_ERROR_CORRUPT),
        (offset_of!(gmb_ring_header, reader_mask), 1 << 16, GMB_ERROR_CORRUPT),
        (offset_of!(gmb_ring_header, full_policy), 9, GMB_ERROR_CORRUPT),
        (offset_of!(gmb_ring_header, fault), GMB_ERROR_ORDER_VIOLATION as u32, GMB_ERROR_ORDER_VIOLATION),
        (offset_of!(gmb_ring_header, fault), 1, GMB_ERROR_CORRUPT),
        (writer + offset_of!(gmb_ring_side, claimed), 5, GMB_ERROR_BUSY),
        (writer + size_of::<gmb_ring_side>() + offset_of!(gmb_ring_side, agreed), 1, GMB_ERROR_BUSY),
        (writer + offset_of!(gmb_ring_side, arrivals), 1, GMB_ERROR_BUSY),
        (writer + offset_of!(gmb_ring_side, grant), 0, GMB_ERROR_BUSY),
        (writer + offset_of!(gmb_ring_side, committed), 100, GMB_ERROR_BUSY),
        (writer + size_of::<gmb_ring_side>() + offset_of!(gmb_ring_side, committed), 100, GMB_ERROR_CORRUPT),
    ];
    for (offset, value, expected) in cases {
        let before = read(place(offset));
        write(place(offset), value);
        let error = attach(at, bytes).unwrap_err();
        assert_eq!(error.status(), expected, "{value:#x} at {offset}: {error}");
        write(place(offset), before);
        attach(at, bytes).unwrap();
    }
    let newer = {
        write(place(offset_of!(gmb_ring_header, version)), GMB_LAYOUT_VERSION + 1);
        attach(at, bytes).unwrap_err()
    };
    assert!(newer.message().contains("newer"), "{newer}");
    // And what cannot be made.
    let make = |address: u64, bytes: u64| {
        unsafe { Mailbox::new_in(&context, &OPTIONS, address, bytes) }.map(|_| ()).unwrap_err().status()
    };
    assert_eq!(make(0, bytes), GMB_ERROR_NULL_POINTER);
    assert_eq!(make(at + 64, bytes), GMB_ERROR_MISALIGNED);
    assert_eq!(make(at, bytes - 1), GMB_ERROR_TRUNCATED);
}

/// A reader that was there before, and is let in again after attaching, is counted on from where it was.
#[test]
fn readers_come_and_go_across_attaching() {
    let context = context();
    let stream = context.stream().unwrap();
    let (memory, bytes) = memory(&context, &OPTIONS);
    let mut random = Random::new();
    for single_stream in [false, true] {
        let made = unsafe { Mailbox::new_in(&context, &OPTIONS, memory.address(), bytes) }.unwrap();
        assert_eq!(made.add_reader(ReaderStart::Next, stream.get()).unwrap(), 2);
        made.remove_reader(2, stream.get()).unwrap();
        drop(made);
        let attach = Attach { single_stream, ..Default::default() };
        let found = unsafe { Mailbox::attach(&context, memory.address(), bytes, &attach) }.unwrap();
        assert_eq!(found.add_reader(ReaderStart::Next, stream.get()).unwrap(), 2);
        let token = Token::new(&context).unwrap();
        for _ in 0..3 {
            let sent = random_records(&mut random, 10, 40);
            let batch = Batch::new(&context, &found, &sent);
            unsafe { found.push(&batch.push, stream.get(), None) }.unwrap();
            for reader in 0..3 {
                let outlet = Outlet::new(&context, &found, 32);
                assert_eq!(
                    pop_and_wait(&found, &Pop { reader, ..outlet.pop }, stream.get(), &token).count,
                    10
                );
                assert_eq!(outlet.records(&context, 10).0, sent);
            }
        }
        // Dropping waits for what was submitted, and for no more.
        drop(found);
    }
}
