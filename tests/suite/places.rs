//! Triple buffers as places where a coordinator's operations work.

use super::failures::answers;
use super::support::*;
use super::triples::{advanced, triple};
use gpumailbox::*;

fn coordinator(context: &Context) -> Coordinator {
    Coordinator::new(context, &CoordinatorOptions::default()).unwrap()
}

/// A coordinator's own way with a triple buffer.
#[test]
fn triple_buffers_are_places() {
    let (context, mut random) = (context(), Random::new());
    let (coordinator, triple) = (coordinator(&context), triple(&context, 16));
    let kernel = kernels(&context).kernel("mix").unwrap();
    let upload = |from: &[u64], dtype| unsafe {
        let bytes = size_of_val(from) as u64;
        coordinator
            .queue(Work::Upload { to: Place::Triple(&triple, dtype), from: from.as_ptr() as u64, bytes }, &[])
    };
    let input: Vec<Vec<u64>> = (0..50).map(|_| (0..16).map(|_| random.next()).collect()).collect();
    let mut output = vec![vec![0u64; 16]; 50];
    let download = |to: &mut [u64]| unsafe {
        let bytes = size_of_val(to) as u64;
        let from = Place::Triple(&triple, U64);
        coordinator.queue(Work::Download { to: to.as_mut_ptr() as u64, from, bytes }, &[])
    };
    let add = |address| {
        let stream = coordinator.stream(Step::Process);
        unsafe {
            kernel.launch(&Launch::new(1, 16), &mix_arguments(address, address, address, 3, 16), stream)
        }
    };
    assert_eq!(upload(&input[0], F32).unwrap_err().status(), GMB_ERROR_WRONG_TYPE);
    assert_eq!(upload(&[0; 17], U64).unwrap_err().status(), GMB_ERROR_INVALID_ARGUMENT);
    assert_eq!(download(&mut output[0]).unwrap_err().status(), GMB_ERROR_UNAVAILABLE);
    for (from, to) in input.iter().zip(&mut output) {
        upload(from, U64).unwrap();
        let callback: Callback = Box::new(|_, address| add(address));
        unsafe { coordinator.queue(Work::Compute(Compute::TripleCallback(&triple, callback)), &[]) }.unwrap();
        download(to).unwrap();
    }
    coordinator.synchronize(Some(LIMIT)).unwrap();
    for (n, (from, to)) in input.iter().zip(&output).enumerate() {
        let wanted: Vec<u64> = (0..16).map(|at| mixed(from[at], from[at], 3, at as u64)).collect();
        assert_eq!(*to, wanted, "round {n}");
    }
    let mut full = 0;
    while upload(&input[0], U64).is_ok() {
        full += 1;
    }
    assert_eq!(full, 3, "all three are on their way");
    assert_eq!(upload(&input[0], U64).unwrap_err().status(), GMB_ERROR_UNAVAILABLE);
}

/// Uploads, computes on and downloads one turn, by the coordinator's calls.
struct Turns<'a> {
    coordinator: &'a Coordinator,
    triple: &'a TripleBuffer,
    kernel: &'a ModuleKernel,
}

impl Turns<'_> {
    fn upload(&self, from: &[u64], after: &[OperationId]) -> Result<OperationId> {
        let (to, bytes) = (Place::Triple(self.triple, U64), size_of_val(from) as u64);
        unsafe { self.coordinator.queue(Work::Upload { to, from: from.as_ptr() as u64, bytes }, after) }
    }

    /// By a kernel whose first argument is the buffer's address: the word becomes a mix of itself and of what `other` has.
    fn compute(&self, launch: Launch, other: u64, after: &[OperationId]) -> Result<OperationId> {
        let arguments = [other.into(), other.into(), 3u64.into(), 1u32.into()];
        let (kernel, arguments, triple) = (self.kernel, &arguments[..], Some(self.triple));
        unsafe {
            let compute = Compute::Kernel { kernel, launch, arguments, triple };
            self.coordinator.queue(Work::Compute(compute), after)
        }
    }

    fn callback(&self, status: gmb_status, after: &[OperationId]) -> Result<OperationId> {
        let Work::Compute(Compute::Callback(answer)) = answers(status) else { unreachable!() };
        unsafe { self.coordinator.queue(Work::Compute(Compute::TripleCallback(self.triple, answer)), after) }
    }

    fn download(&self, to: &mut [u64], after: &[OperationId]) -> Result<OperationId> {
        let (from, bytes) = (Place::Triple(self.triple, U64), size_of_val(to) as u64);
        unsafe { self.coordinator.queue(Work::Download { to: to.as_mut_ptr() as u64, from, bytes }, after) }
    }
}

/// What fails in one turn, by itself or with what it was to come after, fails the rest of that turn and nothing of the next:
/// each download brings its own turn's data or fails. With or without being told what comes after what, known to have failed
/// or not.
#[test]
fn a_failed_turn_is_passed_over() {
    let (context, mut random) = (context(), Random::new());
    let kernel = kernels(&context).kernel("mix").unwrap();
    for round in 0..300 {
        let (coordinator, triple) = (coordinator(&context), triple(&context, 1));
        let turns = Turns { coordinator: &coordinator, triple: &triple, kernel: &kernel };
        let failed = unsafe { coordinator.queue(answers(GMB_ERROR_ZERO_COUNT), &[]) }.unwrap();
        let input: Vec<[u64; 1]> = (0..9).map(|_| [random.next()]).collect();
        let mut output = [[0u64; 1]; 9];
        let told = random.between(0, 1) == 0;
        let mut ends = Vec::new();
        for (from, to) in input.iter().zip(&mut output) {
            let what = random.between(0, 9);
            let after = |before: OperationId| if told { vec![before] } else { vec![] };
            if random.between(0, 2) == 0 {
                coordinator.synchronize(Some(LIMIT)).unwrap();
            }
            let uploaded = turns.upload(from, &[]).unwrap();
            let computed = match what {
                0 => turns.callback(GMB_ERROR_NOT_FOUND, &after(uploaded)),
                1 => turns.callback(GMB_OK, &[after(uploaded), vec![failed]].concat()),
                _ => turns.callback(GMB_OK, &after(uploaded)),
            }
            .unwrap();
            if random.between(0, 2) == 0 {
                coordinator.synchronize(Some(LIMIT)).unwrap();
            }
            let mut given = after(computed);
            if what == 2 {
                given.push(failed);
            }
            let downloaded = turns.download(to, &given);
            ends.push((what, downloaded));
        }
        coordinator.synchronize(Some(LIMIT)).unwrap();
        for (n, (what, downloaded)) in ends.into_iter().enumerate() {
            let wanted = match what {
                0 => Err(GMB_ERROR_NOT_FOUND),
                1 | 2 => Err(GMB_ERROR_ZERO_COUNT),
                _ => Ok(()),
            };
            // A turn that was passed over before is not there to be downloaded, where nobody says of which turn it is.
            let ended = downloaded.and_then(|id| coordinator.wait(id, Some(LIMIT))).map(|_| ());
            match (ended.map_err(|error| error.status()), what) {
                (Err(GMB_ERROR_UNAVAILABLE), 1) if !told => {}
                (ended, _) => assert_eq!(ended, wanted, "round {round}, turn {n}, told {told}, what {what}"),
            }
            if wanted.is_ok() {
                assert_eq!(output[n], input[n], "round {round}, turn {n}");
            }
        }
        advanced(&triple, [BufferState::Free; 3]);
    }
}

/// What is refused can be tried again, with the same turn.
#[test]
fn a_refused_call_leaves_the_turn_where_it_is() {
    let context = context();
    let (coordinator, triple) = (coordinator(&context), triple(&context, 1));
    let kernel = kernels(&context).kernel("mix").unwrap();
    let turns = Turns { coordinator: &coordinator, triple: &triple, kernel: &kernel };
    let other = upload(&context, &[5u64]);
    let mut output = [0u64; 1];
    for input in [[7u64], [8], [9], [10]] {
        let refused = |result: Result<OperationId>, status: gmb_status| {
            assert_eq!(result.unwrap_err().status(), status);
        };
        refused(turns.upload(&[], &[]), GMB_ERROR_ZERO_COUNT);
        refused(turns.upload(&[1, 2], &[]), GMB_ERROR_INVALID_ARGUMENT);
        turns.upload(&input, &[]).unwrap();
        refused(turns.compute(Launch::new(1, 5000), other.address(), &[]), GMB_ERROR_INVALID_ARGUMENT);
        refused(turns.compute(Launch::new(0, 1), other.address(), &[]), GMB_ERROR_INVALID_ARGUMENT);
        refused(turns.download(&mut output, &[]), GMB_ERROR_UNAVAILABLE);
        turns.compute(Launch::new(1, 1), other.address(), &[]).unwrap();
        refused(turns.download(&mut [], &[]), GMB_ERROR_ZERO_COUNT);
        refused(turns.download(&mut [0, 0], &[]), GMB_ERROR_INVALID_ARGUMENT);
        let last = turns.download(&mut output, &[]).unwrap();
        coordinator.wait(last, Some(LIMIT)).unwrap();
        assert_eq!(output, [mixed(5, 5, 3, 0)]);
    }
}
