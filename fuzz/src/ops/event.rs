//! Events.

use gpumailbox::capi::event::{gmb_event, gmb_event_pool_info};
use gpumailbox::*;

use crate::blob::{info, Out};
use crate::calls::call;
use crate::input::Input;
use crate::world::{Event, World};

const TIMED: i32 = 1;
const CAPTURE: i32 = 2;

pub fn pick(world: &World, input: &mut Input) -> (gmb_event, Option<usize>) {
    let mut id = world.events.pick(input, world.strangers());
    if world.contexts.0.iter().any(|context| context.it.fence.id == id) {
        id = 0;
    }
    (gmb_event { id }, world.events.find(id))
}

pub fn create(world: &mut World, input: &mut Input) {
    if world.events.live().count() >= 12 {
        return;
    }
    let (context, at) = world.context(input);
    let kind = input.below(3) as u64;
    let kind = input.spoil(kind, 16) as i32;
    let out = Out::<gmb_event>::new(input);
    let status = call!(event::gmb_event_create(context, kind, out.pointer()));
    let good = at.is_some() && out.good && (0..3).contains(&kind);
    assert_eq!(status == GMB_OK, good, "status {status}");
    if let (Some(event), Some(context)) = (out.take(status), at) {
        world.events.add(event.id, Event { context, kind, recorded: false });
    }
}

pub fn destroy(world: &mut World, input: &mut Input) {
    let (event, at) = pick(world, input);
    let status = call!(event::gmb_event_destroy(event));
    match at {
        Some(at) => {
            assert_eq!(status, GMB_OK);
            world.events.0[at].live = false;
        }
        None => assert_eq!(status, GMB_ERROR_INVALID_HANDLE),
    }
}

pub fn elapsed_ms(world: &mut World, input: &mut Input) {
    let ((start, a), (end, b)) = (pick(world, input), pick(world, input));
    let out = Out::<f64>::new(input);
    let status = call!(event::gmb_event_elapsed_ms(start, end, out.pointer()));
    let good = match (a, b) {
        (Some(a), Some(b)) => {
            let (a, b) = (&world.events.0[a].it, &world.events.0[b].it);
            out.good && a.context == b.context && [a, b].iter().all(|e| e.kind == TIMED && e.recorded)
        }
        _ => false,
    };
    assert_eq!(status >= 0, good, "status {status}");
    assert!(out.take(status).is_none_or(f64::is_finite));
}

pub fn pool_get_info(world: &mut World, input: &mut Input) {
    let (context, at) = world.context(input);
    let kind = input.below(3) as u64;
    let kind = input.spoil(kind, 16) as i32;
    let told: Option<gmb_event_pool_info> = info(input, |to, size| {
        let status = call!(event::gmb_event_pool_get_info(context, kind, to, size));
        assert!(status != GMB_OK || (at.is_some() && (0..3).contains(&kind)));
        status
    });
    let (Some(told), Some(at)) = (told, at) else { return };
    assert!(
        told.in_use + told.pending <= told.size && told.high_water <= told.size,
        "{told:?}",
        told = { (told.size, told.in_use, told.high_water, told.pending) }
    );
    let ours = world.events.live().filter(|&e| {
        let event = &world.events.0[e].it;
        event.context == at && event.kind == kind
    });
    assert!(ours.count() as u64 <= told.in_use);
}

pub fn query(world: &mut World, input: &mut Input) {
    let (event, at) = pick(world, input);
    let status = call!(event::gmb_event_query(event));
    expect(world, at, status);
}

fn expect(world: &World, at: Option<usize>, status: i32) {
    match at.map(|at| world.events.0[at].it.kind) {
        None => assert_eq!(status, GMB_ERROR_INVALID_HANDLE),
        Some(CAPTURE) => assert_eq!(status, GMB_ERROR_NOT_SUPPORTED),
        Some(_) => assert!([GMB_OK, GMB_NOT_READY, GMB_ERROR_TIMEOUT].contains(&status), "status {status}"),
    }
}

pub fn record(world: &mut World, input: &mut Input) {
    let (event, at) = pick(world, input);
    let (stream, resolved) = world.stream(input, at.map(|at| world.events.0[at].it.context));
    let status = call!(event::gmb_event_record(event, stream));
    assert_eq!(status == GMB_OK, at.is_some() && resolved.is_some(), "status {status}");
    if let (Some(at), Some(resolved)) = (at, resolved) {
        world.events.0[at].it.recorded = true;
        world.enqueued(world.events.0[at].it.context, resolved, &[]);
    }
}

pub fn synchronize(world: &mut World, input: &mut Input) {
    let (event, at) = pick(world, input);
    // All work ends, so that waiting for ever does, too.
    let timeout = input.choose(&[0, 1, 20_000, u64::MAX - 1, u64::MAX]);
    let status = call!(event::gmb_event_synchronize(event, timeout));
    expect(world, at, status);
    assert!(status != GMB_ERROR_TIMEOUT || timeout < 1 << 60);
}
