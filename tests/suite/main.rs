//! One suite for both backends: `GMB_TEST_BACKEND=host|cuda` picks (default host).
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]
#![allow(clippy::undocumented_unsafe_blocks)]

mod arbiters;
mod bad_input;
mod borrow;
mod capture;
mod context;
mod coordinators;
mod doorbells;
mod drivers;
mod events;
mod failures;
mod foreign;
mod gated;
mod guards;
mod hot_path;
mod idle;
mod log;
mod lost;
mod mailbox;
mod managed;
mod memory;
mod modules;
mod ordering;
mod placement;
mod places;
mod policies;
mod profiler;
mod queues;
mod readers;
mod readiness;
mod shared;
mod stages;
mod staging;
mod stress;
mod support;
mod tensors;
mod tensors_arrow;
mod tensors_device;
mod tensors_lifetimes;
mod throughput;
mod tokens;
mod triples;
mod typed;
mod waiting;
mod workers;
