//! Lists of lists of numbers as Arrow has them, good and spoilt.

use std::ffi::{c_void, CStr, CString};
use std::ptr::{null, null_mut};

use gpumailbox::*;

use super::{array_of, compact, counter, schema_of, Kind, Probe};
use crate::arena::SOURCE;
use crate::input::Input;

/// A level below the outermost of an array.
pub struct Level {
    array: ArrowArray,
    schema: ArrowSchema,
    children: (*mut ArrowArray, *mut ArrowSchema),
    buffers: [*const c_void; 2],
    format: CString,
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

impl Probe {
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
}
