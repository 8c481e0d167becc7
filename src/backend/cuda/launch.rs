//! Launches of kernels.

use std::ptr::null_mut;

use cudarc::driver::sys;

use super::capture::Relaxed;
use super::{cu_stream, Cuda};
use crate::backend::args::{
    gmb_pop_args, gmb_push_args, GMB_ALONE_THREADS, GMB_BLOCK_THREADS, GMB_DRAWING_THREADS, GMB_DRAW_TILES,
};
use crate::backend::{Entry, Kernel, RawStream, Resident};
use crate::error::{Error, Result};

const WARP: u32 = 32;

/// As many threads as move so many records at once.
fn threads_for(records: u32, lanes_log2: u32) -> u32 {
    (records.min(GMB_ALONE_THREADS >> lanes_log2) << lanes_log2).next_multiple_of(WARP).max(WARP)
}

/// What is launched: the function, how many threads its blocks have, whether it waits by itself for what is before it.
struct Launch {
    function: sys::CUfunction,
    threads: u32,
    waits: bool,
}

/// The least PTX version, of compute capability 9.0, with an instruction that waits for the kernel before.
const WAITING_PTX: i32 = 90;

impl Cuda {
    /// Whether the kernels for one block wait for what is before them: not where the device runs code for an older one.
    pub(super) fn alone_functions_wait(&self) -> Result<bool> {
        for entry in [Entry::PushAlone, Entry::PopAlone] {
            let mut version = 0;
            let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_PTX_VERSION;
            // SAFETY: the function is loaded; the pointer is valid.
            let result = unsafe { sys::cuFuncGetAttribute(&mut version, attribute, self.functions[entry]) };
            self.check(result, "cuFuncGetAttribute")?;
            if version < WAITING_PTX {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn launch_of(&self, kernel: &Kernel, blocks: u32) -> Launch {
        let entry = kernel.entry(blocks);
        let (threads, waits) = match (entry, kernel) {
            // The leader has a warp of its own.
            (Entry::PushAlone, Kernel::Push(args)) => (WARP + threads_for(args.count, args.lanes_log2), true),
            (Entry::PopAlone, Kernel::Pop(args)) => (threads_for(args.max, args.lanes_log2), true),
            (_, Kernel::Push(gmb_push_args { flags, .. }) | Kernel::Pop(gmb_pop_args { flags, .. }))
                if flags & GMB_DRAW_TILES != 0 =>
            {
                (GMB_DRAWING_THREADS, false)
            }
            (_, Kernel::QueuePush(args) | Kernel::QueuePop(args)) => (args.threads, false),
            _ => (GMB_BLOCK_THREADS, false),
        };
        Launch { function: self.functions[entry], threads, waits }
    }

    /// Launches a kernel that starts when the one before it has ended.
    ///
    /// # Safety
    /// As of [`crate::backend::Backend::launch`].
    pub(super) unsafe fn launch_after(&self, kernel: &Kernel, blocks: u32, stream: RawStream) -> Result<()> {
        let _current = self.enter()?;
        let Launch { function, threads, .. } = self.launch_of(kernel, blocks);
        let mut parameters = [kernel.args().cast_mut()];
        // SAFETY: the function is loaded and its one argument is the kernel's; the rest is vouched for by the caller.
        let result = unsafe {
            sys::cuLaunchKernel(
                function,
                blocks,
                1,
                1,
                threads,
                1,
                1,
                0,
                cu_stream(stream),
                parameters.as_mut_ptr(),
                null_mut(),
            )
        };
        self.check(result, "cuLaunchKernel")
    }

    /// The same of one that may start beside the one before it and then waits for its end ("programmatic dependent
    /// launch" in the CUDA Programming Guide), where kernel and device can.
    ///
    /// # Safety
    /// As of [`crate::backend::Backend::launch`].
    pub(super) unsafe fn launch_beside(&self, kernel: &Kernel, blocks: u32, stream: RawStream) -> Result<()> {
        let Launch { function, threads, waits } = self.launch_of(kernel, blocks);
        if !self.overlaps_launches || !waits {
            // SAFETY: vouched for by the caller.
            return unsafe { self.launch_after(kernel, blocks, stream) };
        }
        let _current = self.enter()?;
        let mut beside = sys::CUlaunchAttribute {
            id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
            pad: [0; 4],
            value: sys::CUlaunchAttributeValue { programmaticStreamSerializationAllowed: 1 },
        };
        let config = sys::CUlaunchConfig {
            gridDimX: blocks,
            gridDimY: 1,
            gridDimZ: 1,
            blockDimX: threads,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: 0,
            hStream: cu_stream(stream),
            attrs: &mut beside,
            numAttrs: 1,
        };
        let mut parameters = [kernel.args().cast_mut()];
        // SAFETY: as above; the configuration and its attribute live until the call returns.
        let result = unsafe { sys::cuLaunchKernelEx(&config, function, parameters.as_mut_ptr(), null_mut()) };
        self.check(result, "cuLaunchKernelEx")
    }

    fn resident_function(&self, function: usize, own: Entry) -> sys::CUfunction {
        match function {
            0 => self.functions[own],
            own => own as sys::CUfunction,
        }
    }

    /// Blocks of a kernel that stays which fit on the device at once.
    ///
    /// # Safety
    /// `function` is a `CUfunction` of this context, or zero.
    pub(super) unsafe fn resident_limit(&self, function: usize, own: Entry, threads: u32) -> Result<u32> {
        let _relaxed = Relaxed::new();
        let _current = self.enter()?;
        match self.blocks_per_unit(self.resident_function(function, own), threads)? {
            0 => Err(Error::argument(format!(
                "block_threads {threads}: not one block of so many threads fits on a multiprocessor with the registers and the \
                 shared memory that the worker's function needs"
            ))),
            blocks => Ok(self.info.units * blocks),
        }
    }

    /// A cooperative launch: the driver refuses it unless all of its blocks run at once.
    ///
    /// # Safety
    /// As of [`crate::backend::Backend::launch_resident`].
    pub(super) unsafe fn launch_cooperative(&self, resident: &Resident, stream: RawStream) -> Result<()> {
        let _current = self.enter()?;
        let mut together = sys::CUlaunchAttribute {
            id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_COOPERATIVE,
            pad: [0; 4],
            value: sys::CUlaunchAttributeValue { cooperative: 1 },
        };
        let config = sys::CUlaunchConfig {
            gridDimX: resident.blocks,
            gridDimY: 1,
            gridDimZ: 1,
            blockDimX: resident.threads,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: 0,
            hStream: cu_stream(stream),
            attrs: &mut together,
            numAttrs: 1,
        };
        let function = self.resident_function(resident.function, resident.kernel.entry(resident.blocks));
        let mut parameters = [resident.kernel.args().cast_mut()];
        // SAFETY: vouched for by the caller; the configuration and its attribute live until the call returns.
        let result = unsafe { sys::cuLaunchKernelEx(&config, function, parameters.as_mut_ptr(), null_mut()) };
        self.check(result, "cuLaunchKernelEx")
    }
}
