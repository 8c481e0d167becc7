//! When stages ran, for those who would rather look: Chrome's trace events, which Perfetto reads, too.

use std::collections::VecDeque;
use std::fmt::Write;

use super::Pipeline;
use crate::coordinator::Span;
use crate::error::Result;
use crate::sync::lock;
use crate::triple::Step;

/// Runs of stages that are kept.
const MOST: usize = 1 << 14;

struct Run {
    name: String,
    step: Step,
    iteration: u64,
    span: Span,
}

#[derive(Default)]
pub(super) struct Timeline(VecDeque<Run>);

impl Timeline {
    pub(super) fn add(&mut self, name: String, step: Step, iteration: u64, span: Span) {
        if self.0.len() == MOST {
            self.0.pop_front();
        }
        self.0.push_back(Run { name, step, iteration, span });
    }
}

impl Pipeline {
    /// The latest 16,384 runs of stages as a trace in JSON ("Trace Event Format" of Chrome, which Perfetto reads): one track for
    /// each stream, times in microseconds by the device's clock.
    ///
    /// # Errors
    /// `DRIVER`.
    pub fn timeline(&self) -> Result<String> {
        let mut state = lock(&self.state);
        self.look(&mut state)?;
        let mut text = String::from("{\"displayTimeUnit\":\"ns\",\"traceEvents\":[");
        for (n, step) in Step::ALL.into_iter().enumerate() {
            let _ = write!(
                text,
                "{}\n{{\"name\":\"thread_name\",\"ph\":\"M\",\"pid\":1,\"tid\":{},\"args\":{{\"name\":\"{}\"}}}}",
                if n == 0 { "" } else { "," },
                step.index() + 1,
                step.name()
            );
        }
        for run in &state.timeline.0 {
            let _ = write!(
                text,
                ",\n{{\"name\":{},\"cat\":\"{}\",\"ph\":\"X\",\"pid\":1,\"tid\":{},\"ts\":{:.3},\"dur\":{:.3},\"args\":{{\"iteration\":{}}}}}",
                quoted(&run.name),
                run.step.name(),
                run.step.index() + 1,
                run.span.begin_us,
                (run.span.end_us - run.span.begin_us).max(0.0),
                run.iteration
            );
        }
        text.push_str("\n]}\n");
        Ok(text)
    }
}

/// A string as JSON has it.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if (c as u32) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_are_quoted() {
        assert_eq!(super::quoted("a \"b\"\\\n"), "\"a \\\"b\\\"\\\\\\u000a\"");
    }
}
