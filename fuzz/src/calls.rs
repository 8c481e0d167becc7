//! Every exported function by name, how often it was called, and which statuses its comment in the header allows.

use std::collections::HashSet;
use std::ffi::CStr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::OnceLock;

use gpumailbox::capi::status::{gmb_status_name, gmb_status_string};
use gpumailbox::*;

const HEADER: &str = include_str!("../../include/gpumailbox.h");

macro_rules! functions {
    ($($name:ident)*) => {
        #[allow(non_camel_case_types)]
        #[derive(Clone, Copy, Debug)]
        pub enum Function { $($name),* }

        pub const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}

include!("functions.rs");

static COUNTS: [AtomicU64; NAMES.len()] = [const { AtomicU64::new(0) }; NAMES.len()];
pub static RUNS: AtomicU64 = AtomicU64::new(0);
/// `GMB_FUZZ_TRACE`: tells of every call.
pub static TRACE: AtomicBool = AtomicBool::new(false);
static LAST: AtomicI32 = AtomicI32::new(0);

/// Calls a function that gives a status: `call!(token::gmb_token_destroy(token))`.
macro_rules! call {
    ($module:ident :: $name:ident ( $($argument:expr),* $(,)? )) => {
        $crate::calls::done(
            $crate::calls::Function::$name,
            gpumailbox::capi::$module::$name($($argument),*),
        )
    };
}
pub(crate) use call;

pub fn count(function: Function) {
    COUNTS[function as usize].fetch_add(1, Ordering::Relaxed);
}

pub fn total() -> u64 {
    COUNTS.iter().map(|count| count.load(Ordering::Relaxed)).sum()
}

/// Status of the call before.
pub fn last() -> i32 {
    LAST.load(Ordering::Relaxed)
}

/// Counts a call and holds its status against the header.
pub fn done(function: Function, status: i32) -> i32 {
    count(function);
    LAST.store(status, Ordering::Relaxed);
    let name = NAMES[function as usize];
    if TRACE.load(Ordering::Relaxed) {
        eprintln!("{name}: {status}");
    }
    assert!(
        documented()[function as usize].contains(&status),
        "{name} gave {status}, {}, which its comment does not name: {}",
        status_name(status),
        crate::ops::status::message()
    );
    status
}

pub fn status_name(status: i32) -> &'static str {
    // SAFETY: both are static and end with NUL.
    let (name, sentence) =
        unsafe { (CStr::from_ptr(gmb_status_name(status)), CStr::from_ptr(gmb_status_string(status))) };
    assert!(!sentence.is_empty());
    name.to_str().expect("names are ASCII")
}

/// For each function the statuses that it may give.
fn documented() -> &'static [HashSet<i32>] {
    static SETS: OnceLock<Vec<HashSet<i32>>> = OnceLock::new();
    SETS.get_or_init(|| {
        let sets: Vec<_> = NAMES.iter().map(|name| statuses_of(comment(name))).collect();
        sets
    })
}

/// The comment before a function's prototype.
fn comment(name: &str) -> &'static str {
    let at = HEADER.rfind(&format!("{name}(")).unwrap_or_else(|| panic!("{name} is not in the header"));
    let comment = &HEADER[..at];
    &comment[comment.rfind("/**").expect("every function has a comment")..]
}

fn statuses_of(comment: &str) -> HashSet<i32> {
    // What the device finds is in the result, not in the status.
    let comment = comment.split("In the result:").next().unwrap_or_default().replace("\n * ", " ");
    // Crooked pointers are refused everywhere: docs/conventions.md.
    let mut all = HashSet::from([GMB_OK, GMB_ERROR_MISALIGNED]);
    if comment.contains("as for the functions of each kind") {
        let kinds = ["upload", "download", "triple_upload", "triple_download", "compute", "push", "pop"];
        let names = kinds.iter().map(|kind| format!("gmb_coordinator_queue_{kind}"));
        all.extend(names.flat_map(|name| statuses_of(self::comment(&name))));
    }
    for word in comment.split('`').skip(1).step_by(2) {
        if word == "GMB_NOT_READY" {
            all.insert(GMB_NOT_READY);
        }
        if word.starts_with("gmb_kernel_") && comment.contains(&format!("`{word}`), `_UNAVAILABLE`")) {
            all.extend(statuses_of(self::comment(word)));
        }
        if word.starts_with("gmb_mailbox_") && comment.contains(&format!("as for `{word}`")) {
            all.extend(statuses_of(self::comment(word)));
        }
        if word.starts_with("gmb_memory_allocate") && comment.contains(&format!("as for `{word}`")) {
            all.extend(statuses_of(self::comment(word)));
        }
        let as_two = word.starts_with("gmb_") && comment.contains(&format!("` and `{word}`"));
        if as_two
            || ["as of", "As", "Otherwise as"]
                .iter()
                .any(|as_of| comment.contains(&format!("{as_of} `{word}`")))
        {
            all.extend(statuses_of(self::comment(word)));
        }
        let wanted = match word.strip_prefix("GMB_ERROR") {
            Some(short) => short,
            None => word,
        };
        if wanted.starts_with('_') {
            all.extend((-64..0).find(|&status| status_name(status) == format!("GMB_ERROR{wanted}")));
        }
    }
    // Of what another function may give.
    for word in comment.split("without `GMB_ERROR").skip(1).filter_map(|rest| rest.split('`').next()) {
        all.retain(|&status| status_name(status) != format!("GMB_ERROR{word}"));
    }
    // Faults of the library or of the machine: none is ever right here.
    for never in [GMB_ERROR_PANIC, GMB_ERROR_DEVICE_LOST, GMB_ERROR_DRIVER, GMB_ERROR_FORKED] {
        all.remove(&never);
    }
    all
}

/// What the run was worth, when it ends.
pub extern "C" fn report() {
    let called = COUNTS.iter().filter(|count| count.load(Ordering::Relaxed) > 0).count();
    eprintln!(
        "runs: {}, calls: {}, functions: {called} of {}, records verified: {}",
        RUNS.load(Ordering::Relaxed),
        total(),
        NAMES.len(),
        crate::model::VERIFIED.load(Ordering::Relaxed)
    );
}
