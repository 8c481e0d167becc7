//! Workers that stay.

use std::time::Duration;

use crate::queues::queue;
use crate::support::*;
use crate::workers::{counted, run};
use gpumailbox::*;

/// A worker that never leaves by itself keeps nobody from running, making and ending others.
#[test]
fn others_end_beside_a_worker_that_stays() {
    let _budget = some_of_the_budget();
    let context = context();
    let [stays, others] = [(); 2].map(|()| queue(&context, 64, 4));
    let options = WorkerOptions { slice: Some(Duration::MAX), ..Default::default() };
    let worker = Worker::new(&stays, None, None, &options).unwrap();
    let other = Worker::new(&others, None, None, &WorkerOptions { idle_threshold: 10, ..options }).unwrap();
    counted(&others, 0..10);
    worker.start().unwrap();
    until(|| "it comes", || worker.info().heartbeat != 0);
    assert_eq!(run(&other).1.processed, 10);
    drop(other);
    drop(Worker::new(&others, None, None, &options).unwrap());
    assert_eq!(others.measure(64, 3).unwrap().items, 192);
    drop(others);
    assert_eq!(worker.info().ended, None);
    worker.stop();
    assert_eq!(worker.wait(Some(LIMIT)).unwrap().0, WorkerReason::Stopped);
}
