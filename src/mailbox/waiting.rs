//! Pushes that wait for room: the calling thread waits, no stream does.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::Mutex;

use super::side::ahead;
use super::{Arbitration, Mailbox, Push};
use crate::backend::args::gmb_push_args;
use crate::backend::wait_until;
use crate::checks::check_whole;
use crate::error::{Error, Result};
use crate::results::Token;
use crate::status::*;
use crate::stream::Stream;
use crate::sync::lock;

/// Threads that wait for room, first come, first served: a large push is not
/// overtaken for ever by small ones.
#[derive(Default)]
pub(super) struct Line {
    waiting: Mutex<(u64, VecDeque<u64>)>,
}

struct Place<'a> {
    line: &'a Line,
    number: u64,
}

impl Line {
    fn enter(&self) -> Place<'_> {
        let mut waiting = lock(&self.waiting);
        waiting.0 += 1;
        let number = waiting.0;
        waiting.1.push_back(number);
        Place { line: self, number }
    }
}

impl Place<'_> {
    fn is_first(&self) -> bool {
        lock(&self.line.waiting).1.front() == Some(&self.number)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        lock(&self.line.waiting).1.retain(|&number| number != self.number);
    }
}

impl Mailbox {
    /// Waits until all records are sure to find room, then pushes them.
    pub(super) fn push_when_sure(
        &self,
        push: &Push,
        args: gmb_push_args,
        stream: Stream,
        token: Option<&Token>,
    ) -> Result<()> {
        check_whole(push.count.into(), self.core.capacity)?;
        // Before the wait, not after it.
        self.check_token(token)?;
        drop(token.map(Token::submit).transpose()?);
        let stream = self.context.resolve(stream)?;
        drop(self.core.check_stream(stream)?);
        let place = self.line.enter();
        let attempt = || {
            if self.core.closed.load(Ordering::Acquire) {
                return Some(Err(Error::new(
                    GMB_ERROR_INVALID_HANDLE,
                    "the mailbox was destroyed while this push waited for room",
                )));
            }
            if !place.is_first() {
                return None;
            }
            if let Some(shared) = &self.core.shared {
                let pushed = self.push_with_credit(shared, args, stream, token);
                return pushed.transpose();
            }
            let mut submitted = lock(&self.core.push.submission);
            let end = self.core.push.can_reach(&mut submitted).wrapping_add(u64::from(push.count));
            // Certain after what is enqueued; the stream then waits for those pops. Only the
            // library's own order makes a pop's outcome certain before it ran.
            let sure = |side: &super::side::Side| match self.arbitration {
                Arbitration::Cpu => side.sure(),
                Arbitration::Device => side.reached(),
            };
            let room =
                self.core.readers.in_use().all(|(_, side)| ahead(end, sure(side)) <= self.core.capacity);
            room.then(|| {
                let _entered = self.context.backend().enter_for_calls()?;
                self.push_now(submitted, args, stream, token)
            })
        };
        wait_until(push.timeout, attempt, || self.context.pulse())?.unwrap_or_else(|| {
            Err(Error::new(
                GMB_ERROR_TIMEOUT,
                format!("no room for {} records in time: nothing was pushed, try again", push.count),
            ))
        })
    }
}
