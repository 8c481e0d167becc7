use super::support::*;
use gpumailbox::*;

#[test]
fn epochs_grow_by_one_and_can_be_waited_for() {
    let context = context();
    let mailbox = mailbox(&context, 1024, 16);
    let stream = context.stream().unwrap();
    let records = poisoned(&context, 16 * 4, 3);
    let token = Token::new(&context).unwrap();
    for round in 1..=20u32 {
        let push =
            Push { count: 1 + round % 4, records: records.address(), length: 16, ..Default::default() };
        unsafe { mailbox.push(&push, stream.get(), Some(&token)) }.unwrap();
        let result = token.wait(After::Epoch(round - 1), None).unwrap();
        assert_eq!((result.epoch, result.count), (round, 1 + round % 4));
        assert_eq!(token.poll().unwrap(), Some(result));
        // The device holds the same.
        context.synchronize(stream.get()).unwrap();
        let on_device = words(&download(&context, token.device_result(), 16));
        assert_eq!(on_device[0], u64::from(round) | u64::from(result.count) << 32);
        assert_eq!(on_device[1], 0);
    }
    let error = token.wait(After::Epoch(20), Some(std::time::Duration::ZERO)).unwrap_err();
    assert_eq!(error.status(), GMB_ERROR_TIMEOUT);
}
