//! A memory pool of the device, for allocation in stream order, and what the driver knows of an address.

use std::ptr::null_mut;

use cudarc::driver::sys;

use super::capture::Relaxed;
use super::Cuda;
use crate::error::Result;

impl Cuda {
    /// Makes the pool, where the device has such.
    pub(super) fn create_pool(&mut self) -> Result<()> {
        let supported =
            self.attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED)?;
        if supported == 0 {
            return Ok(());
        }
        let properties = sys::CUmemPoolProps {
            allocType: sys::CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED,
            handleTypes: sys::CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_NONE,
            location: sys::CUmemLocation {
                type_: sys::CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE,
                id: self.device,
            },
            win32SecurityAttributes: null_mut(),
            reserved: [0; 64],
        };
        let mut pool = null_mut();
        // SAFETY: both pointers are valid and the properties are of this device.
        self.check(unsafe { sys::cuMemPoolCreate(&mut pool, &properties) }, "cuMemPoolCreate")?;
        self.pool = pool;
        // Freed memory stays in the pool until it is trimmed: going back to the device at every
        // synchronize would make the next allocation slow.
        let mut keep = u64::MAX;
        let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        // SAFETY: the pool is valid, and the attribute is 64 bits.
        let result = unsafe { sys::cuMemPoolSetAttribute(pool, attribute, (&raw mut keep).cast()) };
        self.check(result, "cuMemPoolSetAttribute")
    }

    /// Whether the driver knows the whole range.
    pub(super) fn knows(&self, address: u64, bytes: u64) -> Result<bool> {
        let _current = self.enter()?;
        let pageable = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS;
        if self.attribute(pageable)? != 0 {
            return Ok(true);
        }
        let ask = |attribute| {
            let mut value = 0u64;
            // SAFETY: both attributes are 64 bits; the address is only looked up.
            let result = unsafe { sys::cuPointerGetAttribute((&raw mut value).cast(), attribute, address) };
            match result {
                sys::CUresult::CUDA_ERROR_INVALID_VALUE => Ok(None),
                result => self.check(result, "cuPointerGetAttribute").map(|()| Some(value)),
            }
        };
        let start = ask(sys::CUpointer_attribute::CU_POINTER_ATTRIBUTE_RANGE_START_ADDR)?;
        let size = ask(sys::CUpointer_attribute::CU_POINTER_ATTRIBUTE_RANGE_SIZE)?;
        let (Some(start), Some(size)) = (start, size) else { return Ok(false) };
        Ok(address.wrapping_sub(start).checked_add(bytes).is_some_and(|end| end <= size))
    }

    /// Whether the driver knows nothing of some of a range of host memory: it is neither its own nor registered.
    pub(super) fn is_unregistered(&self, address: u64, bytes: u64) -> Result<bool> {
        let _current = self.enter()?;
        for end in [address, address + bytes.max(1) - 1] {
            let mut kind = 0u32;
            let attribute = sys::CUpointer_attribute::CU_POINTER_ATTRIBUTE_MEMORY_TYPE;
            // SAFETY: the attribute is 32 bits; the address is only looked up.
            let result = unsafe { sys::cuPointerGetAttribute((&raw mut kind).cast(), attribute, end) };
            if result == sys::CUresult::CUDA_ERROR_INVALID_VALUE {
                return Ok(true);
            }
            self.check(result, "cuPointerGetAttribute")?;
            if kind == 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(super) fn reserved(&self) -> Result<u64> {
        let _relaxed = Relaxed::new();
        let _current = self.enter()?;
        let mut bytes = 0u64;
        let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT;
        // SAFETY: the pool is valid, and the attribute is 64 bits.
        let result = unsafe { sys::cuMemPoolGetAttribute(self.pool, attribute, (&raw mut bytes).cast()) };
        self.check(result, "cuMemPoolGetAttribute")?;
        Ok(bytes)
    }
}
