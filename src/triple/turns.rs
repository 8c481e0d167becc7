//! Where three buffers stand, in one word: it changes by one compare and swap, and whoever reads it sees all three at one moment.
//!
//! Buffers go round in their order. The one that is uploaded to for the n-th time (from 0) is buffer `n % 3`, so it is enough to
//! count how many have come how far: each count is that of the buffers, past or present, that have got there.

use super::{BufferState, Step};

/// Buffers.
pub(super) const BUFFERS: u64 = 3;

/// The word, taken apart. The counts fall from `uploading` to `freed`, and are [`BUFFERS`] apart at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turns {
    /// Buffers that were asked for to upload to.
    uploading: u64,
    /// That came to be processed, and of those the ones that were asked for.
    processing: u64,
    process_taken: u64,
    /// That came to be downloaded from, and of those the ones that were asked for.
    downloading: u64,
    download_taken: u64,
    /// That were free again.
    freed: u64,
    /// Bit `n % 3`: the work of the buffer's step is enqueued.
    submitted: u8,
    /// Bit `n % 3`: given up, so no step comes any more.
    given_up: u8,
    /// Bit `n % 3`: about to be submitted, by one thread.
    claimed: u8,
}

const DISTANCE_BITS: u32 = 2;
const FLAG_BITS: u32 = 3;
const BASE_SHIFT: u32 = 5 * DISTANCE_BITS + 3 * FLAG_BITS;
/// Counts go round after so many: a buffer a nanosecond for nine hours, and nobody holds one for so long.
const BASE_MASK: u64 = (1 << (u64::BITS - BASE_SHIFT)) - 1;

impl Turns {
    pub(super) fn unpack(word: u64) -> Self {
        let mut left = word;
        let mut take = |bits: u32| {
            let value = left & ((1 << bits) - 1);
            left >>= bits;
            value
        };
        let [claimed, given_up, submitted] = [(); 3].map(|()| take(FLAG_BITS) as u8);
        let distances = [(); 5].map(|()| take(DISTANCE_BITS));
        let freed = left;
        let download_taken = freed + distances[0];
        let downloading = download_taken + distances[1];
        let process_taken = downloading + distances[2];
        let processing = process_taken + distances[3];
        let uploading = processing + distances[4];
        Self {
            uploading,
            processing,
            process_taken,
            downloading,
            download_taken,
            freed,
            submitted,
            given_up,
            claimed,
        }
    }

    pub(super) fn pack(self) -> u64 {
        let counts = [
            self.freed,
            self.download_taken,
            self.downloading,
            self.process_taken,
            self.processing,
            self.uploading,
        ];
        let mut word = self.freed & BASE_MASK;
        for pair in counts.windows(2).rev() {
            word = word << DISTANCE_BITS | (pair[1] - pair[0]);
        }
        [self.submitted, self.given_up, self.claimed]
            .into_iter()
            .fold(word, |word, flags| word << FLAG_BITS | u64::from(flags))
    }

    /// Which turn a buffer is in, or would be in next.
    fn turn_of(&self, buffer: usize) -> u64 {
        self.freed + (buffer as u64 + BUFFERS - self.freed % BUFFERS) % BUFFERS
    }

    pub(super) fn state(&self, buffer: usize) -> BufferState {
        let turn = self.turn_of(buffer);
        match () {
            () if turn < self.downloading => BufferState::Downloading,
            () if turn < self.processing => BufferState::Processing,
            () if turn < self.uploading => BufferState::Uploading,
            () => BufferState::Free,
        }
    }

    /// Turns that were completed: of free buffers, since the beginning.
    pub(super) fn completed(&self) -> u64 {
        self.freed
    }

    /// Whether a turn is with whoever asked for this step of it, and its work is not yet enqueued.
    pub(super) fn is_held(&self, step: Step, turn: u64) -> bool {
        let (from, to) = match step {
            Step::Upload => (self.processing, self.uploading),
            Step::Process => (self.downloading, self.process_taken),
            Step::Download => (self.freed, self.download_taken),
        };
        (from..to).contains(&turn) && (self.submitted | self.given_up | self.claimed) & bit(turn) == 0
    }

    /// Whether a turn is under way, and nobody has asked for this step of it.
    pub(super) fn is_to_come(&self, step: Step, turn: u64) -> bool {
        let from = match step {
            Step::Upload => return false,
            Step::Process => self.process_taken,
            Step::Download => self.download_taken,
        };
        (from..self.uploading).contains(&turn) && self.given_up & bit(turn) == 0
    }

    /// Puts a buffer back that was taken last for a step, with nothing enqueued on it; false if it was not the last. Unless its
    /// event is reached, it is in the step before again, which is over when that is.
    pub(super) fn put_back(&mut self, step: Step, turn: u64, is_reached: bool) -> bool {
        let (entered, taken) = match step {
            // Given up, an upload has lost nothing.
            Step::Upload => return false,
            Step::Process => (&mut self.processing, &mut self.process_taken),
            Step::Download => (&mut self.downloading, &mut self.download_taken),
        };
        if *taken != turn + 1 || (!is_reached && *entered != turn + 1) {
            return false;
        }
        *taken = turn;
        if !is_reached {
            *entered = turn;
            self.submitted |= bit(turn);
        }
        true
    }

    /// One thread is about to submit.
    pub(super) fn claim(&mut self, turn: u64) {
        self.claimed |= bit(turn);
    }

    /// It could not.
    pub(super) fn unclaim(&mut self, turn: u64) {
        self.claimed &= !bit(turn);
    }

    /// The work of a step is enqueued.
    pub(super) fn submit(&mut self, turn: u64) {
        self.claimed &= !bit(turn);
        self.submitted |= bit(turn);
    }

    /// No further step of the turn comes.
    pub(super) fn give_up(&mut self, turn: u64) {
        self.given_up |= bit(turn);
        self.skip();
    }

    /// Passes every buffer on whose step is over, each by that one step. How many.
    pub(super) fn rotate<E>(&mut self, mut is_done: impl FnMut(usize) -> Result<bool, E>) -> Result<u32, E> {
        let mut passed = 0;
        for step in Step::ALL.into_iter().rev() {
            while self.pass(step, &mut is_done)? {
                passed += 1;
            }
        }
        Ok(passed)
    }

    /// Passes the first buffer of a step on, if the step is over: its work was enqueued, or it was given up, and `is_done`
    /// says so of the buffer's event.
    pub(super) fn pass<E>(
        &mut self,
        step: Step,
        is_done: &mut impl FnMut(usize) -> Result<bool, E>,
    ) -> Result<bool, E> {
        let (turn, next) = match step {
            Step::Upload => (self.processing, self.uploading),
            Step::Process => (self.downloading, self.process_taken),
            Step::Download => (self.freed, self.download_taken),
        };
        let is_over = turn < next && (self.submitted | self.given_up) & bit(turn) != 0;
        if !is_over || !is_done((turn % BUFFERS) as usize)? {
            return Ok(false);
        }
        self.submitted &= !bit(turn);
        match step {
            Step::Upload => self.processing += 1,
            Step::Process => self.downloading += 1,
            Step::Download => {
                self.given_up &= !bit(turn);
                self.freed += 1;
            }
        }
        self.skip();
        Ok(true)
    }

    /// Passes the oldest turn on by a step, if it was given up and `is_done` says so of its event: whoever is to upload next may
    /// wait for that alone.
    pub(super) fn pass_given_up<E>(
        &mut self,
        is_done: &mut impl FnMut(usize) -> Result<bool, E>,
    ) -> Result<bool, E> {
        let turn = self.freed;
        if turn == self.uploading || self.given_up & bit(turn) == 0 {
            return Ok(false);
        }
        let step = match () {
            () if turn < self.downloading => Step::Download,
            () if turn < self.processing => Step::Process,
            () => Step::Upload,
        };
        self.pass(step, is_done)
    }

    /// Turns that were given up are nobody's to ask for.
    fn skip(&mut self) {
        while self.process_taken < self.processing && self.given_up & bit(self.process_taken) != 0 {
            self.process_taken += 1;
        }
        while self.download_taken < self.downloading && self.given_up & bit(self.download_taken) != 0 {
            self.download_taken += 1;
        }
    }

    /// Takes the next buffer for a step, if it has come there: which turn it is in.
    pub(super) fn take(&mut self, step: Step) -> Option<u64> {
        let (taken, most) = match step {
            Step::Upload => (&mut self.uploading, self.freed + BUFFERS),
            Step::Process => (&mut self.process_taken, self.processing),
            Step::Download => (&mut self.download_taken, self.downloading),
        };
        if *taken >= most {
            return None;
        }
        let turn = *taken;
        *taken += 1;
        self.skip();
        Some(turn)
    }
}

fn bit(turn: u64) -> u8 {
    1 << (turn % BUFFERS)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn rotate(turns: &mut Turns) -> u32 {
        turns.rotate(|_| Ok::<_, ()>(true)).unwrap()
    }

    /// Every walk of seven moves from the beginning: what comes out of the word is what went in, and the states are in order.
    #[test]
    fn every_word_is_unpacked_as_it_was_packed() {
        let mut seen = std::collections::HashSet::new();
        let mut walk = vec![(Turns::unpack(0), 0)];
        while let Some((turns, moves)) = walk.pop() {
            assert_eq!(Turns::unpack(turns.pack()), turns);
            assert!(turns.uploading - turns.freed <= BUFFERS);
            if moves == 12 || !seen.insert(turns.pack()) {
                continue;
            }
            for step in Step::ALL {
                let mut next = turns;
                if next.take(step).is_some() {
                    walk.push((next, moves + 1));
                }
            }
            for turn in turns.freed..turns.uploading {
                for change in [Turns::submit, Turns::give_up] {
                    let mut next = turns;
                    if Step::ALL.into_iter().any(|step| next.is_held(step, turn)) {
                        change(&mut next, turn);
                        walk.push((next, moves + 1));
                    }
                }
            }
            let mut next = turns;
            rotate(&mut next);
            walk.push((next, moves + 1));
        }
        assert!(seen.len() > 100, "{}", seen.len());
    }

    #[test]
    fn a_buffer_that_is_given_up_comes_to_nobody() {
        let mut turns = Turns::unpack(0);
        assert_eq!([Step::Upload; 4].map(|step| turns.take(step)), [Some(0), Some(1), Some(2), None]);
        turns.give_up(1);
        turns.submit(0);
        turns.submit(2);
        for _ in 0..3 {
            rotate(&mut turns);
        }
        assert_eq!([Step::Process; 3].map(|step| turns.take(step)), [Some(0), Some(2), None]);
        assert_eq!(turns.take(Step::Download), None);
        turns.submit(2);
        rotate(&mut turns);
        assert_eq!(turns.take(Step::Download), None, "the first is not done");
        turns.submit(0);
        for _ in 0..4 {
            rotate(&mut turns);
        }
        assert_eq!([Step::Download; 3].map(|step| turns.take(step)), [Some(0), Some(2), None]);
        turns.submit(0);
        turns.submit(2);
        for _ in 0..4 {
            rotate(&mut turns);
        }
        assert_eq!(turns.completed(), 3);
        assert_eq!([0, 1, 2].map(|buffer| turns.state(buffer)), [BufferState::Free; 3]);
    }

    #[test]
    fn counts_go_round() {
        let far = Turns { freed: BASE_MASK, ..Turns::unpack(0) };
        let mut turns = Turns {
            uploading: BASE_MASK,
            processing: BASE_MASK,
            process_taken: BASE_MASK,
            downloading: BASE_MASK,
            download_taken: BASE_MASK,
            ..far
        };
        assert_eq!(turns.take(Step::Upload), Some(BASE_MASK));
        assert_eq!(Turns::unpack(turns.pack()), turns);
    }

    #[test]
    fn what_is_put_back_comes_again_when_the_step_before_is_done() {
        for is_reached in [false, true] {
            let mut turns = Turns::unpack(0);
            assert_eq!(turns.take(Step::Upload), Some(0));
            turns.submit(0);
            // By a stream that waits for the upload.
            assert!(turns.pass(Step::Upload, &mut |_| Ok::<_, ()>(true)).unwrap());
            assert_eq!(turns.take(Step::Process), Some(0));
            assert!(turns.put_back(Step::Process, 0, is_reached));
            assert_eq!(turns.take(Step::Process).is_some(), is_reached, "the upload may be under way");
            if !is_reached {
                assert!(turns.pass(Step::Upload, &mut |_| Ok::<_, ()>(true)).unwrap());
                assert_eq!(turns.take(Step::Process), Some(0));
            }
        }
    }

    #[test]
    fn a_turn_that_is_given_up_where_it_waits_is_passed_over() {
        let mut turns = Turns::unpack(0);
        for turn in 0..2 {
            assert_eq!(turns.take(Step::Upload), Some(turn));
            turns.submit(turn);
        }
        assert_eq!(rotate(&mut turns), 2, "both at once");
        assert!(turns.is_to_come(Step::Process, 0));
        turns.give_up(0);
        assert_eq!(turns.take(Step::Process), Some(1));
    }
}
