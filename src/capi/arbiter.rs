//! `gmb_arbiter`: which mailboxes have records, for kernels that run.

use std::time::Duration;

use super::boundary::boundary;
use super::context::gmb_context;
use super::mailbox::gmb_mailbox;
use super::token::GMB_WAIT_FOREVER;
use super::{check_pointer, output, sized, write_info, Sized32, ARBITERS, CONTEXTS, MAILBOXES};
use crate::checks::nothing;
use crate::error::{Error, Result};
use crate::extent::Extent;
use crate::layout::*;
use crate::status::*;
use crate::{Arbiter, Arbitrated, Class};

/// Handle of an arbiter: a small kernel that stays, and tells other kernels which mailboxes have records. Zero is null.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_arbiter {
    /// Opaque.
    pub id: u64,
}

/// How urgent what comes through a mailbox is: `GMB_CLASS_*`.
#[allow(non_camel_case_types)]
pub type gmb_class = i32;

/// First.
pub const GMB_CLASS_FOCUS: gmb_class = 0;
/// When there is nothing of class focus.
pub const GMB_CLASS_PERIPHERAL: gmb_class = 1;

/// A mailbox that an arbiter looks at, for one of its readers.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_arbitrated {
    /// Which one.
    pub mailbox: gmb_mailbox,
    /// For which reader.
    pub reader: u32,
    /// How urgent it is.
    pub priority_class: gmb_class,
}

/// What an arbiter is made with. Start from `GMB_ARBITER_OPTIONS_INIT`.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_arbiter_options {
    /// `sizeof(gmb_arbiter_options)`.
    pub struct_size: u32,
    /// How many mailboxes, at most `GMB_MOST_ARBITRATED`.
    pub count: u32,
    /// The mailboxes: their places here are their numbers. Not needed after the call.
    pub mailboxes: *const gmb_arbitrated,
    /// Nanoseconds after which the kernel leaves for a moment; 0 for 100 ms, `GMB_WAIT_FOREVER` for never.
    pub slice_ns: u64,
}

// SAFETY: repr(C), begins with struct_size, integers and pointers only.
unsafe impl Sized32 for gmb_arbiter_options {
    const NAME: &'static str = "gmb_arbiter_options";
    const FIRST_SIZE: usize = 24;
}

/// An arbiter at one moment.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_arbiter_info {
    /// Mailboxes that it looks at.
    pub mailboxes: u32,
    /// How many of them are of class focus.
    pub focus: u32,
    /// Times that its kernel came.
    pub slices: u64,
    /// When it last went round, in nanoseconds of the device's clock; zero while its kernel is away.
    pub heartbeat: u64,
    /// What it tells, in device memory, for kernels: `gmb::device::arbiter`.
    pub arbiter: *mut gmb_arbiter_header,
}

fn class(number: usize, value: gmb_class) -> Result<Class> {
    match value {
        GMB_CLASS_FOCUS => Ok(Class::Focus),
        GMB_CLASS_PERIPHERAL => Ok(Class::Peripheral),
        _ => Err(Error::argument(format!(
            "mailbox {number}: class {value} is none of GMB_CLASS_FOCUS, _PERIPHERAL"
        ))),
    }
}

/// Makes an arbiter of mailboxes of one context, and starts its kernel of one block, which comes from the budget of workers
/// (`gmb_context_options.resident_percent`).
///
/// The caller owns it and ends it with `gmb_arbiter_destroy`; the mailboxes' memory lasts as long, also when their handles are
/// destroyed before. Blocks until its memory is ready; thread-safe.
///
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_STRUCT_SIZE`, `_ZERO_COUNT`, `_OVERFLOW` (the array does not fit into
/// the address space), `_INVALID_ARGUMENT` (too many; of another context; no such reader, or class; the device's budget is less
/// than a block), `_NOT_SUPPORTED` (express mode), `_BUSY` (workers hold what the device's budget allows), `_OUT_OF_MEMORY`,
/// `_MEMORY_LIMIT`, `_OUT_OF_HOST_MEMORY`, `_SYSTEM` (no thread), `_DEVICE_LOST`.
#[no_mangle]
pub extern "C" fn gmb_arbiter_create(
    context: gmb_context,
    options: *const gmb_arbiter_options,
    arbiter: *mut gmb_arbiter,
) -> gmb_status {
    boundary(|| {
        let out = output(arbiter, "arbiter")?;
        let options = sized(options, "options")?;
        let context = CONTEXTS.get(context.id)?;
        if options.count == 0 {
            return Err(nothing("count"));
        }
        if options.count > GMB_MOST_ARBITRATED {
            return Err(Error::argument(format!(
                "count {}: an arbiter looks at {GMB_MOST_ARBITRATED} mailboxes at most",
                options.count
            )));
        }
        check_pointer(options.mailboxes, "options.mailboxes")?;
        let bytes = u64::from(options.count) * size_of::<gmb_arbitrated>() as u64;
        Extent::bytes("options.mailboxes", options.mailboxes as u64, bytes)?;
        // SAFETY: not null, aligned, and within the address space; that so many are there is the caller's contract.
        let given = unsafe { std::slice::from_raw_parts(options.mailboxes, options.count as usize) };
        let pinned: Vec<_> = given.iter().map(|one| MAILBOXES.get(one.mailbox.id)).collect::<Result<_>>()?;
        let wanted: Vec<_> = given
            .iter()
            .zip(&pinned)
            .enumerate()
            .map(|(n, (one, mailbox))| {
                Ok(Arbitrated { mailbox, reader: one.reader, class: class(n, one.priority_class)? })
            })
            .collect::<Result<_>>()?;
        let slice = match options.slice_ns {
            0 => None,
            GMB_WAIT_FOREVER => Some(Duration::MAX),
            some => Some(Duration::from_nanos(some)),
        };
        let made = Arbiter::new(&context, &wanted, slice)?;
        out.write(gmb_arbiter { id: ARBITERS.insert(made)? });
        Ok(())
    })
}

/// Ends an arbiter. Blocks until its kernel has left. Kernels of yours that ask it must have ended before. Safe while other
/// threads are inside calls on it: then the last of them to leave ends it, and this call may be over before. Errors: `GMB_ERROR_INVALID_HANDLE`.
#[no_mangle]
pub extern "C" fn gmb_arbiter_destroy(arbiter: gmb_arbiter) -> gmb_status {
    boundary(|| {
        let pinned = ARBITERS.get(arbiter.id)?;
        ARBITERS.remove(arbiter.id)?;
        pinned.close();
        Ok(())
    })
}

/// Where an arbiter stands. `info_size` is `sizeof(gmb_arbiter_info)`. Never blocks; thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_STRUCT_SIZE`, and what ended it: `_DEVICE_LOST`, `_DRIVER`.
#[no_mangle]
pub extern "C" fn gmb_arbiter_get_info(
    arbiter: gmb_arbiter,
    info: *mut gmb_arbiter_info,
    info_size: usize,
) -> gmb_status {
    boundary(|| {
        let known = ARBITERS.get(arbiter.id)?.info()?;
        let value = gmb_arbiter_info {
            mailboxes: known.mailboxes,
            focus: known.focus,
            slices: known.slices,
            heartbeat: known.heartbeat,
            arbiter: known.arbiter as *mut gmb_arbiter_header,
        };
        write_info(info, info_size, value)
    })
}
