//! A file descriptor for answers.

use std::sync::{Arc, Weak};

use super::{Core, Doorbell};
use crate::error::{Error, Result};
use crate::status::*;
use crate::watch::{Source, Watch};

impl Doorbell {
    /// A file descriptor that says when answers are there to be collected, to be armed.
    ///
    /// # Errors
    /// `SYSTEM` (no descriptor left).
    pub fn watch(&self) -> Result<Watch> {
        Watch::new(self.context(), Answers(Arc::downgrade(&self.core)))
    }
}

struct Answers(Weak<Core>);

impl Answers {
    fn core(&self) -> Result<Arc<Core>> {
        self.0.upgrade().ok_or_else(|| Error::new(GMB_ERROR_INVALID_HANDLE, "the doorbell was destroyed"))
    }
}

impl Source for Answers {
    fn check(&self, count: u32) -> Result<()> {
        let most = self.core()?.commands.slots();
        match u64::from(count) {
            0 => Err(Error::new(GMB_ERROR_ZERO_COUNT, "count is 0: that is always there")),
            count if count > most => Err(Error::argument(format!(
                "count {count}: no more than {most} commands are ever under way"
            ))),
            _ => Ok(()),
        }
    }

    fn ready(&self, enough: u32) -> Result<u64> {
        self.core()?.answered(enough.into())
    }
}
