//! Memory that work behind a gate uses.

use super::super::support::*;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

/// The work of a stream that is gone goes on, and memory that it uses is not freed before.
#[test]
fn freeing_memory_waits_for_a_destroyed_stream() {
    let context = context();
    let stream = context.stream().unwrap();
    let memory = context.device_buffer(4096).unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let gate = Gate::close(&context, stream.get());
    unsafe { context.fill(memory.address(), 7, 4096, stream.get()) }.unwrap();
    context
        .run_in_order(stream.get(), {
            let end = Arc::clone(&done);
            move || end.store(true, Ordering::Release)
        })
        .unwrap();
    drop(stream);
    std::thread::scope(|scope| {
        let (freed, is_freed) = std::sync::mpsc::channel();
        scope.spawn(move || {
            drop(memory);
            freed.send(()).unwrap();
        });
        let early = is_freed.recv_timeout(PATIENCE);
        assert!(early.is_err(), "freed while the stream's work was under way");
        gate.open();
        is_freed.recv().unwrap();
        assert!(done.load(Ordering::Acquire), "freed too early");
    });
}
