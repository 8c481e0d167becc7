use super::support::*;
use gpumailbox::*;

/// What pair `pair` of words in record `index` holds: nothing that another record has.
fn content(index: u64, pair: u64) -> [u64; 2] {
    [index, index.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ pair.wrapping_mul(0x5851_f42d_4c95_7f2d)]
}

const BATCH: u64 = 512;

/// One producer and one consumer thread, each with a stream, pass `total` records of `pairs` pairs of words.
fn pass(arbitration: Arbitration, initial_index: u64, total: u64, pairs: u64) {
    let row = 16 * pairs as usize;
    let context = context();
    let mut random = Random::new();
    let options = MailboxOptions {
        capacity: 1024,
        payload_bytes: row as u32,
        arbitration,
        initial_index,
        ..Default::default()
    };
    let mailbox = Mailbox::new(&context, &options).unwrap();
    let (mut left, mut right) = (random.split(), random.split());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let stream = context.stream().unwrap();
            let token = Token::new(&context).unwrap();
            let staged = context.pinned_buffer(BATCH as usize * row).unwrap();
            let rows = context.device_buffer(BATCH as usize * row).unwrap();
            let view = unsafe {
                std::slice::from_raw_parts_mut(staged.address() as *mut [u64; 2], (BATCH * pairs) as usize)
            };
            let mut sent = 0;
            while sent < total {
                let count = left.between(1, BATCH).min(total - sent);
                for (i, place) in view.iter_mut().take((count * pairs) as usize).enumerate() {
                    *place = content(sent + i as u64 / pairs, i as u64 % pairs);
                }
                let push = Push {
                    count: count as u32,
                    records: rows.address(),
                    length: row as u32,
                    ..Default::default()
                };
                unsafe {
                    context
                        .copy(rows.address(), staged.address(), count as usize * row, stream.get())
                        .unwrap();
                    mailbox.push(&push, stream.get(), Some(&token)).unwrap();
                }
                let result = token.wait(After::Submission, None).unwrap();
                assert_eq!(result.status, GMB_OK);
                sent += u64::from(result.count);
            }
        });
        scope.spawn(|| {
            let stream = context.stream().unwrap();
            let token = Token::new(&context).unwrap();
            let rows = context.device_buffer(BATCH as usize * row).unwrap();
            let heads = context.device_buffer(BATCH as usize * 16).unwrap();
            let staged = context.pinned_buffer(BATCH as usize * (row + 16)).unwrap();
            // What no pop has written is copied, too.
            for buffer in [&rows, &heads] {
                unsafe { context.fill(buffer.address(), POISON, buffer.bytes(), stream.get()).unwrap() };
            }
            let (bytes, heads_at) = (BATCH as usize * row, staged.address() + BATCH * row as u64);
            let view = unsafe {
                std::slice::from_raw_parts(staged.address() as *const [u64; 2], (BATCH * pairs) as usize)
            };
            let info =
                unsafe { std::slice::from_raw_parts(heads_at as *const gmb_record_header, BATCH as usize) };
            let mut got = 0u64;
            while got < total {
                let max = right.between(1, BATCH) as u32;
                let pop =
                    Pop { max, records: rows.address(), stride: 0, headers: heads.address(), reader: 0 };
                unsafe {
                    mailbox.pop(&pop, stream.get(), Some(&token)).unwrap();
                    context.copy(staged.address(), rows.address(), bytes, stream.get()).unwrap();
                    context.copy(heads_at, heads.address(), BATCH as usize * 16, stream.get()).unwrap();
                }
                context.synchronize(stream.get()).unwrap();
                let result = token.poll().unwrap().expect("ready after a synchronize");
                assert_eq!(result.status, GMB_OK);
                assert!(result.count <= max);
                for i in 0..result.count as usize {
                    let index = got + i as u64;
                    for pair in 0..pairs {
                        let found = view[i * pairs as usize + pair as usize];
                        assert_eq!(found, content(index, pair), "record {index}, pair {pair}");
                    }
                    let expected = gmb_record_header {
                        sequence: initial_index.wrapping_add(index).wrapping_add(1),
                        length: row as u32,
                        msg_type: 0,
                    };
                    assert_eq!(info[i], expected);
                }
                got += u64::from(result.count);
            }
        });
    });
    let end = initial_index.wrapping_add(total);
    let info = mailbox.info().unwrap();
    assert_eq!((info.published, info.released), (end, end));
}

#[test]
fn ten_million_records_cpu_arbitrated() {
    pass(Arbitration::Cpu, 0, total_records(), 1);
}

#[test]
fn ten_million_records_device_arbitrated() {
    pass(Arbitration::Device, 0, total_records(), 1);
}

#[test]
fn ten_million_records_across_index_2_to_32() {
    pass(Arbitration::Device, (1 << 32) - total_records() / 2, total_records(), 1);
}

#[test]
fn ten_million_records_across_index_2_to_64() {
    pass(Arbitration::Cpu, (total_records() / 2).wrapping_neg(), total_records(), 1);
}

/// Records that take several blocks, so that blocks of a push and of a pop beside it see different counts.
#[test]
fn blocks_beside_blocks() {
    // Where blocks must see different rooms by chance, often enough.
    let total = (total_records() / 10).max(total_records().min(300_000));
    pass(Arbitration::Device, 0, total, 15);
}

/// So many records at once that blocks draw them in tiles, over the ring's end and for each of two readers.
#[test]
fn large_operations_draw_their_tiles() {
    const MOST: u64 = 1_000_000;
    let context = context();
    let mut random = Random::new();
    let options = MailboxOptions { capacity: 1 << 20, payload_bytes: 16, readers: 2, ..Default::default() };
    let mailbox = Mailbox::new(&context, &options).unwrap();
    let stream = context.stream().unwrap();
    let token = Token::new(&context).unwrap();
    let out = context.device_buffer(MOST as usize * 16).unwrap();
    let mut sent = 0;
    for _ in 0..4 {
        let count = random.between(MOST - 100_000, MOST);
        let words: Vec<u8> =
            (sent..sent + count).flat_map(|i| content(i, 0)).flat_map(u64::to_ne_bytes).collect();
        let rows = upload(&context, &words);
        let push = Push { count: count as u32, records: rows.address(), length: 16, ..Default::default() };
        let result = push_and_wait(&mailbox, &push, stream.get(), &token);
        assert_eq!((u64::from(result.count), result.status), (count, GMB_OK));
        for reader in 0..2 {
            unsafe { context.fill(out.address(), POISON, MOST as usize * 16, stream.get()) }.unwrap();
            // More than there are: the blocks must agree on where the records end.
            let pop = Pop { max: MOST as u32, records: out.address(), reader, ..Default::default() };
            let result = pop_and_wait(&mailbox, &pop, stream.get(), &token);
            assert_eq!((u64::from(result.count), result.status), (count, GMB_OK));
            let got = download(&context, out.address(), words.len());
            let wrong = got.chunks(16).zip(words.chunks(16)).position(|(a, b)| a != b);
            assert_eq!(wrong, None, "the first wrong record of {count}, reader {reader}");
        }
        sent += count;
    }
}
