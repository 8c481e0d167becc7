//! Shapes and strides: checked, filled in, and the bytes they reach.

use super::dlpack::{check_dtype, PADDED};
use crate::error::{Error, Result};
use crate::extent::Extent;
use crate::layout::{gmb_dtype, gmb_tensor, GMB_MAX_DIMENSIONS};
use crate::status::*;

/// What a producer says of its elements.
pub(crate) struct Shape<'a> {
    pub(crate) dtype: gmb_dtype,
    pub(crate) shape: &'a [i64],
    /// In elements; `None` for rows one behind the other.
    pub(crate) strides: Option<&'a [i64]>,
    pub(crate) byte_offset: u64,
}

impl Shape<'_> {
    /// The record of a tensor at this address, on a device of this type and ordinal.
    pub(crate) fn record(&self, address: u64, device: (i32, i32), flags: u64) -> Result<gmb_tensor> {
        check_dtype(self.dtype)?;
        if self.shape.len() > GMB_MAX_DIMENSIONS as usize {
            return Err(Error::new(
                GMB_ERROR_NOT_SUPPORTED,
                format!(
                    "the tensor has {} dimensions; {GMB_MAX_DIMENSIONS} at most can be handed over",
                    self.shape.len()
                ),
            ));
        }
        if let Some((i, size)) = self.shape.iter().enumerate().find(|(_, &size)| size < 0) {
            return Err(Error::argument(format!("the tensor has {size} elements in dimension {i}")));
        }
        if self.strides.is_some_and(|strides| strides.len() != self.shape.len()) {
            return Err(Error::argument("the tensor has not as many strides as dimensions"));
        }
        let mut record = gmb_tensor {
            address,
            byte_offset: self.byte_offset,
            tag: 0,
            device_type: device.0,
            device_id: device.1,
            dtype: self.dtype,
            ndim: self.shape.len() as i32,
            flags,
            shape: [0; 8],
            strides: [0; 8],
        };
        record.shape[..self.shape.len()].copy_from_slice(self.shape);
        match self.strides {
            Some(strides) => record.strides[..strides.len()].copy_from_slice(strides),
            None => record.strides = compact(&record)?,
        }
        // Whatever it says must be a range of addresses.
        if extent(&record)?.is_some() && address == 0 {
            return Err(Error::new(GMB_ERROR_NULL_POINTER, "the tensor's data is null, and it is not empty"));
        }
        Ok(record)
    }
}

fn overflow() -> Error {
    Error::new(GMB_ERROR_OVERFLOW, "the tensor's shape and strides exceed the address space")
}

/// Strides of rows one behind the other. An empty dimension counts as one element, as elsewhere.
pub(super) fn compact(record: &gmb_tensor) -> Result<[i64; 8]> {
    let mut strides = [0; 8];
    let mut step = 1i64;
    for i in (0..record.ndim as usize).rev() {
        strides[i] = step;
        step = step.checked_mul(record.shape[i].max(1)).ok_or_else(overflow)?;
    }
    Ok(strides)
}

/// The bytes that the elements lie in; `None` for none.
pub(super) fn extent(record: &gmb_tensor) -> Result<Option<Extent>> {
    let ndim = record.ndim as usize;
    if record.shape[..ndim].contains(&0) {
        return Ok(None);
    }
    // In elements, relative to the first one: no sum of eight products of 63 bits overflows 128.
    let (mut low, mut high) = (0i128, 0i128);
    for (&size, &stride) in record.shape[..ndim].iter().zip(&record.strides) {
        let reach = i128::from(size - 1) * i128::from(stride);
        if reach < 0 {
            low += reach;
        } else {
            high += reach;
        }
    }
    // Elements of less than a byte lie side by side, or in a byte each.
    let bits = i128::from(record.dtype.bits) * i128::from(record.dtype.lanes);
    let bytes = |elements: i128, up: bool| {
        // Towards less, and towards more.
        elements.checked_mul(bits).map(|all| if up { (all + 7) >> 3 } else { all >> 3 })
    };
    let padded = record.flags & PADDED != 0 && bits < 8;
    let (start, end) = match padded {
        true => (Some(low), Some(high + 1)),
        false => (bytes(low, false), bytes(high + 1, true)),
    };
    let first = i128::from(record.address) + i128::from(record.byte_offset);
    let range = start.zip(end).and_then(|(start, end)| {
        let start = u64::try_from(first.checked_add(start)?).ok()?;
        let end = u64::try_from(first.checked_add(end)?).ok()?;
        Some((start, end - start))
    });
    let (start, length) = range.ok_or_else(overflow)?;
    Extent::bytes("the tensor's elements", start, length).map(Some)
}

/// Bytes of so many elements side by side, as DLPack packs them.
pub(crate) fn bytes_of(dtype: gmb_dtype, elements: u64) -> Result<u64> {
    let bits = u64::from(dtype.bits) * u64::from(dtype.lanes);
    let bytes =
        elements.checked_mul(bits).map(|bits| bits.div_ceil(8)).filter(|&bytes| bytes <= i64::MAX as u64);
    bytes.ok_or_else(|| {
        Error::new(GMB_ERROR_OVERFLOW, format!("{elements} elements of {bits} bits exceed the address space"))
    })
}
