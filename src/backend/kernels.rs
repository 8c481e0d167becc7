//! The kernels, by the names that both backends find them under. kernels/list.h has the same.

use std::ffi::{c_void, CStr};
use std::ops::{Index, IndexMut};

use super::args::{
    gmb_borrow_args, gmb_pop_args, gmb_push_args, gmb_queue_args, gmb_reader_args, gmb_tensor_args,
};
use crate::layout::{gmb_arbiter_args, gmb_worker_args};

macro_rules! kernels {
    (
        { $($(#[$doc:meta])* $kernel:ident($args:ty) = $name:literal;)* }
        alone { $($of:ident as $alone:ident = $alone_name:literal;)* }
    ) => {
        /// One launch: which kernel with which arguments.
        #[derive(Clone, Copy, Debug)]
        pub(crate) enum Kernel {
            $($(#[$doc])* $kernel($args),)*
        }

        /// An entry point.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Entry {
            $($kernel,)*
            $($alone,)*
        }

        impl Entry {
            pub(crate) const ALL: &'static [(Self, &'static CStr)] =
                &[$((Self::$kernel, $name),)* $((Self::$alone, $alone_name),)*];
        }

        impl Kernel {
            /// The entry point of a launch of so many blocks.
            pub(crate) fn entry(&self, blocks: u32) -> Entry {
                match self {
                    $(Self::$of(_) if blocks == 1 => Entry::$alone,)*
                    $(Self::$kernel(_) => Entry::$kernel,)*
                }
            }

            /// Address of the entry point's one argument.
            pub(crate) fn args(&self) -> *const c_void {
                match self {
                    $(Self::$kernel(args) => std::ptr::from_ref(args).cast(),)*
                }
            }
        }
    };
}

kernels! {{
    /// Push records into a ring whose readers hold their space.
    Push(gmb_push_args) = c"gmb_kernel_push";
    /// Pop records from such a ring.
    Pop(gmb_pop_args) = c"gmb_kernel_pop";
    /// Push into a ring over its oldest records.
    PushOver(gmb_push_args) = c"gmb_kernel_push_over";
    /// Pop from such a ring.
    PopOver(gmb_pop_args) = c"gmb_kernel_pop_over";
    /// Replace the newest record.
    PushLatest(gmb_push_args) = c"gmb_kernel_push_latest";
    /// Take the newest record.
    PopLatest(gmb_pop_args) = c"gmb_kernel_pop_latest";
    /// Let a reader in or out.
    Reader(gmb_reader_args) = c"gmb_kernel_reader";
    /// Borrow records in place.
    Borrow(gmb_borrow_args) = c"gmb_kernel_borrow";
    /// End a borrow.
    Release(gmb_borrow_args) = c"gmb_kernel_release";
    /// Push into a ring in shared mode.
    PushShared(gmb_push_args) = c"gmb_kernel_push_shared";
    /// Pop from such a ring.
    PopShared(gmb_pop_args) = c"gmb_kernel_pop_shared";
    /// Take room there for a push that comes later.
    Credit(gmb_push_args) = c"gmb_kernel_credit";
    /// Borrow records there.
    BorrowShared(gmb_borrow_args) = c"gmb_kernel_borrow_shared";
    /// End such a borrow.
    ReleaseShared(gmb_borrow_args) = c"gmb_kernel_release_shared";
    /// Let a reader of it in or out.
    ReaderShared(gmb_reader_args) = c"gmb_kernel_reader_shared";
    /// Put a tensor's record where device code finds it.
    Tensor(gmb_tensor_args) = c"gmb_kernel_tensor";
    /// Push items into a queue.
    QueuePush(gmb_queue_args) = c"gmb_kernel_queue_push";
    /// Pop items from one.
    QueuePop(gmb_queue_args) = c"gmb_kernel_queue_pop";
    /// Push records into a FIFO.
    FifoPush(gmb_queue_args) = c"gmb_kernel_fifo_push";
    /// Stay on the device and look which mailboxes have records.
    Arbiter(gmb_arbiter_args) = c"gmb_kernel_arbiter";
    /// Stay on the device and work.
    Worker(gmb_worker_args) = c"gmb_kernel_worker";
}
// What does the same for a launch of one block, with less to do.
alone {
    Push as PushAlone = c"gmb_kernel_push_alone";
    Pop as PopAlone = c"gmb_kernel_pop_alone";
}}

impl Entry {
    /// Those whose blocks may draw their tiles.
    pub(crate) fn draws(self) -> bool {
        matches!(self, Self::Push | Self::Pop)
    }

    /// Those that move one record, whatever they are asked for: one block does.
    pub(crate) fn moves_one_record(self) -> bool {
        matches!(self, Self::PushLatest | Self::PopLatest)
    }
}

/// Something for each entry point.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ByEntry<T>([T; Entry::ALL.len()]);

impl<T: Copy> ByEntry<T> {
    pub(crate) fn all(value: T) -> Self {
        Self([value; Entry::ALL.len()])
    }
}

impl<T> Index<Entry> for ByEntry<T> {
    type Output = T;

    fn index(&self, entry: Entry) -> &T {
        &self.0[entry as usize]
    }
}

impl<T> IndexMut<Entry> for ByEntry<T> {
    fn index_mut(&mut self, entry: Entry) -> &mut T {
        &mut self.0[entry as usize]
    }
}
