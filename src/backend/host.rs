//! The host backend: streams are threads that run their work in order,
//! device memory is host memory, and the blocks of one launch run at once on
//! several threads in varying order. The ring code is the kernels' own source.

mod blocks;
mod capture;
mod stream;

use std::alloc::{alloc_zeroed, dealloc, Layout};
use std::collections::{BTreeMap, HashMap};
use std::ffi::{c_void, CStr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::{
    Backend, BlockFunction, ByEntry, DeviceInfo, Entered, Entry, FunctionInfo, HostFunction, Kept, Kernel,
    RawEvent, RawFunction, RawGraph, RawModule, RawNode, RawStream, Resident, Shape, StreamState, DL_CPU,
};
use crate::error::{Error, Result};
use crate::events::EventKind;
use crate::graph::CaptureMode;
use crate::status::*;
use crate::stream::Priority;
use crate::sync::lock;
use blocks::BlockPool;
use capture::{Capture, Clock, Graph, Step};
use stream::{Completion, Stream, Task};

/// The legacy and per-thread stream sentinels of the CUDA headers.
const STREAM_LEGACY: usize = 1;
const STREAM_PER_THREAD: usize = 2;

const ALIGNMENT: usize = 256;

/// Threads of workers that the host holds at once.
const RESIDENT_BLOCKS: u32 = 512;

/// The range of priorities, counted as CUDA does: less is more urgent.
const LEAST: i32 = 0;
const GREATEST: i32 = -2;

/// Stream ids are unique in the process, as the driver's are.
static NEXT_STREAM: AtomicU64 = AtomicU64::new(1);

pub(crate) struct Host {
    info: DeviceInfo,
    pool: Arc<BlockPool>,
    streams: Mutex<HashMap<usize, Arc<Stream>>>,
    /// Destroyed, with work that may not be done.
    closed: Mutex<Vec<Arc<Stream>>>,
    default_stream: Arc<Stream>,
    per_thread: Mutex<HashMap<u64, Arc<Stream>>>,
    events: Mutex<Events>,
    graphs: Mutex<HashMap<usize, Arc<Graph>>>,
    heap: Arc<Heap>,
}

/// All memory given out and not taken back. Stream threads keep it too, so
/// that work which outlives the context still finds its memory.
#[derive(Default)]
pub(crate) struct Heap(Mutex<HashMap<u64, Layout>>);

/// Start and size of all memory of all contexts: kernels of one reach that of the others.
static KNOWN: Mutex<BTreeMap<u64, u64>> = Mutex::new(BTreeMap::new());

impl Heap {
    fn enter(&self, address: u64, layout: Layout) {
        lock(&KNOWN).insert(address, layout.size() as u64);
        lock(&self.0).insert(address, layout);
    }

    pub(crate) fn free(&self, address: u64) {
        if let Some(layout) = lock(&self.0).remove(&address) {
            lock(&KNOWN).remove(&address);
            // SAFETY: the address came from alloc_zeroed with this layout and left the map just now.
            unsafe { dealloc(address as *mut u8, layout) };
        }
    }
}

impl Drop for Heap {
    fn drop(&mut self) {
        for (address, layout) in lock(&self.0).drain() {
            lock(&KNOWN).remove(&address);
            // SAFETY: the address came from alloc_zeroed with this layout, and nobody is left to use it.
            unsafe { dealloc(address as *mut u8, layout) };
        }
    }
}

/// Events are slots that are reused; each holds its last record.
#[derive(Default)]
struct Events {
    slots: Vec<Option<Mark>>,
    free: Vec<usize>,
}

/// What an event stands for.
#[derive(Clone, Default)]
enum Mark {
    #[default]
    Nothing,
    Enqueued(Arc<Completion>),
    /// A point in a capture.
    Captured(Arc<Capture>, Clock),
}

impl Events {
    fn mark(&mut self, event: usize, mark: Mark) {
        if let Some(Some(slot)) = self.slots.get_mut(event) {
            *slot = mark;
        }
    }

    fn completion(&self, event: usize) -> Option<Arc<Completion>> {
        match self.slots.get(event) {
            Some(Some(Mark::Enqueued(completion))) => Some(Arc::clone(completion)),
            _ => None,
        }
    }
}

impl Host {
    pub(crate) fn new(device: u32) -> Result<Self> {
        if device != 0 {
            return Err(Error::new(
                GMB_ERROR_INVALID_DEVICE,
                format!("device {device}: the host backend has device 0 only"),
            ));
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = cores.clamp(3, 8);
        let heap = Arc::new(Heap::default());
        let pool = Arc::new(BlockPool::new(workers, Arc::clone(&heap))?);
        let default_stream = start_stream(LEAST, &pool)?;
        Ok(Self {
            info: DeviceInfo {
                name: format!("host ({cores} CPU cores)"),
                dlpack_device: (DL_CPU, 0),
                shares_streams: false,
                units: workers as u32,
                block_threads: 1,
                drawing_threads: 1,
                group_records: 4,
                drawn_records: 16,
                max_blocks: ByEntry::all(2 * workers as u32),
                drawing_blocks: ByEntry::all(2 * workers as u32),
                driver_version: 0,
                most_grid: [i32::MAX as u32, 65_535, 65_535],
                most_block: [1024, 1024, 64],
            },
            pool,
            streams: Mutex::default(),
            closed: Mutex::default(),
            default_stream,
            per_thread: Mutex::default(),
            events: Mutex::default(),
            graphs: Mutex::default(),
            heap,
        })
    }

    fn stream(&self, raw: RawStream) -> Result<Arc<Stream>> {
        match raw as usize {
            0 | STREAM_LEGACY => Ok(Arc::clone(&self.default_stream)),
            STREAM_PER_THREAD => {
                let thread = crate::sync::thread_number();
                if let Some(stream) = lock(&self.per_thread).get(&thread) {
                    return Ok(Arc::clone(stream));
                }
                let stream = start_stream(LEAST, &self.pool)?;
                lock(&self.per_thread).insert(thread, Arc::clone(&stream));
                Ok(stream)
            }
            value => lock(&self.streams).get(&value).cloned().ok_or_else(|| unknown_stream(raw)),
        }
    }

    fn all_streams(&self) -> Vec<Arc<Stream>> {
        let mut all = vec![Arc::clone(&self.default_stream)];
        // The closed ones last: one that is destroyed meanwhile is in the one list or the other.
        all.extend(lock(&self.streams).values().cloned());
        all.extend(lock(&self.per_thread).values().cloned());
        all.extend(lock(&self.closed).iter().cloned());
        all
    }

    /// Waits for all streams, as freeing device memory does on a GPU.
    fn drain(&self) {
        for stream in self.all_streams() {
            stream.drain();
        }
    }

    fn take_memory(&self, bytes: usize, status: gmb_status) -> Result<u64> {
        let full = || Error::new(status, format!("no room for {bytes} bytes of host memory"));
        let layout = Layout::from_size_align(bytes.max(1), ALIGNMENT).map_err(|_| full())?;
        // SAFETY: the layout has a size of at least one byte.
        let address = unsafe { alloc_zeroed(layout) } as u64;
        if address == 0 {
            return Err(full());
        }
        self.heap.enter(address, layout);
        Ok(address)
    }

    fn give_memory(&self, address: u64) -> Result<()> {
        self.drain();
        self.heap.free(address);
        Ok(())
    }

    fn completion(&self, event: RawEvent) -> Option<Arc<Completion>> {
        lock(&self.events).completion(event.0)
    }

    /// The capture that a stream's work goes into.
    fn capture_of(&self, stream: RawStream) -> Result<(Arc<Stream>, Arc<Capture>)> {
        let stream = self.stream(stream)?;
        let capture = stream
            .capture()
            .ok_or_else(|| Error::new(GMB_ERROR_CAPTURE, "the stream is not being captured"))?;
        Ok((stream, capture))
    }
}

fn no_kernels() -> Error {
    Error::new(GMB_ERROR_NOT_SUPPORTED, "the host backend runs functions of the host, not kernels of a GPU")
}

fn start_stream(priority: i32, pool: &Arc<BlockPool>) -> Result<Arc<Stream>> {
    Stream::start(NEXT_STREAM.fetch_add(1, Ordering::Relaxed), priority, Arc::clone(pool))
}

fn unknown_stream(raw: RawStream) -> Error {
    Error::new(
        GMB_ERROR_INVALID_STREAM,
        format!("stream {raw:p} is none of this context's host backend: it was destroyed, or made by another context"),
    )
}

impl Drop for Host {
    fn drop(&mut self) {
        for stream in self.all_streams() {
            stream.close();
        }
    }
}

impl Backend for Host {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn allocate(&self, bytes: usize) -> Result<u64> {
        self.take_memory(bytes, GMB_ERROR_OUT_OF_MEMORY)
    }

    unsafe fn release(&self, address: u64) -> Result<()> {
        self.give_memory(address)
    }

    fn has_pool(&self) -> bool {
        true
    }

    fn allocate_ordered(&self, bytes: usize, _stream: RawStream) -> Result<u64> {
        self.take_memory(bytes, GMB_ERROR_OUT_OF_MEMORY)
    }

    unsafe fn release_ordered(&self, address: u64, stream: RawStream) -> Result<()> {
        self.stream(stream)?.enqueue([Task::Free { address }])
    }

    /// The host's pool is its heap, which keeps nothing for later.
    fn pool_reserved(&self) -> Result<u64> {
        Ok(lock(&self.heap.0).values().map(|layout| layout.size() as u64).sum())
    }

    fn pool_trim(&self, _keep: u64) -> Result<()> {
        Ok(())
    }

    /// Memory of others would do as well, but nobody knows how far it goes.
    fn can_reach(&self, address: u64, bytes: u64) -> Result<bool> {
        let known = lock(&KNOWN);
        let holder = known.range(..=address).next_back();
        Ok(holder.is_some_and(|(start, &size)| {
            (address - start).checked_add(bytes).is_some_and(|end| end <= size)
        }))
    }

    fn push_context(&self) -> Result<Option<fn()>> {
        Ok(None)
    }

    fn enter_for_calls(&self) -> Result<Entered> {
        Ok(Entered::already())
    }

    fn synchronize(&self) -> Result<()> {
        self.drain();
        Ok(())
    }

    fn allocate_pinned(&self, bytes: usize) -> Result<u64> {
        self.take_memory(bytes, GMB_ERROR_OUT_OF_HOST_MEMORY)
    }

    unsafe fn release_pinned(&self, address: u64, _in_use: bool) -> Result<()> {
        self.give_memory(address)
    }

    fn stream_create(&self, priority: Priority) -> Result<RawStream> {
        let stream = start_stream(priority.within(LEAST, GREATEST), &self.pool)?;
        // A value that is neither null nor a sentinel and that nobody may dereference.
        let raw = (stream.id() as usize) << 4;
        lock(&self.streams).insert(raw, stream);
        Ok(raw as *mut c_void)
    }

    fn stream_destroy(&self, stream: RawStream) -> Result<()> {
        // Under this lock, so that nobody who waits for all streams finds it in neither place.
        let mut closed = lock(&self.closed);
        let stream = lock(&self.streams).remove(&(stream as usize)).ok_or_else(|| unknown_stream(stream))?;
        closed.retain(|stream| !stream.is_idle());
        closed.push(Arc::clone(&stream));
        drop(closed);
        if let Some(capture) = stream.capture() {
            capture.spoil("a stream of the capture was destroyed");
            // Nobody can end it any more on the stream where it began.
            let _ = capture.end(stream.id());
        }
        stream.close();
        Ok(())
    }

    fn stream_state(&self, stream: RawStream) -> Result<StreamState> {
        let stream = self.stream(stream)?;
        Ok(match stream.capture() {
            Some(capture) => StreamState::Capturing(capture.id),
            None => StreamState::Running(stream.id()),
        })
    }

    fn stream_priority(&self, stream: RawStream) -> Result<i32> {
        Ok(self.stream(stream)?.priority())
    }

    fn stream_query(&self, stream: RawStream) -> Result<bool> {
        Ok(self.stream(stream)?.is_idle())
    }

    fn stream_synchronize(&self, stream: RawStream) -> Result<()> {
        self.stream(stream)?.drain();
        Ok(())
    }

    fn host_function(&self, stream: RawStream, function: HostFunction) -> Result<()> {
        self.stream(stream)?.enqueue([Task::Function(function)])
    }

    fn event_create(&self, _kind: EventKind) -> Result<RawEvent> {
        let mut events = lock(&self.events);
        let index = match events.free.pop() {
            Some(index) => index,
            None => {
                events.slots.push(None);
                events.slots.len() - 1
            }
        };
        if let Some(slot) = events.slots.get_mut(index) {
            *slot = Some(Mark::Nothing);
        }
        Ok(RawEvent(index))
    }

    fn event_destroy(&self, event: RawEvent) {
        let mut events = lock(&self.events);
        if let Some(slot) = events.slots.get_mut(event.0) {
            *slot = None;
            events.free.push(event.0);
        }
    }

    fn event_record(&self, event: RawEvent, stream: RawStream) -> Result<()> {
        let stream = self.stream(stream)?;
        if let Some(capture) = stream.capture() {
            let clock = capture.clock(stream.id())?;
            lock(&self.events).mark(event.0, Mark::Captured(capture, clock));
            return Ok(());
        }
        let completion = Arc::new(Completion::default());
        // Enqueued under the lock, so that the slot's last record is the last enqueued.
        let mut events = lock(&self.events);
        stream.enqueue([Task::Complete(Arc::clone(&completion))])?;
        events.mark(event.0, Mark::Enqueued(completion));
        Ok(())
    }

    fn event_query(&self, event: RawEvent) -> Result<bool> {
        Ok(self.completion(event).is_none_or(|c| c.is_done()))
    }

    fn event_synchronize(&self, event: RawEvent) -> Result<()> {
        if let Some(completion) = self.completion(event) {
            completion.wait();
        }
        Ok(())
    }

    fn event_elapsed(&self, start: RawEvent, end: RawEvent) -> Result<Option<f64>> {
        let reached = |event| self.completion(event).and_then(|c| c.reached_at());
        let (Some(start), Some(end)) = (reached(start), reached(end)) else { return Ok(None) };
        let seconds = |span: std::time::Duration| span.as_secs_f64();
        Ok(Some(1e3 * if end >= start { seconds(end - start) } else { -seconds(start - end) }))
    }

    fn stream_wait(&self, stream: RawStream, event: RawEvent) -> Result<()> {
        let stream = self.stream(stream)?;
        let mark = lock(&self.events).slots.get(event.0).cloned().flatten().unwrap_or_default();
        let own = stream.capture();
        match mark {
            Mark::Nothing => Ok(()),
            Mark::Captured(capture, clock) if own.as_ref().is_none_or(|own| own.id == capture.id) => {
                capture.pull_in(&stream, &clock)
            }
            Mark::Enqueued(completion) if own.is_none() => {
                if completion.is_done() {
                    return Ok(());
                }
                stream.enqueue([Task::Wait(completion)])
            }
            _ => Err(Error::new(
                GMB_ERROR_CAPTURE,
                "the stream is being captured, and the event was not recorded in this capture",
            )),
        }
    }

    fn relax(&self) {}

    fn capture_begin(&self, stream: RawStream, _mode: CaptureMode) -> Result<()> {
        let stream = self.stream(stream)?;
        if stream.capture().is_some() {
            return Err(Error::new(GMB_ERROR_CAPTURE, "the stream is being captured already"));
        }
        stream.set_capture(Some(Capture::begin(&stream)));
        Ok(())
    }

    fn capture_end(&self, stream: RawStream) -> Result<RawGraph> {
        let (stream, capture) = self.capture_of(stream)?;
        let graph = Arc::new(capture.end(stream.id())?);
        let key = Arc::as_ptr(&graph) as usize;
        lock(&self.graphs).insert(key, graph);
        Ok(RawGraph(key))
    }

    fn capture_keep(&self, stream: RawStream, kept: Kept) -> Result<()> {
        self.capture_of(stream)?.1.keep(kept);
        Ok(())
    }

    fn capture_last(&self, stream: RawStream) -> Result<RawNode> {
        let (stream, capture) = self.capture_of(stream)?;
        capture.node(stream.id()).map(RawNode)
    }

    fn capture_after(&self, stream: RawStream, node: RawNode) -> Result<()> {
        let (stream, capture) = self.capture_of(stream)?;
        capture.after(stream.id(), node.0)
    }

    fn capture_record(&self, event: RawEvent, stream: RawStream) -> Result<()> {
        let (stream, capture) = self.capture_of(stream)?;
        capture.add(stream.id(), Step::Record(event.0))
    }

    fn capture_wait(&self, stream: RawStream, event: RawEvent) -> Result<()> {
        let (stream, capture) = self.capture_of(stream)?;
        capture.add(stream.id(), Step::Wait(event.0))
    }

    fn graph_launch(&self, graph: RawGraph, stream: RawStream) -> Result<()> {
        let stream = self.stream(stream)?;
        let graph = lock(&self.graphs)
            .get(&graph.0)
            .cloned()
            .ok_or_else(|| Error::argument("the graph is none of this context's"))?;
        // Under the lock, so that an event's last record is the last enqueued.
        let mut events = lock(&self.events);
        let mut tasks = Vec::with_capacity(graph.steps.len() + 1);
        let mut recorded: HashMap<usize, Arc<Completion>> = HashMap::new();
        for step in &graph.steps {
            tasks.push(match step.clone() {
                Step::Launch { kernel, blocks } => Task::Launch { kernel, blocks },
                Step::Blocks { function, blocks } => Task::Blocks { function, blocks },
                Step::Copy { to, from, bytes } => Task::Copy { to, from, bytes },
                Step::Fill { to, value, bytes } => Task::Fill { to, value, bytes },
                Step::Record(event) => {
                    let completion = Arc::new(Completion::default());
                    recorded.insert(event, Arc::clone(&completion));
                    Task::Complete(completion)
                }
                Step::Wait(event) => match recorded.get(&event).cloned().or_else(|| events.completion(event))
                {
                    Some(completion) => Task::Wait(completion),
                    None => continue,
                },
            });
        }
        tasks.push(Task::Release(graph));
        stream.enqueue(tasks)?;
        for (event, completion) in recorded {
            events.mark(event, Mark::Enqueued(completion));
        }
        Ok(())
    }

    fn graph_destroy(&self, graph: RawGraph) {
        // What it keeps is dropped without the lock.
        let _graph = lock(&self.graphs).remove(&graph.0);
    }

    unsafe fn copy(&self, to: u64, from: u64, bytes: usize, stream: RawStream) -> Result<()> {
        self.stream(stream)?.submit(Step::Copy { to, from, bytes })
    }

    unsafe fn read_words(&self, words: &mut [u64], from: u64, _service: RawStream) -> Result<()> {
        for (word, at) in words.iter_mut().zip((from as usize..).step_by(size_of::<u64>())) {
            // SAFETY: aligned and readable, says the caller; kernels write it atomically.
            *word = unsafe { AtomicU64::from_ptr(at as *mut u64) }.load(Ordering::Acquire);
        }
        Ok(())
    }

    unsafe fn fill(&self, to: u64, value: u8, bytes: usize, stream: RawStream) -> Result<()> {
        self.stream(stream)?.submit(Step::Fill { to, value, bytes })
    }

    unsafe fn launch(&self, kernel: &Kernel, blocks: u32, stream: RawStream) -> Result<()> {
        self.stream(stream)?.submit(Step::Launch { kernel: *kernel, blocks })
    }

    fn module_load(&self, _image: &[u8]) -> Result<Option<RawModule>> {
        Ok(None)
    }

    fn module_unload(&self, _module: RawModule) {}

    fn module_function(&self, _module: RawModule, _name: &CStr) -> Result<FunctionInfo> {
        Err(no_kernels())
    }

    unsafe fn launch_function(
        &self,
        _function: RawFunction,
        _shape: &Shape,
        _arguments: &mut [*mut c_void],
        _stream: RawStream,
    ) -> Result<()> {
        Err(no_kernels())
    }

    fn launch_blocks(&self, function: BlockFunction, blocks: u32, stream: RawStream) -> Result<()> {
        self.stream(stream)?.submit(Step::Blocks { function, blocks })
    }

    unsafe fn resident_blocks(&self, _function: usize, _own: Entry, _threads: u32) -> Result<u32> {
        Ok(RESIDENT_BLOCKS)
    }

    unsafe fn launch_resident(&self, resident: &Resident, stream: RawStream) -> Result<()> {
        let (resident, run) =
            (*resident, self.pool.resident(resident.function, resident.kernel.entry(resident.blocks)));
        self.stream(stream)?.enqueue([Task::Function(Box::new(move || blocks::run_resident(&resident, run)))])
    }
}
