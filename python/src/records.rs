//! What a record is, and tensors whose rows are records.

use pyo3::prelude::*;

use crate::context::ContextHandle;
use crate::dlpack::{self, DLTensor, Managed};
use crate::dtype::{INT, UINT};
use crate::error::{argument, status};
use crate::ffi::{self, gmb_dtype};

/// What a record is.
#[derive(Clone)]
pub struct Kind {
    pub dtype: gmb_dtype,
    pub shape: Vec<i64>,
    pub bytes: u32,
}

impl Kind {
    pub fn bytes(bytes: u32) -> Self {
        Self { dtype: gmb_dtype::new(UINT, 8), shape: vec![i64::from(bytes)], bytes }
    }

    pub fn of(dtype: &Bound<'_, PyAny>, shape: Vec<i64>) -> PyResult<Self> {
        let dtype = gmb_dtype::of(dtype)?;
        let bytes = shape
            .iter()
            .try_fold(
                i64::from(dtype.bits) / 8,
                |all, &size| if size < 0 { None } else { all.checked_mul(size) },
            )
            .and_then(|bytes| u32::try_from(bytes).ok())
            .ok_or_else(|| argument(format!("a record of shape {shape:?} is none")))?;
        Ok(Self { dtype, shape, bytes })
    }

    /// Whether tensors of any type are records of it.
    pub fn is_bytes(&self) -> bool {
        (self.dtype.code, self.dtype.bits) == (UINT, 8)
    }

    /// What an item of a queue is.
    pub fn items_named(&self) -> String {
        if self.is_bytes() {
            format!("items of {} bytes", self.bytes)
        } else {
            self.dtype.name()
        }
    }

    /// How many items an array holds, one behind the other, for `whom`.
    pub fn items(&self, from: &Managed, context: &ContextHandle, whom: &str) -> PyResult<u32> {
        let (tensor, shape) = (from.tensor(), from.shape());
        check_place(tensor, context, "the items")?;
        // A row is an item where any type is.
        let dimensions = if self.is_bytes() { shape.len().max(1) } else { 1 };
        let bytes = shape.iter().skip(1).product::<i64>() as u64 * tensor.dtype.bytes();
        let same = (tensor.dtype.code, tensor.dtype.bits) == (self.dtype.code, self.dtype.bits);
        if shape.len() != dimensions || bytes != u64::from(self.bytes) || !(same || self.is_bytes()) {
            return Err(argument(format!(
                "the items are {} of shape {shape:?}, the {whom} is for {}",
                tensor.dtype.name(),
                self.items_named()
            )));
        }
        let mut step = 1;
        for (i, &size) in shape.iter().enumerate().rev() {
            if size > 1 && shape[0] > 0 && from.strides().is_some_and(|strides| strides[i] != step) {
                return Err(argument("the items have gaps: make them contiguous"));
            }
            step *= size;
        }
        narrow(shape[0] as u64, "items")
    }

    /// Rows as records: their number, the bytes of one and from one to the next.
    pub fn rows(&self, from: &Managed, context: &ContextHandle) -> PyResult<(u32, u32, u64)> {
        let tensor = from.tensor();
        check_place(tensor, context, "the records")?;
        let (shape, item) = (from.shape(), tensor.dtype.bytes());
        let Some((&count, row)) = shape.split_first() else {
            return Err(argument(
                "a single number is no list of records: give an array whose rows are records",
            ));
        };
        let elements = row.iter().product::<i64>();
        let mut apart = elements;
        if let Some(strides) = from.strides() {
            let mut step = 1;
            for (&size, &stride) in row.iter().zip(&strides[1..]).rev() {
                if size > 1 && stride != step {
                    return Err(argument(format!(
                        "rows of shape {row:?} with strides {:?} have gaps: make them contiguous",
                        &strides[1..]
                    )));
                }
                step *= size;
            }
            if count > 1 {
                apart = strides[0];
            }
        }
        if apart < elements {
            return Err(argument("the rows overlap, or go backwards: make them contiguous"));
        }
        let same = (tensor.dtype.code, tensor.dtype.bits) == (self.dtype.code, self.dtype.bits);
        if !self.is_bytes() && (!same || row != self.shape.as_slice()) {
            return Err(argument(format!(
                "records are {} of shape {row:?}, the mailbox is for {} of shape {:?}",
                tensor.dtype.name(),
                self.dtype.name(),
                self.shape
            )));
        }
        let apart = apart as u64 * item;
        if count > 1 && apart % 16 != 0 {
            return Err(status(
                ffi::GMB_ERROR_MISALIGNED,
                format!(
                    "rows are {apart} bytes apart, which is no multiple of 16: give a slice of a wider array"
                ),
            ));
        }
        Ok((narrow(count as u64, "records")?, narrow(elements as u64 * item, "bytes of a record")?, apart))
    }
}

pub fn check_place(tensor: &DLTensor, context: &ContextHandle, what: &str) -> PyResult<()> {
    let (kind, device) = context.device_type();
    if (tensor.device_type, tensor.device_id) == (kind, device) {
        return Ok(());
    }
    let name = |kind, device| match kind {
        dlpack::CPU => "the CPU".to_owned(),
        dlpack::CUDA => format!("CUDA device {device}"),
        _ => format!("a device of DLPack type {kind}"),
    };
    Err(status(
        ffi::GMB_ERROR_INVALID_DEVICE,
        format!(
            "{what} are on {}, the context is on {}: copy them there first",
            name(tensor.device_type, tensor.device_id),
            name(kind, device)
        ),
    ))
}

/// A number that the library takes as 32 bits.
pub fn narrow(value: u64, what: &str) -> PyResult<u32> {
    u32::try_from(value).map_err(|_| status(ffi::GMB_ERROR_OVERFLOW, format!("{value} {what} are too many")))
}

/// One 32-bit number for each record.
pub fn words(
    of: Option<&Bound<'_, PyAny>>,
    count: u32,
    context: &ContextHandle,
    stream: usize,
    what: &str,
) -> PyResult<Option<Managed>> {
    let Some(of) = of else { return Ok(None) };
    let managed = dlpack::import(of, context, stream)?;
    let tensor = managed.tensor();
    check_place(tensor, context, what)?;
    let fits = tensor.dtype.bits == 32 && [INT, UINT].contains(&tensor.dtype.code) && tensor.dtype.lanes == 1;
    let dense = managed.strides().is_none_or(|strides| strides.first() == Some(&1) || count <= 1);
    if !fits || !dense || managed.shape() != [i64::from(count)] {
        return Err(argument(format!("{what} are not {count} integers of 32 bits, one behind the other")));
    }
    Ok(Some(managed))
}
