//! How much of a device the kernels that stay may hold: the rest is for everything else that runs there.

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::context::{BackendKind, Context};
use crate::error::{Error, Result};
use crate::status::GMB_ERROR_BUSY;
use crate::sync::lock;

/// A whole device.
const WHOLE: u64 = 1 << 40;
/// What rounding up may add to the parts of all workers together: far less than a block.
const ROUNDING: u64 = 1 << 20;

/// A device that kernels share, of whatever contexts.
pub(crate) type Place = (bool, u64);

pub(crate) fn place(context: &Context) -> Place {
    (context.kind() == BackendKind::Cuda, context.place())
}

/// What is held of each device, by all contexts.
static HELD: Mutex<BTreeMap<Place, u64>> = Mutex::new(BTreeMap::new());

/// A part of a device; dropped, it is free again.
pub(crate) struct Share {
    device: Place,
    parts: u64,
}

/// Blocks of a kernel that a context's budget allows, of which so many fit on the device.
pub(crate) fn most(context: &Context, fitting: u32) -> u32 {
    (u64::from(fitting) * u64::from(context.resident_percent()) / 100) as u32
}

/// Fails when so many blocks, which are for `what`, would exceed the budget by themselves.
pub(crate) fn check(context: &Context, what: &str, blocks: u32, fitting: u32) -> Result<()> {
    let most = most(context, fitting);
    if blocks <= most {
        return Ok(());
    }
    Err(Error::argument(format!(
        "{what}: {fitting} such blocks fit on the device, and workers may hold {} percent of it, that is {most} \
         (gmb_context_options.resident_percent)",
        context.resident_percent()
    )))
}

impl Share {
    /// Takes room for so many blocks.
    pub(crate) fn take(context: &Context, blocks: u32, fitting: u32) -> Result<Self> {
        let device = place(context);
        let parts = (u128::from(blocks) * u128::from(WHOLE)).div_ceil(u128::from(fitting.max(1))) as u64;
        let budget = WHOLE / 100 * u64::from(context.resident_percent()) + ROUNDING;
        let mut all = lock(&HELD);
        let held = all.entry(device).or_default();
        if *held + parts > budget {
            return Err(Error::new(
                GMB_ERROR_BUSY,
                format!(
                    "other workers hold {} of the {} percent of the device that workers may: wait for one to end, or stop it",
                    *held / (WHOLE / 100),
                    context.resident_percent()
                ),
            ));
        }
        *held += parts;
        Ok(Self { device, parts })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut all = lock(&HELD);
        if let Some(held) = all.get_mut(&self.device) {
            *held -= self.parts;
            if *held == 0 {
                all.remove(&self.device);
            }
        }
    }
}
