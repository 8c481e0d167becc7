//! How fast items go through a queue.

use super::Queue;
use crate::checks::check_count;
use crate::error::{Error, Result};
use crate::events::EventKind;
use crate::results::{After, Token};
use crate::scratch::Scratch;
use crate::status::*;

/// What [`Queue::measure`] found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QueueMeasurement {
    /// Items that were pushed and popped again: batch times iterations.
    pub items: u64,
    /// Seconds on the device, from the first push to the last pop.
    pub seconds: f64,
    /// Items in a second: each is one push and one pop.
    pub items_per_second: f64,
}

impl Queue {
    /// Round trips: pushes a batch and pops it again, so many times on one stream, and measures the time on the device. What
    /// comes out is held against what went in. The queue must be empty, and nobody else may use it meanwhile. Blocks.
    ///
    /// # Errors
    /// `ZERO_COUNT`, `OVERFLOW`, `INVALID_ARGUMENT` (a batch of more than the capacity; the queue is not empty),
    /// `BUSY` (a worker uses it), `CORRUPT` (other items came out: somebody else used the queue), `MEMORY_LIMIT`,
    /// `OUT_OF_MEMORY`, `DEVICE_LOST`.
    pub fn measure(&self, batch: u32, iterations: u32) -> Result<QueueMeasurement> {
        check_count("batch", batch)?;
        check_count("iterations", iterations)?;
        if u64::from(batch) > self.core.capacity {
            return Err(Error::argument(format!("batch {batch}: the queue holds {}", self.core.capacity)));
        }
        self.check_unused()?;
        let size = self.info()?.size;
        if size != 0 {
            return Err(Error::argument(format!(
                "the queue holds {size} items: only an empty one can be measured"
            )));
        }
        let context = self.context();
        let bytes = batch as usize * self.item_bytes() as usize;
        let (stream, token) = (context.stream()?, Token::new(context)?);
        let given: Vec<u8> =
            (0..bytes).map(|i| (i as u32).wrapping_mul(0x9e37_79b1).to_be_bytes()[0]).collect();
        let mut taken = vec![0u8; bytes];
        let (from, to) = (Scratch::new(context, bytes)?, Scratch::new(context, bytes)?);
        let (start, end) = (context.event(EventKind::Timed)?, context.event(EventKind::Timed)?);
        let before = self.info()?.popped;
        // SAFETY: all of it is waited for before the buffers go.
        let ran = unsafe {
            let mut run = || {
                context.copy(from.address(), given.as_ptr() as u64, bytes, stream.get())?;
                // Once before, so that everything is loaded.
                for i in 0..=iterations {
                    if i == 1 {
                        start.record(stream.get())?;
                    }
                    self.push(from.address(), batch, stream.get(), None)?;
                    let last = (i == iterations).then_some(&token);
                    self.pop(to.address(), batch, stream.get(), last)?;
                }
                end.record(stream.get())?;
                context.copy(taken.as_mut_ptr() as u64, to.address(), bytes, stream.get())
            };
            run()
        };
        context.synchronize(stream.get()).and(ran)?;
        let last = token.wait(After::Submission, None)?;
        let items = u64::from(batch) * u64::from(iterations);
        let moved = self.info()?.popped.wrapping_sub(before);
        if last.count != batch || moved != items + u64::from(batch) || given != taken {
            return Err(Error::new(
                GMB_ERROR_CORRUPT,
                "other items came out than went in: the queue was used meanwhile",
            ));
        }
        let seconds = start.elapsed_ms(&end)?.unwrap_or(0.0) / 1e3;
        let items_per_second = if seconds > 0.0 { items as f64 / seconds } else { 0.0 };
        Ok(QueueMeasurement { items, seconds, items_per_second })
    }
}
