//! Pushing from and popping to host memory: convenient, blocking and slow.
//! Each call copies through a staging buffer and waits for it.

use std::time::Duration;

use super::{Mailbox, Pop, Push};
use crate::backend::wait_until;
use crate::checks::{check_whole, nothing};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::layout::*;
use crate::results::{After, Token};
use crate::scratch::Scratch;
use crate::status::*;
use crate::stream::OwnedStream;
use crate::sync::{lock, try_lock};

/// What the blocking calls of one mailbox keep from call to call.
pub(crate) struct Staging {
    stream: OwnedStream,
    token: Token,
    buffer: Scratch,
}

impl Staging {
    fn new(context: &Context, bytes: usize) -> Result<Self> {
        let (stream, token) = (context.stream()?, Token::new(context)?);
        let buffer = Self::buffer(context, bytes, &stream)?;
        Ok(Self { stream, token, buffer })
    }

    /// Zeroed: whole rows are copied out, and a record may be shorter than its row.
    fn buffer(context: &Context, bytes: usize, stream: &OwnedStream) -> Result<Scratch> {
        let buffer = Scratch::new(context, bytes.next_power_of_two())?;
        // SAFETY: the buffer has that size, and what uses it later is enqueued on the same stream.
        unsafe { context.fill(buffer.address(), 0, buffer.bytes(), stream.get())? };
        // A call that is refused before it uses the buffer gives it back at once.
        context.synchronize(stream.get())?;
        Ok(buffer)
    }
}

/// Records in host memory: record `i` is the first `lengths[i]` bytes of the `i`-th row.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostRows<'a> {
    /// All rows, one after the other.
    pub rows: &'a [u8],
    /// Bytes from row to row.
    pub stride: usize,
    /// Length of each record; as many as there are records.
    pub lengths: &'a [u32],
    /// Type of each record, or empty: all zero.
    pub types: &'a [u32],
}

impl Mailbox {
    /// Copies records from host memory, pushes them and waits for the outcome.
    /// For tests, set-up and tools: the fast path is [`Mailbox::push`].
    ///
    /// `timeout` is how long it waits for room under [`FullPolicy::Wait`](crate::FullPolicy::Wait); `None`: without limit.
    ///
    /// # Errors
    /// `ZERO_COUNT`, `INVALID_ARGUMENT`, `BAD_LENGTH`, `OVERFLOW`, and those of [`Mailbox::push`].
    pub fn push_from_host_blocking(
        &self,
        records: &HostRows<'_>,
        timeout: Option<Duration>,
    ) -> Result<gmb_result> {
        self.core.check_launches()?;
        let HostRows { rows, stride, lengths, types } = *records;
        let row = self.row_bytes() as usize;
        let capacity = self.capacity() as usize;
        let rules = self.core.full_policy.rules();
        if rules.whole {
            check_whole(lengths.len() as u64, self.capacity())?;
        }
        // Where nothing is overwritten more than the capacity never fits: the rest stays with the caller.
        let most = if rules.overwrites { GMB_MAX_RECORDS as usize } else { capacity };
        let count = lengths.len().min(most);
        if rules.overwrites && lengths.len() > count {
            return Err(Error::new(GMB_ERROR_OVERFLOW, format!("{} records at once", lengths.len())));
        }
        if lengths.is_empty() {
            return Err(Error::new(GMB_ERROR_ZERO_COUNT, "no record to push"));
        }
        if !types.is_empty() && types.len() != lengths.len() {
            return Err(Error::argument(format!("{} types for {} records", types.len(), lengths.len())));
        }
        let limit = stride.min(self.payload_bytes() as usize);
        if let Some(bad) = lengths.iter().position(|&length| length as usize > limit) {
            return Err(Error::new(
                GMB_ERROR_BAD_LENGTH,
                format!(
                    "record {bad} has length {}: the payload size or stride allows {limit}",
                    lengths[bad]
                ),
            ));
        }
        let mut packed = zeroed(count, row)?;
        for (i, (&length, to)) in lengths.iter().zip(packed.chunks_exact_mut(row)).enumerate() {
            let from =
                i.checked_mul(stride).and_then(|start| rows.get(start..start.checked_add(length as usize)?));
            let Some(from) = from else {
                return Err(Error::argument(format!(
                    "record {i} lies beyond the {} bytes of rows",
                    rows.len()
                )));
            };
            to[..from.len()].copy_from_slice(from);
        }
        let (lengths_at, types_at) = (packed.len(), packed.len() + 4 * count);
        packed.extend(lengths[..count].iter().flat_map(|n| n.to_ne_bytes()));
        packed.extend(types.iter().take(count).flat_map(|n| n.to_ne_bytes()));
        let mut result = self.with_staging(0, timeout, packed.len(), |staging| {
            let (base, stream) = (staging.buffer.address(), staging.stream.get());
            let push = Push {
                count: count as u32,
                records: base,
                lengths: base + lengths_at as u64,
                types: if types.is_empty() { 0 } else { base + types_at as u64 },
                timeout,
                ..Push::default()
            };
            // SAFETY: the staging buffer is ours, large enough, and waited for before it or the rows
            // are used again, also when the push fails.
            let pushed = unsafe {
                self.context().copy(base, packed.as_ptr() as u64, packed.len(), stream)?;
                self.push(&push, stream, Some(&staging.token))
            };
            self.context().synchronize(stream).and(pushed)?;
            staging.token.wait(After::Submission, None)
        })?;
        if (result.count as usize) < lengths.len() {
            result.flags |= GMB_RESULT_PARTIAL;
        }
        Ok(result)
    }

    /// Pops up to `headers.len()` records of a reader, waits, and copies them to host
    /// memory. For tests, set-up and tools: the fast path is [`Mailbox::pop`].
    ///
    /// The `i`-th record goes to the start of the `i`-th row of `stride`
    /// bytes; bytes past its length are left as they were.
    ///
    /// # Errors
    /// `ZERO_COUNT`, `INVALID_ARGUMENT`, and those of [`Mailbox::pop`].
    pub fn pop_to_host_blocking(
        &self,
        reader: u32,
        rows: &mut [u8],
        stride: usize,
        headers: &mut [gmb_record_header],
    ) -> Result<gmb_result> {
        self.core.check_launches()?;
        let (max, row) = (headers.len().min(self.capacity() as usize), self.row_bytes() as usize);
        if headers.is_empty() {
            return Err(nothing("max"));
        }
        let payload = self.payload_bytes() as usize;
        if stride < payload {
            return Err(Error::argument(format!("stride {stride} is less than the payload size {payload}")));
        }
        let needed = (max - 1).checked_mul(stride).and_then(|bytes| bytes.checked_add(payload));
        if needed.is_none_or(|needed| rows.len() < needed) {
            return Err(Error::argument(format!("{} bytes do not hold {max} rows of {stride}", rows.len())));
        }
        let record_bytes = max * row;
        let mut staged = zeroed(max, row)?;
        let mut result =
            self.with_staging(1, None, record_bytes + max * HEADER_BYTES as usize, |staging| {
                let (base, stream) = (staging.buffer.address(), staging.stream.get());
                let headers_at = base + record_bytes as u64;
                let pop = Pop { max: max as u32, records: base, headers: headers_at, stride: 0, reader };
                // SAFETY: the staging buffer is ours and large enough; all copies are waited for.
                unsafe {
                    self.pop(&pop, stream, Some(&staging.token))?;
                    self.context().synchronize(stream)?;
                    let result = staging.token.wait(After::Submission, None)?;
                    let count = result.count as usize;
                    if count > 0 {
                        self.context().copy(staged.as_mut_ptr() as u64, base, count * row, stream)?;
                        self.context().copy(
                            headers.as_mut_ptr() as u64,
                            headers_at,
                            count * HEADER_BYTES as usize,
                            stream,
                        )?;
                        self.context().synchronize(stream)?;
                    }
                    Ok(result)
                }
            })?;
        for (i, header) in headers.iter().take(result.count as usize).enumerate() {
            let length = header.length as usize;
            rows[i * stride..i * stride + length].copy_from_slice(&staged[i * row..i * row + length]);
        }
        // Not of one newest record: more than that there never is.
        if (result.count as usize) < headers.len() && !self.core.full_policy.rules().keeps_newest {
            result.flags |= GMB_RESULT_PARTIAL;
        }
        Ok(result)
    }

    /// Runs `work` alone with at least so many bytes of device memory.
    fn with_staging<T>(
        &self,
        place: usize,
        timeout: Option<Duration>,
        bytes: usize,
        work: impl FnOnce(&Staging) -> Result<T>,
    ) -> Result<T> {
        // Another thread may hold it for as long as it waits for room.
        let mut kept = match timeout {
            None => lock(&self.staging[place]),
            Some(_) => {
                wait_until(timeout, || try_lock(&self.staging[place]), || Ok(()))?.ok_or_else(|| {
                    Error::new(
                        GMB_ERROR_TIMEOUT,
                        "another thread's blocking push still waits for room: try again",
                    )
                })?
            }
        };
        match kept.as_mut() {
            Some(staging) if staging.buffer.bytes() >= bytes => work(staging),
            Some(staging) => {
                staging.buffer = Staging::buffer(self.context(), bytes, &staging.stream)?;
                work(staging)
            }
            None => work(kept.insert(Staging::new(self.context(), bytes)?)),
        }
    }
}

/// Host memory for `count` rows; too much is an error, not the end of the process.
fn zeroed(count: usize, row: usize) -> Result<Vec<u8>> {
    let full =
        || Error::new(GMB_ERROR_OUT_OF_HOST_MEMORY, format!("no room for {count} rows of {row} bytes"));
    let bytes = count.checked_mul(row).ok_or_else(full)?;
    let mut rows = Vec::new();
    // Room for the lengths and types behind them, too.
    rows.try_reserve_exact(bytes.saturating_add(8 * count)).map_err(|_| full())?;
    rows.resize(bytes, 0);
    Ok(rows)
}
