//! The Python package's extension: libgpumailbox.so by its C API.

mod arbiter;
mod array;
mod calling;
mod context;
mod coordinator;
mod destination;
mod dlpack;
mod doorbell;
mod dtype;
mod elements;
mod error;
mod events;
mod exchange;
#[rustfmt::skip]
mod ffi;
mod fifo;
mod host;
mod info;
mod interpreter;
mod keeping;
mod launch;
mod mailbox;
mod memory;
mod module;
mod operations;
mod queue;
mod records;
mod ring;
mod streams;
mod task;
mod tensor;
mod tensor_mailbox;
mod token;
mod triple;
mod view;
mod waiting;
mod watch;
mod worker;

use std::sync::{Mutex, MutexGuard};

use pyo3::prelude::*;

/// Nothing is left half done in them, also where a thread panicked.
fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(|p| p.into_inner())
}

/// The interpreter is about to end.
#[pyfunction]
fn _end(py: Python<'_>) {
    py.detach(|| {
        operations::end_all();
        worker::end_all();
        arbiter::end_all();
        tensor_mailbox::end_all();
        interpreter::end();
    });
}

/// Version of the library.
#[pyfunction]
fn version() -> String {
    // SAFETY: a constant text.
    unsafe { std::ffi::CStr::from_ptr(ffi::gmb_version_string()) }.to_string_lossy().into_owned()
}

/// The sizes of the C API's structs as the extension has them.
#[pyfunction]
fn _sizes() -> Vec<(&'static str, usize)> {
    macro_rules! sizes {
        ($($name:ident),*) => { vec![$((stringify!($name), size_of::<ffi::$name>())),*] };
    }
    sizes!(
        gmb_result,
        gmb_spans,
        gmb_context_options,
        gmb_context_info,
        gmb_mailbox_options,
        gmb_mailbox_info,
        gmb_push,
        gmb_pop,
        gmb_memory_info,
        gmb_reader_info,
        gmb_tensor_mailbox_options,
        gmb_tensor_mailbox_info,
        gmb_tensor_push,
        gmb_dtype,
        gmb_tensor,
        gmb_record_header,
        gmb_queue_options,
        gmb_queue_info,
        gmb_queue_measurement,
        gmb_worker_options,
        gmb_worker_result,
        gmb_worker_info,
        gmb_doorbell_options,
        gmb_doorbell_info,
        gmb_command,
        gmb_command_id,
        gmb_answer,
        gmb_fifo_options,
        gmb_fifo_info,
        gmb_fifo_record,
        gmb_arbitrated,
        gmb_arbiter_options,
        gmb_arbiter_info,
        gmb_triple_buffer_options,
        gmb_triple_buffer_info,
        gmb_triple_slot,
        gmb_argument,
        gmb_launch,
        gmb_kernel_block,
        gmb_kernel_info,
        gmb_coordinator_options,
        gmb_coordinator_info,
        gmb_completion,
        gmb_compute,
        gmb_task_after,
        gmb_task
    )
}

#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<context::Context>()?;
    module.add_class::<events::Event>()?;
    module.add_class::<streams::Stream>()?;
    module.add_class::<streams::StreamGuard>()?;
    module.add_class::<mailbox::Mailbox>()?;
    module.add_class::<token::Result_>()?;
    module.add_class::<token::TokenHandle>()?;
    module.add_class::<view::View>()?;
    module.add_class::<watch::Watch>()?;
    module.add_class::<array::Array>()?;
    module.add_class::<tensor::Tensor>()?;
    module.add_class::<tensor_mailbox::TensorMailbox>()?;
    module.add_class::<queue::Queue>()?;
    module.add_class::<worker::Worker>()?;
    module.add_class::<worker::WorkerResult>()?;
    module.add_class::<doorbell::Doorbell>()?;
    module.add_class::<doorbell::Command>()?;
    module.add_class::<doorbell::Answer>()?;
    module.add_class::<fifo::Fifo>()?;
    module.add_class::<arbiter::Arbiter>()?;
    module.add_class::<triple::TripleBuffer>()?;
    module.add_class::<triple::Buffer>()?;
    module.add_class::<module::Module>()?;
    module.add_class::<module::Kernel>()?;
    module.add_class::<launch::KernelBlock>()?;
    module.add_class::<coordinator::Coordinator>()?;
    module.add_class::<coordinator::Operation>()?;
    module.add_class::<coordinator::Completion>()?;
    module.add_class::<task::Task>()?;
    module.add_function(wrap_pyfunction!(_end, module)?)?;
    module.add_function(wrap_pyfunction!(version, module)?)?;
    module.add_function(wrap_pyfunction!(_sizes, module)?)
}
