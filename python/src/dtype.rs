//! Types of elements, by their names.

use pyo3::prelude::*;
use pyo3::types::PyString;
use pyo3::{intern, Bound};

use crate::error::argument;
use crate::ffi::gmb_dtype;

// Codes of DLPack.
pub const INT: u8 = 0;
pub const UINT: u8 = 1;
pub const FLOAT: u8 = 2;
pub const BFLOAT: u8 = 4;
pub const COMPLEX: u8 = 5;
pub const BOOL: u8 = 6;

/// Code and bits.
const TYPES: [(&str, u8, u8); 15] = [
    ("int8", INT, 8),
    ("int16", INT, 16),
    ("int32", INT, 32),
    ("int64", INT, 64),
    ("uint8", UINT, 8),
    ("uint16", UINT, 16),
    ("uint32", UINT, 32),
    ("uint64", UINT, 64),
    ("float16", FLOAT, 16),
    ("float32", FLOAT, 32),
    ("float64", FLOAT, 64),
    ("bfloat16", BFLOAT, 16),
    ("complex64", COMPLEX, 64),
    ("complex128", COMPLEX, 128),
    ("bool", BOOL, 8),
];

impl PartialEq for gmb_dtype {
    fn eq(&self, other: &Self) -> bool {
        (self.code, self.bits, self.lanes) == (other.code, other.bits, other.lanes)
    }
}

impl gmb_dtype {
    pub fn new(code: u8, bits: u8) -> Self {
        Self { code, bits, lanes: 1 }
    }

    /// By its name, or by an object that ends in its name (`torch.float32`, `numpy.dtype("float32")`).
    pub fn of(given: &Bound<'_, PyAny>) -> PyResult<Self> {
        let text = match given.cast::<PyString>() {
            Ok(name) => name.to_string(),
            Err(_) => match given.getattr_opt(intern!(given.py(), "__name__"))? {
                Some(name) => name.to_string(),
                None => given.str()?.to_string(),
            },
        };
        let name = text.rsplit('.').next().unwrap_or(&text);
        // Python's own types, as NumPy reads them.
        let name = match name {
            "float" => "float64",
            "int" => "int64",
            "complex" => "complex128",
            other => other,
        };
        match TYPES.iter().find(|(known, ..)| *known == name) {
            Some(&(_, code, bits)) => Ok(Self::new(code, bits)),
            None => Err(argument(format!(
                "dtype {text:?} is none that a record can have: give \"float32\", torch.int64, ..."
            ))),
        }
    }

    /// As NumPy and PyTorch have it.
    pub fn name(self) -> String {
        let known = TYPES.iter().find(|(_, code, bits)| (*code, *bits) == (self.code, self.bits));
        match known {
            Some((name, ..)) if self.lanes == 1 => (*name).to_owned(),
            Some((name, ..)) => format!("{name}x{}", self.lanes),
            None => format!("dlpack(code={}, bits={}, lanes={})", self.code, self.bits, self.lanes),
        }
    }

    /// Of an element.
    pub fn bytes(self) -> u64 {
        u64::from(self.bits) * u64::from(self.lanes) / 8
    }
}
