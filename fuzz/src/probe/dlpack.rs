//! Tensors as DLPack has them, good and spoilt.

use std::ffi::c_void;
use std::ptr::null_mut;

use gpumailbox::*;

use super::{compact, Kind, Probe};
use crate::arena::SOURCE;
use crate::input::Input;

impl Probe {
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
}
