//! What iterations took, by the device's clock.

use std::collections::BTreeMap;

use super::Pipeline;
use crate::coordinator::Span;
use crate::error::{Error, Result};
use crate::status::GMB_ERROR_UNAVAILABLE;
use crate::sync::lock;

/// What a stage took, since the beginning or the last reset.
#[derive(Clone, Debug, PartialEq)]
pub struct StageStatistics {
    /// Its name.
    pub name: String,
    /// Times that it ran outside of graphs.
    pub runs: u64,
    /// Its mean time, in microseconds.
    pub mean_us: f64,
    /// Its longest time.
    pub longest_us: f64,
}

/// What iterations took, since the beginning or the last reset.
#[derive(Clone, Debug, PartialEq)]
pub struct PipelineStatistics {
    /// Iterations that are done.
    pub iterations: u64,
    /// Milliseconds from the begin of the first to the end of the last, for each.
    pub mean_iteration_ms: f64,
    /// Iterations in a second.
    pub iterations_per_second: f64,
    /// Share of that time in which at least one stage ran, 0 to 1.
    pub utilisation: f64,
    /// Each stage, in the order in which they were added.
    pub stages: Vec<StageStatistics>,
}

/// Separate times that are kept apart before the oldest is taken for good: what comes late is not as late as that.
const MOST_APART: usize = 256;

#[derive(Default)]
pub(super) struct Books {
    iterations: u64,
    stages: Vec<(u64, f64, f64)>,
    first_us: Option<f64>,
    last_us: f64,
    /// Times in which something ran, none of which touch; by the bits of their begin, which are ordered as numbers from zero on.
    busy: BTreeMap<u64, (f64, f64)>,
    settled_us: f64,
}

impl Books {
    pub(super) fn add(&mut self, stage: Option<usize>, span: Span) {
        if let Some(place) = stage {
            if self.stages.len() <= place {
                self.stages.resize(place + 1, (0, 0.0, 0.0));
            }
            let (runs, sum, longest) = &mut self.stages[place];
            let took = span.end_us - span.begin_us;
            (*runs, *sum, *longest) = (*runs + 1, *sum + took, longest.max(took));
        }
        self.first_us = Some(self.first_us.map_or(span.begin_us, |first| first.min(span.begin_us)));
        self.last_us = self.last_us.max(span.end_us);
        self.join(span);
    }

    fn join(&mut self, span: Span) {
        // Before the first operation that was seen there is nothing.
        let (mut begin, mut end) = (span.begin_us.max(0.0), span.end_us.max(0.0));
        let touching: Vec<u64> = self
            .busy
            .range(..=end.to_bits())
            .rev()
            .take_while(|(_, &(_, other))| other >= begin)
            .map(|(&key, _)| key)
            .collect();
        for key in touching {
            if let Some((from, to)) = self.busy.remove(&key) {
                (begin, end) = (begin.min(from), end.max(to));
            }
        }
        self.busy.insert(begin.to_bits(), (begin, end));
        if self.busy.len() > MOST_APART {
            if let Some((_, (from, to))) = self.busy.pop_first() {
                self.settled_us += to - from;
            }
        }
    }

    pub(super) fn finish(&mut self, iterations: u64) {
        self.iterations += iterations;
    }

    fn busy_us(&self) -> f64 {
        self.settled_us + self.busy.values().map(|(from, to)| to - from).sum::<f64>()
    }
}

impl Pipeline {
    /// What the iterations took that are done. Never blocks for the device.
    ///
    /// # Errors
    /// `UNAVAILABLE` (no iteration is done since the beginning or the last reset, or the pipeline is untimed), `DRIVER`.
    pub fn statistics(&self) -> Result<PipelineStatistics> {
        let mut state = lock(&self.state);
        self.look(&mut state)?;
        let none =
            |why: &str| Err(Error::new(GMB_ERROR_UNAVAILABLE, format!("there are no statistics: {why}")));
        if self.untimed {
            return none("the pipeline was made without");
        }
        let books = &state.books;
        let Some(first) = books.first_us.filter(|_| books.iterations > 0) else {
            return none("no iteration is done yet: execute some, and wait for them");
        };
        let elapsed = (books.last_us - first).max(f64::MIN_POSITIVE);
        let iterations = books.iterations as f64;
        let stages = state.stages.iter().enumerate().map(|(place, stage)| {
            let (runs, sum, longest_us) = books.stages.get(place).copied().unwrap_or_default();
            let mean_us = if runs > 0 { sum / runs as f64 } else { 0.0 };
            StageStatistics { name: stage.name.clone(), runs, mean_us, longest_us }
        });
        Ok(PipelineStatistics {
            iterations: books.iterations,
            mean_iteration_ms: elapsed / iterations / 1e3,
            iterations_per_second: 1e6 * iterations / elapsed,
            utilisation: (books.busy_us() / elapsed).min(1.0),
            stages: stages.collect(),
        })
    }

    /// Begins the statistics and the timeline anew, with the iterations that end from now on.
    ///
    /// # Errors
    /// `DRIVER`.
    pub fn reset_statistics(&self) -> Result<()> {
        let mut state = lock(&self.state);
        self.look(&mut state)?;
        state.books = Books::default();
        state.timeline = super::Timeline::default();
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_times_count_once() {
        let mut books = Books::default();
        let spans = [(0.0, 10.0), (20.0, 30.0), (5.0, 12.0), (12.0, 14.0), (40.0, 41.0), (25.0, 40.5)];
        for (begin_us, end_us) in spans {
            books.add(None, Span { begin_us, end_us });
        }
        assert_eq!(books.busy_us(), 14.0 + 21.0);
        assert_eq!((books.first_us, books.last_us), (Some(0.0), 41.0));
        // Many apart: none is lost.
        for n in 0..1000 {
            let begin_us = 100.0 + 2.0 * f64::from(n);
            books.add(Some(1), Span { begin_us, end_us: begin_us + 1.0 });
        }
        assert_eq!(books.busy_us(), 35.0 + 1000.0);
        assert_eq!(books.stages[1], (1000, 1000.0, 1.0));
    }
}
