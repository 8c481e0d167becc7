//! Operations under capture: what orders them within their graph, and against all work outside of it.
//!
//! Within a capture an operation comes after the node of the one before it. Between graphs and other
//! work a side's event stands: each launch waits for what it stands for, and records it anew.

use std::sync::{Arc, Mutex};

use super::side::Side;
use super::{Arbitration, Mailbox};
use crate::backend::args::gmb_report_args;
use crate::backend::{CaptureId, Kernel};
use crate::error::{Error, Result};
use crate::graph::{note_part, Held, Part};
use crate::results::Token;
use crate::status::GMB_ERROR_NOT_SUPPORTED;
use crate::stream::Resolved;
use crate::sync::lock;

impl Mailbox {
    /// Puts an operation of a side into its stream's capture.
    pub(super) fn capture<'a>(
        &self,
        side: &Side,
        mut others: impl Iterator<Item = &'a Side>,
        (stream, capture): (Resolved, CaptureId),
        blocks: u32,
        token: Option<&Token>,
        kernel: impl FnOnce(gmb_report_args) -> Kernel,
    ) -> Result<()> {
        if self.core.full_policy.rules().waits {
            return Err(Error::new(
                GMB_ERROR_NOT_SUPPORTED,
                "a mailbox that waits for room cannot be used in a graph, where no thread waits; the capture goes on",
            ));
        }
        self.check_unborrowed()?;
        let backend = self.context.backend();
        // Threads that capture at once would take each other's nodes for theirs.
        let _alone = lock(&CAPTURING);
        // What is held and does not come to be used hurts nobody.
        let captured = token.map(|token| token.capture(stream, capture)).transpose()?;
        if !self.core.is_held_by(capture) {
            backend.capture_keep(stream.raw, Box::new(Held::new(&self.context, &self.core)))?;
            let part: Arc<dyn Part> = Arc::clone(&self.core) as Arc<dyn Part>;
            note_part(&self.context, capture, &part);
            self.core.note_capture(capture);
            // Told before it is asked; a borrow does the same the other way round.
            std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
            self.check_unborrowed()?;
        }
        side.come_after(stream, capture)?;
        if self.arbitration == Arbitration::Cpu {
            others.try_for_each(|other| other.come_after(stream, capture))?;
        }
        let mut report = captured.as_ref().map(|token| token.report()).unwrap_or_default();
        report.operation = side.next_operation() as u32;
        // On a single stream nobody asks how far a side is; of a shared mailbox the header says it.
        if !self.core.single_stream && self.core.shared.is_none() {
            report.host_progress = side.progress();
        }
        // SAFETY: the graph holds the ring and the slots; the caller vouches for the rest.
        unsafe { backend.launch_captured(&kernel(report), blocks, stream.raw)? };
        if let Some(token) = captured {
            token.confirm();
        }
        side.captured(stream, capture)
    }

    fn check_unborrowed(&self) -> Result<()> {
        if !self.core.borrows.were_made() {
            return Ok(());
        }
        Err(Error::new(
            GMB_ERROR_NOT_SUPPORTED,
            "records of the mailbox were borrowed, and a launch could not know whether they still are; the capture goes on",
        ))
    }
}

/// Held while an operation is captured.
static CAPTURING: Mutex<()> = Mutex::new(());
