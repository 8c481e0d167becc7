//! An operation code for each function; those beyond the last stand for what programs do most.

pub mod arbiter;
pub mod borrow;
pub mod context;
pub mod coordinator;
pub mod doorbell;
pub mod event;
pub mod fifo;
pub mod graph;
pub mod host;
pub mod lease;
pub mod mailbox;
pub mod memory;
pub mod module;
pub mod operation;
pub mod queue;
pub mod reader;
pub mod readiness;
pub mod status;
pub mod stream;
pub mod teardown;
pub mod tensor;
pub mod token;
pub mod transfer;
pub mod triple;
pub mod worker;

use crate::input::Input;
use crate::world::World;

type Operation = fn(&mut World, &mut Input);

/// New ones at the end: the codes are in the corpus.
const ALL: &[Operation] = &[
    context::create,
    context::destroy,
    context::get_info,
    event::create,
    event::destroy,
    event::elapsed_ms,
    event::pool_get_info,
    event::query,
    event::record,
    event::synchronize,
    status::last_error_message,
    reader::add,
    mailbox::attach,
    mailbox::create,
    mailbox::create_in,
    mailbox::destroy,
    mailbox::get_info,
    reader::get_info,
    transfer::pop,
    host::pop,
    transfer::push,
    host::push,
    reader::remove,
    mailbox::required_bytes,
    memory::allocate,
    memory::allocate_async,
    memory::copy,
    memory::fill,
    memory::free,
    memory::free_async,
    memory::get_info,
    memory::trim,
    memory::pinned_allocate,
    memory::pinned_free,
    status::set_log_function,
    status::texts,
    stream::create,
    stream::destroy,
    stream::get_priority,
    stream::guard_create,
    stream::guard_destroy,
    stream::host_function,
    stream::query,
    stream::synchronize,
    stream::wait_event,
    token::create,
    token::destroy,
    token::device_result,
    token::poll,
    token::wait,
    mailbox::scribble,
    flush,
    graph::graph,
    readiness::wait,
    readiness::watch,
    borrow::borrow,
    tensor::create,
    tensor::destroy,
    tensor::get_info,
    tensor::push,
    tensor::pop,
    tensor::pop_dlpack,
    tensor::consume,
    lease::use_on,
    lease::export,
    lease::release,
    lease::end_export,
    queue::create,
    queue::destroy,
    queue::get_info,
    queue::measure,
    queue::pop,
    queue::pop_to_host,
    queue::push,
    queue::push_from_host,
    worker::create,
    worker::destroy,
    worker::get_info,
    worker::pause,
    worker::resume,
    worker::start,
    worker::stop,
    worker::wait,
    // Twice as often as the rest: much must come together before a worker works.
    queue::create,
    queue::push_from_host,
    queue::push,
    queue::pop,
    worker::create,
    worker::start,
    worker::wait,
    doorbell::create,
    doorbell::submit,
    doorbell::wait,
    doorbell::ring,
    doorbell::cancel,
    doorbell::get_info,
    doorbell::watch,
    doorbell::destroy,
    fifo::create,
    fifo::push,
    fifo::pop_to_host,
    fifo::get_info,
    fifo::watch,
    fifo::destroy,
    doorbell::forget,
    doorbell::submit,
    doorbell::wait,
    fifo::push,
    fifo::pop_to_host,
    arbiter::create,
    arbiter::get_info,
    arbiter::look,
    arbiter::destroy,
    arbiter::create,
    arbiter::look,
    triple::create,
    triple::get_info,
    triple::acquire,
    triple::work,
    triple::submit,
    triple::give_up,
    triple::advance,
    triple::look,
    triple::destroy,
    module::create,
    module::register,
    module::get_kernel,
    module::kernel_info,
    module::kernel_launch,
    module::kernel_destroy,
    module::destroy,
    coordinator::create,
    coordinator::get_info,
    coordinator::stream,
    coordinator::poll,
    coordinator::wait,
    coordinator::synchronize,
    coordinator::destroy,
    operation::copy,
    operation::triple_copy,
    operation::compute,
    operation::moves,
    operation::graph,
    // Of these many belong together.
    triple::acquire,
    triple::submit,
    triple::create,
    module::prepare,
    coordinator::create,
    operation::copy,
    operation::triple_copy,
    operation::compute,
    operation::triple_copy,
    operation::compute,
    operation::graph,
];

const OFTEN: &[Operation] = &[
    transfer::push,
    transfer::pop,
    token::wait,
    transfer::push,
    transfer::pop,
    token::poll,
    host::push,
    host::pop,
    mailbox::create,
    token::create,
    stream::create,
];

fn flush(world: &mut World, _: &mut Input) {
    world.flush();
}

pub fn run(world: &mut World, input: &mut Input) {
    let code = usize::from(input.byte());
    let operation = ALL.get(code).unwrap_or(&OFTEN[code % OFTEN.len()]);
    operation(world, input);
}
