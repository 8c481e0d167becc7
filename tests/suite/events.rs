//! Events, their pools and their kinds.

use super::support::*;
use gpumailbox::*;
use std::time::Duration;

#[test]
fn events_are_reused_and_counted() {
    let context = context();
    let stream = context.stream().unwrap();
    for kind in [EventKind::Untimed, EventKind::Timed, EventKind::Capture] {
        let before = context.event_pool(kind);
        for _ in 0..100 {
            let event = context.event(kind).unwrap();
            assert_eq!(context.event_pool(kind).in_use, before.in_use + 1);
            if kind != EventKind::Capture {
                event.record(stream.get()).unwrap();
                event.synchronize(None).unwrap();
            }
        }
        let after = context.event_pool(kind);
        assert_eq!(after.in_use, before.in_use);
        assert!(
            after.size <= before.size.max(1),
            "{before:?} {after:?}: an event was made where one was free"
        );
        let held: Vec<Event> = (0..10).map(|_| context.event(kind).unwrap()).collect();
        assert_eq!(context.event_pool(kind).high_water, (before.in_use + 10).max(before.high_water));
        drop(held);
        assert_eq!(context.event_pool(kind).in_use, before.in_use);
    }
}

#[test]
fn an_event_never_recorded_is_reached_and_holds_nobody() {
    let context = context();
    let stream = context.stream().unwrap();
    // Also when its last holder recorded it.
    for _ in 0..2 {
        let event = context.event(EventKind::Untimed).unwrap();
        assert!(event.is_reached().unwrap());
        event.synchronize(Some(Duration::ZERO)).unwrap();
        event.make_wait(stream.get()).unwrap();
        event.record(stream.get()).unwrap();
        event.synchronize(None).unwrap();
    }
    assert!(context.is_idle(stream.get()).unwrap());
}

/// Who has seen a stream's last event reached finds the stream idle.
#[test]
fn a_stream_is_idle_behind_its_last_event() {
    let context = context();
    let stream = context.stream().unwrap();
    let event = context.event(EventKind::Untimed).unwrap();
    let memory = context.device_buffer(4096).unwrap();
    for round in 0..500 {
        unsafe { context.fill(memory.address(), 1, 4096, stream.get()) }.unwrap();
        event.record(stream.get()).unwrap();
        event.synchronize(None).unwrap();
        // CUDA does not promise it for the moment itself.
        let idle = || context.is_idle(stream.get()).unwrap();
        while backend() == BackendKind::Cuda && !idle() {
            std::hint::spin_loop();
        }
        assert!(idle(), "round {round}");
    }
}

#[test]
fn time_passes_between_timed_events() {
    let context = context();
    let stream = context.stream().unwrap();
    let memory = context.device_buffer(1 << 24).unwrap();
    let event = || context.event(EventKind::Timed).unwrap();
    let (start, middle, end) = (event(), event(), event());
    start.record(stream.get()).unwrap();
    unsafe { context.fill(memory.address(), 1, 1 << 24, stream.get()) }.unwrap();
    middle.record(stream.get()).unwrap();
    unsafe { context.fill(memory.address(), 2, 1 << 24, stream.get()) }.unwrap();
    end.record(stream.get()).unwrap();
    end.synchronize(None).unwrap();
    let ms = |a: &Event, b: &Event| a.elapsed_ms(b).unwrap().unwrap();
    assert!(ms(&start, &middle) > 0.0 && ms(&middle, &end) > 0.0);
    let sum = ms(&start, &middle) + ms(&middle, &end);
    assert!((sum - ms(&start, &end)).abs() < 0.01 * sum + 0.005, "{sum} {}", ms(&start, &end));
    assert!(ms(&end, &start) < 0.0);
}

#[test]
fn events_used_wrongly_say_so() {
    let (ours, theirs) = (context(), context());
    let stream = ours.stream().unwrap();
    let status = |result: Result<Option<f64>>| result.unwrap_err().status();
    let timed = ours.event(EventKind::Timed).unwrap();
    let (untimed, capture) =
        (ours.event(EventKind::Untimed).unwrap(), ours.event(EventKind::Capture).unwrap());
    let never = ours.event(EventKind::Timed).unwrap();
    let foreign = theirs.event(EventKind::Timed).unwrap();
    timed.record(stream.get()).unwrap();
    assert_eq!(status(timed.elapsed_ms(&untimed)), GMB_ERROR_INVALID_ARGUMENT);
    assert_eq!(status(untimed.elapsed_ms(&timed)), GMB_ERROR_INVALID_ARGUMENT);
    assert_eq!(status(timed.elapsed_ms(&never)), GMB_ERROR_INVALID_ARGUMENT);
    assert_eq!(status(timed.elapsed_ms(&foreign)), GMB_ERROR_INVALID_ARGUMENT);
    assert_eq!(capture.is_reached().unwrap_err().status(), GMB_ERROR_NOT_SUPPORTED);
    assert_eq!(capture.synchronize(None).unwrap_err().status(), GMB_ERROR_NOT_SUPPORTED);
    if ours.info().backend == BackendKind::Host {
        // Every context of the host backend has streams of its own.
        assert_eq!(foreign.record(stream.get()).unwrap_err().status(), GMB_ERROR_INVALID_STREAM);
    }
    // In C, the stream's context and the event's must be the same.
    use gpumailbox::capi::{context::gmb_context_destroy, event as c_event, stream as c_stream};
    let contexts = [c_context(0), c_context(0)];
    let mut event = c_event::gmb_event { id: 0 };
    assert_eq!(c_event::gmb_event_create(contexts[0], 3, &mut event), GMB_ERROR_INVALID_ARGUMENT);
    assert_eq!(c_event::gmb_event_create(contexts[0], c_event::GMB_EVENT_UNTIMED, &mut event), GMB_OK);
    let null = std::ptr::null_mut();
    assert_eq!(c_event::gmb_event_record(event, null), GMB_OK);
    assert_eq!(c_stream::gmb_stream_wait_event(contexts[0], null, event), GMB_OK);
    assert_eq!(c_stream::gmb_stream_wait_event(contexts[1], null, event), GMB_ERROR_INVALID_ARGUMENT);
    assert_eq!(c_event::gmb_event_synchronize(event, u64::MAX), GMB_OK);
    assert_eq!(c_event::gmb_event_synchronize(event, u64::MAX - 1), GMB_OK);
    assert_eq!(c_event::gmb_event_query(event), GMB_OK);
    assert_eq!(c_event::gmb_event_destroy(event), GMB_OK);
    assert_eq!(c_event::gmb_event_record(event, null), GMB_ERROR_INVALID_HANDLE);
    for context in contexts {
        assert_eq!(gmb_context_destroy(context), GMB_OK);
    }
}
