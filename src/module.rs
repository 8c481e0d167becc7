//! A caller's own kernels, by name: from a cubin, fatbin or PTX on a GPU, functions of the host on the host backend.

use std::collections::HashMap;
use std::ffi::{c_void, CString};
use std::path::Path;
use std::sync::{Arc, Mutex};

use crate::backend::{FunctionInfo, RawModule, RawStream, Shape};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::graph::Held;
use crate::profiler::Range;
use crate::status::*;
use crate::stream::Stream;
use crate::sync::lock;

/// The shape of a launch: blocks in three dimensions, threads of each, and bytes of dynamic shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Dynamic shared memory of a block, in bytes.
    pub shared_bytes: u32,
}

impl Default for Launch {
    fn default() -> Self {
        Self { grid: [1; 3], block: [1; 3], shared_bytes: 0 }
    }
}

impl Launch {
    /// So many blocks of so many threads, in one dimension.
    pub fn new(blocks: u32, threads: u32) -> Self {
        Self { grid: [blocks, 1, 1], block: [threads, 1, 1], shared_bytes: 0 }
    }
}

/// A number that a kernel takes.
pub trait Scalar: Copy + sealed::Bytes {}

mod sealed {
    pub trait Bytes {
        fn to(self) -> ([u8; 8], u8);
        fn of(bytes: &[u8]) -> Option<Self>
        where
            Self: Sized;
    }
}

macro_rules! scalars {
    ($($type:ty)*) => {$(
        impl Scalar for $type {}
        impl sealed::Bytes for $type {
            fn to(self) -> ([u8; 8], u8) {
                let mut all = [0; 8];
                all[..size_of::<$type>()].copy_from_slice(&self.to_ne_bytes());
                (all, size_of::<$type>() as u8)
            }
            fn of(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(<$type>::from_ne_bytes)
            }
        }
    )*};
}
scalars! { u8 i8 u16 i16 u32 i32 f32 u64 i64 f64 usize isize }

/// An argument of a kernel: copied when the launch is queued.
#[derive(Clone, Copy, Debug)]
pub struct Argument<'a>(Value<'a>);

#[derive(Clone, Copy, Debug)]
enum Value<'a> {
    Scalar([u8; 8], u8),
    Bytes(&'a [u8]),
}

impl<T: Scalar> From<T> for Argument<'_> {
    fn from(value: T) -> Self {
        let (bytes, length) = value.to();
        Self(Value::Scalar(bytes, length))
    }
}

impl<'a> Argument<'a> {
    /// A struct, as its bytes. A device address is a `u64`.
    pub fn bytes(bytes: &'a [u8]) -> Self {
        Self(Value::Bytes(bytes))
    }

    pub(crate) fn to_vec(self) -> Vec<u8> {
        self.get().to_vec()
    }

    fn get(&self) -> &[u8] {
        match &self.0 {
            Value::Scalar(bytes, length) => &bytes[..usize::from(*length)],
            Value::Bytes(bytes) => bytes,
        }
    }
}

/// Arguments as they lie until the kernel runs: each at a multiple of 16 bytes.
struct Packed {
    storage: Vec<u128>,
    /// Where each begins, in units of 16 bytes, and how many bytes it has.
    places: Vec<(usize, usize)>,
}

const UNIT: usize = size_of::<u128>();

impl Packed {
    fn new(arguments: &[Argument]) -> Self {
        let mut packed = Self { storage: Vec::new(), places: Vec::with_capacity(arguments.len()) };
        for argument in arguments {
            let bytes = argument.get();
            packed.places.push((packed.storage.len(), bytes.len()));
            packed.storage.extend(bytes.chunks(UNIT).map(|chunk| {
                let mut unit = [0; UNIT];
                unit[..chunk.len()].copy_from_slice(chunk);
                u128::from_ne_bytes(unit)
            }));
        }
        packed
    }

    fn get(&self, n: usize) -> Option<&[u8]> {
        let &(at, bytes) = self.places.get(n)?;
        let units = self.storage.get(at..at + bytes.div_ceil(UNIT))?;
        // SAFETY: so many bytes lie there, initialized.
        Some(unsafe { std::slice::from_raw_parts(units.as_ptr().cast(), bytes) })
    }

    fn pointers(&self) -> Vec<*const c_void> {
        self.places.iter().map(|&(at, _)| self.storage[at..].as_ptr().cast()).collect()
    }
}

/// One block of a launch, as a function of the host sees it in a kernel's place: once for each block, by several threads at
/// once. It does the work of all the block's threads.
pub struct KernelBlock<'a> {
    /// Blocks of the launch.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Which block this is.
    pub index: [u32; 3],
    /// The block's dynamic shared memory, zeroed.
    pub shared: &'a mut [u8],
    arguments: &'a Packed,
    pointers: &'a [*const c_void],
    sizes: &'a [u64],
}

impl KernelBlock<'_> {
    /// An argument that is a number; `None` where there is none of this size.
    pub fn argument<T: Scalar>(&self, n: usize) -> Option<T> {
        T::of(self.arguments.get(n)?)
    }

    /// An argument's bytes.
    pub fn argument_bytes(&self, n: usize) -> Option<&[u8]> {
        self.arguments.get(n)
    }

    /// A pointer to each argument, aligned to 16 bytes.
    pub(crate) fn pointers(&self) -> &[*const c_void] {
        self.pointers
    }

    /// Bytes of each argument.
    pub(crate) fn sizes(&self) -> &[u64] {
        self.sizes
    }

    /// The number of its first thread in one dimension, as CUDA's `blockIdx.x * blockDim.x`.
    pub fn first_thread(&self) -> u64 {
        u64::from(self.index[0]) * u64::from(self.block[0])
    }
}

type Function = Arc<dyn Fn(&mut KernelBlock) + Send + Sync>;

/// Kernels of the caller's. On CUDA they come from an image; on the host backend functions take their place, each under the
/// kernel's name. A program that gives both runs on both. Clones are the same module; it is unloaded with the last of them
/// and of its kernels
/// and graphs; that waits for all of the device's work, which spoils captures under way.
///
/// ```
/// use gpumailbox::{BackendKind, Context, ContextOptions, Launch, Module};
///
/// let context = Context::new(&ContextOptions { backend: BackendKind::Host, ..Default::default() })?;
/// let module = Module::new(&context, b"")?;
/// module.register("double", |block| {
///     let (Some(data), Some(count)) = (block.argument::<u64>(0), block.argument::<u32>(1)) else { return };
///     let first = block.first_thread();
///     for n in first..(first + u64::from(block.block[0])).min(count.into()) {
///         // SAFETY: the memory holds so many floats.
///         unsafe { *(data as *mut f32).add(n as usize) *= 2.0 };
///     }
/// })?;
/// let (memory, stream) = (context.device_buffer(4000)?, context.stream()?);
/// let kernel = module.kernel("double")?;
/// let arguments = [memory.address().into(), 1000u32.into()];
/// // SAFETY: the arguments are the kernel's, and the memory outlives it.
/// unsafe { kernel.launch(&Launch::new(8, 128), &arguments, stream.get())? };
/// context.synchronize(stream.get())?;
/// # Ok::<(), gpumailbox::Error>(())
/// ```
#[derive(Clone)]
pub struct Module {
    core: Arc<Core>,
}

struct Core {
    context: Context,
    raw: Option<RawModule>,
    functions: Mutex<HashMap<String, Function>>,
}

/// A kernel of a module.
#[derive(Clone)]
pub struct ModuleKernel {
    core: Arc<Core>,
    name: String,
    what: What,
}

#[derive(Clone)]
enum What {
    Kernel(FunctionInfo),
    Function(Function),
}

/// Of a block on the host backend: as many threads and as much dynamic shared memory as on compute capability 9.0.
const HOST_THREADS: u32 = 1024;
const HOST_SHARED: u32 = 227 << 10;

impl Module {
    /// Loads an image: a cubin, a fatbin or PTX. On the host backend it is not looked at, and may be empty. Blocks.
    ///
    /// # Errors
    /// `NO_KERNELS` (an empty image on CUDA; none of it is for this device), `INVALID_ARGUMENT` and `DRIVER` (no such image:
    /// the message has the compiler's words), `OUT_OF_MEMORY`, `DEVICE_LOST`.
    pub fn new(context: &Context, image: &[u8]) -> Result<Self> {
        let _range = Range::new(c"load a module");
        let on_a_gpu = context.kind() == crate::BackendKind::Cuda;
        if on_a_gpu && image.is_empty() {
            return Err(Error::new(
                GMB_ERROR_NO_KERNELS,
                "the image is empty: on CUDA a module needs a cubin, a fatbin or PTX (nvcc -cubin, -fatbin or -ptx)",
            ));
        }
        let raw = context.backend().module_load(image)?;
        Ok(Self { core: Arc::new(Core { context: context.clone(), raw, functions: Mutex::default() }) })
    }

    /// The same of a file. On the host backend the file need not be there.
    ///
    /// # Errors
    /// As for [`Module::new`], and `NOT_FOUND` and `SYSTEM` (no such file, or it cannot be read).
    pub fn from_file(context: &Context, path: &Path) -> Result<Self> {
        if context.kind() == crate::BackendKind::Host {
            return Self::new(context, &[]);
        }
        let image = std::fs::read(path).map_err(|e| {
            let status = match e.kind() {
                std::io::ErrorKind::NotFound => GMB_ERROR_NOT_FOUND,
                _ => GMB_ERROR_SYSTEM,
            };
            Error::new(status, format!("{}: {e}", path.display()))
        })?;
        Self::new(context, &image)
    }

    /// The context it was loaded in.
    pub fn context(&self) -> &Context {
        &self.core.context
    }

    /// Gives a kernel's name to a function that takes its place on the host backend; another one of the name is replaced for
    /// kernels asked for later. It runs once for each block, on several threads at once, and must not panic, wait, or call
    /// this library. On CUDA it is not used.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` (an empty name).
    pub fn register(
        &self,
        name: &str,
        function: impl Fn(&mut KernelBlock) + Send + Sync + 'static,
    ) -> Result<()> {
        check_name(name)?;
        lock(&self.core.functions).insert(name.to_owned(), Arc::new(function));
        Ok(())
    }

    /// Finds a kernel by its name, and loads it: no later launch does. May block.
    ///
    /// # Errors
    /// `NOT_FOUND` (the message tells of whom), `INVALID_ARGUMENT` (an empty name), `DEVICE_LOST`, `DRIVER`.
    pub fn kernel(&self, name: &str) -> Result<ModuleKernel> {
        let c_name = check_name(name)?;
        let what = match self.core.raw {
            Some(raw) => What::Kernel(self.core.context.backend().module_function(raw, &c_name)?),
            None => What::Function(lock(&self.core.functions).get(name).cloned().ok_or_else(|| {
                Error::new(
                    GMB_ERROR_NOT_FOUND,
                    format!("no function was registered as {name:?}: the host backend runs it in the kernel's place"),
                )
            })?),
        };
        Ok(ModuleKernel { core: Arc::clone(&self.core), name: name.to_owned(), what })
    }
}

fn check_name(name: &str) -> Result<CString> {
    match CString::new(name) {
        Ok(c_name) if !name.is_empty() => Ok(c_name),
        _ => Err(Error::argument("a kernel's name is empty, or has a NUL in it")),
    }
}

impl ModuleKernel {
    /// Its context.
    pub fn context(&self) -> &Context {
        &self.core.context
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Threads that a block of it may have.
    pub fn most_threads(&self) -> u32 {
        match &self.what {
            What::Kernel(info) => info.most_threads,
            What::Function(_) => HOST_THREADS,
        }
    }

    /// Bytes of dynamic shared memory that a block of it may have.
    pub fn most_shared_bytes(&self) -> u32 {
        match &self.what {
            What::Kernel(info) => info.most_shared,
            What::Function(_) => HOST_SHARED,
        }
    }

    /// Launches it on a stream. Does not block.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` (the shape exceeds what the device or the kernel can have, or the arguments are not as many or as
    /// large as the kernel's, where the driver tells), `INVALID_STREAM`, `DEVICE_LOST`,
    /// `DRIVER`.
    ///
    /// # Safety
    /// The arguments are the kernel's own, and all memory it uses stays valid until it is done.
    pub unsafe fn launch(&self, launch: &Launch, arguments: &[Argument], stream: Stream) -> Result<()> {
        let ready = self.check(launch, arguments)?;
        let stream = self.core.context.resolve(stream)?;
        if stream.is_capturing() {
            let held = Held::new(&self.core.context, &self.core);
            self.core.context.backend().capture_keep(stream.raw, Box::new(held))?;
        }
        // SAFETY: vouched for by the caller.
        unsafe { ready.launch(stream.raw) }
    }

    /// A launch that is in order, its arguments copied.
    pub(crate) fn check(&self, launch: &Launch, arguments: &[Argument]) -> Result<Ready<'_>> {
        self.check_shape(launch)?;
        self.check_arguments(arguments)?;
        Ok(Ready { kernel: self, launch: *launch, arguments: Packed::new(arguments) })
    }

    fn check_shape(&self, launch: &Launch) -> Result<()> {
        let info = self.core.context.backend().info();
        for (what, asked, most) in
            [("grid", launch.grid, info.most_grid), ("block", launch.block, info.most_block)]
        {
            for (n, axis) in ["x", "y", "z"].into_iter().enumerate() {
                if asked[n] == 0 || asked[n] > most[n] {
                    return Err(Error::argument(format!(
                        "{what}.{axis} {} of kernel {}: the device has 1 to {}",
                        asked[n], self.name, most[n]
                    )));
                }
            }
        }
        let threads: u64 = launch.block.iter().map(|&n| u64::from(n)).product();
        if threads > u64::from(self.most_threads()) {
            return Err(Error::argument(format!(
                "a block of {threads} threads: kernel {} has {} at most on this device",
                self.name,
                self.most_threads()
            )));
        }
        if launch.shared_bytes > self.most_shared_bytes() {
            return Err(Error::argument(format!(
                "shared_bytes {}: a block of kernel {} has {} at most on this device",
                launch.shared_bytes,
                self.name,
                self.most_shared_bytes()
            )));
        }
        let blocks: u64 = launch.grid.iter().map(|&n| u64::from(n)).product();
        if matches!(self.what, What::Function(_)) && blocks > u64::from(u32::MAX) {
            return Err(Error::argument(format!(
                "a grid of {blocks} blocks: the host backend has {} at most",
                u32::MAX
            )));
        }
        Ok(())
    }

    fn check_arguments(&self, arguments: &[Argument]) -> Result<()> {
        let What::Kernel(FunctionInfo { arguments: Some(sizes), .. }) = &self.what else { return Ok(()) };
        if sizes.len() != arguments.len() {
            return Err(Error::argument(format!(
                "{} arguments for kernel {}, which takes {}",
                arguments.len(),
                self.name,
                sizes.len()
            )));
        }
        for (n, (&size, argument)) in sizes.iter().zip(arguments).enumerate() {
            if argument.get().len() != size {
                return Err(Error::argument(format!(
                    "argument {n} of kernel {} has {size} bytes, not {}",
                    self.name,
                    argument.get().len()
                )));
            }
        }
        Ok(())
    }
}

/// A launch that was checked.
pub(crate) struct Ready<'a> {
    kernel: &'a ModuleKernel,
    launch: Launch,
    arguments: Packed,
}

impl Ready<'_> {
    /// # Safety
    /// As of [`ModuleKernel::launch`].
    pub(crate) unsafe fn launch(self, stream: RawStream) -> Result<()> {
        let Self { kernel, launch, arguments } = self;
        let backend = kernel.core.context.backend();
        let shape = Shape { grid: launch.grid, block: launch.block, shared_bytes: launch.shared_bytes };
        match &kernel.what {
            What::Kernel(info) => {
                let mut pointers: Vec<*mut c_void> =
                    arguments.pointers().into_iter().map(<*const c_void>::cast_mut).collect();
                // SAFETY: vouched for by the caller; the driver copies the arguments.
                unsafe { backend.launch_function(info.function, &shape, &mut pointers, stream) }
            }
            What::Function(function) => {
                let function = Arc::clone(function);
                let blocks = launch.grid.iter().product();
                backend.launch_blocks(
                    Arc::new(move |n| run_block(&function, &launch, &arguments, n)),
                    blocks,
                    stream,
                )
            }
        }
    }
}

fn run_block(function: &Function, launch: &Launch, arguments: &Packed, n: u64) {
    let [x, y] = [u64::from(launch.grid[0]), u64::from(launch.grid[1])];
    let mut shared = vec![0u128; (launch.shared_bytes as usize).div_ceil(UNIT)];
    // SAFETY: so many bytes were allocated just now.
    let shared = unsafe {
        std::slice::from_raw_parts_mut(shared.as_mut_ptr().cast::<u8>(), launch.shared_bytes as usize)
    };
    let pointers = arguments.pointers();
    let sizes: Vec<u64> = arguments.places.iter().map(|&(_, bytes)| bytes as u64).collect();
    function(&mut KernelBlock {
        grid: launch.grid,
        block: launch.block,
        index: [(n % x) as u32, (n / x % y) as u32, (n / x / y) as u32],
        shared,
        arguments,
        pointers: &pointers,
        sizes: &sizes,
    });
}

impl Drop for Core {
    fn drop(&mut self) {
        let Some(raw) = self.raw else { return };
        // Whatever runs of it is on streams that nobody here knows. If it may still run, the code stays.
        let done = self.context.backend().synchronize();
        if done.is_err_and(|error| error.status() != GMB_ERROR_DEVICE_LOST) {
            return;
        }
        self.context.backend().module_unload(raw);
    }
}

impl std::fmt::Debug for Module {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Module").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for ModuleKernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ModuleKernel").field("name", &self.name).finish_non_exhaustive()
    }
}
