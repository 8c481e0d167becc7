//! Device and pinned memory, and copies between them.
//!
//! Device memory comes in two ways: at once ([`Context::device_buffer`]), or in
//! stream order from the device's pool ([`Context::device_buffer_on`]). Both
//! count against the context's limit. Where there are no pools, stream-ordered
//! memory is plain memory whose freeing waits behind an event.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

use crate::backend::{Backend, RawEvent};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::events::{is_past, EventKind};
use crate::extent::Extent;
use crate::status::*;
use crate::stream::{Resolved, Stream};
use crate::sync::lock;

/// Bytes of device memory, at least 256-byte aligned. Freed when dropped,
/// which waits for the work of the device that was enqueued before; see
/// [`DeviceBuffer::free_on`].
#[derive(Debug)]
pub struct DeviceBuffer {
    context: Context,
    address: u64,
    bytes: usize,
}

/// Bytes of zeroed host memory that kernels reach at the same address.
#[derive(Debug)]
pub struct PinnedBuffer {
    context: Context,
    address: u64,
    bytes: usize,
}

/// The device memory of a context at one moment, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryInfo {
    /// Most that may be held; zero for no limit.
    pub limit: u64,
    /// Held now, the library's own rings included.
    pub used: u64,
    /// Most that was held at once.
    pub high_water: u64,
    /// Held by the pool: what is used of it, and what it keeps for later.
    pub reserved: u64,
    /// Allocations behind `used`.
    pub allocations: u64,
    /// Whether stream-ordered memory comes from a pool.
    pub pooled: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Plain,
    Pool,
    Pinned,
}

#[derive(Clone, Copy)]
struct Allocation {
    bytes: u64,
    origin: Origin,
    /// A mailbox's ring: its address is known to callers, and it is not theirs to free.
    is_ring: bool,
}

#[derive(Default)]
struct Books {
    used: u64,
    high_water: u64,
    allocations: BTreeMap<u64, Allocation>,
    /// Plain memory freed in stream order: to be given back once the event is reached.
    deferred: VecDeque<(u64, RawEvent)>,
}

/// Who holds how much of a context's memory.
pub(crate) struct Ledger {
    limit: u64,
    pooled: bool,
    books: Mutex<Books>,
}

impl Ledger {
    /// `limit` in bytes, zero for none.
    pub(crate) fn new(limit: u64, pooled: bool) -> Self {
        Self { limit, pooled, books: Mutex::default() }
    }

    fn reserve(&self, bytes: u64) -> Result<()> {
        let mut books = lock(&self.books);
        let used = books.used.saturating_add(bytes);
        if self.limit != 0 && used > self.limit {
            return Err(Error::new(
                GMB_ERROR_MEMORY_LIMIT,
                format!(
                    "{bytes} bytes more than the {} in use exceed the context's limit of {} bytes: free memory, \
                     or raise memory_limit",
                    books.used, self.limit
                ),
            ));
        }
        books.used = used;
        Ok(())
    }

    fn enter(&self, address: u64, bytes: u64, origin: Origin) {
        let mut books = lock(&self.books);
        books.allocations.insert(address, Allocation { bytes, origin, is_ring: false });
        books.high_water = books.high_water.max(books.used);
    }

    /// Takes an allocation off the books: of two threads that free it one gets it.
    fn remove(&self, address: u64, pinned: bool) -> Result<Allocation> {
        let mut books = lock(&self.books);
        match books.allocations.get(&address).copied() {
            Some(allocation) if allocation.is_ring => {
                Err(Error::argument(format!("{address:#x} is the ring of a mailbox: destroy the mailbox")))
            }
            Some(allocation) if (allocation.origin == Origin::Pinned) == pinned => {
                books.allocations.remove(&address);
                if !pinned {
                    books.used -= allocation.bytes;
                }
                Ok(allocation)
            }
            found => Err(Error::argument(format!(
                "{address:#x} {}",
                match found {
                    Some(_) if pinned => "is device memory, not pinned memory",
                    Some(_) => "is pinned memory, not device memory",
                    None => "is not the start of memory of this context, or was freed before",
                }
            ))),
        }
    }

    /// Whether the whole range is pinned memory of the context.
    fn is_pinned(&self, address: u64, bytes: u64) -> bool {
        let books = lock(&self.books);
        books.allocations.range(..=address).next_back().is_some_and(|(start, allocation)| {
            allocation.origin == Origin::Pinned
                && (address - start).checked_add(bytes).is_some_and(|end| end <= allocation.bytes)
        })
    }

    /// Marks memory as a mailbox's ring, or no longer.
    fn mark_ring(&self, address: u64, is_ring: bool) {
        if let Some(allocation) = lock(&self.books).allocations.get_mut(&address) {
            allocation.is_ring = is_ring;
        }
    }

    /// Puts back what could not be freed.
    fn restore(&self, address: u64, allocation: Allocation) {
        let mut books = lock(&self.books);
        if allocation.origin != Origin::Pinned {
            books.used += allocation.bytes;
        }
        books.allocations.insert(address, allocation);
    }

    /// Gives everything back; only when the context has no user left.
    pub(crate) fn release_all(&self, backend: &dyn Backend) {
        let books = std::mem::take(&mut *lock(&self.books));
        let deferred = books.deferred.into_iter().map(|(address, event)| {
            backend.event_destroy(event);
            (address, Origin::Plain)
        });
        let left = books.allocations.into_iter().map(|(address, a)| (address, a.origin));
        for (address, origin) in deferred.chain(left) {
            // SAFETY: the context has no user left, and the backend waits for what was enqueued.
            let _ = unsafe {
                match origin {
                    Origin::Plain => backend.release(address),
                    Origin::Pool => backend.release_ordered(address, std::ptr::null_mut()),
                    Origin::Pinned => backend.release_pinned(address, true),
                }
            };
        }
    }
}

impl DeviceBuffer {
    /// Device address of the first byte.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Frees the memory in stream order: after the work that the stream holds
    /// now. Does not block. On an error the memory is kept and then freed as by a drop.
    ///
    /// # Safety
    /// No other stream's work that is still to run may use the memory.
    pub unsafe fn free_on(self, stream: Stream) -> Result<()> {
        let stream = self.context.resolve(stream)?;
        // SAFETY: as promised by the caller.
        unsafe { self.context.free_on(self.address, stream)? };
        let this = std::mem::ManuallyDrop::new(self);
        // SAFETY: the context is read out once and `this` is not used again.
        drop(unsafe { std::ptr::read(&this.context) });
        Ok(())
    }
}

impl PinnedBuffer {
    /// Address of the first byte, for the CPU and for kernels.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl PinnedBuffer {
    /// Frees the memory without waiting for the device.
    ///
    /// # Safety
    /// No work that is still to run uses it.
    pub(crate) unsafe fn free_unused(self) {
        let this = std::mem::ManuallyDrop::new(self);
        // SAFETY: as promised by the caller; the context is read out once and `this` is not used again.
        unsafe {
            let context = std::ptr::read(&this.context);
            let _ = context.free_pinned(this.address, false);
        }
    }
}

impl Drop for DeviceBuffer {
    fn drop(&mut self) {
        // SAFETY: the owner is gone, and what was enqueued before is waited for.
        let _ = unsafe { self.context.free(self.address) };
    }
}

impl Drop for PinnedBuffer {
    fn drop(&mut self) {
        // SAFETY: as for DeviceBuffer.
        let _ = unsafe { self.context.free_pinned(self.address, true) };
    }
}

impl Context {
    /// Allocates device memory for any stream; its content is unspecified.
    ///
    /// # Errors
    /// `ZERO_COUNT`, `MEMORY_LIMIT`, `OUT_OF_MEMORY`.
    pub fn device_buffer(&self, bytes: usize) -> Result<DeviceBuffer> {
        Ok(DeviceBuffer { context: self.clone(), address: self.allocate(bytes)?, bytes })
    }

    /// Allocates device memory in stream order: for that stream's later work,
    /// and for work of others that is ordered after it. Does not wait for the device.
    ///
    /// # Errors
    /// `ZERO_COUNT`, `MEMORY_LIMIT`, `OUT_OF_MEMORY`, `INVALID_STREAM`.
    pub fn device_buffer_on(&self, bytes: usize, stream: Stream) -> Result<DeviceBuffer> {
        let stream = self.resolve(stream)?;
        Ok(DeviceBuffer { context: self.clone(), address: self.allocate_on(bytes, stream)?, bytes })
    }

    /// Allocates pinned host memory.
    ///
    /// # Errors
    /// `ZERO_COUNT`, `OUT_OF_HOST_MEMORY`.
    pub fn pinned_buffer(&self, bytes: usize) -> Result<PinnedBuffer> {
        Ok(PinnedBuffer { context: self.clone(), address: self.allocate_pinned(bytes)?, bytes })
    }

    /// How much device memory the context holds. Never blocks.
    pub fn memory_info(&self) -> Result<MemoryInfo> {
        let reserved = if self.ledger().pooled { self.backend().pool_reserved()? } else { 0 };
        let books = lock(&self.ledger().books);
        Ok(MemoryInfo {
            limit: self.ledger().limit,
            used: books.used,
            high_water: books.high_water,
            reserved,
            allocations: books.allocations.values().filter(|a| a.origin != Origin::Pinned).count() as u64,
            pooled: self.ledger().pooled,
        })
    }

    /// Gives memory that the pool keeps for later back to the device, down to
    /// `keep` bytes if so much is not in use. May block.
    pub fn trim_memory(&self, keep: u64) -> Result<()> {
        self.reap();
        if self.ledger().pooled {
            self.backend().pool_trim(keep)?;
        }
        Ok(())
    }

    /// Makes room for, allocates and books device memory.
    fn book(&self, bytes: usize, origin: Origin, make: impl Fn(usize) -> Result<u64>) -> Result<u64> {
        let bytes = sized(bytes, GMB_ERROR_OUT_OF_MEMORY)?;
        self.reap();
        self.ledger().reserve(bytes as u64)?;
        let made = make(bytes).or_else(|error| {
            // What the pool keeps for later may be what is missing.
            if error.status() != GMB_ERROR_OUT_OF_MEMORY || !self.ledger().pooled {
                return Err(error);
            }
            self.backend().pool_trim(0)?;
            make(bytes)
        });
        match made {
            Ok(address) => self.ledger().enter(address, bytes as u64, origin),
            Err(_) => lock(&self.ledger().books).used -= bytes as u64,
        }
        made
    }

    pub(crate) fn allocate(&self, bytes: usize) -> Result<u64> {
        self.book(bytes, Origin::Plain, |bytes| self.backend().allocate(bytes))
    }

    pub(crate) fn allocate_on(&self, bytes: usize, stream: Resolved) -> Result<u64> {
        check_eager(stream)?;
        if !self.ledger().pooled {
            return self.allocate(bytes);
        }
        self.book(bytes, Origin::Pool, |bytes| self.backend().allocate_ordered(bytes, stream.raw))
    }

    /// Device memory for a mailbox, to be given back with `free_ring`.
    pub(crate) fn allocate_ring(&self, bytes: usize) -> Result<u64> {
        let address = self.allocate_on(bytes, self.resolved_service())?;
        self.ledger().mark_ring(address, true);
        Ok(address)
    }

    /// Frees a mailbox's ring.
    ///
    /// # Safety
    /// No work that is still to run may use it.
    pub(crate) unsafe fn free_ring(&self, address: u64) -> Result<()> {
        self.ledger().mark_ring(address, false);
        // SAFETY: as promised by the caller.
        unsafe { self.free_on(address, self.resolved_service()) }
    }

    pub(crate) fn allocate_pinned(&self, bytes: usize) -> Result<u64> {
        let bytes = sized(bytes, GMB_ERROR_OUT_OF_HOST_MEMORY)?;
        let address = self.backend().allocate_pinned(bytes)?;
        self.ledger().enter(address, bytes as u64, Origin::Pinned);
        Ok(address)
    }

    /// Frees device memory of either kind once all that was enqueued before is done.
    ///
    /// # Safety
    /// Nothing enqueued later may use the memory.
    pub(crate) unsafe fn free(&self, address: u64) -> Result<()> {
        let allocation = self.ledger().remove(address, false)?;
        let freed = match allocation.origin {
            // Unlike plain memory, the pool's is taken back without waiting for anyone.
            Origin::Pool => self.backend().synchronize().and_then(|()| {
                // SAFETY: as promised by the caller.
                unsafe { self.backend().release_ordered(address, self.service()) }
            }),
            // SAFETY: as promised by the caller.
            _ => unsafe { self.backend().release(address) },
        };
        freed.inspect_err(|_| self.ledger().restore(address, allocation))
    }

    /// Frees device memory of either kind in stream order.
    ///
    /// # Safety
    /// Work of other streams, and work enqueued later, must not use the memory.
    pub(crate) unsafe fn free_on(&self, address: u64, stream: Resolved) -> Result<()> {
        self.reap();
        check_eager(stream)?;
        let allocation = self.ledger().remove(address, false)?;
        let freed = if allocation.origin == Origin::Pool {
            // SAFETY: as promised by the caller.
            unsafe { self.backend().release_ordered(address, stream.raw) }
        } else {
            self.defer(address, stream)
        };
        freed.inspect_err(|_| self.ledger().restore(address, allocation))
    }

    /// Notes plain memory to be given back once the stream has come to here.
    fn defer(&self, address: u64, stream: Resolved) -> Result<()> {
        let event = self.events().take(EventKind::Untimed, self.backend())?;
        let recorded = self.backend().event_record(event, stream.raw);
        match recorded {
            Ok(()) => lock(&self.ledger().books).deferred.push_back((address, event)),
            Err(_) => self.events().give_back(EventKind::Untimed, event, true),
        }
        recorded
    }

    /// Gives back plain memory whose streams have come past it.
    fn reap(&self) {
        loop {
            let Some((address, event)) = lock(&self.ledger().books).deferred.pop_front() else { return };
            if !is_past(self.backend().event_query(event)) {
                lock(&self.ledger().books).deferred.push_front((address, event));
                return;
            }
            self.events().give_back(EventKind::Untimed, event, false);
            // SAFETY: whoever freed it promised that nothing uses it after the event.
            let _ = unsafe { self.backend().release(address) };
        }
    }

    /// Whether a range of host memory is such that the driver would copy it with the calling thread waiting. The context's own
    /// pinned memory is known; of other memory the backend is asked.
    pub(crate) fn is_pageable(&self, address: u64, bytes: u64) -> Result<bool> {
        Ok(!self.ledger().is_pinned(address, bytes) && self.backend().is_pageable(address, bytes)?)
    }

    /// # Safety
    /// As for `free`.
    pub(crate) unsafe fn free_pinned(&self, address: u64, in_use: bool) -> Result<()> {
        let allocation = self.ledger().remove(address, true)?;
        // SAFETY: as promised by the caller.
        let freed = unsafe { self.backend().release_pinned(address, in_use) };
        freed.inspect_err(|_| self.ledger().restore(address, allocation))
    }

    /// Copies bytes between any two of device, pinned and pageable memory, in
    /// stream order. With pageable memory the call may block.
    ///
    /// # Safety
    /// Both ranges must be valid until the copy is done.
    pub unsafe fn copy(&self, to: u64, from: u64, bytes: usize, stream: Stream) -> Result<()> {
        let stream = self.resolve(stream)?;
        Extent::bytes("to", to, bytes as u64)?;
        Extent::bytes("from", from, bytes as u64)?;
        // SAFETY: as promised by the caller.
        unsafe { self.backend().copy(to, from, bytes, stream.raw) }
    }

    /// Fills device memory with one byte value, in stream order.
    ///
    /// # Safety
    /// The range must be valid until the fill is done.
    pub unsafe fn fill(&self, to: u64, value: u8, bytes: usize, stream: Stream) -> Result<()> {
        let stream = self.resolve(stream)?;
        self.check_reachable(&Extent::bytes("memory", to, bytes as u64)?)?;
        // SAFETY: as promised by the caller.
        unsafe { self.backend().fill(to, value, bytes, stream.raw) }
    }
}

/// Memory of a graph has a life of its own: none of it goes through the books.
fn check_eager(stream: Resolved) -> Result<()> {
    if stream.is_capturing() {
        return Err(Error::new(
            GMB_ERROR_NOT_SUPPORTED,
            "the stream is being captured: allocate and free outside of the capture",
        ));
    }
    Ok(())
}

fn sized(bytes: usize, too_much: gmb_status) -> Result<usize> {
    match bytes {
        0 => Err(Error::new(GMB_ERROR_ZERO_COUNT, "an allocation of zero bytes")),
        _ if bytes > isize::MAX as usize => {
            Err(Error::new(too_much, format!("{bytes} bytes exceed any memory")))
        }
        _ => Ok(bytes),
    }
}
