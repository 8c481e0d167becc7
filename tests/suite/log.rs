//! The log function: what it is told, and when it is no longer called.

use super::support::*;
use gpumailbox::capi::log::*;
use gpumailbox::*;
use std::ffi::{c_char, c_void, CStr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// In a process of its own: the function is the whole process's.
#[test]
fn messages_come_by_level_and_end_with_the_function() {
    if std::env::var_os("GMB_TEST_LOG").is_none() {
        return child_passes(
            "log::messages_come_by_level_and_end_with_the_function",
            &[("GMB_TEST_LOG", "1")],
        );
    }
    std::env::remove_var("GMB_DISABLE");
    let messages = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&messages);
    let listen = move |level, message: &str| into.lock().unwrap().push((level, message.to_owned()));
    set_log(LogLevel::Info, Some(Box::new(listen.clone()))).unwrap();
    let name = context().info().name;
    let told = std::mem::take(&mut *messages.lock().unwrap());
    assert!(told.iter().any(|(level, text)| *level == LogLevel::Info && text.contains(&name)), "{told:?}");
    // Graver levels only.
    set_log(LogLevel::Warning, Some(Box::new(listen))).unwrap();
    drop(context());
    assert_eq!(*messages.lock().unwrap(), []);
    std::env::set_var("GMB_DISABLE", "mempool");
    drop(context());
    let told = std::mem::take(&mut *messages.lock().unwrap());
    assert!(told.len() == 1 && told[0].0 == LogLevel::Warning && told[0].1.contains("pool"), "{told:?}");
    set_log(LogLevel::Info, None).unwrap();
    drop(context());
    assert_eq!(*messages.lock().unwrap(), []);

    // In C, with an argument; the function must not replace itself.
    static CALLS: AtomicU64 = AtomicU64::new(0);
    extern "C" fn count(level: gmb_log_level, message: *const c_char, argument: *mut c_void) {
        assert_eq!(level, GMB_LOG_WARNING);
        assert!(!unsafe { CStr::from_ptr(message) }.is_empty());
        assert_eq!(argument as usize, 77);
        assert_eq!(gmb_set_log_function(GMB_LOG_INFO, None, std::ptr::null_mut()), GMB_ERROR_BUSY);
        CALLS.fetch_add(1, Ordering::SeqCst);
    }
    assert_eq!(gmb_set_log_function(4, Some(count), std::ptr::null_mut()), GMB_ERROR_INVALID_ARGUMENT);
    assert_eq!(gmb_set_log_function(0, None, std::ptr::null_mut()), GMB_ERROR_INVALID_ARGUMENT);
    assert_eq!(gmb_set_log_function(GMB_LOG_WARNING, Some(count), 77 as *mut c_void), GMB_OK);
    drop(context());
    assert_eq!(CALLS.load(Ordering::SeqCst), 1);
    assert_eq!(gmb_set_log_function(GMB_LOG_WARNING, None, std::ptr::null_mut()), GMB_OK);
    drop(context());
    assert_eq!(CALLS.load(Ordering::SeqCst), 1);
}
