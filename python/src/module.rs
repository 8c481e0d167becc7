//! Modules: kernels of the user's, by name.

use std::collections::HashMap;
use std::ffi::{c_void, CString};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use crate::calling;
use crate::context::ContextHandle;
use crate::error::{argument, check, closed};
use crate::info::info;
use crate::interpreter::{ended, without_lock, Carried};
use crate::keeping::{Keeping, Kept, What};
use crate::launch::{call_block, launched, Arguments, Launch, Raised, Shape, FIRST, SECOND};
use crate::streams::{self, is_capturing, raw};
use crate::{ffi, lock};

/// Kernels of yours: of an image on CUDA; on the host backend functions take their places.
#[pyclass(frozen, weakref, module = "gpumailbox")]
pub struct Module {
    core: Arc<Core>,
    functions: Mutex<HashMap<String, Py<PyAny>>>,
}

/// The handle, which goes with the module.
struct Core {
    context: Arc<ContextHandle>,
    id: AtomicU64,
    /// What launches of its kernels use.
    keeping: Keeping,
}

impl Core {
    fn handle(&self) -> PyResult<ffi::gmb_module> {
        self.context.handle()?;
        match self.id.load(Ordering::Acquire) {
            0 => Err(closed("the module is closed")),
            id => Ok(ffi::gmb_module { id }),
        }
    }

    fn end(&self) {
        let id = self.id.swap(0, Ordering::AcqRel);
        if id != 0 && !ended() {
            // SAFETY: taken out, so this is the only one.
            without_lock(|| unsafe { ffi::gmb_module_destroy(ffi::gmb_module { id }) });
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.end();
    }
}

fn name_of(name: &str) -> PyResult<CString> {
    CString::new(name).map_err(|_| argument("a kernel's name has a NUL in it"))
}

/// Under this name a function is found for work on a triple buffer.
fn second(name: &str) -> PyResult<CString> {
    name_of(&format!("{name}\n(of a triple buffer)"))
}

impl Module {
    pub fn new(
        py: Python<'_>,
        context: &Arc<ContextHandle>,
        image: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let (of, mut handle) = (context.handle()?, ffi::gmb_module { id: 0 });
        let mut load = |image: &[u8]| {
            let (at, bytes) = (image.as_ptr() as usize, image.len());
            // SAFETY: so many bytes are there; it writes a handle.
            py.detach(|| unsafe { ffi::gmb_module_create(of, at as *const c_void, bytes, &mut handle) })
        };
        check(match image {
            None => load(&[]),
            Some(image) => match image.cast::<PyBytes>() {
                Ok(image) => load(image.as_bytes()),
                Err(_) => {
                    let path: PathBuf = image.extract().map_err(|_| {
                        PyTypeError::new_err(
                            "image is neither bytes nor the path of a cubin, a fatbin or PTX",
                        )
                    })?;
                    let path = CString::new(path.into_os_string().into_encoded_bytes())
                        .map_err(|_| argument("the path has a NUL in it"))?;
                    // SAFETY: a string; it writes a handle.
                    py.detach(|| unsafe { ffi::gmb_module_load_file(of, path.as_ptr(), &mut handle) })
                }
            },
        })?;
        let core = Arc::new(Core {
            context: Arc::clone(context),
            id: AtomicU64::new(handle.id),
            keeping: Keeping::default(),
        });
        Ok(Self { core, functions: Mutex::default() })
    }
}

fn find(py: Python<'_>, module: ffi::gmb_module, name: &CString) -> PyResult<ffi::gmb_kernel> {
    let mut kernel = ffi::gmb_kernel { id: 0 };
    // SAFETY: a string; it writes a handle.
    check(py.detach(|| unsafe { ffi::gmb_module_get_kernel(module, name.as_ptr(), &mut kernel) }))?;
    Ok(kernel)
}

#[pymethods]
impl Module {
    /// Gives a kernel's name to a function that takes its place on the host backend; another one of the name is replaced for
    /// kernels asked for later. It is called as `function(block, *arguments)` for each block, on threads of the library. On CUDA
    /// it is not used.
    fn register(&self, name: &str, function: &Bound<'_, PyAny>) -> PyResult<()> {
        let module = self.core.handle()?;
        if !function.is_callable() {
            return Err(PyTypeError::new_err(format!(
                "{} is no function that could take kernel {name:?}'s place",
                function.get_type().name()?
            )));
        }
        let mut functions = lock(&self.functions);
        for (name, user) in [(name_of(name)?, FIRST), (second(name)?, SECOND)] {
            // The empty name is refused as the first of them.
            // SAFETY: a string; the function finds what it needs among its arguments.
            check(unsafe {
                ffi::gmb_module_register(module, name.as_ptr(), Some(call_block), user as *mut c_void)
            })?;
        }
        let before = functions.insert(name.to_owned(), function.clone().unbind());
        drop(functions);
        drop(before);
        Ok(())
    }

    /// The kernel of a name. C++ kernels are found by their mangled names, or by their own if they are `extern "C"`.
    fn kernel(&self, py: Python<'_>, name: &str) -> PyResult<Kernel> {
        let (module, context) = (self.core.handle()?, &self.core.context);
        let function = match context.cuda {
            true => None,
            false => lock(&self.functions).get(name).map(|function| function.clone_ref(py)),
        };
        let mut core = KernelCore {
            module: Arc::clone(&self.core),
            context: Arc::clone(context),
            handle: find(py, module, &name_of(name)?)?,
            of_triple: None,
        };
        if function.is_some() {
            core.of_triple = Some(find(py, module, &second(name)?)?);
        }
        // SAFETY: numbers only; it writes that many bytes.
        let known: ffi::gmb_kernel_info =
            unsafe { info(|at, bytes| ffi::gmb_kernel_get_info(core.handle, at, bytes)) }?;
        Ok(Kernel { core: Arc::new(core), name: name.to_owned(), function, known })
    }

    /// The handle of the C API, for C++ in the same process.
    #[getter]
    fn handle(&self) -> PyResult<u64> {
        Ok(self.core.handle()?.id)
    }

    fn __repr__(&self) -> String {
        format!("<gpumailbox.Module{}>", if self.core.handle().is_ok() { "" } else { ", closed" })
    }

    /// Later calls of it raise `Closed`; its kernels stay, and it is unloaded with the last of them. Twice is once.
    fn close(&self) {
        self.core.end();
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_ended))]
    fn __exit__(&self, _ended: &Bound<'_, PyTuple>) {
        self.close();
    }
}

/// A kernel of a module.
#[pyclass(frozen, weakref, module = "gpumailbox")]
pub struct Kernel {
    pub core: Arc<KernelCore>,
    name: String,
    /// What takes its place on the host, if it is of Python.
    pub function: Option<Py<PyAny>>,
    known: ffi::gmb_kernel_info,
}

/// The handles, which go with the kernel and the operations that use it.
pub struct KernelCore {
    module: Arc<Core>,
    pub context: Arc<ContextHandle>,
    pub handle: ffi::gmb_kernel,
    /// The same for work on a triple buffer, where that is another function.
    pub of_triple: Option<ffi::gmb_kernel>,
}

impl Drop for KernelCore {
    fn drop(&mut self) {
        if ended() {
            return;
        }
        let both = [Some(self.handle), self.of_triple];
        without_lock(|| {
            for handle in both.into_iter().flatten() {
                // SAFETY: nobody has it any more.
                unsafe { ffi::gmb_kernel_destroy(handle) };
            }
        });
    }
}

#[pymethods]
impl Kernel {
    /// Launches it: `grid` blocks of `block` threads, each a number or up to three. Arguments are arrays of the device, by their
    /// addresses, numbers of ctypes and NumPy, structs of ctypes, and bytes; a plain number has no size, and is refused. Does not
    /// wait. The arrays are kept until it is done; not while the stream is being captured.
    #[pyo3(signature = (grid, block, args = Vec::new(), *, shared_bytes = 0, stream = None))]
    fn launch(
        &self,
        py: Python<'_>,
        grid: &Bound<'_, PyAny>,
        block: &Bound<'_, PyAny>,
        args: Vec<Bound<'_, PyAny>>,
        shared_bytes: u32,
        stream: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let (context, kernel) = (&self.core.context, self.core.handle);
        context.handle()?;
        let stream = streams::resolve(py, context, stream)?;
        let shape = Shape::new(grid, block, shared_bytes)?;
        let mut given = Arguments::new(&args, context, stream, self.function.is_some())?;
        // What a coordinator's callable launches on its stream is part of its operation.
        let part_of = calling::on(context, stream);
        let raised = part_of.as_ref().map_or_else(Arc::<Raised>::default, |it| Arc::clone(&it.raised));
        let function = self.function.as_ref();
        let function = function.map(|it| launched(py, it, &mut given, None, raised, part_of.is_none()));
        let mut launch = Launch::new(shape, &mut given, function.as_ref());
        let mut carried = Carried::new(launch.get());
        // SAFETY: a launch; its memory is kept, or by whoever captures.
        check(py.detach(move || unsafe { ffi::gmb_kernel_launch(kernel, *carried.get(), raw(stream)) }))?;
        let mut more: Vec<Kept> = given.kept;
        if let Some(part_of) = part_of {
            part_of.keep(more);
            return Ok(());
        }
        if is_capturing(context, stream)? {
            return Ok(());
        }
        more.shrink_to_fit();
        self.core.module.keeping.keep_until_reached(context, stream, What { more, ..What::default() })
    }

    /// Its name.
    #[getter]
    fn name(&self) -> &str {
        &self.name
    }

    /// Threads of a block, at most.
    #[getter]
    fn most_threads(&self) -> u32 {
        self.known.most_threads
    }

    /// Dynamic shared memory of a block in bytes, at most.
    #[getter]
    fn most_shared_bytes(&self) -> u32 {
        self.known.most_shared_bytes
    }

    fn __repr__(&self) -> String {
        format!("<gpumailbox.Kernel {}>", self.name)
    }
}
