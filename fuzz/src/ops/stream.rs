//! Streams and guards.

use std::sync::atomic::Ordering;

use gpumailbox::capi::guard::gmb_stream_guard;
use gpumailbox::capi::stream::gmb_stream;
use gpumailbox::*;

use crate::blob::Out;
use crate::calls::call;
use crate::input::Input;
use crate::world::{arrived, arrived_argument, Guard, Stream, World, POSTED};

/// Guards on a thread.
const DEEPEST: usize = 64;

pub fn create(world: &mut World, input: &mut Input) {
    if world.streams.live().count() >= 6 {
        return;
    }
    let (context, at) = world.context(input);
    let priority = input.below(3) as u64;
    let priority = input.spoil(priority, 16) as i32;
    let out = Out::<gmb_stream>::new(input);
    let status = call!(stream::gmb_stream_create(context, priority, out.pointer()));
    assert_eq!(status == GMB_OK, at.is_some() && out.good && (0..3).contains(&priority), "status {status}");
    if let (Some(stream), Some(context)) = (out.take(status), at) {
        assert!(stream as u64 > 2 && stream as u64 != u64::MAX);
        world.streams.add(stream as u64, Stream { context });
    }
}

pub fn destroy(world: &mut World, input: &mut Input) {
    let (context, at) = world.context(input);
    let (stream, resolved) = world.stream(input, at);
    let own = world.streams.find(stream as u64).filter(|_| resolved.is_some());
    if let (Some(own), Some(at)) = (own, at) {
        destroy_own(world, at, own);
        return;
    }
    let status = call!(stream::gmb_stream_destroy(context, stream));
    assert!(status < 0, "a stream that nobody made was destroyed");
}

/// Destroys a stream while its work is under way.
pub fn destroy_own(world: &mut World, context: usize, own: usize) {
    let raw = world.streams.0[own].id;
    // A guard must end before its stream.
    if world.stack.iter().any(|&at| world.guards.0[at].it.raw == raw) {
        return;
    }
    // And so must leases of its own.
    if world.tensors.need(raw) {
        return;
    }
    let handle = capi::context::gmb_context { id: world.contexts.0[context].id };
    let stream = raw as gmb_stream;
    if let Some(dirty) = world.dirty.iter().position(|&(_, dirty)| dirty == raw) {
        // Nobody can wait for it any more: it says so itself when it has come to its end.
        POSTED.fetch_add(1, Ordering::SeqCst);
        let function = Some(arrived as extern "C" fn(_));
        let status = call!(stream::gmb_stream_host_function(handle, stream, function, arrived_argument()));
        assert_eq!(status, GMB_OK);
        world.dirty.swap_remove(dirty);
    }
    assert_eq!(call!(stream::gmb_stream_destroy(handle, stream)), GMB_OK);
    world.streams.0[own].live = false;
    assert_eq!(call!(stream::gmb_stream_query(handle, stream)), GMB_ERROR_INVALID_STREAM);
}

pub fn get_priority(world: &mut World, input: &mut Input) {
    let (context, at) = world.context(input);
    let (stream, resolved) = world.stream(input, at);
    let out = Out::<i32>::new(input);
    let status = call!(stream::gmb_stream_get_priority(context, stream, out.pointer()));
    assert_eq!(status == GMB_OK, resolved.is_some() && out.good, "status {status}");
    assert!(out.take(status).is_none_or(|priority| (-2..=0).contains(&priority)));
}

pub fn query(world: &mut World, input: &mut Input) {
    let (context, at) = world.context(input);
    let (stream, resolved) = world.stream(input, at);
    let status = call!(stream::gmb_stream_query(context, stream));
    assert_eq!(status >= 0, resolved.is_some(), "status {status}");
    if let (Some(at), Some(resolved)) = (at, resolved) {
        // Two names of one stream are one stream.
        assert!(status == GMB_OK || world.dirty.contains(&(at, resolved)), "work that nobody enqueued");
    }
}

pub fn synchronize(world: &mut World, input: &mut Input) {
    let (context, at) = world.context(input);
    let (stream, resolved) = world.stream(input, at);
    let status = call!(stream::gmb_stream_synchronize(context, stream));
    assert_eq!(status == GMB_OK, resolved.is_some(), "status {status}");
    if let (Some(at), Some(resolved)) = (at, resolved) {
        world.dirty.retain(|&dirty| dirty != (at, resolved));
        assert_eq!(call!(stream::gmb_stream_query(context, stream)), GMB_OK);
    }
}

pub fn host_function(world: &mut World, input: &mut Input) {
    let (context, at) = world.context(input);
    let (stream, resolved) = world.stream(input, at);
    let function = if input.chance(16) { None } else { Some(arrived as extern "C" fn(_)) };
    let good = function.is_some() && resolved.is_some();
    if good {
        POSTED.fetch_add(1, Ordering::SeqCst);
    }
    let status = call!(stream::gmb_stream_host_function(context, stream, function, arrived_argument()));
    assert_eq!(status == GMB_OK, good, "status {status}");
    if let (true, Some(at), Some(resolved)) = (good, at, resolved) {
        world.enqueued(at, resolved, &[]);
    }
}

pub fn wait_event(world: &mut World, input: &mut Input) {
    let (context, at) = world.context(input);
    let (stream, resolved) = world.stream(input, at);
    let (event, its) = super::event::pick(world, input);
    let status = call!(stream::gmb_stream_wait_event(context, stream, event));
    let same = its.is_some_and(|event| Some(world.events.0[event].it.context) == at);
    assert_eq!(status == GMB_OK, resolved.is_some() && same, "status {status}");
    if let (GMB_OK, Some(at), Some(resolved)) = (status, at, resolved) {
        world.enqueued(at, resolved, &[]);
    }
}

pub fn guard_create(world: &mut World, input: &mut Input) {
    let (context, at) = world.context(input);
    let (stream, resolved) = world.stream(input, at);
    let out = Out::<gmb_stream_guard>::new(input);
    let status = call!(guard::gmb_stream_guard_create(context, stream, out.pointer()));
    let good = resolved.is_some() && out.good && world.stack.len() < DEEPEST;
    assert_eq!(status == GMB_OK, good, "status {status}");
    if let (Some(guard), Some(context), Some(raw)) = (out.take(status), at, resolved) {
        world.guards.add(guard.id, Guard { context, raw, ended: false });
        world.stack.push(world.guards.0.len() - 1);
    }
}

pub fn guard_destroy(world: &mut World, input: &mut Input) {
    let id = world.guards.pick(input, world.strangers());
    let guard = gmb_stream_guard { id };
    let Some(at) = world.guards.find(id) else {
        assert_eq!(call!(guard::gmb_stream_guard_destroy(guard)), GMB_ERROR_INVALID_HANDLE);
        return;
    };
    if input.chance(24) {
        let elsewhere = std::thread::spawn(move || call!(guard::gmb_stream_guard_destroy(guard)));
        assert_eq!(elsewhere.join().expect("the thread ends"), GMB_ERROR_WRONG_THREAD);
    }
    end_guard(world, at);
}

pub fn end_guard(world: &mut World, at: usize) {
    let guard = gmb_stream_guard { id: world.guards.0[at].id };
    assert_eq!(call!(guard::gmb_stream_guard_destroy(guard)), GMB_OK);
    world.guards.0[at].live = false;
    world.guards.0[at].it.ended = true;
    while world.stack.last().is_some_and(|&top| world.guards.0[top].it.ended) {
        world.stack.pop();
    }
}
