//! Doorbells: commands to kernels that run, and their answers, with no launch between.

mod watch;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::backend::wait_until;
use crate::checks::check_capacity;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::layout::*;
use crate::mapped::MappedRing;
use crate::profiler::Range;
use crate::status::*;
use crate::sync::lock;

const WORDS: usize = GMB_COMMAND_WORDS as usize;
/// Which word of a command has its flags.
const FLAGS: usize = 1;

/// What a command was submitted as: the same number is never given twice by a doorbell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommandId(pub(crate) u64);

/// A doorbell's counts at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DoorbellInfo {
    /// Commands that are under way at once.
    pub capacity: u64,
    /// Commands that were submitted since it was made.
    pub submitted: u64,
    /// Commands whose answers nobody has collected yet, the answered ones among them; posted ones until their place is needed.
    pub outstanding: u64,
    /// Device address of the `gmb_doorbell_header`, for kernels.
    pub doorbell: u64,
    /// Whether a worker serves it.
    pub served: bool,
}

/// A way to say something to a kernel that runs, and to hear from it, without a launch: commands of 32 bytes, answers of as
/// many, through pinned memory that each side writes in one direction. The kernel is a worker ([`crate::WorkerOptions`]) or one of
/// the caller's own (`gpumailbox/doorbell.cuh`). Commands are taken in the order in which they were submitted.
///
/// Clones are the same doorbell.
#[derive(Clone)]
pub struct Doorbell {
    core: Arc<Core>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Free,
    /// Somebody will collect the answer.
    Wanted,
    /// Nobody will.
    Unwanted,
}

struct State {
    /// Commands that were submitted.
    next: u64,
    slots: Vec<Use>,
    /// Commands that are under way, and answers that nobody has collected: as many at most as there are slots.
    outstanding: u64,
    /// Answers of which the slots have gone to others.
    kept: HashMap<u64, gmb_answer>,
    /// Commands under way whose answers nobody wants.
    unwanted: u64,
    /// All commands before this one are answered, as far as anybody has looked.
    answered: u64,
}

pub(crate) struct Core {
    context: Context,
    header: u64,
    commands: MappedRing<WORDS>,
    answers: MappedRing<WORDS>,
    state: Mutex<State>,
    served: AtomicBool,
    closed: AtomicBool,
}

impl Doorbell {
    /// Makes a doorbell for so many commands at once, a power of two. Blocks until its memory is ready.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` (no power of two), `OVERFLOW` (more than `GMB_MOST_MAPPED`), `OUT_OF_MEMORY`, `MEMORY_LIMIT`,
    /// `OUT_OF_HOST_MEMORY`, `DEVICE_LOST`.
    pub fn new(context: &Context, capacity: u64) -> Result<Self> {
        let _range = Range::new(c"make a doorbell");
        check_capacity("a doorbell", capacity, GMB_MOST_MAPPED)?;
        let (commands, answers) = (MappedRing::new(context, capacity)?, MappedRing::new(context, capacity)?);
        let core = Core {
            context: context.clone(),
            header: context.allocate_ring(size_of::<gmb_doorbell_header>())?,
            commands,
            answers,
            state: Mutex::new(State {
                next: 0,
                slots: vec![Use::Free; capacity as usize],
                outstanding: 0,
                kept: HashMap::new(),
                unwanted: 0,
                answered: 0,
            }),
            served: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        };
        core.write_header(0)?;
        Ok(Self { core: Arc::new(core) })
    }

    /// The context it lives in.
    pub fn context(&self) -> &Context {
        &self.core.context
    }

    /// Submits a command, once there is room: blocks for `timeout` at most, `None` without limit, zero tries once.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` (flags), `FULL` (so many are under way for all that time; nothing was submitted), `INVALID_HANDLE`
    /// (destroyed meanwhile), `CORRUPT`, `DEVICE_LOST`.
    pub fn submit(&self, command: &gmb_command, timeout: Option<Duration>) -> Result<CommandId> {
        self.core.submit(command, Use::Wanted, timeout)
    }

    /// The same of a command whose answer nobody will ask for.
    ///
    /// # Errors
    /// As for [`Doorbell::submit`].
    pub fn post(&self, command: &gmb_command, timeout: Option<Duration>) -> Result<()> {
        self.core.submit(command, Use::Unwanted, timeout).map(|_| ())
    }

    /// Collects an answer: blocks until it is there, for `timeout` at most, `None` without limit, zero asks once. Spins, then
    /// yields, then sleeps. The answer's status is the kernel's own word, or `CANCELLED`, or `NOT_SERVED` when the worker has
    /// ended first.
    ///
    /// # Errors
    /// `TIMEOUT` (wait again, nothing is lost), `INVALID_ARGUMENT` (no such command; collected already), `INVALID_HANDLE`
    /// (destroyed meanwhile), `CORRUPT` (something else wrote there), `DEVICE_LOST`.
    pub fn wait(&self, id: CommandId, timeout: Option<Duration>) -> Result<gmb_answer> {
        self.core.wait(id.0, timeout)
    }

    /// Submits a command and collects its answer. When time is up in between the command is cancelled, and its answer dropped.
    ///
    /// # Errors
    /// As for [`Doorbell::submit`] and [`Doorbell::wait`].
    pub fn call(&self, command: &gmb_command, timeout: Option<Duration>) -> Result<gmb_answer> {
        let began = std::time::Instant::now();
        let id = self.submit(command, timeout)?;
        let answer = self.wait(id, timeout.map(|timeout| timeout.saturating_sub(began.elapsed())));
        if !answer.as_ref().is_err_and(|error| error.status() == GMB_ERROR_TIMEOUT) {
            return answer;
        }
        self.cancel(id)?;
        self.forget(id)?;
        Err(Error::new(GMB_ERROR_TIMEOUT, "no answer in time: the command was cancelled"))
    }

    /// Asks for a command not to be done. One that was not taken yet is answered by `CANCELLED`; of one that was, the kernel may
    /// look whether it is still wanted. Either way there is an answer, to be collected. Does not block.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` (no such command; collected already).
    pub fn cancel(&self, id: CommandId) -> Result<()> {
        let state = lock(&self.core.state);
        self.core.check(&state, id.0)?;
        self.core.mark_cancelled(&state, id.0)
    }

    /// Says that nobody will collect the answer: it makes room when it has come. The command is done nevertheless. Does not block.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` (no such command; collected already).
    pub fn forget(&self, id: CommandId) -> Result<()> {
        self.core.forget(id.0)
    }

    /// Its counts. Never blocks.
    pub fn info(&self) -> DoorbellInfo {
        let state = lock(&self.core.state);
        DoorbellInfo {
            capacity: self.core.commands.slots(),
            submitted: state.next,
            outstanding: state.outstanding,
            doorbell: self.core.header,
            served: self.core.served.load(Ordering::Acquire),
        }
    }

    /// Wakes who waits.
    pub(crate) fn close(&self) {
        self.core.closed.store(true, Ordering::Release);
    }

    /// Fails while a worker serves it.
    pub(crate) fn check_unused(&self) -> Result<()> {
        match self.core.served.load(Ordering::Acquire) {
            false => Ok(()),
            true => Err(Error::new(GMB_ERROR_BUSY, "a worker serves the doorbell: destroy that one first")),
        }
    }

    /// Notes the worker that serves it, until what this gives is dropped.
    pub(crate) fn employ(&self) -> Result<Served> {
        if self.core.served.swap(true, Ordering::AcqRel) {
            return Err(Error::new(GMB_ERROR_BUSY, "another worker serves the doorbell already"));
        }
        Ok(Served(self.clone()))
    }
}

/// A doorbell that a worker serves.
pub(crate) struct Served(Doorbell);

impl Served {
    pub(crate) fn header(&self) -> u64 {
        self.0.core.header
    }

    /// Answers everything that was not answered, now that nobody is there to do it.
    pub(crate) fn end(&self) -> Result<()> {
        self.0.core.answer_all(GMB_ERROR_NOT_SERVED)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.0.core.served.store(false, Ordering::Release);
    }
}

fn bits_of(command: &gmb_command) -> [u32; WORDS] {
    let [a, b, c] = command.argument.map(|word| [word as u32, (word >> 32) as u32]);
    [command.code, command.flags, a[0], a[1], b[0], b[1], c[0], c[1]]
}

fn answer_of(bits: [u32; WORDS]) -> gmb_answer {
    let [status, flags, a, b, c, d, e, f] = bits;
    let word = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
    gmb_answer { status: status as i32, flags, value: [word(a, b), word(c, d), word(e, f)] }
}

impl Core {
    fn slot(&self, index: u64) -> usize {
        (index & (self.commands.slots() - 1)) as usize
    }

    fn use_of<'a>(&self, state: &'a mut State, index: u64) -> &'a mut Use {
        let slot = self.slot(index);
        &mut state.slots[slot]
    }

    fn free(&self, state: &mut State, index: u64) {
        if std::mem::replace(self.use_of(state, index), Use::Free) == Use::Unwanted {
            state.unwanted -= 1;
        }
        state.outstanding -= 1;
    }

    fn still_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(GMB_ERROR_INVALID_HANDLE, "the doorbell was destroyed"));
        }
        Ok(())
    }

    fn submit(&self, command: &gmb_command, how: Use, timeout: Option<Duration>) -> Result<CommandId> {
        if command.flags != 0 {
            return Err(Error::argument(format!(
                "command.flags {:#x}: they are the library's, pass 0",
                command.flags
            )));
        }
        // To look at all answers takes the longer the more there are.
        let seldom = (self.commands.slots() / 64).max(1);
        let mut tries = 0;
        let attempt = || {
            tries += 1;
            self.submit_now(command, how, (tries - 1) % seldom == 0).transpose()
        };
        wait_until(timeout, attempt, || self.context.pulse())?.unwrap_or_else(|| {
            Err(Error::new(
                GMB_ERROR_FULL,
                format!(
                    "{} commands are under way, and their answers are not collected: nothing was submitted",
                    self.commands.slots()
                ),
            ))
        })
    }

    /// None while there is no room; with `thorough` it is looked for everywhere.
    fn submit_now(&self, command: &gmb_command, how: Use, thorough: bool) -> Result<Option<CommandId>> {
        self.still_open()?;
        let mut state = lock(&self.state);
        let index = state.next;
        // The slot's last command is one round older: while that one is not answered, room elsewhere is of no use.
        let last = index.wrapping_sub(self.commands.slots());
        let (before, answer) = (*self.use_of(&mut state, index), self.answer_in_place(&state, last)?);
        if before != Use::Free && answer.is_none() {
            return Ok(None);
        }
        if before == Use::Unwanted {
            self.free(&mut state, last);
        }
        if state.outstanding >= self.commands.slots() {
            self.sweep(&mut state, thorough)?;
        }
        if state.outstanding >= self.commands.slots() {
            return Ok(None);
        }
        if let (Use::Wanted, Some(answer)) = (before, answer) {
            state.kept.insert(last, answer);
        }
        *self.use_of(&mut state, index) = how;
        state.unwanted += u64::from(how == Use::Unwanted);
        state.next += 1;
        state.outstanding += 1;
        self.commands.write(index, bits_of(command));
        Ok(Some(CommandId(index)))
    }

    /// What is in the slot of a command that still has it.
    fn answer_in_place(&self, state: &State, index: u64) -> Result<Option<gmb_answer>> {
        if state.slots.get(self.slot(index)).is_none_or(|&how| how == Use::Free) {
            return Ok(None);
        }
        Ok(self.answers.read(index)?.map(answer_of))
    }

    /// Makes room where answers have come that nobody wants: as far as all have come, or everywhere.
    fn sweep(&self, state: &mut State, everywhere: bool) -> Result<()> {
        let oldest = state.next.saturating_sub(self.commands.slots());
        let mut all_have = true;
        for index in state.answered.max(oldest)..state.next {
            let how = *self.use_of(state, index);
            let has = how == Use::Free || self.answers.read(index)?.is_some();
            if has && how == Use::Unwanted {
                self.free(state, index);
            }
            all_have &= has;
            if all_have {
                state.answered = index + 1;
            } else if !everywhere {
                break;
            }
            if state.unwanted == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Fails unless somebody may still collect the answer.
    fn check(&self, state: &State, index: u64) -> Result<()> {
        let gone = |why: &str| Err(Error::argument(format!("command {}: {why}", index.wrapping_add(1))));
        if index >= state.next {
            return gone("it was never submitted");
        }
        if state.kept.contains_key(&index) {
            return Ok(());
        }
        let newest = state.next - index <= self.commands.slots();
        if !newest || state.slots.get(self.slot(index)) != Some(&Use::Wanted) {
            return gone("its answer was collected already, or is not wanted");
        }
        Ok(())
    }

    fn wait(&self, index: u64, timeout: Option<Duration>) -> Result<gmb_answer> {
        self.check(&lock(&self.state), index)?;
        let attempt = || {
            // Most looks find nothing: they are to cost little.
            match self.answers.is_as_before(index) && !self.closed.load(Ordering::Acquire) {
                true => None,
                false => self.collect(index).transpose(),
            }
        };
        wait_until(timeout, attempt, || self.context.pulse())?.unwrap_or_else(|| {
            Err(Error::new(GMB_ERROR_TIMEOUT, "no answer in time: wait again, or cancel the command"))
        })
    }

    fn collect(&self, index: u64) -> Result<Option<gmb_answer>> {
        self.still_open()?;
        let mut state = lock(&self.state);
        self.check(&state, index)?;
        if let Some(answer) = state.kept.remove(&index) {
            state.outstanding -= 1;
            return Ok(Some(answer));
        }
        let answer = self.answer_in_place(&state, index)?;
        if answer.is_some() {
            self.free(&mut state, index);
        }
        Ok(answer)
    }

    fn mark_cancelled(&self, state: &State, index: u64) -> Result<()> {
        // An answered one's slot is still its own, or it is kept.
        if !state.kept.contains_key(&index) && self.answer_in_place(state, index)?.is_none() {
            self.commands.write_one(index, FLAGS, GMB_COMMAND_CANCELLED);
        }
        Ok(())
    }

    fn forget(&self, index: u64) -> Result<()> {
        let mut state = lock(&self.state);
        self.check(&state, index)?;
        if state.kept.remove(&index).is_some() {
            state.outstanding -= 1;
            return Ok(());
        }
        *self.use_of(&mut state, index) = Use::Unwanted;
        state.unwanted += 1;
        // What comes later makes room when that is needed.
        if matches!(self.answer_in_place(&state, index), Ok(Some(_))) {
            self.free(&mut state, index);
        }
        Ok(())
    }

    /// How many answers wait to be collected, `enough` at most.
    fn answered(&self, enough: u64) -> Result<u64> {
        self.still_open()?;
        let mut state = lock(&self.state);
        let mut found = state.kept.len() as u64;
        let mut wanted = state.outstanding - state.unwanted - found;
        for index in (state.next.saturating_sub(self.commands.slots())..state.next).rev() {
            if found >= enough || wanted == 0 {
                break;
            }
            if *self.use_of(&mut state, index) == Use::Wanted {
                wanted -= 1;
                found += u64::from(self.answers.read(index)?.is_some());
            }
        }
        Ok(found)
    }

    /// Answers what no kernel has; none may be there.
    fn answer_all(&self, status: gmb_status) -> Result<()> {
        let mut state = lock(&self.state);
        let next = state.next;
        for index in next.saturating_sub(self.commands.slots())..next {
            // What somebody spoilt is told to who asks.
            if *self.use_of(&mut state, index) != Use::Free && matches!(self.answers.read(index), Ok(None)) {
                self.answers.write(index, [status as u32, 0, 0, 0, 0, 0, 0, 0]);
            }
        }
        // Nobody else waits for the device here: what is submitted from now on is for the next kernel.
        drop(state);
        self.write_header(next)
    }

    fn write_header(&self, taken: u64) -> Result<()> {
        let header = gmb_doorbell_header {
            magic: GMB_DOORBELL_MAGIC,
            version: GMB_LAYOUT_VERSION,
            capacity: self.commands.slots() as u32,
            commands: self.commands.address() as *const u64,
            answers: self.answers.address() as *mut u64,
            taken,
        };
        let (backend, service) = (self.context.backend(), self.context.service());
        let from = std::ptr::from_ref(&header) as u64;
        // SAFETY: the memory is the doorbell's, no kernel uses it now, and the copy is waited for.
        unsafe { backend.copy(self.header, from, size_of::<gmb_doorbell_header>(), service)? };
        backend.stream_synchronize(service)
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        // SAFETY: no worker serves it, and kernels of the caller's have ended.
        let _ = unsafe { self.context.free_ring(self.header) };
    }
}

impl std::fmt::Debug for Doorbell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Doorbell").field("info", &self.info()).finish_non_exhaustive()
    }
}
