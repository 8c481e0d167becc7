//! Managed contexts: a step of a triple buffer in one call.

use super::support::*;
use gpumailbox::*;

fn range(words: &[u64]) -> HostRange {
    HostRange { address: words.as_ptr() as u64, bytes: size_of_val(words) as u64 }
}

/// Steps of random inputs, some of which are refused or fail: each other one brings its own turn's result, and the telemetry
/// adds up.
#[test]
fn steps_do_what_a_sequential_run_does() {
    let (context, mut random) = (context(), Random::new());
    let kernel = kernels(&context).kernel("mix").unwrap();
    for one_stream in [false, true] {
        let options = ManagedOptions { one_stream, most_in_flight: 5, ..Default::default() };
        let managed = ManagedContext::new(&context, &options).unwrap();
        let triple = managed.triple_buffer(&TripleBufferOptions { dtype: U64, elements: 16 }).unwrap();
        let other = upload(&context, &[9u64; 16]);
        let input: Vec<Vec<u64>> = (0..400).map(|_| (0..16).map(|_| random.next()).collect()).collect();
        let mut output = vec![vec![0u64; 16]; 400];
        let (mut queued, mut failed, mut refused) = (0, 0, 0);
        let mut wanted = vec![None; 400];
        for n in 0..400 {
            let arguments = [other.address().into(), other.address().into(), 4u64.into(), 16u32.into()];
            let what = random.between(0, 9);
            let launch = if what == 0 { Launch::new(1, 5000) } else { Launch::new(1, 16) };
            let compute = match what {
                1 => Compute::Callback(Box::new(|_, _| Err(context.device_buffer(0).unwrap_err()))),
                2 => Compute::Callback(Box::new(|_, _| Ok(()))),
                _ => Compute::Kernel { kernel: &kernel, launch, arguments: &arguments, triple: None },
            };
            let told = unsafe { managed.step(&triple, U64, range(&input[n]), compute, range(&output[n])) };
            match (what, told) {
                (0, Err(error)) => {
                    assert_eq!(error.status(), GMB_ERROR_INVALID_ARGUMENT, "{error}");
                    refused += 1;
                }
                (_, told) => {
                    let told = told.unwrap();
                    assert_eq!(told.step, queued);
                    assert!(told.in_flight <= 5 && told.completed + told.in_flight == queued + 1, "{told:?}");
                    queued += 1;
                    failed += u64::from(what == 1);
                    wanted[n] = match what {
                        1 => None,
                        2 => Some(input[n].clone()),
                        _ => Some((0..16).map(|at| mixed(9, 9, 4, at)).collect()),
                    };
                }
            }
        }
        managed.synchronize(Some(LIMIT)).unwrap();
        let told = managed.telemetry().unwrap();
        assert_eq!((told.completed, told.failed, told.in_flight), (queued, failed, 0));
        assert!(refused > 0 && failed > 0, "{refused} refused, {failed} failed");
        let last = told.last.unwrap();
        assert!(last.latency_us >= last.upload_us && told.mean_step_us > 0.0, "{told:?}");
        for (n, wanted) in wanted.into_iter().enumerate() {
            if let Some(wanted) = wanted {
                assert_eq!(output[n], wanted, "step {n}");
            }
        }
        output.clear();
    }
}
