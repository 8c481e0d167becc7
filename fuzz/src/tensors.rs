//! Tensors that are pushed, and what must come of each: nobody ends it too early, and in the end it was ended once.

use std::collections::VecDeque;
use std::ffi::{c_char, c_void, CStr, CString};
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicU32, Ordering};

use gpumailbox::*;

use crate::arena::SOURCE;
use crate::input::Input;
use crate::model::Policy;
use crate::world::Table;

pub struct Inbox {
    pub context: usize,
    pub on_device: bool,
    pub policy: Policy,
    pub capacity: u64,
    /// Tensors in it with their indices; of a device consumer also those that were taken.
    pub queue: VecDeque<(u64, usize)>,
    pub next: u64,
    /// Index of the next tensor that nobody has taken, of a device consumer.
    pub taken: u64,
    pub pushed: u64,
    pub popped: u64,
    pub refused: u64,
    pub dropped: u64,
    pub view: Option<gmb_tensor_view>,
    /// Streams whose kernels take its tensors.
    pub users: Vec<u64>,
}

impl Inbox {
    pub fn has_room(&self) -> bool {
        match self.on_device {
            true => self.queue.front().is_none_or(|&(oldest, _)| self.next - oldest < self.capacity),
            false => (self.queue.len() as u64) < self.capacity,
        }
    }
}

/// What a lease was made into.
pub enum Export {
    Versioned(*mut DLManagedTensorVersioned),
    Legacy(*mut DLManagedTensor),
    Array(Box<ArrowDeviceArray>),
    /// Moved out of its parent.
    Child(Box<ArrowArray>),
    Schema(Box<ArrowSchema>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Versioned,
    Legacy,
    Arrow,
}

/// A tensor with its owner.
pub struct Probe {
    pub kind: Kind,
    pub record: gmb_tensor,
    /// What its push gives when all else is good.
    pub status: i32,
    pub mailbox: Option<usize>,
    /// The library has it, or had it.
    pub is_taken: bool,
    /// Nobody needs it any more.
    pub may_end: bool,
    /// Handles, managed tensors and arrays of its lease.
    pub holders: u32,
    pub users: Vec<u64>,
    pub versioned: DLManagedTensorVersioned,
    pub legacy: DLManagedTensor,
    pub array: ArrowDeviceArray,
    pub schema: ArrowSchema,
    has_deleter: bool,
    shape: [i64; 9],
    strides: [i64; 9],
    levels: Vec<Level>,
    ended: Box<AtomicU32>,
    schemas_ended: Box<AtomicU32>,
}

/// A level below the outermost of an array.
struct Level {
    array: ArrowArray,
    schema: ArrowSchema,
    children: (*mut ArrowArray, *mut ArrowSchema),
    buffers: [*const c_void; 2],
    format: CString,
}

unsafe extern "C" fn end_versioned(managed: *mut DLManagedTensorVersioned) {
    // SAFETY: a probe's, whose counter it names.
    unsafe { (*(*managed).manager_ctx.cast::<AtomicU32>()).fetch_add(1, Ordering::SeqCst) };
}

unsafe extern "C" fn end_legacy(managed: *mut DLManagedTensor) {
    // SAFETY: as above.
    unsafe { (*(*managed).manager_ctx.cast::<AtomicU32>()).fetch_add(1, Ordering::SeqCst) };
}

unsafe extern "C" fn end_array(array: *mut ArrowArray) {
    // SAFETY: as above.
    unsafe {
        (*(*array).private_data.cast::<AtomicU32>()).fetch_add(1, Ordering::SeqCst);
        (*array).release = None;
    }
}

unsafe extern "C" fn end_schema(schema: *mut ArrowSchema) {
    // SAFETY: as above.
    unsafe {
        (*(*schema).private_data.cast::<AtomicU32>()).fetch_add(1, Ordering::SeqCst);
        (*schema).release = None;
    }
}

/// Arrow's formats, and the dtypes that they are.
pub const FORMATS: [(&CStr, u8, u8); 11] = [
    (c"c", 0, 8),
    (c"C", 1, 8),
    (c"s", 0, 16),
    (c"S", 1, 16),
    (c"i", 0, 32),
    (c"I", 1, 32),
    (c"l", 0, 64),
    (c"L", 1, 64),
    (c"e", 2, 16),
    (c"f", 2, 32),
    (c"g", 2, 64),
];

pub fn compact(shape: &[i64]) -> [i64; 8] {
    let mut strides = [0; 8];
    let mut step = 1i64;
    for i in (0..shape.len()).rev() {
        strides[i] = step;
        step = step.saturating_mul(shape[i].max(1));
    }
    strides
}

fn counter(of: &AtomicU32) -> *mut c_void {
    std::ptr::from_ref(of).cast_mut().cast()
}

fn no_tensor() -> DLTensor {
    DLTensor {
        data: null_mut(),
        device: DLDevice { device_type: 1, device_id: 0 },
        ndim: 0,
        dtype: gmb_dtype { code: 0, bits: 8, lanes: 1 },
        shape: null_mut(),
        strides: null_mut(),
        byte_offset: 0,
    }
}

fn array_of(length: i64, counter: *mut c_void) -> ArrowArray {
    ArrowArray {
        length,
        null_count: 0,
        offset: 0,
        n_buffers: 1,
        n_children: 0,
        buffers: null_mut(),
        children: null_mut(),
        dictionary: null_mut(),
        release: Some(end_array),
        private_data: counter,
    }
}

fn schema_of(format: *const c_char, counter: *mut c_void) -> ArrowSchema {
    ArrowSchema {
        format,
        name: null(),
        metadata: null(),
        flags: 0,
        n_children: 0,
        children: null_mut(),
        dictionary: null_mut(),
        release: Some(end_schema),
        private_data: counter,
    }
}

impl Probe {
    fn empty(kind: Kind) -> Box<Self> {
        let (ended, schemas_ended) = (Box::new(AtomicU32::new(0)), Box::new(AtomicU32::new(0)));
        let version = DLPackVersion { major: 1, minor: 3 };
        let (of, of_schema) = (counter(&ended), counter(&schemas_ended));
        let deleter = Some(end_versioned as unsafe extern "C" fn(_));
        let dl_tensor = no_tensor();
        Box::new(Self {
            kind,
            record: gmb_tensor {
                address: 0,
                byte_offset: 0,
                tag: 0,
                device_type: 1,
                device_id: 0,
                dtype: dl_tensor.dtype,
                ndim: 0,
                flags: 0,
                shape: [0; 8],
                strides: [0; 8],
            },
            status: GMB_OK,
            mailbox: None,
            is_taken: false,
            may_end: false,
            holders: 0,
            users: Vec::new(),
            versioned: DLManagedTensorVersioned { version, manager_ctx: of, deleter, flags: 0, dl_tensor },
            legacy: DLManagedTensor { dl_tensor, manager_ctx: of, deleter: Some(end_legacy) },
            array: ArrowDeviceArray {
                array: array_of(0, of),
                device_id: -1,
                device_type: 1,
                sync_event: null_mut(),
                reserved: [0; 3],
            },
            schema: schema_of(null(), of_schema),
            has_deleter: true,
            shape: [1; 9],
            strides: [1; 9],
            levels: Vec::new(),
            ended,
            schemas_ended,
        })
    }

    /// A tensor somewhere in the source.
    pub fn dlpack(input: &mut Input, source: u64, kind: Kind) -> Box<Self> {
        let mut probe = Self::empty(kind);
        let ndim = input.choose(&[1, 2, 0, 3, 2, 8, 4]);
        let dtype =
            input.choose(&[(2, 32, 1), (0, 8, 1), (1, 64, 1), (4, 16, 1), (2, 16, 2), (17, 4, 1), (6, 8, 1)]);
        let record = &mut probe.record;
        record.address = source + SOURCE / 2 + input.below(64) as u64;
        record.byte_offset = input.choose(&[0, 0, 16, 3]);
        record.dtype = gmb_dtype { code: dtype.0, bits: dtype.1, lanes: dtype.2 };
        record.ndim = ndim as i32;
        for i in 0..ndim {
            // What many dimensions have stays in the source, too.
            record.shape[i] =
                if ndim > 4 { 1 + input.below(2) as i64 } else { input.choose(&[2, 3, 1, 4, 0, 2]) };
        }
        record.flags = if kind == Kind::Versioned { input.choose(&[0, 0, 1, 2, 4, 1 << 40]) } else { 0 };
        let plain = compact(&record.shape[..ndim]);
        record.strides = match input.below(5) {
            // Backwards, and side by side.
            1 => plain.map(|step| -step),
            2 => [0; 8],
            3 => plain.map(|step| step / 2),
            _ => plain,
        };
        for step in &mut record.strides[ndim..] {
            *step = 0;
        }
        if ndim > 1 && input.chance(8) {
            // One element, seen from everywhere.
            record.shape[..2].fill(i64::MAX);
            record.strides = [0; 8];
        }
        if record.shape[..ndim].contains(&0) && input.chance(64) {
            record.address = 0;
        }
        let record = probe.record;
        probe.shape[..8].copy_from_slice(&record.shape);
        probe.strides[..8].copy_from_slice(&record.strides);
        let without_strides = record.strides[..ndim] == plain[..ndim] && input.chance(128);
        let tensor = DLTensor {
            data: record.address as *mut c_void,
            device: DLDevice { device_type: 1, device_id: 0 },
            ndim: record.ndim,
            dtype: record.dtype,
            shape: if ndim == 0 { null_mut() } else { probe.shape.as_mut_ptr() },
            strides: if without_strides || ndim == 0 { null_mut() } else { probe.strides.as_mut_ptr() },
            byte_offset: record.byte_offset,
        };
        (probe.versioned.dl_tensor, probe.versioned.flags) = (tensor, record.flags);
        probe.legacy.dl_tensor = tensor;
        if input.chance(4) {
            (probe.versioned.deleter, probe.legacy.deleter, probe.has_deleter) = (None, None, false);
        }
        if input.chance(40) {
            probe.spoil(input);
        }
        probe
    }

    fn spoil(&mut self, input: &mut Input) {
        let mut tensor = self.versioned.dl_tensor;
        let is_empty = self.record.shape[..tensor.ndim as usize].contains(&0);
        self.status = match input.below(13) {
            0 if self.kind == Kind::Versioned => {
                self.versioned.version.major = input.choose(&[0, 2, u32::MAX]);
                tensor.shape = 8 as *mut i64;
                GMB_ERROR_BAD_VERSION
            }
            1 => {
                tensor.ndim = input.choose(&[9, i32::MAX]);
                GMB_ERROR_NOT_SUPPORTED
            }
            2 => {
                tensor.ndim = input.choose(&[-1, i32::MIN]);
                GMB_ERROR_INVALID_ARGUMENT
            }
            3 => {
                tensor.dtype.code = input.choose(&[18, 255]);
                GMB_ERROR_INVALID_ARGUMENT
            }
            4 => {
                tensor.dtype.bits = 0;
                GMB_ERROR_INVALID_ARGUMENT
            }
            5 => {
                tensor.dtype.lanes = 0;
                GMB_ERROR_INVALID_ARGUMENT
            }
            6 => {
                tensor.device.device_type = input.choose(&[0, 2, 3, 13, -1]);
                GMB_ERROR_INVALID_DEVICE
            }
            7 => {
                tensor.device.device_id = input.choose(&[1, -1, i32::MAX]);
                GMB_ERROR_INVALID_DEVICE
            }
            8 if tensor.ndim > 0 => {
                self.shape[input.below(tensor.ndim as usize)] = input.choose(&[-1, i64::MIN]);
                GMB_ERROR_INVALID_ARGUMENT
            }
            9 if tensor.ndim > 0 => {
                tensor.shape = null_mut();
                GMB_ERROR_NULL_POINTER
            }
            10 if tensor.ndim > 0 => {
                tensor.shape = tensor.shape.wrapping_byte_add(4);
                GMB_ERROR_MISALIGNED
            }
            11 if !is_empty && self.record.strides.iter().all(|&step| step >= 0) => {
                tensor.data = null_mut();
                GMB_ERROR_NULL_POINTER
            }
            12 if !is_empty => {
                tensor.byte_offset = input.choose(&[u64::MAX, 1 << 63, u64::MAX - 4096]);
                GMB_ERROR_OVERFLOW
            }
            _ => GMB_OK,
        };
        self.versioned.dl_tensor = tensor;
        self.legacy.dl_tensor = tensor;
    }

    /// Lists of lists of numbers somewhere in the source.
    pub fn arrow(input: &mut Input, source: u64) -> Box<Self> {
        let mut probe = Self::empty(Kind::Arrow);
        let depth = input.choose(&[1, 2, 3, 1, 8]);
        let (format, code, bits) = input.choose(&FORMATS);
        let most = if depth > 4 { 2 } else { 5 };
        let sizes: Vec<i64> = (0..depth).map(|_| [2, 1, 3, 4, 0][input.below(most)]).collect();
        // Before the first; other levels have what these reach for.
        let skipped = input.choose(&[0i64, 0, 1, 2]);
        let (ended, schemas_ended) = (counter(&probe.ended), counter(&probe.schemas_ended));
        let (mut first, mut length) = (skipped, sizes[0]);
        for &size in &sizes[1..] {
            (first, length) = (first * size, length * size);
            probe.levels.push(Level {
                array: array_of(first + length, ended),
                schema: schema_of(null(), schemas_ended),
                children: (null_mut(), null_mut()),
                buffers: [null(); 2],
                format: CString::default(),
            });
        }
        probe.levels.insert(
            0,
            Level {
                array: array_of(sizes[0], ended),
                schema: schema_of(null(), schemas_ended),
                children: (null_mut(), null_mut()),
                buffers: [null(); 2],
                format: CString::default(),
            },
        );
        let data = source + SOURCE / 4;
        for level in (0..depth).rev() {
            let next =
                probe.levels.get_mut(level + 1).map(|next| (&raw mut next.array, &raw mut next.schema));
            let this = &mut probe.levels[level];
            if let Some(children) = next {
                this.children = children;
                this.format = CString::new(format!("+w:{}", sizes[level + 1])).expect("no NUL");
                this.array.children = &raw mut this.children.0;
                this.schema.children = &raw mut this.children.1;
                (this.array.n_children, this.schema.n_children) = (1, 1);
            } else {
                this.buffers[1] = data as *const c_void;
                this.array.n_buffers = 2;
                this.format = format.to_owned();
            }
            this.array.buffers = this.buffers.as_mut_ptr();
            this.schema.format = this.format.as_ptr();
        }
        let record = &mut probe.record;
        (record.address, record.byte_offset) = (data, first as u64 * u64::from(bits / 8));
        record.dtype = gmb_dtype { code, bits, lanes: 1 };
        record.ndim = depth as i32;
        record.shape[..depth].copy_from_slice(&sizes);
        record.strides = compact(&sizes);
        let outermost = &mut probe.levels[0];
        outermost.array.offset = skipped;
        // SAFETY: plain structs; the copies in the levels are never ended.
        unsafe {
            probe.array.array = std::ptr::read(&outermost.array);
            probe.schema = std::ptr::read(&outermost.schema);
        }
        if input.chance(40) {
            probe.spoil_arrow(input);
        }
        probe
    }

    fn spoil_arrow(&mut self, input: &mut Input) {
        let innermost = self.levels.len() - 1;
        let has_some = !self.record.shape[..self.record.ndim as usize].contains(&0);
        let array = &mut self.array.array;
        self.status = match input.below(13) {
            0 => {
                array.length = input.choose(&[-1, i64::MIN]);
                GMB_ERROR_INVALID_ARGUMENT
            }
            1 => {
                array.offset = input.choose(&[-1, i64::MIN]);
                GMB_ERROR_INVALID_ARGUMENT
            }
            2 => {
                array.n_buffers = input.choose(&[0, -1]);
                GMB_ERROR_INVALID_ARGUMENT
            }
            3 => {
                self.levels[0].buffers[0] = self.record.address as *const c_void;
                array.null_count = input.choose(&[1, -1]);
                GMB_ERROR_NOT_SUPPORTED
            }
            4 => {
                array.dictionary = &raw mut self.levels[0].array;
                GMB_ERROR_NOT_SUPPORTED
            }
            5 => {
                self.schema.format = input.choose(&[c"u", c"", c"+l", c"+w", c"+w:-", c"b", c"z"]).as_ptr();
                GMB_ERROR_NOT_SUPPORTED
            }
            6 => {
                self.array.device_type = input.choose(&[0, 2, 3, -1]);
                GMB_ERROR_INVALID_DEVICE
            }
            7 => {
                self.array.sync_event = counter(&self.ended);
                GMB_ERROR_INVALID_ARGUMENT
            }
            8 => {
                array.buffers = null_mut();
                GMB_ERROR_NULL_POINTER
            }
            9 if innermost > 0 => {
                array.n_children = input.choose(&[0, 2, -1]);
                GMB_ERROR_INVALID_ARGUMENT
            }
            10 if innermost > 0 => {
                self.levels[0].children.0 = null_mut();
                GMB_ERROR_NULL_POINTER
            }
            11 if innermost > 0 && has_some => {
                self.levels[innermost].array.length -= 1;
                GMB_ERROR_INVALID_ARGUMENT
            }
            12 if has_some => {
                self.levels[innermost].buffers[1] = null();
                GMB_ERROR_NULL_POINTER
            }
            _ => GMB_OK,
        };
    }

    pub fn ended(&self) -> u32 {
        self.ended.load(Ordering::SeqCst)
    }

    fn wanted(&self) -> u32 {
        u32::from(self.is_taken && self.has_deleter)
    }

    /// It is, or may already be, as the library must leave it.
    pub fn check(&self) {
        let most = if self.may_end { self.wanted() } else { 0 };
        assert!(self.ended() <= most, "{:?} was ended {} times, {most} at most", self.kind, self.ended());
        if self.kind == Kind::Arrow {
            let marked = (self.array.array.release.is_none(), self.schema.release.is_none());
            assert_eq!(marked, (self.is_taken, self.is_taken), "array and schema marked as released");
            assert_eq!(self.schemas_ended.load(Ordering::SeqCst), u32::from(self.is_taken));
        }
    }

    pub fn hold(&mut self) {
        assert!(self.is_taken && !self.may_end);
        self.holders += 1;
    }

    /// What was held may end. The library marks its streams then: they have work.
    pub fn let_go(&mut self) -> Vec<u64> {
        self.holders -= 1;
        self.may_end = self.holders == 0;
        if self.may_end {
            std::mem::take(&mut self.users)
        } else {
            Vec::new()
        }
    }
}

/// All tensors of a sequence.
pub struct Tensors {
    pub mailboxes: Table<Inbox>,
    /// Of which tensor each lease is.
    pub leases: Table<usize>,
    pub probes: Vec<Box<Probe>>,
    pub exports: Vec<(usize, Export)>,
}

impl Tensors {
    pub fn new() -> Self {
        Self {
            mailboxes: Table(Vec::new()),
            leases: Table(Vec::new()),
            probes: Vec::new(),
            exports: Vec::new(),
        }
    }

    /// Streams that must not be destroyed yet.
    pub fn need(&self, stream: u64) -> bool {
        self.probes.iter().any(|probe| probe.users.contains(&stream))
            || self.mailboxes.live().any(|at| self.mailboxes.0[at].it.users.contains(&stream))
    }

    pub fn check(&self) {
        self.probes.iter().for_each(|probe| probe.check());
    }

    /// Leases of a mailbox that are out.
    pub fn leases_of(&self, mailbox: usize) -> u64 {
        let of = |probe: &&Box<Probe>| probe.mailbox == Some(mailbox) && probe.holders > 0;
        self.probes.iter().filter(of).count() as u64
    }

    /// Tensors of a mailbox that have gone back, or are about to.
    pub fn ending(&self, mailbox: usize) -> u64 {
        let of = |probe: &&Box<Probe>| probe.mailbox == Some(mailbox) && probe.may_end;
        self.probes.iter().filter(of).count() as u64
    }

    pub fn are_back(&self) -> bool {
        self.probes.iter().all(|probe| probe.ended() == probe.wanted())
    }

    /// Nobody has anything of them any more.
    pub fn clear(&mut self) {
        self.check();
        assert!(self.exports.is_empty() && self.leases.live().next().is_none());
        for probe in self.probes.drain(..) {
            assert!(probe.may_end == probe.is_taken && probe.holders == 0);
            assert_eq!(probe.ended(), probe.wanted(), "a tensor that was pushed is to be ended once");
            if probe.is_taken && !probe.has_deleter {
                // Nobody says when the library has looked for its deleter.
                Box::leak(probe);
            }
        }
        self.mailboxes.0.clear();
        self.leases.0.clear();
    }
}
