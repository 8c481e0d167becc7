//! Modules, the functions that take their kernels' places, and launches of these.

use std::ffi::{c_char, c_void};

use gpumailbox::capi::module::*;
use gpumailbox::*;

use crate::blob::{info, Blob, Out};
use crate::calls::call;
use crate::input::Input;
use crate::pipelines::{add, nothing, Body, Kernel, Module, USER};
use crate::world::World;

const MOST: usize = 3;
const MOST_KERNELS: usize = 6;
/// Blocks of a launch; more take too long.
const MOST_BLOCKS: u64 = 4096;
const MOST_ARGUMENTS: u32 = 4096;

fn pick(world: &World, input: &mut Input) -> (gmb_module, Option<usize>) {
    let id = world.pipelines.modules.pick(input, world.strangers());
    (gmb_module { id }, world.pipelines.modules.find(id))
}

pub fn pick_kernel(world: &World, input: &mut Input) -> (gmb_kernel, Option<usize>) {
    let id = world.pipelines.kernels.pick(input, world.strangers());
    (gmb_kernel { id }, world.pipelines.kernels.find(id))
}

pub fn create(world: &mut World, input: &mut Input) {
    if world.pipelines.modules.live().count() >= MOST {
        return;
    }
    let (context, at) = world.context(input);
    let out = Out::<gmb_module>::new(input);
    let by_file = input.chance(64);
    let (status, good) = match by_file {
        true => {
            let name: &[u8] = input.choose(&[b"nowhere\0" as &[u8], b"\0", b"\xff\xfe\0", b"/\0"]);
            let blob = Blob::of(name);
            let null = input.chance(16);
            let path = if null { std::ptr::null() } else { blob.pointer::<c_char>().cast_const() };
            (call!(module::gmb_module_load_file(context, path, out.pointer())), !null)
        }
        false => {
            // It is not looked at.
            let image = input.choose(&[0usize, 0x1000, 1, 0x5555_0000_1230]);
            let bytes = input.edge() as usize;
            let good = bytes <= isize::MAX as usize && (image != 0 || bytes == 0);
            (call!(module::gmb_module_create(context, image as *const c_void, bytes, out.pointer())), good)
        }
    };
    assert_eq!(status == GMB_OK, good && at.is_some() && out.good, "status {status}");
    if let (Some(made), Some(context)) = (out.take(status), at) {
        world.pipelines.modules.add(made.id, Module { context, functions: Vec::new() });
    }
}

const NAMES: [&[u8]; 4] = [b"add", b"nothing", b"another", b"\xc3\xa4"];

/// A name as C has it, what it is without its end, and whether it may be one.
fn name(input: &mut Input) -> (Option<Blob>, Vec<u8>, bool) {
    let name = match input.byte() {
        usual @ 0..=239 => NAMES[usize::from(usual) % NAMES.len()].to_vec(),
        240..=243 => Vec::new(),
        244..=247 => b"\xff\xfe".to_vec(),
        248..=251 => vec![b'a'; 5000],
        _ => return (None, Vec::new(), false),
    };
    let good = !name.is_empty() && std::str::from_utf8(&name).is_ok();
    let mut whole = name.clone();
    whole.push(0);
    (Some(Blob::of(&whole)), name, good)
}

pub fn register(world: &mut World, input: &mut Input) {
    let (module, at) = pick(world, input);
    let (blob, name, good) = name(input);
    let body = if name == b"add" { Body::Add } else { Body::Nothing };
    let function: gmb_block_function = match body {
        _ if input.chance(8) => None,
        Body::Add => Some(add),
        Body::Nothing => Some(nothing),
    };
    let pointer = blob.as_ref().map_or(std::ptr::null(), |blob| blob.pointer::<c_char>().cast_const());
    let user = std::ptr::from_ref(&USER).cast_mut().cast();
    let status = call!(module::gmb_module_register(module, pointer, function, user));
    assert_eq!(status == GMB_OK, at.is_some() && good && function.is_some(), "status {status}");
    if let (GMB_OK, Some(at)) = (status, at) {
        let functions = &mut world.pipelines.modules.0[at].it.functions;
        functions.retain(|(other, _)| *other != name);
        functions.push((name, body));
    }
}

pub fn get_kernel(world: &mut World, input: &mut Input) {
    if world.pipelines.kernels.live().count() >= MOST_KERNELS {
        return;
    }
    let (module, at) = pick(world, input);
    let (blob, name, good) = name(input);
    let pointer = blob.as_ref().map_or(std::ptr::null(), |blob| blob.pointer::<c_char>().cast_const());
    let out = Out::<gmb_kernel>::new(input);
    let status = call!(module::gmb_module_get_kernel(module, pointer, out.pointer()));
    let its = at.map(|at| &world.pipelines.modules.0[at].it);
    let body =
        its.and_then(|it| it.functions.iter().find(|(other, _)| *other == name)).map(|&(_, body)| body);
    assert_eq!(status == GMB_OK, good && out.good && body.is_some(), "status {status}");
    assert!(
        !(good && out.good && at.is_some() && body.is_none()) || status == GMB_ERROR_NOT_FOUND,
        "status {status}"
    );
    if let (Some(made), Some(body), Some(it)) = (out.take(status), body, its) {
        let context = it.context;
        world.pipelines.kernels.add(made.id, Kernel { context, body });
    }
}

/// A kernel to begin with: a module, a function and its handle at once.
pub fn prepare(world: &mut World, input: &mut Input) {
    create(world, input);
    register(world, input);
    get_kernel(world, input);
}

pub fn kernel_info(world: &mut World, input: &mut Input) {
    let (kernel, at) = pick_kernel(world, input);
    let told: Option<gmb_kernel_info> = info(input, |to, size| {
        let status = call!(module::gmb_kernel_get_info(kernel, to, size));
        assert!(at.is_some() || status != GMB_OK);
        status
    });
    assert!(told.is_none_or(|told| told.most_threads == 1024 && told.most_shared_bytes == 227 << 10));
}

/// A launch as C has it, with what it points to.
pub struct Launched {
    pub blob: Blob,
    pub at: *const gmb_launch,
    pub good: bool,
    /// Of `Body::Add`: the byte.
    pub value: u8,
    /// What the launch uses.
    pub address: u64,
    pub bytes: u64,
    _arguments: Vec<Blob>,
    _list: Blob,
}

/// A launch of a kernel: `first` is the buffer that a coordinator puts before the arguments, and its bytes. None where it would
/// take for ever, or has no memory to work on.
pub fn launch(world: &World, input: &mut Input, body: Body, first: Option<u64>) -> Option<Launched> {
    let value = input.byte();
    let (mut address, mut bytes) = (0, first.unwrap_or(0));
    let mut list: Vec<Vec<u8>> = Vec::new();
    if body == Body::Add {
        if first.is_none() {
            let (at, room, _) = super::memory::somewhere(world, input, 1)?;
            (address, bytes) = (at, (1 + input.word() % room).min(4096));
            list.push(address.to_ne_bytes().to_vec());
        }
        list.push((bytes as u32).to_ne_bytes().to_vec());
        list.push(vec![value]);
    } else {
        list.resize_with(input.below(5), || vec![7; 1 + value as usize % 80]);
    }
    let mut good = true;
    let blobs: Vec<Blob> = list.iter().map(|bytes| Blob::of(bytes)).collect();
    let mut given: Vec<_> = list
        .iter()
        .zip(&blobs)
        .map(|(bytes, blob)| gmb_argument { value: blob.pointer::<c_void>(), bytes: bytes.len() as u64 })
        .collect();
    if !given.is_empty() && input.chance(12) {
        let n = input.below(given.len());
        match input.below(3) {
            0 => given[n].value = std::ptr::null(),
            1 => given[n].bytes = 0,
            _ => given[n].bytes = input.choose(&[4097, 1 << 32, u64::MAX]),
        }
        good = false;
    }
    let mut count = given.len() as u32;
    if input.chance(8) {
        count = input.choose(&[MOST_ARGUMENTS + 1, u32::MAX, 1 << 31]);
        good = false;
    }
    let blob = Blob::of(&given);
    let arguments = match input.byte() {
        255 => std::ptr::null(),
        254 => blob.pointer::<u8>().wrapping_add(4).cast_const().cast(),
        _ => blob.pointer::<gmb_argument>().cast_const(),
    };
    good &= count == 0 || arguments == blob.pointer::<gmb_argument>().cast_const();
    let mut grid = [1, 1, 1];
    let mut block = [1, 1, 1];
    for n in 0..3 {
        let blocks = input.choose(&[1, 1, 2, 3, 5]);
        grid[n] = input.spoil(blocks, 4) as u32;
        let threads = input.choose(&[1, 1, 4, 16, 10]);
        block[n] = input.spoil(threads, 4) as u32;
    }
    let shared = input.choose(&[0, 0, 16, 1000, 100_000]);
    let shared_bytes = input.spoil(shared, 6) as u32;
    let reserved = input.spoil(0, 4) as u32;
    let within = |of: [u32; 3], most: [u32; 3]| (0..3).all(|n| (1..=most[n]).contains(&of[n]));
    let all = |of: [u32; 3]| of.into_iter().map(u64::from).fold(1, u64::saturating_mul);
    let (blocks, threads) = (all(grid), all(block));
    good &= within(grid, [i32::MAX as u32, 65_535, 65_535]) && blocks <= u64::from(u32::MAX);
    good &= within(block, [1024, 1024, 64]) && threads <= 1024 && shared_bytes <= 227 << 10 && reserved == 0;
    if blocks > MOST_BLOCKS && good {
        return None;
    }
    let made =
        gmb_launch { struct_size: 0, shared_bytes, grid, block, argument_count: count, reserved, arguments };
    let (whole, sound) = Blob::sized(made, input);
    let at = match input.byte() {
        255 => std::ptr::null(),
        254 => whole.pointer::<u8>().wrapping_add(4).cast_const().cast(),
        _ => whole.pointer::<gmb_launch>().cast_const(),
    };
    good &= sound && at == whole.pointer::<gmb_launch>().cast_const();
    Some(Launched { blob: whole, at, good, value, address, bytes, _arguments: blobs, _list: blob })
}

/// What a kernel does, or would if there were one.
pub fn body(world: &World, at: Option<usize>) -> Body {
    at.map_or(Body::Nothing, |at| world.pipelines.kernels.0[at].it.body)
}

pub fn kernel_launch(world: &mut World, input: &mut Input) {
    let (kernel, at) = pick_kernel(world, input);
    let body = body(world, at);
    let context = at.map(|at| world.pipelines.kernels.0[at].it.context);
    let (stream, resolved) = world.stream(input, context);
    let Some(made) = launch(world, input, body, None) else { return };
    let status = call!(module::gmb_kernel_launch(kernel, made.at, stream));
    let good = made.good && at.is_some() && resolved.is_some();
    assert_eq!(status == GMB_OK, good, "status {status}: {}", super::status::message());
    drop(made.blob);
    if let (GMB_OK, Some(context), Some(resolved)) = (status, context, resolved) {
        written(world, made.address);
        world.enqueued(context, resolved, &[made.address]);
    }
}

/// What a mailbox left there is no longer whole.
pub fn written(world: &mut World, address: u64) {
    if let Some(at) = world.allocation_of(address) {
        world.memory.0[at].it.remains = None;
    }
}

pub fn destroy(world: &mut World, input: &mut Input) {
    let (module, at) = pick(world, input);
    let status = call!(module::gmb_module_destroy(module));
    assert_eq!(status, if at.is_some() { GMB_OK } else { GMB_ERROR_INVALID_HANDLE });
    if let Some(at) = at {
        world.pipelines.modules.0[at].live = false;
    }
}

pub fn kernel_destroy(world: &mut World, input: &mut Input) {
    let (kernel, at) = pick_kernel(world, input);
    let status = call!(module::gmb_kernel_destroy(kernel));
    assert_eq!(status, if at.is_some() { GMB_OK } else { GMB_ERROR_INVALID_HANDLE });
    if let Some(at) = at {
        world.pipelines.kernels.0[at].live = false;
    }
}

/// Ends all that live.
pub fn end_all(world: &mut World) {
    let pipelines = &mut world.pipelines;
    for module in pipelines.modules.0.iter_mut().filter(|module| module.live) {
        assert_eq!(call!(module::gmb_module_destroy(gmb_module { id: module.id })), GMB_OK);
        module.live = false;
    }
    for kernel in pipelines.kernels.0.iter_mut().filter(|kernel| kernel.live) {
        assert_eq!(call!(module::gmb_kernel_destroy(gmb_kernel { id: kernel.id })), GMB_OK);
        kernel.live = false;
    }
}
