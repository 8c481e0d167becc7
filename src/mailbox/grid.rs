//! How an operation is laid out on the device.

use super::Mailbox;
use crate::backend::args::{GMB_DRAW_TILES, GMB_MOST_BLOCKS, GMB_UNITS_IN_FLIGHT};
use crate::backend::Kernel;
use crate::layout::GMB_ALIGNMENT;

/// Blocks of a launch, and what each of them does.
#[derive(Clone, Copy)]
pub(super) struct Grid {
    pub(super) blocks: u32,
    /// Records of a tile; zero for as many as a block moves at once.
    pub(super) tile: u32,
    pub(super) flags: u32,
}

impl Default for Grid {
    fn default() -> Self {
        Self { blocks: 1, tile: 0, flags: 0 }
    }
}

/// Tiles for each multiprocessor that blocks have equal shares of: the draws of so few cost more than the wait for the
/// slowest.
const EQUAL_TILES: u64 = 24;

impl Mailbox {
    /// Threads that move one record together: one for each of its units, within a warp.
    pub(super) fn lanes_log2(&self) -> u32 {
        let threads = self.context.backend().info().block_threads;
        (self.stride / GMB_ALIGNMENT).next_power_of_two().min(32).min(threads).ilog2()
    }

    /// For records of at most `longest` bytes, by a kernel with whatever arguments: one block while it can move all at
    /// once; then as many as run at once, each with as many rounds as the others; for many tiles, blocks draw.
    pub(super) fn grid_of(&self, records: u64, kernel: &Kernel, longest: u32) -> Grid {
        let info = self.context.backend().info();
        let lanes_log2 = self.lanes_log2();
        let entry = kernel.entry(GMB_MOST_BLOCKS);
        let most = u64::from(info.max_blocks[entry].min(GMB_MOST_BLOCKS));
        let groups = u64::from(info.block_threads >> lanes_log2);
        if records <= groups * u64::from(GMB_UNITS_IN_FLIGHT) || entry.moves_one_record() {
            return Grid::default();
        }
        // What a thread moves at once are units of one record, if that is wider than a group, or of two.
        let at_once = if 1 + longest.div_ceil(GMB_ALIGNMENT) > 1 << lanes_log2 {
            1
        } else {
            u64::from(GMB_UNITS_IN_FLIGHT)
        };
        let round = groups * at_once;
        let each = round.max(groups * u64::from(info.group_records));
        if records <= each * most {
            return Grid { blocks: records.div_ceil(each) as u32, tile: each as u32, flags: 0 };
        }
        let drawing = u64::from(info.drawing_blocks[entry].min(GMB_MOST_BLOCKS));
        let equal = EQUAL_TILES * u64::from(info.units);
        if records > equal * round && drawing > 1 && entry.draws() {
            let groups = u64::from(info.drawing_threads >> lanes_log2);
            let tile = (groups * at_once).max(u64::from(info.drawn_records));
            return Grid {
                blocks: records.div_ceil(tile).min(drawing) as u32,
                tile: tile as u32,
                flags: GMB_DRAW_TILES,
            };
        }
        let rounds = records.div_ceil(round * most);
        Grid { blocks: records.div_ceil(round * rounds) as u32, tile: round as u32, flags: 0 }
    }
}
