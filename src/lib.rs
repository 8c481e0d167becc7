//! Mailboxes in GPU memory.
//!
//! Modules of one program hand each other records on one device: pushes and
//! pops are kernels on the caller's streams, and every pop says how many
//! records came. Without a GPU the same program runs on the host backend.
//!
//! ```
//! use gpumailbox::{gmb_record_header, Context, ContextOptions, HostRows, Mailbox, MailboxOptions};
//!
//! let context = Context::new(&ContextOptions::default())?;
//! let mailbox = Mailbox::new(&context, &MailboxOptions { capacity: 8, payload_bytes: 32, ..Default::default() })?;
//! let hello = HostRows { rows: b"hello", stride: 32, lengths: &[5], types: &[] };
//! mailbox.push_from_host_blocking(&hello, None)?;
//!
//! let mut row = [0u8; 32];
//! let mut header = [gmb_record_header::default()];
//! let popped = mailbox.pop_to_host_blocking(0, &mut row, 32, &mut header)?;
//! assert_eq!(popped.count, 1);
//! assert_eq!(&row[..header[0].length as usize], b"hello");
//! # Ok::<(), gpumailbox::Error>(())
//! ```
//!
//! The fast path takes device addresses and a stream: [`Mailbox::push`],
//! [`Mailbox::pop`], and a [`Token`] for the outcome.

mod arbiter;
mod backend;
pub mod capi;
mod checks;
mod context;
mod coordinator;
mod doorbell;
mod error;
mod events;
mod extent;
mod fifo;
mod graph;
mod guard;
mod handle;
mod lanes;
mod layout;
mod lines;
mod log;
mod mailbox;
mod managed;
mod mapped;
mod memory;
mod module;
mod profiler;
mod queue;
mod results;
mod scratch;
mod stages;
mod status;
mod stream;
mod sync;
mod tensor;
mod triple;
mod typed;
mod watch;
mod watcher;
mod worker;

pub use arbiter::{Arbiter, ArbiterInfo, Arbitrated, Class};
pub use context::{BackendKind, Context, ContextInfo, ContextOptions};
pub use coordinator::{
    After as TaskAfter, Callback, Completion, Compute, Coordinator, CoordinatorInfo, CoordinatorOptions,
    OperationId, OperationKind, Place, Span, Task, Work,
};
pub use doorbell::{CommandId, Doorbell, DoorbellInfo};
pub use error::{Error, Result};
pub use events::{Event, EventKind, EventPoolInfo};
pub use fifo::{Fifo, FifoInfo};
pub use graph::{CaptureMode, Graph};
pub use guard::StreamGuard;
pub use layout::*;
pub use log::{set_log, LogLevel};
pub use mailbox::{
    Arbitration, Attach, Borrow, FullPolicy, HostRows, Interest, Mailbox, MailboxInfo, MailboxOptions, Mode,
    Pop, Push, ReaderInfo, ReaderStart,
};
pub use managed::{HostRange, ManagedContext, ManagedOptions, StepTelemetry, StepTimes};
pub use memory::{DeviceBuffer, MemoryInfo, PinnedBuffer};
pub use module::{Argument, KernelBlock, Launch, Module, ModuleKernel, Scalar};
pub use queue::{Queue, QueueInfo, QueueMeasurement, QueueOptions};
pub use results::{After, Token};
pub use stages::{
    HostRing, Pipeline, PipelineOptions, PipelineStatistics, StageArgument, StageCall, StageFunction,
    StageOptions, StageStatistics, StageWork,
};
pub use status::*;
pub use stream::{OwnedStream, Priority, Stream};
pub use tensor::arrow::{ArrowArray, ArrowDeviceArray, ArrowSchema};
pub use tensor::dlpack::{DLDevice, DLManagedTensor, DLManagedTensorVersioned, DLPackVersion, DLTensor};
pub use tensor::{Consumer, Lease, Refused, Tensor, TensorMailbox, TensorMailboxInfo, TensorMailboxOptions};
pub use triple::{Buffer, BufferState, Step, TripleBuffer, TripleBufferInfo, TripleBufferOptions};
pub use typed::{Popped, Record, Rows, TypedMailbox};
pub use watch::Watch;
pub use worker::{Worker, WorkerCounts, WorkerInfo, WorkerOptions, WorkerReason, WorkerState};
