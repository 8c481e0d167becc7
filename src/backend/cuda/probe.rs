//! Finds the driver before cudarc does: cudarc panics on a missing library or
//! symbol and tries the name of the toolkit's stub first.

use std::ffi::{c_char, c_int, c_uint, c_void, CStr};

use cudarc::driver::sys;
use once_cell::sync::OnceCell;

use crate::error::{Error, Result};
use crate::status::*;

const DRIVER: &CStr = c"libcuda.so.1";
const STUB_LIBRARY: c_int = 34;
const NO_DEVICE: c_int = 100;

/// Every driver function this library calls.
const SYMBOLS: &[&CStr] = &[
    c"cuCtxGetCurrent",
    c"cuCtxGetId",
    c"cuCtxGetStreamPriorityRange",
    c"cuCtxPopCurrent_v2",
    c"cuCtxPushCurrent_v2",
    c"cuCtxSynchronize",
    c"cuDeviceGet",
    c"cuDeviceGetAttribute",
    c"cuDeviceGetCount",
    c"cuDeviceGetName",
    c"cuDevicePrimaryCtxRelease_v2",
    c"cuDevicePrimaryCtxRetain",
    c"cuDriverGetVersion",
    c"cuEventCreate",
    c"cuEventDestroy_v2",
    c"cuEventElapsedTime",
    c"cuEventQuery",
    c"cuEventRecord",
    c"cuEventRecordWithFlags",
    c"cuEventSynchronize",
    c"cuFuncGetAttribute",
    c"cuFuncSetAttribute",
    c"cuGetErrorName",
    c"cuGetErrorString",
    c"cuGraphDestroy",
    c"cuGraphExecDestroy",
    c"cuGraphInstantiateWithFlags",
    c"cuGraphLaunch",
    c"cuGraphRetainUserObject",
    c"cuInit",
    c"cuLaunchHostFunc",
    c"cuLaunchKernel",
    c"cuLaunchKernelEx",
    c"cuMemAllocFromPoolAsync",
    c"cuMemAlloc_v2",
    c"cuMemFreeAsync",
    c"cuMemFreeHost",
    c"cuMemFree_v2",
    c"cuMemHostAlloc",
    c"cuMemHostRegister_v2",
    c"cuMemHostUnregister",
    c"cuMemPoolCreate",
    c"cuMemPoolDestroy",
    c"cuMemPoolGetAttribute",
    c"cuMemPoolSetAttribute",
    c"cuMemPoolTrimTo",
    c"cuMemcpyAsync",
    c"cuMemsetD8Async",
    c"cuModuleGetFunction",
    c"cuModuleLoadData",
    c"cuModuleLoadDataEx",
    c"cuModuleUnload",
    c"cuOccupancyMaxActiveBlocksPerMultiprocessor",
    c"cuPointerGetAttribute",
    c"cuStreamBeginCapture_v2",
    c"cuStreamCreateWithPriority",
    c"cuStreamDestroy_v2",
    c"cuStreamEndCapture",
    c"cuStreamGetCaptureInfo_v2",
    c"cuStreamGetCtx",
    c"cuStreamGetId",
    c"cuStreamGetPriority",
    c"cuStreamIsCapturing",
    c"cuStreamQuery",
    c"cuStreamSynchronize",
    c"cuStreamUpdateCaptureDependencies",
    c"cuStreamWaitEvent",
    c"cuThreadExchangeStreamCaptureMode",
    c"cuUserObjectCreate",
    c"cuUserObjectRelease",
];

/// Makes cudarc's driver functions safe to call: library there, symbols
/// there, `cuInit` done. Asked once; a failure is tried again next time.
pub(super) fn driver() -> Result<()> {
    static READY: OnceCell<()> = OnceCell::new();
    READY.get_or_try_init(load).map(|_| ())
}

fn load() -> Result<()> {
    // SAFETY: loading the driver runs its initializers, which is its purpose; the name is NUL-terminated.
    let library = unsafe { libc::dlopen(DRIVER.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    if library.is_null() {
        return Err(Error::new(
            GMB_ERROR_NO_DRIVER,
            format!(
                "{}: install the NVIDIA driver, or use the host backend (GMB_BACKEND=host)",
                loader_message()
            ),
        ));
    }
    let init = symbol(library, c"cuInit").ok_or_else(|| missing(c"cuInit"))?;
    // SAFETY: cuInit has this signature in every driver.
    let init: unsafe extern "C" fn(c_uint) -> c_int = unsafe { std::mem::transmute(init) };
    // SAFETY: 0 is the only flag value there is.
    match unsafe { init(0) } {
        0 => {}
        STUB_LIBRARY => return Err(stub("libcuda.so.1 is the CUDA toolkit's stub")),
        NO_DEVICE => {
            return Err(Error::new(
                GMB_ERROR_NO_DEVICE,
                "the CUDA driver reports no device: check nvidia-smi and CUDA_VISIBLE_DEVICES, or use the host backend",
            ))
        }
        code => {
            return Err(Error::new(
                GMB_ERROR_DRIVER,
                format!("cuInit failed with CUDA error {code}: check nvidia-smi, or use the host backend"),
            ))
        }
    }
    if let Some(name) = SYMBOLS.iter().find(|name| symbol(library, name).is_none()) {
        return Err(missing(name));
    }
    // SAFETY: libcuda.so.1 is loadable, so cudarc finds a library and does not panic.
    let cudarcs = unsafe {
        sys::culib().get::<unsafe extern "C" fn(c_uint) -> c_int>(b"cuInit").map(|f| *f as usize).unwrap_or(0)
    };
    if cudarcs != init as usize {
        return Err(stub("the library path holds a libcuda.so that is not the driver's libcuda.so.1"));
    }
    Ok(())
}

/// A function that only later drivers have.
pub(super) fn optional(name: &CStr) -> Option<usize> {
    // SAFETY: the driver is loaded already, so this only finds it; the name is NUL-terminated.
    let library = unsafe { libc::dlopen(DRIVER.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    if library.is_null() {
        return None;
    }
    symbol(library, name).map(|address| address as usize)
}

fn symbol(library: *mut c_void, name: &CStr) -> Option<*mut c_void> {
    // SAFETY: the library is loaded and never unloaded; the name is NUL-terminated.
    let address = unsafe { libc::dlsym(library, name.as_ptr()) };
    (!address.is_null()).then_some(address)
}

fn missing(name: &CStr) -> Error {
    Error::new(
        GMB_ERROR_DRIVER_TOO_OLD,
        format!("the CUDA driver has no {}: update it to one for CUDA 12 or later", name.to_string_lossy()),
    )
}

fn stub(what: &str) -> Error {
    Error::new(
        GMB_ERROR_STUB_DRIVER,
        format!("{what}: take the toolkit's lib64/stubs folder off LD_LIBRARY_PATH, or use the host backend"),
    )
}

fn loader_message() -> String {
    // SAFETY: dlerror returns null or a NUL-terminated string of this thread.
    let message: *const c_char = unsafe { libc::dlerror() };
    if message.is_null() {
        return "libcuda.so.1 cannot be loaded".into();
    }
    // SAFETY: not null, checked above.
    unsafe { CStr::from_ptr(message) }.to_string_lossy().into_owned()
}
