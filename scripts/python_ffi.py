#!/usr/bin/env python3
"""Writes python/src/ffi.rs, the Python package's view of the C API, from include/gpumailbox.h.

Usage: python_ffi.py [--verify]
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
HEADER, WANTED = ROOT / "include/gpumailbox.h", ROOT / "python/src/ffi.rs"
NAMES = {"uint64_t": "u64", "uint32_t": "u32", "uint16_t": "u16", "uint8_t": "u8", "int64_t": "i64", "int32_t": "i32",
         "size_t": "usize", "double": "f64", "char": "c_char", "void": "c_void", "CUstream_st": "c_void"}
# Of other headers, or for kernels: the package needs none of these.
OUT = re.compile(r"Arrow|gmb_log_function|gmb_ring_|gmb_tensor_(ring|slot|view)")


def rust_type(text):
    """A C type, with its stars, as Rust has it."""
    stars, constant = text.count("*"), "const" in text
    name = text.replace("*", " ").replace("const ", " ").replace("struct ", " ").split()[0]
    name = "c_void" if name.startswith("DLManaged") else NAMES.get(name, name)
    for level in range(stars):
        name = ("*const " if constant and level == 0 else "*mut ") + name
    return name


def member(text, end):
    """`TYPE NAME` or `TYPE NAME[N]` as `NAME: TYPE`."""
    found = re.fullmatch(r"(.*?[ *])(\w+)(?:\[(\d+)\])?", text.strip())
    name, of = found[2], rust_type(found[1])
    name = f"r#{name}" if name in ("type", "ref") else name
    return f"{name}: {f'[{of}; {found[3]}]' if found[3] else of}{end}"


def written():
    text = re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.S)
    lines = ["// Written by scripts/python_ffi.py from include/gpumailbox.h: do not edit.", "",
             "#![allow(non_camel_case_types, dead_code, missing_docs)]", "", "use std::ffi::{c_char, c_void};", ""]
    for name, value in re.findall(r"^#define (GMB_\w+) \(?(-?\w+)\)?$", text, flags=re.M):
        if re.fullmatch(r"-?\d+", value):
            lines.append(f"pub const {name}: {'i32' if abs(int(value)) < 2**31 else 'i64'} = {value};")
    lines += ["pub const GMB_WAIT_FOREVER: u64 = u64::MAX;", "pub const GMB_STREAM_CURRENT: usize = usize::MAX;", ""]
    for of, name in re.findall(r"^typedef (\w+) (gmb_\w+);", text, flags=re.M):
        lines.append(f"pub type {name} = {NAMES[of]};")
    lines += ["pub type gmb_stream = *mut c_void;", ""]
    for of, name, arguments in re.findall(r"^typedef (\w+) \(\*(gmb_\w+)\)\(([^;]*)\);", text, flags=re.M):
        if OUT.search(name):
            continue
        of = "" if of == "void" else f" -> {rust_type(of)}"
        parts = ", ".join(member(a, "") for a in arguments.split(","))
        lines += [f"pub type {name} = Option<unsafe extern \"C\" fn({parts}){of}>;"]
    lines.append("")
    for name, body in re.findall(r"^typedef struct (gmb_\w+) \{(.*?)^\} \1;", text, flags=re.S | re.M):
        if OUT.search(name):
            continue
        kept = re.sub(r"(const )?struct gmb_ring_header \*", "void *", body)
        fields = [member(f, ",") for f in kept.split(";") if f.strip()]
        lines += ["#[repr(C)]", "#[derive(Clone, Copy)]", f"pub struct {name} {{"]
        lines += [f"    pub {f}" for f in fields] + ["}", ""]
    lines += ["unsafe extern \"C\" {"]
    for of, name, arguments in re.findall(r"^([\w ]+?[ *]+)(gmb_\w+)\(([^;]*)\);", text, flags=re.M):
        if OUT.search(arguments):
            continue
        parts = [] if arguments.strip() == "void" else [member(a, "") for a in arguments.split(",")]
        lines.append(f"    pub fn {name}({', '.join(parts)}) -> {rust_type(of)};")
    return "\n".join(lines + ["}"]) + "\n"


def main():
    if "--verify" in sys.argv[1:]:
        if WANTED.read_text() != written():
            sys.exit(f"{WANTED.relative_to(ROOT)} is not what the header says: run scripts/python_ffi.py")
        return
    WANTED.write_text(written())


if __name__ == "__main__":
    main()
