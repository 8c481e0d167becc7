//! `gmb_module` and `gmb_kernel`: a caller's own kernels, by name.

use std::ffi::{c_char, c_void, CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::boundary::boundary;
use super::context::gmb_context;
use super::stream::{gmb_stream, stream};
use super::{check_pointer, output, sized, write_info, Sized32, CONTEXTS, KERNELS, MODULES};
use crate::checks::null;
use crate::error::{Error, Result};
use crate::status::*;
use crate::{Argument, KernelBlock, Launch, Module};

/// Handle of a module of kernels. Zero is null.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_module {
    /// Opaque.
    pub id: u64,
}

/// Handle of a kernel of a module. Zero is null.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_kernel {
    /// Opaque.
    pub id: u64,
}

/// An argument of a kernel: so many bytes there. The call that takes it copies them. A device address is an argument of 8
/// bytes.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_argument {
    /// Where it lies, in host memory.
    pub value: *const c_void,
    /// Its size.
    pub bytes: u64,
}

/// A launch of a kernel. Start from `GMB_LAUNCH_INIT`: one block of one thread.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_launch {
    /// `sizeof(gmb_launch)`.
    pub struct_size: u32,
    /// Dynamic shared memory of a block, in bytes.
    pub shared_bytes: u32,
    /// Blocks in each dimension: x, y, z.
    pub grid: [u32; 3],
    /// Threads of a block in each dimension.
    pub block: [u32; 3],
    /// How many arguments there are.
    pub argument_count: u32,
    /// Must be zero.
    pub reserved: u32,
    /// The arguments, in the kernel's order.
    pub arguments: *const gmb_argument,
}

// SAFETY: repr(C), begins with struct_size, integers and pointers only.
unsafe impl Sized32 for gmb_launch {
    const NAME: &'static str = "gmb_launch";
    const FIRST_SIZE: usize = 48;
}

/// One block of a launch, as a function that takes a kernel's place on the host backend sees it.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_kernel_block {
    /// Blocks of the launch in each dimension: `gridDim`.
    pub grid: [u32; 3],
    /// Threads of a block: `blockDim`.
    pub block: [u32; 3],
    /// Which block this is: `blockIdx`.
    pub index: [u32; 3],
    /// Bytes of `shared`.
    pub shared_bytes: u32,
    /// The block's dynamic shared memory, zeroed.
    pub shared: *mut c_void,
    /// What the function was registered with.
    pub user: *mut c_void,
    /// Bytes of each argument.
    pub argument_bytes: *const u64,
    /// How many arguments there are.
    pub argument_count: u32,
    /// Zero.
    pub reserved: u32,
}

/// A function that takes a kernel's place on the host backend: it does the work of all threads of one block. It is called once
/// for each block, by several threads at once. `arguments[n]` points to the n-th argument's value. It must not wait, must not
/// call this library and must not throw.
#[allow(non_camel_case_types)]
pub type gmb_block_function =
    Option<extern "C" fn(block: *const gmb_kernel_block, arguments: *const *const c_void)>;

/// What a kernel of a module can have on this device.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_kernel_info {
    /// Threads of a block, at most.
    pub most_threads: u32,
    /// Dynamic shared memory of a block in bytes, at most.
    pub most_shared_bytes: u32,
}

/// A NUL-terminated string of UTF-8.
fn text<'a>(pointer: *const c_char, name: &str) -> Result<&'a str> {
    check_pointer(pointer, name)?;
    // SAFETY: not null; that it is a string is the caller's contract.
    let text = unsafe { CStr::from_ptr(pointer) };
    text.to_str().map_err(|_| Error::argument(format!("{name} is no UTF-8")))
}

/// Loads a module of kernels from an image: a cubin, a fatbin or PTX. On the host backend the image is not looked at and may
/// be null: functions take the kernels' places (`gmb_module_register`), so a program that gives both runs on both.
///
/// The caller owns it and ends it with `gmb_module_destroy`. The image is copied. Blocks; thread-safe.
///
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_NO_KERNELS` (no image on CUDA; none of it is for this device),
/// `_INVALID_ARGUMENT` and `_DRIVER` (no such image: the message has the compiler's words), `_OVERFLOW`, `_OUT_OF_MEMORY`,
/// `_DEVICE_LOST`.
#[no_mangle]
pub extern "C" fn gmb_module_create(
    context: gmb_context,
    image: *const c_void,
    image_bytes: usize,
    module: *mut gmb_module,
) -> gmb_status {
    boundary(|| {
        let out = output(module, "module")?;
        let context = CONTEXTS.get(context.id)?;
        if image.is_null() && image_bytes != 0 {
            return Err(null("image"));
        }
        if image_bytes > isize::MAX as usize {
            return Err(Error::new(
                GMB_ERROR_OVERFLOW,
                format!("image_bytes {image_bytes} exceed any memory"),
            ));
        }
        let image: &[u8] = match image_bytes {
            0 => &[],
            // SAFETY: the caller has so many bytes there.
            _ => unsafe { std::slice::from_raw_parts(image.cast(), image_bytes) },
        };
        out.write(gmb_module { id: MODULES.insert(Module::new(&context, image)?)? });
        Ok(())
    })
}

/// As `gmb_module_create`, from a file. On the host backend the file need not be there.
/// Errors: as there, and `GMB_ERROR_NOT_FOUND` (no such file), `_SYSTEM` (it cannot be read).
#[no_mangle]
pub extern "C" fn gmb_module_load_file(
    context: gmb_context,
    path: *const c_char,
    module: *mut gmb_module,
) -> gmb_status {
    boundary(|| {
        let out = output(module, "module")?;
        check_pointer(path, "path")?;
        // SAFETY: not null; that it is a string is the caller's contract.
        let path = Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(path) }.to_bytes()));
        let context = CONTEXTS.get(context.id)?;
        out.write(gmb_module { id: MODULES.insert(Module::from_file(&context, path)?)? });
        Ok(())
    })
}

/// Ends a module's handle. It is unloaded with the last of its kernels' handles and of the operations that use them; that
/// blocks until the device has done what it holds. Thread-safe. Errors: `GMB_ERROR_INVALID_HANDLE`.
#[no_mangle]
pub extern "C" fn gmb_module_destroy(module: gmb_module) -> gmb_status {
    boundary(|| MODULES.remove(module.id))
}

/// Gives a kernel's name to a function that takes its place on the host backend; another one of the name is replaced for
/// kernels asked for later. On CUDA it is not used. `user` comes to the function as it is, and must stay valid as long as the
/// module and its kernels. Never blocks; thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_INVALID_ARGUMENT` (an empty name, or no UTF-8).
#[no_mangle]
pub extern "C" fn gmb_module_register(
    module: gmb_module,
    name: *const c_char,
    function: gmb_block_function,
    user: *mut c_void,
) -> gmb_status {
    boundary(|| {
        let function = function.ok_or_else(|| null("function"))?;
        let user = user as usize;
        MODULES.get(module.id)?.register(text(name, "name")?, move |block: &mut KernelBlock| {
            let value = gmb_kernel_block {
                grid: block.grid,
                block: block.block,
                index: block.index,
                shared_bytes: block.shared.len() as u32,
                shared: block.shared.as_mut_ptr().cast(),
                user: user as *mut c_void,
                argument_bytes: block.sizes().as_ptr(),
                argument_count: block.sizes().len() as u32,
                reserved: 0,
            };
            function(&value, block.pointers().as_ptr());
        })
    })
}

/// Finds a kernel by its name, and loads it: no later launch does. C++ kernels are found by their mangled names, or by their
/// own if they are declared `extern "C"`. The caller owns the handle and ends it with `gmb_kernel_destroy`. May block;
/// thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_INVALID_ARGUMENT` (an empty name, or no UTF-8), `_NOT_FOUND`,
/// `_DEVICE_LOST`, `_DRIVER`.
#[no_mangle]
pub extern "C" fn gmb_module_get_kernel(
    module: gmb_module,
    name: *const c_char,
    kernel: *mut gmb_kernel,
) -> gmb_status {
    boundary(|| {
        let out = output(kernel, "kernel")?;
        let found = MODULES.get(module.id)?.kernel(text(name, "name")?)?;
        out.write(gmb_kernel { id: KERNELS.insert(found)? });
        Ok(())
    })
}

/// Ends a kernel's handle; launches of it still complete. Does not block, but for the last of a module that has ended.
/// Thread-safe. Errors: `GMB_ERROR_INVALID_HANDLE`.
#[no_mangle]
pub extern "C" fn gmb_kernel_destroy(kernel: gmb_kernel) -> gmb_status {
    boundary(|| KERNELS.remove(kernel.id))
}

/// What a kernel can have. `info_size` is `sizeof(gmb_kernel_info)`. Never blocks; thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_STRUCT_SIZE`.
#[no_mangle]
pub extern "C" fn gmb_kernel_get_info(
    kernel: gmb_kernel,
    info: *mut gmb_kernel_info,
    info_size: usize,
) -> gmb_status {
    boundary(|| {
        let kernel = KERNELS.get(kernel.id)?;
        let value = gmb_kernel_info {
            most_threads: kernel.most_threads(),
            most_shared_bytes: kernel.most_shared_bytes(),
        };
        write_info(info, info_size, value)
    })
}

/// A launch's shape and arguments, which lie where the caller has them.
pub(super) fn launch_of<'a>(launch: *const gmb_launch) -> Result<(Launch, Vec<Argument<'a>>)> {
    let launch = sized(launch, "launch")?;
    if launch.reserved != 0 {
        return Err(Error::argument("launch.reserved is not zero"));
    }
    const MOST: u32 = 4096;
    if launch.argument_count > MOST {
        return Err(Error::argument(format!(
            "argument_count {}: a kernel has {MOST} at most",
            launch.argument_count
        )));
    }
    let mut arguments = Vec::with_capacity(launch.argument_count as usize);
    if launch.argument_count > 0 {
        check_pointer(launch.arguments, "launch.arguments")?;
    }
    for n in 0..launch.argument_count as usize {
        // SAFETY: the caller has so many there.
        let argument = unsafe { launch.arguments.add(n).read() };
        if argument.value.is_null() {
            return Err(null(&format!("launch.arguments[{n}].value")));
        }
        if argument.bytes == 0 || argument.bytes > u64::from(MOST) {
            return Err(Error::argument(format!(
                "launch.arguments[{n}].bytes {}: an argument has 1 to {MOST}",
                argument.bytes
            )));
        }
        // SAFETY: the caller has so many bytes there.
        let bytes =
            unsafe { std::slice::from_raw_parts(argument.value.cast::<u8>(), argument.bytes as usize) };
        arguments.push(Argument::bytes(bytes));
    }
    let shape = Launch { grid: launch.grid, block: launch.block, shared_bytes: launch.shared_bytes };
    Ok((shape, arguments))
}

/// Launches a kernel on a stream. All memory that it uses stays valid until it is done. Does not block; thread-safe. It can
/// be captured into a graph.
///
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_STRUCT_SIZE`, `_INVALID_ARGUMENT` (the shape exceeds what the device or
/// the kernel can have; the arguments are not as many or as large as the kernel's, where the driver tells), `_INVALID_STREAM`,
/// `_DEVICE_LOST`, `_DRIVER`.
#[no_mangle]
pub extern "C" fn gmb_kernel_launch(
    kernel: gmb_kernel,
    launch: *const gmb_launch,
    stream: gmb_stream,
) -> gmb_status {
    boundary(|| {
        let (shape, arguments) = launch_of(launch)?;
        // SAFETY: that they are the kernel's own, and its memory stays valid, is the caller's contract.
        unsafe { KERNELS.get(kernel.id)?.launch(&shape, &arguments, self::stream(stream)) }
    })
}
