//! Ranges of addresses: sizes that must not overflow, ranges that must not overlap.

use crate::error::{Error, Result};
use crate::status::*;

/// A named range of addresses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    name: &'static str,
    start: u64,
    end: u64,
}

impl Extent {
    /// A range known to be good.
    pub(crate) fn whole(name: &'static str, start: u64, bytes: u64) -> Self {
        Self { name, start, end: start.saturating_add(bytes) }
    }

    /// So many bytes, which must not run over the end of the address space.
    pub(crate) fn bytes(name: &'static str, start: u64, bytes: u64) -> Result<Self> {
        match start.checked_add(bytes).filter(|&end| end <= i64::MAX as u64) {
            Some(end) => Ok(Self { name, start, end }),
            None => Err(Error::new(
                GMB_ERROR_OVERFLOW,
                format!("{name}: {bytes} bytes at {start:#x} exceed the address space"),
            )),
        }
    }

    /// `count` elements of `bytes` each.
    pub(crate) fn array(name: &'static str, start: u64, count: u32, bytes: u64) -> Result<Self> {
        Self::steps(name, start, count, bytes, Some(bytes))
    }

    /// `count` rows of `used` bytes, `stride` bytes apart, each taken in whole 16-byte units.
    pub(crate) fn rows(name: &'static str, start: u64, count: u32, stride: u64, used: u64) -> Result<Self> {
        Self::steps(name, start, count, stride, used.checked_next_multiple_of(16))
    }

    fn steps(name: &'static str, start: u64, count: u32, stride: u64, last: Option<u64>) -> Result<Self> {
        let end = u64::from(count)
            .checked_sub(1)
            .and_then(|steps| steps.checked_mul(stride))
            .and_then(|bytes| bytes.checked_add(last?))
            .and_then(|bytes| start.checked_add(bytes))
            .filter(|&end| end <= i64::MAX as u64);
        match end {
            Some(end) => Ok(Self { name, start, end }),
            None => Err(Error::new(
                GMB_ERROR_OVERFLOW,
                format!("{name}: {count} rows {stride} bytes apart exceed the address space"),
            )),
        }
    }

    /// What it is called, where it begins, and its bytes.
    pub(crate) fn parts(&self) -> (&'static str, u64, u64) {
        (self.name, self.start, self.end - self.start)
    }
}

/// Fails when two ranges share a byte.
pub(crate) fn check_disjoint(a: &Extent, b: &Extent) -> Result<()> {
    if a.start < b.end && b.start < a.end {
        return Err(Error::new(
            GMB_ERROR_OVERLAP,
            format!("{} at {:#x} overlaps {} at {:#x}", b.name, b.start, a.name, a.start),
        ));
    }
    Ok(())
}
