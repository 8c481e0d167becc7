use super::support::*;
use gpumailbox::*;

#[test]
fn info_names_the_device() {
    let info = context().info();
    assert_ne!(info.backend, BackendKind::Auto);
    assert!(!info.name.is_empty());
    assert!(info.multiprocessors > 0);
    assert_eq!(info.backend == BackendKind::Host, info.driver_version == 0);
}

#[test]
fn a_missing_device_is_an_error_that_says_so() {
    let backend = context().info().backend;
    let error = Context::new(&ContextOptions { backend, device: 4096, ..Default::default() }).unwrap_err();
    assert_eq!(error.status(), GMB_ERROR_INVALID_DEVICE);
    assert!(error.message().contains("4096"), "{error}");
}

#[test]
fn contexts_and_what_is_made_in_them_drop_in_any_order() {
    let first = context();
    let second = context();
    let box_of_first = mailbox(&first, 8, 16);
    let token = Token::new(&first).unwrap();
    let stream = first.stream().unwrap();
    drop(first);
    drop(second);
    let row = HostRows { rows: b"after the context", stride: 17, lengths: &[16], types: &[] };
    box_of_first.push_from_host_blocking(&row, None).unwrap();
    drop(stream);
    drop(box_of_first);
    drop(token);
}

#[test]
fn a_stream_of_another_context_or_a_destroyed_one_is_refused() {
    let ours = context();
    let mailbox = mailbox(&ours, 8, 16);
    let records = poisoned(&ours, 16, 1);
    let push = push_of(&records, 1);
    // The CUDA driver cannot be asked about a handle that is no stream: only the host backend can.
    if ours.info().backend == BackendKind::Host {
        let theirs = context();
        let foreign = theirs.stream().unwrap();
        let error = unsafe { mailbox.push(&push, foreign.get(), None) }.unwrap_err();
        assert_eq!(error.status(), GMB_ERROR_INVALID_STREAM);
        let gone = {
            let stream = ours.stream().unwrap();
            // On the host backend a stream that is none is an error, not undefined.
            unsafe { Stream::from_raw(stream.get().raw()) }
        };
        let error = unsafe { mailbox.push(&push, gone, None) }.unwrap_err();
        assert_eq!(error.status(), GMB_ERROR_INVALID_STREAM);
    }
    for stream in
        [Stream::LEGACY, Stream::PER_THREAD, unsafe { Stream::from_raw(std::ptr::without_provenance_mut(1)) }]
    {
        unsafe { mailbox.push(&push, stream, None) }.unwrap();
        ours.synchronize(stream).unwrap();
    }
    assert_eq!(mailbox.info().unwrap().published, 3);
}

#[test]
fn the_default_streams_cannot_be_destroyed() {
    use gpumailbox::capi::{context::gmb_context_destroy, stream as c_stream};
    let context = c_context(0);
    for value in [0, 1, 2, usize::MAX] {
        let stream = std::ptr::without_provenance_mut(value);
        assert_eq!(c_stream::gmb_stream_destroy(context, stream), GMB_ERROR_INVALID_STREAM);
        assert_eq!(c_stream::gmb_stream_synchronize(context, stream), GMB_OK);
    }
    assert_eq!(gmb_context_destroy(context), GMB_OK);
}

#[test]
fn pinned_memory_comes_zeroed_and_copies_keep_bytes() {
    let context = context();
    let mut random = Random::new();
    let data = random.bytes(100_003);
    let device = upload(&context, &data);
    assert_eq!(download(&context, device.address(), data.len()), data);
    let pinned = context.pinned_buffer(4096).unwrap();
    let view = unsafe { std::slice::from_raw_parts(pinned.address() as *const u8, 4096) };
    assert!(view.iter().all(|&b| b == 0));
    let stream = context.stream().unwrap();
    unsafe { context.fill(device.address() + 1, 0x5A, 1000, stream.get()) }.unwrap();
    context.synchronize(stream.get()).unwrap();
    let after = download(&context, device.address(), data.len());
    assert_eq!(after[0], data[0]);
    assert!(after[1..1001].iter().all(|&b| b == 0x5A));
    assert_eq!(after[1001..], data[1001..]);
}

#[test]
fn priority_classes_map_to_the_devices_range() {
    let context = context();
    let classes = [Priority::Focus, Priority::Normal, Priority::Peripheral];
    let streams: Vec<OwnedStream> = classes.iter().map(|&class| context.stream_of(class).unwrap()).collect();
    let real: Vec<i32> = streams.iter().map(|s| context.priority(s.get()).unwrap()).collect();
    assert!(real[0] < real[1] && real[1] <= real[2], "{real:?}: less is more urgent");
    assert_eq!(context.priority(context.stream().unwrap().get()).unwrap(), real[1]);
    // Default streams are of the least priority.
    assert_eq!(context.priority(Stream::LEGACY).unwrap(), real[2]);
    // All of them work.
    let mailbox = mailbox(&context, 64, 16);
    let records = poisoned(&context, 16 * 8, 1);
    for stream in &streams {
        let push = push_of(&records, 8);
        unsafe { mailbox.push(&push, stream.get(), None) }.unwrap();
    }
    for stream in &streams {
        context.synchronize(stream.get()).unwrap();
    }
    assert_eq!(mailbox.info().unwrap().published, 24);
}
