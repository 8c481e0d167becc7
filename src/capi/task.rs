//! Graphs of a coordinator's operations.

use std::ffi::c_void;

use super::boundary::boundary;
use super::coordinator::{
    computing, gmb_compute, gmb_coordinator, gmb_operation, gmb_operation_kind, Computing,
    GMB_OPERATION_COMPUTE, GMB_OPERATION_DOWNLOAD, GMB_OPERATION_POP, GMB_OPERATION_PUSH,
    GMB_OPERATION_UPLOAD, MOST_AFTER,
};
use super::mailbox::{gmb_mailbox, gmb_pop, gmb_push, pop_of, push_of};
use super::triple::{gmb_step, gmb_triple_buffer, step};
use super::{check_pointer, sized, Sized32, COORDINATORS, MAILBOXES, TRIPLE_BUFFERS};
use crate::checks::nothing;
use crate::error::{Error, Result};
use crate::handle::Pinned;
use crate::layout::gmb_dtype;
use crate::status::*;
use crate::{Mailbox, OperationId, Place, Task, TaskAfter, TripleBuffer, Work};

/// What a task of a graph comes after.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_task_after {
    /// An operation that was queued before; zero for a task of the same graph.
    pub operation: gmb_operation,
    /// Else which task, by its place in the array, from 0.
    pub task: u32,
    /// Must be zero.
    pub reserved: u32,
}

/// An operation of a graph: the arguments of the `gmb_coordinator_queue_*` function of its kind. Start from `GMB_TASK_INIT`;
/// fields of other kinds are not looked at.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_task {
    /// `sizeof(gmb_task)`.
    pub struct_size: u32,
    /// What it does: `GMB_OPERATION_*`.
    pub kind: gmb_operation_kind,
    /// Of uploads: device memory, unless `triple` is set. Of downloads: host memory.
    pub to: *mut c_void,
    /// Of uploads: host memory. Of downloads: device memory, unless `triple` is set.
    pub from: *const c_void,
    /// Of uploads and downloads.
    pub bytes: u64,
    /// Of uploads and downloads: to or from its next buffer.
    pub triple: gmb_triple_buffer,
    /// With a triple buffer.
    pub dtype: gmb_dtype,
    /// Of pushes and pops: on whose stream.
    pub step: gmb_step,
    /// Of compute.
    pub compute: *const gmb_compute,
    /// Of pushes and pops.
    pub mailbox: gmb_mailbox,
    /// Of pushes.
    pub push: *const gmb_push,
    /// Of pops.
    pub pop: *const gmb_pop,
    /// What it comes after; may be null if there is nothing.
    pub after: *const gmb_task_after,
    /// How many those are.
    pub after_count: u32,
    /// Must be zero.
    pub reserved: u32,
}

// SAFETY: repr(C), begins with struct_size, integers and pointers only.
unsafe impl Sized32 for gmb_task {
    const NAME: &'static str = "gmb_task";
    const FIRST_SIZE: usize = 96;
}

/// What the handles and pointers of a task stand for.
struct Read<'a> {
    task: gmb_task,
    triple: Option<Pinned<TripleBuffer>>,
    mailbox: Option<Pinned<Mailbox>>,
    computing: Option<Computing<'a>>,
    after: Vec<TaskAfter>,
}

/// Reads a task; the message of an error tells which.
fn read<'a>(tasks: *const gmb_task, n: usize, size: usize) -> Result<Read<'a>> {
    let name = format!("tasks[{n}]");
    // SAFETY: the caller has so many there, each as large as the first; one that says something else is not read.
    let at = unsafe { tasks.byte_add(n * size) };
    check_pointer(at, &name)?;
    // SAFETY: not null and aligned; the first word is the size.
    let told = unsafe { at.cast::<u32>().read() };
    if told as usize != size {
        return Err(Error::new(
            GMB_ERROR_STRUCT_SIZE,
            format!("{name}: struct_size {told} is not that of tasks[0], {size}"),
        ));
    }
    let task = sized(at, &name)?;
    let bad = |error: Error| Error::new(error.status(), format!("{name}: {}", error.message()));
    if task.reserved != 0 {
        return Err(bad(Error::argument("reserved is not zero")));
    }
    let copies = [GMB_OPERATION_UPLOAD, GMB_OPERATION_DOWNLOAD].contains(&task.kind);
    let moves = [GMB_OPERATION_PUSH, GMB_OPERATION_POP].contains(&task.kind);
    if !copies && !moves && task.kind != GMB_OPERATION_COMPUTE {
        return Err(bad(Error::argument(format!("kind {} is none of GMB_OPERATION_*", task.kind))));
    }
    let triple = match task.triple.id {
        id if copies && id != 0 => Some(TRIPLE_BUFFERS.get(id).map_err(bad)?),
        _ => None,
    };
    let mailbox = if moves { Some(MAILBOXES.get(task.mailbox.id).map_err(bad)?) } else { None };
    let computing = match task.kind {
        GMB_OPERATION_COMPUTE => Some(computing(task.compute).map_err(bad)?),
        _ => None,
    };
    Ok(Read { after: after_of(&task).map_err(bad)?, task, triple, mailbox, computing })
}

fn after_of(task: &gmb_task) -> Result<Vec<TaskAfter>> {
    if task.after_count == 0 {
        return Ok(Vec::new());
    }
    check_pointer(task.after, "after")?;
    if task.after_count > MOST_AFTER {
        return Err(Error::argument(format!(
            "after_count {}: there are {MOST_AFTER} at most",
            task.after_count
        )));
    }
    // SAFETY: the caller has so many there.
    let all = unsafe { std::slice::from_raw_parts(task.after, task.after_count as usize) };
    all.iter()
        .map(|one| match one.operation.id {
            _ if one.reserved != 0 => Err(Error::argument("after.reserved is not zero")),
            0 => Ok(TaskAfter::Task(one.task as usize)),
            id => Ok(TaskAfter::Operation(OperationId::from_raw(id))),
        })
        .collect()
}

impl Read<'_> {
    fn work(&self) -> Result<Work<'_>> {
        let task = &self.task;
        let place = |address: u64| match self.triple.as_deref() {
            Some(triple) => Place::Triple(triple, task.dtype),
            None => Place::Address(address),
        };
        let (to, from, bytes) = (task.to as u64, task.from as u64, task.bytes);
        if let Some(computing) = &self.computing {
            return computing.work();
        }
        match (self.mailbox.as_deref(), task.kind) {
            (Some(mailbox), GMB_OPERATION_PUSH) => {
                Ok(Work::Push { mailbox, push: push_of(task.push)?, step: step(task.step)? })
            }
            (Some(mailbox), _) => Ok(Work::Pop { mailbox, pop: pop_of(task.pop)?, step: step(task.step)? }),
            (None, GMB_OPERATION_UPLOAD) => Ok(Work::Upload { to: place(to), from, bytes }),
            (None, _) => Ok(Work::Download { to, from: place(from), bytes }),
        }
    }
}

/// Queues a graph of operations: `count` tasks, in any order in which they do not come after each other in a circle. Their ids
/// go to `operations`, which has room for as many, in the order of the tasks. An operation that cannot be enqueued fails then,
/// and those after it; the others go on. Does not wait for the device; thread-safe.
///
/// Errors, with nothing queued: as for the functions of each kind, for what can be checked before; `GMB_ERROR_CYCLE` (the
/// message names the tasks), `_ZERO_COUNT`, `_FULL` (there is not room for all), `_INVALID_ARGUMENT` (a task that the graph has
/// not; more tasks than `max_operations`).
#[no_mangle]
pub extern "C" fn gmb_coordinator_queue_graph(
    coordinator: gmb_coordinator,
    tasks: *const gmb_task,
    count: u32,
    operations: *mut gmb_operation,
) -> gmb_status {
    boundary(|| {
        check_pointer(operations, "operations")?;
        check_pointer(tasks, "tasks")?;
        if count == 0 {
            return Err(nothing("count"));
        }
        let coordinator = COORDINATORS.get(coordinator.id)?;
        if count > coordinator.info().max_operations {
            return Err(Error::argument(format!(
                "count {count} exceeds the coordinator's max_operations, {}: queue the graph in parts",
                coordinator.info().max_operations
            )));
        }
        // SAFETY: not null and aligned; the first word is the size.
        let size = unsafe { tasks.cast::<u32>().read() } as usize;
        let all = (0..count as usize).map(|n| read(tasks, n, size)).collect::<Result<Vec<_>>>()?;
        let wanted = all
            .iter()
            .map(|one| Ok(Task { work: one.work()?, after: &one.after }))
            .collect::<Result<Vec<_>>>()?;
        // SAFETY: that the memory stays valid is the caller's contract.
        let ids = unsafe { coordinator.queue_graph(wanted) }?;
        for (n, id) in ids.iter().enumerate() {
            // SAFETY: the caller has room for `count` of them.
            unsafe { operations.add(n).write(gmb_operation { id: id.raw() }) };
        }
        Ok(())
    })
}
