//! Contexts.

use gpumailbox::capi::context::{gmb_context, gmb_context_info, gmb_context_options};
use gpumailbox::capi::event::gmb_event;
use gpumailbox::*;

use crate::blob::{info, Blob, Out};
use crate::calls::call;
use crate::input::Input;
use crate::world::{Context, World};

/// Bytes of device memory that a context may hold here: none shall exhaust the machine.
pub const LIMIT: u64 = 4 << 20;

pub fn create(world: &mut World, input: &mut Input) {
    // They come with threads, which take their time.
    if world.contexts.live().count() >= 3 || world.contexts.0.len() >= 6 {
        return;
    }
    let limit = input.choose(&[LIMIT, LIMIT, 1 << 18, 1 << 14, 1]);
    let options = gmb_context_options {
        struct_size: 0,
        backend: input.spoil(2, 24) as i32,
        device: input.spoil(0, 16) as u32,
        resident_percent: input.spoil(0, 12) as u32,
        memory_limit: limit,
    };
    // On a machine with a GPU this must not find one.
    if options.backend == capi::context::GMB_BACKEND_CUDA {
        return;
    }
    let (blob, sound) = Blob::sized(options, input);
    let out = Out::<gmb_context>::new(input);
    let good = sound
        && out.good
        && (0..=2).contains(&options.backend)
        && options.device == 0
        && options.resident_percent <= 100;
    let status = call!(context::gmb_context_create(blob.pointer(), out.pointer()));
    assert_eq!(status == GMB_OK, good, "status {status}");
    let Some(context) = out.take(status) else { return };
    let mut fence = gmb_event { id: 0 };
    assert_eq!(call!(event::gmb_event_create(context, 0, &mut fence)), GMB_OK);
    world.contexts.add(context.id, Context { fence, limit, resident_percent: options.resident_percent });
}

pub fn destroy(world: &mut World, input: &mut Input) {
    let id = world.contexts.pick(input, world.strangers());
    match world.contexts.find(id) {
        // The first one serves all sequences.
        Some(0) => {}
        Some(at) => super::teardown::context(world, at),
        None => {
            let status = call!(context::gmb_context_destroy(gmb_context { id }));
            assert_eq!(status, GMB_ERROR_INVALID_HANDLE);
        }
    }
}

pub fn get_info(world: &mut World, input: &mut Input) {
    let (context, at) = world.context(input);
    let told = info(input, |to, size| {
        let status = call!(context::gmb_context_get_info(context, to, size));
        assert!(at.is_some() || status != GMB_OK);
        status
    });
    let Some(gmb_context_info { backend, name, .. }) = told else { return };
    assert_eq!(backend, capi::context::GMB_BACKEND_HOST);
    assert!(name.contains(&0));
}
