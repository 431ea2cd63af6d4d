//! Arguments and answers of the scripts that claim, renew and release a lease, and the value of a lease.

use redis::Value;

use super::reply::{self, BadReply};
use crate::backend::{LeaseState, OwnerToken};
use crate::config::Config;

/// Returns the value of an owner's lease: its token, and the life in ms that each renewal gives.
///
/// The life stands in the value because servers of one fleet may have different heartbeats, and a publisher has none.
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

/// Returns whether a lease's value is that of this owner.
pub(super) fn is_owner(owner: OwnerToken, lease: &Value) -> bool {
    let Value::BulkString(lease) = lease else { return false };
    // Behind the token stands the life of the lease.
    lease.split(|byte| *byte == b' ').next() == Some(owner.to_string().as_bytes())
}

/// Returns the state of a lease that was this owner's in `before`, and had this value when it was read afterwards.
pub(super) fn lease_then(owner: OwnerToken, before: LeaseState, then: &Value) -> LeaseState {
    match then {
        Value::Nil => LeaseState::Absent,
        then if is_owner(owner, then) => before,
        _ => LeaseState::Lost,
    }
}
