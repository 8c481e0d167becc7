//! `gmb_context`.

use std::ffi::c_char;

use super::boundary::boundary;
use super::{output, sized, write_info, Sized32, CONTEXTS};
use crate::error::{Error, Result};
use crate::status::*;
use crate::{BackendKind, Context, ContextOptions};

/// Which device family runs the mailboxes: `GMB_BACKEND_*`.
#[allow(non_camel_case_types)]
pub type gmb_backend = i32;

/// CUDA; the host only when there is no driver library or no device. The
/// environment's `GMB_BACKEND=host|cuda` decides instead.
pub const GMB_BACKEND_AUTO: gmb_backend = 0;
/// An NVIDIA GPU through its driver.
pub const GMB_BACKEND_CUDA: gmb_backend = 1;
/// Threads and memory of this machine.
pub const GMB_BACKEND_HOST: gmb_backend = 2;

/// Handle of a context: one device, one backend. Zero is null.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_context {
    /// Opaque.
    pub id: u64,
}

/// What a context is made with. Start from `GMB_CONTEXT_OPTIONS_INIT`.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_context_options {
    /// `sizeof(gmb_context_options)`.
    pub struct_size: u32,
    /// Backend wanted; default `GMB_BACKEND_AUTO`.
    pub backend: gmb_backend,
    /// CUDA ordinal of the device; default 0, the only one of the host backend.
    pub device: u32,
    /// Percent of the device that the workers of all contexts may hold together; 0 for 50.
    pub resident_percent: u32,
    /// Most bytes of device memory that may be held at once, the mailboxes' rings included; 0 for no limit.
    pub memory_limit: u64,
}

// SAFETY: repr(C), begins with struct_size, integers only.
unsafe impl Sized32 for gmb_context_options {
    const NAME: &'static str = "gmb_context_options";
    const FIRST_SIZE: usize = 24;
}

/// What is behind a context.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_context_info {
    /// `GMB_BACKEND_CUDA` or `GMB_BACKEND_HOST`.
    pub backend: gmb_backend,
    /// CUDA ordinal of the device.
    pub device: u32,
    /// Multiprocessors, or block threads of the host backend.
    pub multiprocessors: u32,
    /// Driver version as CUDA counts it (13000 is 13.0); zero on the host.
    pub driver_version: u32,
    /// The device's name, NUL-terminated.
    pub name: [c_char; 128],
}

/// As they cross the API.
const BACKENDS: [(gmb_backend, BackendKind); 3] = [
    (GMB_BACKEND_AUTO, BackendKind::Auto),
    (GMB_BACKEND_CUDA, BackendKind::Cuda),
    (GMB_BACKEND_HOST, BackendKind::Host),
];

fn backend_kind(value: gmb_backend) -> Result<BackendKind> {
    let found = BACKENDS.into_iter().find(|&(number, _)| number == value);
    found
        .map(|(_, kind)| kind)
        .ok_or_else(|| Error::argument(format!("backend {value} is none of GMB_BACKEND_AUTO, _CUDA, _HOST")))
}

/// Opens a device.
///
/// `options` may be null for the defaults. The caller owns the context and ends it with
/// `gmb_context_destroy`. On CUDA the device's primary context is retained, so pointers and
/// streams of PyTorch, CuPy and the CUDA runtime work as they are; all kernels are loaded here.
/// Blocks while the device starts; thread-safe.
///
/// Errors: `GMB_ERROR_NULL_POINTER`, `_STRUCT_SIZE`, `_INVALID_ARGUMENT`, `_NO_DRIVER`, `_NO_DEVICE`,
/// `_STUB_DRIVER`, `_DRIVER_TOO_OLD`, `_NO_KERNELS`, `_INVALID_DEVICE`, `_DRIVER`, `_SYSTEM`.
#[no_mangle]
pub extern "C" fn gmb_context_create(
    options: *const gmb_context_options,
    context: *mut gmb_context,
) -> gmb_status {
    boundary(|| {
        let out = output(context, "context")?;
        let mut wanted = ContextOptions::default();
        if !options.is_null() {
            let options = sized(options, "options")?;
            wanted = ContextOptions {
                backend: backend_kind(options.backend)?,
                device: options.device,
                memory_limit: options.memory_limit,
                resident_percent: options.resident_percent,
            };
        }
        out.write(gmb_context { id: CONTEXTS.insert(Context::new(&wanted)?)? });
        Ok(())
    })
}

/// Ends a context's handle. What was made in the context stays usable and keeps the device open
/// until it is destroyed too; memory from `gmb_memory_allocate` must be freed before.
/// May block while the device closes; thread-safe. Errors: `GMB_ERROR_INVALID_HANDLE`.
#[no_mangle]
pub extern "C" fn gmb_context_destroy(context: gmb_context) -> gmb_status {
    boundary(|| CONTEXTS.remove(context.id))
}

/// What is behind a context. `info_size` is `sizeof(gmb_context_info)`.
/// Never blocks; thread-safe. Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_STRUCT_SIZE`.
#[no_mangle]
pub extern "C" fn gmb_context_get_info(
    context: gmb_context,
    info: *mut gmb_context_info,
    info_size: usize,
) -> gmb_status {
    boundary(|| {
        let known = CONTEXTS.get(context.id)?.info();
        let mut name = [0 as c_char; 128];
        for (to, from) in name.iter_mut().take(127).zip(known.name.bytes()) {
            *to = from as c_char;
        }
        let found = BACKENDS.into_iter().find(|&(_, kind)| kind == known.backend);
        let backend = found.map_or(GMB_BACKEND_AUTO, |(number, _)| number);
        let value = gmb_context_info {
            backend,
            device: known.device,
            multiprocessors: known.multiprocessors,
            driver_version: known.driver_version,
            name,
        };
        write_info(info, info_size, value)
    })
}
