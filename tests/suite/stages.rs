//! Pipelines of stages: iterations that overlap, and what comes out as if they did not.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use super::support::*;
use gpumailbox::*;

const WORDS: usize = 8;
const ROWS: usize = 24;
const BYTES: u64 = 8 * WORDS as u64;

/// Upload, two kernels and a download over rings of host memory.
struct Chain {
    pipeline: Pipeline,
    input: PinnedBuffer,
    output: PinnedBuffer,
    /// Iterations whose callback has run.
    called: Arc<AtomicU64>,
}

fn stage(name: &str, step: Step, inputs: &[usize], outputs: &[usize], work: StageWork) -> StageOptions {
    StageOptions { name: name.to_owned(), step, inputs: inputs.to_vec(), outputs: outputs.to_vec(), work }
}

fn ring(buffer: &PinnedBuffer) -> HostRing {
    HostRing { address: buffer.address(), stride: BYTES, count: ROWS as u64 }
}

fn word(value: u64) -> StageArgument {
    StageArgument::Bytes(value.to_ne_bytes().to_vec())
}

impl Chain {
    fn new(context: &Context, options: &PipelineOptions, random: &mut Random) -> Self {
        let pipeline = Pipeline::new(context, options).unwrap();
        let kernel = kernels(context).kernel("mix").unwrap();
        let memory = || context.pinned_buffer(WORDS * 8 * ROWS).unwrap();
        let (input, output) = (memory(), memory());
        let [raw, mixed, twice] = [(); 3].map(|()| pipeline.add_buffer(BYTES).unwrap());
        let mix = |from, to, salt| {
            let (input, output) = (StageArgument::Input(from), StageArgument::Output(to));
            let count = StageArgument::Bytes((WORDS as u32).to_ne_bytes().to_vec());
            let arguments = vec![output, input.clone(), input, word(salt), count];
            StageWork::Kernel { kernel: kernel.clone(), launch: Launch::new(1, 32), arguments }
        };
        let called = Arc::new(AtomicU64::new(0));
        let (count, mut random) = (Arc::clone(&called), random.split());
        let delays: Vec<u64> = (0..61).map(|_| random.between(0, 40)).collect();
        let on = context.clone();
        let linger = Box::new(move |call: &StageCall| {
            count.fetch_add(1, Ordering::Relaxed);
            if call.captured || on.info().backend == BackendKind::Cuda {
                return Ok(());
            }
            let delay = std::time::Duration::from_micros(delays[call.iteration as usize % delays.len()]);
            on.run_in_order(call.stream, move || {
                let start = std::time::Instant::now();
                while start.elapsed() < delay {
                    std::hint::spin_loop();
                }
            })
        });
        unsafe {
            let up = StageWork::Upload { from: ring(&input), bytes: BYTES };
            let down = StageWork::Download { to: ring(&output), bytes: BYTES };
            pipeline.add_stage(stage("up", Step::Upload, &[], &[raw], up)).unwrap();
            pipeline.add_stage(stage("first", Step::Process, &[raw], &[mixed], mix(0, 0, 1))).unwrap();
            pipeline
                .add_stage(stage("linger", Step::Process, &[mixed], &[mixed], StageWork::Callback(linger)))
                .unwrap();
            pipeline.add_stage(stage("second", Step::Process, &[mixed], &[twice], mix(0, 0, 2))).unwrap();
            pipeline.add_stage(stage("down", Step::Download, &[twice], &[], down)).unwrap();
        }
        Self { pipeline, input, output, called }
    }

    fn words(&self, buffer: &PinnedBuffer, row: usize) -> *mut u64 {
        unsafe { (buffer.address() as *mut u64).add(row * WORDS) }
    }

    /// Runs so many iterations in batches of at most a ring; each row that comes back is what a sequential run makes.
    fn run(&self, iterations: u64, random: &mut Random) {
        let mut done = 0;
        while done < iterations {
            // To the end of the ring, or not so far.
            let left = ROWS as u64 - done % ROWS as u64;
            let batch = [left, random.between(1, left)][random.between(0, 1) as usize].min(iterations - done);
            let first = done;
            for n in first..first + batch {
                let row = (n % ROWS as u64) as usize;
                for word in 0..WORDS {
                    unsafe {
                        self.words(&self.input, row).add(word).write_volatile(random.next());
                        self.words(&self.output, row).add(word).write_volatile(0xCDCD);
                    }
                }
            }
            assert_eq!(self.pipeline.execute(batch).unwrap(), first);
            done += batch;
            match random.between(0, 2) {
                0 => self.pipeline.wait(done - 1, Some(LIMIT)).unwrap(),
                _ => self.pipeline.synchronize(Some(LIMIT)).unwrap(),
            }
            for n in first..done {
                let row = (n % ROWS as u64) as usize;
                for word in 0..WORDS {
                    let (from, to) = unsafe {
                        (
                            self.words(&self.input, row).add(word).read_volatile(),
                            self.words(&self.output, row).add(word).read_volatile(),
                        )
                    };
                    let once = mixed(from, from, 1, word as u64);
                    assert_eq!(to, mixed(once, once, 2, word as u64), "iteration {n}, word {word}");
                }
            }
        }
    }
}

/// A hundredth of the records: a hundred thousand by default.
#[test]
fn iterations_do_what_a_sequential_run_does() {
    let (context, mut random) = (context(), Random::new());
    let total = total_records() / 100;
    for (copies, one_stream) in [(3, false), (1, false), (2, true), (5, false)] {
        let options = PipelineOptions { copies, one_stream, most_in_flight: 7, ..Default::default() };
        let chain = Chain::new(&context, &options, &mut random);
        chain.run(total / 4, &mut random);
        assert_eq!(chain.called.load(Ordering::Relaxed), total / 4);
        assert_eq!(chain.pipeline.statistics().unwrap().iterations, total / 4);
    }
}

/// The same, launched as graphs of several iterations and single ones between them.
#[test]
fn graphs_do_what_their_iterations_do() {
    let (context, mut random) = (context(), Random::new());
    let chain = Chain::new(&context, &PipelineOptions::default(), &mut random);
    chain.pipeline.capture(24).unwrap();
    let captured = chain.called.load(Ordering::Relaxed);
    assert_eq!(captured, 24);
    chain.run(2000, &mut random);
    let alone = chain.called.load(Ordering::Relaxed) - captured;
    assert!(alone > 0 && alone < 1800, "{alone} of 2000 iterations were not in a graph");
    assert_eq!(chain.pipeline.statistics().unwrap().iterations, 2000);
    chain.pipeline.capture(0).unwrap();
    assert_eq!(chain.pipeline.execute(48).unwrap(), 2000);
    chain.pipeline.synchronize(Some(LIMIT)).unwrap();
    assert_eq!(chain.called.load(Ordering::Relaxed), captured + alone + 48);
}

#[test]
fn statistics_and_the_timeline_tell_what_ran() {
    let (context, mut random) = (context(), Random::new());
    let chain = Chain::new(&context, &PipelineOptions::default(), &mut random);
    let none = chain.pipeline.statistics().unwrap_err();
    assert_eq!(none.status(), GMB_ERROR_UNAVAILABLE, "{none}");
    chain.run(100, &mut random);
    let told = chain.pipeline.statistics().unwrap();
    assert_eq!(told.iterations, 100);
    assert!(told.mean_iteration_ms > 0.0 && told.utilisation > 0.0 && told.utilisation <= 1.0, "{told:?}");
    assert!((told.iterations_per_second * told.mean_iteration_ms / 1e3 - 1.0).abs() < 1e-6);
    assert_eq!(told.stages.iter().map(|stage| stage.runs).sum::<u64>(), 500);
    assert!(told.stages.iter().all(|stage| stage.longest_us >= stage.mean_us));
    let names: Vec<&str> = told.stages.iter().map(|stage| stage.name.as_str()).collect();
    assert_eq!(names, ["up", "first", "linger", "second", "down"]);
    let trace = chain.pipeline.timeline().unwrap();
    assert_eq!(trace.matches("\"ph\":\"X\"").count(), 500);
    assert_eq!(trace.matches("\"ph\":\"M\"").count(), 3);
    assert_eq!(trace.matches("\"iteration\":99}").count(), 5);
    chain.pipeline.reset_statistics().unwrap();
    assert_eq!(chain.pipeline.statistics().unwrap_err().status(), GMB_ERROR_UNAVAILABLE);
    let untimed = Chain::new(&context, &PipelineOptions { untimed: true, ..Default::default() }, &mut random);
    untimed.run(10, &mut random);
    assert_eq!(untimed.pipeline.statistics().unwrap_err().status(), GMB_ERROR_UNAVAILABLE);
}

#[test]
fn bad_input() {
    let (context, mut random) = (context(), Random::new());
    let status = |options| Pipeline::new(&context, &options).unwrap_err().status();
    assert_eq!(status(PipelineOptions { copies: 65, ..Default::default() }), GMB_ERROR_INVALID_ARGUMENT);
    assert_eq!(
        status(PipelineOptions { most_in_flight: 1025, ..Default::default() }),
        GMB_ERROR_INVALID_ARGUMENT
    );
    let chain = Chain::new(&context, &PipelineOptions::default(), &mut random);
    let pipeline = &chain.pipeline;
    let refused = |result: Result<()>, status: gmb_status, words: &str| {
        let error = result.unwrap_err();
        assert_eq!(error.status(), status, "{error}");
        assert!(error.message().contains(words), "{words:?} is not in {:?}", error.message());
    };
    refused(pipeline.set_order(&["up", "middle"]), GMB_ERROR_NOT_FOUND, "middle");
    refused(pipeline.set_order(&["up", "down", "up"]), GMB_ERROR_INVALID_ARGUMENT, "comes twice");
    let nothing = || StageWork::Callback(Box::new(|_| Ok(())));
    let add = |options| unsafe { pipeline.add_stage(options) };
    refused(add(stage("more", Step::Process, &[7], &[], nothing())), GMB_ERROR_INVALID_ARGUMENT, "buffer 7");
    refused(add(stage("up", Step::Process, &[], &[], nothing())), GMB_ERROR_INVALID_ARGUMENT, "already");
    refused(add(stage("", Step::Process, &[], &[], nothing())), GMB_ERROR_INVALID_ARGUMENT, "empty");
    let up = |bytes| StageWork::Upload { from: ring(&chain.input), bytes };
    refused(
        add(stage("more", Step::Upload, &[], &[], up(8))),
        GMB_ERROR_INVALID_ARGUMENT,
        "takes one output",
    );
    refused(add(stage("more", Step::Upload, &[], &[0], up(0))), GMB_ERROR_ZERO_COUNT, "more");
    refused(
        add(stage("more", Step::Upload, &[], &[0], up(1 << 20))),
        GMB_ERROR_INVALID_ARGUMENT,
        "buffer 0 has",
    );
    assert_eq!(pipeline.add_buffer(0).unwrap_err().status(), GMB_ERROR_ZERO_COUNT);
    assert_eq!(pipeline.buffer_address(3, 0).unwrap_err().status(), GMB_ERROR_INVALID_ARGUMENT);
    assert_eq!(pipeline.execute(0).unwrap_err().status(), GMB_ERROR_ZERO_COUNT);
    assert_eq!(pipeline.wait(0, None).unwrap_err().status(), GMB_ERROR_INVALID_ARGUMENT);
    refused(pipeline.capture(4), GMB_ERROR_INVALID_ARGUMENT, "multiple");
    refused(pipeline.capture(9), GMB_ERROR_INVALID_ARGUMENT, "begins again");
    // What was refused has changed nothing.
    chain.run(20, &mut random);
    pipeline.set_order(&[]).unwrap();
    assert_eq!(pipeline.execute(1).unwrap_err().status(), GMB_ERROR_NOT_FOUND);
}

/// An iteration that fails says so, with its stage; the others are as if it had not been.
#[test]
fn a_stage_that_fails_fails_its_iteration() {
    let context = context();
    let pipeline = Pipeline::new(&context, &PipelineOptions::default()).unwrap();
    let data = pipeline.add_buffer(64).unwrap();
    let (missing, on) = (Module::new(&context, KERNELS).unwrap(), context.clone());
    let output = context.pinned_buffer(64 * 8).unwrap();
    let work = Box::new(move |call: &StageCall| {
        if call.iteration % 3 == 1 {
            return missing.kernel("missing").map(|_| ());
        }
        unsafe { on.fill(call.outputs[0], call.iteration as u8, 64, call.stream) }
    });
    let to = HostRing { address: output.address(), stride: 64, count: 8 };
    unsafe {
        pipeline.add_stage(stage("work", Step::Process, &[], &[data], StageWork::Callback(work))).unwrap();
        let down = StageWork::Download { to, bytes: 64 };
        pipeline.add_stage(stage("down", Step::Download, &[data], &[], down)).unwrap();
    }
    pipeline.execute(8).unwrap();
    for iteration in 0..8u64 {
        match pipeline.wait(iteration, Some(LIMIT)) {
            Ok(()) => {
                assert_ne!(iteration % 3, 1);
                let row =
                    unsafe { std::slice::from_raw_parts((to.address + 64 * iteration) as *const u8, 64) };
                assert!(row.iter().all(|&byte| byte == iteration as u8));
            }
            Err(error) => {
                assert_eq!((iteration % 3, error.status()), (1, GMB_ERROR_NOT_FOUND));
                assert!(error.message().contains("work") || error.message().contains("down"), "{error}");
            }
        }
    }
    pipeline.synchronize(Some(LIMIT)).unwrap();
}
