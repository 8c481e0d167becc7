//! Pushes that wait for room: all or nothing, and what ends the wait.

use super::support::*;
use gpumailbox::*;
use std::time::Duration;

fn push_within(records: &DeviceBuffer, count: u32, timeout: Option<Duration>) -> Push {
    Push { timeout, ..push_of(records, count) }
}

#[test]
fn waiting_is_all_or_nothing_and_times_out_without_a_trace() {
    let context = context();
    let stream = context.stream().unwrap();
    let mailbox = with_policy(&context, FullPolicy::Wait, 16, 16);
    let rows = poisoned(&context, 16 * 32, 5);
    let token = Token::new(&context).unwrap();
    let now = Some(Duration::ZERO);
    let error =
        unsafe { mailbox.push(&push_within(&rows, 17, now), stream.get(), Some(&token)) }.unwrap_err();
    assert_eq!(error.status(), GMB_ERROR_INVALID_ARGUMENT);
    assert!(error.message().contains("17") && error.message().contains("16"), "{error}");
    assert_eq!(push_and_wait(&mailbox, &push_within(&rows, 10, now), stream.get(), &token).count, 10);
    for timeout in [Duration::ZERO, Duration::from_millis(3)] {
        let push = push_within(&rows, 7, Some(timeout));
        let error = unsafe { mailbox.push(&push, stream.get(), Some(&token)) }.unwrap_err();
        assert_eq!(error.status(), GMB_ERROR_TIMEOUT);
    }
    assert_eq!(token.poll().unwrap().unwrap().epoch, 1, "a push that timed out used the token");
    assert_eq!(push_and_wait(&mailbox, &push_within(&rows, 6, now), stream.get(), &token).count, 6);
    // A pop that is enqueued is as good as done, and the thread does not wait for it.
    let outlet = Outlet::new(&context, &mailbox, 9);
    unsafe { mailbox.pop(&outlet.pop, stream.get(), None) }.unwrap();
    assert_eq!(push_and_wait(&mailbox, &push_within(&rows, 9, now), stream.get(), &token).count, 9);
    let info = mailbox.info().unwrap();
    assert_eq!((info.published, info.rejected, info.high_water), (25, 0, 16));
    // A bad length that only the device finds: nothing of the push is accepted.
    let outlet = Outlet::new(&context, &mailbox, 16);
    unsafe { mailbox.pop(&outlet.pop, stream.get(), None) }.unwrap();
    let lengths = upload(&context, &[16u32, 16, 99, 16]);
    let push = Push { lengths: lengths.address(), ..push_within(&rows, 4, now) };
    let result = push_and_wait(&mailbox, &push, stream.get(), &token);
    assert_eq!((result.status, result.count), (GMB_ERROR_BAD_LENGTH, 0));
    assert_eq!(mailbox.info().unwrap().published, 25);
}

/// Threads that wait for room get it, none is passed over, and nothing is lost.
#[test]
fn many_threads_wait_for_room() {
    let context = context();
    let capacity = 16u64;
    for arbitration in [Arbitration::Cpu, Arbitration::Device] {
        let options = MailboxOptions {
            capacity,
            payload_bytes: 16,
            full_policy: FullPolicy::Wait,
            arbitration,
            ..Default::default()
        };
        let mailbox = Mailbox::new(&context, &options).unwrap();
        let (threads, pushes) = (6u64, 40u64);
        let total = std::sync::atomic::AtomicU64::new(0);
        let left = std::sync::atomic::AtomicU64::new(threads);
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let (context, mailbox, total, left) = (&context, &mailbox, &total, &left);
                scope.spawn(move || {
                    let stream = context.stream().unwrap();
                    let rows = context.pinned_buffer(16 * 16).unwrap();
                    let view = unsafe { std::slice::from_raw_parts_mut(rows.address() as *mut u64, 32) };
                    let token = Token::new(context).unwrap();
                    let mut sent = 0;
                    for push in 0..pushes {
                        let count = 1 + (push * 7 + thread) % capacity;
                        for i in 0..count {
                            view[2 * i as usize] = thread;
                            view[2 * i as usize + 1] = sent + i;
                        }
                        let push = Push {
                            count: count as u32,
                            records: rows.address(),
                            length: 16,
                            ..Default::default()
                        };
                        assert_eq!(
                            u64::from(push_and_wait(mailbox, &push, stream.get(), &token).count),
                            count
                        );
                        sent += count;
                    }
                    total.fetch_add(sent, std::sync::atomic::Ordering::SeqCst);
                    left.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                });
            }
            let stream = context.stream().unwrap();
            let token = Token::new(&context).unwrap();
            let rows = context.pinned_buffer(16 * 16).unwrap();
            let view = unsafe { std::slice::from_raw_parts(rows.address() as *const u64, 32) };
            let mut next = vec![0u64; threads as usize];
            loop {
                let last = left.load(std::sync::atomic::Ordering::SeqCst) == 0;
                let pop = Pop { max: 5, records: rows.address(), ..Default::default() };
                let result = pop_and_wait(&mailbox, &pop, stream.get(), &token);
                assert_eq!(result.status, GMB_OK);
                for i in 0..result.count as usize {
                    let (thread, number) = (view[2 * i] as usize, view[2 * i + 1]);
                    assert_eq!(number, next[thread], "thread {thread}: first in, first out");
                    next[thread] += 1;
                }
                if last && result.count == 0 {
                    break;
                }
            }
            assert_eq!(next.iter().sum::<u64>(), total.load(std::sync::atomic::Ordering::SeqCst));
        });
    }
}

/// When every thread of a process waits, the timeouts are all that ends it; nothing is lost.
#[test]
fn all_threads_wait_at_once_and_time_out() {
    let context = context();
    let mailbox = with_policy(&context, FullPolicy::Wait, 4, 16);
    let stream = context.stream().unwrap();
    let rows = poisoned(&context, 16 * 4, 5);
    unsafe { mailbox.push(&push_within(&rows, 4, None), stream.get(), None) }.unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8u64 {
            let (mailbox, rows, stream) = (&mailbox, &rows, stream.get());
            scope.spawn(move || {
                let push = push_within(rows, 1 + thread as u32 % 4, Some(Duration::from_millis(thread)));
                let error = unsafe { mailbox.push(&push, stream, None) }.unwrap_err();
                assert_eq!(error.status(), GMB_ERROR_TIMEOUT);
            });
        }
    });
    let outlet = Outlet::new(&context, &mailbox, 4);
    unsafe { mailbox.pop(&outlet.pop, stream.get(), None) }.unwrap();
    unsafe { mailbox.push(&push_within(&rows, 4, Some(Duration::ZERO)), stream.get(), None) }.unwrap();
    context.synchronize(stream.get()).unwrap();
    assert_eq!(mailbox.info().unwrap().published, 8);
}

/// A mailbox destroyed in C wakes who waits for room.
#[test]
fn a_destroyed_mailbox_wakes_who_waits() {
    use gpumailbox::capi::{context::gmb_context_destroy, mailbox as capi_mailbox, memory as c_memory};
    let context = c_context(0);
    let mailbox = c_mailbox(context, &c_options(4, GMB_FULL_WAIT));
    let mut memory = std::ptr::null_mut();
    assert_eq!(c_memory::gmb_memory_allocate(context, 256, &mut memory), GMB_OK);
    let none = gpumailbox::capi::token::gmb_token { id: 0 };
    let push = |timeout_ns| {
        let push = capi_mailbox::gmb_push {
            struct_size: size_of::<capi_mailbox::gmb_push>() as u32,
            count: 4,
            records: memory,
            stride: 0,
            lengths: std::ptr::null(),
            types: std::ptr::null(),
            length: 0,
            msg_type: 0,
            timeout_ns,
        };
        capi_mailbox::gmb_mailbox_push(mailbox, &push, std::ptr::null_mut(), none)
    };
    assert_eq!(push(0), GMB_OK);
    assert_eq!(push(0), GMB_ERROR_TIMEOUT);
    struct Everywhere<T>(T);
    unsafe impl<T> Send for Everywhere<T> {}
    unsafe impl<T> Sync for Everywhere<T> {}
    let push = Everywhere(push);
    std::thread::scope(|scope| {
        let push = &push;
        let waiters: Vec<_> = (0..4).map(|_| scope.spawn(move || (push.0)(u64::MAX))).collect();
        assert_eq!(capi_mailbox::gmb_mailbox_destroy(mailbox), GMB_OK);
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap(), GMB_ERROR_INVALID_HANDLE);
        }
    });
    assert_eq!(c_memory::gmb_memory_free(context, memory), GMB_OK);
    assert_eq!(gmb_context_destroy(context), GMB_OK);
}
