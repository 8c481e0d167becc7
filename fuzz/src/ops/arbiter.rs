//! Arbiters: made over any mailboxes, asked, held against the mailboxes' models, ended before them or after.

use gpumailbox::capi::arbiter::*;
use gpumailbox::capi::mailbox::gmb_mailbox;
use gpumailbox::*;

use super::graph::patiently;
use crate::arbiters::{says, Arbiter, Watched};
use crate::blob::{info, Blob, Out};
use crate::calls::call;
use crate::input::Input;
use crate::world::World;

/// Each has a thread here that never rests.
pub const MOST: usize = 2;

fn pick(world: &World, input: &mut Input) -> (gmb_arbiter, Option<usize>) {
    let id = world.arbiters.pick(input, world.strangers());
    (gmb_arbiter { id }, world.arbiters.find(id))
}

/// A mailbox for an arbiter, and which one it is if it will do.
fn entry(world: &World, input: &mut Input, context: Option<usize>) -> (gmb_arbitrated, Option<Watched>) {
    let mailboxes = &world.mailboxes;
    let fits = |&at: &usize| {
        let it = &mailboxes.0[at].it;
        Some(it.context) == context && it.model.mode != GMB_MODE_EXPRESS && it.model.mask() != 0
    };
    let fitting: Vec<usize> = mailboxes.live().filter(fits).collect();
    let id = match fitting.get(input.below(fitting.len())) {
        Some(&at) if !input.chance(8) => mailboxes.0[at].id,
        _ => mailboxes.pick(input, world.strangers()),
    };
    let at = mailboxes.find(id);
    let mask = at.map_or(0, |at| mailboxes.0[at].it.model.mask());
    let nth = input.below(mask.count_ones() as usize);
    let reader = (0..16).filter(|r| mask >> r & 1 == 1).nth(nth).unwrap_or(0);
    let reader = input.spoil(reader, 6) as u32;
    let class = input.below(2) as u64;
    let class = input.spoil(class, 6) as i32;
    let watched = at.filter(fits).map(|mailbox| Watched { mailbox, reader, class });
    let good = reader < 16 && mask >> reader & 1 == 1 && (0..2).contains(&class);
    let given = gmb_arbitrated { mailbox: gmb_mailbox { id }, reader, priority_class: class };
    (given, watched.filter(|_| good))
}

pub fn create(world: &mut World, input: &mut Input) {
    if world.arbiters.live().count() >= MOST {
        return;
    }
    let (context, at) = world.context(input);
    let wanted = input.choose(&[1, 2, 3, 31, 32, 33, 100, GMB_MOST_ARBITRATED]);
    let count = input.spoil(wanted.into(), 8) as u32;
    // What is beyond the most is never looked at; of many most are the same.
    let listed = if count <= GMB_MOST_ARBITRATED { count } else { 1 } as usize;
    let some: Vec<_> = (0..listed.min(6)).map(|_| entry(world, input, at)).collect();
    let given: Vec<_> = (0..listed).map(|n| some[n % some.len()].0).collect();
    let watched: Option<Vec<_>> = (0..listed).map(|n| some[n % some.len()].1).collect();
    let list = Blob::of(&given);
    let (mailboxes, there) = match input.byte() {
        255 => (std::ptr::null(), false),
        254 => (list.pointer::<u8>().wrapping_add(input.choose(&[4, 1, 2])).cast_const().cast(), false),
        _ => (list.pointer::<gmb_arbitrated>().cast_const(), true),
    };
    // While a kernel stays, calls that need an idle device wait for it: one that stays long ends here.
    let stays = input.chance(24);
    let slice = if stays {
        input.choose(&[u64::MAX, 0, u64::MAX - 1, 1 << 63])
    } else {
        input.choose(&[100_000, 1, 1000, 1_000_000])
    };
    let options = gmb_arbiter_options { struct_size: 0, count, mailboxes, slice_ns: slice };
    let (blob, sound) = Blob::sized(options, input);
    let out = Out::<gmb_arbiter>::new(input);
    let status = call!(arbiter::gmb_arbiter_create(context, blob.pointer(), out.pointer()));
    let good = (1..=GMB_MOST_ARBITRATED).contains(&count)
        && watched.is_some()
        && there
        && sound
        && out.good
        && at.is_some();
    let full = status == GMB_ERROR_MEMORY_LIMIT
        || (status == GMB_ERROR_BUSY && at.is_some_and(|at| super::worker::is_small(world, at)));
    let message = super::status::message();
    assert!((status == GMB_OK) == good || (full && good), "status {status}, good {good}: {message}");
    drop(list);
    let (Some(made), Some(watched)) = (out.take(status), watched) else { return };
    world.arbiters.add(made.id, Arbiter { watched, slices: 0 });
    let at = world.arbiters.0.len() - 1;
    check(world, at, &told(made));
    if stays {
        end(world, at);
    }
}

fn told(arbiter: gmb_arbiter) -> gmb_arbiter_info {
    let out = Out::<gmb_arbiter_info>::good();
    let size = size_of::<gmb_arbiter_info>();
    let status = call!(arbiter::gmb_arbiter_get_info(arbiter, out.pointer(), size));
    out.take(status).expect("an arbiter tells of itself")
}

/// Holds an info, and what never changes of the header, against the model.
fn check(world: &mut World, at: usize, told: &gmb_arbiter_info) {
    let it = &mut world.arbiters.0[at].it;
    let (count, focus) = (it.watched.len(), it.focus());
    assert_eq!((told.mailboxes as usize, told.focus as usize), (count, focus));
    assert!(told.slices >= it.slices, "{} slices, {} before", told.slices, it.slices);
    it.slices = told.slices;
    let header = told.arbiter;
    // SAFETY: of an arbiter that lives, on the host backend in this machine's memory; nobody writes these fields.
    let (magic, version, number) =
        unsafe { ((*header).magic, (*header).version, (&raw const (*header).number).read()) };
    // SAFETY: as above.
    let sizes = unsafe { ((*header).count as usize, (*header).focus as usize, (*header).reserved) };
    assert_eq!((magic, version, sizes), (GMB_ARBITER_MAGIC, GMB_LAYOUT_VERSION, (count, focus, 0)));
    assert_eq!(number[..count], it.order(), "numbers by places");
}

pub fn get_info(world: &mut World, input: &mut Input) {
    let (arbiter, at) = pick(world, input);
    let told: Option<gmb_arbiter_info> = info(input, |to, size| {
        let status = call!(arbiter::gmb_arbiter_get_info(arbiter, to, size));
        assert!(at.is_some() || status != GMB_OK);
        status
    });
    if let (Some(told), Some(at)) = (told, at) {
        check(world, at, &told);
    }
}

/// When all that was launched is done, an arbiter soon says what is so.
pub fn look(world: &mut World, _: &mut Input) {
    world.flush();
    let live: Vec<usize> = world.arbiters.live().collect();
    for at in live {
        let told = told(gmb_arbiter { id: world.arbiters.0[at].id });
        check(world, at, &told);
        for (number, one) in world.arbiters.0[at].it.watched.iter().enumerate() {
            let mailbox = &world.mailboxes.0[one.mailbox];
            let Some(ready) = one.is_ready(&mailbox.it.model).filter(|_| mailbox.live) else { continue };
            patiently(|| says(told.arbiter, number) == ready);
            assert_eq!(
                says(told.arbiter, number),
                ready,
                "mailbox {number} of an arbiter, its reader {}",
                one.reader
            );
        }
    }
}

pub fn destroy(world: &mut World, input: &mut Input) {
    let (arbiter, at) = pick(world, input);
    match at {
        Some(at) => end(world, at),
        None => assert_eq!(call!(arbiter::gmb_arbiter_destroy(arbiter)), GMB_ERROR_INVALID_HANDLE),
    }
}

fn end(world: &mut World, at: usize) {
    let id = world.arbiters.0[at].id;
    assert_eq!(call!(arbiter::gmb_arbiter_destroy(gmb_arbiter { id })), GMB_OK);
    world.arbiters.0[at].live = false;
}

/// Ends those that look at a mailbox.
pub fn end_of(world: &mut World, mailbox: usize) {
    let of = |&at: &usize| world.arbiters.0[at].it.watched.iter().any(|one| one.mailbox == mailbox);
    let live: Vec<usize> = world.arbiters.live().filter(of).collect();
    for at in live {
        end(world, at);
    }
}

/// Ends all that live.
pub fn end_all(world: &mut World) {
    let live: Vec<usize> = world.arbiters.live().collect();
    for at in live {
        end(world, at);
    }
}
