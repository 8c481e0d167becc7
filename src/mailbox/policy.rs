//! What a push does when its mailbox is full. Whatever depends on that is in a policy's rules.

use crate::backend::args::{gmb_pop_args, gmb_push_args};
use crate::backend::Kernel;
use crate::layout::*;

/// What a push does when the mailbox is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FullPolicy {
    /// Accepts the first so many records that fit.
    #[default]
    Reject,
    /// All or nothing, at most the capacity: the calling thread waits until
    /// pops have made, or certainly will make, room.
    Wait,
    /// Never fails: the oldest records make room. Readers find out how many
    /// they lost, and never see a torn one.
    OverwriteOldest,
    /// Never fails: a pop gives the newest record, once.
    Latest,
}

/// What a policy means to the rest of the library.
pub(crate) struct Rules {
    /// As it stands in a header and crosses the C API.
    pub(crate) value: gmb_full_policy,
    /// The kernel of a push.
    pub(super) push: fn(gmb_push_args) -> Kernel,
    /// The kernel of a pop.
    pub(super) pop: fn(gmb_pop_args) -> Kernel,
    /// Whether records can be lost: then readers hold no space, and there is always room.
    pub(crate) overwrites: bool,
    /// Whether a push is all or nothing.
    pub(super) whole: bool,
    /// Whether the thread that pushes waits for room.
    pub(crate) waits: bool,
    /// Whether only the newest record counts: a pop gives one.
    pub(super) keeps_newest: bool,
}

/// Those of a mailbox that is a queue.
const QUEUE: Rules = Rules {
    value: GMB_FULL_REJECT,
    push: Kernel::Push,
    pop: Kernel::Pop,
    overwrites: false,
    whole: false,
    waits: false,
    keeps_newest: false,
};

impl FullPolicy {
    /// Those that a number can name.
    const ALL: [Self; 4] = [Self::Reject, Self::Wait, Self::OverwriteOldest, Self::Latest];

    pub(crate) const fn rules(self) -> &'static Rules {
        match self {
            Self::Reject => &QUEUE,
            Self::Wait => &Rules { value: GMB_FULL_WAIT, whole: true, waits: true, ..QUEUE },
            Self::OverwriteOldest => &Rules {
                value: GMB_FULL_OVERWRITE_OLDEST,
                push: Kernel::PushOver,
                pop: Kernel::PopOver,
                overwrites: true,
                ..QUEUE
            },
            Self::Latest => &Rules {
                value: GMB_FULL_LATEST,
                push: Kernel::PushLatest,
                pop: Kernel::PopLatest,
                overwrites: true,
                keeps_newest: true,
                ..QUEUE
            },
        }
    }

    pub(crate) fn from_value(value: gmb_full_policy) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| policy.rules().value == value)
    }
}
