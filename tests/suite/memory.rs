//! Device memory: limit, pool, stream order, and what happens without pools.

use super::support::*;
use gpumailbox::*;

#[test]
fn a_limit_holds_and_frees_count() {
    let context = limited_context(1 << 20);
    let before = context.memory_info().unwrap();
    assert_eq!((before.limit, before.used, before.allocations), (1 << 20, 0, 0));
    let stream = context.stream().unwrap();
    let first = context.device_buffer(600_000).unwrap();
    for ordered in [false, true] {
        let error = match ordered {
            false => context.device_buffer(500_000).unwrap_err(),
            true => context.device_buffer_on(500_000, stream.get()).unwrap_err(),
        };
        assert_eq!(error.status(), GMB_ERROR_MEMORY_LIMIT);
        assert!(error.message().contains("1048576"), "{error}");
    }
    // A mailbox counts, too.
    let options = MailboxOptions { capacity: 1024, payload_bytes: 1000, ..Default::default() };
    assert_eq!(Mailbox::new(&context, &options).unwrap_err().status(), GMB_ERROR_MEMORY_LIMIT);
    let second = context.device_buffer_on(400_000, stream.get()).unwrap();
    let info = context.memory_info().unwrap();
    assert_eq!((info.used, info.high_water, info.allocations), (1_000_000, 1_000_000, 2));
    drop(first);
    unsafe { second.free_on(stream.get()) }.unwrap();
    let info = context.memory_info().unwrap();
    assert_eq!((info.used, info.high_water, info.allocations), (0, 1_000_000, 0));
    let mailbox = Mailbox::new(&context, &MailboxOptions { capacity: 512, ..options }).unwrap();
    assert_eq!(context.memory_info().unwrap().used, mailbox.info().unwrap().ring_bytes);
    drop(mailbox);
    assert_eq!(context.memory_info().unwrap().used, 0);
    context.device_buffer(1 << 20).unwrap();
    in_memory_of_the_caller(&context);
}

/// Where the streams of a shared mailbox meet is the library's memory, wherever the ring lies. What is refused for it
/// leaves the caller's memory as it was.
fn in_memory_of_the_caller(context: &Context) {
    let options = MailboxOptions { capacity: 8, payload_bytes: 8, mode: Mode::Shared, ..Default::default() };
    let bytes = Mailbox::required_bytes(&options).unwrap();
    let memory = poisoned(context, bytes as usize, POISON);
    let stingy = limited_context(1);
    let made = unsafe { Mailbox::new_in(&stingy, &options, memory.address(), bytes) };
    assert_eq!(made.unwrap_err().status(), GMB_ERROR_MEMORY_LIMIT);
    assert_eq!(download(context, memory.address(), bytes as usize), vec![POISON; bytes as usize]);

    drop(unsafe { Mailbox::new_in(context, &options, memory.address(), bytes) }.unwrap());
    let left = download(context, memory.address(), bytes as usize);
    let found = unsafe { Mailbox::attach(&stingy, memory.address(), bytes, &Attach::default()) };
    assert_eq!(found.unwrap_err().status(), GMB_ERROR_MEMORY_LIMIT);
    assert_eq!(download(context, memory.address(), bytes as usize), left);
    assert_eq!(stingy.memory_info().unwrap().used, 0);
    let found = unsafe { Mailbox::attach(context, memory.address(), bytes, &Attach::default()) }.unwrap();
    assert_eq!(found.info().unwrap().mode, Mode::Shared);
}

#[test]
fn impossible_sizes_are_refused_and_change_nothing() {
    let context = limited_context(0);
    let stream = context.stream().unwrap();
    for bytes in [usize::MAX, isize::MAX as usize, 1 << 52] {
        assert_eq!(context.device_buffer(bytes).unwrap_err().status(), GMB_ERROR_OUT_OF_MEMORY);
        let error = context.device_buffer_on(bytes, stream.get()).unwrap_err();
        assert_eq!(error.status(), GMB_ERROR_OUT_OF_MEMORY);
    }
    assert_eq!(context.device_buffer(0).unwrap_err().status(), GMB_ERROR_ZERO_COUNT);
    let info = context.memory_info().unwrap();
    assert_eq!((info.used, info.high_water), (0, 0));
}

/// Memory that is freed in stream order may be given out again at once: what the stream did
/// with it before is done first.
#[test]
fn memory_freed_in_order_is_used_again_in_order() {
    let context = context();
    let mut random = Random::new();
    let stream = context.stream().unwrap();
    let out = context.pinned_buffer(64 * 4096).unwrap();
    let mut expected = Vec::new();
    for round in 0..64u64 {
        let value = random.next() as u8;
        let memory = context.device_buffer_on(4096, stream.get()).unwrap();
        unsafe {
            context.fill(memory.address(), value, 4096, stream.get()).unwrap();
            context.copy(out.address() + round * 4096, memory.address(), 4096, stream.get()).unwrap();
            memory.free_on(stream.get()).unwrap();
        }
        expected.extend([value; 4096]);
    }
    context.synchronize(stream.get()).unwrap();
    let got = unsafe { std::slice::from_raw_parts(out.address() as *const u8, 64 * 4096) };
    assert_eq!(got, expected);
    context.trim_memory(0).unwrap();
    let info = context.memory_info().unwrap();
    assert_eq!((info.used, info.high_water), (0, 4096));
}

#[test]
fn memory_freed_twice_or_wrongly_is_refused() {
    use gpumailbox::capi::{context::gmb_context_destroy, memory::*};
    let context = c_context(1 << 16);
    let null = std::ptr::null_mut();
    let allocate = |kind: u32| {
        let mut memory = null;
        let status = match kind {
            0 => gmb_memory_allocate(context, 4096, &mut memory),
            1 => gmb_memory_allocate_async(context, 4096, null.cast(), &mut memory),
            _ => gmb_pinned_allocate(context, 4096, &mut memory),
        };
        assert_eq!(status, GMB_OK);
        memory
    };
    let frees: [&dyn Fn(*mut std::ffi::c_void) -> gmb_status; 3] = [
        &|memory| gmb_memory_free(context, memory),
        &|memory| gmb_memory_free_async(context, memory, null.cast()),
        &|memory| gmb_pinned_free(context, memory),
    ];
    for kind in 0..3 {
        for (way, free) in frees.iter().enumerate() {
            let memory = allocate(kind);
            let fits = (kind == 2) == (way == 2);
            assert_eq!(free(memory), if fits { GMB_OK } else { GMB_ERROR_INVALID_ARGUMENT }, "{kind} {way}");
            if fits {
                assert_eq!(free(memory), GMB_ERROR_INVALID_ARGUMENT, "freed twice: {kind} {way}");
            } else {
                assert_eq!(frees[if kind == 2 { 2 } else { 0 }](memory), GMB_OK);
            }
            assert_eq!(free(null), GMB_OK);
            assert_eq!(free(memory.wrapping_byte_add(8)), GMB_ERROR_INVALID_ARGUMENT);
        }
    }
    let mut info = std::mem::MaybeUninit::<gmb_memory_info>::zeroed();
    assert_eq!(gmb_memory_get_info(context, info.as_mut_ptr(), size_of::<gmb_memory_info>()), GMB_OK);
    let info = unsafe { info.assume_init() };
    assert_eq!((info.used, info.allocations, info.limit), (0, 0, 1 << 16));
    assert_eq!(gmb_context_destroy(context), GMB_OK);
}

/// `GMB_DISABLE=mempool` stands for a device without pools: all promises but speed hold.
#[test]
fn everything_works_without_pools() {
    let tests = [
        "memory::a_limit_holds_and_frees_count",
        "memory::memory_freed_in_order_is_used_again_in_order",
        "memory::memory_freed_twice_or_wrongly_is_refused",
        "memory::the_pool_is_used_where_there_is_one",
        "mailbox::a_full_mailbox_accepts_what_fits_and_an_empty_one_gives_nothing",
    ];
    for test in tests {
        child_passes(test, &[("GMB_DISABLE", "mempool")]);
    }
}

#[test]
fn the_pool_is_used_where_there_is_one() {
    let disabled = std::env::var("GMB_DISABLE").is_ok_and(|list| list.contains("mempool"));
    let context = context();
    let stream = context.stream().unwrap();
    assert_eq!(context.memory_info().unwrap().pooled, !disabled);
    let memory = context.device_buffer_on(1 << 20, stream.get()).unwrap();
    let info = context.memory_info().unwrap();
    assert_eq!(info.used, 1 << 20);
    assert_eq!(info.reserved >= 1 << 20, !disabled);
    unsafe { memory.free_on(stream.get()) }.unwrap();
    context.synchronize(stream.get()).unwrap();
    context.trim_memory(0).unwrap();
    assert_eq!(context.memory_info().unwrap().used, 0);
}
