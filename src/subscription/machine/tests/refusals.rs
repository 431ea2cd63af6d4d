//! Events that a state does not allow.

use super::*;

/// Returns the names of the events that are legal now, apart from a change of presence and a stop.
fn legal(rig: &Rig) -> Vec<&'static str> {
    samples().iter().filter(|event| rig.machine.allows(event)).map(Event::name).collect()
}

#[test]
fn each_operation_is_answered_by_its_own_event_only() {
    let mut rig = Rig::new(Delivery::AtLeastOnce);
    assert!(legal(&rig).is_empty());
    rig.feed(Event::Presence(FIRST));
    assert_eq!(legal(&rig), ["Opened", "Failed"]);
    rig.feed(Event::Opened);
    assert_eq!(legal(&rig), ["Claimed", "Failed"]);
    rig.feed(Event::Claimed);
    assert_eq!(legal(&rig), ["Taken", "Failed"]);
    rig.feed(taken(LeaseState::Held, Vec::new()));
    assert_eq!(legal(&rig), ["Questions", "Failed"]);
    rig.feed(Event::Questions(Vec::new()));
    assert_eq!(legal(&rig), ["PermitSuspended", "Taken", "Failed"]);
    rig.feed(taken(LeaseState::Held, items(&[1])));
    assert_eq!(legal(&rig), ["Timer", "Delivered"]);
    rig.timer();
    assert_eq!(legal(&rig), ["Delivered", "Renewed", "Failed"]);
    rig.feed(Event::Renewed(LeaseState::Held));
    let envelope = Box::new(items(&[1]).remove(0).envelope.unwrap());
    rig.outcome(0, BatchEnd::Failed { envelope, error: "no".to_owned(), pause: TTL });
    assert_eq!(legal(&rig), ["Rewritten", "Failed"]);
    rig.feed(Event::Rewritten(Replaced::Done));
    assert_eq!(legal(&rig), ["Timer"]);
    rig.feed(Event::Presence(SessionState::Ended));
    assert_eq!(legal(&rig), ["Cancelled", "Failed"]);
    rig.feed(Event::Cancelled);
    assert_eq!(legal(&rig), ["Released", "Failed"]);
    rig.feed(Event::Released);
    assert!(legal(&rig).is_empty());
    for event in [Event::Stop, Event::Presence(FIRST)] {
        rig.machine.handle(event, rig.now, 0.5).unwrap_err();
    }
}

#[test]
fn a_refusal_names_the_event_the_state_and_the_operation() {
    let mut rig = Rig::new(Delivery::AtLeastOnce);
    let error = rig.machine.handle(Event::Settled, rig.now, 0.5).unwrap_err();
    let text = "the event Settled is illegal in the state Parked while the operation None runs";
    assert_eq!(error.to_string(), text);
}
