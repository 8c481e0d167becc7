//! Compiles the host kernels with `cc` and, where nvcc is found, the CUDA
//! kernels into fatbins that the library embeds. Never touches the network.
//!
//! `GMB_CUDA=ON|OFF|AUTO` (default AUTO), `GMB_CUDA_ARCHS="90;100"` narrows
//! the machine code, `NVCC`, `CUDA_HOME` and `CUDA_PATH` name the toolkit.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

const SONAME: &str = "libgpumailbox.so.0";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=kernels");
    println!("cargo:rerun-if-changed=include");
    for name in ["GMB_CUDA", "GMB_CUDA_ARCHS", "GMB_CHAOS", "NVCC", "CUDA_HOME", "CUDA_PATH", "PATH"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,{SONAME}");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");

    // Test builds only: random delays inside the protocol, on both backends.
    let chaos = env::var_os("GMB_CHAOS").is_some_and(|v| v.as_encoded_bytes().starts_with(b"1"));
    // As scripts/rustc.sh does for rustc. GCC would take the folder from PWD, which may be a link to it.
    env::remove_var("PWD");
    let here = env::current_dir().unwrap_or_default();
    let [name, version] = ["CARGO_PKG_NAME", "CARGO_PKG_VERSION"].map(|v| env::var(v).unwrap_or_default());
    let prefix = format!("-ffile-prefix-map={}=/src/{name}-{version}", here.display());
    let mut host = cc::Build::new();
    if chaos {
        host.define("GMB_CHAOS", None);
    }
    host.cpp(true)
        .cpp_link_stdlib(None)
        .std("c++17")
        .file("kernels/host.cpp")
        .include("include")
        .flag("-fno-exceptions")
        .flag("-fno-rtti")
        .flag("-fvisibility=hidden")
        .flag("-Wall")
        .flag("-Wextra")
        .flag(&prefix)
        .compile("gmb_host_kernels");

    let out = PathBuf::from(env::var("OUT_DIR").unwrap_or_default());
    let fatbin = out.join("mailbox.fatbin");
    let wanted = env::var("GMB_CUDA").unwrap_or_else(|_| "AUTO".into());
    let nvcc = match wanted.as_str() {
        "OFF" => None,
        "ON" | "AUTO" => find_nvcc(),
        other => fail(&format!("GMB_CUDA is {other:?}: use ON, OFF or AUTO")),
    };
    let mut major = 0;
    match nvcc {
        Some(nvcc) => {
            major = compile(&nvcc, Path::new("kernels/mailbox.cu"), &fatbin, chaos);
            println!("cargo:rustc-cfg=gmb_kernels");
            compile_profiler(&nvcc, &prefix);
        }
        None if wanted == "ON" => {
            fail("GMB_CUDA=ON and no nvcc: set NVCC or CUDA_HOME, put nvcc on PATH, or run `make toolchain`")
        }
        None => {
            if wanted == "AUTO" {
                println!("cargo:warning=no nvcc found: building without CUDA kernels (`make toolchain` installs one)");
            }
        }
    }
    println!("cargo:rustc-env=GMB_FATBIN={}", fatbin.display());
    println!("cargo:rustc-env=GMB_TOOLKIT_MAJOR={major}");
}

/// Ranges for profilers, where the toolkit has NVTX's headers.
fn compile_profiler(nvcc: &Path, prefix: &str) {
    let toolkit = nvcc.parent().and_then(Path::parent).unwrap_or(Path::new("/"));
    let include = toolkit.join("include");
    if !include.join("nvtx3/nvToolsExt.h").is_file() {
        println!(
            "cargo:warning=no nvtx3/nvToolsExt.h in {}: building without ranges for profilers",
            include.display()
        );
        return;
    }
    cc::Build::new()
        .std("c11")
        .file("kernels/profiler.c")
        .flag("-isystem")
        .flag(include.display().to_string())
        .flag("-fvisibility=hidden")
        .flag("-Wall")
        .flag("-Wextra")
        .flag(prefix)
        .flag(format!("-ffile-prefix-map={}=/toolkit", toolkit.display()))
        .compile("gmb_profiler");
    println!("cargo:rustc-cfg=gmb_nvtx");
}

fn fail(message: &str) -> ! {
    println!("cargo:warning={message}");
    eprintln!("error: {message}");
    std::process::exit(1);
}

/// `$NVCC`, `$CUDA_HOME`, `$CUDA_PATH`, `PATH`, then the wheels that `make toolchain` installs.
fn find_nvcc() -> Option<PathBuf> {
    let mut candidates = Vec::new();
    if let Some(path) = env::var_os("NVCC").filter(|p| !p.is_empty()) {
        candidates.push(PathBuf::from(path));
    }
    for name in ["CUDA_HOME", "CUDA_PATH"] {
        if let Some(home) = env::var_os(name).filter(|p| !p.is_empty()) {
            candidates.push(Path::new(&home).join("bin/nvcc"));
        }
    }
    if let Some(path) = env::var_os("PATH") {
        candidates.extend(env::split_paths(&path).map(|dir| dir.join("nvcc")));
    }
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR").unwrap_or_default());
    candidates.push(root.join("target/toolchain/cuda/bin/nvcc"));
    candidates.into_iter().find(|p| runs(p))
}

fn runs(nvcc: &Path) -> bool {
    nvcc.is_file() && Command::new(nvcc).arg("--version").output().is_ok_and(|o| o.status.success())
}

fn output(nvcc: &Path, argument: &str) -> String {
    match Command::new(nvcc).arg(argument).output() {
        Ok(o) if o.status.success() => String::from_utf8_lossy(&o.stdout).into_owned(),
        _ => fail(&format!("{} {argument} failed", nvcc.display())),
    }
}

/// Machine code for every architecture from sm_75 on (or those named) and PTX of the oldest.
/// Returns the toolkit's major version.
fn compile(nvcc: &Path, source: &Path, fatbin: &Path, chaos: bool) -> u32 {
    let known: Vec<u32> = output(nvcc, "--list-gpu-code")
        .lines()
        .filter_map(|line| line.trim().strip_prefix("sm_")?.parse().ok())
        .filter(|&arch| arch >= 75)
        .collect();
    let archs: Vec<u32> = match env::var("GMB_CUDA_ARCHS").ok().filter(|list| !list.is_empty()) {
        None => known,
        Some(list) => list
            .split([';', ',', ' '])
            .filter(|part| !part.is_empty())
            .map(|part| match part.parse() {
                Ok(arch) if known.contains(&arch) => arch,
                _ => fail(&format!("GMB_CUDA_ARCHS names {part:?}; this nvcc knows {known:?}")),
            })
            .collect(),
    };
    let Some(oldest) = archs.iter().min() else { fail("no architecture to compile for") };
    let mut command = Command::new(nvcc);
    command.args([
        "-std=c++17",
        "-O3",
        "-fatbin",
        "--threads",
        "0",
        "-Iinclude",
        "-Xptxas",
        "-v,-warn-spills",
    ]);
    if chaos {
        command.arg("-DGMB_CHAOS");
    }
    for arch in &archs {
        command.arg("-gencode").arg(format!("arch=compute_{arch},code=sm_{arch}"));
    }
    command.arg("-gencode").arg(format!("arch=compute_{oldest},code=compute_{oldest}"));
    command.arg("-o").arg(fatbin).arg(source);
    match command.output() {
        Ok(o) if o.status.success() => {
            // The ptxas gate reads the resource report from here.
            let _ = std::fs::write(fatbin.with_extension("ptxas.txt"), o.stderr);
        }
        Ok(o) => {
            fail(&format!("nvcc failed on {}:\n{}", source.display(), String::from_utf8_lossy(&o.stderr)))
        }
        Err(e) => fail(&format!("{} did not start: {e}", nvcc.display())),
    }
    let version = output(nvcc, "--version");
    version
        .split("release ")
        .nth(1)
        .and_then(|rest| rest.split('.').next()?.trim().parse().ok())
        .unwrap_or_else(|| fail("nvcc --version names no release"))
}
