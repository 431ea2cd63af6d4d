//! Checks of the scripts' texts, which need no Redis.

use std::path::Path;

use self::lint::{Token, first_writes_that_need_memory, globals, header, is_of_the_calendar, tokens, uses};
use super::{ALL, INCLUDES};

mod lint;

/// Calls whose answers count as random before Redis 7.0, and the functions that make such calls.
const RANDOM: [&str; 6] = ["'TIME'", "'PTTL'", "'TTL'", "'MEMORY'", "lease_owner(", "lease_owner,"];

#[test]
fn every_file_of_lua_is_a_script_or_an_include() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/backend/redis/lua");
    let names = |dir: &Path| -> Vec<String> {
        let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        let lua = files.filter(|path| path.extension().is_some_and(|extension| extension == "lua"));
        let mut names: Vec<_> = lua.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
        names.sort();
        names
    };
    let mut scripts: Vec<_> = ALL.iter().map(|script| script.name()).collect();
    scripts.sort_unstable();
    assert_eq!(names(&dir), scripts);
    assert_eq!(names(&dir.join("include")), INCLUDES.map(|(name, _)| name));
}

#[test]
fn every_include_is_known() {
    for script in ALL {
        assert!(!script.text().contains("-- include "), "{}: an include has no file", script.name());
    }
}

#[test]
fn no_script_depends_on_a_call_that_servers_may_refuse() {
    for script in ALL {
        let code = script
            .file
            .lines()
            .chain(INCLUDES.iter().filter(|(name, _)| *name != "clock").flat_map(|(_, text)| text.lines()));
        for line in code {
            assert!(!line.contains("replicate_commands"), "{}: include clock", script.name());
        }
    }
}

#[test]
fn each_script_that_has_a_random_answer_begins_with_the_clock() {
    let mut found = 0;
    for script in ALL {
        if !RANDOM.iter().any(|word| script.text().contains(word)) {
            continue;
        }
        found += 1;
        let first = script
            .file
            .lines()
            .find(|line| !line.is_empty() && (!line.starts_with("--") || line.starts_with("-- include")));
        assert_eq!(first, Some("-- include clock"), "{}", script.name());
    }
    assert!(found >= 10, "only {found} scripts were recognised");
}

#[test]
fn each_header_numbers_the_keys_and_arguments_that_its_script_uses() {
    for script in ALL {
        let (name, tokens) = (script.name(), tokens(script.text()));
        for list in ["KEYS", "ARGV"] {
            let (numbers, is_open) = header(script.file, list);
            assert_eq!(numbers, (1..=numbers.len()).collect::<Vec<_>>(), "{name}: numbers of {list}");
            let uses = uses(&tokens, list);
            for used in &uses {
                let is_covered = is_open || used.is_some_and(|used| used <= numbers.len());
                assert!(is_covered, "{name}: {list}[{used:?}] is not in the header");
            }
            let closed = numbers.len() - usize::from(is_open);
            for number in 1..=closed {
                assert!(uses.contains(&Some(number)), "{name}: {list}[{number}] is not used");
            }
        }
        let mut header = script.file.lines().take_while(|line| line.starts_with("--"));
        assert!(header.any(|line| line.starts_with("-- Reply ")), "{name}: the header has no reply");
    }
}

/// Scripts and includes of which Redis may refuse the first write when it is out of memory, each with its reason.
const REFUSED_WITHOUT_MEMORY: [(&str, &str, &str); 8] = [
    ("acknowledge_outcomes", "HSET", "no message was removed before, and the answer is an error, as for a lost answer"),
    ("collapse", "HSET", "`enqueue` has written before"),
    ("deduplication", "HSET", "`enqueue` has written before"),
    ("enqueue", "LPUSH", "the producer gets the refusal"),
    ("live_sessions", "ZADD", "the call is a pcall: nothing is cut then"),
    ("redrive", "LSET", "`enqueue` has written before"),
    ("store_session", "SET", "its file says why"),
    ("touch", "SET", "the asker tries again with its next round"),
];

#[test]
fn the_first_write_is_one_that_redis_allows_when_it_is_out_of_memory() {
    let mut refused = Vec::new();
    for (name, file) in ALL.iter().map(|script| (script.name(), script.file)).chain(INCLUDES) {
        refused.extend(first_writes_that_need_memory(&tokens(file)).into_iter().map(|command| (name, command)));
    }
    refused.sort_unstable();
    assert_eq!(refused, REFUSED_WITHOUT_MEMORY.map(|(name, command, _)| (name, command)));
}

#[test]
fn no_script_has_a_global_variable() {
    for script in ALL {
        assert_eq!(globals(&tokens(script.text())), Vec::<&str>::new(), "{}", script.name());
    }
}

#[test]
fn no_script_reckons_with_the_calendar() {
    for script in ALL {
        let found: Vec<Token<'_>> = tokens(script.text()).into_iter().filter(is_of_the_calendar).collect();
        assert_eq!(found, [], "{}", script.name());
    }
}
