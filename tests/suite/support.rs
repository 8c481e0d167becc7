//! What every test needs: a context of the backend under test, memory that can be filled and read, randomness with a
//! printed seed, a gate, and ways to wait; in the files below, records, tensors, and processes with drivers of their own.

mod driver;
mod pipeline;
mod records;
mod tensors;

use std::fmt::Display;
use std::sync::mpsc::{channel, Sender};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use gpumailbox::*;

pub use driver::*;
pub use pipeline::*;
pub use records::*;
pub use tensors::*;

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
    limited_context(0)
}

/// As [`context`], with a limit of device memory; 0 is none.
pub fn limited_context(memory_limit: u64) -> Context {
    Context::new(&ContextOptions { backend: backend(), memory_limit, ..Default::default() })
        .expect("the backend under test")
}

/// As [`context`], by its handle in C; the test ends it.
pub fn c_context(memory_limit: u64) -> capi::context::gmb_context {
    use capi::context::*;
    let options = gmb_context_options {
        struct_size: size_of::<gmb_context_options>() as u32,
        backend: if backend() == BackendKind::Cuda { GMB_BACKEND_CUDA } else { GMB_BACKEND_HOST },
        device: 0,
        resident_percent: 0,
        memory_limit,
    };
    let mut context = gmb_context { id: 0 };
    assert_eq!(gmb_context_create(&options, &mut context), GMB_OK);
    context
}

/// What kernels that stay may hold of a GPU is one budget for all contexts of a process, so for all tests of it.
static BUDGET: RwLock<()> = RwLock::new(());

/// For a test that starts workers or arbiters: none that takes the whole budget runs beside it.
pub fn some_of_the_budget() -> RwLockReadGuard<'static, ()> {
    BUDGET.read().unwrap_or_else(PoisonError::into_inner)
}

/// For a test that counts on all of the budget: nobody else has any of it.
pub fn all_of_the_budget() -> RwLockWriteGuard<'static, ()> {
    BUDGET.write().unwrap_or_else(PoisonError::into_inner)
}

/// Options in C: records of 16 bytes.
pub fn c_options(capacity: u64, full_policy: gmb_full_policy) -> capi::mailbox::gmb_mailbox_options {
    capi::mailbox::gmb_mailbox_options {
        struct_size: size_of::<capi::mailbox::gmb_mailbox_options>() as u32,
        payload_bytes: 16,
        capacity,
        arbitration: 0,
        full_policy,
        producer_id: 0,
        consumer_id: 0,
        initial_index: 0,
        flags: 0,
        readers: 0,
    }
}

pub fn c_mailbox(
    context: capi::context::gmb_context,
    options: &capi::mailbox::gmb_mailbox_options,
) -> capi::mailbox::gmb_mailbox {
    let mut mailbox = capi::mailbox::gmb_mailbox { id: 0 };
    assert_eq!(capi::mailbox::gmb_mailbox_create(context, options, &mut mailbox), GMB_OK);
    mailbox
}

pub fn streams<const N: usize>(context: &Context) -> [OwnedStream; N] {
    std::array::from_fn(|_| context.stream().unwrap())
}

pub fn tokens<const N: usize>(context: &Context) -> [Token; N] {
    std::array::from_fn(|_| Token::new(context).unwrap())
}

pub fn mailbox(context: &Context, capacity: u64, payload_bytes: u32) -> Mailbox {
    Mailbox::new(context, &MailboxOptions { capacity, payload_bytes, ..Default::default() }).unwrap()
}

pub fn with_policy(context: &Context, full_policy: FullPolicy, capacity: u64, payload_bytes: u32) -> Mailbox {
    let options = MailboxOptions { capacity, payload_bytes, full_policy, ..Default::default() };
    Mailbox::new(context, &options).unwrap()
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

/// What no operation writes.
pub const POISON: u8 = 0xCD;

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

/// What must happen has this long, on any machine.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Waits for what other threads or the device do; `what` is said when it does not come.
pub fn until<T: Display>(what: impl Fn() -> T, mut seen: impl FnMut() -> bool) {
    let start = Instant::now();
    while !seen() {
        assert!(start.elapsed() < LIMIT, "{}", what());
        std::thread::yield_now();
    }
}

/// What must not happen can only be given time: a second, ample on a loaded machine.
/// A test that fails does not need all of it.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// It is not seen in all that time.
pub fn stays_out(what: &str, mut seen: impl FnMut() -> bool) {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        assert!(!seen(), "{what}");
        std::thread::yield_now();
    }
}

/// The token's operation is not there in all that time.
pub fn does_not_come(token: &Token, what: &str) {
    let early = token.wait(After::Submission, Some(PATIENCE));
    assert_eq!(early.map_err(|error| error.status()), Err(GMB_ERROR_TIMEOUT), "{what}");
}
