use super::support::*;
use gpumailbox::*;

#[test]
fn records_of_every_length_come_back_as_they_were() {
    let context = context();
    let mut random = Random::new();
    let stream = context.stream().unwrap();
    for payload in [1, 3, 15, 16, 17, 48, 100, 240, 1008, 4080, 5000] {
        let mailbox = mailbox(&context, 128, payload);
        let sent = random_records(&mut random, 100, payload);
        let pushed = push_records(&mailbox, &sent, stream.get());
        assert_eq!((pushed.count, pushed.status, pushed.flags), (100, GMB_OK, 0), "payload {payload}");
        let (popped, got, sequences) = pop_records(&mailbox, 0, 128, stream.get());
        assert_eq!((popped.count, popped.status, popped.flags), (100, GMB_OK, GMB_RESULT_PARTIAL));
        assert_eq!(got, sent, "payload {payload}");
        assert_eq!(sequences, (1..=100).collect::<Vec<u64>>());
    }
}

/// So large that blocks draw what they move, on any backend: records as wide as few threads, as a warp, and wider.
#[test]
fn large_operations_move_records_of_every_width() {
    const BYTES: usize = 64 << 20;
    let context = context();
    let mut random = Random::new();
    let stream = context.stream().unwrap();
    let token = Token::new(&context).unwrap();
    let content = random.bytes(BYTES);
    let rows = upload(&context, &content);
    for payload in [48, 496, 1008, 2064] {
        let count = BYTES / payload;
        let mailbox = mailbox(&context, count.next_power_of_two() as u64, payload as u32);
        let mut lengths: Vec<u32> = (0..count).map(|_| random.between(0, payload as u64) as u32).collect();
        let types: Vec<u32> = (0..count).map(|_| random.next() as u32).collect();
        let type_words = upload(&context, &types);
        // One push ends before a record that is too long; the last is of a few rounds, and of narrow records.
        let bad = random.between(count as u64 / 2, count as u64 - 1) as usize;
        let mut first = 0;
        for (asked, pushed, status) in
            [(count, count, GMB_OK), (count, bad, GMB_ERROR_BAD_LENGTH), (count / 5, count / 5, GMB_OK)]
        {
            lengths[bad] = if status == GMB_OK { payload as u32 } else { payload as u32 + 1 };
            let alike = (asked < count).then_some(40);
            let length_words = upload(&context, &lengths);
            let push = Push {
                count: asked as u32,
                records: rows.address(),
                lengths: if alike.is_some() { 0 } else { length_words.address() },
                length: alike.unwrap_or_default(),
                stride: payload as u64,
                types: type_words.address(),
                ..Default::default()
            };
            let result = push_and_wait(&mailbox, &push, stream.get(), &token);
            assert_eq!((result.count as usize, result.status), (pushed, status), "payload {payload}");

            let out = poisoned(&context, count * payload, POISON);
            let heads = poisoned(&context, count * 16, POISON);
            // In two pops, so that the second one begins amid the ring.
            let mut got = 0;
            for max in [count / 4 * 3, count] {
                let pop = Pop {
                    max: max.min(count - got) as u32,
                    records: out.address() + (got * payload) as u64,
                    headers: heads.address() + 16 * got as u64,
                    ..Default::default()
                };
                let result = pop_and_wait(&mailbox, &pop, stream.get(), &token);
                assert_eq!(result.status, GMB_OK);
                got += result.count as usize;
            }
            assert_eq!(got, pushed, "payload {payload}");
            let found = download(&context, out.address(), count * payload);
            let heads = headers(&download(&context, heads.address(), count * 16));
            for i in 0..got {
                let length = alike.unwrap_or(lengths[i]);
                let expected = (first + i as u64 + 1, length, types[i]);
                let header = &heads[i];
                assert_eq!(
                    (header.sequence, header.length, header.msg_type),
                    expected,
                    "record {i} of {payload}"
                );
                let (at, length) = (i * payload, length as usize);
                assert!(found[at..at + length] == content[at..at + length], "record {i} of {payload}");
                let rest = &found[at + length.next_multiple_of(16)..at + payload];
                assert!(rest.iter().all(|&byte| byte == POISON), "past record {i} of {payload}");
            }
            assert!(found[got * payload..].iter().all(|&byte| byte == POISON), "past the pop of {payload}");
            first += got as u64;
        }
    }
}

#[test]
fn a_full_mailbox_accepts_what_fits_and_an_empty_one_gives_nothing() {
    let context = context();
    let mut random = Random::new();
    let stream = context.stream().unwrap();
    let mailbox = mailbox(&context, 64, 32);
    let (empty, _, _) = pop_records(&mailbox, 0, 10, stream.get());
    assert_eq!((empty.count, empty.status, empty.flags), (0, GMB_OK, GMB_RESULT_PARTIAL));
    let sent = random_records(&mut random, 100, 32);
    let pushed = push_records(&mailbox, &sent, stream.get());
    assert_eq!((pushed.count, pushed.status, pushed.flags), (64, GMB_OK, GMB_RESULT_PARTIAL));
    let more = push_records(&mailbox, &sent[64..], stream.get());
    assert_eq!((more.count, more.status), (0, GMB_OK));
    let (first, got, _) = pop_records(&mailbox, 0, 20, stream.get());
    assert_eq!((first.count, first.flags), (20, 0));
    assert_eq!(got, sent[..20]);
    let rest = push_records(&mailbox, &sent[64..], stream.get());
    assert_eq!(rest.count, 20);
    let (last, got, _) = pop_records(&mailbox, 0, 100, stream.get());
    assert_eq!(last.count, 64);
    assert_eq!(got, sent[20..84]);
    let info = mailbox.info().unwrap();
    assert_eq!((info.published, info.released), (84, 84));
    assert_eq!((info.rejected, info.empty_pops, info.high_water), (36 + 36 + 16, 1, 64));
}

#[test]
fn one_length_and_type_for_all_and_strided_rows() {
    let context = context();
    let mut random = Random::new();
    let stream = context.stream().unwrap();
    let mailbox = mailbox(&context, 64, 100);
    let (count, stride, length) = (50usize, 80usize, 72usize);
    let data = random.bytes(count * stride);
    let rows = upload(&context, &data);
    let push = Push {
        count: count as u32,
        records: rows.address(),
        stride: stride as u64,
        length: length as u32,
        msg_type: 77,
        ..Default::default()
    };
    let token = Token::new(&context).unwrap();
    assert_eq!(push_and_wait(&mailbox, &push, stream.get(), &token).count, 50);
    // Out again with gaps between rows, which must stay as they are.
    let out_stride = 160usize;
    let out = poisoned(&context, count * out_stride, POISON);
    let info = poisoned(&context, count * 16, POISON);
    let pop = Pop {
        max: 50,
        records: out.address(),
        stride: out_stride as u64,
        headers: info.address(),
        reader: 0,
    };
    assert_eq!(pop_and_wait(&mailbox, &pop, stream.get(), &token).count, 50);
    let got = download(&context, out.address(), count * out_stride);
    let heads = headers(&download(&context, info.address(), count * 16));
    for i in 0..count {
        let row = &got[i * out_stride..(i + 1) * out_stride];
        assert_eq!(row[..length], data[i * stride..i * stride + length], "record {i}");
        assert!(row[112..].iter().all(|&b| b == POISON), "gap after record {i}");
        assert_eq!((heads[i].sequence, heads[i].length, heads[i].msg_type), (i as u64 + 1, 72, 77));
    }
}

#[test]
fn records_of_length_zero_need_no_memory() {
    let context = context();
    let stream = context.stream().unwrap();
    let mailbox = mailbox(&context, 8, 16);
    let push = Push { count: 3, msg_type: 5, ..Default::default() };
    let token = Token::new(&context).unwrap();
    assert_eq!(push_and_wait(&mailbox, &push, stream.get(), &token).count, 3);
    let (result, got, _) = pop_records(&mailbox, 0, 8, stream.get());
    assert_eq!(result.count, 3);
    assert!(got.iter().all(|r| r.bytes.is_empty() && r.msg_type == 5));
}

#[test]
fn pops_without_headers_and_without_a_token() {
    let context = context();
    let mut random = Random::new();
    let stream = context.stream().unwrap();
    let mailbox = mailbox(&context, 16, 64);
    let sent: Vec<Item> = (0..10).map(|_| Item { bytes: random.bytes(64), msg_type: 0 }).collect();
    let batch = Batch::new(&context, &mailbox, &sent);
    let out = poisoned(&context, 64 * 16, POISON);
    let pop = Pop { max: 16, records: out.address(), ..Default::default() };
    unsafe {
        mailbox.push(&batch.push, stream.get(), None).unwrap();
        mailbox.pop(&pop, stream.get(), None).unwrap();
    }
    context.synchronize(stream.get()).unwrap();
    let got = download(&context, out.address(), 64 * 16);
    let expected: Vec<u8> = sent.iter().flat_map(|r| r.bytes.clone()).collect();
    assert_eq!(got[..640], expected);
    assert!(got[640..].iter().all(|&b| b == POISON));
}

#[test]
fn host_calls_round_trip() {
    let context = context();
    let mut random = Random::new();
    let mailbox = mailbox(&context, 32, 100);
    for round in 0..20 {
        let count = random.between(1, 40) as usize;
        let rows = random.bytes(count * 100);
        let lengths: Vec<u32> = (0..count).map(|_| random.between(0, 100) as u32).collect();
        let types: Vec<u32> = (0..count).map(|_| random.next() as u32).collect();
        let pushed = mailbox
            .push_from_host_blocking(
                &HostRows { rows: &rows, stride: 100, lengths: &lengths, types: &types },
                None,
            )
            .unwrap();
        assert_eq!(pushed.count as usize, count.min(32), "round {round}");
        assert_eq!(pushed.flags, if count > 32 { GMB_RESULT_PARTIAL } else { 0 });
        let mut out = vec![POISON; 40 * 120];
        let mut heads = vec![gmb_record_header::default(); 40];
        let popped = mailbox.pop_to_host_blocking(0, &mut out, 120, &mut heads).unwrap();
        assert_eq!(popped.count, pushed.count);
        for i in 0..popped.count as usize {
            assert_eq!((heads[i].length, heads[i].msg_type), (lengths[i], types[i]));
            let length = lengths[i] as usize;
            assert_eq!(out[i * 120..i * 120 + length], rows[i * 100..i * 100 + length]);
            assert!(out[i * 120 + length..(i + 1) * 120].iter().all(|&b| b == POISON));
        }
    }
}

#[test]
fn the_header_in_device_memory_is_the_documented_layout() {
    let context = context();
    let options = MailboxOptions {
        capacity: 256,
        payload_bytes: 100,
        producer_id: 11,
        consumer_id: 22,
        initial_index: u64::MAX - 3,
        ..Default::default()
    };
    let mailbox = Mailbox::new(&context, &options).unwrap();
    let info = mailbox.info().unwrap();
    let header = words(&download(&context, info.ring, size_of::<gmb_ring_header>()));
    assert_eq!(header[0], GMB_MAGIC);
    assert_eq!(header[1], u64::from(GMB_LAYOUT_VERSION) | (size_of::<gmb_ring_header>() as u64) << 32);
    assert_eq!((header[2], header[3]), (256, 256 * 128));
    assert_eq!(header[4], 128 | 100 << 32);
    assert_eq!(header[5], 11 | 22 << 32);
    assert_eq!(header[6], 1);
    assert_eq!((header[16], header[32]), (u64::MAX - 3, u64::MAX - 3));
    assert_eq!(info.ring_bytes, size_of::<gmb_ring_header>() as u64 + 256 * 128);
}
