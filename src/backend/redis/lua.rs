//! Parts that several scripts have in common, and the value of a lease that they read.

use crate::backend::OwnerToken;
use crate::config::Config;

/// Line to begin a script with that reads Redis's clock, the rest of a key's life, or the size of a key, and then writes.
///
/// Redis before 7.0 refuses such a script without the call, always or where `lua-replicate-commands` is `no`. Redis 7.0 needs none, and a later server may refuse the call.
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
    use std::path::{Path, PathBuf};

    /// Calls whose answers count as random before Redis 7.0, and what has such calls in it.
    const RANDOM: [&str; 6] = ["'TIME'", "'PTTL'", "'TTL'", "'MEMORY'", "lease_owner(", "lease_owner,"];

    /// Returns the files of scripts, without those of functions to stand before a script.
    fn files() -> Vec<(PathBuf, String)> {
        let (mut dirs, mut files) = (vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src/backend/redis")], Vec::new());
        while let Some(dir) = dirs.pop() {
            for path in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
                if path.is_dir() {
                    dirs.push(path);
                } else if path.file_name().unwrap() != "lua.rs" {
                    let text = std::fs::read_to_string(&path).unwrap();
                    files.push((path, text));
                }
            }
        }
        files
    }

    #[test]
    fn no_script_depends_on_a_call_that_servers_may_refuse() {
        for (path, text) in files() {
            assert!(!text.contains("replicate_commands"), "{}: begin with CLOCK", path.display());
        }
    }

    #[test]
    fn each_script_that_has_a_random_answer_begins_with_the_clock() {
        let mut found = 0;
        for (path, text) in files() {
            if !RANDOM.iter().any(|word| text.contains(word)) && !text.contains("{FUNCTIONS}") {
                continue;
            }
            found += 1;
            assert!(!text.contains("Script::new(CODE)"), "{}: begin with CLOCK", path.display());
            let scripts = text
                .lines()
                .filter(|line| line.contains("format!(") && (line.contains("CODE}") || line.contains("BODY}")));
            for script in scripts {
                assert!(script.contains("format!(\"{CLOCK}"), "{}: {script}", path.display());
            }
        }
        assert!(found >= 10, "only {found} files were recognised");
    }
}
