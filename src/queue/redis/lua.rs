//! Parts that several scripts have in common, and the value of a lease that they read.

use crate::config::Config;
use crate::queue::OwnerToken;

/// Line to begin a script with that reads Redis's clock and then writes.
///
/// Redis before 7.0 refuses such a script without the call. Redis 7.0 needs none, and a later server may refuse the call.
pub(super) const CLOCK: &str = "pcall(function() redis.replicate_commands() end)\n";

/// Function `lease_owner`, to stand before a script: reads a lease, and cuts its life to what its owner gave it.
///
/// A lease has longer to live where Redis's clock was set back: a dead owner would keep the session for that much longer.
pub(super) const LEASE_OWNER: &str = r"
local function lease_owner(lease)
  local owner = redis.call('GET', lease)
  local given = owner and tonumber(string.match(owner, ' (%d+)$'))
  if given and redis.call('PTTL', lease) > given then redis.call('PEXPIRE', lease, given) end
  return owner
end
";

/// Returns the value of an owner's lease: its token, and the life in ms that each renewal gives.
///
/// The life stands in the value because servers of one fleet may have different heartbeats, and a publisher has none.
pub(super) fn lease_value(owner: OwnerToken, config: &Config) -> String {
    format!("{owner} {}", config.lease().as_millis())
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_script_depends_on_a_call_that_servers_may_refuse() {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/queue/redis");
        let mut dirs = vec![dir];
        while let Some(dir) = dirs.pop() {
            for path in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
                if path.is_dir() {
                    dirs.push(path);
                } else if path.file_name().unwrap() != "lua.rs" || !path.ends_with("redis/lua.rs") {
                    let text = std::fs::read_to_string(&path).unwrap();
                    assert!(!text.contains("replicate_commands"), "{}: begin with CLOCK", path.display());
                }
            }
        }
    }
}
