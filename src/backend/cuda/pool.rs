//! A memory pool of the device, for allocation in stream order.

use std::ptr::null_mut;

use cudarc::driver::sys;

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

    pub(super) fn reserved(&self) -> Result<u64> {
        let _current = self.enter()?;
        let mut bytes = 0u64;
        let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT;
        // SAFETY: the pool is valid, and the attribute is 64 bits.
        let result = unsafe { sys::cuMemPoolGetAttribute(self.pool, attribute, (&raw mut bytes).cast()) };
        self.check(result, "cuMemPoolGetAttribute")?;
        Ok(bytes)
    }
}
