//! Links the library that lies in the package beside the extension.

fn main() {
    let lib =
        std::path::Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default()).join("gpumailbox/lib");
    println!("cargo:rerun-if-changed={}", lib.display());
    println!("cargo:rustc-link-search=native={}", lib.display());
    println!("cargo:rustc-link-lib=dylib=gpumailbox");
    println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN/lib");
}
