//! Launches of kernels: their shape, their arguments, and functions of Python that take their places on the host.

use std::ffi::c_void;
use std::sync::{Arc, OnceLock};

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyByteArray, PyBytes, PyMemoryView, PyTuple, PyType};
use pyo3::{intern, IntoPyObjectExt};

use crate::context::ContextHandle;
use crate::dlpack;
use crate::error::argument;
use crate::ffi;
use crate::interpreter::{ended, hold_up_end, in_block};
use crate::keeping::Kept;
use crate::records::check_place;
use crate::triple;

/// What was raised first.
#[derive(Default)]
pub struct Raised(OnceLock<PyErr>);

impl Raised {
    pub fn get(&self) -> Option<&PyErr> {
        self.0.get()
    }

    /// False if there was something before.
    pub fn set(&self, error: PyErr) -> bool {
        self.0.set(error).is_ok()
    }
}

/// `n`, `(x, y)` or `(x, y, z)`.
fn dimensions(what: &str, given: &Bound<'_, PyAny>) -> PyResult<[u32; 3]> {
    let wrong = || argument(format!("{what} {given} is no shape: give a number, or up to three of them"));
    let range = |_| argument(format!("{what} {given} is no shape that a device has"));
    if let Ok(parts) = given.cast::<PyTuple>() {
        if parts.is_empty() || parts.len() > 3 {
            return Err(wrong());
        }
        let mut all = [1; 3];
        for (to, part) in all.iter_mut().zip(parts) {
            *to = part.extract::<i128>().map_err(|_| wrong())?.try_into().map_err(range)?;
        }
        return Ok(all);
    }
    Ok([given.extract::<i128>().map_err(|_| wrong())?.try_into().map_err(range)?, 1, 1])
}

/// Types of values that have a size.
struct Sized {
    ctypes: [Py<PyType>; 4],
    /// Of NumPy, once that is there.
    numpy: PyOnceLock<Py<PyType>>,
}

static SIZED: PyOnceLock<Sized> = PyOnceLock::new();

fn sized(py: Python<'_>) -> PyResult<&Sized> {
    SIZED.get_or_try_init(py, || {
        let ctypes = py.import("ctypes")?;
        let of = |name| -> PyResult<Py<PyType>> { Ok(ctypes.getattr(name)?.cast_into::<PyType>()?.unbind()) };
        Ok(Sized {
            // Numbers are instances of a class that has no public name.
            ctypes: [
                ctypes.getattr("c_int")?.getattr("__base__")?.cast_into::<PyType>()?.unbind(),
                of("Structure")?,
                of("Union")?,
                of("Array")?,
            ],
            numpy: PyOnceLock::new(),
        })
    })
}

fn is_of_numpy(value: &Bound<'_, PyAny>) -> PyResult<bool> {
    let (py, known) = (value.py(), sized(value.py())?);
    let modules = py.import(intern!(py, "sys"))?.getattr(intern!(py, "modules"))?;
    if known.numpy.get(py).is_none() {
        match modules.get_item("numpy").and_then(|numpy| numpy.getattr("generic")) {
            Ok(generic) => drop(known.numpy.set(py, generic.cast_into::<PyType>()?.unbind())),
            Err(_) => return Ok(false),
        }
    }
    known.numpy.get(py).map_or(Ok(false), |generic| value.is_instance(generic.bind(py)))
}

fn bytes_of(value: &Bound<'_, PyAny>) -> PyResult<Box<[u8]>> {
    // Not as bytes makes them: of a number, that many.
    let bytes = PyMemoryView::from(value)?.call_method0(intern!(value.py(), "tobytes"))?;
    Ok(bytes.cast::<PyBytes>()?.as_bytes().into())
}

/// Arguments of a kernel, and what has to be kept as long as it runs.
#[derive(Default)]
pub struct Arguments {
    values: Vec<Box<[u8]>>,
    /// For a function of Python.
    objects: Vec<Py<PyAny>>,
    pub kept: Vec<Kept>,
}

impl Arguments {
    /// Work on arrays that another library has under way comes before later work of the stream.
    pub fn new(
        given: &[Bound<'_, PyAny>],
        context: &ContextHandle,
        stream: usize,
        function: bool,
    ) -> PyResult<Self> {
        let mut all = Self::default();
        for (n, value) in given.iter().enumerate() {
            all.add(n, value, context, stream, function)?;
        }
        Ok(all)
    }

    fn add(
        &mut self,
        n: usize,
        value: &Bound<'_, PyAny>,
        context: &ContextHandle,
        stream: usize,
        function: bool,
    ) -> PyResult<()> {
        let py = value.py();
        if value.hasattr(intern!(py, "__dlpack__"))? {
            if let Ok(buffer) = value.cast::<triple::Buffer>() {
                buffer.get().used_by(stream);
            }
            let array = dlpack::import(value, context, stream)?;
            check_place(array.tensor(), context, &format!("argument {n}"))?;
            self.values.push(array.address().to_ne_bytes().into());
            self.kept.push(Box::new(array));
            if function {
                self.objects.push(as_numpy(value)?);
            }
            return Ok(());
        }
        let known = sized(py)?;
        let [simple, structs @ ..] = &known.ctypes;
        if value.is_instance(simple.bind(py))? {
            self.values.push(bytes_of(value)?);
            if function {
                self.objects.push(value.getattr(intern!(py, "value"))?.unbind());
            }
            return Ok(());
        }
        let mut is_struct = false;
        for kind in structs {
            is_struct = is_struct || value.is_instance(kind.bind(py))?;
        }
        if is_struct || value.is_instance_of::<PyBytes>() || is_of_numpy(value)? {
            self.values.push(bytes_of(value)?);
            if function {
                // As it is now.
                let same = match is_struct {
                    true => value.get_type().call_method1(intern!(py, "from_buffer_copy"), (value,))?,
                    false => value.clone(),
                };
                self.objects.push(same.unbind());
            }
            return Ok(());
        }
        Err(PyTypeError::new_err(format!(
            "argument {n} is {}, whose size on the device nobody knows: give ctypes.c_int32(...), numpy.float32(...), an array, \
             bytes, or an address as ctypes.c_void_p(...)",
            value.get_type().name()?
        )))
    }
}

/// For a function of Python: what is no array of NumPy becomes one, of the same memory.
fn as_numpy(value: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
    let numpy = value.py().import("numpy")?;
    if value.is_instance(&numpy.getattr("ndarray")?)? {
        return Ok(value.clone().unbind());
    }
    Ok(numpy.getattr("from_dlpack")?.call1((value,))?.unbind())
}

/// A launch of a function of Python in a kernel's place, which reads it by its address.
pub struct Launched {
    pub function: Py<PyAny>,
    pub arguments: Vec<Py<PyAny>>,
    /// Its first argument.
    pub triple: Option<Arc<triple::Core>>,
    pub raised: Arc<Raised>,
    /// Nobody is told otherwise.
    pub unraisable: bool,
}

/// As the library gets it. It stays where it is: the library's structs point into it.
pub struct Launch {
    values: Vec<Box<[u8]>>,
    arguments: Vec<ffi::gmb_argument>,
    launch: ffi::gmb_launch,
}

/// Shape of a launch.
#[derive(Clone, Copy)]
pub struct Shape {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared_bytes: u32,
}

impl Shape {
    pub fn new(grid: &Bound<'_, PyAny>, block: &Bound<'_, PyAny>, shared_bytes: u32) -> PyResult<Self> {
        Ok(Self { grid: dimensions("grid", grid)?, block: dimensions("block", block)?, shared_bytes })
    }
}

impl Launch {
    /// A function of Python gets its launch before all arguments.
    pub fn new(shape: Shape, given: &mut Arguments, launched: Option<&Arc<Launched>>) -> Self {
        let mut values = std::mem::take(&mut given.values);
        if let Some(launched) = launched {
            values.insert(0, (Arc::as_ptr(launched) as u64).to_ne_bytes().into());
        }
        let launch = ffi::gmb_launch {
            struct_size: size_of::<ffi::gmb_launch>() as u32,
            shared_bytes: shape.shared_bytes,
            grid: shape.grid,
            block: shape.block,
            argument_count: values.len() as u32,
            reserved: 0,
            arguments: std::ptr::null(),
        };
        let of = |value: &[u8]| ffi::gmb_argument { value: value.as_ptr().cast(), bytes: value.len() as u64 };
        let arguments = values.iter().map(|value| of(value)).collect();
        Self { values, arguments, launch }
    }

    pub fn get(&mut self) -> *const ffi::gmb_launch {
        debug_assert_eq!(self.values.len(), self.arguments.len());
        self.launch.arguments = self.arguments.as_ptr();
        &self.launch
    }
}

/// A function's launch, and its first argument, as the function gets them.
pub fn launched(
    py: Python<'_>,
    function: &Py<PyAny>,
    given: &mut Arguments,
    triple: Option<Arc<triple::Core>>,
    raised: Arc<Raised>,
    unraisable: bool,
) -> Arc<Launched> {
    let made = Arc::new(Launched {
        function: function.clone_ref(py),
        arguments: std::mem::take(&mut given.objects),
        triple,
        raised,
        unraisable,
    });
    given.kept.push(Box::new(Arc::clone(&made)));
    made
}

/// One block of a launch, as a function that takes a kernel's place sees it.
#[pyclass(frozen, get_all, module = "gpumailbox")]
pub struct KernelBlock {
    /// Blocks of the launch in each dimension: `gridDim`.
    pub grid: (u32, u32, u32),
    /// Threads of a block: `blockDim`.
    pub block: (u32, u32, u32),
    /// Which block this is: `blockIdx`.
    pub index: (u32, u32, u32),
    /// Its dynamic shared memory, zeroed.
    pub shared: Py<PyByteArray>,
}

#[pymethods]
impl KernelBlock {
    /// The numbers that its threads have in the launch's first dimension: `blockIdx.x * blockDim.x + threadIdx.x`.
    #[getter]
    fn threads<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let first = u64::from(self.index.0) * u64::from(self.block.0);
        py.import("builtins")?.getattr("range")?.call1((first, first + u64::from(self.block.0)))
    }

    fn __repr__(&self) -> String {
        format!("<gpumailbox.KernelBlock {:?} of {:?}>", self.index, self.grid)
    }
}

/// Which argument the launch is: the function's `user`, a number.
pub const FIRST: usize = 0;
/// The address of the triple buffer's buffer comes before it.
pub const SECOND: usize = 1;

/// Calls the function of a launch for one block, on a thread of the library.
pub unsafe extern "C" fn call_block(block: *const ffi::gmb_kernel_block, arguments: *mut *const c_void) {
    let _held_up = hold_up_end();
    // Whoever launched it sees nothing of it any more.
    if ended() {
        return;
    }
    // SAFETY: one of the package's launches, which is kept until all blocks are done.
    let (block, launched, address) = unsafe {
        let at = (*block).user as usize;
        let launched = (*arguments.add(at)).cast::<*const Launched>().read();
        (&*block, &*launched, (at == SECOND).then(|| (*arguments).cast::<u64>().read()))
    };
    if launched.raised.get().is_some() {
        return;
    }
    let call = |py: Python<'_>| {
        let Err(error) = launched.call(py, block, address) else { return };
        let told = error.clone_ref(py);
        if launched.raised.set(error) && launched.unraisable {
            told.write_unraisable(py, Some(launched.function.bind(py)));
        }
    };
    in_block(|| Python::attach(call));
}

impl Launched {
    fn call(&self, py: Python<'_>, block: &ffi::gmb_kernel_block, address: Option<u64>) -> PyResult<()> {
        let of = |all: [u32; 3]| (all[0], all[1], all[2]);
        let seen = KernelBlock {
            grid: of(block.grid),
            block: of(block.block),
            index: of(block.index),
            shared: PyByteArray::new(py, &vec![0; block.shared_bytes as usize]).unbind(),
        };
        let mut all = vec![seen.into_py_any(py)?];
        if let (Some(triple), Some(address)) = (&self.triple, address) {
            all.push(as_numpy(triple.array(address, 0).into_bound_py_any(py)?.as_any())?);
        }
        all.extend(self.arguments.iter().map(|value| value.clone_ref(py)));
        self.function.call1(py, PyTuple::new(py, all)?).map(drop)
    }
}
