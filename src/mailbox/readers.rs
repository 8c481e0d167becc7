//! Readers: each has a cursor of its own, and every record reaches each of them.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};

use super::side::{Side, UNBOUNDED};
use super::submit::choose;
use super::{attach, shared, Mailbox};
use crate::backend::args::*;
use crate::backend::Kernel;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::layout::*;
use crate::profiler::Range;
use crate::status::*;
use crate::stream::Stream;
use crate::sync::lock;

/// Where a reader that is let in begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReaderStart {
    /// With the next record that is pushed.
    #[default]
    Next,
    /// With the oldest record that another reader still holds; of a mailbox
    /// that overwrites, with the oldest that is intact.
    Oldest,
}

/// One reader's counts at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReaderInfo {
    /// Index after the last record it released; of a shared mailbox, that it took.
    pub released: u64,
    /// Records published and not released by it; of a shared mailbox, not taken.
    pub unread: u64,
    /// Records it lost: overwritten, or replaced by newer ones.
    pub lost: u64,
    /// Its pops that found nothing.
    pub empty_pops: u64,
}

/// The reading sides of a mailbox.
pub(super) struct Readers {
    sides: [OnceLock<Side>; GMB_MAX_READERS as usize],
    mask: AtomicU32,
    /// Held while a reader is let in or out.
    changes: Mutex<()>,
    records: bool,
    /// Operations that each side of the header had when the mailbox was made or attached to.
    operations: [u64; GMB_MAX_READERS as usize],
}

impl Readers {
    pub(super) fn new(context: &Context, header: &gmb_ring_header, records: bool) -> Result<Self> {
        let readers = Self {
            sides: [const { OnceLock::new() }; GMB_MAX_READERS as usize],
            mask: AtomicU32::new(header.reader_mask),
            changes: Mutex::new(()),
            records,
            operations: std::array::from_fn(|r| header.reader[r].operations),
        };
        for (r, side) in header.reader.iter().enumerate() {
            if header.reader_mask >> r & 1 == 1 {
                readers.side_at(context, r as u32, side.committed)?;
            }
        }
        Ok(readers)
    }

    /// The side of a reader, made when it is first needed.
    fn side_at(&self, context: &Context, reader: u32, index: u64) -> Result<&Side> {
        let place = &self.sides[reader as usize];
        if place.get().is_none() {
            let operations = self.operations[reader as usize];
            let _ = place.set(Side::new(context, index, operations, self.records)?);
        }
        place.get().ok_or_else(|| Error::argument("the reader has no side"))
    }

    /// A bit for each reader in use.
    pub(super) fn mask(&self) -> u32 {
        self.mask.load(Ordering::Acquire)
    }

    pub(super) fn is_in_use(&self, reader: u32) -> bool {
        reader < GMB_MAX_READERS && self.mask() >> reader & 1 == 1
    }

    fn set(&self, reader: u32, used: bool) {
        let bit = 1 << reader;
        if used {
            self.mask.fetch_or(bit, Ordering::AcqRel);
        } else {
            self.mask.fetch_and(!bit, Ordering::AcqRel);
        }
    }

    /// The readers in use.
    pub(super) fn in_use(&self) -> impl Iterator<Item = (u32, &Side)> {
        let mask = self.mask();
        (0u32..)
            .zip(&self.sides)
            .filter(move |(r, _)| mask >> r & 1 == 1)
            .filter_map(|(r, s)| Some((r, s.get()?)))
    }

    /// All that ever were.
    pub(super) fn all(&self) -> impl Iterator<Item = &Side> {
        self.sides.iter().filter_map(OnceLock::get)
    }

    /// A reader in use; to be asked again under its submission lock.
    pub(super) fn get(&self, reader: u32) -> Result<&Side> {
        if reader >= GMB_MAX_READERS {
            return Err(Error::argument(format!(
                "reader {reader}: a mailbox has readers 0 to {}",
                GMB_MAX_READERS - 1
            )));
        }
        self.sides[reader as usize].get().filter(|_| self.is_in_use(reader)).ok_or_else(|| not_in_use(reader))
    }
}

pub(super) fn not_in_use(reader: u32) -> Error {
    Error::argument(format!("reader {reader} is not in use: ask for more readers, or add one"))
}

impl Mailbox {
    /// Lets one more reader in, in the order of the stream and of the
    /// mailbox's pushes. Does not block beyond the launch; of a shared mailbox it blocks until all its operations are
    /// done, and no kernel may use it meanwhile. Its number is the least that is not in use, and valid for pops at once.
    ///
    /// # Errors
    /// `OVERFLOW` (all 16 are in use), `INVALID_STREAM`, `NOT_SUPPORTED` (the stream is being captured, or
    /// operations of the mailbox were), `DEVICE_LOST`.
    pub fn add_reader(&self, start: ReaderStart, stream: Stream) -> Result<u32> {
        self.core.check_launches()?;
        let _changes = lock(&self.core.readers.changes);
        let reader = self.core.readers.mask().trailing_ones();
        if reader >= GMB_MAX_READERS {
            return Err(Error::new(
                GMB_ERROR_OVERFLOW,
                format!("all {GMB_MAX_READERS} readers are in use: remove one first"),
            ));
        }
        let side = self.core.readers.side_at(&self.context, reader, 0)?;
        let action = match start {
            ReaderStart::Next => GMB_READER_ADD_NEXT,
            ReaderStart::Oldest => GMB_READER_ADD_OLDEST,
        };
        self.change_reader(reader, side, action, stream)?;
        Ok(reader)
    }

    /// Lets a reader out, in the order of the stream, of its own pops and of the mailbox's
    /// pushes: what it has not read no longer takes space. Blocks as letting one in does.
    /// Later pops of this reader are refused.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` (not in use), `INVALID_STREAM`, `NOT_SUPPORTED` (the stream is being captured, or
    /// operations of the mailbox were), `DEVICE_LOST`.
    pub fn remove_reader(&self, reader: u32, stream: Stream) -> Result<()> {
        self.core.check_launches()?;
        let _changes = lock(&self.core.readers.changes);
        let side = self.core.readers.get(reader)?;
        self.change_reader(reader, side, GMB_READER_REMOVE, stream)
    }

    /// One operation of both the pushing and the reader's side.
    fn change_reader(&self, reader: u32, side: &Side, action: u32, stream: Stream) -> Result<()> {
        let _range = Range::new(c"let a reader in or out");
        let stream = self.context.resolve(stream)?;
        let args = gmb_reader_args {
            ring: self.core.ring.address,
            reader,
            action,
            writer_progress: self.core.push.progress(),
            reader_progress: side.progress(),
            geometry: self.geometry(),
        };
        let mut pushes = lock(&self.core.push.submission);
        let mut pops = lock(&side.submission);
        let only = self.core.check_stream(stream)?;
        if self.core.is_captured() {
            return Err(Error::new(
                GMB_ERROR_NOT_SUPPORTED,
                "operations of the mailbox were captured, and graphs go on with the readers there were then: \
                 use another mailbox",
            ));
        }
        self.core.borrows.check_none(reader)?;
        if let Some(shared) = &self.core.shared {
            self.change_shared_reader(shared, args)?;
            self.core.readers.set(reader, action != GMB_READER_REMOVE);
            return Ok(());
        }
        self.core.push.make_wait(stream)?;
        side.make_wait(stream)?;
        if action != GMB_READER_REMOVE {
            // A bound that holds wherever the kernel finds that the reader begins.
            side.begin_life(self.core.push.reached().wrapping_sub(self.core.capacity));
        }
        // SAFETY: the ring and the lines outlive the kernel.
        unsafe { self.context.backend().launch(&Kernel::Reader(args), 1, stream.raw)? };
        choose(only, stream);
        self.core.readers.set(reader, action != GMB_READER_REMOVE);
        let noted = self.core.push.launched(&mut pushes, stream, 0);
        side.launched(&mut pops, stream, UNBOUNDED).and(noted)
    }

    /// One reader's counts as the device has them now: operations under way, letting it in
    /// among them, are not in them yet. Copies the header to the host and blocks for that.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` (not in use), `DEVICE_LOST`.
    pub fn reader_info(&self, reader: u32) -> Result<ReaderInfo> {
        self.core.readers.get(reader)?;
        let header = attach::read_header(&self.context, self.core.ring.address)?;
        let side = &header.reader[reader as usize];
        if self.core.shared.is_some() {
            return Ok(shared::reader_info(side));
        }
        Ok(ReaderInfo {
            released: side.committed,
            unread: super::unread(&header, side),
            lost: side.lost,
            empty_pops: side.empty,
        })
    }
}
