//! The device's time, from events.

use std::sync::Arc;

use super::Span;
use crate::error::Result;
use crate::events::{Event, EventKind};

/// One of the latest events, and when it was.
#[derive(Default)]
pub(super) struct Clock(Option<(Arc<Event>, f64)>);

/// The driver tells the time between two events in three bytes that count: far apart, half a microsecond is lost.
const FAR_US: f64 = 1e6;

impl Clock {
    /// When two events were, in microseconds since the first one that was asked for. The events come back, or others.
    pub(super) fn span(&mut self, began: Arc<Event>, ended: Arc<Event>) -> Result<(Span, [Arc<Event>; 2])> {
        let Some((anchor, at)) = self.0.take() else {
            // The first one is kept.
            let span = span_from(&began, 0.0, &began, &ended)?;
            let other = Arc::new(began.context().event(EventKind::Timed)?);
            self.0 = Some((began, 0.0));
            return Ok((span, [other, ended]));
        };
        match span_from(&anchor, at, &began, &ended) {
            Ok(span) if span.end_us - at > FAR_US => {
                self.0 = Some((ended, span.end_us));
                Ok((span, [began, anchor]))
            }
            span => {
                self.0 = Some((anchor, at));
                span.map(|span| (span, [began, ended]))
            }
        }
    }
}

fn span_from(anchor: &Event, at: f64, began: &Event, ended: &Event) -> Result<Span> {
    let us = |event| anchor.elapsed_ms(event).map(|ms| ms.map_or(at, |ms| at + 1e3 * ms));
    Ok(Span { begin_us: us(began)?, end_us: us(ended)? })
}
