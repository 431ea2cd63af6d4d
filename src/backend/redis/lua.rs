//! Lua scripts: one file each in `lua/`, with a header that numbers keys, arguments and the reply.
//!
//! A line `-- include name` is replaced by the text of `lua/include/name.lua`.
//!
//! Rules that all scripts follow, each with the test that checks the rule, or with the word "review":
//! - *No text from outside*. Scripts and includes are `include_str!` constants. `Script::new` is private, and only
//!   `scripts!` calls it. Review keeps this rule.
//! - *Out of memory*. Redis then refuses a script whose first write needs memory, and lets any other script run to its
//!   end. A script that must work even then begins its writes with `DEL` or `PEXPIRE`. The exceptions are in
//!   `the_first_write_is_one_that_redis_allows_when_it_is_out_of_memory`.
//! - *Old servers*. Before Redis 7.0 a script that reads the clock, a life or a size, and then writes, must begin with
//!   `-- include clock` (`each_script_that_has_a_random_answer_begins_with_the_clock`).
//! - *Wrong types*. Another program may have stored anything under a key. A script that removes messages reads each key
//!   that could raise an error before the removal, so an error removes nothing. `redis_trouble` stores other types
//!   under queues, leases and live sessions; review covers the other keys.
//! - *Clocks that were set back*. A life in Redis may then be longer than any owner gave it. Leases, askers and live
//!   sessions are cut to their usual life (`clock_steps`).
//! - *Content as guard*. A message is removed or replaced only where its length and last 256 bytes match. A position
//!   alone would remove another message after a foreign producer changed the list
//!   (`an_acknowledgement_without_its_content_check_breaks_g2`, and the clauses of `queue_contract`).

use std::sync::OnceLock;

/// Texts that several scripts include, by their names.
const INCLUDES: [(&str, &str); 11] = [
    ("clock", include_str!("lua/include/clock.lua")),
    ("collapse", include_str!("lua/include/collapse.lua")),
    ("deduplication", include_str!("lua/include/deduplication.lua")),
    ("enqueue", include_str!("lua/include/enqueue.lua")),
    ("lease_life", include_str!("lua/include/lease_life.lua")),
    ("lease_owner", include_str!("lua/include/lease_owner.lua")),
    ("letters", include_str!("lua/include/letters.lua")),
    ("question", include_str!("lua/include/question.lua")),
    ("queue_life", include_str!("lua/include/queue_life.lua")),
    ("receipts", include_str!("lua/include/receipts.lua")),
    ("server_time", include_str!("lua/include/server_time.lua")),
];

/// Declares the scripts, each group for the builds that use it, and the list of all scripts.
macro_rules! scripts {
    ($(#[$used:meta] { $($script:ident = $name:literal,)* })*) => {
        $($(
            #[$used]
            pub(super) static $script: Script = Script::new($name, include_str!(concat!("lua/", $name, ".lua")));
        )*)*

        /// Every script.
        #[cfg(all(feature = "server", feature = "testing"))]
        pub(crate) static ALL: &[&Script] = &[$($(#[$used] &$script,)*)*];
    };
}

scripts! {
    #[cfg(all())] {
        LIVE_SESSIONS = "live_sessions",
        PURGE = "purge",
        PURGE_QUEUE = "purge_queue",
        PUSH = "push",
        PUSH_KEYED = "push_keyed",
        READ_RECEIPT = "read_receipt",
        RECORD = "record",
        REDRIVE = "redrive",
        RIGHTS = "rights",
        TRIM_LETTERS = "trim_letters",
        WAITING = "waiting",
    }
    #[cfg(any(feature = "elicitation", feature = "server"))] {
        SETTLE = "settle",
    }
    #[cfg(feature = "elicitation")] {
        COLLECT = "collect",
        POSE = "pose",
        TOUCH = "touch",
        WITHDRAW = "withdraw",
    }
    #[cfg(feature = "server")] {
        ACKNOWLEDGE = "acknowledge",
        ACKNOWLEDGE_OUTCOMES = "acknowledge_outcomes",
        ANNOUNCE_SERVER = "announce_server",
        CLAIM = "claim",
        RELEASE = "release",
        RENEW = "renew",
        REPLACE = "replace",
    }
    #[cfg(feature = "rmcp")] {
        END_SESSION = "end_session",
        STORE_SESSION = "store_session",
    }
}

/// Empty arguments, for a script that takes none.
pub(super) const NO_ARGUMENTS: &[&str] = &[];

/// Script for Redis, assembled and hashed at its first use.
pub(crate) struct Script {
    name: &'static str,
    /// Text of the script's file, before the includes.
    file: &'static str,
    /// Text with its includes, and its hash. Made at the first use.
    assembled: OnceLock<(String, redis::Script)>,
}

impl Script {
    const fn new(name: &'static str, file: &'static str) -> Self {
        Self { name, file, assembled: OnceLock::new() }
    }

    /// Returns the name of the script, for log lines.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Returns the text to load, with its includes.
    pub(crate) fn text(&self) -> &str {
        &self.assembled().0
    }

    /// Returns the SHA-1 by which Redis knows the loaded script.
    pub(super) fn hash(&self) -> &str {
        self.assembled().1.get_hash()
    }

    fn assembled(&self) -> &(String, redis::Script) {
        self.assembled.get_or_init(|| {
            let text = assemble(self.file);
            let script = redis::Script::new(&text);
            (text, script)
        })
    }
}

/// Puts the includes into the text of a script.
fn assemble(file: &str) -> String {
    let mut text = String::with_capacity(2 * file.len());
    for line in file.lines() {
        let include = line.strip_prefix("-- include ");
        let include = include.and_then(|name| INCLUDES.iter().find(|(known, _)| *known == name));
        text.push_str(include.map_or(line, |(_, included)| included.trim_end()));
        text.push('\n');
    }
    text
}

// Without these features some scripts are left out.
#[cfg(all(test, feature = "elicitation", feature = "rmcp"))]
mod tests;
