//! Graphs: captured, launched and ended in one operation, so that no stream stays under capture.

use std::ffi::c_void;

use gpumailbox::capi::context::gmb_context;
use gpumailbox::capi::graph::gmb_graph;
use gpumailbox::capi::mailbox::{gmb_mailbox, gmb_push};
use gpumailbox::capi::stream::gmb_stream;
use gpumailbox::capi::token::gmb_token;
use gpumailbox::*;

use super::transfer::is_out_of_memory;
use crate::blob::Out;
use crate::calls::call;
use crate::input::Input;
use crate::model::{tag, Lengths, Policy};
use crate::world::World;

/// A push that was captured: of which mailbox, and what.
struct Captured {
    mailbox: usize,
    count: u32,
    length: u32,
}

pub fn graph(world: &mut World, input: &mut Input) {
    let (context, at) = world.context(input);
    let (stream, resolved) = world.stream(input, at);
    let mode = input.below(3) as u64;
    let mode = input.spoil(mode, 16) as i32;
    let status = call!(graph::gmb_stream_begin_capture(context, stream, mode));
    // The legacy stream is none that can be captured.
    let good = at.is_some() && (0..3).contains(&mode) && resolved.is_some_and(|stream| stream != 0);
    assert_eq!(status == GMB_OK, good, "status {status}");
    let (GMB_OK, Some(at)) = (status, at) else {
        // Nothing is captured there.
        let out = Out::<gmb_graph>::new(input);
        let status = call!(graph::gmb_stream_end_capture(context, stream, out.pointer()));
        assert!(status < 0, "a graph of nothing");
        return;
    };
    assert_eq!(call!(graph::gmb_stream_begin_capture(context, stream, mode)), GMB_ERROR_CAPTURE);
    assert_eq!(call!(stream::gmb_stream_query(context, stream)), GMB_ERROR_NOT_SUPPORTED);
    assert_eq!(is_capturing(context, stream), Some(1));
    let captured = push(world, input, at, stream);
    let out = Out::<gmb_graph>::new(input);
    let mut made = out.take(call!(graph::gmb_stream_end_capture(context, stream, out.pointer())));
    assert_eq!(made.is_some(), out.good);
    if made.is_none() {
        let again = Out::<gmb_graph>::good();
        made = again.take(call!(graph::gmb_stream_end_capture(context, stream, again.pointer())));
    }
    let graph = made.expect("a capture that nothing spoilt");
    assert_eq!(is_capturing(context, stream), Some(0));
    launch(world, input, at, graph, captured);
    assert_eq!(call!(graph::gmb_graph_destroy(graph)), GMB_OK);
    assert_eq!(call!(graph::gmb_graph_destroy(graph)), GMB_ERROR_INVALID_HANDLE);
    assert_eq!(call!(graph::gmb_graph_launch(graph, stream)), GMB_ERROR_INVALID_HANDLE);
}

/// What is said of a good stream. Takes nothing of the input: the corpus goes on meaning what it meant.
fn is_capturing(context: gmb_context, stream: gmb_stream) -> Option<i32> {
    let out = Out::<i32>::good();
    out.take(call!(graph::gmb_stream_is_capturing(context, stream, out.pointer())))
}

/// Captures a push to a mailbox of the context.
fn push(
    world: &mut World,
    input: &mut Input,
    context: usize,
    stream: capi::stream::gmb_stream,
) -> Option<Captured> {
    let of: Vec<usize> =
        world.mailboxes.live().filter(|&at| world.mailboxes.0[at].it.context == context).collect();
    let at = *of.get(input.below(of.len() + 1))?;
    let mailbox = &world.mailboxes.0[at];
    // Of a single stream the launches would have to come there, too.
    if mailbox.it.single.is_some() {
        return None;
    }
    let model = &mailbox.it.model;
    let (count, length) = (1 + input.below(6) as u32, input.word() as u32 % (model.payload + 1));
    if mailbox.it.row * u64::from(count) > crate::arena::SOURCE {
        return None;
    }
    let made = gmb_push {
        struct_size: size_of::<gmb_push>() as u32,
        count,
        records: world.arenas.source as *const c_void,
        stride: 0,
        lengths: std::ptr::null(),
        types: std::ptr::null(),
        length,
        msg_type: tag(model.pushes.len(), None),
        timeout_ns: 0,
    };
    let id = gmb_mailbox { id: mailbox.id };
    let status = call!(mailbox::gmb_mailbox_push(id, &made, stream, gmb_token { id: 0 }));
    if model.policy == Policy::Wait {
        let whole = u64::from(count) <= model.capacity;
        assert_eq!(status, if whole { GMB_ERROR_NOT_SUPPORTED } else { GMB_ERROR_INVALID_ARGUMENT });
        return None;
    }
    // Of one whose records were ever borrowed, or each of whose captures takes memory.
    if status == GMB_ERROR_NOT_SUPPORTED || is_out_of_memory(world, Some(at), status) {
        return None;
    }
    assert_eq!(status, GMB_OK, "{}", super::status::message());
    world.mailboxes.0[at].it.captured = true;
    Some(Captured { mailbox: at, count, length })
}

fn launch(
    world: &mut World,
    input: &mut Input,
    context: usize,
    graph: gmb_graph,
    captured: Option<Captured>,
) {
    for number in 0..input.below(4) {
        let (stream, resolved) = world.stream(input, Some(context));
        let status = call!(graph::gmb_graph_launch(graph, stream));
        assert_eq!(status == GMB_OK, resolved.is_some(), "status {status}");
        let Some(resolved) = resolved else { continue };
        world.enqueued(context, resolved, &[]);
        let Some(Captured { mailbox, count, length }) = captured else { continue };
        let it = &mut world.mailboxes.0[mailbox].it;
        it.model.launched(None, resolved);
        // All launches push records of one type: which launch one came from cannot be told.
        it.model.tainted |= number > 0;
        let bytes = (length > 0).then_some((0, it.row));
        it.model.push(count, Lengths::All(length), bytes);
    }
}

/// What a graph held is given back by a thread of the library.
pub fn patiently(mut holds: impl FnMut() -> bool) {
    for _ in 0..20_000 {
        if holds() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_micros(500));
    }
}
