//! Copies from and to pageable memory, which go through pinned memory in pieces.

use super::support::*;
use gpumailbox::*;

fn coordinator(context: &Context) -> Coordinator {
    Coordinator::new(context, &CoordinatorOptions::default()).unwrap()
}

/// Pageable memory, in pieces and at once, beside pinned memory, from and to any offset.
#[test]
fn pageable_memory_is_staged() {
    let (context, mut random) = (context(), Random::new());
    let coordinator = coordinator(&context);
    for bytes in [1, 100, (16 << 10) + 1, 1 << 20, (1 << 20) + 7, (9 << 20) + 3] {
        let device = context.device_buffer(bytes + 64).unwrap();
        let offset = random.between(0, 15) as usize;
        let input = random.bytes(bytes + 16);
        let mut output = vec![POISON; bytes + 32];
        let place = Place::Address(device.address() + offset as u64);
        let from = input[offset..].as_ptr() as u64;
        let to = output[offset..].as_mut_ptr() as u64;
        unsafe {
            let up = coordinator.queue(Work::Upload { to: place, from, bytes: bytes as u64 }, &[]).unwrap();
            let down = Work::Download { to, from: place, bytes: bytes as u64 };
            let down = coordinator.queue(down, &[up]).unwrap();
            coordinator.wait(down, Some(LIMIT)).unwrap();
        }
        assert_eq!(output[offset..offset + bytes], input[offset..offset + bytes], "{bytes} bytes");
        assert!(output[..offset].iter().chain(&output[offset + bytes..]).all(|&byte| byte == POISON));
    }
}

/// Many pieces, again and again, each time with other data: none is used before it is there, or again before it is free.
#[test]
fn pieces_follow_each_other() {
    let (context, mut random) = (context(), Random::new());
    let coordinator = coordinator(&context);
    let words = 9 << 17;
    let device = context.device_buffer(8 * words).unwrap();
    let pinned = context.pinned_buffer(8 * words).unwrap();
    let view = unsafe { std::slice::from_raw_parts_mut(pinned.address() as *mut u64, words) };
    let (mut input, mut output) = (vec![0u64; words], vec![0u64; words]);
    for _ in 0..12 {
        let salt = random.next();
        input.iter_mut().enumerate().for_each(|(n, word)| *word = salt ^ n as u64);
        // There and back, and then each way alone, with pinned memory on the other.
        unsafe {
            let up = coordinator.queue(upload_of(device.address(), &input), &[]).unwrap();
            let seen = coordinator.queue(download_of(view, device.address()), &[up]).unwrap();
            coordinator.wait(seen, Some(LIMIT)).unwrap();
            assert!(view == input, "an upload");
            let down = coordinator.queue(download_of(&mut output, device.address()), &[]).unwrap();
            coordinator.wait(down, Some(LIMIT)).unwrap();
            assert!(output == input, "a download");
        }
    }
}
