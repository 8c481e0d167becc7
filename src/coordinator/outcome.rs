//! How operations stand to each other and how they end.

use super::Span;
use crate::error::Error;
use crate::status::*;

/// Where an operation stands in its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) lane: usize,
    /// Operations of the stream up to this one.
    pub(super) nth: u64,
}

/// How an operation ended.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) status: gmb_status,
    pub(super) count: u32,
    /// The operation that failed first, of those that this one came after; zero for none.
    pub(super) cause: u64,
    /// What was wrong, where that is known.
    pub(super) words: Option<Box<str>>,
    /// When it ran, if that is to be known.
    pub(super) span: Option<Span>,
}

impl Outcome {
    pub(super) const WELL: Self = Self { status: GMB_OK, count: 0, cause: 0, words: None, span: None };

    pub(super) fn failed(by: u64, error: &Error) -> Self {
        Self { status: error.status(), cause: by, words: Some(error.message().into()), ..Self::WELL }
    }

    /// Of whoever came after it.
    pub(super) fn of_dependant(&self) -> Self {
        Self { count: 0, span: None, ..self.clone() }
    }
}

/// What an operation came after, or wants to.
pub(super) enum Before {
    /// With how it will end, if it is known to fail.
    UnderWay(Place, Option<Outcome>),
    Done(Outcome),
}

/// Why an operation is known to fail while it is under way.
pub(super) enum Failure {
    /// Part of it may be enqueued.
    Itself(Error),
    /// What it came after had failed, so nothing of it is enqueued.
    Before(Outcome),
}

/// Which triple buffer an operation works on, and in which of its turns; none if it failed before it had one.
pub(super) type Turn = (u64, Option<u64>);

/// Why an operation fails before anything of it is enqueued.
pub(super) enum Why<'a> {
    /// What it was to come after has.
    Before(&'a Outcome),
    Itself(&'a Error),
}
