//! Where a pop writes to.

use std::sync::Arc;

use pyo3::prelude::*;

use crate::context::ContextHandle;
use crate::dlpack::{self, Managed};
use crate::error::argument;
use crate::keeping::What;
use crate::memory::Memory;
use crate::records::Kind;

/// Rows for so many records, and headers.
pub struct Destination<'a, 'py> {
    pub memory: Written<'a, 'py>,
    pub rows: u32,
    /// Bytes from one row to the next.
    pub stride: u64,
}

pub enum Written<'a, 'py> {
    /// `out`, which is somebody's.
    Given(&'a Bound<'py, PyAny>, Managed),
    /// Memory of the package's own, for records and for headers.
    Made(Arc<Memory>, Option<Arc<Memory>>),
}

impl<'a, 'py> Destination<'a, 'py> {
    pub fn new(
        context: &Arc<ContextHandle>,
        kind: &Kind,
        max: u32,
        out: Option<&'a Bound<'py, PyAny>>,
        headers: bool,
        stream: usize,
    ) -> PyResult<Self> {
        let Some(out) = out else {
            // Rows that the library writes to begin at multiples of 16 bytes.
            let stride = u64::from(kind.bytes).next_multiple_of(16);
            let made = |bytes| Memory::new(context, u64::from(max) * bytes, stream);
            let memory = Written::Made(made(stride)?, headers.then(|| made(16)).transpose()?);
            return Ok(Self { memory, rows: max, stride });
        };
        let into = dlpack::import(out, context, stream)?;
        let (rows, bytes, apart) = kind.rows(&into, context)?;
        if into.is_read_only() || rows < max || bytes < kind.bytes {
            return Err(argument(format!(
                "out is read-only, or has no room for {max} records of {} bytes",
                kind.bytes
            )));
        }
        Ok(Self { memory: Written::Given(out, into), rows, stride: if rows > 1 { apart } else { 0 } })
    }

    /// Addresses.
    pub fn records(&self) -> u64 {
        match &self.memory {
            Written::Given(_, into) => into.address(),
            Written::Made(records, _) => records.address,
        }
    }

    pub fn headers(&self) -> u64 {
        match &self.memory {
            Written::Made(_, Some(headers)) => headers.address,
            _ => 0,
        }
    }

    /// For as long as it is written to.
    pub fn kept(self) -> What {
        let bytes = u64::from(self.rows) * self.stride;
        match self.memory {
            Written::Given(_, into) => What { given: [Some(into), None, None], bytes, ..What::default() },
            Written::Made(records, headers) => {
                What { made: [Some(records), headers], bytes, ..What::default() }
            }
        }
    }
}
