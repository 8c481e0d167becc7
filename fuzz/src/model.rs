//! What a mailbox must give back: its pushes in order, and for each reader where it stands.
//!
//! What the model cannot know for sure (the count of an operation without a token, say) it learns from
//! the records themselves: each carries in its type the number of its push.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use gpumailbox::{gmb_mode, gmb_record_header, gmb_result, GMB_ERROR_BAD_LENGTH, GMB_MODE_SHARED, GMB_OK};

use crate::arena::pattern;

/// Records whose bytes were compared.
pub static VERIFIED: AtomicU64 = AtomicU64::new(0);

const PLACE_BITS: u32 = 10;
/// As a record's place in its push: not told.
const UNTOLD: u32 = (1 << PLACE_BITS) - 1;
/// Most records in a push whose types are an array.
pub const MOST_TOLD: u32 = UNTOLD;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Policy {
    Reject,
    Wait,
    Oldest,
    Latest,
}

#[derive(Clone, Debug)]
pub enum Lengths {
    All(u32),
    /// A length for each record, and the most that one can be: a longer one ends the push.
    Each(Vec<u32>, u32),
}

#[derive(Debug)]
pub struct Push {
    pub count: u32,
    /// Records before the first that is too long.
    pub fit: u32,
    pub lengths: Lengths,
    /// Offset and stride in the source; none where other bytes were pushed.
    pub bytes: Option<(u64, u64)>,
    pub first: Option<u64>,
    pub accepted: Option<u32>,
    /// What it was promised: pops that overtake it may make more room.
    least: u32,
}

#[derive(Debug)]
pub enum Outcome {
    Pending,
    /// Nobody will learn it.
    Unknown,
    Known(gmb_result, Vec<gmb_record_header>, Vec<Vec<u8>>),
}

#[derive(Debug)]
pub struct Pop {
    pub number: u64,
    pub max: u32,
    /// Rows, stride and headers in device memory; zero rows where they are not ours alone.
    pub rows: u64,
    pub stride: u64,
    pub headers: u64,
    pub outcome: Outcome,
}

#[derive(Debug, Default)]
pub struct Reader {
    /// Index of the record that comes next, while that is certain.
    pub next: Option<u64>,
    /// Number of the push that the record before was of.
    last: Option<u32>,
    pub pops: VecDeque<Pop>,
}

pub struct Model {
    /// Nothing is known: only statuses and memory are watched.
    pub tainted: bool,
    /// No operation is under way.
    pub quiet: bool,
    pub mode: gmb_mode,
    /// Of a shared mailbox, what may be under way: its side (a reader, or none for pushes), and its stream.
    pub under_way: Vec<(Option<u32>, u64)>,
    pub policy: Policy,
    pub capacity: u64,
    pub payload: u32,
    pub start: u64,
    pub pushes: Vec<Push>,
    pub readers: [Option<Reader>; 16],
    pub pops: u64,
}

/// What stays in memory when a mailbox there is destroyed.
pub struct Remains {
    pub model: Option<Model>,
    pub bytes: u64,
}

pub struct Mailbox {
    pub context: usize,
    /// The stream that a single-stream mailbox was first used on.
    pub single: Option<Option<u64>>,
    pub place: Option<usize>,
    pub ring: u64,
    pub ring_bytes: u64,
    pub row: u64,
    /// An operation was captured: readers no longer come and go.
    pub captured: bool,
    pub model: Model,
}

/// The type of a record.
pub fn tag(push: usize, place: Option<u32>) -> u32 {
    (push as u32) << PLACE_BITS | place.unwrap_or(UNTOLD)
}

/// Records before the first that is too long.
pub fn fit(count: u32, lengths: &Lengths) -> u32 {
    match lengths {
        Lengths::All(_) => count,
        Lengths::Each(each, most) => {
            each.iter().position(|length| length > most).map_or(count, |at| at as u32)
        }
    }
}

impl Model {
    pub fn new(
        mode: gmb_mode,
        policy: Policy,
        capacity: u64,
        payload: u32,
        start: u64,
        readers: u32,
    ) -> Self {
        let reader = |r| (r < readers).then(|| Reader { next: Some(start), ..Reader::default() });
        Self {
            tainted: false,
            quiet: true,
            mode,
            under_way: Vec::new(),
            policy,
            capacity,
            payload,
            start,
            pushes: Vec::new(),
            readers: std::array::from_fn(|r| reader(r as u32)),
            pops: 0,
        }
    }

    pub fn mask(&self) -> u32 {
        (0..16).filter(|&r| self.readers[r].is_some()).map(|r| 1 << r).sum()
    }

    pub fn overwrites(&self) -> bool {
        matches!(self.policy, Policy::Oldest | Policy::Latest)
    }

    /// All operations are done.
    pub fn settle(&mut self) {
        self.quiet = true;
        self.under_way.clear();
    }

    pub fn is_shared(&self) -> bool {
        self.mode == GMB_MODE_SHARED
    }

    /// Whether an operation on a stream may run beside another one of its side, and then nobody knows which comes first.
    pub fn is_beside(&self, side: Option<u32>, stream: u64) -> bool {
        self.under_way.iter().any(|&(other, at)| other == side && at != stream)
    }

    /// Enters that an operation was launched.
    pub fn launched(&mut self, side: Option<u32>, stream: u64) {
        self.quiet = false;
        if self.is_shared() {
            self.tainted |= self.is_beside(side, stream);
            self.under_way.push((side, stream));
        }
    }

    /// Index after the last record pushed, when it is known.
    pub fn end(&self) -> Option<u64> {
        let Some(last) = self.pushes.last() else { return Some(self.start).filter(|_| !self.tainted) };
        Some(last.first?.wrapping_add(u64::from(last.accepted?)))
    }

    /// Room that there certainly is, and no more, while nothing is under way.
    pub fn room(&self) -> Option<u64> {
        if !self.quiet || self.tainted || self.overwrites() || self.mask() == 0 {
            return None;
        }
        let end = self.end()?;
        let held = self.readers.iter().flatten().map(|reader| match reader.pops.is_empty() {
            true => Some(end.wrapping_sub(reader.next?)),
            false => None,
        });
        Some(self.capacity - held.collect::<Option<Vec<u64>>>()?.into_iter().max()?)
    }

    /// How many a push of these must accept, when that is certain.
    pub fn must_accept(&self, count: u32, fit: u32) -> Option<u32> {
        match self.policy {
            _ if self.tainted => None,
            Policy::Oldest | Policy::Latest => Some(count.min(fit)),
            Policy::Wait => Some(if fit < count { 0 } else { count }),
            Policy::Reject => Some(u64::from(count.min(fit)).min(self.room()?) as u32),
        }
    }

    /// Enters a push that was submitted.
    pub fn push(&mut self, count: u32, lengths: Lengths, bytes: Option<(u64, u64)>) -> usize {
        let fit = fit(count, &lengths);
        let promised = self.must_accept(count, fit);
        let accepted = promised.filter(|_| self.policy != Policy::Reject);
        let (first, least) = (self.end(), promised.unwrap_or(0));
        self.pushes.push(Push { count, fit, lengths, bytes, first, accepted, least });
        self.pushes.len() - 1
    }

    /// The result of a push.
    pub fn pushed(&mut self, push: usize, result: &gmb_result) {
        if self.tainted {
            return;
        }
        let Push { count, fit, accepted, least, .. } = self.pushes[push];
        assert!(result.count <= count.min(fit), "{result:?} for {count} records of which {fit} fit");
        assert!(
            accepted.is_none_or(|n| n == result.count),
            "{result:?}, the model says {accepted:?}: {}",
            self.words(push)
        );
        assert!(result.count >= least, "{result:?}, {least} were promised: {}", self.words(push));
        assert_eq!(result.lost, 0);
        assert_eq!(result.flags & 1 == 1, result.count < count, "{result:?} of {count}");
        match result.status {
            GMB_OK => assert!(fit == count || (self.policy == Policy::Reject && result.count <= fit)),
            GMB_ERROR_BAD_LENGTH => assert!(fit < count),
            other => panic!("a push ended with {other}"),
        }
        self.pushes[push].accepted = Some(result.count);
        self.propagate(push);
    }

    /// What a report must say of the mailbox.
    fn words(&self, push: usize) -> String {
        let Self { policy, capacity, quiet, .. } = self;
        let stand: Vec<_> = self.readers.iter().map(|r| r.as_ref().map(|r| (r.next, r.pops.len()))).collect();
        let Push { count, fit, lengths, first, .. } = &self.pushes[push];
        format!(
            "push {push} of {count} records of which {fit} fit, {lengths:?}, first {first:?}; {policy:?}, \
             capacity {capacity}, mask {:#x}, quiet {quiet}, readers {stand:?}",
            self.mask()
        )
    }

    fn set_first(&mut self, push: usize, first: u64) {
        match self.pushes[push].first {
            Some(known) => assert_eq!(known, first, "push {push} began elsewhere"),
            None => {
                self.pushes[push].first = Some(first);
                self.propagate(push);
            }
        }
    }

    /// From where a push begins and how many it moved follows where the next one begins.
    fn propagate(&mut self, from: usize) {
        for push in from..self.pushes.len() - 1 {
            let Push { first: Some(first), accepted: Some(accepted), .. } = self.pushes[push] else { return };
            let next = first.wrapping_add(u64::from(accepted));
            match self.pushes[push + 1].first {
                Some(known) => {
                    assert_eq!(known, next, "push {} does not follow push {push}", push + 1);
                    return;
                }
                None => self.pushes[push + 1].first = Some(next),
            }
        }
    }

    pub fn outcome(&mut self, reader: u32, number: u64, outcome: Outcome) {
        if let Some(Some(reader)) = self.readers.get_mut(reader as usize) {
            if let Some(pop) = reader.pops.iter_mut().find(|pop| pop.number == number) {
                pop.outcome = outcome;
            }
        }
        self.advance(reader);
    }

    /// Verifies the pops of a reader in their order, as far as their outcomes are known.
    fn advance(&mut self, number: u32) {
        let Some(Some(mut reader)) = self.readers.get_mut(number as usize).map(Option::take) else { return };
        while reader.pops.front().is_some_and(|pop| !matches!(pop.outcome, Outcome::Pending)) {
            let Some(pop) = reader.pops.pop_front() else { break };
            match &pop.outcome {
                Outcome::Known(result, headers, rows) if !self.tainted => {
                    self.verify(&mut reader, &pop, result, headers, rows);
                }
                _ => (reader.next, reader.last) = (None, None),
            }
        }
        self.readers[number as usize] = Some(reader);
    }

    fn verify(
        &mut self,
        reader: &mut Reader,
        pop: &Pop,
        result: &gmb_result,
        headers: &[gmb_record_header],
        rows: &[Vec<u8>],
    ) {
        let most = if self.policy == Policy::Latest { 1 } else { u64::from(pop.max).min(self.capacity) };
        assert!(u64::from(result.count) <= most, "{result:?} of {most}");
        assert_eq!(result.status, GMB_OK, "{result:?}");
        assert_eq!(result.flags & 2 != 0, result.lost != 0, "{result:?}");
        // Under LATEST one record is all there is to ask for.
        let asked = if self.policy == Policy::Latest { 1 } else { pop.max };
        assert_eq!(result.flags & 1 != 0, result.count < asked, "{result:?} of {asked}");
        assert!(result.lost == 0 || self.overwrites(), "{result:?} from a mailbox that loses nothing");
        let expected = reader.next.map(|next| next.wrapping_add(result.lost));
        let mut index = expected;
        for i in 0..result.count as usize {
            let header = headers.get(i);
            if let Some(header) = header {
                let found = header.sequence.wrapping_sub(1);
                assert!(index.is_none_or(|index| index == found), "record {found}, expected {index:?}");
                index = Some(found);
                let push = header.msg_type >> PLACE_BITS;
                self.learn(reader, push, header.msg_type & UNTOLD, found);
                reader.last = Some(push);
                self.compare(push as usize, found, Some(header), rows.get(i));
            } else if let Some(index) = index {
                let holds = |push: &Push| match (push.first, push.accepted) {
                    (Some(first), Some(n)) => index.wrapping_sub(first) < u64::from(n),
                    _ => false,
                };
                if let Some(push) = self.pushes.iter().position(holds) {
                    self.compare(push, index, None, rows.get(i));
                }
                reader.last = None;
            }
            index = index.map(|index| index.wrapping_add(1));
        }
        reader.next = index;
    }

    /// From a record follows where its push began.
    fn learn(&mut self, reader: &Reader, push: u32, place: u32, index: u64) {
        assert!((push as usize) < self.pushes.len(), "a record of push {push}, which there was not");
        if place != UNTOLD {
            self.set_first(push as usize, index.wrapping_sub(u64::from(place)));
        } else if reader.next.is_some() && reader.last.is_some_and(|last| last < push) && !self.overwrites() {
            self.set_first(push as usize, index);
        }
        assert!(reader.last.is_none_or(|last| last <= push), "push {push} came after {:?}", reader.last);
    }

    fn compare(
        &mut self,
        number: usize,
        index: u64,
        header: Option<&gmb_record_header>,
        row: Option<&Vec<u8>>,
    ) {
        let push = &self.pushes[number];
        let Some(first) = push.first else { return };
        let place = index.wrapping_sub(first);
        let most = push.accepted.unwrap_or(push.count.min(push.fit));
        assert!(place < u64::from(most), "record {place} of push {number}, which had {most}");
        let length = match &push.lengths {
            Lengths::All(length) => *length,
            Lengths::Each(each, _) => each[place as usize],
        };
        assert!(header.is_none_or(|header| header.length == length), "{header:?}, not of length {length}");
        let (Some(row), Some((offset, stride))) = (row, push.bytes) else { return };
        let from = offset + place * stride;
        for (at, &byte) in row.iter().take(length as usize).enumerate() {
            let from = from + u64::from(crate::is_broken(crate::Broken::Bytes));
            assert_eq!(byte, pattern(from + at as u64), "byte {at} of record {place} of push {number}");
        }
        VERIFIED.fetch_add(1, Ordering::Relaxed);
    }
}
