//! The order of the layers, and the fences around Redis and rmcp: what DESIGN says and a compiler does not check.

use std::path::{Path, PathBuf};

/// A file may use only modules that stand before its own.
const ORDER: &[&str] = &[
    "principal",
    "session_id",
    "error",
    "notification",
    "envelope",
    "fate",
    "keys",
    "lock",
    "recent",
    "retry",
    "config",
    "queue",
    "session",
    "publisher",
    "actors",
    "courier",
];

/// The words refer to each other in their types: a notification names its error, an error its notification.
const WORDS: &[&str] = &["principal", "session_id", "error", "notification", "envelope", "keys", "retry", "config"];

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The module directly under `src` that a file belongs to.
fn room(file: &Path) -> String {
    let first = file.strip_prefix(src()).unwrap().components().next().unwrap();
    first.as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned()
}

/// A file without its comments and without its tests.
fn code(file: &Path) -> String {
    let text = std::fs::read_to_string(file).unwrap();
    let text = text.split("#[cfg(test)]").next().unwrap();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

#[test]
fn each_file_uses_only_layers_above_it() {
    let place = |module: &str| ORDER.iter().position(|m| *m == module);
    for file in sources(&src()) {
        let own = room(&file);
        let Some(mine) = place(&own) else { continue };
        assert!(
            !code(&file).contains("crate::{"),
            "{}: one path a line, so that this test can read it",
            file.display()
        );
        for used in code(&file).split("crate::").skip(1) {
            let used: String = used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let Some(theirs) = place(&used) else { continue };
            let both_words = WORDS.contains(&own.as_str()) && WORDS.contains(&used.as_str());
            assert!(theirs <= mine || both_words, "{} uses {used}, which lies below it", file.display());
        }
    }
}

#[test]
fn only_the_rooms_made_for_them_name_redis_rmcp_and_json() {
    for file in sources(&src()) {
        let path = file.strip_prefix(src()).unwrap().to_str().unwrap().to_owned();
        let code = code(&file);
        let named = |krate: &str| {
            code.match_indices(krate).any(|(at, _)| {
                let before = code[..at].chars().next_back();
                !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':' || c == '"')
            })
        };
        if named("redis::") {
            assert!(path.starts_with("queue"), "{path} names redis");
        }
        if named("rmcp::") {
            let allowed = path.starts_with("session/rmcp") || path == "courier.rs";
            assert!(allowed, "{path} names rmcp");
        }
        if named("serde_json::") {
            assert!(!path.starts_with("actors"), "{path} names JSON");
        }
        if named("actix::") {
            assert!(path.starts_with("actors") || path == "courier.rs", "{path} names actix");
        }
        assert!(!code.contains("ctx.wait("), "{path} waits in its context: its mailbox would sleep");
    }
}

#[test]
fn a_file_is_one_idea() {
    let mut lengths = Vec::new();
    for file in sources(&src()) {
        let lines = std::fs::read_to_string(&file).unwrap().lines().count();
        assert!(lines <= 400, "{} has {lines} lines", file.display());
        assert_ne!(file.file_name().unwrap(), "mod.rs", "{}", file.display());
        lengths.push(lines);
    }
    lengths.sort_unstable();
    assert!(lengths[lengths.len() / 2] <= 150, "the median file has {} lines", lengths[lengths.len() / 2]);
}

#[test]
fn without_features_the_crate_is_free_of_rmcp_actix_web_and_tls() {
    let tree = std::process::Command::new(env!("CARGO"))
        .args(["tree", "--no-default-features", "-e", "normal", "--prefix", "none", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let tree = String::from_utf8(tree.stdout).unwrap();
    assert!(tree.contains("redis v"), "the tree was not read: {tree}");
    for krate in ["rmcp", "actix-web", "rustls", "native-tls", "openssl"] {
        assert!(!tree.lines().any(|line| line.starts_with(&format!("{krate} v"))), "{krate} comes in:\n{tree}");
    }
}
