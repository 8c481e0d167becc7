//! Arrays on the host, to upload from and to download to.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::dlpack::{self, Managed};
use crate::error::{argument, status};
use crate::ffi::{self, gmb_dtype};

/// Memory of the host that DLPack knows: pageable, and pinned by CUDA.
const PLACES: [i32; 2] = [dlpack::CPU, 3];

/// A dense array on the host.
pub struct HostArray {
    managed: Managed,
    pub elements: u64,
    pub bytes: u64,
}

impl HostArray {
    pub fn new(of: &Bound<'_, PyAny>, what: &str) -> PyResult<Self> {
        let py = of.py();
        let place = of.getattr_opt(intern!(py, "__dlpack_device__"))?;
        let place: Option<(i32, i32)> = match place {
            Some(place) => place.call0()?.extract().ok(),
            None => None,
        };
        if let Some((kind, _)) = place.filter(|(kind, _)| !PLACES.contains(kind)) {
            return Err(status(
                ffi::GMB_ERROR_INVALID_DEVICE,
                format!("{what} is on a device (of DLPack type {kind}), not in host memory"),
            ));
        }
        let managed = dlpack::taken(of, &PyDict::new(py))?;
        let tensor = managed.tensor();
        if !PLACES.contains(&tensor.device_type) {
            return Err(status(
                ffi::GMB_ERROR_INVALID_DEVICE,
                format!("{what} is on a device (of DLPack type {}), not in host memory", tensor.device_type),
            ));
        }
        let elements = dense(&managed, what)?;
        let bytes = elements * tensor.dtype.bytes();
        Ok(Self { managed, elements, bytes })
    }

    pub fn dtype(&self) -> gmb_dtype {
        self.managed.tensor().dtype
    }

    pub fn address(&self) -> u64 {
        self.managed.address()
    }

    pub fn check_writable(&self, what: &str) -> PyResult<()> {
        match self.managed.is_read_only() {
            true => Err(argument(format!("{what} is read-only"))),
            false => Ok(()),
        }
    }
}

/// How many elements an array has that lie one behind the other; raises if they do not.
pub fn dense(array: &Managed, what: &str) -> PyResult<u64> {
    let (shape, mut step) = (array.shape(), 1i64);
    let elements = shape.iter().product::<i64>();
    for (i, &size) in shape.iter().enumerate().rev() {
        if size > 1 && elements > 0 && array.strides().is_some_and(|strides| strides[i] != step) {
            return Err(argument(format!("{what} has gaps, or another order: make it contiguous")));
        }
        step *= size;
    }
    Ok(elements as u64)
}

/// Raises unless two arrays have elements of one type.
pub fn check_same(source: gmb_dtype, what: &str, destination: gmb_dtype) -> PyResult<()> {
    if source == destination {
        return Ok(());
    }
    Err(status(
        ffi::GMB_ERROR_WRONG_TYPE,
        format!("the array is {}, {what} {}: convert it first", source.name(), destination.name()),
    ))
}
