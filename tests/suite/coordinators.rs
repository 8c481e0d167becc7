//! Coordinators: operations on three streams, each as soon as what it comes after is done.

use std::collections::{HashMap, HashSet};

use super::support::*;
use gpumailbox::*;

fn coordinator(context: &Context, max_operations: u32) -> Coordinator {
    Coordinator::new(context, &CoordinatorOptions { max_operations, ..Default::default() }).unwrap()
}

/// A random program over cells of device memory: uploads to them, mixes of them, downloads. Operations come after just those
/// whose results or whose memory they need, so what runs beside what is the device's choice. Every download must bring what
/// the same program brings when its operations are done one after the other.
struct Program {
    coordinator: Coordinator,
    mix: ModuleKernel,
    cells: Vec<Cell>,
    /// Pinned and pageable, by turns.
    pinned: PinnedBuffer,
    pageable: Vec<u64>,
    /// Who uses a place in host memory.
    hosts: Vec<Option<OperationId>>,
    expected: HashMap<OperationId, (usize, [u64; WORDS])>,
    queued: HashSet<OperationId>,
    after: HashMap<OperationId, Vec<OperationId>>,
    /// Operations since all were done.
    since: u32,
}

struct Cell {
    memory: DeviceBuffer,
    /// What a sequential run has there.
    value: [u64; WORDS],
    written: Option<OperationId>,
    read: Vec<OperationId>,
}

const WORDS: usize = 4;
const CELLS: usize = 12;
const HOSTS: usize = 64;

impl Program {
    fn new(context: &Context, max_operations: u32) -> Self {
        let mix = kernels(context).kernel("mix").unwrap();
        let cell = || Cell {
            memory: upload(context, &[0u64; WORDS]),
            value: [0; WORDS],
            written: None,
            read: Vec::new(),
        };
        Self {
            coordinator: coordinator(context, max_operations),
            mix,
            cells: (0..CELLS).map(|_| cell()).collect(),
            pinned: context.pinned_buffer(8 * WORDS * HOSTS).unwrap(),
            pageable: vec![0; WORDS * HOSTS],
            hosts: vec![None; 2 * HOSTS],
            expected: HashMap::new(),
            queued: HashSet::new(),
            after: HashMap::new(),
            since: 0,
        }
    }

    fn host(&mut self, n: usize) -> *mut u64 {
        if n < HOSTS {
            unsafe { (self.pinned.address() as *mut u64).add(n * WORDS) }
        } else {
            unsafe { self.pageable.as_mut_ptr().add((n - HOSTS) * WORDS) }
        }
    }

    fn step(&mut self, random: &mut Random) {
        match random.between(0, 5) {
            0 => self.upload(random),
            1 => self.download(random),
            _ => self.compute(random),
        }
    }

    /// A place in host memory that nobody uses any more, and its old content checked.
    fn free_host(&mut self, random: &mut Random) -> usize {
        let n = random.between(0, 2 * HOSTS as u64 - 1) as usize;
        if let Some(last) = self.hosts[n].take() {
            match self.coordinator.wait(last, Some(LIMIT)) {
                Ok(done) => assert_eq!(done.operation, last),
                // Forgotten, so it was done.
                Err(error) => assert_eq!(error.status(), GMB_ERROR_INVALID_HANDLE),
            }
            self.check(last);
        }
        n
    }

    fn check(&mut self, download: OperationId) {
        let Some((host, value)) = self.expected.remove(&download) else { return };
        let at = self.host(host);
        let words: [u64; WORDS] = std::array::from_fn(|n| unsafe { at.add(n).read_volatile() });
        assert_eq!(words, value, "{download:?} to host place {host}");
    }

    /// Everything that is done is told once, and after what it came after.
    fn poll(&mut self, most: usize) {
        for done in self.coordinator.poll(most).unwrap() {
            assert_eq!((done.status, done.cause), (GMB_OK, None));
            assert!(self.queued.remove(&done.operation), "told twice: {done:?}");
            for before in self.after.remove(&done.operation).unwrap() {
                assert!(!self.queued.contains(&before), "{done:?} was told before {before:?}");
            }
        }
    }

    fn queue(&mut self, work: Work, after: Vec<OperationId>, random: &mut Random) -> OperationId {
        let mut given = after.clone();
        // Those that it does not need do no harm, nor do those that are given twice.
        for _ in 0..random.between(0, 2) {
            given.extend(after.iter().copied().next());
        }
        self.make_room(random);
        let id = unsafe { self.coordinator.queue(work, &given) }.unwrap();
        assert!(self.queued.insert(id), "an id was given out twice");
        self.after.insert(id, after);
        id
    }

    fn upload(&mut self, random: &mut Random) {
        let (host, cell) = (self.free_host(random), random.between(0, CELLS as u64 - 1) as usize);
        let value: [u64; WORDS] = std::array::from_fn(|_| random.next());
        let at = self.host(host);
        for (n, &word) in value.iter().enumerate() {
            unsafe { at.add(n).write_volatile(word) };
        }
        let to = Place::Address(self.cells[cell].memory.address());
        let work = Work::Upload { to, from: at as u64, bytes: 8 * WORDS as u64 };
        let id = self.queue(work, self.before_write(cell), random);
        self.wrote(cell, id, value);
        self.hosts[host] = Some(id);
    }

    fn download(&mut self, random: &mut Random) {
        let (host, cell) = (self.free_host(random), random.between(0, CELLS as u64 - 1) as usize);
        let at = self.host(host);
        for n in 0..WORDS {
            unsafe { at.add(n).write_volatile(0xCDCD_CDCD_CDCD_CDCD) };
        }
        let from = Place::Address(self.cells[cell].memory.address());
        let work = Work::Download { to: at as u64, from, bytes: 8 * WORDS as u64 };
        let after = self.cells[cell].written.into_iter().collect();
        let id = self.queue(work, after, random);
        self.cells[cell].read.push(id);
        self.hosts[host] = Some(id);
        self.expected.insert(id, (host, self.cells[cell].value));
    }

    fn compute(&mut self, random: &mut Random) {
        let [to, a, b] = [(); 3].map(|()| random.between(0, CELLS as u64 - 1) as usize);
        let salt = random.next();
        let mut after = self.before_write(to);
        after.extend([a, b].iter().filter_map(|&cell| self.cells[cell].written));
        let address = |cell: usize| self.cells[cell].memory.address();
        let arguments = mix_arguments(address(to), address(a), address(b), salt, WORDS as u32);
        let (kernel, launch) = (self.mix.clone(), Launch::new(1, 32));
        let work =
            Work::Compute(Compute::Kernel { kernel: &kernel, launch, arguments: &arguments, triple: None });
        let of = |cell: usize, n: usize| self.cells[cell].value[n];
        let value = std::array::from_fn(|n| mixed(of(a, n), of(b, n), salt, n as u64));
        let id = self.queue(work, after, random);
        for cell in [a, b] {
            self.cells[cell].read.push(id);
        }
        self.wrote(to, id, value);
    }

    /// As many as may be are in flight: the oldest ones have to end.
    fn make_room(&mut self, random: &mut Random) {
        let info = self.coordinator.info();
        // The bound is on all since the oldest that is not done, however many of them are.
        self.since += 1;
        if self.since * 2 > info.max_operations {
            self.coordinator.synchronize(Some(LIMIT)).unwrap();
            self.since = 0;
        }
        if random.between(0, 7) == 0 {
            let most = random.between(1, 200) as usize;
            self.poll(most);
        }
        // What nobody polls for is dropped.
        if self.queued.len() as u64 > u64::from(info.max_operations) {
            self.poll(usize::MAX);
        }
    }

    fn end(&mut self) {
        self.coordinator.synchronize(Some(LIMIT)).unwrap();
        let left: Vec<OperationId> = self.expected.keys().copied().collect();
        left.into_iter().for_each(|download| self.check(download));
        self.poll(usize::MAX);
        assert!(self.queued.is_empty(), "{} operations were never told", self.queued.len());
        let info = self.coordinator.info();
        assert_eq!(info.in_flight, 0);
        assert!(info.events <= info.high_water, "{info:?}");
    }

    fn before_write(&self, cell: usize) -> Vec<OperationId> {
        let cell = &self.cells[cell];
        cell.read.iter().copied().chain(cell.written).collect()
    }

    fn wrote(&mut self, cell: usize, id: OperationId, value: [u64; WORDS]) {
        let cell = &mut self.cells[cell];
        cell.written = Some(id);
        cell.read.clear();
        cell.value = value;
    }
}

/// A tenth of the operations that the records are: a million by default.
#[test]
fn random_graphs_do_what_a_sequential_run_does() {
    let (context, mut random) = (context(), Random::new());
    let mut left = total_records() / 10;
    for max_operations in [0, 64, 700] {
        let mut program = Program::new(&context, max_operations);
        let share = left / if max_operations == 0 { 2 } else { 4 };
        for _ in 0..share {
            program.step(&mut random);
        }
        program.end();
        left -= share;
    }
}

/// Against the order in which the streams are looked at, too.
#[test]
fn an_operation_is_told_after_those_that_it_came_after() {
    let context = context();
    let coordinator = coordinator(&context, 0);
    let memory = poisoned(&context, 64, POISON);
    let pinned = context.pinned_buffer(128).unwrap();
    let place = || Place::Address(memory.address());
    let nothing = || Work::Compute(Compute::Callback(Box::new(|_, _| Ok(()))));
    let queue = |work, after: &[OperationId]| unsafe { coordinator.queue(work, after) }.unwrap();
    for _ in 0..20 {
        let mut ids = vec![queue(Work::Download { to: pinned.address(), from: place(), bytes: 64 }, &[])];
        for _ in 0..5 {
            let compute = queue(nothing(), &ids[ids.len() - 1..]);
            let upload = Work::Upload { to: place(), from: pinned.address() + 64, bytes: 64 };
            ids.extend([compute, queue(upload, &[compute])]);
        }
        for step in [Step::Upload, Step::Process, Step::Download] {
            context.synchronize(coordinator.stream(step)).unwrap();
        }
        let told: Vec<OperationId> =
            coordinator.poll(usize::MAX).unwrap().iter().map(|one| one.operation).collect();
        assert_eq!(told, ids);
    }
}
