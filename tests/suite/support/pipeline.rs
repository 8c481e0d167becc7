//! Kernels by name, on both backends, and what they compute, worked out on the CPU.

use gpumailbox::*;

/// `kernels.cu`, compiled.
pub const KERNELS: &[u8] = include_bytes!("kernels.ptx");

pub const U64: gmb_dtype = gmb_dtype { code: 1, bits: 64, lanes: 1 };
pub const F32: gmb_dtype = gmb_dtype { code: 2, bits: 32, lanes: 1 };

/// What `mix` makes of the n-th words.
pub fn mixed(a: u64, b: u64, salt: u64, n: u64) -> u64 {
    let x = a.wrapping_mul(3).wrapping_add(b ^ salt).wrapping_add(n);
    let x = (x ^ (x >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^ (x >> 32)
}

/// The test's kernels: from PTX on CUDA, functions of the host on the host backend.
pub fn kernels(context: &Context) -> Module {
    let module = Module::new(context, KERNELS).unwrap();
    module
        .register("mix", |block| {
            let word = |n| block.argument::<u64>(n).unwrap();
            let (to, a, b, salt, count) =
                (word(0), word(1), word(2), word(3), block.argument::<u32>(4).unwrap());
            let all = u64::from(block.grid[0]) * u64::from(block.block[0]);
            for thread in 0..u64::from(block.block[0]) {
                let mut n = block.first_thread() + thread;
                while n < count.into() {
                    let at = |base: u64| (base + 8 * n) as *mut u64;
                    unsafe { *at(to) = mixed(*at(a), *at(b), salt, n) };
                    n += all;
                }
            }
        })
        .unwrap();
    module
        .register("add", |block| {
            let (data, what, count) = (
                block.argument::<u64>(0).unwrap(),
                block.argument::<f32>(1).unwrap(),
                block.argument::<u32>(2).unwrap(),
            );
            assert!(block.shared.iter().all(|&byte| byte == 0));
            for n in block.first_thread()..block.first_thread() + u64::from(block.block[0]) {
                if n < count.into() {
                    unsafe { *(data as *mut f32).add(n as usize) += what };
                }
            }
        })
        .unwrap();
    module
}

/// A launch of `mix`.
pub fn mix_arguments(to: u64, a: u64, b: u64, salt: u64, count: u32) -> [Argument<'static>; 5] {
    [to.into(), a.into(), b.into(), salt.into(), count.into()]
}

/// An upload from host memory, as an operation.
pub fn upload_of(to: u64, from: &[u64]) -> Work<'static> {
    Work::Upload { to: Place::Address(to), from: from.as_ptr() as u64, bytes: size_of_val(from) as u64 }
}

/// A download to host memory, as an operation.
pub fn download_of(to: &mut [u64], from: u64) -> Work<'static> {
    Work::Download { to: to.as_mut_ptr() as u64, from: Place::Address(from), bytes: size_of_val(to) as u64 }
}
