//! The C ABI: every function checks its arguments, calls the safe API and
//! turns the outcome into a code. No logic lives here.
//!
//! cbindgen writes `include/gpumailbox.h` from these files.

// C has no `unsafe`: what a pointer must be is said in each function's comment.
#![allow(clippy::not_unsafe_ptr_arg_deref)]

pub mod arbiter;
pub mod borrow;
pub mod context;
pub mod coordinator;
pub mod doorbell;
pub mod event;
pub mod fifo;
pub mod graph;
pub mod guard;
pub mod host_copy;
pub mod log;
pub mod mailbox;
pub mod memory;
pub mod module;
pub mod pipeline;
pub mod placement;
pub mod queue;
pub mod readers;
pub mod readiness;
pub mod status;
pub mod stream;
pub mod task;
pub mod tensor;
pub mod token;
pub mod triple;
pub mod worker;

mod boundary;

use std::mem::{align_of, size_of};

use crate::checks::null;
use crate::error::{Error, Result};
use crate::guard::GuardCore;
use crate::handle::{Pinned, Table};
use crate::status::*;
use crate::{
    Arbiter, Borrow, Context, Coordinator, Doorbell, Event, Fifo, Graph, Lease, Mailbox, Module,
    ModuleKernel, Pipeline, Queue, TensorMailbox, Token, TripleBuffer, Watch, Worker,
};

static CONTEXTS: Table<Context> = Table::new(1, "context");
static MAILBOXES: Table<Mailbox> = Table::new(2, "mailbox");
static TOKENS: Table<Token> = Table::new(3, "token");
static EVENTS: Table<Event> = Table::new(4, "event");
static GUARDS: Table<GuardCore> = Table::new(5, "stream guard");
static GRAPHS: Table<Graph> = Table::new(6, "graph");
static WATCHES: Table<Watch> = Table::new(7, "watch");
static BORROWS: Table<Borrow> = Table::new(8, "borrow");
static TENSOR_MAILBOXES: Table<TensorMailbox> = Table::new(9, "tensor mailbox");
// Made and ended with every tensor, and hardly ever used by many threads at once.
static LEASES: Table<Lease, 1> = Table::new(10, "lease");
static QUEUES: Table<Queue> = Table::new(11, "queue");
static WORKERS: Table<Worker> = Table::new(12, "worker");
static DOORBELLS: Table<Doorbell> = Table::new(13, "doorbell");
static FIFOS: Table<Fifo> = Table::new(14, "FIFO");
static ARBITERS: Table<Arbiter> = Table::new(15, "arbiter");
static TRIPLE_BUFFERS: Table<TripleBuffer> = Table::new(16, "triple buffer");
static MODULES: Table<Module> = Table::new(17, "module");
static KERNELS: Table<ModuleKernel> = Table::new(18, "kernel");
static COORDINATORS: Table<Coordinator> = Table::new(19, "coordinator");
static PIPELINES: Table<Pipeline> = Table::new(20, "pipeline");

/// Largest options struct that will ever be: a bigger `struct_size` is garbage.
const LARGEST_OPTIONS: usize = 4096;

/// A struct whose first field is `struct_size`; a field added later defaults to zero.
///
/// # Safety
/// `repr(C)`, begins with the `u32` size, and any bit pattern is valid.
unsafe trait Sized32: Copy {
    /// Its name in C.
    const NAME: &'static str;
    /// Its size when it was first published.
    const FIRST_SIZE: usize;
}

/// A pointer that may be written through.
fn output<'a, T>(pointer: *mut T, name: &str) -> Result<&'a mut std::mem::MaybeUninit<T>> {
    check_pointer(pointer, name)?;
    // SAFETY: not null and aligned; that it is writable is the caller's contract.
    Ok(unsafe { &mut *pointer.cast() })
}

/// As [`output`]; null for one that is not wanted.
fn optional_output<'a, T>(pointer: *mut T, name: &str) -> Result<Option<&'a mut std::mem::MaybeUninit<T>>> {
    if pointer.is_null() {
        return Ok(None);
    }
    output(pointer, name).map(Some)
}

fn check_pointer<T>(pointer: *const T, name: &str) -> Result<()> {
    if pointer.is_null() {
        return Err(null(name));
    }
    if pointer as usize % align_of::<T>() != 0 {
        return Err(Error::new(
            GMB_ERROR_MISALIGNED,
            format!("{name} at {pointer:p} is not aligned to {} bytes", align_of::<T>()),
        ));
    }
    Ok(())
}

/// Reads a sized struct of this or another version of the library: missing
/// fields take their default, unknown ones must be zero.
fn sized<T: Sized32>(pointer: *const T, name: &str) -> Result<T> {
    check_pointer(pointer, name)?;
    // SAFETY: not null and aligned; the struct begins with its size.
    let told = unsafe { pointer.cast::<u32>().read() } as usize;
    let bad = |why: &str| Error::new(GMB_ERROR_STRUCT_SIZE, format!("{name}: struct_size {told} {why}"));
    if !(T::FIRST_SIZE..=LARGEST_OPTIONS).contains(&told) {
        return Err(bad(&format!("is no size of {}: initialize it with its _INIT macro", T::NAME)));
    }
    let mut value = std::mem::MaybeUninit::<T>::zeroed();
    // SAFETY: the caller's struct has `told` bytes; all bit patterns of T are valid.
    unsafe {
        let bytes = std::slice::from_raw_parts(pointer.cast::<u8>(), told);
        if bytes.iter().skip(size_of::<T>()).any(|&byte| byte != 0) {
            return Err(bad("is of a newer library, and fields unknown here are set"));
        }
        let known = told.min(size_of::<T>());
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), value.as_mut_ptr().cast(), known);
        Ok(value.assume_init())
    }
}

/// Writes as much of an output struct as the caller has room for.
fn write_info<T: Copy>(info: *mut T, info_size: usize, value: T) -> Result<()> {
    check_pointer(info, "info")?;
    if info_size == 0 || info_size > LARGEST_OPTIONS {
        return Err(Error::new(
            GMB_ERROR_STRUCT_SIZE,
            format!("info_size {info_size}: pass the struct's sizeof"),
        ));
    }
    // SAFETY: the caller has `info_size` writable bytes; bytes beyond what is known become zero.
    unsafe {
        std::ptr::write_bytes(info.cast::<u8>(), 0, info_size);
        let from = std::ptr::from_ref(&value).cast::<u8>();
        std::ptr::copy_nonoverlapping(from, info.cast(), info_size.min(size_of::<T>()));
    }
    Ok(())
}

/// A token that may be absent.
fn optional_token(id: u64) -> Result<Option<Pinned<Token>>> {
    if id == 0 {
        return Ok(None);
    }
    TOKENS.get(id).map(Some)
}

/// A timeout as it crosses the API, in nanoseconds.
fn timeout(nanoseconds: u64) -> Option<std::time::Duration> {
    (nanoseconds != token::GMB_WAIT_FOREVER).then(|| std::time::Duration::from_nanos(nanoseconds))
}
