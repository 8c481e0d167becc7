//! Items from host memory, and to it: blocking, in pieces through a buffer on the device.

use super::Queue;
use crate::checks::nothing;
use crate::error::{Error, Result};
use crate::layout::gmb_result;
use crate::results::{After, Token};
use crate::scratch::Scratch;
use crate::status::GMB_OK;
use crate::stream::OwnedStream;
use crate::sync::lock;

/// Bytes that go at once.
const PIECE: usize = 1 << 20;

/// What the blocking calls of one queue keep from call to call.
pub(super) struct Staging {
    stream: OwnedStream,
    token: Token,
    buffer: Scratch,
}

impl Staging {
    /// What the last operation moved.
    fn moved(&self) -> Result<gmb_result> {
        let result = self.token.wait(After::Submission, None)?;
        match result.status {
            GMB_OK => Ok(result),
            wrong => Err(Error::new(
                wrong,
                "the queue's header was overwritten: it is no queue of such items any more",
            )),
        }
    }
}

impl Queue {
    /// Pushes items from host memory, in their order, and waits for that: how many there was room for. Items of others that
    /// push at the same time may come between them.
    ///
    /// # Errors
    /// `ZERO_COUNT`, `INVALID_ARGUMENT` (not whole items), `MEMORY_LIMIT`, `OUT_OF_MEMORY`, `DEVICE_LOST`, `DRIVER`; `BAD_MAGIC`,
    /// `BAD_VERSION`, `WRONG_MODE` (somebody wrote into the queue's header). What was pushed before an error stays pushed.
    pub fn push_from_host_blocking(&self, items: &[u8]) -> Result<u64> {
        self.check_host("count", items.len())?;
        self.staged(0, items.chunks(PIECE), |staging, piece| {
            let (at, stream) = (staging.buffer.address(), staging.stream.get());
            let count = (piece.len() / self.item_bytes() as usize) as u32;
            // SAFETY: the buffer holds a piece, and is waited for before it or the items are used again.
            let pushed = unsafe {
                self.context().copy(at, piece.as_ptr() as u64, piece.len(), stream)?;
                self.push(at, count, stream, Some(&staging.token))
            };
            self.context().synchronize(stream).and(pushed)?;
            let result = staging.moved()?;
            Ok((result.count, result.count == count))
        })
    }

    /// Pops items to host memory, as many as there are and `items` holds, and waits for that: how many. Bytes past them stay
    /// as they are. Others that pop at the same time may get items from between them.
    ///
    /// # Errors
    /// As for [`Queue::push_from_host_blocking`].
    pub fn pop_to_host_blocking(&self, items: &mut [u8]) -> Result<u64> {
        self.check_host("max", items.len())?;
        let bytes = self.item_bytes() as usize;
        self.staged(1, items.chunks_mut(PIECE), |staging, piece| {
            let (at, stream) = (staging.buffer.address(), staging.stream.get());
            let max = (piece.len() / bytes) as u32;
            // SAFETY: as above.
            unsafe { self.pop(at, max, stream, Some(&staging.token))? };
            let result = staging.moved()?;
            if result.count > 0 {
                // SAFETY: as above; so many items came.
                let copied = unsafe {
                    self.context().copy(piece.as_mut_ptr() as u64, at, result.count as usize * bytes, stream)
                };
                self.context().synchronize(stream).and(copied)?;
            }
            Ok((result.count, result.count == max))
        })
    }

    fn check_host(&self, counted: &str, bytes: usize) -> Result<()> {
        match bytes % self.item_bytes() as usize {
            _ if bytes == 0 => Err(nothing(counted)),
            0 => Ok(()),
            _ => Err(Error::argument(format!(
                "{bytes} bytes are no whole items of {} bytes",
                self.item_bytes()
            ))),
        }
    }

    /// Calls `each` for the pieces as long as it says that all of one has moved: items that have.
    fn staged<P>(
        &self,
        place: usize,
        pieces: impl Iterator<Item = P>,
        mut each: impl FnMut(&Staging, P) -> Result<(u32, bool)>,
    ) -> Result<u64> {
        let context = self.context();
        let mut kept = lock(&self.core.staging[place]);
        if kept.is_none() {
            let (stream, token) = (context.stream()?, Token::new(context)?);
            let buffer = Scratch::new(context, PIECE)?;
            *kept = Some(Staging { stream, token, buffer });
        }
        let Some(staging) = kept.as_ref() else { return Ok(0) };
        let mut moved = 0;
        for piece in pieces {
            let (count, all) = each(staging, piece)?;
            moved += u64::from(count);
            if !all {
                break;
            }
        }
        Ok(moved)
    }
}
