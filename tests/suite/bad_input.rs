use super::support::*;
use gpumailbox::*;

fn create(options: MailboxOptions) -> gmb_status {
    Mailbox::new(&context(), &options).map(|_| ()).unwrap_err().status()
}

#[test]
fn impossible_mailboxes() {
    let good = MailboxOptions { capacity: 16, payload_bytes: 16, ..Default::default() };
    for capacity in [0, 3, 1000, (1 << 20) + 1] {
        assert_eq!(create(MailboxOptions { capacity, ..good }), GMB_ERROR_INVALID_ARGUMENT, "{capacity}");
    }
    for capacity in [u64::from(GMB_MAX_RECORDS) * 2, u64::from(GMB_MAX_RECORDS) + 1, 1 << 63, u64::MAX] {
        assert_eq!(create(MailboxOptions { capacity, ..good }), GMB_ERROR_OVERFLOW, "{capacity}");
    }
    assert_eq!(create(MailboxOptions { payload_bytes: 0, ..good }), GMB_ERROR_INVALID_ARGUMENT);
    for payload_bytes in [u32::MAX, u32::MAX - 15] {
        assert_eq!(create(MailboxOptions { payload_bytes, ..good }), GMB_ERROR_OVERFLOW, "{payload_bytes}");
    }
    // Fits the address space and no machine.
    let vast = MailboxOptions { capacity: 1 << 29, payload_bytes: 1 << 31, ..good };
    assert_eq!(create(vast), GMB_ERROR_OUT_OF_MEMORY);
    let hint = Mailbox::new(&context(), &MailboxOptions { capacity: 1000, ..good }).err().unwrap();
    assert!(hint.message().contains("1024"), "{hint}");
}

#[test]
fn impossible_pushes_leave_no_trace() {
    let context = context();
    let stream = context.stream().unwrap();
    let mailbox = mailbox(&context, 16, 40);
    let token = Token::new(&context).unwrap();
    let memory = poisoned(&context, 4096, 1);
    let at = memory.address();
    let good = Push { count: 4, records: at, length: 40, ..Default::default() };
    let ring = mailbox.info().unwrap().ring;
    let ring_end = ring + mailbox.info().unwrap().ring_bytes;
    let cases = [
        (Push { count: 0, ..good }, GMB_ERROR_ZERO_COUNT),
        (Push { count: GMB_MAX_RECORDS + 1, ..good }, GMB_ERROR_OVERFLOW),
        (Push { count: u32::MAX, ..good }, GMB_ERROR_OVERFLOW),
        (Push { records: 0, ..good }, GMB_ERROR_NULL_POINTER),
        (Push { records: 0, lengths: at, ..good }, GMB_ERROR_NULL_POINTER),
        (Push { records: at + 8, ..good }, GMB_ERROR_MISALIGNED),
        (Push { lengths: at + 2, ..good }, GMB_ERROR_MISALIGNED),
        (Push { types: at + 1, ..good }, GMB_ERROR_MISALIGNED),
        (Push { stride: 40, ..good }, GMB_ERROR_MISALIGNED),
        (Push { stride: 32, ..good }, GMB_ERROR_INVALID_ARGUMENT),
        (Push { stride: u64::MAX - 15, ..good }, GMB_ERROR_OVERFLOW),
        (Push { stride: 1 << 62, ..good }, GMB_ERROR_OVERFLOW),
        (Push { records: u64::MAX - 15, ..good }, GMB_ERROR_OVERFLOW),
        (Push { length: 41, ..good }, GMB_ERROR_BAD_LENGTH),
        (Push { length: u32::MAX, ..good }, GMB_ERROR_BAD_LENGTH),
        (Push { records: ring, ..good }, GMB_ERROR_OVERLAP),
        (Push { records: ring_end - 16, ..good }, GMB_ERROR_OVERLAP),
        (Push { lengths: ring_end - 4, ..good }, GMB_ERROR_OVERLAP),
        (Push { types: ring + 64, ..good }, GMB_ERROR_OVERLAP),
    ];
    for (push, expected) in cases {
        let error = unsafe { mailbox.push(&push, stream.get(), Some(&token)) }.unwrap_err();
        assert_eq!(error.status(), expected, "{push:?}: {error}");
        // The token is as before: never used.
        assert_eq!(token.poll().unwrap_err().status(), GMB_ERROR_INVALID_ARGUMENT);
    }
    let info = mailbox.info().unwrap();
    assert_eq!((info.published, info.rejected), (0, 0));
    assert_eq!(push_and_wait(&mailbox, &good, stream.get(), &token).count, 4);
}

#[test]
fn impossible_pops_leave_no_trace() {
    let context = context();
    let stream = context.stream().unwrap();
    let mailbox = mailbox(&context, 16, 40);
    let row = HostRows { rows: &[9; 40], stride: 40, lengths: &[40], types: &[] };
    mailbox.push_from_host_blocking(&row, None).unwrap();
    let memory = poisoned(&context, 8192, POISON);
    let at = memory.address();
    let good = Pop { max: 4, records: at, stride: 0, headers: at + 4096, reader: 0 };
    let ring = mailbox.info().unwrap().ring;
    let cases = [
        (Pop { max: 0, ..good }, GMB_ERROR_ZERO_COUNT),
        (Pop { max: u32::MAX, ..good }, GMB_ERROR_OVERFLOW),
        (Pop { records: 0, ..good }, GMB_ERROR_NULL_POINTER),
        (Pop { records: at + 4, ..good }, GMB_ERROR_MISALIGNED),
        (Pop { headers: at + 4100, ..good }, GMB_ERROR_MISALIGNED),
        (Pop { stride: 50, ..good }, GMB_ERROR_MISALIGNED),
        (Pop { stride: 32, ..good }, GMB_ERROR_INVALID_ARGUMENT),
        (Pop { stride: u64::MAX - 15, ..good }, GMB_ERROR_OVERFLOW),
        (Pop { records: ring + 128, ..good }, GMB_ERROR_OVERLAP),
        (Pop { headers: ring, ..good }, GMB_ERROR_OVERLAP),
        (Pop { headers: at + 16, ..good }, GMB_ERROR_OVERLAP),
        (Pop { headers: at, ..good }, GMB_ERROR_OVERLAP),
    ];
    for (pop, expected) in cases {
        let error = unsafe { mailbox.pop(&pop, stream.get(), None) }.unwrap_err();
        assert_eq!(error.status(), expected, "{pop:?}: {error}");
    }
    assert!(download(&context, at, 8192).iter().all(|&b| b == POISON));
    assert_eq!(mailbox.info().unwrap().released, 0);
}

#[test]
fn tokens_of_another_context_are_refused() {
    let (ours, theirs) = (context(), context());
    let mailbox = mailbox(&ours, 16, 16);
    let foreign = Token::new(&theirs).unwrap();
    let memory = poisoned(&ours, 16, 1);
    let push = push_of(&memory, 1);
    let error = unsafe { mailbox.push(&push, Stream::LEGACY, Some(&foreign)) }.unwrap_err();
    assert_eq!(error.status(), GMB_ERROR_INVALID_ARGUMENT);
    assert_eq!(mailbox.info().unwrap().published, 0);
}

/// A bad length ends the push before it; the records before it are accepted.
#[test]
fn a_bad_length_found_on_the_device_ends_the_push_there() {
    let context = context();
    let mut random = Random::new();
    let stream = context.stream().unwrap();
    for stride in [0u64, 32] {
        for round in 0..20 {
            let mailbox = mailbox(&context, 512, 48);
            let limit = if stride == 0 { 48 } else { 32 };
            let count = random.between(1, 400) as usize;
            let bad = random.between(0, count as u64 - 1) as usize;
            let mut lengths: Vec<u32> = (0..count).map(|_| random.between(0, limit) as u32).collect();
            lengths[bad] = if round % 2 == 0 { limit as u32 + 1 } else { u32::MAX };
            // Another one behind it must not matter.
            if bad + 3 < count {
                lengths[bad + 3] = 1000;
            }
            // Two rows at least: that is what is pushed below.
            let rows = poisoned(&context, count.max(2) * 48, 5);
            let lengths = upload(&context, &lengths);
            let push = Push {
                count: count as u32,
                records: rows.address(),
                stride,
                lengths: lengths.address(),
                ..Default::default()
            };
            let token = Token::new(&context).unwrap();
            let result = push_and_wait(&mailbox, &push, stream.get(), &token);
            assert_eq!((result.status, result.count as usize), (GMB_ERROR_BAD_LENGTH, bad));
            assert_eq!(result.flags, GMB_RESULT_PARTIAL);
            assert_eq!(mailbox.info().unwrap().published, bad as u64);
            // The mailbox goes on.
            let good = push_of(&rows, 2);
            let result = push_and_wait(&mailbox, &good, stream.get(), &token);
            assert_eq!((result.status, result.count), (GMB_OK, 2));
        }
    }
}

/// Writes words into device memory behind the mailbox's back.
fn overwrite(context: &Context, address: u64, words: &[u32]) {
    let stream = context.stream().unwrap();
    let bytes = size_of_val(words);
    unsafe { context.copy(address, words.as_ptr() as u64, bytes, stream.get()).unwrap() };
    context.synchronize(stream.get()).unwrap();
}

#[test]
fn a_damaged_header_is_reported_and_nothing_moves() {
    let context = context();
    let stream = context.stream().unwrap();
    let memory = poisoned(&context, 16 * 600, 1);
    for (offset, expected) in [(0, GMB_ERROR_BAD_MAGIC), (8, GMB_ERROR_BAD_VERSION)] {
        for count in [1, 600] {
            let mailbox = mailbox(&context, 1024, 16);
            let ring = mailbox.info().unwrap().ring;
            overwrite(&context, ring + offset, &[0xDEAD]);
            let token = Token::new(&context).unwrap();
            let push = Push { count, records: memory.address(), length: 16, ..Default::default() };
            let outlet = Outlet::new(&context, &mailbox, count);
            for _ in 0..3 {
                let result = push_and_wait(&mailbox, &push, stream.get(), &token);
                assert_eq!((result.status, result.count), (expected, 0));
                let result = pop_and_wait(&mailbox, &outlet.pop, stream.get(), &token);
                assert_eq!((result.status, result.count), (expected, 0));
            }
            outlet.check_untouched_past(&context, 0);
        }
    }
}

/// The same where blocks draw, of records that a thread group moves at once and of wider ones.
#[test]
fn a_damaged_slot_ends_a_large_pop_before_it() {
    const BYTES: usize = 40 << 20;
    let context = context();
    let mut random = Random::new();
    let stream = context.stream().unwrap();
    let token = Token::new(&context).unwrap();
    let content = random.bytes(BYTES);
    let rows = upload(&context, &content);
    for payload in [48, 1040] {
        let count = BYTES / payload;
        let mailbox = mailbox(&context, count.next_power_of_two() as u64, payload as u32);
        let (records, length) = (rows.address(), payload as u32);
        let push = Push { count: count as u32, records, length, msg_type: 1, ..Default::default() };
        assert_eq!(push_and_wait(&mailbox, &push, stream.get(), &token).count, push.count);
        let info = mailbox.info().unwrap();
        let bad = random.between(0, count as u64 - 1);
        let slots = info.ring + info.ring_bytes - info.capacity * u64::from(info.slot_stride);
        overwrite(&context, slots + bad * u64::from(info.slot_stride), &[7777]);
        let out = poisoned(&context, count * payload, POISON);
        let pop = Pop { max: push.count, records: out.address(), ..Default::default() };
        let result = pop_and_wait(&mailbox, &pop, stream.get(), &token);
        assert_eq!((result.status, u64::from(result.count)), (GMB_ERROR_CORRUPT, bad), "payload {payload}");
        let got = download(&context, out.address(), bad as usize * payload);
        assert!(got[..] == content[..got.len()], "payload {payload}");
    }
}

#[test]
fn a_damaged_slot_ends_the_pop_before_it() {
    let context = context();
    let mut random = Random::new();
    let stream = context.stream().unwrap();
    for field in [0, 8] {
        let mailbox = mailbox(&context, 256, 32);
        let sent: Vec<Item> = (0..200).map(|_| Item { bytes: random.bytes(32), msg_type: 1 }).collect();
        let batch = Batch::new(&context, &mailbox, &sent);
        unsafe { mailbox.push(&batch.push, stream.get(), None) }.unwrap();
        context.synchronize(stream.get()).unwrap();
        let info = mailbox.info().unwrap();
        let bad = random.between(0, 199);
        let slots = info.ring + info.ring_bytes - info.capacity * u64::from(info.slot_stride);
        overwrite(&context, slots + bad * u64::from(info.slot_stride) + field, &[7777]);
        let token = Token::new(&context).unwrap();
        let out = poisoned(&context, 200 * 32, POISON);
        let pop = Pop { max: 200, records: out.address(), ..Default::default() };
        let result = pop_and_wait(&mailbox, &pop, stream.get(), &token);
        assert_eq!((result.status, u64::from(result.count)), (GMB_ERROR_CORRUPT, bad));
        let got = download(&context, out.address(), bad as usize * 32);
        let expected: Vec<u8> = sent[..bad as usize].iter().flat_map(|r| r.bytes.clone()).collect();
        assert_eq!(got, expected);
        // The damage stays where it is, and stays reported.
        let result = pop_and_wait(&mailbox, &pop, stream.get(), &token);
        assert_eq!((result.status, result.count), (GMB_ERROR_CORRUPT, 0));
    }
}

/// Blocks that arrive from a second operation of the same side are noticed:
/// here one arrival too many was planted.
#[test]
fn an_order_violation_stops_the_mailbox_for_good() {
    let context = context();
    let stream = context.stream().unwrap();
    let mailbox = mailbox(&context, 1 << 14, 16);
    let memory = poisoned(&context, 16 << 14, 1);
    let info = mailbox.info().unwrap();
    assert_eq!(info.fault, GMB_OK);
    let ring = info.ring;
    // writer.arrivals: after the constant line, on the side's third line.
    overwrite(&context, ring + 128 + 256 + 8, &[1, 0]);
    let push = Push { count: 1 << 13, records: memory.address(), length: 16, ..Default::default() };
    let token = Token::new(&context).unwrap();
    let result = push_and_wait(&mailbox, &push, stream.get(), &token);
    assert_eq!((result.status, result.count), (GMB_ERROR_ORDER_VIOLATION, 0));
    context.synchronize(stream.get()).unwrap();
    let info = mailbox.info().unwrap();
    assert_eq!((info.published, info.fault), (0, GMB_ERROR_ORDER_VIOLATION));
    let outlet = Outlet::new(&context, &mailbox, 8);
    for _ in 0..2 {
        let pop_token = Token::new(&context).unwrap();
        let result = pop_and_wait(&mailbox, &outlet.pop, stream.get(), &pop_token);
        assert_eq!((result.status, result.count), (GMB_ERROR_ORDER_VIOLATION, 0));
    }
}

/// With `GMB_CHECK_POINTERS=1`, which the tests set, addresses that lead nowhere are errors.
#[test]
fn addresses_that_kernels_cannot_reach_are_refused() {
    if std::env::var_os("GMB_CHECK_POINTERS").is_none() {
        let test = "bad_input::addresses_that_kernels_cannot_reach_are_refused";
        return child_passes(test, &[("GMB_CHECK_POINTERS", "1")]);
    }
    let context = context();
    let stream = context.stream().unwrap();
    let mailbox = mailbox(&context, 16, 32);
    let memory = poisoned(&context, 1024, 1);
    let at = memory.address();
    let garbage = 0x5555_0000_1230u64;
    let good = Push { count: 4, records: at, length: 32, ..Default::default() };
    let pushes = [
        Push { records: garbage, ..good },
        Push { records: at + 1024 - 64, ..good },
        Push { count: 33, ..good },
        Push { stride: 512, ..good },
        Push { lengths: garbage, ..good },
        Push { types: at + 1024 - 12, ..good },
    ];
    for push in pushes {
        let error = unsafe { mailbox.push(&push, stream.get(), None) }.unwrap_err();
        assert_eq!(error.status(), GMB_ERROR_INVALID_ARGUMENT, "{push:?}: {error}");
        assert!(error.message().contains("0x"), "{error}");
    }
    let pops = [
        Pop { max: 4, records: garbage, ..Default::default() },
        Pop { max: 16, records: at + 528, ..Default::default() },
        Pop { max: 4, records: at, headers: garbage, ..Default::default() },
        Pop { max: 4, records: at, headers: at + 1024 - 48, ..Default::default() },
    ];
    for pop in pops {
        let error = unsafe { mailbox.pop(&pop, stream.get(), None) }.unwrap_err();
        assert_eq!(error.status(), GMB_ERROR_INVALID_ARGUMENT, "{pop:?}: {error}");
    }
    for (address, bytes) in [(garbage, 16), (at, 1025), (at + 1000, 25)] {
        let error = unsafe { context.fill(address, 0, bytes, stream.get()) }.unwrap_err();
        assert_eq!(error.status(), GMB_ERROR_INVALID_ARGUMENT);
    }
    let options = MailboxOptions { capacity: 64, payload_bytes: 32, ..Default::default() };
    let bytes = Mailbox::required_bytes(&options).unwrap();
    let error = unsafe { Mailbox::new_in(&context, &options, at, bytes) }.unwrap_err();
    assert_eq!(error.status(), GMB_ERROR_INVALID_ARGUMENT);
    // Right up to the end is fine, and so is pinned memory.
    let pinned = context.pinned_buffer(128).unwrap();
    for records in [at + 1024 - 128, pinned.address()] {
        unsafe { mailbox.push(&Push { records, ..good }, stream.get(), None) }.unwrap();
    }
    let types = Push { types: at + 1024 - 16, ..good };
    unsafe { mailbox.push(&types, stream.get(), None) }.unwrap();
    context.synchronize(stream.get()).unwrap();
    assert_eq!(mailbox.info().unwrap().published, 12);
}
