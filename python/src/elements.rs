//! What arrays and tensors are to other libraries: elements on a device, given by DLPack and the array interfaces.

use std::borrow::Cow;

use pyo3::exceptions::{PyAttributeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::context::ContextHandle;
use crate::dlpack::Managed;
use crate::dtype;
use crate::ffi::gmb_dtype;
use crate::records::Kind;

/// Where elements lie.
#[derive(Clone)]
pub struct Layout {
    pub address: u64,
    pub dtype: gmb_dtype,
    pub shape: Vec<i64>,
    pub strides: Vec<i64>,
}

impl Layout {
    /// `count` records of a kind, so many bytes apart.
    pub fn records(address: u64, kind: &Kind, count: u32, apart: u64) -> Self {
        let mut shape = vec![i64::from(count)];
        shape.extend(&kind.shape);
        let mut strides = vec![0; shape.len()];
        let mut step = 1;
        for i in (1..shape.len()).rev() {
            strides[i] = step;
            step *= shape[i].max(1);
        }
        strides[0] = (apart / kind.dtype.bytes().max(1)) as i64;
        Self { address, dtype: kind.dtype, shape, strides }
    }
}

/// What a class knows of its own.
pub trait Elements {
    /// What is had of their keeper for as long as they are not given back.
    type Hold;
    /// Raises if they were given back.
    fn hold(&self) -> PyResult<Self::Hold>;
    fn context(&self) -> &ContextHandle;
    /// They are there in its order.
    fn stream(&self) -> usize;
    /// Type and number, as DLPack has them.
    fn device(&self) -> (i32, i32);
    fn layout(&self) -> Cow<'_, Layout>;
    /// A stream reads them from here on, by the number that the protocols give it.
    fn lend(&self, hold: &Self::Hold, stream: Option<&Bound<'_, PyAny>>) -> PyResult<()>;
    /// For DLPack, with a version or without.
    fn give(&self, hold: &Self::Hold, versioned: bool) -> PyResult<Managed>;
}

/// The methods of a class: its own, and those by which others read its elements. PyO3 takes all of a class at once.
macro_rules! methods_of_elements {
    (impl $class:ident { $($own:tt)* }) => {
        #[pyo3::pymethods]
        impl $class {
            $($own)*

            #[getter]
            fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, pyo3::types::PyTuple>> {
                pyo3::types::PyTuple::new(py, &self.layout().shape)
            }

            /// Elements from one index to the next.
            #[getter]
            fn strides<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, pyo3::types::PyTuple>> {
                pyo3::types::PyTuple::new(py, &self.layout().strides)
            }

            #[getter]
            fn dtype(&self) -> String {
                self.layout().dtype.name()
            }

            #[pyo3(signature = (*, stream = None, max_version = None, dl_device = None, copy = None))]
            fn __dlpack__<'py>(
                &self,
                py: Python<'py>,
                stream: Option<&Bound<'py, PyAny>>,
                max_version: Option<(u32, u32)>,
                dl_device: Option<(i32, i32)>,
                copy: Option<bool>,
            ) -> PyResult<Bound<'py, PyAny>> {
                let hold = self.hold()?;
                if copy == Some(true) || dl_device.is_some_and(|device| device != self.context().device_type()) {
                    return Err(pyo3::exceptions::PyBufferError::new_err(
                        "no copy is made here: take it as it is, and copy it then",
                    ));
                }
                self.lend(&hold, stream)?;
                crate::dlpack::capsule(py, self.give(&hold, crate::dlpack::wants_version(max_version))?)
            }

            fn __dlpack_device__(&self) -> (i32, i32) {
                self.device()
            }

            #[pyo3(signature = (dtype = None, copy = None))]
            fn __array__<'py>(
                slf: &Bound<'py, Self>,
                dtype: Option<&Bound<'py, PyAny>>,
                copy: Option<bool>,
            ) -> PyResult<Bound<'py, PyAny>> {
                crate::elements::as_numpy(slf.as_any(), slf.get().context().cuda, dtype, copy)
            }

            #[getter]
            fn __cuda_array_interface__<'py>(
                &self,
                py: Python<'py>,
            ) -> PyResult<Bound<'py, pyo3::types::PyDict>> {
                let hold = self.hold()?;
                self.lend(&hold, None)?;
                crate::elements::cuda_array_interface(py, self)
            }
        }
    };
}

pub(crate) use methods_of_elements;

/// For `numpy.asarray`, of what NumPy can read.
pub fn as_numpy<'py>(
    of: &Bound<'py, PyAny>,
    cuda: bool,
    dtype: Option<&Bound<'py, PyAny>>,
    copy: Option<bool>,
) -> PyResult<Bound<'py, PyAny>> {
    if cuda {
        return Err(PyTypeError::new_err(
            "the memory is on a GPU: torch.from_dlpack(...).cpu().numpy() copies it to the host",
        ));
    }
    let array = of.py().import("numpy")?.getattr("from_dlpack")?.call1((of,))?;
    let as_it_is = match dtype {
        Some(dtype) => array.getattr("dtype")?.eq(dtype)?,
        None => true,
    };
    match (as_it_is, copy) {
        (true, Some(true)) => array.call_method0("copy"),
        (true, _) => Ok(array),
        (false, Some(false)) => Err(PyValueError::new_err("another dtype is not possible without a copy")),
        (false, _) => array.call_method1("astype", (dtype,)),
    }
}

/// The protocol of CuPy and Numba, version 3.
pub fn cuda_array_interface<'py>(py: Python<'py>, of: &impl Elements) -> PyResult<Bound<'py, PyDict>> {
    if !of.context().cuda {
        return Err(PyAttributeError::new_err("the memory is not on a GPU: use from_dlpack"));
    }
    let layout = of.layout();
    let letter = match layout.dtype.code {
        dtype::INT => 'i',
        dtype::UINT => 'u',
        dtype::FLOAT => 'f',
        dtype::COMPLEX => 'c',
        dtype::BOOL => 'b',
        _ => return Err(PyAttributeError::new_err("the protocol has no such dtype: use from_dlpack")),
    };
    let bytes = i64::from(layout.dtype.bits / 8);
    let all = PyDict::new(py);
    all.set_item("version", 3)?;
    all.set_item("shape", PyTuple::new(py, &layout.shape)?)?;
    all.set_item("strides", PyTuple::new(py, layout.strides.iter().map(|stride| stride * bytes))?)?;
    all.set_item("typestr", format!("{}{letter}{bytes}", if bytes == 1 { '|' } else { '<' }))?;
    all.set_item("data", (layout.address, false))?;
    // The protocol has numbers for the default streams, and forbids 0.
    all.set_item("stream", of.stream().max(1))?;
    Ok(all)
}
