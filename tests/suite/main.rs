//! One suite for both backends: `GMB_TEST_BACKEND=host|cuda` picks (default host).
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]
#![allow(clippy::undocumented_unsafe_blocks)]

mod bad_input;
mod context;
mod drivers;
mod gated;
mod mailbox;
mod ordering;
mod support;
mod throughput;
mod tokens;
