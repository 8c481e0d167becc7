//! Arbiters as they must be: which mailboxes they look at, in which order, and what they must say of them.

use gpumailbox::*;

use crate::model::Model;
use crate::world::Table;

/// A mailbox that an arbiter looks at, for one of its readers.
#[derive(Clone, Copy)]
pub struct Watched {
    pub mailbox: usize,
    pub reader: u32,
    pub class: i32,
}

pub struct Arbiter {
    pub watched: Vec<Watched>,
    pub slices: u64,
}

impl Arbiter {
    pub fn focus(&self) -> usize {
        self.watched.iter().filter(|one| one.class == 0).count()
    }

    /// Numbers by places: those of class focus first, otherwise as they were given.
    pub fn order(&self) -> Vec<u16> {
        let of = |class| (0..self.watched.len()).filter(move |&n| self.watched[n].class == class);
        of(0).chain(of(1)).map(|n| n as u16).collect()
    }
}

impl Watched {
    /// Whether there are records for the reader, where that is certain: all operations are done, and their results read.
    pub fn is_ready(&self, model: &Model) -> Option<bool> {
        if model.tainted || !model.quiet {
            return None;
        }
        let reader = model.readers.get(self.reader as usize)?.as_ref()?;
        let next = reader.next.filter(|_| reader.pops.is_empty())?;
        Some(model.end()? != next)
    }
}

/// What an arbiter says of a number.
pub fn says(header: *const gmb_arbiter_header, number: usize) -> bool {
    // SAFETY: the header of an arbiter that lives, on the host backend in this machine's memory; nobody writes its places.
    let place = usize::from(unsafe { (&raw const (*header).place[number]).read() });
    // SAFETY: as above; the arbiter's thread writes this word while it is read here.
    let word = unsafe { (&raw const (*header).ready[place / 32]).read_volatile() };
    word >> (place % 32) & 1 == 1
}

/// All arbiters of a sequence.
pub type Arbiters = Table<Arbiter>;
