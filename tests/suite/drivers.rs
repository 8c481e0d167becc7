//! What a missing, broken, stub or old driver looks like. Each case runs in a
//! child process that finds a made-up libcuda.so.1 first.

use super::support::*;
use gpumailbox::*;

/// Set in a child: the backend it shall open.
const CHILD: &str = "GMB_TEST_CHILD";

/// What a child does: opens a context and says how that went.
fn act_as_child() -> bool {
    let Ok(wanted) = std::env::var(CHILD) else { return false };
    let backend = if wanted == "cuda" { BackendKind::Cuda } else { BackendKind::Auto };
    match Context::new(&ContextOptions { backend, ..Default::default() }) {
        Ok(context) => println!("child: 0 {:?}", context.info().backend),
        Err(error) => println!("child: {} {}", error.status(), error.message()),
    }
    true
}

/// Status and words of a child that runs the calling test alone.
fn child(test: &str, wanted: &str, environment: &[(&str, &str)]) -> (gmb_status, String) {
    let environment: Vec<_> = [(CHILD, wanted)].into_iter().chain(environment.iter().copied()).collect();
    let child = Child::run(&format!("drivers::{test}"), &environment, &["GMB_BACKEND"]);
    let answer = child.answers().next().map(|(status, words)| (status.parse().unwrap(), words.to_owned()));
    answer.unwrap_or_else(|| panic!("no answer from the child: {}", child.text))
}

fn with_fake_driver(test: &str, wanted: &str, source: &str) -> (gmb_status, String) {
    let library = Library::of(test, source);
    child(test, wanted, &[("LD_LIBRARY_PATH", library.0.to_str().unwrap())])
}

#[test]
fn stub_driver() {
    if act_as_child() {
        return;
    }
    for wanted in ["cuda", "auto"] {
        let (status, words) =
            with_fake_driver("stub_driver", wanted, "int cuInit(unsigned f) { return 34; }");
        assert_eq!(status, GMB_ERROR_STUB_DRIVER, "{words}");
        assert!(words.contains("stub"), "{words}");
    }
}

/// A driver beside a stub: cudarc would load the stub.
#[test]
fn stub_that_hides_the_driver() {
    if act_as_child() {
        return;
    }
    let test = "stub_that_hides_the_driver";
    let driver = Library::of(test, &whole_driver(13000));
    let stub = Library::of("stub", "int cuInit(unsigned f) { return 34; }");
    std::fs::rename(stub.path(), driver.0.join("libcuda.so")).unwrap();
    let (status, words) = child(test, "auto", &[("LD_LIBRARY_PATH", driver.0.to_str().unwrap())]);
    assert_eq!(status, GMB_ERROR_STUB_DRIVER, "{words}");
    assert!(words.contains("libcuda.so"), "{words}");
}

#[test]
fn driver_without_a_device() {
    if act_as_child() {
        return;
    }
    let source = "int cuInit(unsigned f) { return 100; }";
    let (status, words) = with_fake_driver("driver_without_a_device", "cuda", source);
    assert_eq!(status, GMB_ERROR_NO_DEVICE, "{words}");
    let (status, words) = with_fake_driver("driver_without_a_device", "auto", source);
    assert_eq!((status, words.as_str()), (GMB_OK, "Host"));
}

#[test]
fn driver_that_fails_is_no_silent_fallback() {
    if act_as_child() {
        return;
    }
    for wanted in ["cuda", "auto"] {
        let source = "int cuInit(unsigned f) { return 999; }";
        let (status, words) = with_fake_driver("driver_that_fails_is_no_silent_fallback", wanted, source);
        assert_eq!(status, GMB_ERROR_DRIVER, "{words}");
        assert!(words.contains("999"), "{words}");
    }
}

#[test]
fn driver_that_lacks_a_function() {
    if act_as_child() {
        return;
    }
    for source in ["int cuInit(unsigned f) { return 0; }", "int nothing;"] {
        let (status, words) = with_fake_driver("driver_that_lacks_a_function", "auto", source);
        assert_eq!(status, GMB_ERROR_DRIVER_TOO_OLD, "{words}");
        assert!(words.contains("cu"), "{words}");
    }
}

/// A driver with one device and all functions, of which only a few do anything.
fn whole_driver(version: u32) -> String {
    let mut source = format!(
        "int cuDriverGetVersion(int *v) {{ *v = {version}; return 0; }}\n\
         int cuDeviceGetCount(int *n) {{ *n = 1; return 0; }}\n"
    );
    let written = ["cuDriverGetVersion", "cuDeviceGetCount"];
    for name in symbols().iter().filter(|n| !written.contains(n)) {
        source += &format!("int {name}(void) {{ return 0; }}\n");
    }
    source
}

#[test]
fn driver_too_old_or_library_without_kernels() {
    if act_as_child() {
        return;
    }
    let test = "driver_too_old_or_library_without_kernels";
    for wanted in ["cuda", "auto"] {
        let (status, words) = with_fake_driver(test, wanted, &whole_driver(11080));
        let expected = if cfg!(gmb_kernels) { GMB_ERROR_DRIVER_TOO_OLD } else { GMB_ERROR_NO_KERNELS };
        assert_eq!(status, expected, "{words}");
        assert!(words.contains(if cfg!(gmb_kernels) { "11.8" } else { "GMB_CUDA=ON" }), "{words}");
    }
}

#[test]
fn no_driver_library() {
    if act_as_child() {
        return;
    }
    // A file of that name that is no library stands for none, also where a driver is installed.
    let library = Library::folder("none");
    std::fs::write(library.path(), "not a library").unwrap();
    let environment = [("LD_LIBRARY_PATH", library.0.to_str().unwrap())];
    let (status, words) = child("no_driver_library", "cuda", &environment);
    assert_eq!(status, GMB_ERROR_NO_DRIVER, "{words}");
    assert!(words.contains("libcuda.so.1") && words.contains("host backend"), "{words}");
    let (status, words) = child("no_driver_library", "auto", &environment);
    assert_eq!((status, words.as_str()), (GMB_OK, "Host"));
}

#[test]
fn no_visible_device() {
    if act_as_child() {
        return;
    }
    let environment = [("CUDA_VISIBLE_DEVICES", "")];
    let (status, words) = child("no_visible_device", "cuda", &environment);
    match backend() {
        BackendKind::Cuda => assert_eq!(status, GMB_ERROR_NO_DEVICE, "{words}"),
        _ => assert!([GMB_ERROR_NO_DRIVER, GMB_ERROR_NO_DEVICE].contains(&status), "{status} {words}"),
    }
    let (status, words) = child("no_visible_device", "auto", &environment);
    assert_eq!((status, words.as_str()), (GMB_OK, "Host"));
}

#[test]
fn the_environment_picks_the_backend() {
    if act_as_child() {
        return;
    }
    let test = "the_environment_picks_the_backend";
    assert_eq!(child(test, "auto", &[("GMB_BACKEND", "host")]), (GMB_OK, "Host".to_owned()));
    let (status, words) = child(test, "auto", &[("GMB_BACKEND", "metal")]);
    assert_eq!(status, GMB_ERROR_INVALID_ARGUMENT);
    assert!(words.contains("metal"), "{words}");
    // An explicit wish beats the environment.
    let (status, words) = child(test, "cuda", &[("GMB_BACKEND", "host"), ("CUDA_VISIBLE_DEVICES", "")]);
    assert!([GMB_ERROR_NO_DRIVER, GMB_ERROR_NO_DEVICE].contains(&status), "{status} {words}");
}
