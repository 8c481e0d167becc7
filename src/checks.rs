//! Checks of arguments that more than one thing makes, each with its one sentence.

use crate::error::{Error, Result};
use crate::layout::GMB_MAX_RECORDS;
use crate::status::*;

/// What is said of a null pointer.
pub(crate) fn null(name: &str) -> Error {
    Error::new(GMB_ERROR_NULL_POINTER, format!("{name} is null"))
}

/// What is said when there is nothing to do.
pub(crate) fn nothing(name: &str) -> Error {
    Error::new(GMB_ERROR_ZERO_COUNT, format!("{name} is 0: nothing to do"))
}

/// A number of records: of a push, a pop, a borrow.
pub(crate) fn check_count(name: &str, count: u32) -> Result<()> {
    match count {
        0 => Err(nothing(name)),
        _ if count > GMB_MAX_RECORDS => {
            Err(Error::new(GMB_ERROR_OVERFLOW, format!("{name} {count} exceeds {GMB_MAX_RECORDS}")))
        }
        _ => Ok(()),
    }
}

/// Neither null nor misaligned.
pub(crate) fn check_address(name: &str, address: u64, alignment: u64) -> Result<()> {
    if address == 0 {
        return Err(null(name));
    }
    if address % alignment != 0 {
        return Err(Error::new(
            GMB_ERROR_MISALIGNED,
            format!("{name} at {address:#x} is not a multiple of {alignment} bytes"),
        ));
    }
    Ok(())
}

/// The capacity of something that holds `most` at most: indices are taken modulo it.
pub(crate) fn check_capacity(holder: &str, capacity: u64, most: u64) -> Result<()> {
    if capacity > most {
        return Err(Error::new(
            GMB_ERROR_OVERFLOW,
            format!("capacity {capacity} exceeds the most {holder} can hold, {most}"),
        ));
    }
    if !capacity.is_power_of_two() {
        let next = capacity.next_power_of_two();
        return Err(Error::argument(format!("capacity {capacity} is no power of two: use {next}")));
    }
    Ok(())
}

/// What is pushed as a whole must fit an empty mailbox.
pub(crate) fn check_whole(count: u64, capacity: u64) -> Result<()> {
    if count > capacity {
        return Err(Error::argument(format!(
            "count {count}: under this policy all records are pushed or none, and the capacity is {capacity}"
        )));
    }
    Ok(())
}
