use proptest::prelude::*;

use super::*;

#[test]
fn an_answer_confirms_all_that_was_handed_over_before_its_ping_and_nothing_behind() {
    let mut delivery = Delivery::Idle;
    assert_eq!(delivery.confirm(1, "a"), Err(Break::Ended), "nothing was handed over");
    for (ping, waiter) in [(1, "a"), (2, "b"), (3, "c")] {
        delivery.handed_over(7);
        assert_eq!(delivery.confirm(ping, waiter), Ok(7));
    }
    delivery.handed_over(7);
    assert_eq!(delivery.ping_again(2, 20), Some(7));
    assert_eq!(delivery.answered(20), ["a", "b"]);
    for late in [1, 2, 20, 99] {
        assert_eq!(delivery.answered(late), [""; 0], "late, repeated or invented");
    }
    assert_eq!(delivery.ping_again(2, 21), None);
    assert_eq!(delivery.answered(3), ["c"]);
    assert!(matches!(delivery, Delivery::Sending { stream: 7 }), "the last message is unconfirmed");
    assert_eq!(delivery.confirm(4, "d"), Ok(7));
    assert_eq!(delivery.answered(4), ["d"]);
    assert!(matches!(delivery, Delivery::Idle));
}

#[test]
fn nothing_goes_down_another_stream_before_each_caller_knows_of_the_break() {
    let mut delivery = Delivery::Idle;
    delivery.handed_over(1);
    delivery.confirm(1, "a").unwrap();
    delivery.handed_over(1);
    assert_eq!(delivery.break_off(Break::Superseded), ["a"]);
    assert_eq!(delivery.admit(), Err(Break::Superseded), "the caller of the second message is told");
    assert_eq!(delivery.admit(), Err(Break::Superseded), "the caller of the first has not returned");
    assert_eq!(delivery.answered(1), [""; 0], "too late");
    delivery.forget(1);
    assert_eq!(delivery.admit(), Ok(()));
    delivery.handed_over(2);
    assert_eq!(delivery.stream(), Some(2));
}

#[test]
fn a_break_of_nothing_is_none_and_a_second_one_changes_nothing() {
    let mut delivery = Delivery::Idle;
    assert_eq!(delivery.break_off(Break::Ended).len(), 0);
    assert_eq!(delivery.admit(), Ok(()));
    delivery.handed_over(1);
    delivery.break_off(Break::Unread);
    assert_eq!(delivery.break_off(Break::Ended).len(), 0);
    assert_eq!(delivery.confirm(1, "a"), Err(Break::Unread), "told by the call for a confirmation too");
    assert_eq!(delivery.admit(), Ok(()));
}

#[test]
fn a_caller_that_is_gone_holds_nothing_up() {
    let mut delivery = Delivery::Idle;
    delivery.handed_over(1);
    delivery.confirm(1, "a").unwrap();
    delivery.forget(1);
    assert!(matches!(delivery, Delivery::Idle));
    delivery.handed_over(1);
    delivery.confirm(2, "b").unwrap();
    delivery.handed_over(1);
    delivery.forget(2);
    assert!(matches!(delivery, Delivery::Sending { stream: 1 }));
}

/// Event in the deliveries of a client.
#[derive(Debug, Clone)]
enum Step {
    HandOver,
    Confirm,
    PingAgain(usize),
    /// The client answers one of the pings that were ever sent.
    Answer(usize),
    /// A caller that waited returns, or is gone.
    Forget(usize),
    BreakOff(Break),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::HandOver),
        4 => Just(Step::Confirm),
        1 => any::<usize>().prop_map(Step::PingAgain),
        3 => any::<usize>().prop_map(Step::Answer),
        2 => any::<usize>().prop_map(Step::Forget),
        1 => Just(Step::BreakOff(Break::Superseded)),
        1 => Just(Step::BreakOff(Break::Ended)),
    ]
}

/// Plain model of the same: each message with its stream, in the order of the hand-overs.
#[derive(Default)]
struct Account {
    /// Streams of the messages since the last beginning.
    messages: Vec<u64>,
    /// Pings: their confirmation, and the number of messages before the ping. An answer confirms all of those.
    pings: Vec<(u128, usize, u64)>,
    /// Confirmations by name: the number of messages that each concerns.
    calls: Vec<(u128, usize)>,
    stream: u64,
}

proptest! {
    #[test]
    fn what_is_confirmed_was_read_and_streams_never_mix(steps in proptest::collection::vec(step(), 0..60)) {
        let (mut delivery, mut account, mut ping) = (Delivery::Idle, Account { stream: 1, ..Account::default() }, 0u128);
        for step in steps {
            match step {
                Step::HandOver => {
                    let is_broken = matches!(delivery, Delivery::Broken { .. });
                    prop_assert_eq!(delivery.admit().is_err(), is_broken);
                    if is_broken {
                        account.messages.clear();
                        continue;
                    }
                    let stream = delivery.stream().unwrap_or(account.stream);
                    prop_assert_eq!(stream, account.stream, "all goes down the newest stream");
                    delivery.handed_over(stream);
                    account.messages.push(stream);
                }
                Step::Confirm => {
                    ping += 1;
                    match delivery.confirm(ping, ping) {
                        Ok(stream) => {
                            prop_assert_eq!(stream, account.stream);
                            account.pings.push((ping, account.messages.len(), stream));
                            account.calls.push((ping, account.messages.len()));
                        }
                        Err(_) => account.messages.clear(),
                    }
                }
                Step::PingAgain(n) if !account.calls.is_empty() => {
                    let (first, _) = account.calls[n % account.calls.len()];
                    ping += 1;
                    if let Some(stream) = delivery.ping_again(first, ping) {
                        // Sent again behind later messages, this ping still confirms the messages of its call.
                        let about = account.pings.iter().find(|(ping, ..)| *ping == first).unwrap().1;
                        account.pings.push((ping, about, stream));
                    }
                }
                Step::Answer(n) if !account.pings.is_empty() => {
                    let (answered, before, stream) = account.pings[n % account.pings.len()];
                    let confirmed = delivery.answered(answered);
                    for call in &confirmed {
                        let (_, about) = account.calls.iter().find(|(first, _)| first == call).unwrap();
                        prop_assert!(*about <= before, "nothing behind the ping is confirmed");
                        prop_assert_eq!(stream, account.stream, "nor anything of another stream");
                    }
                    account.calls.retain(|(first, _)| !confirmed.contains(first));
                }
                Step::Forget(n) if !account.calls.is_empty() => {
                    let (first, _) = account.calls.remove(n % account.calls.len());
                    delivery.forget(first);
                }
                Step::BreakOff(why) => {
                    let waiting: Vec<u128> = match &delivery {
                        Delivery::Confirming { awaited, .. } => awaited.iter().map(|awaited| awaited.waiter).collect(),
                        _ => Vec::new(),
                    };
                    prop_assert_eq!(delivery.break_off(why), waiting, "each caller is told once");
                    account.stream += 1;
                }
                _ => {}
            }
            let told = account.calls.is_empty();
            if let Delivery::Broken { untold, behind, .. } = &delivery {
                prop_assert!(*behind || !untold.is_empty());
                prop_assert!(untold.is_empty() || !told, "it waits for nobody who is gone");
            }
        }
    }
}
