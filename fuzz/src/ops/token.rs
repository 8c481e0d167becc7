//! Tokens, and what becomes of their results.

use gpumailbox::capi::token::gmb_token;
use gpumailbox::*;

use crate::blob::Out;
use crate::calls::call;
use crate::input::Input;
use crate::model::Outcome;
use crate::world::{Operation, Token, World};

fn pick(world: &World, input: &mut Input) -> (gmb_token, Option<usize>) {
    let id = any(world, input);
    (gmb_token { id }, world.tokens.find(id))
}

/// The id of a token, or of none; never of one that the fuzzer keeps for a queue.
pub fn any(world: &World, input: &mut Input) -> u64 {
    let id = world.tokens.pick(input, world.strangers());
    match world.queues.queues.0.iter().any(|queue| queue.it.token.id == id) {
        true => 0,
        false => id,
    }
}

pub fn create(world: &mut World, input: &mut Input) {
    if world.tokens.live().count() >= 10 {
        return;
    }
    let (context, at) = world.context(input);
    let out = Out::<gmb_token>::new(input);
    let status = call!(token::gmb_token_create(context, out.pointer()));
    assert_eq!(status == GMB_OK, at.is_some() && out.good, "status {status}");
    if let (Some(token), Some(context)) = (out.take(status), at) {
        world.tokens.add(token.id, Token { context, submitted: 0, awaited: None });
    }
}

pub fn destroy(world: &mut World, input: &mut Input) {
    let (token, at) = pick(world, input);
    let status = call!(token::gmb_token_destroy(token));
    match at {
        Some(at) => {
            assert_eq!(status, GMB_OK);
            forget(world, at);
            world.tokens.0[at].live = false;
        }
        None => assert_eq!(status, GMB_ERROR_INVALID_HANDLE),
    }
}

/// Nobody will learn what the token's operation did.
pub fn forget(world: &mut World, at: usize) {
    if let Some(awaited) = world.tokens.0[at].it.awaited.take() {
        if let Operation::Pop { reader, number } = awaited.what {
            world.mailboxes.0[awaited.mailbox].it.model.outcome(reader, number, Outcome::Unknown);
        }
    }
}

pub fn device_result(world: &mut World, input: &mut Input) {
    let (token, at) = pick(world, input);
    let out = Out::<*const gmb_result>::new(input);
    let status = call!(token::gmb_token_get_device_result(token, out.pointer()));
    assert_eq!(status == GMB_OK, at.is_some() && out.good, "status {status}");
    assert!(out.take(status).is_none_or(|result| !result.is_null() && result as usize % 8 == 0));
}

pub fn poll(world: &mut World, input: &mut Input) {
    let (token, at) = pick(world, input);
    let out = Out::<gmb_result>::new(input);
    let status = call!(token::gmb_token_poll(token, out.pointer()));
    let used = at.is_some_and(|at| world.tokens.0[at].it.submitted > 0);
    assert_eq!(status >= 0, used && out.good, "status {status}");
    if let (Some(result), Some(at)) = (out.take(status), at) {
        arrived(world, at, &result);
    }
}

pub fn wait(world: &mut World, input: &mut Input) {
    let (token, at) = pick(world, input);
    let submitted = at.map_or(0, |at| world.tokens.0[at].it.submitted);
    let (after, timeout) = match input.byte() {
        0..=159 => (u64::MAX, u64::MAX),
        160..=199 => (u64::from(submitted.wrapping_sub(1)), u64::MAX),
        200..=227 => (u64::MAX, input.choose(&[0, 1, 5_000])),
        // An epoch that may never come.
        _ => (input.edge(), input.choose(&[0, 1, 5_000])),
    };
    let out = Out::<gmb_result>::new(input);
    let status = call!(token::gmb_token_wait(token, after, timeout, out.pointer()));
    let sound = submitted > 0 && out.good && (after == u64::MAX || after <= u64::from(u32::MAX));
    assert!(sound || status < 0, "status {status}");
    assert!(!sound || [GMB_OK, GMB_ERROR_TIMEOUT].contains(&status), "status {status}");
    assert!(!sound || status == GMB_OK || timeout != u64::MAX);
    if let (Some(result), Some(at)) = (out.take(status), at) {
        // Before, it may be an older result.
        if after == u64::MAX || result.epoch == submitted {
            arrived(world, at, &result);
        }
    }
}

/// Reads a token's result if it awaits one; `certain` when its operation is done.
pub fn collect(world: &mut World, at: usize, certain: bool) {
    if world.tokens.0[at].it.awaited.is_none() {
        return;
    }
    let token = gmb_token { id: world.tokens.0[at].id };
    let out = Out::<gmb_result>::good();
    let status = call!(token::gmb_token_poll(token, out.pointer()));
    assert!(status == GMB_OK || (status == GMB_NOT_READY && !certain), "status {status} of a token");
    if let Some(result) = out.take(status) {
        arrived(world, at, &result);
    }
}

/// Holds a result against the model, once.
fn arrived(world: &mut World, at: usize, result: &gmb_result) {
    let token = &mut world.tokens.0[at].it;
    assert_eq!(result.epoch, token.submitted, "{result:?}");
    let Some(awaited) = token.awaited.take() else { return };
    if let Operation::Queue(count) = awaited.what {
        assert_eq!((result.status, result.lost), (GMB_OK, 0), "{result:?}");
        return assert!(count.is_none_or(|count| count == result.count), "{result:?}, expected {count:?}");
    }
    let model = &mut world.mailboxes.0[awaited.mailbox].it.model;
    match awaited.what {
        Operation::Push(push) => model.pushed(push, result),
        Operation::Pop { reader, number } => {
            let outcome = super::transfer::read(model, reader, number, result);
            model.outcome(reader, number, outcome);
        }
        Operation::Queue(_) => {}
    }
}
