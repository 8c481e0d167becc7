//! A relay: a sensor module passes readings to a monitor module through one mailbox, each on a stream
//! of its own. `c_examples/relay.c` and `relay.cpp` do the same and print the same.
#![allow(clippy::print_stdout)]

use gpumailbox::{
    After, Context, ContextOptions, DeviceBuffer, Event, EventKind, Mailbox, MailboxOptions, OwnedStream,
    PinnedBuffer, Pop, Push, Stream, Token, GMB_OK,
};

const BATCH: usize = 4;
const ROUNDS: u64 = 3;

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn must(condition: bool, what: &str) -> Outcome<()> {
    if condition {
        Ok(())
    } else {
        Err(what.into())
    }
}

/// Records are a multiple of 16 bytes.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
struct Reading {
    number: u64,
    celsius: f64,
}

const READING: usize = size_of::<Reading>();

/// Readings in pinned memory, that only this module and the operations it has enqueued use.
struct Rows(PinnedBuffer);

impl Rows {
    fn new(context: &Context, count: usize) -> Outcome<Self> {
        Ok(Self(context.pinned_buffer(count * READING)?))
    }

    fn len(&self) -> usize {
        self.0.bytes() / READING
    }

    /// No operation that was enqueued may still use the rows.
    fn all(&mut self) -> &mut [Reading] {
        // SAFETY: zeroed or written by us or a pop, aligned, and of that size; every pattern is a reading.
        unsafe { std::slice::from_raw_parts_mut(self.0.address() as *mut Reading, self.len()) }
    }
}

struct Sensor {
    stream: OwnedStream,
    sent: Event,
    readings: Rows,
    on_device: DeviceBuffer,
    made: u64,
}

impl Sensor {
    fn new(context: &Context) -> Outcome<Self> {
        Ok(Self {
            stream: context.stream()?,
            sent: context.event(EventKind::Untimed)?,
            readings: Rows::new(context, BATCH)?,
            on_device: context.device_buffer(BATCH * READING)?,
            made: 0,
        })
    }

    /// Enqueues a batch and does not wait for it.
    fn send(&mut self, context: &Context, mailbox: &Mailbox) -> Outcome<()> {
        let _guard = context.guard(self.stream.get())?;
        // The rows may be written again once the last push is done; the first time there was none.
        self.sent.synchronize(None)?;
        for reading in self.readings.all() {
            *reading = Reading { number: self.made, celsius: 20.0 + 0.25 * self.made as f64 };
            self.made += 1;
        }
        let push = Push {
            count: BATCH as u32,
            records: self.on_device.address(),
            length: READING as u32,
            ..Push::default()
        };
        let (to, from) = (self.on_device.address(), self.readings.0.address());
        // SAFETY: both buffers have that size, and stay as they are until the event is reached.
        unsafe {
            context.copy(to, from, BATCH * READING, Stream::CURRENT)?;
            mailbox.push(&push, Stream::CURRENT, None)?;
        }
        Ok(self.sent.record(Stream::CURRENT)?)
    }
}

struct Monitor {
    stream: OwnedStream,
    received: Token,
    readings: Rows,
    seen: u64,
}

impl Monitor {
    fn new(context: &Context) -> Outcome<Self> {
        Ok(Self {
            stream: context.stream()?,
            received: Token::new(context)?,
            readings: Rows::new(context, 2 * BATCH)?,
            seen: 0,
        })
    }

    /// Takes what has come; the mailbox orders its pops after its pushes, whatever their streams.
    fn receive(&mut self, context: &Context, mailbox: &Mailbox, round: u64) -> Outcome<()> {
        let _guard = context.guard(self.stream.get())?;
        let pop = Pop { max: 2 * BATCH as u32, records: self.readings.0.address(), ..Pop::default() };
        // SAFETY: there are that many rows, and they are not used before the token is ready.
        unsafe { mailbox.pop(&pop, Stream::CURRENT, Some(&self.received))? };
        let popped = self.received.wait(After::Submission, None)?;
        must(popped.status == GMB_OK, "the pop should have found nothing wrong")?;
        let count = popped.count as usize;
        must(count == BATCH, "a batch should have come")?;
        let mut sum = 0.0;
        for reading in &self.readings.all()[..count] {
            must(reading.number == self.seen, "the readings should come in order")?;
            self.seen += 1;
            sum += reading.celsius;
        }
        let (first, last) = (self.seen - count as u64, self.seen - 1);
        println!("round {round}: {count} readings, {first} to {last}, mean {:.3}", sum / count as f64);
        Ok(())
    }
}

fn main() -> Outcome<()> {
    let context = Context::new(&ContextOptions::default())?;
    let options = MailboxOptions { capacity: 8, payload_bytes: READING as u32, ..Default::default() };
    let mailbox = Mailbox::new(&context, &options)?;
    let mut from = Sensor::new(&context)?;
    let mut to = Monitor::new(&context)?;
    for round in 0..ROUNDS {
        from.send(&context, &mailbox)?;
        to.receive(&context, &mailbox, round)?;
    }
    must(from.made == to.seen, "every reading should have come")?;
    println!("ok: {} readings passed", to.seen);
    Ok(())
}
