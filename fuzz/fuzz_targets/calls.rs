//! A file of bytes is a sequence of calls of the C API.
#![no_main]

libfuzzer_sys::fuzz_target!(init: gpumailbox_fuzz::start(), |bytes: &[u8]| gpumailbox_fuzz::run(bytes));
