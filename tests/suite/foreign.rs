//! Streams that the library did not make: sentinels, other code's, another context's.

use super::support::*;
use gpumailbox::*;
use std::ffi::c_void;

/// Pushes and pops through a mailbox on this stream.
fn works_on(context: &Context, stream: Stream) {
    let mailbox = mailbox(context, 8, 16);
    let memory = poisoned(context, 256, 3);
    let token = Token::new(context).unwrap();
    let push = push_of(&memory, 4);
    unsafe { mailbox.push(&push, stream, None) }.unwrap();
    let pop = Pop { max: 8, records: memory.address() + 128, ..Default::default() };
    assert_eq!(pop_and_wait(&mailbox, &pop, stream, &token).count, 4);
    let _guard = context.guard(stream).unwrap();
    context.synchronize(Stream::CURRENT).unwrap();
    context.priority(Stream::CURRENT).unwrap();
}

#[test]
fn streams_of_every_kind_work_as_they_are() {
    let context = context();
    let sentinel = |value| unsafe { Stream::from_raw(std::ptr::without_provenance_mut(value)) };
    for stream in [Stream::LEGACY, sentinel(1), Stream::PER_THREAD] {
        works_on(&context, stream);
        // The per-thread sentinel is another stream on each thread.
        std::thread::scope(|scope| scope.spawn(|| works_on(&context, stream)).join().unwrap());
    }
    if context.info().backend == BackendKind::Host {
        return;
    }
    const NON_BLOCKING: usize = 1;
    for flags in [0, NON_BLOCKING] {
        // Made by other code, in the context that is current.
        let _guard = context.guard(Stream::LEGACY).unwrap();
        let mut raw: *mut c_void = std::ptr::null_mut();
        assert_eq!(driver("cuStreamCreate", [&raw mut raw as usize, flags, 0]), 0);
        works_on(&context, unsafe { Stream::from_raw(raw) });
        // The library ends no stream that it might not have made, but by its owner's wish.
        assert_eq!(driver("cuStreamDestroy_v2", [raw as usize, 0, 0]), 0);
    }
}

#[test]
fn a_stream_of_another_cuda_context_is_refused() {
    let context = context();
    if context.info().backend == BackendKind::Host {
        // There, every context has streams of its own: see the context's tests.
        let theirs = super::support::context();
        let stream = theirs.stream().unwrap();
        let error = context.guard(stream.get()).unwrap_err();
        assert_eq!(error.status(), GMB_ERROR_INVALID_STREAM);
        return;
    }
    let mut other: *mut c_void = std::ptr::null_mut();
    assert_eq!(driver("cuCtxCreate_v2", [&raw mut other as usize, 0, 0]), 0);
    let mut raw: *mut c_void = std::ptr::null_mut();
    assert_eq!(driver("cuStreamCreate", [&raw mut raw as usize, 1, 0]), 0);
    let stream = unsafe { Stream::from_raw(raw) };
    // With the other context current: the library makes its own current for its calls.
    works_on(&context, context.stream().unwrap().get());
    let mailbox = mailbox(&context, 8, 16);
    let token = Token::new(&context).unwrap();
    let push = Push { count: 1, ..Default::default() };
    let event = context.event(EventKind::Untimed).unwrap();
    let errors = [
        unsafe { mailbox.push(&push, stream, Some(&token)) }.unwrap_err(),
        context.guard(stream).unwrap_err(),
        event.record(stream).unwrap_err(),
        event.make_wait(stream).unwrap_err(),
        context.device_buffer_on(64, stream).unwrap_err(),
        mailbox.add_reader(ReaderStart::Next, stream).unwrap_err(),
        context.synchronize(stream).unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.status(), GMB_ERROR_INVALID_STREAM, "{error}");
        assert!(error.message().contains("context"), "{error}");
    }
    assert_eq!(mailbox.info().unwrap().published, 0);
    // The thread's current context is what it was.
    let mut current: *mut c_void = std::ptr::null_mut();
    assert_eq!(driver("cuCtxGetCurrent", [&raw mut current as usize, 0, 0]), 0);
    assert_eq!(current, other);
    {
        let _guard = context.guard(Stream::LEGACY).unwrap();
        assert_eq!(driver("cuCtxGetCurrent", [&raw mut current as usize, 0, 0]), 0);
        assert_ne!(current, other, "the guard did not make its context current");
    }
    assert_eq!(driver("cuCtxGetCurrent", [&raw mut current as usize, 0, 0]), 0);
    assert_eq!(current, other, "the guard did not put back what was current");
    assert_eq!(driver("cuCtxDestroy_v2", [other as usize, 0, 0]), 0);
}
