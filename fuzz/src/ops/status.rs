//! Versions, texts, the last message, the log.

use std::ffi::{c_char, c_void, CStr};

use gpumailbox::capi::status::{gmb_last_error_message, gmb_version, gmb_version_string};
use gpumailbox::*;

use crate::blob::{Blob, Out, POISON};
use crate::calls::{call, count, last, status_name, Function};
use crate::input::Input;
use crate::world::World;

/// The last message, for a report.
pub fn message() -> String {
    let blob = Blob::new(1200);
    gmb_last_error_message(blob.pointer(), 1200, std::ptr::null_mut());
    String::from_utf8_lossy(blob.bytes().split(|&byte| byte == 0).next().unwrap_or_default()).into_owned()
}

pub fn last_error_message(_: &mut World, input: &mut Input) {
    let before = last();
    let size = input.edge();
    // Longer than any message: a size beyond it needs no more memory.
    let blob = Blob::new(size.min(1200) as usize);
    let needed = Out::<usize>::new(input);
    let null = input.chance(16);
    let buffer = if null { std::ptr::null_mut() } else { blob.pointer::<c_char>() };
    let status = call!(status::gmb_last_error_message(buffer, size as usize, needed.pointer()));
    let allowed_null = needed.pointer().is_null();
    assert_eq!(status == GMB_OK, (needed.good || allowed_null) && (!null || size == 0), "status {status}");
    if status != GMB_OK {
        assert!(blob.is_untouched());
        return;
    }
    let told = if allowed_null { None } else { needed.take(status) };
    if before < 0 {
        assert!(told.is_none_or(|told| told > 1), "no message after a call that gave {before}");
    }
    if size > 0 {
        let end = blob.bytes().iter().position(|&byte| byte == 0).expect("a message ends with NUL");
        assert!(told.is_none_or(|told| told == end + 1 || (told > end + 1 && end + 1 == size as usize)));
        assert!(blob.bytes()[end + 1..].iter().all(|&byte| byte == POISON));
    }
}

pub fn texts(_: &mut World, input: &mut Input) {
    let status = input.edge() as i32;
    count(Function::gmb_status_name);
    count(Function::gmb_status_string);
    let known = status_name(status) != "GMB_ERROR_UNKNOWN";
    assert_eq!(known, (GMB_ERROR_CALLBACK..=GMB_NOT_READY).contains(&status), "status {status}");
    count(Function::gmb_version);
    count(Function::gmb_version_string);
    let number = gmb_version();
    let text = format!("{}.{}.{}", number >> 16, number >> 8 & 0xff, number & 0xff);
    // SAFETY: static, and it ends with NUL.
    let said = unsafe { CStr::from_ptr(gmb_version_string()) };
    assert_eq!(said.to_bytes(), text.as_bytes());
}

extern "C" fn hear(level: i32, message: *const c_char, argument: *mut c_void) {
    assert!((1..=3).contains(&level) && argument as u64 == 0x10c);
    // SAFETY: the library promises NUL.
    assert!(!unsafe { CStr::from_ptr(message) }.is_empty());
}

pub fn set_log_function(_: &mut World, input: &mut Input) {
    let level = input.spoil(3, 64) as i32;
    let function = if input.chance(64) { None } else { Some(hear as extern "C" fn(_, _, _)) };
    let status = call!(log::gmb_set_log_function(level, function, 0x10c as *mut c_void));
    assert_eq!(status == GMB_OK, (1..=3).contains(&level), "level {level}");
}
