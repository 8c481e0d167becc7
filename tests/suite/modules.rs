//! A caller's own kernels, by name.

use std::path::Path;

use super::support::*;
use gpumailbox::*;

/// What a kernel must not be launched with, each with what the message has to name.
#[test]
fn launches_beyond_the_device_are_refused() {
    let (context, kernel) = (context(), "mix");
    let (kernel, stream) = (kernels(&context).kernel(kernel).unwrap(), context.stream().unwrap());
    let memory = upload(&context, &[0u64; 4]);
    let a = memory.address();
    let refused = |launch: Launch, wanted: &str| {
        let error =
            unsafe { kernel.launch(&launch, &mix_arguments(a, a, a, 0, 4), stream.get()) }.unwrap_err();
        assert_eq!(error.status(), GMB_ERROR_INVALID_ARGUMENT);
        assert!(error.message().contains(wanted), "{wanted:?} is not in {:?}", error.message());
    };
    let one = Launch::new(1, 1);
    refused(Launch { grid: [0, 1, 1], ..one }, "grid.x 0");
    refused(Launch { grid: [1, 1 << 20, 1], ..one }, "grid.y");
    refused(Launch { grid: [1, 1, u32::MAX], ..one }, "grid.z");
    refused(Launch { block: [1, 0, 1], ..one }, "block.y 0");
    refused(Launch { block: [1, 1, 65], ..one }, "block.z 65");
    refused(Launch { block: [1025, 1, 1], ..one }, "block.x 1025");
    refused(Launch { block: [64, 64, 1], ..one }, "4096 threads");
    refused(Launch { shared_bytes: 1 << 24, ..one }, "shared_bytes");
    assert!(context.is_idle(stream.get()).unwrap(), "nothing was launched");
    unsafe { kernel.launch(&one, &mix_arguments(a, a, a, 5, 1), stream.get()) }.unwrap();
    context.synchronize(stream.get()).unwrap();
    assert_eq!(download(&context, a, 8), mixed(0, 0, 5, 0).to_ne_bytes());
}

#[test]
fn blocks_have_shared_memory_and_every_index_once() {
    let context = context();
    let stream = context.stream().unwrap();
    let kernel = kernels(&context).kernel("add").unwrap();
    let memory = upload(&context, &vec![1f32; 5000]);
    for _ in 0..3 {
        let launch = Launch { shared_bytes: 128 * 4, ..Launch::new(40, 128) };
        let arguments = [memory.address().into(), 2f32.into(), 4999u32.into()];
        unsafe { kernel.launch(&launch, &arguments, stream.get()) }.unwrap();
    }
    context.synchronize(stream.get()).unwrap();
    let bytes = download(&context, memory.address(), 20_000);
    let floats: Vec<f32> =
        bytes.chunks_exact(4).map(|four| f32::from_ne_bytes(four.try_into().unwrap())).collect();
    assert!(floats[..4999].iter().all(|&x| x == 7.0), "each once in each launch");
    assert_eq!(floats[4999], 1.0, "past the count");
}

#[test]
fn names_and_images_that_are_none() {
    let context = context();
    let module = kernels(&context);
    let status = |name: &str| module.kernel(name).unwrap_err().status();
    assert_eq!(status("no_such_kernel"), GMB_ERROR_NOT_FOUND);
    assert_eq!(status(""), GMB_ERROR_INVALID_ARGUMENT);
    assert_eq!(status("mix\0"), GMB_ERROR_INVALID_ARGUMENT);
    assert_eq!(module.register("", |_| {}).unwrap_err().status(), GMB_ERROR_INVALID_ARGUMENT);
    let missing = Module::from_file(&context, Path::new("/no/such/file.ptx"));
    let garbage = Module::new(&context, b"this is no PTX");
    let empty = Module::new(&context, b"");
    if backend() == BackendKind::Cuda {
        assert_eq!(missing.unwrap_err().status(), GMB_ERROR_NOT_FOUND);
        assert!(garbage.is_err());
        assert_eq!(empty.unwrap_err().status(), GMB_ERROR_NO_KERNELS);
        let kernel = module.kernel("mix").unwrap();
        let stream = context.stream().unwrap();
        // Where the driver tells a kernel's arguments.
        let few = [Argument::from(0u64), Argument::from(0u64)];
        let small = [0u64.into(), 0u64.into(), 0u64.into(), 0u64.into(), 0u8.into()];
        for wrong in [&few[..], &small[..]] {
            let error = unsafe { kernel.launch(&Launch::default(), wrong, stream.get()) }.unwrap_err();
            assert_eq!(error.status(), GMB_ERROR_INVALID_ARGUMENT, "{}", error.message());
        }
    } else {
        // Functions take the kernels' places.
        assert!(missing.is_ok() && garbage.is_ok() && empty.is_ok());
    }
}

/// A kernel is a kernel for as long as somebody has it.
#[test]
fn a_kernel_outlives_its_module() {
    let context = context();
    let stream = context.stream().unwrap();
    let kernel = kernels(&context).kernel("mix").unwrap();
    let memory = upload(&context, &[3u64; 64]);
    let a = memory.address();
    for _ in 0..10 {
        unsafe { kernel.launch(&Launch::new(2, 32), &mix_arguments(a, a, a, 1, 64), stream.get()) }.unwrap();
    }
    drop(kernel);
    context.synchronize(stream.get()).unwrap();
    let mut wanted: Vec<u64> = vec![3; 64];
    for _ in 0..10 {
        wanted.iter_mut().enumerate().for_each(|(n, word)| *word = mixed(*word, *word, 1, n as u64));
    }
    let bytes: Vec<u8> = wanted.iter().flat_map(|word| word.to_ne_bytes()).collect();
    assert_eq!(download(&context, a, 512), bytes);
}

/// On a machine without a GPU: the CUDA backend's own calls, with a made-up driver behind them.
#[test]
fn pipelines_through_the_calls_of_the_driver() {
    if !cfg!(gmb_kernels) {
        // Without kernels there is no CUDA backend to go through.
        let options = ContextOptions { backend: BackendKind::Cuda, ..Default::default() };
        assert!(Context::new(&options).is_err());
        return;
    }
    let library = Library::made_up("pipelines");
    let (path, folder) = library.search_path();
    let environment = [(path, folder.as_str()), ("GMB_TEST_BACKEND", "cuda"), ("GMB_TEST_RECORDS", "100000")];
    for test in [
        "modules::launches_beyond_the_device_are_refused",
        "modules::names_and_images_that_are_none",
        "modules::a_kernel_outlives_its_module",
        "triples::each_buffer_goes_through_the_states_in_turn",
        "triples::what_is_given_up_comes_to_nobody",
        "triples::a_loop_that_never_looks_at_the_device",
        "coordinators::random_graphs_do_what_a_sequential_run_does",
        "failures::a_failure_goes_to_what_comes_after_it_and_no_further",
        "staging::pageable_memory_is_staged",
        "places::triple_buffers_are_places",
        "places::a_failed_turn_is_passed_over",
    ] {
        child_passes(test, &environment);
    }
}
