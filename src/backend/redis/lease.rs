//! Arguments and answers of the scripts that claim, renew and release a lease, and the value of a lease.
//!
//! *Value*. A lease contains the owner's token and the life that its owner gives it. A key that lives longer shows that
//! the clock of Redis's host was set back. Whoever reads such a lease cuts it to that life. Otherwise a dead owner
//! would hold its session for the size of the step
//! (`g4_g8_who_stands_by_follows_a_killed_owner_and_deliveries_go_on_though_the_clock_is_set`).

use std::time::Duration;

use redis::{Cmd, ToRedisArgs, Value};

use super::reply::{self, BadReply};
use crate::backend::{LeaseState, OwnerToken};
use crate::config::Config;

/// Longest wait for the announcement of a session as live, where another node of a cluster than that of its queue writes
/// the announcement. A node without an answer must not delay the deliveries of the others.
pub(super) const ANNOUNCED_WITHIN: Duration = Duration::from_millis(250);

/// Returns the value of an owner's lease: its token, and the life in ms that each renewal gives.
///
/// The value contains the life because servers of one fleet may have different heartbeats, and a publisher has none.
pub(super) fn lease_value(owner: OwnerToken, config: &Config) -> String {
    format!("{owner} {}", config.lease().as_millis())
}

/// Returns the arguments of the scripts that claim and renew.
pub(super) fn arguments(config: &Config, owner: OwnerToken, reclaim: bool) -> Vec<Vec<u8>> {
    vec![
        lease_value(owner, config).into_bytes(),
        config.lease().as_millis().to_string().into_bytes(),
        (config.lease() + config.expiry_grace()).as_millis().to_string().into_bytes(),
        vec![if reclaim { b'1' } else { b'0' }],
    ]
}

/// Returns the commands that announce members in the sorted set of live sessions. Each member is live for one lease
/// from its moment on, in ms by Redis's clock. The set lies in a slot of its own, so no script can write it.
pub(super) fn announcement(config: &Config, sessions: &str, live: &[(i64, impl ToRedisArgs)]) -> [Cmd; 3] {
    let lease_ms = i64::try_from(config.lease().as_millis()).unwrap_or(i64::MAX / 2);
    let now_ms = live.iter().map(|(now_ms, _)| *now_ms).min().unwrap_or_default();
    let mut add = redis::cmd("ZADD");
    add.arg(sessions);
    for (now_ms, member) in live {
        add.arg(now_ms + lease_ms).arg(member);
    }
    let remove = redis::cmd("ZREMRANGEBYSCORE").arg(sessions).arg("-inf").arg(now_ms).take();
    [add, remove, redis::cmd("PEXPIRE").arg(sessions).arg(lease_ms * 2).take()]
}

/// Reads the answer to a claim: whether another owner held the lease, and the time in ms.
pub(super) fn claimed(value: Value) -> Result<(bool, i64), BadReply> {
    let [displaced, now] = reply::array(value)?;
    Ok((reply::number::<i64>(displaced)? != 0, reply::number(now)?))
}

/// Reads the answer to a renewal: the state of the lease, and the time in ms.
pub(super) fn renewed(value: Value) -> Result<(LeaseState, i64), BadReply> {
    let [state, now] = reply::array(value)?;
    Ok((lease_state(&reply::bytes(state)?), reply::number(now)?))
}

/// Reads the state of a lease as the scripts spell it.
pub(super) fn lease_state(state: &[u8]) -> LeaseState {
    match state {
        b"held" => LeaseState::Held,
        b"reclaimed" => LeaseState::Reclaimed,
        b"absent" => LeaseState::Absent,
        _ => LeaseState::Lost,
    }
}

/// Returns whether the value of a lease names this owner.
pub(super) fn is_owner(owner: OwnerToken, lease: &Value) -> bool {
    let Value::BulkString(lease) = lease else { return false };
    // The life of the lease stands behind the token.
    lease.split(|byte| *byte == b' ').next() == Some(owner.to_string().as_bytes())
}

/// Returns the state of a lease that was this owner's with state `before`, and whose value was `then` at a later read.
pub(super) fn lease_then(owner: OwnerToken, before: LeaseState, then: &Value) -> LeaseState {
    match then {
        Value::Nil => LeaseState::Absent,
        then if is_owner(owner, then) => before,
        _ => LeaseState::Lost,
    }
}
