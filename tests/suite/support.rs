//! What every test needs: a context of the backend under test, memory that
//! can be filled and read, randomness with a printed seed, and a gate.

use std::sync::mpsc::{channel, Sender};
use std::time::Duration;

use gpumailbox::*;

/// The backend under test.
pub fn backend() -> BackendKind {
    match std::env::var("GMB_TEST_BACKEND").as_deref() {
        Ok("cuda") => BackendKind::Cuda,
        Err(_) if std::env::var_os("GMB_REQUIRE_CUDA").is_some_and(|v| v == "1") => BackendKind::Cuda,
        Ok("host") | Err(_) => BackendKind::Host,
        Ok(other) => panic!("GMB_TEST_BACKEND={other}"),
    }
}

/// A context of the backend under test; a missing device fails the test.
pub fn context() -> Context {
    Context::new(&ContextOptions { backend: backend(), ..Default::default() })
        .expect("the backend under test")
}

/// As [`context`], by its handle in C; the test ends it.
pub fn c_context(memory_limit: u64) -> capi::context::gmb_context {
    use capi::context::*;
    let options = gmb_context_options {
        struct_size: size_of::<gmb_context_options>() as u32,
        backend: if backend() == BackendKind::Cuda { GMB_BACKEND_CUDA } else { GMB_BACKEND_HOST },
        device: 0,
        reserved: 0,
        memory_limit,
    };
    let mut context = gmb_context { id: 0 };
    assert_eq!(gmb_context_create(&options, &mut context), GMB_OK);
    context
}

pub fn mailbox(context: &Context, capacity: u64, payload_bytes: u32) -> Mailbox {
    Mailbox::new(context, &MailboxOptions { capacity, payload_bytes, ..Default::default() }).unwrap()
}

/// Records for the long tests: 10 million, or what `GMB_TEST_RECORDS` says.
pub fn total_records() -> u64 {
    std::env::var("GMB_TEST_RECORDS").ok().and_then(|n| n.parse().ok()).unwrap_or(10_000_000)
}

/// SplitMix64; the seed is printed so that a failure can be run again with `GMB_TEST_SEED`.
pub struct Random(u64);

impl Random {
    pub fn new() -> Self {
        let seed = std::env::var("GMB_TEST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(|| {
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64
        });
        println!("GMB_TEST_SEED={seed}");
        Self(seed)
    }

    pub fn split(&mut self) -> Self {
        Self(self.next())
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// From `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}

/// Device memory with the given content; the call waits for the copy.
pub fn upload<T: Copy>(context: &Context, data: &[T]) -> DeviceBuffer {
    let bytes = std::mem::size_of_val(data);
    let buffer = context.device_buffer(bytes.max(16)).unwrap();
    let stream = context.stream().unwrap();
    unsafe { context.copy(buffer.address(), data.as_ptr() as u64, bytes, stream.get()).unwrap() };
    context.synchronize(stream.get()).unwrap();
    buffer
}

/// Device memory of which every byte is `value`.
pub fn poisoned(context: &Context, bytes: usize, value: u8) -> DeviceBuffer {
    upload(context, &vec![value; bytes])
}

/// The content of device memory; waits for nothing but the copy.
pub fn download(context: &Context, address: u64, bytes: usize) -> Vec<u8> {
    let mut data = vec![0u8; bytes];
    if bytes > 0 {
        let stream = context.stream().unwrap();
        unsafe { context.copy(data.as_mut_ptr() as u64, address, bytes, stream.get()).unwrap() };
        context.synchronize(stream.get()).unwrap();
    }
    data
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

/// Stops a stream until it is opened, or dropped. Behind a closed gate nothing
/// may be freed: on a GPU that waits for the whole device.
pub struct Gate(#[allow(dead_code)] Sender<()>);

impl Gate {
    pub fn close(context: &Context, stream: Stream) -> Self {
        let (opener, opened) = channel::<()>();
        context
            .run_in_order(stream, move || {
                let _ = opened.recv();
            })
            .unwrap();
        Gate(opener)
    }

    pub fn open(self) {}
}

/// What must not happen can only be given time: a second, ample on a loaded machine.
/// A test that fails does not need all of it.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// The token's operation is not there in all that time.
pub fn does_not_come(token: &Token, what: &str) {
    let early = token.wait(After::Submission, Some(PATIENCE));
    assert_eq!(early.map_err(|error| error.status()), Err(GMB_ERROR_TIMEOUT), "{what}");
}

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

/// Runs one test of this program in a process of its own, with more in its environment.
pub fn child_passes(test: &str, environment: &[(&str, &str)]) {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).envs(environment.iter().copied());
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{test} with {environment:?}: {text}{words}"
    );
}

/// Calls a function of the CUDA driver with up to three arguments, each in a register.
pub fn driver(name: &str, arguments: [usize; 3]) -> i32 {
    let library = unsafe { libc::dlopen(c"libcuda.so.1".as_ptr(), libc::RTLD_NOW) };
    let symbol = std::ffi::CString::new(name).unwrap();
    let address = unsafe { libc::dlsym(library, symbol.as_ptr()) };
    assert!(!address.is_null(), "the driver has no {name}");
    type Call = unsafe extern "C" fn(usize, usize, usize) -> i32;
    let call = unsafe { std::mem::transmute::<*mut std::ffi::c_void, Call>(address) };
    let [first, second, third] = arguments;
    unsafe { call(first, second, third) }
}

pub const POISON: u8 = 0xCD;

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
