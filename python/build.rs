//! Links the library, which lies beside the extension in the package.

fn main() {
    let here = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let lib = std::env::var("GMB_LIBRARY_DIR").unwrap_or(format!("{here}/gpumailbox/lib"));
    println!("cargo:rerun-if-env-changed=GMB_LIBRARY_DIR");
    println!("cargo:rerun-if-changed={lib}");
    println!("cargo:rustc-link-search=native={lib}");
    println!("cargo:rustc-link-lib=dylib=gpumailbox");
    println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN/lib");
}
