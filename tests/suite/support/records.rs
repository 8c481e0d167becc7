//! Records, what moves them, and what should come of them.

use super::*;

/// One record as the test knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    pub bytes: Vec<u8>,
    pub msg_type: u32,
}

/// Records laid out for a push, in device memory.
pub struct Batch {
    _memory: [DeviceBuffer; 3],
    pub push: Push,
}

impl Batch {
    pub fn new(context: &Context, mailbox: &Mailbox, records: &[Item]) -> Self {
        let row = mailbox.row_bytes() as usize;
        let mut rows = vec![0xAB; row * records.len()];
        for (record, to) in records.iter().zip(rows.chunks_exact_mut(row)) {
            to[..record.bytes.len()].copy_from_slice(&record.bytes);
        }
        let lengths: Vec<u32> = records.iter().map(|r| r.bytes.len() as u32).collect();
        let types: Vec<u32> = records.iter().map(|r| r.msg_type).collect();
        let (rows, lengths, types) =
            (upload(context, &rows), upload(context, &lengths), upload(context, &types));
        let push = Push {
            count: records.len() as u32,
            records: rows.address(),
            lengths: lengths.address(),
            types: types.address(),
            ..Default::default()
        };
        Self { _memory: [rows, lengths, types], push }
    }
}

pub fn random_records(random: &mut Random, count: usize, payload: u32) -> Vec<Item> {
    (0..count)
        .map(|_| {
            let length = random.between(0, u64::from(payload)) as usize;
            Item { bytes: random.bytes(length), msg_type: random.next() as u32 }
        })
        .collect()
}

/// Poisoned room for a pop, and what came out of it.
pub struct Outlet {
    pub rows: DeviceBuffer,
    pub headers: DeviceBuffer,
    pub pop: Pop,
    row: usize,
}

impl Outlet {
    pub fn new(context: &Context, mailbox: &Mailbox, max: u32) -> Self {
        let row = mailbox.row_bytes() as usize;
        let rows = poisoned(context, row * max as usize, POISON);
        let headers = poisoned(context, 16 * max as usize, POISON);
        let pop = Pop { max, records: rows.address(), stride: 0, headers: headers.address(), reader: 0 };
        Self { rows, headers, pop, row }
    }

    /// The first `count` records and their sequences.
    pub fn records(&self, context: &Context, count: u32) -> (Vec<Item>, Vec<u64>) {
        let rows = download(context, self.rows.address(), self.rows.bytes());
        let raw = download(context, self.headers.address(), self.pop.max as usize * 16);
        let parsed = headers(&raw[..16 * count as usize]);
        let records = parsed
            .iter()
            .zip(rows.chunks_exact(self.row))
            .map(|(h, row)| Item { bytes: row[..h.length as usize].to_vec(), msg_type: h.msg_type })
            .collect();
        (records, parsed.iter().map(|h| h.sequence).collect())
    }

    /// Checks that nothing behind the first `count` records was written. Holds
    /// where no push ran beside the pop.
    pub fn check_untouched_past(&self, context: &Context, count: u32) {
        let max = self.pop.max as usize;
        let rows = download(context, self.rows.address(), self.row * max);
        let raw = download(context, self.headers.address(), max * 16);
        assert!(
            raw[16 * count as usize..].iter().all(|&b| b == POISON),
            "headers past the count were written"
        );
        assert!(
            rows[self.row * count as usize..].iter().all(|&b| b == POISON),
            "rows past the count were written"
        );
    }
}

pub fn words(bytes: &[u8]) -> Vec<u64> {
    bytes.chunks_exact(8).map(|b| u64::from_ne_bytes(b.try_into().unwrap())).collect()
}

pub fn headers(bytes: &[u8]) -> Vec<gmb_record_header> {
    bytes
        .chunks_exact(16)
        .map(|b| gmb_record_header {
            sequence: u64::from_ne_bytes(b[..8].try_into().unwrap()),
            length: u32::from_ne_bytes(b[8..12].try_into().unwrap()),
            msg_type: u32::from_ne_bytes(b[12..].try_into().unwrap()),
        })
        .collect()
}

/// A push of rows of 16 bytes.
pub fn push_of(rows: &DeviceBuffer, count: u32) -> Push {
    Push { count, records: rows.address(), length: 16, ..Default::default() }
}

/// A push, and what it told.
pub fn push_and_wait(mailbox: &Mailbox, push: &Push, stream: Stream, token: &Token) -> gmb_result {
    unsafe { mailbox.push(push, stream, Some(token)) }.unwrap();
    token.wait(After::Submission, None).unwrap()
}

/// A pop, and what it told.
pub fn pop_and_wait(mailbox: &Mailbox, pop: &Pop, stream: Stream, token: &Token) -> gmb_result {
    unsafe { mailbox.pop(pop, stream, Some(token)) }.unwrap();
    token.wait(After::Submission, None).unwrap()
}

/// Pushes records from device memory of their own.
pub fn push_records(mailbox: &Mailbox, records: &[Item], stream: Stream) -> gmb_result {
    let batch = Batch::new(mailbox.context(), mailbox, records);
    push_and_wait(mailbox, &batch.push, stream, &Token::new(mailbox.context()).unwrap())
}

/// Pops for a reader: the result, the records and their sequences. What lies behind them must be as it was.
pub fn pop_records(
    mailbox: &Mailbox,
    reader: u32,
    max: u32,
    stream: Stream,
) -> (gmb_result, Vec<Item>, Vec<u64>) {
    let context = mailbox.context();
    let outlet = Outlet::new(context, mailbox, max);
    let pop = Pop { reader, ..outlet.pop };
    let result = pop_and_wait(mailbox, &pop, stream, &Token::new(context).unwrap());
    assert_eq!(result.status, GMB_OK);
    let (records, sequences) = outlet.records(context, result.count);
    outlet.check_untouched_past(context, result.count);
    (result, records, sequences)
}

/// What `work` puts into the stream, as a graph.
pub fn captured(context: &Context, stream: Stream, work: impl FnOnce()) -> Graph {
    context.begin_capture(stream, CaptureMode::Global).unwrap();
    work();
    context.end_capture(stream).unwrap()
}

/// The result of the launch with this number, counted from 1.
pub fn of_launch(token: &Token, number: u32) -> gmb_result {
    let result = token.wait(After::Epoch(number - 1), Some(LIMIT)).unwrap();
    assert_eq!(result.epoch, number, "one epoch a launch");
    result
}

/// A context, a stream and rows, for tests that are not about what the records hold.
pub struct Bed {
    pub context: Context,
    pub stream: OwnedStream,
    pub rows: DeviceBuffer,
}

impl Bed {
    pub fn new() -> Self {
        let context = context();
        let (stream, rows) = (context.stream().unwrap(), poisoned(&context, 16 * 64, 9));
        Self { context, stream, rows }
    }

    pub fn push(&self, mailbox: &Mailbox, count: u32) {
        let push = Push { count, records: self.rows.address(), length: 16, ..Default::default() };
        unsafe { mailbox.push(&push, self.stream.get(), None) }.unwrap();
    }

    pub fn pop(&self, mailbox: &Mailbox, reader: u32, max: u32) {
        let pop = Pop { max, records: self.rows.address(), reader, ..Default::default() };
        unsafe { mailbox.pop(&pop, self.stream.get(), None) }.unwrap();
    }

    pub fn finish(&self) {
        self.context.synchronize(self.stream.get()).unwrap();
    }
}

/// What a mailbox of one reader should do, record by record.
pub struct Model {
    pub policy: FullPolicy,
    pub capacity: u64,
    /// All records ever published, by index.
    pub records: Vec<Item>,
    pub released: u64,
}

impl Model {
    pub fn new(policy: FullPolicy, capacity: u64) -> Self {
        Self { policy, capacity, records: Vec::new(), released: 0 }
    }

    /// How many are accepted.
    pub fn push(&mut self, records: &[Item]) -> u64 {
        let held = self.records.len() as u64 - self.released;
        let accepted = match self.policy {
            FullPolicy::Reject => (records.len() as u64).min(self.capacity - held),
            FullPolicy::Wait | FullPolicy::OverwriteOldest | FullPolicy::Latest => records.len() as u64,
        };
        self.records.extend_from_slice(&records[..accepted as usize]);
        accepted
    }

    pub fn room(&self) -> u64 {
        self.capacity - (self.records.len() as u64 - self.released)
    }

    /// First index, records and losses of a pop.
    pub fn pop(&mut self, max: u64) -> (u64, Vec<Item>, u64) {
        let published = self.records.len() as u64;
        let (first, count) = match self.policy {
            FullPolicy::Reject | FullPolicy::Wait => (self.released, max.min(published - self.released)),
            FullPolicy::OverwriteOldest => {
                let first = self.released.max(published.saturating_sub(self.capacity));
                (first, max.min(published - first))
            }
            FullPolicy::Latest => match published > self.released {
                true => (published - 1, 1),
                false => (self.released, 0),
            },
        };
        let lost = first - self.released;
        self.released = first + count;
        (first, self.records[first as usize..(first + count) as usize].to_vec(), lost)
    }
}
