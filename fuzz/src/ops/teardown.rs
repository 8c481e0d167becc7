//! The end of a sequence: everything is ended, ids are invalid, the books are as before.

use std::ffi::c_void;

use gpumailbox::capi::arbiter::gmb_arbiter;
use gpumailbox::capi::context::gmb_context;
use gpumailbox::capi::coordinator::gmb_coordinator;
use gpumailbox::capi::doorbell::gmb_doorbell;
use gpumailbox::capi::event::{gmb_event, gmb_event_pool_info};
use gpumailbox::capi::fifo::gmb_fifo;
use gpumailbox::capi::guard::gmb_stream_guard;
use gpumailbox::capi::mailbox::gmb_mailbox;
use gpumailbox::capi::memory::gmb_memory_info;
use gpumailbox::capi::module::{gmb_kernel, gmb_module};
use gpumailbox::capi::queue::gmb_queue;
use gpumailbox::capi::tensor::{gmb_lease, gmb_tensor_mailbox};
use gpumailbox::capi::token::gmb_token;
use gpumailbox::capi::triple::gmb_triple_buffer;
use gpumailbox::capi::worker::gmb_worker;
use gpumailbox::*;

use super::{mailbox, stream, token};
use crate::blob::Out;
use crate::calls::call;
use crate::input::Input;
use crate::world::{Baseline, Origin, World};

/// What a context holds now.
pub fn held(context: gmb_context) -> Baseline {
    // Plain memory freed in stream order holds an event until somebody looks.
    assert_eq!(call!(memory::gmb_memory_trim(context, 0)), GMB_OK);
    let out = Out::<gmb_memory_info>::good();
    let status = call!(memory::gmb_memory_get_info(context, out.pointer(), size_of::<gmb_memory_info>()));
    let memory = out.take(status).expect("a context tells of its memory");
    let events = [0, 1, 2].map(|kind| {
        let out = Out::<gmb_event_pool_info>::good();
        let size = size_of::<gmb_event_pool_info>();
        let status = call!(event::gmb_event_pool_get_info(context, kind, out.pointer(), size));
        out.take(status).expect("a context tells of its events").in_use
    });
    Baseline { used: memory.used, allocations: memory.allocations, events }
}

pub fn all(world: &mut World, input: &mut Input) {
    let order = input.below(4);
    if input.chance(160) || input.is_empty() {
        world.flush();
    }
    super::lease::end_all(world, order % 2 == 0);
    super::worker::end_all(world);
    if order < 2 {
        super::queue::end_all(world);
        super::fifo::end_all(world);
        super::arbiter::end_all(world);
        super::triple::end_all(world);
    } else {
        super::module::end_all(world);
        super::coordinator::end_all(world);
    }
    for step in 0..4 {
        match (order + step) % 4 {
            0 => mailboxes(world),
            1 => tokens(world),
            2 => events(world),
            _ => guards(world),
        }
    }
    super::queue::end_all(world);
    super::doorbell::end_all(world);
    super::fifo::end_all(world);
    super::arbiter::end_all(world);
    super::coordinator::end_all(world);
    super::triple::end_all(world);
    super::module::end_all(world);
    if input.chance(64) {
        // Their work is still under way.
        streams(world);
    }
    world.settle();
    // The library's thread gives them back: the books are as before only then.
    super::graph::patiently(|| world.tensors.are_back());
    memory(world, None);
    streams(world);
    for at in 1..world.contexts.0.len() {
        end_context(world, at);
    }
    world.settle();
    world.arenas.reset();
    stale(world);
    let home = gmb_context { id: world.contexts.0[0].id };
    super::graph::patiently(|| held(home) == world.baseline);
    assert_eq!(held(home), world.baseline, "what was ended is still on the books");
    assert_eq!(call!(log::gmb_set_log_function(1, None, std::ptr::null_mut())), GMB_OK);
    world.contexts.0.truncate(1);
    world.streams.0.clear();
    world.guards.0.clear();
    world.events.0.clear();
    world.mailboxes.0.clear();
    world.tokens.0.clear();
    world.memory.0.clear();
    world.tensors.clear();
    world.queues.clear();
    world.doorbells.clear();
    world.arbiters.0.clear();
    world.pipelines.clear();
}

fn mailboxes(world: &mut World) {
    let live: Vec<usize> = world.mailboxes.live().collect();
    for at in live {
        mailbox::end(world, at);
    }
}

fn tokens(world: &mut World) {
    let live: Vec<usize> = world.tokens.live().collect();
    for at in live {
        if crate::is_broken(crate::Broken::Books) {
            continue;
        }
        let id = world.tokens.0[at].id;
        assert_eq!(call!(token::gmb_token_destroy(gmb_token { id })), GMB_OK);
        token::forget(world, at);
        world.tokens.0[at].live = false;
    }
}

fn events(world: &mut World) {
    for event in world.events.0.iter_mut().filter(|event| event.live) {
        assert_eq!(call!(event::gmb_event_destroy(gmb_event { id: event.id })), GMB_OK);
        event.live = false;
    }
}

fn guards(world: &mut World) {
    let live: Vec<usize> = world.guards.live().collect();
    for at in live {
        stream::end_guard(world, at);
    }
}

fn streams(world: &mut World) {
    let live: Vec<usize> = world.streams.live().collect();
    for at in live {
        let context = world.streams.0[at].it.context;
        // Those of a context whose handle is gone end with it.
        if world.contexts.0[context].live {
            stream::destroy_own(world, context, at);
        }
    }
}

/// Frees memory of one context, or of all. Nothing may use it any more.
fn memory(world: &mut World, of: Option<usize>) {
    let live: Vec<usize> = world.memory.live().collect();
    for at in live {
        let allocation = &world.memory.0[at].it;
        if of.is_some_and(|of| of != allocation.context) {
            continue;
        }
        let context = gmb_context { id: world.contexts.0[allocation.context].id };
        let address = world.memory.0[at].id as *mut c_void;
        let status = match allocation.origin {
            Origin::Device => call!(memory::gmb_memory_free(context, address)),
            Origin::Pinned => call!(memory::gmb_pinned_free(context, address)),
        };
        assert_eq!(status, GMB_OK);
        world.memory.0[at].live = false;
    }
}

/// Ends a context's handle while what was made in it lives on; its memory must go before.
pub fn context(world: &mut World, at: usize) {
    let placed: Vec<usize> = world
        .mailboxes
        .live()
        .filter(|&m| {
            world.mailboxes.0[m].it.place.is_some_and(|place| world.memory.0[place].it.context == at)
        })
        .collect();
    for mailbox in placed {
        mailbox::end(world, mailbox);
    }
    world.settle();
    memory(world, Some(at));
    let id = world.contexts.0[at].id;
    assert_eq!(call!(context::gmb_context_destroy(gmb_context { id })), GMB_OK);
    assert_eq!(call!(context::gmb_context_destroy(gmb_context { id })), GMB_ERROR_INVALID_HANDLE);
    world.contexts.0[at].live = false;
}

/// Ends a context for good: nothing of it is left but its fence.
fn end_context(world: &mut World, at: usize) {
    let context = gmb_context { id: world.contexts.0[at].id };
    if world.contexts.0[at].live {
        let empty = Baseline { used: 0, allocations: 0, events: [1, 0, 0] };
        super::graph::patiently(|| held(context) == empty);
        assert_eq!(held(context), empty);
        self::context(world, at);
    }
    assert_eq!(call!(event::gmb_event_destroy(world.contexts.0[at].it.fence)), GMB_OK);
    world.dirty.retain(|&(context, _)| context != at);
}

/// Every id of the sequence answers to nobody any more.
fn stale(world: &World) {
    const STALE: i32 = GMB_ERROR_INVALID_HANDLE;
    for entry in &world.mailboxes.0 {
        assert_eq!(call!(mailbox::gmb_mailbox_destroy(gmb_mailbox { id: entry.id })), STALE);
    }
    for entry in &world.tokens.0 {
        assert_eq!(call!(token::gmb_token_destroy(gmb_token { id: entry.id })), STALE);
    }
    for entry in &world.events.0 {
        assert_eq!(call!(event::gmb_event_query(gmb_event { id: entry.id })), STALE);
    }
    for entry in &world.tensors.mailboxes.0 {
        let mailbox = gmb_tensor_mailbox { id: entry.id };
        assert_eq!(call!(tensor::gmb_tensor_mailbox_destroy(mailbox)), STALE);
    }
    for entry in &world.tensors.leases.0 {
        assert_eq!(call!(tensor::gmb_lease_release(gmb_lease { id: entry.id })), STALE);
    }
    for entry in &world.queues.queues.0 {
        assert_eq!(call!(queue::gmb_queue_destroy(gmb_queue { id: entry.id })), STALE);
    }
    for entry in &world.queues.workers.0 {
        assert_eq!(call!(worker::gmb_worker_destroy(gmb_worker { id: entry.id })), STALE);
    }
    for entry in &world.doorbells.bells.0 {
        assert_eq!(call!(doorbell::gmb_doorbell_destroy(gmb_doorbell { id: entry.id })), STALE);
    }
    for entry in &world.doorbells.fifos.0 {
        assert_eq!(call!(fifo::gmb_fifo_destroy(gmb_fifo { id: entry.id })), STALE);
    }
    for entry in &world.arbiters.0 {
        assert_eq!(call!(arbiter::gmb_arbiter_destroy(gmb_arbiter { id: entry.id })), STALE);
    }
    for entry in &world.pipelines.triples.0 {
        assert_eq!(call!(triple::gmb_triple_buffer_destroy(gmb_triple_buffer { id: entry.id })), STALE);
    }
    for entry in &world.pipelines.modules.0 {
        assert_eq!(call!(module::gmb_module_destroy(gmb_module { id: entry.id })), STALE);
    }
    for entry in &world.pipelines.kernels.0 {
        assert_eq!(call!(module::gmb_kernel_destroy(gmb_kernel { id: entry.id })), STALE);
    }
    for entry in &world.pipelines.coordinators.0 {
        let coordinator = gmb_coordinator { id: entry.id };
        assert_eq!(call!(coordinator::gmb_coordinator_destroy(coordinator)), STALE);
    }
    for entry in &world.guards.0 {
        assert_eq!(call!(guard::gmb_stream_guard_destroy(gmb_stream_guard { id: entry.id })), STALE);
    }
}

/// Ends the first context, too.
pub fn end(world: World) {
    let context = gmb_context { id: world.contexts.0[0].id };
    world.arenas.free(context);
    assert_eq!(call!(event::gmb_event_destroy(world.contexts.0[0].it.fence)), GMB_OK);
    assert_eq!(held(context), Baseline::default());
    assert_eq!(call!(context::gmb_context_destroy(context)), GMB_OK);
}
