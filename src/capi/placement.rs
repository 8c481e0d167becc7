//! Mailboxes in the caller's memory.

use std::ffi::c_void;

use super::boundary::boundary;
use super::context::gmb_context;
use super::mailbox::{
    arbitration, gmb_arbitration, gmb_mailbox, gmb_mailbox_options, options_of, GMB_MAILBOX_SINGLE_STREAM,
};
use super::{output, sized, Sized32, CONTEXTS, MAILBOXES};
use crate::error::Error;
use crate::status::*;
use crate::{Attach, Mailbox};

/// How to go on with a mailbox that lies in memory already. Start from `GMB_ATTACH_OPTIONS_INIT`.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_attach_options {
    /// `sizeof(gmb_attach_options)`.
    pub struct_size: u32,
    /// Who orders pushes against pops; default `GMB_ARBITRATION_CPU`.
    pub arbitration: gmb_arbitration,
    /// `GMB_MAILBOX_SINGLE_STREAM` or 0, the default.
    pub flags: u32,
    /// Must be zero.
    pub reserved: u32,
}

// SAFETY: repr(C), begins with struct_size, integers only.
unsafe impl Sized32 for gmb_attach_options {
    const NAME: &'static str = "gmb_attach_options";
    const FIRST_SIZE: usize = 16;
}

/// Bytes of device memory that a mailbox of these options takes.
/// Never blocks; thread-safe. Errors: `GMB_ERROR_NULL_POINTER`, `_STRUCT_SIZE`, `_INVALID_ARGUMENT`,
/// `_NOT_SUPPORTED`, `_OVERFLOW`.
#[no_mangle]
pub extern "C" fn gmb_mailbox_get_required_bytes(
    options: *const gmb_mailbox_options,
    bytes: *mut u64,
) -> gmb_status {
    boundary(|| {
        let out = output(bytes, "bytes")?;
        out.write(Mailbox::required_bytes(&options_of(options)?)?);
        Ok(())
    })
}

/// Makes a mailbox in the caller's device memory (of a tensor, say), 128-byte aligned, of which
/// it takes `gmb_mailbox_get_required_bytes`. What is there is overwritten. The memory stays the caller's: it must
/// outlive the mailbox with its borrows, watches, graphs and arbiters, and be used by nothing else. Blocks until it is ready; thread-safe.
/// Errors: as for `gmb_mailbox_create`, and `GMB_ERROR_MISALIGNED`, `_TRUNCATED` (too little memory).
#[no_mangle]
pub extern "C" fn gmb_mailbox_create_in(
    context: gmb_context,
    options: *const gmb_mailbox_options,
    memory: *mut c_void,
    memory_bytes: u64,
    mailbox: *mut gmb_mailbox,
) -> gmb_status {
    boundary(|| {
        let out = output(mailbox, "mailbox")?;
        let wanted = options_of(options)?;
        let context = CONTEXTS.get(context.id)?;
        // SAFETY: that the memory is good and stays so is the caller's contract.
        let made = unsafe { Mailbox::new_in(&context, &wanted, memory as u64, memory_bytes)? };
        out.write(gmb_mailbox { id: MAILBOXES.insert(made)? });
        Ok(())
    })
}

/// Goes on with a mailbox that lies in device memory already: records, indices and readers are as
/// they were left. `options` may be null for the defaults. The memory stays the caller's, as for
/// `gmb_mailbox_create_in`. Blocks for reading the header; thread-safe.
///
/// The operations of one side must not come through two mailboxes over the same memory at once.
/// The two sides may, with `GMB_ARBITRATION_DEVICE` on both and any policy but `GMB_FULL_WAIT`.
///
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_STRUCT_SIZE`, `_INVALID_ARGUMENT`, `_MISALIGNED`, `_OVERFLOW`,
/// `_TRUNCATED` (less memory than the header says), `_BAD_MAGIC` (no mailbox there), `_BAD_VERSION`
/// (another layout), `_CORRUPT` (a header that contradicts itself), `_BUSY` (an operation is under
/// way, or records were borrowed and not released), `_NOT_SUPPORTED` (the newest record was moved for a borrow, and the
/// device should arbitrate), `_ORDER_VIOLATION` (it was stopped for good), `_MEMORY_LIMIT`, `_OUT_OF_MEMORY` (of a
/// shared mailbox, whose streams meet in memory of the library), `_DEVICE_LOST`.
#[no_mangle]
pub extern "C" fn gmb_mailbox_attach(
    context: gmb_context,
    memory: *mut c_void,
    memory_bytes: u64,
    options: *const gmb_attach_options,
    mailbox: *mut gmb_mailbox,
) -> gmb_status {
    boundary(|| {
        let out = output(mailbox, "mailbox")?;
        let mut wanted = Attach::default();
        if !options.is_null() {
            let options = sized(options, "options")?;
            if options.flags & !GMB_MAILBOX_SINGLE_STREAM != 0 || options.reserved != 0 {
                return Err(Error::argument(format!("flags {:#x}: unknown bits are set", options.flags)));
            }
            wanted = Attach {
                arbitration: arbitration(options.arbitration)?,
                single_stream: options.flags & GMB_MAILBOX_SINGLE_STREAM != 0,
            };
        }
        let context = CONTEXTS.get(context.id)?;
        // SAFETY: that the memory is good and stays so is the caller's contract.
        let found = unsafe { Mailbox::attach(&context, memory as u64, memory_bytes, &wanted)? };
        out.write(gmb_mailbox { id: MAILBOXES.insert(found)? });
        Ok(())
    })
}
