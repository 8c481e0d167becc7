//! Decisions from bytes. When there are none left, every decision is the harmless one.

/// Values at which sizes, counts and indices change their meaning.
const EDGES: [u64; 24] = [
    0,
    1,
    2,
    15,
    16,
    17,
    48,
    64,
    128,
    255,
    4096,
    4097,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_fff0,
    0xffff_ffff,
    0x1_0000_0000,
    1 << 29,
    (1 << 29) + 1,
    i64::MAX as u64,
    1 << 63,
    u64::MAX - 15,
    u64::MAX - 1,
    u64::MAX,
];

pub struct Input<'a> {
    bytes: &'a [u8],
}

impl<'a> Input<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.bytes.split_first() else { return 0 };
        self.bytes = rest;
        first
    }

    pub fn word(&mut self) -> u64 {
        (0..8).fold(0, |word, _| word << 8 | u64::from(self.byte()))
    }

    /// True in so many of 256 cases.
    pub fn chance(&mut self, of_256: u32) -> bool {
        u32::from(self.byte()) >= 256 - of_256
    }

    /// Below 256 at most.
    pub fn below(&mut self, limit: usize) -> usize {
        usize::from(self.byte()) % limit.max(1)
    }

    pub fn choose<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    pub fn edge(&mut self) -> u64 {
        match self.byte() {
            known @ 0..=199 => EDGES[usize::from(known) % EDGES.len()],
            200..=239 => u64::from(self.byte()),
            _ => self.word(),
        }
    }

    /// Usually the value, else one at an edge.
    pub fn spoil(&mut self, value: u64, of_256: u32) -> u64 {
        if self.chance(of_256) {
            self.edge()
        } else {
            value
        }
    }
}
