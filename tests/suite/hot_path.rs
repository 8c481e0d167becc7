//! What the library asks of the driver once everything is warm: one launch and a
//! few cheap calls for each operation; nothing is made, freed or waited for.
//!
//! Each case runs in a child process whose libcuda.so.1 counts the calls: on the
//! host a made-up driver that works, on a GPU a shim before the real one. Both are
//! compiled here from what this program carries with it.

use super::support::*;
use gpumailbox::*;
use std::collections::BTreeMap;
use std::ffi::{c_int, c_uint, c_void, CStr};
use std::path::{Path, PathBuf};

/// Set in a child: what it shall do.
const CHILD: &str = "GMB_TEST_HOT_PATH";
/// For the shim: the driver behind it.
const REAL: &str = "GMB_REAL_DRIVER";

const WARM: usize = 200;
const ROUNDS: usize = 2000;
/// Records of one operation.
const RECORDS: u32 = 8;

/// The file that the loader takes for the driver.
fn installed_driver() -> PathBuf {
    let driver = Loaded::new(Path::new("libcuda.so.1"), 0).expect("no driver to count the calls of");
    let mut found: libc::Dl_info = unsafe { std::mem::zeroed() };
    assert_ne!(unsafe { libc::dladdr(driver.find("cuInit").unwrap(), &mut found) }, 0);
    let path = unsafe { CStr::from_ptr(found.dli_fname) };
    std::fs::canonicalize(path.to_str().unwrap()).unwrap()
}

/// Streams that the library did not make, with their context current.
struct Foreign<'a> {
    driver: &'a Loaded,
    streams: Vec<*mut c_void>,
}

impl<'a> Foreign<'a> {
    fn new(driver: &'a Loaded) -> Self {
        type Retain = unsafe extern "C" fn(*mut *mut c_void, c_int) -> c_int;
        type Push = unsafe extern "C" fn(*mut c_void) -> c_int;
        type Create = unsafe extern "C" fn(*mut *mut c_void, c_uint) -> c_int;
        let mut context = std::ptr::null_mut();
        let make = |blocking: c_uint| {
            let mut stream = std::ptr::null_mut();
            assert_eq!(unsafe { driver.function::<Create>("cuStreamCreate")(&mut stream, blocking) }, 0);
            stream
        };
        unsafe {
            assert_eq!(driver.function::<Retain>("cuDevicePrimaryCtxRetain")(&mut context, 0), 0);
            assert_eq!(driver.function::<Push>("cuCtxPushCurrent_v2")(context), 0);
        }
        Self { driver, streams: [0, 1, 0, 1].map(make).to_vec() }
    }
}

impl Drop for Foreign<'_> {
    fn drop(&mut self) {
        type Destroy = unsafe extern "C" fn(*mut c_void) -> c_int;
        type Pop = unsafe extern "C" fn(*mut *mut c_void) -> c_int;
        type Release = unsafe extern "C" fn(c_int) -> c_int;
        for &stream in &self.streams {
            assert_eq!(unsafe { self.driver.function::<Destroy>("cuStreamDestroy_v2")(stream) }, 0);
        }
        let mut context = std::ptr::null_mut();
        unsafe {
            assert_eq!(self.driver.function::<Pop>("cuCtxPopCurrent_v2")(&mut context), 0);
            assert_eq!(self.driver.function::<Release>("cuDevicePrimaryCtxRelease_v2")(0), 0);
        }
    }
}

/// A mailbox with what goes in and comes out in each round.
struct Lane {
    mailbox: Mailbox,
    records: [Vec<Item>; 2],
    batches: [Batch; 2],
    outlets: [Outlet; 2],
    tokens: [Token; 2],
}

impl Lane {
    /// Pushes and pops of one round.
    const OPERATIONS: usize = 4;

    fn new(context: &Context, capacity: u64, full_policy: FullPolicy, mode: Mode) -> Self {
        let options = MailboxOptions { capacity, payload_bytes: 48, full_policy, mode, ..Default::default() };
        let mailbox = Mailbox::new(context, &options).unwrap();
        let record = |n: u32| Item { bytes: vec![n as u8; (n as usize * 7) % 49], msg_type: n };
        let records = [1, 101].map(|first| (first..first + RECORDS).map(record).collect::<Vec<_>>());
        Self {
            batches: [0, 1].map(|n| Batch::new(context, &mailbox, &records[n])),
            outlets: [0, 1].map(|_| Outlet::new(context, &mailbox, RECORDS)),
            tokens: [0, 1].map(|_| Token::new(context).unwrap()),
            records,
            mailbox,
        }
    }

    /// Every operation on another stream than the one before. Where nobody
    /// waits for a token the next one finds it under way.
    fn round<'s>(&self, round: usize, at: impl Fn(usize) -> Stream<'s>) {
        let asked = round % 2 == 0;
        let token = &self.tokens[0];
        unsafe {
            self.mailbox.push(&self.batches[0].push, at(0), None).unwrap();
            self.mailbox.push(&self.batches[1].push, at(1), asked.then_some(token)).unwrap();
            self.mailbox.pop(&self.outlets[0].pop, at(2), None).unwrap();
            self.mailbox.pop(&self.outlets[1].pop, at(3), Some(&self.tokens[1])).unwrap();
        }
        if asked {
            assert_eq!(token.wait(After::Submission, None).unwrap().count, RECORDS);
        }
        assert_eq!(self.tokens[1].wait(After::Submission, None).unwrap().count, RECORDS);
    }

    fn check(&self, context: &Context) {
        let mut got = self.outlets.each_ref().map(|outlet| outlet.records(context, RECORDS).0);
        // Of a shared mailbox either push may be the first, and either pop.
        if self.mailbox.info().unwrap().mode == Mode::Shared {
            got.sort_by_key(|records| records[0].msg_type);
        }
        assert_eq!(got, self.records);
    }
}

/// What a child does: opens a context, warms up and counts. Says how that went.
fn act_as_child() -> bool {
    let Ok(what) = std::env::var(CHILD) else { return false };
    // A child that hangs ends by itself: whoever stops the parent does not reach it.
    unsafe { libc::alarm(50) };
    match Context::new(&ContextOptions { backend: BackendKind::Cuda, ..Default::default() }) {
        Ok(context) if what == "coordinator" => measure_coordinator(&context),
        Ok(context) => measure(&context, &what),
        Err(error) => println!("child: status {}", error.status()),
    }
    true
}

fn measure(context: &Context, what: &str) {
    let driver = Loaded::new(Path::new("libcuda.so.1"), libc::RTLD_NOLOAD).unwrap();
    let own = streams::<4>(context);
    let foreign = (what == "foreign").then(|| Foreign::new(&driver));
    let streams: Vec<Stream> = match &foreign {
        Some(foreign) => foreign.streams.iter().map(|&raw| unsafe { Stream::from_raw(raw) }).collect(),
        None => own.iter().map(OwnedStream::get).collect(),
    };
    // One refuses what does not fit, one is always full, and of one the operations run beside each other.
    let lanes = [
        Lane::new(context, 64, FullPolicy::Reject, Mode::Ordered),
        Lane::new(context, u64::from(2 * RECORDS), FullPolicy::OverwriteOldest, Mode::Ordered),
        Lane::new(context, 64, FullPolicy::Reject, Mode::Shared),
    ];
    let event = context.event(EventKind::Untimed).unwrap();
    let mut kept = Vec::new();
    let mut rounds = |count: usize| {
        for round in 0..count {
            for (n, lane) in lanes.iter().enumerate() {
                lane.round(round, |turn| streams[(round + n + turn) % streams.len()]);
            }
            event.record(streams[round % 4]).unwrap();
            event.make_wait(streams[(round + 1) % 4]).unwrap();
            if what == "wasteful" {
                kept.push(context.event(EventKind::Untimed).unwrap());
                context.synchronize(streams[0]).unwrap();
            }
        }
    };
    rounds(WARM);
    let before = driver.calls();
    rounds(ROUNDS);
    let after = driver.calls();
    lanes.iter().for_each(|lane| lane.check(context));
    for (name, calls) in after {
        println!("child: {name} {}", calls - before[name]);
    }
    // Behind a shim the made-up driver counts, too.
    let real = std::env::var_os(REAL).and_then(|path| Loaded::new(Path::new(&path), libc::RTLD_NOLOAD));
    if let Some(real) = real.filter(|real| real.find("gmb_driver_calls").is_some()) {
        assert_eq!(real.calls(), driver.calls());
        println!("child: agreed 1");
    }
}

/// Uploads, kernels and downloads of a coordinator, and looks at what is done.
const TRIOS: usize = 100;
const LOOKS: usize = 20;

fn measure_coordinator(context: &Context) {
    let driver = Loaded::new(Path::new("libcuda.so.1"), libc::RTLD_NOLOAD).unwrap();
    let coordinator = Coordinator::new(context, &CoordinatorOptions::default()).unwrap();
    let kernel = kernels(context).kernel("mix").unwrap();
    let (memory, host) = (context.device_buffer(64).unwrap(), context.pinned_buffer(64).unwrap());
    let (device, from, to) = (memory.address(), host.address(), host.address() + 32);
    let arguments = mix_arguments(device, device, device, 1, 4);
    let rounds = |count: usize| {
        for _ in 0..count {
            for _ in 0..TRIOS {
                let (launch, arguments) = (Launch::new(1, 32), &arguments);
                let compute = Compute::Kernel { kernel: &kernel, launch, arguments, triple: None };
                unsafe {
                    let upload = Work::Upload { to: Place::Address(device), from, bytes: 32 };
                    let first = coordinator.queue(upload, &[]).unwrap();
                    let second = coordinator.queue(Work::Compute(compute), &[first]).unwrap();
                    let download = Work::Download { to, from: Place::Address(device), bytes: 32 };
                    coordinator.queue(download, &[first, second]).unwrap();
                }
            }
            for step in [Step::Upload, Step::Process, Step::Download] {
                context.synchronize(coordinator.stream(step)).unwrap();
            }
            assert_eq!(coordinator.poll(usize::MAX).unwrap().len(), 3 * TRIOS);
            assert!(coordinator.poll(usize::MAX).unwrap().is_empty());
        }
    };
    rounds(2);
    let before = driver.calls();
    rounds(LOOKS);
    for (name, calls) in driver.calls() {
        println!("child: {name} {}", calls - before[name]);
    }
}

/// The operations of all rounds that count.
const OPERATIONS: u64 = (ROUNDS * 3 * Lane::OPERATIONS) as u64;

/// What a child counted, or `None` if the library has no kernels.
fn count(test: &str, what: &str, library: &Library, real: Option<&Path>) -> Option<BTreeMap<String, u64>> {
    let (name, folders) = library.search_path();
    let mut environment = vec![(CHILD, what), (name, folders.as_str())];
    environment.extend(real.map(|path| (REAL, path.to_str().unwrap())));
    // What is counted is what a program does that has not asked for checks.
    let child = Child::run(&format!("hot_path::{test}"), &environment, &["GMB_CHECK_POINTERS"]);
    let text = &child.text;
    let counts: BTreeMap<String, i64> =
        child.answers().map(|(name, count)| (name.to_owned(), count.parse().unwrap())).collect();
    if !cfg!(gmb_kernels) {
        assert_eq!(counts.get("status"), Some(&i64::from(GMB_ERROR_NO_KERNELS)), "{text}");
        return None;
    }
    assert!(counts.contains_key("cuLaunchKernel"), "{text}");
    Some(counts.into_iter().map(|(name, count)| (name, count as u64)).collect())
}

/// Counts calls of the driver under test.
fn count_here(test: &str, what: &str) -> Option<BTreeMap<String, u64>> {
    match backend() {
        BackendKind::Cuda => count(test, what, &Library::shim(test), Some(&installed_driver())),
        _ => count(test, what, &Library::made_up(test), None),
    }
}

/// The event's own calls in each round: a record and a wait, each with a look at its stream.
fn of_the_event(name: &str) -> u64 {
    match name {
        "cuCtxGetCurrent" | "cuCtxGetId" | "cuCtxPopCurrent_v2" | "cuCtxPushCurrent_v2" => 4,
        "cuStreamGetId" | "cuStreamIsCapturing" => 2,
        "cuEventRecord" | "cuStreamWaitEvent" => 1,
        _ => 0,
    }
}

/// Prints what the operations called, and names what is too much.
fn complaints(what: &str, counts: &BTreeMap<String, u64>) -> Vec<String> {
    println!("{what}: {OPERATIONS} pushes and pops");
    let mut complaints = Vec::new();
    for (name, &calls) in counts.iter().filter(|(name, &calls)| name.starts_with("cu") && calls > 0) {
        let calls = calls.saturating_sub(ROUNDS as u64 * of_the_event(name));
        println!("  {name:<20} {calls:>6}, {:.3} per operation", calls as f64 / OPERATIONS as f64);
        let most = match name.as_str() {
            "cuLaunchKernel" | "cuStreamGetId" | "cuStreamIsCapturing" | "cuEventRecord" => OPERATIONS,
            // For the operations of its own side, and for the other side's.
            "cuStreamWaitEvent" => 2 * OPERATIONS,
            // However often a thread asks while it waits for a token.
            "cuStreamQuery" | "cuThreadExchangeStreamCaptureMode" => u64::MAX,
            // With each of the others.
            "cuCtxGetCurrent" | "cuCtxGetId" | "cuCtxPopCurrent_v2" | "cuCtxPushCurrent_v2" => u64::MAX,
            _ => 0,
        };
        if calls > most {
            complaints.push(format!("{name}: {calls} calls after warm-up, at most {most} are due"));
        }
    }
    if counts["cuLaunchKernel"] != OPERATIONS {
        complaints.push(format!("cuLaunchKernel: {} calls for {OPERATIONS}", counts["cuLaunchKernel"]));
    }
    complaints
}

fn check(test: &str, what: &str) {
    let Some(counts) = count_here(test, what) else { return };
    let complaints = complaints(what, &counts);
    assert!(complaints.is_empty(), "{complaints:#?}");
    if backend() == BackendKind::Host {
        // Operations do find each other under way: the bound on waits says something.
        assert!(counts["cuStreamWaitEvent"] > ROUNDS as u64);
    }
}

#[test]
fn nothing_is_made_after_warm_up() {
    if !act_as_child() {
        check("nothing_is_made_after_warm_up", "own");
    }
}

#[test]
fn nothing_is_made_on_foreign_streams() {
    if !act_as_child() {
        check("nothing_is_made_on_foreign_streams", "foreign");
    }
}

/// The other tests can fail.
#[test]
fn what_is_made_is_noticed() {
    if act_as_child() {
        return;
    }
    let Some(counts) = count_here("what_is_made_is_noticed", "wasteful") else { return };
    let complaints = complaints("wasteful", &counts);
    for name in ["cuEventCreate", "cuStreamSynchronize", "cuStreamGetId"] {
        assert!(complaints.iter().any(|c| c.starts_with(name)), "{name}: {complaints:#?}");
    }
}

/// What is used on a GPU, tried where there is none.
#[test]
fn the_shim_passes_every_call_on() {
    let test = "the_shim_passes_every_call_on";
    if act_as_child() {
        return;
    }
    let (driver, shim) = (Library::made_up(test), Library::shim(test));
    for what in ["own", "foreign"] {
        let Some(counts) = count(test, what, &shim, Some(&driver.path())) else { return };
        assert_eq!(counts.get("agreed"), Some(&1));
        let complaints = complaints(what, &counts);
        assert!(complaints.is_empty(), "{complaints:#?}");
    }
}

/// An operation of a coordinator is the driver's own calls for it, and one question for each that is done: nothing is made.
#[test]
fn a_coordinator_asks_as_much_as_there_is_to_tell() {
    if act_as_child() {
        return;
    }
    let test = "a_coordinator_asks_as_much_as_there_is_to_tell";
    let Some(counts) = count_here(test, "coordinator") else { return };
    let trios = (TRIOS * LOOKS) as u64;
    let mut complaints = Vec::new();
    for (name, &calls) in counts.iter().filter(|(name, _)| name.starts_with("cu")) {
        let most = match name.as_str() {
            "cuLaunchKernel" => trios,
            "cuMemcpyAsync" => 2 * trios,
            "cuEventRecord" | "cuStreamGetId" | "cuStreamIsCapturing" => 3 * trios + 6 * LOOKS as u64,
            // A download waits for the kernel and the upload; for more than one upload only where there is a later one.
            "cuStreamWaitEvent" => 3 * trios,
            "cuEventQuery" => 3 * trios,
            "cuStreamSynchronize" => 3 * LOOKS as u64,
            "cuCtxGetCurrent" | "cuCtxGetId" | "cuCtxPopCurrent_v2" | "cuCtxPushCurrent_v2" => u64::MAX,
            "cuThreadExchangeStreamCaptureMode" => u64::MAX,
            _ => 0,
        };
        if calls > most {
            complaints.push(format!("{name}: {calls} calls for {trios} trios, at most {most} are due"));
        }
    }
    assert!(complaints.is_empty(), "{complaints:#?}");
    assert_eq!((counts["cuLaunchKernel"], counts["cuMemcpyAsync"]), (trios, 2 * trios));
}
