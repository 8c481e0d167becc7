//! Whole graphs of operations at once.

use super::outcome::Why;
use super::{Coordinator, OperationId, Work};
use crate::error::{Error, Result};
use crate::profiler::Range;
use crate::status::*;

/// What an operation of a graph comes after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// Another of the same graph, by its place there, from 0.
    Task(usize),
    /// One that was queued before.
    Operation(OperationId),
}

/// An operation of a graph.
pub struct Task<'a> {
    /// What it does.
    pub work: Work<'a>,
    /// What it comes after.
    pub after: &'a [After],
}

impl Coordinator {
    /// Queues a graph of operations, in any order in which they do not come after each other in a circle. Their ids come in
    /// the order of the tasks. Does not wait for the device.
    ///
    /// An operation that cannot be enqueued fails then, and those after it; the others go on.
    ///
    /// # Errors
    /// Then nothing was queued. `CYCLE` (the message names the tasks), `INVALID_ARGUMENT` (a place that the graph has not, more
    /// tasks than `max_operations`), `INVALID_HANDLE` (as for [`Coordinator::queue`]), `FULL`, `ZERO_COUNT` (no tasks).
    ///
    /// # Safety
    /// As of [`Coordinator::queue`].
    pub unsafe fn queue_graph(&self, tasks: Vec<Task>) -> Result<Vec<OperationId>> {
        let _range = Range::new(c"queue a graph");
        if tasks.is_empty() {
            return Err(Error::new(GMB_ERROR_ZERO_COUNT, "a graph of no tasks: nothing to do"));
        }
        if tasks.len() > self.max_operations as usize {
            return Err(Error::argument(format!(
                "a graph of {} tasks, and max_operations is {}: queue it in parts",
                tasks.len(),
                self.max_operations
            )));
        }
        let order = self.order_of(&tasks)?;
        self.check_outside()?;
        let mut reserved: Vec<_> =
            self.room(|books| books.reserve_all(tasks.len() as u64))?.into_iter().map(Some).collect();
        let numbers: Vec<u64> = reserved.iter().flatten().map(|one| one.number()).collect();
        let mut tasks: Vec<Option<Task>> = tasks.into_iter().map(Some).collect();
        for n in order {
            let (Some(task), Some(reserved)) = (tasks[n].take(), reserved[n].take()) else { continue };
            let after: Vec<u64> = task
                .after
                .iter()
                .map(|&after| match after {
                    After::Operation(id) => id.number(),
                    After::Task(before) => numbers[before],
                })
                .collect();
            let kind = task.work.kind();
            // SAFETY: as promised by the caller.
            if let Err((error, reserved)) = unsafe { self.queue_or_wait(task.work, &after, reserved) } {
                reserved.fail(kind, Why::Itself(&error), None);
            }
        }
        Ok(numbers.into_iter().map(|number| self.books.id(number)).collect())
    }

    /// The tasks in an order in which each comes after what it has to: by Kahn's algorithm (1962), the first first.
    fn order_of(&self, tasks: &[Task]) -> Result<Vec<usize>> {
        let mut missing = vec![0usize; tasks.len()];
        let mut followers: Vec<Vec<usize>> = vec![Vec::new(); tasks.len()];
        for (n, task) in tasks.iter().enumerate() {
            for after in task.after {
                match *after {
                    After::Operation(id) => {
                        self.books.number_of(id)?;
                    }
                    After::Task(before) if before < tasks.len() => {
                        missing[n] += 1;
                        followers[before].push(n);
                    }
                    After::Task(before) => {
                        return Err(Error::argument(format!(
                            "task {n} comes after task {before}, and the graph has {} tasks, from 0",
                            tasks.len()
                        )));
                    }
                }
            }
        }
        let mut order: Vec<usize> = (0..tasks.len()).filter(|&n| missing[n] == 0).collect();
        let mut at = 0;
        while let Some(&n) = order.get(at) {
            at += 1;
            for &follower in &followers[n] {
                missing[follower] -= 1;
                if missing[follower] == 0 {
                    order.push(follower);
                }
            }
        }
        if order.len() == tasks.len() {
            return Ok(order);
        }
        Err(circle(tasks, &missing))
    }
}

/// Tasks that wait for each other, by going back from one that was never free to begin.
fn circle(tasks: &[Task], missing: &[usize]) -> Error {
    let before = |n: usize| {
        tasks[n].after.iter().find_map(|after| match *after {
            After::Task(before) if missing[before] > 0 => Some(before),
            _ => None,
        })
    };
    let mut way = Vec::new();
    let mut next = missing.iter().position(|&count| count > 0);
    while let Some(n) = next {
        if let Some(start) = way.iter().position(|&seen| seen == n) {
            let names: Vec<String> = way[start..].iter().chain([&n]).map(usize::to_string).collect();
            return Error::new(
                GMB_ERROR_CYCLE,
                format!("tasks come after each other in a circle: {}", names.join(" after ")),
            );
        }
        way.push(n);
        next = before(n);
    }
    Error::new(GMB_ERROR_CYCLE, "tasks come after each other in a circle")
}
