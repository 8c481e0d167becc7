//! `gmb_pipeline`: stages that iterations go through.

use std::ffi::{c_char, c_void, CStr};

use super::boundary::boundary;
use super::context::gmb_context;
use super::mailbox::{gmb_mailbox, gmb_pop, gmb_push, pop_of, push_of};
use super::module::{gmb_kernel, gmb_launch, launch_of};
use super::stream::{gmb_priority, gmb_stream, priority_class};
use super::triple::{gmb_step, step};
use super::{
    check_pointer, optional_output, output, sized, timeout, write_info, Sized32, CONTEXTS, KERNELS,
    MAILBOXES, PIPELINES,
};
use crate::checks::null;
use crate::error::{Error, Result};
use crate::status::*;
use crate::{
    HostRing, Pipeline, PipelineOptions, StageArgument, StageCall, StageFunction, StageOptions, StageWork,
};

/// Handle of a pipeline. Zero is null.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_pipeline {
    /// Opaque.
    pub id: u64,
}

/// What a pipeline is made with. Start from `GMB_PIPELINE_OPTIONS_INIT`.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_pipeline_options {
    /// `sizeof(gmb_pipeline_options)`.
    pub struct_size: u32,
    /// Copies of each buffer, which iterations use in turn; 0 for 3, at most 64.
    pub copies: u32,
    /// Iterations that are queued before a call waits for the oldest; 0 for 16, at most 1,024.
    pub most_in_flight: u32,
    /// Of its streams: `GMB_PRIORITY_*`.
    pub priority: gmb_priority,
    /// `GMB_PIPELINE_*`, or zero.
    pub flags: u32,
    /// Must be zero.
    pub reserved: u32,
}

// SAFETY: repr(C), begins with struct_size, integers only.
unsafe impl Sized32 for gmb_pipeline_options {
    const NAME: &'static str = "gmb_pipeline_options";
    const FIRST_SIZE: usize = 24;
}

/// In `gmb_pipeline_options.flags`: one stream for all steps, so that nothing overlaps.
pub const GMB_PIPELINE_ONE_STREAM: u32 = 1;
/// In `gmb_pipeline_options.flags`: without statistics and a timeline.
pub const GMB_PIPELINE_UNTIMED: u32 = 2;

/// What a stage does: `GMB_STAGE_*`.
#[allow(non_camel_case_types)]
pub type gmb_stage_kind = i32;

/// Copies from host memory into its one output.
pub const GMB_STAGE_UPLOAD: gmb_stage_kind = 0;
/// Launches a kernel.
pub const GMB_STAGE_KERNEL: gmb_stage_kind = 1;
/// Calls a function that enqueues something.
pub const GMB_STAGE_CALLBACK: gmb_stage_kind = 2;
/// Copies from its one input to host memory.
pub const GMB_STAGE_DOWNLOAD: gmb_stage_kind = 3;
/// Pushes records out of its one input into a mailbox.
pub const GMB_STAGE_PUSH: gmb_stage_kind = 4;
/// Pops records from a mailbox into its one output.
pub const GMB_STAGE_POP: gmb_stage_kind = 5;

/// What stands in a kernel's argument: `GMB_STAGE_ARGUMENT_*`.
#[allow(non_camel_case_types)]
pub type gmb_stage_argument = i32;

/// The bytes that `gmb_launch.arguments` has for it.
pub const GMB_STAGE_ARGUMENT_BYTES: gmb_stage_argument = -1;
/// The iteration's number, in 8 bytes. Not in a graph.
pub const GMB_STAGE_ARGUMENT_ITERATION: gmb_stage_argument = -2;
/// The address of the first input; the next ones have the next numbers.
pub const GMB_STAGE_ARGUMENT_INPUT: gmb_stage_argument = 0;
/// The address of the first output; the next ones have the next numbers.
pub const GMB_STAGE_ARGUMENT_OUTPUT: gmb_stage_argument = 1024;

/// What a stage's callback gets.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_stage_call {
    /// Where it enqueues its work.
    pub stream: gmb_stream,
    /// Which iteration this is, from 0. In a graph: of those in it.
    pub iteration: u64,
    /// Device addresses of the inputs.
    pub inputs: *const *mut c_void,
    /// Device addresses of the outputs.
    pub outputs: *const *mut c_void,
    /// How many inputs there are.
    pub input_count: u32,
    /// How many outputs there are.
    pub output_count: u32,
    /// 1 where the stream is being captured: what is enqueued runs with each launch of the graph.
    pub captured: u32,
    /// Zero.
    pub reserved: u32,
}

/// Enqueues a stage's work. A negative status fails the iteration. It must not call the pipeline, wait for the device, or throw.
#[allow(non_camel_case_types)]
pub type gmb_stage_function =
    Option<extern "C" fn(call: *const gmb_stage_call, user: *mut c_void) -> gmb_status>;

/// A stage. Start from `GMB_STAGE_INIT`; fields of other kinds are not looked at.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_stage {
    /// `sizeof(gmb_stage)`.
    pub struct_size: u32,
    /// What it does: `GMB_STAGE_*`.
    pub kind: gmb_stage_kind,
    /// Its name, which no other stage of the pipeline has.
    pub name: *const c_char,
    /// On whose stream it runs: `GMB_STEP_*`.
    pub step: gmb_step,
    /// Buffers that it reads.
    pub input_count: u32,
    /// Their indices; may be null if there is none.
    pub inputs: *const u32,
    /// Buffers that it writes; one that is an input, too, it changes.
    pub outputs: *const u32,
    /// How many those are.
    pub output_count: u32,
    /// Must be zero.
    pub reserved: u32,
    /// Of uploads and downloads: rows of host memory, which iterations use in turn.
    pub host: *mut c_void,
    /// Bytes from one row to the next.
    pub host_stride: u64,
    /// How many rows there are; 1 for the same in every iteration.
    pub host_count: u64,
    /// Bytes that are copied.
    pub bytes: u64,
    /// Of kernels.
    pub kernel: gmb_kernel,
    /// Their shape and arguments, which are copied.
    pub launch: *const gmb_launch,
    /// For each argument what stands there (`GMB_STAGE_ARGUMENT_*`); null if all have the bytes of `launch`.
    pub arguments: *const gmb_stage_argument,
    /// Of callbacks.
    pub callback: gmb_stage_function,
    /// What the callback gets; it must stay valid as long as the pipeline.
    pub user: *mut c_void,
    /// Of pushes and pops; it lives as long as the pipeline.
    pub mailbox: gmb_mailbox,
    /// Of pushes; `records` is the input's address.
    pub push: *const gmb_push,
    /// Of pops; `records` is the output's address.
    pub pop: *const gmb_pop,
}

// SAFETY: repr(C), begins with struct_size, integers and pointers only.
unsafe impl Sized32 for gmb_stage {
    const NAME: &'static str = "gmb_stage";
    const FIRST_SIZE: usize = 144;
}

/// What iterations took, since the beginning or the last reset, by the device's clock.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_pipeline_statistics {
    /// Iterations that are done.
    pub iterations: u64,
    /// Milliseconds from the begin of the first to the end of the last, for each.
    pub mean_iteration_ms: f64,
    /// Iterations in a second.
    pub iterations_per_second: f64,
    /// Share of that time in which at least one stage ran, 0 to 1.
    pub utilisation: f64,
}

/// What a stage took, since the beginning or the last reset.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_stage_statistics {
    /// Times that it ran outside of graphs.
    pub runs: u64,
    /// Its mean time, in microseconds.
    pub mean_us: f64,
    /// Its longest time.
    pub longest_us: f64,
}

/// Makes a pipeline without buffers and stages.
///
/// The caller owns it and ends it with `gmb_pipeline_destroy`. Does not wait for the device; thread-safe.
///
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_STRUCT_SIZE`, `_INVALID_ARGUMENT`, `_DEVICE_LOST`, `_DRIVER`, `_SYSTEM`.
#[no_mangle]
pub extern "C" fn gmb_pipeline_create(
    context: gmb_context,
    options: *const gmb_pipeline_options,
    pipeline: *mut gmb_pipeline,
) -> gmb_status {
    boundary(|| {
        let out = output(pipeline, "pipeline")?;
        let options = sized(options, "options")?;
        if options.flags & !(GMB_PIPELINE_ONE_STREAM | GMB_PIPELINE_UNTIMED) != 0 || options.reserved != 0 {
            return Err(Error::argument("options: unknown flags, or reserved is not zero"));
        }
        let wanted = PipelineOptions {
            copies: options.copies,
            most_in_flight: options.most_in_flight,
            priority: priority_class(options.priority)?,
            one_stream: options.flags & GMB_PIPELINE_ONE_STREAM != 0,
            untimed: options.flags & GMB_PIPELINE_UNTIMED != 0,
        };
        let context = CONTEXTS.get(context.id)?;
        out.write(gmb_pipeline { id: PIPELINES.insert(Pipeline::new(&context, &wanted)?)? });
        Ok(())
    })
}

/// Ends a pipeline. Blocks until what was queued is done. Safe while other threads are inside calls on it. Errors:
/// `GMB_ERROR_INVALID_HANDLE`.
#[no_mangle]
pub extern "C" fn gmb_pipeline_destroy(pipeline: gmb_pipeline) -> gmb_status {
    boundary(|| PIPELINES.remove(pipeline.id))
}

/// Adds a buffer of so many bytes, with its copies, and writes its index. Blocks until the memory is there; thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_ZERO_COUNT`, `_OVERFLOW`, `_BUSY` (iterations are under way),
/// `_OUT_OF_MEMORY`, `_MEMORY_LIMIT`, `_DEVICE_LOST`.
#[no_mangle]
pub extern "C" fn gmb_pipeline_add_buffer(
    pipeline: gmb_pipeline,
    bytes: u64,
    buffer: *mut u32,
) -> gmb_status {
    boundary(|| {
        let out = output(buffer, "buffer")?;
        out.write(PIPELINES.get(pipeline.id)?.add_buffer(bytes)? as u32);
        Ok(())
    })
}

/// The device address of a buffer's copy: iteration `n` uses copy `n` modulo their number. Never blocks for the device;
/// thread-safe. Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_INVALID_ARGUMENT` (no such buffer).
#[no_mangle]
pub extern "C" fn gmb_pipeline_get_buffer(
    pipeline: gmb_pipeline,
    buffer: u32,
    copy: u32,
    address: *mut *mut c_void,
) -> gmb_status {
    boundary(|| {
        let out = output(address, "address")?;
        out.write(PIPELINES.get(pipeline.id)?.buffer_address(buffer as usize, copy)? as *mut c_void);
        Ok(())
    })
}

fn name_of<'a>(name: *const c_char) -> Result<&'a str> {
    check_pointer(name, "name")?;
    // SAFETY: not null; that it is a string is the caller's contract.
    unsafe { CStr::from_ptr(name) }.to_str().map_err(|_| Error::argument("a name is no UTF-8"))
}

fn indices(from: *const u32, count: u32, name: &str) -> Result<Vec<usize>> {
    const MOST: u32 = 1023;
    if count > MOST {
        return Err(Error::argument(format!("{count} {name}: a stage has {MOST} at most")));
    }
    if count == 0 {
        return Ok(Vec::new());
    }
    check_pointer(from, name)?;
    // SAFETY: the caller has so many there.
    Ok(unsafe { std::slice::from_raw_parts(from, count as usize) }.iter().map(|&n| n as usize).collect())
}

fn kernel_work(stage: &gmb_stage) -> Result<StageWork> {
    let kernel = KERNELS.get(stage.kernel.id)?;
    let (launch, given) = launch_of(stage.launch)?;
    if !stage.arguments.is_null() {
        check_pointer(stage.arguments, "arguments")?;
    }
    let mut arguments = Vec::with_capacity(given.len());
    for (n, argument) in given.iter().enumerate() {
        let what = match stage.arguments.is_null() {
            true => GMB_STAGE_ARGUMENT_BYTES,
            // SAFETY: the caller has as many there as the launch has arguments.
            false => unsafe { stage.arguments.add(n).read() },
        };
        arguments.push(match what {
            GMB_STAGE_ARGUMENT_BYTES => StageArgument::Bytes(argument.to_vec()),
            GMB_STAGE_ARGUMENT_ITERATION => StageArgument::Iteration,
            GMB_STAGE_ARGUMENT_INPUT..GMB_STAGE_ARGUMENT_OUTPUT => StageArgument::Input(what as usize),
            GMB_STAGE_ARGUMENT_OUTPUT..2048 => {
                StageArgument::Output((what - GMB_STAGE_ARGUMENT_OUTPUT) as usize)
            }
            _ => {
                return Err(Error::argument(format!("arguments[{n}] {what} is none of GMB_STAGE_ARGUMENT_*")))
            }
        });
    }
    Ok(StageWork::Kernel { kernel: kernel.clone(), launch, arguments })
}

fn callback_work(stage: &gmb_stage) -> Result<StageWork> {
    let function = stage.callback.ok_or_else(|| null("callback"))?;
    let user = stage.user as usize;
    let call: StageFunction = Box::new(move |call: &StageCall| {
        let pointers = |addresses: &[u64]| -> Vec<*mut c_void> {
            addresses.iter().map(|&address| address as *mut c_void).collect()
        };
        let (inputs, outputs) = (pointers(call.inputs), pointers(call.outputs));
        let value = gmb_stage_call {
            stream: call.stream.raw().cast(),
            iteration: call.iteration,
            inputs: inputs.as_ptr(),
            outputs: outputs.as_ptr(),
            input_count: inputs.len() as u32,
            output_count: outputs.len() as u32,
            captured: call.captured.into(),
            reserved: 0,
        };
        match function(&value, user as *mut c_void) {
            status if status < 0 => {
                Err(Error::new(status, format!("the callback answered {}", status_name(status))))
            }
            _ => Ok(()),
        }
    });
    Ok(StageWork::Callback(call))
}

fn work_of(stage: &gmb_stage) -> Result<StageWork> {
    let host = HostRing { address: stage.host as u64, stride: stage.host_stride, count: stage.host_count };
    match stage.kind {
        GMB_STAGE_UPLOAD => Ok(StageWork::Upload { from: host, bytes: stage.bytes }),
        GMB_STAGE_DOWNLOAD => Ok(StageWork::Download { to: host, bytes: stage.bytes }),
        GMB_STAGE_KERNEL => kernel_work(stage),
        GMB_STAGE_CALLBACK => callback_work(stage),
        // By its handle: a mailbox that was destroyed is an error, and nothing is kept alive.
        GMB_STAGE_PUSH => {
            let (id, push) = (stage.mailbox.id, push_of(stage.push)?);
            MAILBOXES.get(id)?;
            Ok(StageWork::Callback(Box::new(move |call| {
                let records = call.inputs.first().copied().unwrap_or(0);
                // SAFETY: as of `gmb_pipeline_add_stage`.
                unsafe { MAILBOXES.get(id)?.push(&crate::Push { records, ..push }, call.stream, None) }
            })))
        }
        GMB_STAGE_POP => {
            let (id, pop) = (stage.mailbox.id, pop_of(stage.pop)?);
            MAILBOXES.get(id)?;
            Ok(StageWork::Callback(Box::new(move |call| {
                let records = call.outputs.first().copied().unwrap_or(0);
                // SAFETY: as above.
                unsafe { MAILBOXES.get(id)?.pop(&crate::Pop { records, ..pop }, call.stream, None) }
            })))
        }
        kind => Err(Error::argument(format!("kind {kind} is none of GMB_STAGE_*"))),
    }
}

/// Adds a stage at the end of the order. What it points to is copied; host memory, what a callback gets and the memory that
/// kernels use stay valid as long as the pipeline runs it. Does not wait for the device; thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_MISALIGNED`, `_STRUCT_SIZE`, `_ZERO_COUNT`, `_OVERFLOW`, `_INVALID_ARGUMENT` (an
/// empty name, or one that there is; a buffer that there is not; inputs or outputs that the work cannot have; a launch beyond
/// the device; objects of another context), `_BUSY` (iterations are under way).
#[no_mangle]
pub extern "C" fn gmb_pipeline_add_stage(pipeline: gmb_pipeline, stage: *const gmb_stage) -> gmb_status {
    boundary(|| {
        let stage = sized(stage, "stage")?;
        if stage.reserved != 0 {
            return Err(Error::argument("stage.reserved is not zero"));
        }
        let pipeline = PIPELINES.get(pipeline.id)?;
        let options = StageOptions {
            name: name_of(stage.name)?.to_owned(),
            step: step(stage.step)?,
            inputs: indices(stage.inputs, stage.input_count, "inputs")?,
            outputs: indices(stage.outputs, stage.output_count, "outputs")?,
            work: work_of(&stage)?,
        };
        // SAFETY: that the memory stays valid is the caller's contract.
        unsafe { pipeline.add_stage(options) }
    })
}

/// Sets which stages an iteration goes through, in which order; those that are not named are left out. Does not wait for the
/// device; thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_NOT_FOUND` (no stage of this name), `_INVALID_ARGUMENT` (a stage twice),
/// `_BUSY` (iterations are under way: synchronize).
#[no_mangle]
pub extern "C" fn gmb_pipeline_set_order(
    pipeline: gmb_pipeline,
    names: *const *const c_char,
    count: u32,
) -> gmb_status {
    boundary(|| {
        let pipeline = PIPELINES.get(pipeline.id)?;
        if count > 0 {
            check_pointer(names, "names")?;
        }
        // SAFETY: the caller has so many there.
        let names = (0..count as usize).map(|n| name_of(unsafe { names.add(n).read() }));
        pipeline.set_order(&names.collect::<Result<Vec<_>>>()?)
    })
}

/// Queues iterations, each after those before, and writes the number of the first to `first`, which may be null. They overlap as
/// far as their data allows. Does not wait for the device, but for the oldest iteration when as many are under way as may be;
/// thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_ZERO_COUNT`, `_NOT_FOUND` (no stages), what a stage's own calls answer: the message names
/// the stage; then that iteration ends before it, and fails, and later ones were not queued. `_DEVICE_LOST`.
#[no_mangle]
pub extern "C" fn gmb_pipeline_execute(
    pipeline: gmb_pipeline,
    iterations: u64,
    first: *mut u64,
) -> gmb_status {
    boundary(|| {
        let out = optional_output(first, "first")?;
        let number = PIPELINES.get(pipeline.id)?.execute(iterations)?;
        if let Some(out) = out {
            out.write(number);
        }
        Ok(())
    })
}

/// Captures so many iterations as one graph, which `gmb_pipeline_execute` launches from then on for so many iterations, from
/// each one whose number is a multiple of them; until stages, order or buffers change. 0 goes back to calls for each. Blocks
/// for the driver; thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_INVALID_ARGUMENT` (no multiple of the copies; host memory that does not come round),
/// `_NOT_SUPPORTED` (pageable memory, a mailbox under `GMB_FULL_WAIT`, a kernel that takes the iteration's number, what a callback
/// enqueues cannot be captured), `_NOT_FOUND` (no stages), `_BUSY` (iterations are under way), `_CAPTURE`, `_DEVICE_LOST`, `_DRIVER`.
#[no_mangle]
pub extern "C" fn gmb_pipeline_capture(pipeline: gmb_pipeline, iterations: u32) -> gmb_status {
    boundary(|| PIPELINES.get(pipeline.id)?.capture(iterations))
}

/// Blocks the calling thread until an iteration is done. `timeout_ns` is in nanoseconds; `GMB_WAIT_FOREVER` waits without limit,
/// 0 asks once. Thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_INVALID_ARGUMENT` (never queued), `_TIMEOUT` (wait again), and why it failed: the message
/// names the stage.
#[no_mangle]
pub extern "C" fn gmb_pipeline_wait(pipeline: gmb_pipeline, iteration: u64, timeout_ns: u64) -> gmb_status {
    boundary(|| PIPELINES.get(pipeline.id)?.wait(iteration, timeout(timeout_ns)))
}

/// Blocks the calling thread until every iteration is done that was queued before. `timeout_ns` as for `gmb_pipeline_wait`.
/// Thread-safe. Errors: `GMB_ERROR_INVALID_HANDLE`, `_TIMEOUT` (wait again), and why the first iteration failed of those that nobody
/// asked about.
#[no_mangle]
pub extern "C" fn gmb_pipeline_synchronize(pipeline: gmb_pipeline, timeout_ns: u64) -> gmb_status {
    boundary(|| PIPELINES.get(pipeline.id)?.synchronize(timeout(timeout_ns)))
}

/// The pipeline's stream of a step (`GMB_STEP_*`). It is the pipeline's, and ends with it. Never blocks; thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_INVALID_ARGUMENT`.
#[no_mangle]
pub extern "C" fn gmb_pipeline_get_stream(
    pipeline: gmb_pipeline,
    step: gmb_step,
    stream: *mut gmb_stream,
) -> gmb_status {
    boundary(|| {
        let out = output(stream, "stream")?;
        let pipeline = PIPELINES.get(pipeline.id)?;
        out.write(pipeline.coordinator().stream(self::step(step)?).raw().cast());
        Ok(())
    })
}

/// What the iterations took that are done. `info_size` is `sizeof(gmb_pipeline_statistics)`. Never blocks for the device;
/// thread-safe. Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_STRUCT_SIZE`, `_UNAVAILABLE` (no iteration is done since the
/// beginning or the last reset, or the pipeline is untimed), `_DRIVER`.
#[no_mangle]
pub extern "C" fn gmb_pipeline_get_statistics(
    pipeline: gmb_pipeline,
    info: *mut gmb_pipeline_statistics,
    info_size: usize,
) -> gmb_status {
    boundary(|| {
        let known = PIPELINES.get(pipeline.id)?.statistics()?;
        let value = gmb_pipeline_statistics {
            iterations: known.iterations,
            mean_iteration_ms: known.mean_iteration_ms,
            iterations_per_second: known.iterations_per_second,
            utilisation: known.utilisation,
        };
        write_info(info, info_size, value)
    })
}

/// What a stage took. `info_size` is `sizeof(gmb_stage_statistics)`. Never blocks for the device; thread-safe. Errors: as for
/// `gmb_pipeline_get_statistics`, and `GMB_ERROR_NOT_FOUND` (no stage of this name).
#[no_mangle]
pub extern "C" fn gmb_pipeline_get_stage_statistics(
    pipeline: gmb_pipeline,
    name: *const c_char,
    info: *mut gmb_stage_statistics,
    info_size: usize,
) -> gmb_status {
    boundary(|| {
        let name = name_of(name)?;
        let known = PIPELINES.get(pipeline.id)?.statistics()?;
        let stage = known
            .stages
            .iter()
            .find(|stage| stage.name == name)
            .ok_or_else(|| Error::new(GMB_ERROR_NOT_FOUND, format!("no stage is called {name:?}")))?;
        let value =
            gmb_stage_statistics { runs: stage.runs, mean_us: stage.mean_us, longest_us: stage.longest_us };
        write_info(info, info_size, value)
    })
}

/// Begins the statistics and the timeline anew. Never blocks for the device; thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_DRIVER`.
#[no_mangle]
pub extern "C" fn gmb_pipeline_reset_statistics(pipeline: gmb_pipeline) -> gmb_status {
    boundary(|| PIPELINES.get(pipeline.id)?.reset_statistics())
}

/// The latest runs of stages as a trace in JSON (Chrome's trace events, which Perfetto reads), NUL-terminated: one track for each
/// stream, microseconds by the device's clock. `needed`, which may be null, gets the bytes with the NUL; `buffer` may be null if
/// `buffer_size` is 0. Never blocks for the device; thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_TRUNCATED` (`buffer_size` is too small: `needed` is written all the same, and
/// `buffer` is not), `_DRIVER`.
#[no_mangle]
pub extern "C" fn gmb_pipeline_get_timeline(
    pipeline: gmb_pipeline,
    buffer: *mut c_char,
    buffer_size: usize,
    needed: *mut usize,
) -> gmb_status {
    boundary(|| {
        let out = optional_output(needed, "needed")?;
        let trace = PIPELINES.get(pipeline.id)?.timeline()?;
        if let Some(out) = out {
            out.write(trace.len() + 1);
        }
        if buffer.is_null() && buffer_size == 0 {
            return Ok(());
        }
        check_pointer(buffer, "buffer")?;
        if buffer_size <= trace.len() {
            return Err(Error::new(
                GMB_ERROR_TRUNCATED,
                format!("buffer_size {buffer_size}: the timeline has {} bytes", trace.len() + 1),
            ));
        }
        // SAFETY: the caller has room for so many bytes.
        unsafe {
            std::ptr::copy_nonoverlapping(trace.as_ptr(), buffer.cast(), trace.len());
            buffer.add(trace.len()).write(0);
        }
        Ok(())
    })
}
