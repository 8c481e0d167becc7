//! Mailboxes whose records are values of one Rust type.

use std::marker::PhantomData;
use std::mem::size_of;
use std::ops::Deref;
use std::time::Duration;

use crate::context::Context;
use crate::error::{Error, Result};
use crate::layout::{gmb_record_header, gmb_result};
use crate::mailbox::{HostRows, Mailbox, MailboxOptions, Pop, Push};
use crate::memory::DeviceBuffer;
use crate::results::Token;
use crate::stream::Stream;

/// A type that can be a record: plain data that any thread and the GPU may hold.
///
/// # Safety
/// Every bit pattern must be a valid value, and there must be no padding, no
/// pointer that the GPU could not follow and nothing to drop.
pub unsafe trait Record: Copy + Send + Sync + 'static {}

macro_rules! records {
    ($($type:ty),*) => {
        $(
            // SAFETY: a number: every bit pattern is one.
            unsafe impl Record for $type {}
        )*
    };
}
records!(u8, i8, u16, i16, u32, i32, u64, i64, u128, i128, f32, f64, usize, isize);

// SAFETY: an array has no padding beyond that of its elements, which have none.
unsafe impl<T: Record, const N: usize> Record for [T; N] {}

/// A mailbox of `T`s. Everything else is as for [`Mailbox`], which it derefs to.
///
/// ```
/// use gpumailbox::{Context, ContextOptions, MailboxOptions, Record, TypedMailbox};
///
/// #[repr(C)]
/// #[derive(Clone, Copy, Debug, PartialEq)]
/// struct Pose {
///     position: [f32; 3],
///     heading: f32,
/// }
/// // SAFETY: floats without padding.
/// unsafe impl Record for Pose {}
///
/// let context = Context::new(&ContextOptions::default())?;
/// let poses = TypedMailbox::<Pose>::new(&context, &MailboxOptions { capacity: 16, ..Default::default() })?;
/// let pose = Pose { position: [1.0, 2.0, 3.0], heading: 0.5 };
/// poses.push_blocking(&[pose, pose], 7, None)?;
/// assert_eq!(poses.pop_blocking(0, 16)?.values, [(7, pose), (7, pose)]);
/// # Ok::<(), gpumailbox::Error>(())
/// ```
#[derive(Debug)]
pub struct TypedMailbox<T: Record> {
    mailbox: Mailbox,
    _of: PhantomData<fn(T) -> T>,
}

/// Rows of device memory, one for each of `T`'s records: `T` rounded up to 16 bytes.
#[derive(Debug)]
pub struct Rows<T: Record> {
    memory: DeviceBuffer,
    count: u32,
    _of: PhantomData<fn(T) -> T>,
}

/// What a blocking pop gave.
#[derive(Clone, Debug)]
pub struct Popped<T> {
    /// Types and values, in order.
    pub values: Vec<(u32, T)>,
    /// Records of another length than `T`, left out: something else pushes here, too.
    pub malformed: u32,
    /// What the pop found: its status, and how many records were lost before these.
    pub result: gmb_result,
}

impl<T: Record> Rows<T> {
    /// Bytes from row to row.
    pub const STRIDE: usize = size_of::<T>().next_multiple_of(16);

    /// Address of the first row.
    pub fn address(&self) -> u64 {
        self.memory.address()
    }

    /// How many rows there are.
    pub fn count(&self) -> u32 {
        self.count
    }
}

impl<T: Record> TypedMailbox<T> {
    /// Makes a mailbox of `T`s; the options' payload size is that of `T`.
    ///
    /// # Errors
    /// As for [`Mailbox::new`]; `INVALID_ARGUMENT` for a `T` without size.
    pub fn new(context: &Context, options: &MailboxOptions) -> Result<Self> {
        let payload_bytes = u32::try_from(size_of::<T>())
            .map_err(|_| Error::argument(format!("a record of {} bytes", size_of::<T>())))?;
        let mailbox = Mailbox::new(context, &MailboxOptions { payload_bytes, ..*options })?;
        Ok(Self { mailbox, _of: PhantomData })
    }

    /// Device memory for `count` records; its content is zero.
    ///
    /// # Errors
    /// `ZERO_COUNT`, `MEMORY_LIMIT`, `OUT_OF_MEMORY`.
    pub fn rows(&self, count: u32) -> Result<Rows<T>> {
        let context = self.mailbox.context();
        let memory = context.device_buffer(count as usize * Rows::<T>::STRIDE)?;
        let stream = context.stream()?;
        // SAFETY: the memory has this size, and the fill is waited for.
        unsafe { context.fill(memory.address(), 0, memory.bytes(), stream.get())? };
        context.synchronize(stream.get())?;
        Ok(Rows { memory, count, _of: PhantomData })
    }

    /// Pushes the first `count` rows on a stream; see [`Mailbox::push`].
    ///
    /// # Safety
    /// The rows must live, and not be written, until the operation is done.
    pub unsafe fn push_rows(
        &self,
        rows: &Rows<T>,
        count: u32,
        msg_type: u32,
        stream: Stream,
        token: Option<&Token>,
    ) -> Result<()> {
        check_rows(count, rows.count)?;
        let push = Push {
            count,
            records: rows.address(),
            length: size_of::<T>() as u32,
            msg_type,
            ..Push::default()
        };
        // SAFETY: as promised by the caller.
        unsafe { self.mailbox.push(&push, stream, token) }
    }

    /// Pops into the first `max` rows on a stream; see [`Mailbox::pop`].
    ///
    /// # Safety
    /// The rows must live, and not otherwise be used, until the operation is done.
    pub unsafe fn pop_rows(
        &self,
        reader: u32,
        rows: &mut Rows<T>,
        max: u32,
        stream: Stream,
        token: Option<&Token>,
    ) -> Result<()> {
        check_rows(max, rows.count)?;
        let pop = Pop { max, records: rows.address(), reader, ..Pop::default() };
        // SAFETY: as promised by the caller.
        unsafe { self.mailbox.pop(&pop, stream, token) }
    }

    /// Pushes values and waits for the outcome; `timeout` as for
    /// [`Mailbox::push_from_host_blocking`]. For set-up, tests and tools.
    pub fn push_blocking(
        &self,
        values: &[T],
        msg_type: u32,
        timeout: Option<Duration>,
    ) -> Result<gmb_result> {
        // SAFETY: a Record has no padding: all its bytes are initialized.
        let rows = unsafe { std::slice::from_raw_parts(values.as_ptr().cast::<u8>(), size_of_val(values)) };
        let lengths = vec![size_of::<T>() as u32; values.len()];
        let types = vec![msg_type; values.len()];
        let records = HostRows { rows, stride: size_of::<T>(), lengths: &lengths, types: &types };
        self.mailbox.push_from_host_blocking(&records, timeout)
    }

    /// Pops up to `max` values of a reader, and waits. For set-up, tests and tools.
    ///
    /// # Errors
    /// Those of [`Mailbox::pop_to_host_blocking`]; what the device found is in the result.
    pub fn pop_blocking(&self, reader: u32, max: u32) -> Result<Popped<T>> {
        let max = u64::from(max).min(self.mailbox.capacity());
        let mut headers = vec![gmb_record_header::default(); max as usize];
        let mut rows = vec![0u8; max as usize * size_of::<T>()];
        let result = self.mailbox.pop_to_host_blocking(reader, &mut rows, size_of::<T>(), &mut headers)?;
        let taken = headers.iter().zip(rows.chunks_exact(size_of::<T>())).take(result.count as usize);
        let whole = taken.filter(|(header, _)| header.length as usize == size_of::<T>());
        // SAFETY: the row has T's size, and every bit pattern is a T.
        let value = |row: &[u8]| unsafe { row.as_ptr().cast::<T>().read_unaligned() };
        let values: Vec<(u32, T)> = whole.map(|(header, row)| (header.msg_type, value(row))).collect();
        Ok(Popped { malformed: result.count - values.len() as u32, values, result })
    }
}

impl<T: Record> Deref for TypedMailbox<T> {
    type Target = Mailbox;

    fn deref(&self) -> &Mailbox {
        &self.mailbox
    }
}

fn check_rows(count: u32, rows: u32) -> Result<()> {
    if count > rows {
        return Err(Error::argument(format!("{count} records: there are {rows} rows")));
    }
    Ok(())
}
