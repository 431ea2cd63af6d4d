#![cfg(all(feature = "metrics", feature = "server"))]

use std::sync::Arc;

use super::*;
use crate::backend::{PushRefusal, QueueLimit};
use crate::failure::{QueueErrorKind, SharedCause};
use crate::outcome::DiscardReason;
use crate::question::Answer;
use crate::session_id::SessionStatus;
use crate::subscription::SubscriberState;

fn values(name: &str) -> Vec<&'static str> {
    let metric = all().into_iter().find(|metric| metric.name == name).unwrap();
    metric.labels.iter().map(|labels| labels.last().unwrap().1).collect()
}

#[test]
fn the_values_of_labels_are_those_of_the_types_that_they_come_from() {
    use {DiscardReason as D, PushRefusal as P, QueueErrorKind as Q, SessionStatus as S};
    let cause = || -> SharedCause { Arc::from(Box::<dyn std::error::Error + Send + Sync>::from("x")) };
    let sessions = [S::Owned, S::Known, S::Unknown, S::NotRead].map(S::label);
    assert_eq!(values("mcp_courier_pushed_total"), sessions);
    let refusals = [
        P::TooLarge { bytes: 2, limit: 1 },
        P::QueueFull(QueueLimit::Messages(1)),
        P::NotForFastMcp { why: String::new() },
        P::TooDeep { limit: 1 },
        P::TaskIdTooLong { bytes: 2, limit: 1 },
        P::NotSealed { why: String::new() },
        P::AfterRefused,
        P::Unreachable(cause()),
        P::Uncertain(cause()),
        P::Refused(String::new()),
    ];
    assert_eq!(values("mcp_courier_push_refused_total"), refusals.each_ref().map(P::label));
    let discards = [
        D::Expired,
        D::Rejected(String::new()),
        D::AttemptsExhausted { attempts: 1, last_error: String::new() },
        D::Superseded,
        D::Undecodable(String::new()),
        D::Purged,
        D::Collapsed,
        D::CannotOpen { key: String::new(), why: String::new() },
        D::NotSealed,
    ];
    assert_eq!(values("mcp_courier_discarded_total"), discards.each_ref().map(D::label));
    let failures =
        [Q::Unreachable("x".into()), Q::Broken("x".into()), Q::Refused(String::new()), Q::Sealing(String::new())];
    assert_eq!(values("mcp_courier_queue_failures_total"), failures.each_ref().map(Q::label));
    assert_eq!(values("mcp_courier_subscribers"), SubscriberState::LABELS.map(|(_, label)| label));
    let answers = [Answer::Accept(serde_json::Map::new()), Answer::Decline, Answer::cancelled("x")];
    assert_eq!(values("mcp_courier_questions_answered_total"), answers.each_ref().map(Answer::label));
    assert_eq!(values("mcp_courier_elicitations_total")[..3], answers.each_ref().map(Answer::label));
}
