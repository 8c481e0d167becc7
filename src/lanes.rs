//! What operations of a shared mailbox need so as to run beside each other: those of one stream have a lane together, for
//! they come one after the other anyway.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::backend::args::GMB_MEETING_BYTES;
use crate::context::Context;
use crate::error::Result;
use crate::events::{Event, EventKind};
use crate::stream::Resolved;
use crate::sync::lock;

/// Meetings that are allocated at once.
const CHUNK: u32 = 32;

/// The operations of one stream.
pub(crate) struct Lane {
    /// Recorded after each.
    pub(crate) event: Event,
    /// Where the blocks of the running one meet.
    pub(crate) meeting: u64,
    /// Which stream; changes under the side's lock when all its operations are done.
    stream: AtomicU64,
}

impl Lane {
    /// Notes an operation that was launched.
    pub(crate) fn launched(&self, stream: Resolved) -> Result<()> {
        self.stream.store(stream.id(), Ordering::Release);
        self.event.mark(stream.raw)
    }

    /// Makes a stream wait for what was launched here.
    pub(crate) fn make_wait(&self, stream: Resolved) -> Result<()> {
        if self.stream.load(Ordering::Acquire) == stream.id() {
            return Ok(());
        }
        self.event.hold(stream.raw)
    }
}

/// One side's lanes: pushes, or takes (pops, borrows and releases of all readers).
#[derive(Default)]
pub(crate) struct Lanes(Mutex<Vec<Arc<Lane>>>);

pub(crate) type Held<'a> = MutexGuard<'a, Vec<Arc<Lane>>>;

impl Lanes {
    pub(crate) fn hold(&self) -> Held<'_> {
        lock(&self.0)
    }

    /// Makes a stream wait for all that was launched on this side. Before the other side is held.
    pub(crate) fn make_wait(&self, stream: Resolved) -> Result<()> {
        self.hold().iter().try_for_each(|lane| lane.make_wait(stream))
    }

    /// Blocks until all that was launched is done.
    pub(crate) fn finish(&self) -> Result<()> {
        let all: Vec<_> = self.hold().clone();
        all.iter().map(|lane| lane.event.synchronize(None)).fold(Ok(()), Result::and)
    }
}

/// The lane of a stream: its own, or a new one, or of many one whose operations are done.
pub(crate) fn lane_of(
    lanes: &mut Held<'_>,
    meetings: &Meetings,
    context: &Context,
    stream: Resolved,
) -> Result<Arc<Lane>> {
    if let Some(lane) = lanes.iter().find(|lane| lane.stream.load(Ordering::Acquire) == stream.id()) {
        return Ok(Arc::clone(lane));
    }
    // Asking the driver costs more than a lane of one's own, while streams are few.
    if lanes.len() >= CHUNK as usize {
        for lane in lanes.iter() {
            if lane.event.is_reached()? {
                return Ok(Arc::clone(lane));
            }
        }
    }
    let event = context.event(EventKind::Untimed)?;
    let lane = Arc::new(Lane { event, meeting: meetings.take(context)?, stream: AtomicU64::new(0) });
    lanes.push(Arc::clone(&lane));
    Ok(lane)
}

/// Memory in which the blocks of operations meet, in chunks, and how many meetings are in use.
pub(crate) struct Meetings(Mutex<(Vec<u64>, u32)>);

fn chunk(context: &Context) -> Result<u64> {
    let bytes = (CHUNK * GMB_MEETING_BYTES) as usize;
    let chunk = context.allocate_ring(bytes)?;
    let (backend, service) = (context.backend(), context.service());
    // SAFETY: so many bytes were allocated just now; the fill is waited for.
    let zeroed =
        unsafe { backend.fill(chunk, 0, bytes, service) }.and_then(|()| backend.stream_synchronize(service));
    zeroed.map(|()| chunk).inspect_err(|_| {
        // SAFETY: nothing uses it.
        let _ = unsafe { context.free_ring(chunk) };
    })
}

impl Meetings {
    /// The first of them, so that few streams never make any.
    pub(crate) fn new(context: &Context) -> Result<Self> {
        Ok(Self(Mutex::new((vec![chunk(context)?], 0))))
    }

    /// One that nobody else has. With many streams it blocks for a moment now and then.
    pub(crate) fn take(&self, context: &Context) -> Result<u64> {
        let mut kept = lock(&self.0);
        let (chunks, used) = &mut *kept;
        if *used as usize == chunks.len() * CHUNK as usize {
            chunks.push(chunk(context)?);
        }
        let (chunk, place) = (chunks[(*used / CHUNK) as usize], *used % CHUNK);
        *used += 1;
        Ok(chunk + u64::from(place * GMB_MEETING_BYTES))
    }

    /// Gives the memory back; when no operation can be under way any more.
    pub(crate) fn free(&self, context: &Context) {
        for chunk in std::mem::take(&mut lock(&self.0).0) {
            // SAFETY: as promised by the caller.
            let _ = unsafe { context.free_ring(chunk) };
        }
    }
}
