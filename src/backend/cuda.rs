//! The CUDA backend: the driver API on the device's primary context.
//!
//! No other room calls the driver.

mod capture;
mod current;
mod device;
mod errors;
mod launch;
mod module;
mod pinned;
mod pool;
mod probe;

use std::collections::HashSet;
use std::ffi::{c_void, CStr};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Mutex;

use cudarc::driver::sys;
use current::{id_of, leave};
use device::{device_count, device_name, toolkit_major};
use errors::{check, ends_context, failed, lost};
use once_cell::sync::OnceCell;

use super::args::{GMB_BLOCK_THREADS, GMB_DRAWING_THREADS};
use super::{
    Backend, BlockFunction, ByEntry, DeviceInfo, Entered, Entry, FunctionInfo, HostFunction, Kept, Kernel,
    RawEvent, RawFunction, RawGraph, RawModule, RawNode, RawStream, Resident, Shape, StreamState, DL_CUDA,
};
use crate::error::{Error, Result};
use crate::events::EventKind;
use crate::graph::CaptureMode;
use crate::log::{log, LogLevel};
use crate::status::*;
use crate::stream::Priority;
use crate::sync::lock;

#[cfg(gmb_kernels)]
const FATBIN: Option<&[u8]> = Some(include_bytes!(env!("GMB_FATBIN")));
#[cfg(not(gmb_kernels))]
const FATBIN: Option<&[u8]> = None;

/// Streams known to be ours are remembered by id, in this many places.
const KNOWN_STREAMS: usize = 256;

pub(crate) struct Cuda {
    info: DeviceInfo,
    device: sys::CUdevice,
    context: sys::CUcontext,
    /// Tells the context from one that was made in its place after a reset of the device.
    context_id: u64,
    module: sys::CUmodule,
    functions: ByEntry<sys::CUfunction>,
    /// Whether a kernel can be launched while the one before it still runs.
    overlaps_launches: bool,
    /// Null where the device has no pools.
    pool: sys::CUmemoryPool,
    registered: pinned::Registered,
    known: [AtomicU64; KNOWN_STREAMS],
    /// Streams made here: the driver must not be asked about one that is gone.
    streams: Mutex<HashSet<usize>>,
    lost: OnceCell<String>,
}

// SAFETY: driver handles may be used from any thread; the rest is atomic.
unsafe impl Send for Cuda {}
// SAFETY: as above.
unsafe impl Sync for Cuda {}

impl Cuda {
    pub(crate) fn new(ordinal: u32) -> Result<Self> {
        let count = device_count()?;
        let Some(fatbin) = FATBIN else {
            return Err(Error::new(
                GMB_ERROR_NO_KERNELS,
                "this library was built without CUDA kernels: rebuild it with nvcc present (GMB_CUDA=ON), \
                 or set GMB_BACKEND=host",
            ));
        };
        let mut version = 0;
        // SAFETY: the driver is initialized; the pointer is valid.
        check(unsafe { sys::cuDriverGetVersion(&mut version) }, "cuDriverGetVersion")?;
        if version / 1000 < toolkit_major() as i32 {
            return Err(Error::new(
                GMB_ERROR_DRIVER_TOO_OLD,
                format!(
                    "the driver supports CUDA {}.{}, this build needs {}.0: update the driver or rebuild with its toolkit",
                    version / 1000,
                    version % 1000 / 10,
                    toolkit_major()
                ),
            ));
        }
        if i64::from(ordinal) >= i64::from(count) {
            return Err(Error::new(
                GMB_ERROR_INVALID_DEVICE,
                format!("device {ordinal} of {count}: ordinals run from 0 to {}", count - 1),
            ));
        }
        let mut device = 0;
        // SAFETY: the ordinal is below the count.
        check(unsafe { sys::cuDeviceGet(&mut device, ordinal as i32) }, "cuDeviceGet")?;
        let mut context = null_mut();
        // SAFETY: the device is valid; released when this is dropped.
        check(unsafe { sys::cuDevicePrimaryCtxRetain(&mut context, device) }, "cuDevicePrimaryCtxRetain")?;
        // From here on Drop gives back what was taken.
        let mut cuda = Self {
            info: DeviceInfo {
                name: String::new(),
                dlpack_device: (DL_CUDA, ordinal as i32),
                shares_streams: true,
                units: 1,
                block_threads: GMB_BLOCK_THREADS,
                drawing_threads: GMB_DRAWING_THREADS,
                group_records: 1,
                drawn_records: 1,
                max_blocks: ByEntry::all(1),
                drawing_blocks: ByEntry::all(1),
                driver_version: version as u32,
                most_grid: [1; 3],
                most_block: [1; 3],
            },
            device,
            context,
            context_id: id_of(context)?,
            module: null_mut(),
            functions: ByEntry::all(null_mut()),
            overlaps_launches: false,
            pool: null_mut(),
            registered: pinned::Registered::default(),
            known: [const { AtomicU64::new(0) }; KNOWN_STREAMS],
            streams: Mutex::default(),
            lost: OnceCell::new(),
        };
        let _relaxed = capture::Relaxed::new();
        let _current = cuda.enter()?;
        let mut module = null_mut();
        // SAFETY: the fatbin is embedded and complete.
        let result = unsafe { sys::cuModuleLoadData(&mut module, fatbin.as_ptr().cast()) };
        cuda.check(result, "cuModuleLoadData")?;
        cuda.module = module;
        for &(entry, name) in Entry::ALL {
            cuda.functions[entry] = cuda.function(name)?;
        }
        cuda.create_pool()?;
        cuda.info.name = device_name(device)?;
        cuda.info.units =
            cuda.attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
        cuda.ask_launch_limits()?;
        cuda.overlaps_launches = cuda.alone_functions_wait()?;
        for &(entry, _) in Entry::ALL {
            let function = cuda.functions[entry];
            cuda.info.max_blocks[entry] =
                cuda.info.units * cuda.blocks_per_unit(function, GMB_BLOCK_THREADS)?.max(1);
            if entry.draws() {
                cuda.info.drawing_blocks[entry] =
                    cuda.info.units * cuda.blocks_per_unit(function, GMB_DRAWING_THREADS)?.max(1);
            }
        }
        Ok(cuda)
    }

    /// As [`check`], and remembers the first error that ended the context.
    #[inline]
    fn check(&self, result: sys::CUresult, call: &str) -> Result<()> {
        if result == sys::CUresult::CUDA_SUCCESS {
            return Ok(());
        }
        Err(self.failed(result, call))
    }

    #[cold]
    fn failed(&self, result: sys::CUresult, call: &str) -> Error {
        let error = failed(result, call);
        if !ends_context(result as i32) {
            return error;
        }
        let mut first = false;
        let cause = self.lost.get_or_init(|| {
            first = true;
            error.message().to_owned()
        });
        if first {
            log(LogLevel::Error, || format!("the CUDA context is lost: {cause}"));
        }
        lost(cause)
    }

    /// Refuses a stream of another context.
    fn check_own(&self, stream: RawStream, context: sys::CUcontext) -> Result<()> {
        if context == self.context {
            return Ok(());
        }
        Err(Error::new(
            GMB_ERROR_INVALID_STREAM,
            format!(
                "stream {stream:p} belongs to another device or CUDA context than this context's device {}",
                self.device
            ),
        ))
    }

    fn finished(&self, result: sys::CUresult, call: &str) -> Result<bool> {
        if result == sys::CUresult::CUDA_ERROR_NOT_READY {
            return Ok(false);
        }
        self.check(result, call).map(|()| true)
    }
}

unsafe extern "C" fn run_host_function(data: *mut c_void) {
    // SAFETY: `data` is the box that host_function leaked for this one call.
    let function = unsafe { Box::from_raw(data.cast::<HostFunction>()) };
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(*function));
}

impl Drop for Cuda {
    fn drop(&mut self) {
        if crate::sync::forked() {
            return;
        }
        let _relaxed = capture::Relaxed::new();
        // SAFETY: module and context were taken in `new`; errors of a lost context do not matter here.
        unsafe {
            let same = id_of(self.context).is_ok_and(|id| id == self.context_id);
            if same && sys::cuCtxPushCurrent_v2(self.context) == sys::CUresult::CUDA_SUCCESS {
                if !self.pool.is_null() {
                    let _ = sys::cuMemPoolDestroy(self.pool);
                }
                if !self.module.is_null() {
                    let _ = sys::cuModuleUnload(self.module);
                }
                let mut popped = null_mut();
                let _ = sys::cuCtxPopCurrent_v2(&mut popped);
            }
            let _ = sys::cuDevicePrimaryCtxRelease_v2(self.device);
        }
    }
}

fn cu_stream(stream: RawStream) -> sys::CUstream {
    stream.cast()
}

fn cu_event(event: RawEvent) -> sys::CUevent {
    event.0 as sys::CUevent
}

// Each call below is made with the context current and with handles that came from it.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Backend for Cuda {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn allocate(&self, bytes: usize) -> Result<u64> {
        let _relaxed = capture::Relaxed::new();
        let _current = self.enter()?;
        let mut address = 0;
        self.check(unsafe { sys::cuMemAlloc_v2(&mut address, bytes.max(1)) }, "cuMemAlloc")?;
        Ok(address)
    }

    unsafe fn release(&self, address: u64) -> Result<()> {
        let _relaxed = capture::Relaxed::new();
        let _current = self.enter()?;
        self.check(unsafe { sys::cuMemFree_v2(address) }, "cuMemFree")
    }

    fn has_pool(&self) -> bool {
        !self.pool.is_null()
    }

    fn allocate_ordered(&self, bytes: usize, stream: RawStream) -> Result<u64> {
        let _relaxed = capture::Relaxed::new();
        let _current = self.enter()?;
        let mut address = 0;
        let result =
            unsafe { sys::cuMemAllocFromPoolAsync(&mut address, bytes, self.pool, cu_stream(stream)) };
        self.check(result, "cuMemAllocFromPoolAsync")?;
        Ok(address)
    }

    unsafe fn release_ordered(&self, address: u64, stream: RawStream) -> Result<()> {
        let _relaxed = capture::Relaxed::new();
        let _current = self.enter()?;
        self.check(unsafe { sys::cuMemFreeAsync(address, cu_stream(stream)) }, "cuMemFreeAsync")
    }

    fn pool_reserved(&self) -> Result<u64> {
        self.reserved()
    }

    fn pool_trim(&self, keep: u64) -> Result<()> {
        let _relaxed = capture::Relaxed::new();
        let _current = self.enter()?;
        self.check(unsafe { sys::cuMemPoolTrimTo(self.pool, keep as usize) }, "cuMemPoolTrimTo")
    }

    fn can_reach(&self, address: u64, bytes: u64) -> Result<bool> {
        self.knows(address, bytes)
    }

    fn is_pageable(&self, address: u64, bytes: u64) -> Result<bool> {
        self.is_unregistered(address, bytes)
    }

    fn push_context(&self) -> Result<Option<fn()>> {
        std::mem::forget(self.enter_again(true)?);
        Ok(Some(leave))
    }

    fn enter_for_calls(&self) -> Result<Entered> {
        self.scope()
    }

    fn synchronize(&self) -> Result<()> {
        let _relaxed = capture::Relaxed::new();
        let _current = self.enter()?;
        self.check(unsafe { sys::cuCtxSynchronize() }, "cuCtxSynchronize")
    }

    fn allocate_pinned(&self, bytes: usize) -> Result<u64> {
        self.allocate_host(bytes)
    }

    unsafe fn release_pinned(&self, address: u64, in_use: bool) -> Result<()> {
        self.release_host(address, in_use)
    }

    fn stream_create(&self, priority: Priority) -> Result<RawStream> {
        let _relaxed = capture::Relaxed::new();
        let _current = self.enter()?;
        let (mut least, mut greatest) = (0, 0);
        let result = unsafe { sys::cuCtxGetStreamPriorityRange(&mut least, &mut greatest) };
        self.check(result, "cuCtxGetStreamPriorityRange")?;
        let mut stream = null_mut();
        let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        let priority = priority.within(least, greatest);
        let result = unsafe { sys::cuStreamCreateWithPriority(&mut stream, flags, priority) };
        self.check(result, "cuStreamCreateWithPriority")?;
        lock(&self.streams).insert(stream as usize);
        Ok(stream.cast())
    }

    fn stream_priority(&self, stream: RawStream) -> Result<i32> {
        let _current = self.enter()?;
        let mut priority = 0;
        self.check(
            unsafe { sys::cuStreamGetPriority(cu_stream(stream), &mut priority) },
            "cuStreamGetPriority",
        )?;
        Ok(priority)
    }

    fn stream_destroy(&self, stream: RawStream) -> Result<()> {
        if !lock(&self.streams).remove(&(stream as usize)) {
            return Err(Error::new(
                GMB_ERROR_INVALID_STREAM,
                format!("stream {stream:p} was not made by this context, or was destroyed"),
            ));
        }
        let _relaxed = capture::Relaxed::new();
        let _current = self.enter()?;
        self.check(unsafe { sys::cuStreamDestroy_v2(cu_stream(stream)) }, "cuStreamDestroy")
    }

    fn stream_state(&self, stream: RawStream) -> Result<StreamState> {
        let _current = self.enter()?;
        let bad = |e: Error| match e.status() {
            GMB_ERROR_DEVICE_LOST | GMB_ERROR_NOT_SUPPORTED | GMB_ERROR_CAPTURE => e,
            _ => Error::new(GMB_ERROR_INVALID_STREAM, format!("stream {stream:p}: {}", e.message())),
        };
        // First: to ask a stream under capture for its id is an error that could end the capture.
        let mut status = sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE;
        let result = unsafe { sys::cuStreamIsCapturing(cu_stream(stream), &mut status) };
        self.check(result, "cuStreamIsCapturing").map_err(bad)?;
        if status != sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE {
            return self.capture_id(stream).map(StreamState::Capturing);
        }
        let mut id = 0;
        self.check(unsafe { sys::cuStreamGetId(cu_stream(stream), &mut id) }, "cuStreamGetId")
            .map_err(bad)?;
        // Ids are never reused and the driver's may be zero: keep zero for "no stream".
        let id = id.wrapping_add(1).max(1);
        let place = &self.known[id as usize % KNOWN_STREAMS];
        if place.load(Ordering::Relaxed) == id {
            return Ok(StreamState::Running(id));
        }
        let mut context = null_mut();
        self.check(unsafe { sys::cuStreamGetCtx(cu_stream(stream), &mut context) }, "cuStreamGetCtx")
            .map_err(bad)?;
        self.check_own(stream, context)?;
        place.store(id, Ordering::Relaxed);
        Ok(StreamState::Running(id))
    }

    fn stream_query(&self, stream: RawStream) -> Result<bool> {
        let _relaxed = capture::Relaxed::new();
        let _current = self.enter()?;
        self.finished(unsafe { sys::cuStreamQuery(cu_stream(stream)) }, "cuStreamQuery")
    }

    fn stream_synchronize(&self, stream: RawStream) -> Result<()> {
        let _relaxed = capture::Relaxed::new();
        let _current = self.enter()?;
        self.check(unsafe { sys::cuStreamSynchronize(cu_stream(stream)) }, "cuStreamSynchronize")
    }

    fn host_function(&self, stream: RawStream, function: HostFunction) -> Result<()> {
        let _current = self.enter()?;
        let data = Box::into_raw(Box::new(function));
        let result =
            unsafe { sys::cuLaunchHostFunc(cu_stream(stream), Some(run_host_function), data.cast()) };
        self.check(result, "cuLaunchHostFunc").inspect_err(|_| drop(unsafe { Box::from_raw(data) }))
    }

    fn event_create(&self, kind: EventKind) -> Result<RawEvent> {
        let _relaxed = capture::Relaxed::new();
        let _current = self.enter()?;
        let mut event = null_mut();
        let flags = match kind {
            EventKind::Timed => sys::CUevent_flags::CU_EVENT_DEFAULT,
            EventKind::Untimed | EventKind::Capture => sys::CUevent_flags::CU_EVENT_DISABLE_TIMING,
        } as u32;
        self.check(unsafe { sys::cuEventCreate(&mut event, flags) }, "cuEventCreate")?;
        Ok(RawEvent(event as usize))
    }

    fn event_destroy(&self, event: RawEvent) {
        if let Ok(_current) = self.enter() {
            let _ = unsafe { sys::cuEventDestroy_v2(cu_event(event)) };
        }
    }

    fn event_record(&self, event: RawEvent, stream: RawStream) -> Result<()> {
        let _current = self.enter()?;
        self.check(unsafe { sys::cuEventRecord(cu_event(event), cu_stream(stream)) }, "cuEventRecord")
    }

    fn event_query(&self, event: RawEvent) -> Result<bool> {
        let _relaxed = capture::Relaxed::new();
        let _current = self.enter()?;
        self.finished(unsafe { sys::cuEventQuery(cu_event(event)) }, "cuEventQuery")
    }

    fn event_synchronize(&self, event: RawEvent) -> Result<()> {
        let _relaxed = capture::Relaxed::new();
        let _current = self.enter()?;
        self.check(unsafe { sys::cuEventSynchronize(cu_event(event)) }, "cuEventSynchronize")
    }

    fn event_elapsed(&self, start: RawEvent, end: RawEvent) -> Result<Option<f64>> {
        let _relaxed = capture::Relaxed::new();
        let _current = self.enter()?;
        let mut milliseconds = 0f32;
        let result = unsafe { sys::cuEventElapsedTime(&mut milliseconds, cu_event(start), cu_event(end)) };
        Ok(self.finished(result, "cuEventElapsedTime")?.then(|| f64::from(milliseconds)))
    }

    fn stream_wait(&self, stream: RawStream, event: RawEvent) -> Result<()> {
        let _current = self.enter()?;
        self.check(
            unsafe { sys::cuStreamWaitEvent(cu_stream(stream), cu_event(event), 0) },
            "cuStreamWaitEvent",
        )
    }

    fn relax(&self) {
        // Only to be forgotten: it holds as long as the thread.
        std::mem::forget(capture::Relaxed::new());
    }

    fn capture_begin(&self, stream: RawStream, mode: CaptureMode) -> Result<()> {
        self.begin_capture(stream, mode)
    }

    fn capture_end(&self, stream: RawStream) -> Result<RawGraph> {
        self.end_capture(stream)
    }

    fn capture_keep(&self, stream: RawStream, kept: Kept) -> Result<()> {
        self.keep(stream, kept)
    }

    fn capture_last(&self, stream: RawStream) -> Result<RawNode> {
        self.last_node(stream)
    }

    fn capture_after(&self, stream: RawStream, node: RawNode) -> Result<()> {
        self.come_after(stream, node)
    }

    fn capture_record(&self, event: RawEvent, stream: RawStream) -> Result<()> {
        self.record_outside(event, stream)
    }

    fn capture_wait(&self, stream: RawStream, event: RawEvent) -> Result<()> {
        self.wait_outside(stream, event)
    }

    fn graph_launch(&self, graph: RawGraph, stream: RawStream) -> Result<()> {
        self.launch_graph(graph, stream)
    }

    fn graph_destroy(&self, graph: RawGraph) {
        self.end_graph(graph);
    }

    unsafe fn copy(&self, to: u64, from: u64, bytes: usize, stream: RawStream) -> Result<()> {
        let _current = self.enter()?;
        self.check(unsafe { sys::cuMemcpyAsync(to, from, bytes, cu_stream(stream)) }, "cuMemcpyAsync")
    }

    unsafe fn fill(&self, to: u64, value: u8, bytes: usize, stream: RawStream) -> Result<()> {
        let _current = self.enter()?;
        self.check(unsafe { sys::cuMemsetD8Async(to, value, bytes, cu_stream(stream)) }, "cuMemsetD8Async")
    }

    unsafe fn launch(&self, kernel: &Kernel, blocks: u32, stream: RawStream) -> Result<()> {
        // SAFETY: vouched for by the caller.
        unsafe { self.launch_after(kernel, blocks, stream) }
    }

    unsafe fn launch_captured(&self, kernel: &Kernel, blocks: u32, stream: RawStream) -> Result<()> {
        // SAFETY: vouched for by the caller.
        unsafe { self.launch_beside(kernel, blocks, stream) }
    }

    fn module_load(&self, image: &[u8]) -> Result<Option<RawModule>> {
        self.load_module(image).map(Some)
    }

    fn module_unload(&self, module: RawModule) {
        self.unload_module(module);
    }

    fn module_function(&self, module: RawModule, name: &CStr) -> Result<FunctionInfo> {
        self.find_function(module, name)
    }

    unsafe fn launch_function(
        &self,
        function: RawFunction,
        shape: &Shape,
        arguments: &mut [*mut c_void],
        stream: RawStream,
    ) -> Result<()> {
        unsafe { self.launch_of_module(function, shape, arguments, stream) }
    }

    fn launch_blocks(&self, _function: BlockFunction, _blocks: u32, _stream: RawStream) -> Result<()> {
        Err(Error::new(GMB_ERROR_NOT_SUPPORTED, "a GPU runs kernels, not functions of the host"))
    }

    unsafe fn resident_blocks(&self, function: usize, own: Entry, threads: u32) -> Result<u32> {
        unsafe { self.resident_limit(function, own, threads) }
    }

    unsafe fn launch_resident(&self, resident: &Resident, stream: RawStream) -> Result<()> {
        unsafe { self.launch_cooperative(resident, stream) }
    }
}
