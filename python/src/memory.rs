//! Device memory for records that are popped.

use std::ffi::c_void;
use std::sync::{Arc, Mutex};

use pyo3::prelude::*;

use crate::context::ContextHandle;
use crate::error::check;
use crate::events::order;
use crate::interpreter::ended;
use crate::{ffi, lock, streams::raw};

/// Device memory of the context, of a stream's order.
pub struct Memory {
    context: Arc<ContextHandle>,
    pub address: u64,
    stream: usize,
    /// Other streams that it was given to.
    users: Mutex<Vec<usize>>,
}

impl Memory {
    pub fn new(context: &Arc<ContextHandle>, bytes: u64, stream: usize) -> PyResult<Arc<Self>> {
        let mut address: *mut c_void = std::ptr::null_mut();
        // SAFETY: it writes an address.
        check(unsafe {
            ffi::gmb_memory_allocate_async(context.handle()?, bytes.max(1), raw(stream), &mut address)
        })?;
        Ok(Arc::new(Self {
            context: Arc::clone(context),
            address: address as u64,
            stream,
            users: Mutex::default(),
        }))
    }

    /// A stream uses it, too; by the number that the protocols give it. Who names none may use the default one.
    pub fn used_by(&self, stream: Option<&Bound<'_, PyAny>>) {
        let named = stream.and_then(|stream| stream.extract::<i64>().ok()).unwrap_or(1);
        let theirs = if named <= 1 { 0 } else { named as usize };
        if theirs == self.stream {
            return;
        }
        let mut users = lock(&self.users);
        if !users.contains(&theirs) {
            users.push(theirs);
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if ended() {
            return;
        }
        let context = self.context.handle_at_end();
        let users = std::mem::take(self.users.get_mut().unwrap_or_else(|p| p.into_inner()));
        for user in users {
            // What it holds now may read this.
            let _ = order(&self.context, user, self.stream);
        }
        let memory = self.address as *mut c_void;
        // SAFETY: allocated by this context, and nobody has it any more.
        unsafe {
            if ffi::gmb_memory_free_async(context, memory, raw(self.stream)) < 0 {
                ffi::gmb_memory_free(context, memory);
            }
        }
    }
}
