//! Errors: a status code that is part of the ABI, and a sentence.

use std::fmt;

use crate::status::{gmb_status, status_name, GMB_ERROR_INVALID_ARGUMENT};

/// Why a call failed: a stable code and what was wrong with what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    status: gmb_status,
    message: String,
}

/// The result of a call into this library.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error with a code and a sentence that names the offender and the remedy.
    pub(crate) fn new(status: gmb_status, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    /// The commonest error: an argument out of its range.
    pub(crate) fn argument(message: impl Into<String>) -> Self {
        Self::new(GMB_ERROR_INVALID_ARGUMENT, message)
    }

    /// The stable code, as in the C API.
    pub fn status(&self) -> gmb_status {
        self.status
    }

    /// The sentence.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", status_name(self.status), self.message)
    }
}

impl std::error::Error for Error {}
