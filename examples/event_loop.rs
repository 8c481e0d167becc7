//! A mailbox in a tokio program: the task sleeps until records are there. `c_examples/epoll.c` does the same with epoll.
#![allow(clippy::print_stdout)]

use gpumailbox::{
    After, Context, ContextOptions, Interest, Mailbox, MailboxOptions, Pop, Push, Token, Watch,
};
use std::os::fd::OwnedFd;
use tokio::io::unix::AsyncFd;

const BATCH: u32 = 8;
const ROUNDS: u32 = 100;

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Waits until a reader has records, and takes them.
struct Inbox<'a> {
    mailbox: &'a Mailbox,
    watch: Watch,
    descriptor: AsyncFd<OwnedFd>,
    token: Token,
}

impl<'a> Inbox<'a> {
    fn new(context: &Context, mailbox: &'a Mailbox) -> Outcome<Self> {
        let watch = mailbox.watch(Interest::Readable { reader: 0 })?;
        // SAFETY: the descriptor is open and owned here for as long as it is registered.
        let descriptor = unsafe { AsyncFd::register(watch.try_clone_fd()?)? };
        Ok(Self { mailbox, watch, descriptor, token: Token::new(context)? })
    }

    /// How many records came; at least one.
    async fn next(&self, pop: &Pop, stream: gpumailbox::Stream<'_>) -> Outcome<u32> {
        self.watch.arm(1)?;
        self.descriptor.readable().await?.clear_ready();
        // SAFETY: the caller's rows outlive the wait below.
        unsafe { self.mailbox.pop(pop, stream, Some(&self.token))? };
        Ok(self.token.wait(After::Submission, None)?.count)
    }
}

fn main() -> Outcome<()> {
    let context = Context::new(&ContextOptions::default())?;
    let options = MailboxOptions { capacity: 16, payload_bytes: 16, ..Default::default() };
    let mailbox = Mailbox::new(&context, &options)?;
    let (out, rows) = (context.device_buffer(16 * 16)?, context.device_buffer(16 * 16)?);
    let (producer, consumer) = (context.stream()?, context.stream()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;

    let received = std::thread::scope(|scope| -> Outcome<u32> {
        // Another thread is the producer, as any module that knows nothing of tokio would be.
        let pushes = scope.spawn(|| -> Outcome<()> {
            let push = Push { count: BATCH, records: rows.address(), length: 16, ..Default::default() };
            for _ in 0..ROUNDS {
                mailbox.wait_writable(BATCH, None)?;
                // SAFETY: the rows outlive the mailbox's work, which is waited for below.
                unsafe { mailbox.push(&push, producer.get(), None)? };
            }
            Ok(())
        });
        let received = runtime.block_on(async {
            let inbox = Inbox::new(&context, &mailbox)?;
            let pop = Pop { max: 16, records: out.address(), ..Default::default() };
            let mut received = 0;
            while received < ROUNDS * BATCH {
                received += inbox.next(&pop, consumer.get()).await?;
            }
            Outcome::Ok(received)
        })?;
        pushes.join().map_err(|_| "the producer failed")??;
        Ok(received)
    })?;
    context.synchronize(producer.get())?;
    println!("{received} records came, and nobody polled for them");
    Ok(())
}
