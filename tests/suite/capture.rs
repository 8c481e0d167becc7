//! Streams under capture: what cannot be captured says so, and the capture goes on.
//! The host backend has no capture.

use super::support::*;
use gpumailbox::*;
use std::ffi::c_void;

#[test]
fn what_cannot_be_captured_leaves_the_capture_as_it_is() {
    let context = context();
    if context.info().backend == BackendKind::Host {
        println!("the host backend has no capture");
        return;
    }
    let stream = context.stream().unwrap();
    let policies = [FullPolicy::Reject, FullPolicy::Wait, FullPolicy::OverwriteOldest, FullPolicy::Latest];
    let boxes: Vec<Mailbox> =
        policies.iter().map(|&policy| super::policies::with_policy(&context, policy, 8, 16)).collect();
    let memory = poisoned(&context, 4096, 1);
    let token = Token::new(&context).unwrap();
    let events: Vec<Event> = [EventKind::Untimed, EventKind::Timed, EventKind::Capture]
        .iter()
        .map(|&kind| context.event(kind).unwrap())
        .collect();
    let other = context.stream().unwrap();
    // Relaxed: other threads' work is none of this capture's business.
    const RELAXED: usize = 2;
    assert_eq!(driver("cuStreamBeginCapture_v2", [stream.get().raw() as usize, RELAXED, 0]), 0);
    for mailbox in &boxes {
        let push = Push { count: 4, records: memory.address(), length: 16, ..Default::default() };
        let pop = Pop { max: 4, records: memory.address() + 1024, ..Default::default() };
        let results = [
            unsafe { mailbox.push(&push, stream.get(), Some(&token)) },
            unsafe { mailbox.pop(&pop, stream.get(), Some(&token)) },
            mailbox.add_reader(ReaderStart::Next, stream.get()).map(|_| ()),
            mailbox.remove_reader(0, stream.get()),
        ];
        for result in results {
            let error = result.unwrap_err();
            assert_eq!(error.status(), GMB_ERROR_NOT_SUPPORTED, "{error}");
        }
    }
    for event in &events[..2] {
        assert_eq!(event.record(stream.get()).unwrap_err().status(), GMB_ERROR_NOT_SUPPORTED);
    }
    let refused = [
        events[0].make_wait(stream.get()),
        context.synchronize(stream.get()),
        context.is_idle(stream.get()).map(|_| ()),
        context.device_buffer_on(64, stream.get()).map(|_| ()),
    ];
    for result in refused {
        assert_eq!(result.unwrap_err().status(), GMB_ERROR_NOT_SUPPORTED);
    }
    // A fork and a join within the capture, by events of the kind that is made for it.
    unsafe { context.fill(memory.address(), 7, 256, stream.get()) }.unwrap();
    events[2].record(stream.get()).unwrap();
    events[2].make_wait(other.get()).unwrap();
    unsafe { context.fill(memory.address() + 256, 8, 256, other.get()) }.unwrap();
    let join = context.event(EventKind::Capture).unwrap();
    join.record(other.get()).unwrap();
    join.make_wait(stream.get()).unwrap();
    let mut graph: *mut c_void = std::ptr::null_mut();
    let ended = driver("cuStreamEndCapture", [stream.get().raw() as usize, &raw mut graph as usize, 0]);
    assert_eq!(ended, 0, "the capture was invalidated");
    assert!(!graph.is_null());
    // Nothing was pushed, popped or changed, and all goes on.
    for mailbox in &boxes {
        let info = mailbox.info().unwrap();
        assert_eq!((info.published, info.readers), (0, 1));
        let push = Push { count: 4, records: memory.address(), length: 16, ..Default::default() };
        unsafe { mailbox.push(&push, stream.get(), Some(&token)) }.unwrap();
        assert_eq!(token.wait(After::Submission, None).unwrap().count, 4);
    }
    events[0].record(stream.get()).unwrap();
    events[0].synchronize(None).unwrap();
    assert_eq!(driver("cuGraphDestroy", [graph as usize, 0, 0]), 0);
}
