//! Tensors handed over by pointer: a producer makes them in its own stream, a consumer uses each on two streams,
//! and it goes back to the producer when both are done with it. `c_examples/handoff.c` and `handoff.cpp` do the
//! same and print the same.
#![allow(clippy::print_stdout)]

use gpumailbox::{
    gmb_dtype, Context, ContextOptions, DeviceBuffer, FullPolicy, PinnedBuffer, Tensor, TensorMailbox,
    TensorMailboxInfo, TensorMailboxOptions,
};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const TENSORS: u64 = 200;
const CAPACITY: u64 = 16;
const MOST_DIMENSIONS: u64 = 4;
/// Of a dimension.
const MOST_SIZE: u64 = 8;
const MOST_BYTES: usize = MOST_SIZE.pow(MOST_DIMENSIONS as u32) as usize * size_of::<f32>();
const MOST_POLLS: u32 = 100_000_000;
/// Should one side fail, the other ends, too.
const LIMIT: Option<Duration> = Some(Duration::from_secs(60));

const FLOAT: gmb_dtype = gmb_dtype { code: 2, bits: 32, lanes: 1 };

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn must(condition: bool, what: &str) -> Outcome<()> {
    if condition {
        Ok(())
    } else {
        Err(what.into())
    }
}

static GIVEN_BACK: AtomicU64 = AtomicU64::new(0);

/// A tensor's memory. The library drops it, on a thread of its own, when nobody uses the tensor any more.
struct Owned(DeviceBuffer);

impl Drop for Owned {
    fn drop(&mut self) {
        GIVEN_BACK.fetch_add(1, Ordering::AcqRel);
    }
}

fn content_of(number: u64) -> u8 {
    1 + (number % 250) as u8
}

fn shape_of(number: u64) -> Vec<i64> {
    let dimensions = 1 + number % MOST_DIMENSIONS;
    (0..dimensions).map(|i| (1 + (number + 3 * i) % MOST_SIZE) as i64).collect()
}

fn elements_of(number: u64) -> usize {
    shape_of(number).iter().product::<i64>() as usize
}

/// `pushed` gets the addresses; each is written before its push, and read after its pop.
fn produce(context: &Context, mailbox: &TensorMailbox, pushed: &[AtomicU64]) -> Outcome<()> {
    let stream = context.stream()?;
    for number in 0..TENSORS {
        let bytes = elements_of(number) * size_of::<f32>();
        let memory = Owned(context.device_buffer(bytes)?);
        let address = memory.0.address();
        pushed[number as usize].store(address, Ordering::Release);
        // SAFETY: the memory goes with the tensor, which stays until the consumer's streams, behind this one, are done.
        unsafe { context.fill(address, content_of(number), bytes, stream.get())? };
        let tensor = Tensor::new(memory, context, address, FLOAT, &shape_of(number), None)?;
        // The fill may still be under way: the consumer's streams will wait for it, no thread does.
        mailbox.push(tensor, number, stream.get(), LIMIT).map_err(|refused| refused.error)?;
    }
    Ok(())
}

/// No copy that was enqueued may still write to the buffer.
fn bytes_of(buffer: &PinnedBuffer, count: usize) -> &[u8] {
    // SAFETY: zeroed or written by a copy, and at least of that size.
    unsafe { std::slice::from_raw_parts(buffer.address() as *const u8, count) }
}

/// Those under way come back when a thread of the library has seen that their streams are done.
fn when_all_are_back(mailbox: &TensorMailbox) -> TensorMailboxInfo {
    let mut info = mailbox.info();
    for _ in 0..MOST_POLLS {
        if info.released == info.pushed && info.leases == 0 {
            break;
        }
        std::thread::yield_now();
        info = mailbox.info();
    }
    info
}

/// How many elements came, and how many pointers were equal.
fn consume(context: &Context, mailbox: &TensorMailbox, pushed: &[AtomicU64]) -> Outcome<(usize, u64)> {
    let streams = [context.stream()?, context.stream()?];
    let seen = [context.pinned_buffer(MOST_BYTES)?, context.pinned_buffer(MOST_BYTES)?];
    let (mut elements, mut equal) = (0, 0);
    for number in 0..TENSORS {
        let bytes = elements_of(number) * size_of::<f32>();
        let lease = mailbox.pop_within(streams[0].get(), LIMIT)?.ok_or("no tensor came")?;
        let record = lease.record();
        must(record.tag == number, "the tensors should come in order")?;
        must(record.shape[..record.ndim as usize] == shape_of(number), "it should have its shape")?;
        equal += u64::from(record.address == pushed[number as usize].load(Ordering::Acquire));
        elements += elements_of(number);

        // The second stream comes after the producer's work, too, and its use of the tensor is waited for.
        lease.use_on(streams[1].get())?;
        for (stream, seen) in streams.iter().zip(&seen) {
            let from = record.address + record.byte_offset;
            // SAFETY: the buffer is large enough and is not used before the stream is done; the lease knows the stream.
            unsafe { context.copy(seen.address(), from, bytes, stream.get())? };
        }
        // Both copies may still be under way: the memory stays until they are done.
        drop(lease);
        for (stream, seen) in streams.iter().zip(&seen) {
            context.synchronize(stream.get())?;
            let filled = bytes_of(seen, bytes).iter().all(|&byte| byte == content_of(number));
            must(filled, "it should be filled")?;
        }
    }
    Ok((elements, equal))
}

fn main() -> Outcome<()> {
    let context = Context::new(&ContextOptions::default())?;
    let options = TensorMailboxOptions {
        capacity: CAPACITY,
        full_policy: FullPolicy::Wait,
        ..TensorMailboxOptions::default()
    };
    let mailbox = TensorMailbox::new(&context, &options)?;
    let pushed: Vec<AtomicU64> = (0..TENSORS).map(|_| AtomicU64::new(0)).collect();

    let (elements, equal) = std::thread::scope(|scope| {
        let producer = scope.spawn(|| produce(&context, &mailbox, &pushed));
        let consumed = consume(&context, &mailbox, &pushed);
        producer.join().map_err(|_| "the producer panicked")??;
        consumed
    })?;
    let info = when_all_are_back(&mailbox);
    let given_back = GIVEN_BACK.load(Ordering::Acquire);
    println!("{} tensors handed over, {elements} elements, all seen on two streams", info.popped);
    println!("{equal} pointers equal, {given_back} given back, {} leases out", info.leases);
    let came = info.popped == TENSORS && equal == TENSORS && info.leases == 0;
    must(came, "every tensor should have come as it was pushed")?;
    must(info.released == TENSORS && given_back == TENSORS, "every tensor should have gone back")
}
