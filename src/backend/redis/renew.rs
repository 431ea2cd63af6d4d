//! The script by which an owner keeps its lease, and takes one that nobody has.

use std::sync::LazyLock;

use redis::{Script, Value};

use super::lua::{CLOCK, LEASE_OWNER, lease_value};
use super::reply::{self, BadReply};
use super::take::lease_state;
use crate::backend::{LeaseState, OwnerToken};
use crate::config::Config;

/// KEYS: the lease, its queue. ARGV: the value of our lease, its life in ms, the least life of the queue in ms, 1 to take an absent
/// lease. Answers the state of the lease and the time in ms.
const BODY: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local owner, state = lease_owner(KEYS[1]), 'held'
if owner == ARGV[1] then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
elseif owner then
  return {'lost', now}
elseif ARGV[4] ~= '1' then
  return {'absent', now}
else
  redis.call('DEL', KEYS[1])
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  state = 'reclaimed'
end
-- The queue outlives its owner's lease: what expires in it is discarded and counted by the owner, and not with the key.
local life = redis.call('PTTL', KEYS[2])
if life >= 0 and life < tonumber(ARGV[3]) then redis.call('PEXPIRE', KEYS[2], ARGV[3]) end
return {state, now}
";

/// The arguments of the scripts that claim and renew.
pub(super) fn arguments(config: &Config, owner: OwnerToken, reclaim: bool) -> Vec<Vec<u8>> {
    vec![
        lease_value(owner, config).into_bytes(),
        config.lease().as_millis().to_string().into_bytes(),
        (config.lease() + config.expiry_grace()).as_millis().to_string().into_bytes(),
        vec![if reclaim { b'1' } else { b'0' }],
    ]
}

pub(super) static CODE: LazyLock<String> = LazyLock::new(|| format!("{CLOCK}{LEASE_OWNER}{BODY}"));

pub(super) static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(&CODE));

pub(super) fn answer(value: Value) -> Result<(LeaseState, i64), BadReply> {
    let [state, now] = reply::array(value)?;
    Ok((lease_state(state)?, reply::number(now)?))
}
