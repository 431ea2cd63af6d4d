//! Checks of the scripts' texts that need no Redis.

use super::{ALL, INCLUDES};

/// Calls whose answers count as random before Redis 7.0, and the functions that make such calls.
const RANDOM: [&str; 7] =
    ["'TIME'", "'PTTL'", "'TTL'", "'MEMORY'", "lease_owner(", "lease_owner,", "-- include enqueue"];

#[test]
fn every_file_of_lua_is_a_script_or_an_include() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/backend/redis/lua");
    let names = |dir: &std::path::Path| -> Vec<String> {
        let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        let lua = files.filter(|path| path.extension().is_some_and(|extension| extension == "lua"));
        let mut names: Vec<_> = lua.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&dir), ALL.iter().map(|script| script.name()).collect::<Vec<_>>());
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
