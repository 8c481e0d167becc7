//! Triple buffers: three buffers that go from free to uploading, processing, downloading and back.

use std::sync::atomic::{AtomicU64, Ordering};

use super::support::*;
use gpumailbox::*;
use BufferState::*;

pub fn triple(context: &Context, elements: u64) -> TripleBuffer {
    TripleBuffer::new(context, &TripleBufferOptions { dtype: U64, elements }).unwrap()
}

fn states(triple: &TripleBuffer) -> [BufferState; 3] {
    triple.info().states
}

/// Until the device has come to it.
fn acquired(triple: &TripleBuffer, step: Step) -> Buffer {
    triple.wait(step, Some(LIMIT)).unwrap()
}

pub fn advanced(triple: &TripleBuffer, wanted: [BufferState; 3]) {
    until(
        || format!("{:?}, not {wanted:?}", states(triple)),
        || {
            triple.advance().unwrap();
            states(triple) == wanted
        },
    );
}

#[test]
fn each_buffer_goes_through_the_states_in_turn() {
    let context = context();
    let (triple, stream) = (triple(&context, 8), context.stream().unwrap());
    assert_eq!(states(&triple), [Free; 3]);
    assert_eq!(triple.advance().unwrap(), 0);
    assert!(triple.acquire(Step::Process).unwrap().is_none());
    assert!(triple.acquire(Step::Download).unwrap().is_none());

    let first = triple.acquire(Step::Upload).unwrap().unwrap();
    assert_eq!((states(&triple), first.index(), first.turn()), ([Uploading, Free, Free], 0, 0));
    assert!(triple.acquire(Step::Process).unwrap().is_none(), "nothing was submitted");
    let second = triple.acquire(Step::Upload).unwrap().unwrap();
    assert_eq!(states(&triple), [Uploading, Uploading, Free]);
    assert_ne!(first.address(), second.address());
    assert_eq!(triple.advance().unwrap(), 0, "the work of neither step is enqueued");

    first.submit(stream.get()).unwrap();
    advanced(&triple, [Processing, Uploading, Free]);
    let first = acquired(&triple, Step::Process);
    assert_eq!((first.index(), first.turn(), first.step()), (0, 0, Step::Process));
    assert!(triple.acquire(Step::Process).unwrap().is_none(), "the second was not submitted");
    second.submit(stream.get()).unwrap();
    first.submit(stream.get()).unwrap();
    advanced(&triple, [Downloading, Processing, Free]);
    let third = triple.acquire(Step::Upload).unwrap().unwrap();
    assert!(triple.acquire(Step::Upload).unwrap().is_none(), "all three are on their way");
    let first = acquired(&triple, Step::Download);
    first.submit(stream.get()).unwrap();
    advanced(&triple, [Free, Processing, Uploading]);
    assert_eq!(triple.info().completed, 1);
    let again = triple.acquire(Step::Upload).unwrap().unwrap();
    assert_eq!((again.index(), again.turn()), (0, 3), "the one that was free");
    drop((third, again));
}

/// Given up in any step, a buffer is free again, and nobody is given it in between.
#[test]
fn what_is_given_up_comes_to_nobody() {
    let context = context();
    let (triple, stream) = (triple(&context, 8), context.stream().unwrap());
    for (turn, given_up) in [Step::Upload, Step::Process, Step::Download].into_iter().enumerate() {
        for step in [Step::Upload, Step::Process, Step::Download] {
            let buffer = acquired(&triple, step);
            assert_eq!(buffer.turn(), turn as u64);
            if step == given_up {
                break;
            }
            buffer.submit(stream.get()).unwrap();
        }
        advanced(&triple, [Free; 3]);
        assert!(triple.acquire(Step::Process).unwrap().is_none());
        assert!(triple.acquire(Step::Download).unwrap().is_none());
        assert_eq!(triple.info().completed, turn as u64 + 1);
    }
}

/// Given up between two others, it is passed over in each step, and the others are not.
#[test]
fn what_is_given_up_between_others_is_passed_over() {
    let context = context();
    let (triple, stream) = (triple(&context, 8), context.stream().unwrap());
    let [first, second, third] = [(); 3].map(|()| triple.acquire(Step::Upload).unwrap().unwrap());
    first.submit(stream.get()).unwrap();
    drop(second);
    third.submit(stream.get()).unwrap();
    advanced(&triple, [Processing; 3]);
    for step in [Step::Process, Step::Download] {
        for turn in [0, 2] {
            let buffer = acquired(&triple, step);
            assert_eq!((buffer.turn(), buffer.step()), (turn, step));
            buffer.submit(stream.get()).unwrap();
        }
    }
    advanced(&triple, [Free; 3]);
}

/// Without a thread that asks after events: each stream waits for the others on the device.
#[test]
fn a_loop_that_never_looks_at_the_device() {
    let (context, mut random) = (context(), Random::new());
    let [up, work, down] = streams(&context);
    const WORDS: usize = 1 << 10;
    let (triple, mix) = (triple(&context, WORDS as u64), kernels(&context).kernel("mix").unwrap());
    let rounds = 200;
    let input = context.pinned_buffer(8 * WORDS * rounds).unwrap();
    let output = context.pinned_buffer(8 * WORDS * rounds).unwrap();
    let words = |buffer: &PinnedBuffer| unsafe {
        std::slice::from_raw_parts_mut(buffer.address() as *mut u64, WORDS * rounds)
    };
    words(&input).iter_mut().for_each(|word| *word = random.next());
    for round in 0..rounds {
        let at = |buffer: &PinnedBuffer| buffer.address() + (8 * WORDS * round) as u64;
        let take = |step, stream: &OwnedStream| {
            triple.acquire_on(step, stream.get()).unwrap().expect("the step before was submitted")
        };
        unsafe {
            let buffer = take(Step::Upload, &up);
            context.copy(buffer.address(), at(&input), 8 * WORDS, up.get()).unwrap();
            buffer.submit(up.get()).unwrap();
            let buffer = take(Step::Process, &work);
            let a = buffer.address();
            let arguments = mix_arguments(a, a, a, round as u64, WORDS as u32);
            mix.launch(&Launch::new(4, 128), &arguments, work.get()).unwrap();
            buffer.submit(work.get()).unwrap();
            let buffer = take(Step::Download, &down);
            context.copy(at(&output), buffer.address(), 8 * WORDS, down.get()).unwrap();
            buffer.submit(down.get()).unwrap();
        }
    }
    context.synchronize(down.get()).unwrap();
    for (n, (&from, &to)) in words(&input).iter().zip(words(&output).iter()).enumerate() {
        assert_eq!(to, mixed(from, from, (n / WORDS) as u64, (n % WORDS) as u64), "word {n}");
    }
}

/// Many threads for each step, all of them also advancing: every turn is uploaded, processed and downloaded once, and in it
/// what was uploaded.
#[test]
fn many_threads_on_one_triple_buffer() {
    let (context, mut random) = (context(), Random::new());
    let turns = (total_records() / 2000).max(300);
    let triple = triple(&context, 1);
    let salt = random.next();
    let value = |turn: u64, step: u64| mixed(turn, step, salt, step);
    let done = AtomicU64::new(0);
    let seen: Vec<AtomicU64> = (0..turns).map(|_| AtomicU64::new(0)).collect();
    std::thread::scope(|scope| {
        for thread in 0..9u64 {
            let (triple, context, done, seen, value) = (&triple, &context, &done, &seen, &value);
            let step = [Step::Upload, Step::Process, Step::Download][thread as usize % 3];
            scope.spawn(move || {
                let stream = context.stream().unwrap();
                let host = context.pinned_buffer(16).unwrap();
                let word = host.address() as *mut u64;
                let copy = |to: u64, from: u64| unsafe {
                    context.copy(to, from, 8, stream.get()).unwrap();
                    context.synchronize(stream.get()).unwrap();
                };
                while done.load(Ordering::Acquire) < turns {
                    if thread % 2 == 0 {
                        triple.advance().unwrap();
                    }
                    let Some(buffer) = triple.acquire(step).unwrap() else {
                        std::thread::yield_now();
                        continue;
                    };
                    let turn = buffer.turn();
                    if turn >= turns {
                        // Others end it; nobody asks for it any more.
                        continue;
                    }
                    let phase = seen[turn as usize].fetch_add(1, Ordering::AcqRel);
                    assert_eq!(phase, step as u64, "turn {turn} came to {step:?} out of turn");
                    if step != Step::Upload {
                        copy(host.address(), buffer.address());
                        assert_eq!(unsafe { word.read_volatile() }, value(turn, phase - 1), "turn {turn}");
                    }
                    unsafe { word.write_volatile(value(turn, phase)) };
                    copy(buffer.address(), host.address());
                    buffer.submit(stream.get()).unwrap();
                    if step == Step::Download {
                        done.fetch_add(1, Ordering::AcqRel);
                    }
                }
            });
        }
    });
    assert!(seen.iter().all(|phases| phases.load(Ordering::Relaxed) == 3));
}

#[test]
fn bad_input() {
    let context = context();
    let status = |dtype, elements| {
        TripleBuffer::new(&context, &TripleBufferOptions { dtype, elements }).unwrap_err().status()
    };
    assert_eq!(status(gmb_dtype::default(), 8), GMB_ERROR_INVALID_ARGUMENT);
    assert_eq!(status(U64, 0), GMB_ERROR_ZERO_COUNT);
    assert_eq!(status(U64, u64::MAX / 2), GMB_ERROR_OVERFLOW);
    let limited = limited_context(1 << 20);
    let options = TripleBufferOptions { dtype: U64, elements: 1 << 16 };
    assert_eq!(TripleBuffer::new(&limited, &options).unwrap_err().status(), GMB_ERROR_MEMORY_LIMIT);
    assert_eq!(limited.memory_info().unwrap().used, 0, "what was allocated before it failed");
    let triple = triple(&context, 8);
    let error = triple.wait(Step::Download, Some(std::time::Duration::ZERO)).unwrap_err();
    assert_eq!(error.status(), GMB_ERROR_TIMEOUT);
    // A stream that is captured keeps the buffer where it is.
    let stream = context.stream().unwrap();
    context.begin_capture(stream.get(), CaptureMode::ThreadLocal).unwrap();
    let refused = triple.acquire_on(Step::Upload, stream.get()).unwrap_err();
    assert_eq!(refused.status(), GMB_ERROR_NOT_SUPPORTED);
    drop(context.end_capture(stream.get()));
    assert_eq!(states(&triple), [Free; 3]);
}

/// In C a buffer is a struct that anyone may hold: only whoever asked for it can hand it on.
#[test]
fn a_buffer_in_the_wrong_state_is_refused() {
    use capi::triple::*;
    let (context, owner) = (c_context(0), context());
    let options = gmb_triple_buffer_options {
        struct_size: size_of::<gmb_triple_buffer_options>() as u32,
        dtype: U64,
        elements: 4,
    };
    let mut triple = gmb_triple_buffer { id: 0 };
    assert_eq!(gmb_triple_buffer_create(context, &options, &mut triple), GMB_OK);
    let empty = gmb_triple_slot { address: std::ptr::null_mut(), bytes: 0, turn: 0, index: 0, step: 0 };
    let stream = std::ptr::null_mut();
    // Never asked for.
    for turn in [0, 1, 2, 3, u64::MAX, 1 << 46] {
        let slot = gmb_triple_slot { turn, ..empty };
        assert_eq!(gmb_triple_buffer_submit(triple, &slot, stream), GMB_ERROR_WRONG_STATE);
        assert_eq!(gmb_triple_buffer_give_up(triple, &slot), GMB_ERROR_WRONG_STATE);
    }
    let mut slot = empty;
    assert_eq!(gmb_triple_buffer_acquire(triple, GMB_STEP_DOWNLOAD, &mut slot), GMB_NOT_READY);
    assert!(slot.address.is_null());
    assert_eq!(gmb_triple_buffer_acquire(triple, 3, &mut slot), GMB_ERROR_INVALID_ARGUMENT);
    assert_eq!(gmb_triple_buffer_acquire(triple, GMB_STEP_UPLOAD, &mut slot), GMB_OK);
    for step in [GMB_STEP_PROCESS, GMB_STEP_DOWNLOAD] {
        let wrong = gmb_triple_slot { step, ..slot };
        assert_eq!(gmb_triple_buffer_submit(triple, &wrong, stream), GMB_ERROR_WRONG_STATE);
    }
    assert_eq!(gmb_triple_buffer_submit(triple, &slot, stream), GMB_OK);
    assert_eq!(gmb_triple_buffer_submit(triple, &slot, stream), GMB_ERROR_WRONG_STATE, "twice");
    assert_eq!(gmb_triple_buffer_give_up(triple, &slot), GMB_ERROR_WRONG_STATE);
    assert_eq!(gmb_triple_buffer_wait(triple, GMB_STEP_PROCESS, u64::MAX, &mut slot), GMB_OK);
    assert_eq!(gmb_triple_buffer_give_up(triple, &slot), GMB_OK);
    assert_eq!(gmb_triple_buffer_destroy(triple), GMB_OK);
    assert_eq!(gmb_triple_buffer_advance(triple, std::ptr::null_mut()), GMB_ERROR_INVALID_HANDLE);
    assert_eq!(capi::context::gmb_context_destroy(context), GMB_OK);
    drop(owner);
}
