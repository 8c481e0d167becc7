//! A tensor that is pushed, with its owner: what its push must give, and whether it was ended as often as it should be.

mod arrow;
mod dlpack;

use std::ffi::{c_char, c_void};
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicU32, Ordering};

use gpumailbox::*;

use arrow::Level;
pub use arrow::FORMATS;

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
    pub has_deleter: bool,
    shape: [i64; 9],
    strides: [i64; 9],
    levels: Vec<Level>,
    ended: Box<AtomicU32>,
    schemas_ended: Box<AtomicU32>,
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

    pub fn ended(&self) -> u32 {
        self.ended.load(Ordering::SeqCst)
    }

    pub fn wanted(&self) -> u32 {
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
