//! What a coordinator knows of its operations: a ring of the latest, those of each stream that are under way, and what was
//! done and not told yet.
//!
//! Operations of one stream are done in their order, so only the first of each is asked about: to look costs as much as
//! there is to tell. An operation that is done has what it came after done as well, so that is told before it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use super::clock::Clock;
use super::outcome::{Before, Failure, Outcome, Place, Turn, Why};
use super::{Completion, OperationId, OperationKind, Span};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::events::{Event, EventKind};
use crate::results::{After, Token};
use crate::status::*;
use crate::stream::Resolved;
use crate::sync::lock;

#[derive(Default)]
enum State {
    /// Never used, or a call that failed.
    #[default]
    Nothing,
    UnderWay(UnderWay),
    Done(Outcome),
}

struct UnderWay {
    place: Place,
    began: Option<Arc<Event>>,
    event: Arc<Event>,
    token: Option<Token>,
    failed: Option<Failure>,
}

#[derive(Default)]
struct Slot {
    number: u64,
    kind: OperationKind,
    state: State,
    /// What was under way when it was queued, of what it comes after. Kept for its room.
    after: Vec<u64>,
    turn: Option<Turn>,
}

struct Order {
    /// Number of the next operation; the first is 1.
    next: u64,
    /// All before this one are done.
    oldest: u64,
    high_water: u64,
}

pub(super) struct Books {
    tag: u64,
    most: u64,
    slots: Box<[Mutex<Slot>]>,
    order: Mutex<Order>,
    under_way: [Mutex<VecDeque<(u64, u64)>>; 3],
    /// One thread looks at a time.
    looking: Mutex<()>,
    told: Mutex<VecDeque<Completion>>,
    /// How operations ended that failed and are forgotten otherwise: others may still be told to come after them.
    failed: Mutex<BTreeMap<u64, Outcome>>,
    /// What its events are: timed ones tell when operations ran.
    event_kind: EventKind,
    clock: Mutex<Clock>,
    events: Mutex<Vec<Arc<Event>>>,
    tokens: Mutex<Vec<Token>>,
}

/// A number that an operation is to have. Dropped without one, nobody has it.
pub(super) struct Reserved<'a> {
    books: &'a Books,
    number: u64,
    open: bool,
}

/// An operation that was enqueued.
pub(super) struct Enqueued {
    pub(super) kind: OperationKind,
    pub(super) place: Place,
    pub(super) began: Option<Arc<Event>>,
    pub(super) event: Arc<Event>,
    pub(super) token: Option<Token>,
    pub(super) failed: Option<Failure>,
    pub(super) turn: Option<Turn>,
}

impl Books {
    pub(super) fn new(tag: u64, most: u32, timed: bool) -> Result<Self> {
        // An operation that is under way finds what it came after: that is at most `most` before it, and it at most as many
        // before the next.
        let slots = (2 * u64::from(most)).next_power_of_two();
        let mut places = Vec::new();
        places.try_reserve_exact(slots as usize).map_err(|_| {
            Error::new(GMB_ERROR_OUT_OF_HOST_MEMORY, format!("no room to remember {slots} operations"))
        })?;
        places.extend((0..slots).map(|_| Mutex::default()));
        Ok(Self {
            tag,
            most: most.into(),
            slots: places.into_boxed_slice(),
            order: Mutex::new(Order { next: 1, oldest: 1, high_water: 0 }),
            under_way: Default::default(),
            looking: Mutex::default(),
            told: Mutex::default(),
            failed: Mutex::default(),
            event_kind: if timed { EventKind::Timed } else { EventKind::Untimed },
            clock: Mutex::default(),
            events: Mutex::default(),
            tokens: Mutex::default(),
        })
    }

    pub(super) fn id(&self, number: u64) -> OperationId {
        OperationId(self.tag << NUMBER_BITS | number)
    }

    fn slot(&self, number: u64) -> MutexGuard<'_, Slot> {
        lock(&self.slots[(number % self.slots.len() as u64) as usize])
    }

    /// An operation's number, if the id is of one of this coordinator's.
    pub(super) fn number_of(&self, id: OperationId) -> Result<u64> {
        let number = id.number();
        let why = match () {
            () if id.0 == 0 => "it is zero",
            () if id.0 >> NUMBER_BITS != self.tag => "it is of another coordinator, or was never given out",
            () if number == 0 || number >= lock(&self.order).next => "it was never given out",
            () => match &*self.slot(number) {
                slot if slot.number == number && matches!(slot.state, State::Nothing) => {
                    "it was never given out"
                }
                _ => return Ok(number),
            },
        };
        Err(Error::new(GMB_ERROR_INVALID_HANDLE, format!("{:#018x} is no operation: {why}", id.0)))
    }

    /// How it is with an operation that others are to come after.
    pub(super) fn before(&self, number: u64) -> Before {
        let slot = self.slot(number);
        match &slot.state {
            State::UnderWay(under_way) if slot.number == number => {
                let fails = under_way.failed.as_ref().map(|failure| match failure {
                    Failure::Itself(error) => Outcome::failed(number, error),
                    Failure::Before(outcome) => outcome.clone(),
                });
                Before::UnderWay(under_way.place, fails)
            }
            State::Done(outcome) if slot.number == number => Before::Done(outcome.clone()),
            // Forgotten: so it was done, and well if nothing else is known.
            _ => Before::Done(lock(&self.failed).get(&number).cloned().unwrap_or(Outcome::WELL)),
        }
    }

    /// In which turn of a triple buffer an operation worked, if it did on that one and is not forgotten.
    pub(super) fn turn_of(&self, number: u64, triple: u64) -> Option<Turn> {
        let slot = self.slot(number);
        slot.turn.filter(|&(key, _)| slot.number == number && key == triple)
    }

    /// An operation's number, if it is of this coordinator.
    pub(super) fn own(&self, id: u64) -> Option<u64> {
        (id >> NUMBER_BITS == self.tag).then_some(id & NUMBER_MASK)
    }

    /// Makes a stream wait for an operation, unless it is done.
    pub(super) fn hold(&self, number: u64, stream: Resolved) -> Result<()> {
        // Not under the slot's lock: the driver waits when the stream holds as much as it can. If another operation has the
        // event by then, the stream waits for longer than it had to.
        let event = {
            let slot = self.slot(number);
            match &slot.state {
                State::UnderWay(under_way) if slot.number == number => Arc::clone(&under_way.event),
                _ => return Ok(()),
            }
        };
        event.hold(stream.raw)
    }

    /// A number for an operation; an error when there is no room.
    pub(super) fn reserve(&self) -> Result<Reserved<'_>> {
        self.reserve_many(1).map(|number| Reserved { books: self, number, open: true })
    }

    /// The same for so many operations, or for none.
    pub(super) fn reserve_all(&self, count: u64) -> Result<Vec<Reserved<'_>>> {
        let first = self.reserve_many(count)?;
        Ok((first..first + count).map(|number| Reserved { books: self, number, open: true }).collect())
    }

    fn reserve_many(&self, count: u64) -> Result<u64> {
        let mut order = lock(&self.order);
        let spread = order.next - order.oldest;
        if spread + count > self.most {
            return Err(Error::new(
                GMB_ERROR_FULL,
                format!(
                    "{spread} operations are queued since the oldest that is not done, and max_operations is {}: poll or wait, \
                     then try again",
                    self.most
                ),
            ));
        }
        if order.next + count > NUMBER_MASK {
            return Err(Error::new(
                GMB_ERROR_FULL,
                "the coordinator has no more numbers for operations: make another one",
            ));
        }
        let first = order.next;
        order.next += count;
        order.high_water = order.high_water.max(spread + count);
        Ok(first)
    }

    /// An event: one that an operation had before, or another of the context's.
    pub(super) fn event(&self, context: &Context) -> Result<Arc<Event>> {
        let kept = lock(&self.events).pop();
        kept.map_or_else(|| context.event(self.event_kind).map(Arc::new), Ok)
    }

    /// Another one, to tell when an operation begins, if that is to be known.
    pub(super) fn beginning(&self, context: &Context) -> Result<Option<Arc<Event>>> {
        match self.event_kind {
            EventKind::Timed => self.event(context).map(Some),
            _ => Ok(None),
        }
    }

    pub(super) fn token(&self, context: &Context) -> Result<Token> {
        let kept = lock(&self.tokens).pop();
        kept.map_or_else(|| Token::new(context), Ok)
    }

    pub(super) fn keep_token(&self, token: Token) {
        lock(&self.tokens).push(token);
    }

    /// Looks which operations are done. Never blocks for the device; of several threads one looks, and the others wait for
    /// it if they are to.
    pub(super) fn look(&self) -> Result<()> {
        let _looking = lock(&self.looking);
        self.look_alone()
    }

    /// The same, unless another thread does.
    pub(super) fn look_if_nobody_does(&self) -> Result<()> {
        match crate::sync::try_lock(&self.looking) {
            Some(_looking) => self.look_alone(),
            None => Ok(()),
        }
    }

    fn look_alone(&self) -> Result<()> {
        for lane in 0..self.under_way.len() {
            while let Some((nth, number)) = self.first_of(lane) {
                match self.is_reached(number) {
                    Ok(true) => self.settle(Place { lane, nth }, None),
                    Ok(false) => break,
                    Err(error) if error.status() == GMB_ERROR_DEVICE_LOST => {
                        self.end_all(&error);
                        return Ok(());
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    fn first_of(&self, lane: usize) -> Option<(u64, u64)> {
        lock(&self.under_way[lane]).front().copied()
    }

    fn is_reached(&self, number: u64) -> Result<bool> {
        match &self.slot(number).state {
            State::UnderWay(under_way) => under_way.event.is_reached(),
            _ => Ok(true),
        }
    }

    /// All of a stream up to a place are done, or lost: so is what they came after, and that first.
    fn settle(&self, place: Place, lost: Option<&Error>) {
        let mut places = vec![place];
        while let Some(&place) = places.last() {
            let first = self.first_of(place.lane).filter(|&(nth, _)| nth <= place.nth);
            let Some((_, number)) = first else {
                places.pop();
                continue;
            };
            match self.not_done_before(number) {
                Some(before) => places.push(before),
                None => self.end(place.lane, number, lost),
            }
        }
    }

    /// Of what an operation came after, the latest of a stream that is not known to be done.
    fn not_done_before(&self, number: u64) -> Option<Place> {
        let after = std::mem::take(&mut self.slot(number).after);
        let mut found: Option<Place> = None;
        for &before in &after {
            let Before::UnderWay(place, _) = self.before(before) else { continue };
            found = match found {
                Some(known) if known.lane != place.lane || known.nth > place.nth => Some(known),
                _ => Some(place),
            };
        }
        self.slot(number).after = after;
        found
    }

    /// The first operation of a stream is done, or failed.
    fn end(&self, lane: usize, number: u64, lost: Option<&Error>) {
        let mut after = std::mem::take(&mut self.slot(number).after);
        let inherited = after.iter().find_map(|&before| match self.before(before) {
            Before::Done(outcome) if outcome.status < 0 => Some(outcome.of_dependant()),
            _ => None,
        });
        after.clear();
        {
            let mut slot = self.slot(number);
            slot.after = after;
            let State::UnderWay(under_way) = std::mem::take(&mut slot.state) else { return };
            let mut outcome = match (lost, under_way.failed, inherited) {
                (Some(error), ..) => Outcome::failed(number, error),
                (_, Some(Failure::Itself(error)), _) => Outcome::failed(number, &error),
                (_, Some(Failure::Before(outcome)), _) | (_, _, Some(outcome)) => outcome,
                _ => self.result_of(number, under_way.token.as_ref()),
            };
            outcome.span = self.take_events(under_way.began, under_way.event, lost.is_some());
            if lost.is_none() {
                lock(&self.tokens).extend(under_way.token);
            }
            // Whoever finds it done finds it told: nothing that comes after it is told before.
            self.tell(self.completion(number, slot.kind, &outcome));
            slot.state = State::Done(outcome);
        }
        lock(&self.under_way[lane]).pop_front();
        self.move_on();
    }

    /// An operation's events are for others again; when it ran, if that is to be known.
    fn take_events(&self, began: Option<Arc<Event>>, ended: Arc<Event>, lost: bool) -> Option<Span> {
        let Some(began) = began else {
            lock(&self.events).push(ended);
            return None;
        };
        if lost {
            lock(&self.events).extend([began, ended]);
            return None;
        }
        let (span, events) = lock(&self.clock).span(began, ended).ok()?;
        lock(&self.events).extend(events);
        Some(span)
    }

    fn result_of(&self, number: u64, token: Option<&Token>) -> Outcome {
        let Some(token) = token else { return Outcome::WELL };
        // Written before the event that was reached.
        match token.wait(After::Submission, Some(std::time::Duration::ZERO)) {
            Ok(result) => Outcome {
                status: result.status,
                count: result.count,
                cause: if result.status < 0 { number } else { 0 },
                ..Outcome::WELL
            },
            Err(error) => Outcome::failed(number, &error),
        }
    }

    /// The device is lost: nothing goes on.
    fn end_all(&self, error: &Error) {
        for lane in 0..self.under_way.len() {
            let last = lock(&self.under_way[lane]).back().copied();
            if let Some((nth, _)) = last {
                self.settle(Place { lane, nth }, Some(error));
            }
        }
    }

    /// Blocks until the device has done all that is under way.
    pub(super) fn finish(&self) -> Result<()> {
        let mut finished = Ok(());
        for lane in &self.under_way {
            let last = lock(lane).back().copied();
            let event = last.and_then(|(_, number)| match &self.slot(number).state {
                State::UnderWay(under_way) => Some(Arc::clone(&under_way.event)),
                _ => None,
            });
            if let Some(event) = event {
                finished = finished.and(event.synchronize(None));
            }
        }
        finished
    }

    fn completion(&self, number: u64, kind: OperationKind, outcome: &Outcome) -> Completion {
        Completion {
            operation: self.id(number),
            kind,
            status: outcome.status,
            count: outcome.count,
            cause: (outcome.cause != 0).then(|| self.id(outcome.cause)),
            span: outcome.span,
        }
    }

    /// Notes what is to be told; what nobody asks for is dropped when it is forgotten.
    fn tell(&self, completion: Completion) {
        let mut told = lock(&self.told);
        if told.len() == self.slots.len() {
            told.pop_front();
        }
        told.push_back(completion);
    }

    fn move_on(&self) {
        let mut order = lock(&self.order);
        while order.oldest < order.next {
            let slot = self.slot(order.oldest);
            if slot.number != order.oldest || matches!(slot.state, State::UnderWay(_)) {
                return;
            }
            drop(slot);
            order.oldest += 1;
        }
    }

    /// Takes what is to be told.
    pub(super) fn take_told(&self, most: usize) -> Vec<Completion> {
        let mut told = lock(&self.told);
        let count = told.len().min(most);
        told.drain(..count).collect()
    }

    /// What an operation is, unless it is forgotten.
    pub(super) fn kind_of(&self, number: u64) -> Result<OperationKind> {
        let slot = self.slot(number);
        if slot.number == number {
            return Ok(slot.kind);
        }
        Err(Error::new(
            GMB_ERROR_INVALID_HANDLE,
            format!(
                "{:#018x} is no operation any more: it was done long ago, and is forgotten",
                self.id(number).0
            ),
        ))
    }

    /// How an operation ended, if it did.
    pub(super) fn outcome(&self, number: u64, kind: OperationKind) -> Option<Result<Completion>> {
        let slot = self.slot(number);
        match &slot.state {
            // Forgotten since it was looked up: how often it moved something, too.
            _ if slot.number != number => {
                let outcome = lock(&self.failed).get(&number).cloned().unwrap_or(Outcome::WELL);
                Some(match outcome.status {
                    GMB_OK => Ok(self.completion(number, kind, &outcome)),
                    _ => Err(self.error(number, kind, &outcome)),
                })
            }
            State::Done(outcome) if outcome.status < 0 => Some(Err(self.error(number, slot.kind, outcome))),
            State::Done(outcome) => Some(Ok(self.completion(number, slot.kind, outcome))),
            State::UnderWay(_) | State::Nothing => None,
        }
    }

    fn error(&self, number: u64, kind: OperationKind, outcome: &Outcome) -> Error {
        let words = outcome
            .words
            .as_deref()
            .unwrap_or_else(|| status_text(outcome.status).to_str().unwrap_or_default());
        let whose = match outcome.cause {
            cause if cause == number => String::new(),
            cause => format!("operation {cause}, which it came after, failed: "),
        };
        Error::new(outcome.status, format!("operation {number} ({}): {whose}{words}", kind.name()))
    }

    /// The latest operation that was queued.
    pub(super) fn latest(&self) -> u64 {
        lock(&self.order).next - 1
    }

    /// Whether all operations up to one are done.
    pub(super) fn all_done(&self, up_to: u64) -> bool {
        lock(&self.order).oldest > up_to
    }

    /// Operations that were queued, that are under way, and the most that were at once.
    pub(super) fn counts(&self) -> (u64, u64, u64) {
        let under_way = self.under_way.iter().map(|lane| lock(lane).len() as u64).sum();
        let order = lock(&self.order);
        (order.next - 1, under_way, order.high_water)
    }

    /// Events that it holds, in use or not.
    pub(super) fn events(&self) -> u64 {
        let kept = lock(&self.events).len() as u64;
        let each = if self.event_kind == EventKind::Timed { 2 } else { 1 };
        kept + each * self.under_way.iter().map(|lane| lock(lane).len() as u64).sum::<u64>()
    }
}

impl OperationId {
    /// Of an id that was looked at before.
    pub(super) fn number(self) -> u64 {
        self.0 & NUMBER_MASK
    }
}

impl Reserved<'_> {
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The operation is enqueued. Its stream's others come in their order: the stream's lock is held.
    pub(super) fn enter(mut self, enqueued: Enqueued, after: &[u64]) -> OperationId {
        let Enqueued { kind, place, began, event, token, failed, turn } = enqueued;
        {
            let mut slot = self.set(kind, State::UnderWay(UnderWay { place, began, event, token, failed }));
            slot.after.extend_from_slice(after);
            slot.turn = turn;
        }
        lock(&self.books.under_way[place.lane]).push_back((place.nth, self.number));
        self.open = false;
        self.books.id(self.number)
    }

    /// It fails before anything of it is enqueued: with what it came after, or by itself.
    pub(super) fn fail(mut self, kind: OperationKind, why: Why, turn: Option<Turn>) -> OperationId {
        let outcome = match why {
            Why::Before(outcome) => outcome.of_dependant(),
            Why::Itself(error) => Outcome::failed(self.number, error),
        };
        {
            let mut slot = self.set(kind, State::Nothing);
            slot.turn = turn;
            self.books.tell(self.books.completion(self.number, kind, &outcome));
            slot.state = State::Done(outcome);
        }
        self.books.move_on();
        self.open = false;
        self.books.id(self.number)
    }

    /// The operation takes a place in the ring, and whoever had it before is forgotten.
    fn set(&self, kind: OperationKind, state: State) -> MutexGuard<'_, Slot> {
        let mut slot = self.books.slot(self.number);
        if let State::Done(outcome) = std::mem::replace(&mut slot.state, state) {
            if outcome.status < 0 {
                let mut failed = lock(&self.books.failed);
                failed.insert(slot.number, outcome);
                if failed.len() > MOST_FAILED {
                    failed.pop_first();
                }
            }
        }
        slot.number = self.number;
        slot.kind = kind;
        slot.after.clear();
        slot.turn = None;
        slot
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        if self.open {
            drop(self.set(OperationKind::default(), State::Nothing));
            self.books.move_on();
        }
    }
}

/// Failed operations that are remembered longer than others.
const MOST_FAILED: usize = 1 << 16;

/// Coordinators that ids tell apart.
pub(super) const TAGS: u64 = 1 << (u64::BITS - NUMBER_BITS);

/// Bits of an id that number the operation; the rest tells whose it is.
const NUMBER_BITS: u32 = 44;
const NUMBER_MASK: u64 = (1 << NUMBER_BITS) - 1;
