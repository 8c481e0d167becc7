//! Processes of their own, and the drivers that they find.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{c_char, c_int, c_void, CString};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a child did and said.
pub struct Child {
    pub succeeded: bool,
    pub text: String,
    pub errors: String,
}

impl Child {
    /// Runs one test of this program in a process of its own, with more in its environment, and less.
    pub fn run(test: &str, environment: &[(&str, &str)], without: &[&str]) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        for name in without {
            command.env_remove(name);
        }
        command.args(["--exact", test, "--nocapture"]).envs(environment.iter().copied());
        let output = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { succeeded: output.status.success(), text: text(&output.stdout), errors: text(&output.stderr) }
    }

    /// What the test answered: a word and the rest of each line that says `child: `. Nothing is printed by the library,
    /// and nothing panics.
    pub fn answers(&self) -> impl Iterator<Item = (&str, &str)> {
        assert!(self.succeeded && self.errors.is_empty(), "{}{}", self.text, self.errors);
        self.text.lines().filter_map(|line| line.split("child: ").nth(1)?.split_once(' '))
    }
}

/// A test of this program passes in a process of its own.
pub fn child_passes(test: &str, environment: &[(&str, &str)]) {
    let child = Child::run(test, environment, &[]);
    assert!(
        child.succeeded && child.text.contains("1 passed"),
        "{test} with {environment:?}: {}{}",
        child.text,
        child.errors
    );
}

/// Calls a function of the CUDA driver with up to three arguments, each in a register.
pub fn driver(name: &str, arguments: [usize; 3]) -> i32 {
    let library = unsafe { libc::dlopen(c"libcuda.so.1".as_ptr(), libc::RTLD_NOW) };
    let symbol = std::ffi::CString::new(name).unwrap();
    let address = unsafe { libc::dlsym(library, symbol.as_ptr()) };
    assert!(!address.is_null(), "the driver has no {name}");
    type Call = unsafe extern "C" fn(usize, usize, usize) -> i32;
    let call = unsafe { std::mem::transmute::<*mut std::ffi::c_void, Call>(address) };
    let [first, second, third] = arguments;
    unsafe { call(first, second, third) }
}

/// Every driver function that the library calls.
pub fn symbols() -> BTreeSet<&'static str> {
    let probe = include_str!("../../../src/backend/cuda/probe.rs");
    let names = probe.lines().filter_map(|line| line.trim().strip_prefix("c\"")?.strip_suffix("\","));
    let names: BTreeSet<&str> = names.filter(|n| n.starts_with("cu")).collect();
    assert!(names.len() > 30, "probe.rs lists no functions");
    names
}

/// The functions that are counted: also those the test itself calls.
fn counted() -> impl Iterator<Item = &'static str> {
    symbols().into_iter().chain(["cuStreamCreate"])
}

const SHIM: &[(&str, &str)] = &[("shim.c", include_str!("../../driver/shim.c"))];
const MADE_UP: &[(&str, &str)] = &[
    ("driver.cpp", include_str!("../../driver/driver.cpp")),
    ("kernels.h", include_str!("../../driver/kernels.h")),
    ("modules.h", include_str!("../../driver/modules.h")),
    ("state.h", include_str!("../../driver/state.h")),
    ("kernels/args.h", include_str!("../../../kernels/args.h")),
    ("kernels/entry.h", include_str!("../../../kernels/entry.h")),
    ("kernels/list.h", include_str!("../../../kernels/list.h")),
    ("kernels/host.cpp", include_str!("../../../kernels/host.cpp")),
    ("include/gpumailbox.h", include_str!("../../../include/gpumailbox.h")),
    ("include/gpumailbox/alone.cuh", include_str!("../../../include/gpumailbox/alone.cuh")),
    ("include/gpumailbox/arbiter.cuh", include_str!("../../../include/gpumailbox/arbiter.cuh")),
    ("include/gpumailbox/borrow.cuh", include_str!("../../../include/gpumailbox/borrow.cuh")),
    ("include/gpumailbox/doorbell.cuh", include_str!("../../../include/gpumailbox/doorbell.cuh")),
    ("include/gpumailbox/shared.cuh", include_str!("../../../include/gpumailbox/shared.cuh")),
    ("include/gpumailbox/shared_bulk.cuh", include_str!("../../../include/gpumailbox/shared_bulk.cuh")),
    ("include/gpumailbox/ordered.cuh", include_str!("../../../include/gpumailbox/ordered.cuh")),
    ("include/gpumailbox/overwrite.cuh", include_str!("../../../include/gpumailbox/overwrite.cuh")),
    ("include/gpumailbox/platform.cuh", include_str!("../../../include/gpumailbox/platform.cuh")),
    ("include/gpumailbox/queue.cuh", include_str!("../../../include/gpumailbox/queue.cuh")),
    ("include/gpumailbox/readers.cuh", include_str!("../../../include/gpumailbox/readers.cuh")),
    ("include/gpumailbox/ring.cuh", include_str!("../../../include/gpumailbox/ring.cuh")),
    ("include/gpumailbox/tensor.cuh", include_str!("../../../include/gpumailbox/tensor.cuh")),
    ("include/gpumailbox/turn.cuh", include_str!("../../../include/gpumailbox/turn.cuh")),
    ("include/gpumailbox/worker.cuh", include_str!("../../../include/gpumailbox/worker.cuh")),
];

/// A folder with a libcuda.so.1; gone when dropped.
pub struct Library(pub PathBuf);

impl Library {
    /// An empty folder; names must differ within the process.
    pub fn folder(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("gmb-driver-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn compile(name: &str, compiler: &str, files: &[(&str, &str)], arguments: &[&str]) -> Self {
        let library = Self::folder(name);
        let list: String = counted().map(|name| format!("SYMBOL({name})\n")).collect();
        for &(file, text) in files.iter().chain(&[("symbols.h", list.as_str())]) {
            let file = library.0.join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
        let output = Command::new(compiler)
            .args(["-O1", "-shared", "-fPIC", "-I.", "-Iinclude", "-o", "libcuda.so.1"])
            .args(arguments)
            .current_dir(&library.0)
            .output()
            .unwrap_or_else(|e| panic!("{compiler}: {e}"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        // cudarc asks for this name first, and would find an installed driver's.
        std::os::unix::fs::symlink("libcuda.so.1", library.0.join("libcuda.so")).unwrap();
        library
    }

    /// A driver of the given source in C.
    pub fn of(name: &str, source: &str) -> Self {
        Self::compile(name, "cc", &[("driver.c", source)], &["driver.c"])
    }

    /// The made-up driver, which works without a GPU.
    pub fn made_up(test: &str) -> Self {
        let arguments = ["-std=c++17", "-fvisibility=hidden", "driver.cpp", "kernels/host.cpp"];
        Self::compile(&format!("{test}-driver"), "c++", MADE_UP, &arguments)
    }

    /// What counts the calls before the driver that GMB_REAL_DRIVER names.
    pub fn shim(test: &str) -> Self {
        Self::compile(&format!("{test}-shim"), "cc", SHIM, &["shim.c", "-ldl"])
    }

    pub fn path(&self) -> PathBuf {
        self.0.join("libcuda.so.1")
    }

    /// What makes a child find it before any other.
    pub fn search_path(&self) -> (&'static str, String) {
        let old = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
        let old = std::env::split_paths(&old).filter(|folder| !folder.as_os_str().is_empty());
        let all = std::env::join_paths(std::iter::once(self.0.clone()).chain(old)).unwrap();
        ("LD_LIBRARY_PATH", all.into_string().unwrap())
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A library in this process.
pub struct Loaded(*mut c_void);

impl Loaded {
    pub fn new(name: &Path, flags: c_int) -> Option<Self> {
        let name = CString::new(name.to_str().unwrap()).unwrap();
        let library = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | flags) };
        (!library.is_null()).then_some(Self(library))
    }

    pub fn find(&self, name: &str) -> Option<*mut c_void> {
        let name = CString::new(name).unwrap();
        let address = unsafe { libc::dlsym(self.0, name.as_ptr()) };
        (!address.is_null()).then_some(address)
    }

    /// # Safety
    /// `F` is the function's type.
    pub unsafe fn function<F: Copy>(&self, name: &str) -> F {
        let address = self.find(name).unwrap_or_else(|| panic!("no {name}"));
        assert_eq!(size_of::<F>(), size_of_val(&address));
        unsafe { std::mem::transmute_copy(&address) }
    }

    /// Calls so far, by name.
    pub fn calls(&self) -> BTreeMap<&'static str, u64> {
        let calls: unsafe extern "C" fn(*const c_char) -> u64 = unsafe { self.function("gmb_driver_calls") };
        counted().map(|name| (name, unsafe { calls(CString::new(name).unwrap().as_ptr()) })).collect()
    }
}
