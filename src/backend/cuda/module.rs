//! Modules of a caller's kernels.

use std::ffi::{c_void, CStr};
use std::ptr::null_mut;

use cudarc::driver::sys;
use once_cell::sync::OnceCell;

use super::capture::Relaxed;
use super::{cu_stream, probe, Cuda};
use crate::backend::{FunctionInfo, RawFunction, RawModule, RawStream, Shape};
use crate::error::{Error, Result};
use crate::status::*;

/// Bytes of the log that the driver's compiler may write.
const LOG_BYTES: usize = 4096;

/// Of drivers for CUDA 12.4 and later: offset and size of a kernel's argument.
type GetParameter = unsafe extern "C" fn(sys::CUfunction, usize, *mut usize, *mut usize) -> sys::CUresult;

fn get_parameter() -> Option<GetParameter> {
    static FOUND: OnceCell<Option<usize>> = OnceCell::new();
    let address = FOUND.get_or_init(|| probe::optional(c"cuFuncGetParamInfo"));
    // SAFETY: the function has this signature in every driver that has it.
    address.map(|address| unsafe { std::mem::transmute::<usize, GetParameter>(address) })
}

impl Cuda {
    pub(super) fn ask_launch_limits(&mut self) -> Result<()> {
        use sys::CUdevice_attribute::*;
        let ask = |attributes: [sys::CUdevice_attribute; 3]| -> Result<[u32; 3]> {
            let [x, y, z] = attributes;
            Ok([self.attribute(x)?, self.attribute(y)?, self.attribute(z)?])
        };
        let most_grid = ask([
            CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X,
            CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y,
            CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z,
        ])?;
        let most_block = ask([
            CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X,
            CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Y,
            CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z,
        ])?;
        (self.info.most_grid, self.info.most_block) = (most_grid, most_block);
        Ok(())
    }

    pub(super) fn load_module(&self, image: &[u8]) -> Result<RawModule> {
        let _relaxed = Relaxed::new();
        let _current = self.enter()?;
        // PTX is text, and ends with a NUL.
        let mut ended = Vec::with_capacity(image.len() + 1);
        ended.extend_from_slice(image);
        ended.push(0);
        let mut log = vec![0u8; LOG_BYTES];
        let mut options = [
            sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER,
            sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES,
        ];
        let mut values: [*mut c_void; 2] = [log.as_mut_ptr().cast(), LOG_BYTES as *mut c_void];
        let mut module = null_mut();
        // SAFETY: the image is ended, and the log has the size that is told.
        let result = unsafe {
            sys::cuModuleLoadDataEx(
                &mut module,
                ended.as_ptr().cast(),
                options.len() as u32,
                options.as_mut_ptr(),
                values.as_mut_ptr(),
            )
        };
        self.check(result, "cuModuleLoadDataEx").map_err(|error| {
            let said = CStr::from_bytes_until_nul(&log).map(CStr::to_string_lossy).unwrap_or_default();
            match error.status() {
                GMB_ERROR_DEVICE_LOST | GMB_ERROR_OUT_OF_MEMORY => error,
                status => Error::new(
                    status,
                    format!(
                        "the image is no cubin, fatbin or PTX that this device runs: {}{}{}",
                        error.message(),
                        if said.is_empty() { "" } else { "; " },
                        said.trim_end()
                    ),
                ),
            }
        })?;
        Ok(RawModule(module as usize))
    }

    pub(super) fn unload_module(&self, module: RawModule) {
        let _relaxed = Relaxed::new();
        if let Ok(_current) = self.enter() {
            // SAFETY: the module was loaded here and is unloaded once.
            let _ = unsafe { sys::cuModuleUnload(module.0 as sys::CUmodule) };
        }
    }

    pub(super) fn find_function(&self, module: RawModule, name: &CStr) -> Result<FunctionInfo> {
        const NOT_FOUND: i32 = 500;
        let _relaxed = Relaxed::new();
        let _current = self.enter()?;
        let mut function = null_mut();
        // SAFETY: the module is loaded, the name NUL-terminated.
        let result =
            unsafe { sys::cuModuleGetFunction(&mut function, module.0 as sys::CUmodule, name.as_ptr()) };
        if result as i32 == NOT_FOUND {
            return Err(Error::new(
                GMB_ERROR_NOT_FOUND,
                format!(
                    "the module has no kernel {:?}: declare it extern \"C\", or give its mangled name",
                    name.to_string_lossy()
                ),
            ));
        }
        self.check(result, "cuModuleGetFunction")?;
        use sys::CUfunction_attribute::*;
        let most_threads = self.function_attribute(function, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK)?;
        let of_its_own = self.function_attribute(function, CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES)?;
        let opt_in =
            self.attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?;
        let most_shared = opt_in.saturating_sub(of_its_own);
        // So that a launch may ask for all there is.
        // SAFETY: the function is loaded.
        let result = unsafe {
            sys::cuFuncSetAttribute(
                function,
                CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                most_shared as i32,
            )
        };
        self.check(result, "cuFuncSetAttribute")?;
        Ok(FunctionInfo {
            function: RawFunction(function as usize),
            most_threads,
            most_shared,
            arguments: argument_sizes(function),
        })
    }

    fn function_attribute(
        &self,
        function: sys::CUfunction,
        attribute: sys::CUfunction_attribute,
    ) -> Result<u32> {
        let mut value = 0;
        // SAFETY: the function is loaded; the pointer is valid.
        let result = unsafe { sys::cuFuncGetAttribute(&mut value, attribute, function) };
        self.check(result, "cuFuncGetAttribute")?;
        Ok(value as u32)
    }

    /// # Safety
    /// As of [`crate::backend::Backend::launch_function`].
    pub(super) unsafe fn launch_of_module(
        &self,
        function: RawFunction,
        shape: &Shape,
        arguments: &mut [*mut c_void],
        stream: RawStream,
    ) -> Result<()> {
        let _current = self.enter()?;
        let ([gx, gy, gz], [bx, by, bz]) = (shape.grid, shape.block);
        // SAFETY: vouched for by the caller.
        let result = unsafe {
            sys::cuLaunchKernel(
                function.0 as sys::CUfunction,
                gx,
                gy,
                gz,
                bx,
                by,
                bz,
                shape.shared_bytes,
                cu_stream(stream),
                arguments.as_mut_ptr(),
                null_mut(),
            )
        };
        self.check(result, "cuLaunchKernel")
    }
}

/// Bytes of each argument of a kernel, where the driver tells.
fn argument_sizes(function: sys::CUfunction) -> Option<Vec<usize>> {
    const MOST: usize = 1024;
    let ask = get_parameter()?;
    let mut sizes = Vec::new();
    while sizes.len() < MOST {
        let (mut offset, mut size) = (0, 0);
        // SAFETY: the function is loaded; the pointers are valid.
        match unsafe { ask(function, sizes.len(), &mut offset, &mut size) } {
            sys::CUresult::CUDA_SUCCESS => sizes.push(size),
            // Behind the last one.
            sys::CUresult::CUDA_ERROR_INVALID_VALUE => return Some(sizes),
            _ => return None,
        }
    }
    None
}
