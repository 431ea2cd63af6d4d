//! The order of the layers, and the fences around Redis and rmcp: what DESIGN says and a compiler does not check.

mod files;

use std::path::{Path, PathBuf};

/// Order of the rooms: a file uses only rooms that stand before its own, and its own.
const ORDER: &[&str] = &[
    "hex",
    "json",
    "principal",
    "session_id",
    "failure",
    "health",
    "timestamp",
    "trace_context",
    "seal",
    "question",
    "notification",
    "envelope",
    "outcome",
    "keys",
    "lock",
    "recent_set",
    "retry",
    "config",
    "examination",
    "metrics",
    "subscription",
    "spans",
    "story",
    "backend",
    "connect",
    "session",
    "inspector",
    "publisher",
    "elicitation",
    "inbox",
    "actors",
    "courier",
    "http",
];

/// Returns all files in a directory and below.
pub(crate) fn files_below(dir: &Path) -> Vec<PathBuf> {
    let paths = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

fn sources(dir: &Path) -> Vec<PathBuf> {
    files_below(dir).into_iter().filter(|path| path.extension().is_some_and(|e| e == "rs")).collect()
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Returns a file without its comments and without its module of tests, which is the last item of a file.
fn code(file: &Path) -> String {
    let text = std::fs::read_to_string(file).unwrap();
    let (code, tests) = text.split_once("\n#[cfg(test)]\nmod tests").unwrap_or((&text, ";\n"));
    let is_last = tests == ";\n" || (tests.starts_with(" {\n") && tests.find("\n}") == Some(tests.len() - 3));
    assert!(is_last, "{}: something follows the module of tests", file.display());
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_helper_of_tests_in_the_middle_of_a_file_hides_nothing_behind_it() {
    let json = code(&src().join("json.rs"));
    let helper = json.find("#[cfg(test)]").expect("a helper that only tests use");
    assert!(json[helper..].lines().count() > 100, "what stands behind the helper is code");
    assert!(!json.contains("mod tests"), "the tests are no code");
}

#[test]
fn each_file_uses_only_layers_above_it() {
    let place = |file: &str| {
        let room = file.split('/').next().unwrap().trim_end_matches(".rs");
        ORDER.iter().position(|m| *m == room).unwrap_or_else(|| panic!("{room} has no place in ORDER"))
    };
    let arrows = files::Modules::read(&src()).arrows();
    for ((file, used), names) in arrows.iter().filter(|((file, _), _)| file != "lib.rs") {
        assert!(place(used) <= place(file), "{file} uses {names:?} of {used}, which lies below it");
    }
    // By `super`, and by the re-export of a parent.
    for (file, used, name) in [
        ("session/rmcp/settings.rs", "session/rmcp/restorer.rs", "Restorer"),
        ("courier.rs", "session/rmcp/builder.rs", "SessionManagerBuilder"),
    ] {
        let arrow = arrows.get(&(file.to_owned(), used.to_owned()));
        assert!(arrow.is_some_and(|names| names.contains(name)), "{name} of {used} was not seen in {file}");
    }
}

#[test]
fn files_use_each_other_in_no_circle_but_a_module_and_its_own_child() {
    let arrows = files::Modules::read(&src()).arrows();
    let circles = files::circles(&arrows);
    let shown: Vec<_> = circles.iter().map(|circle| circle.join(" -> ")).collect();
    assert!(shown.is_empty(), "circles between files:\n{}", shown.join("\n"));

    let arrow = |a: &str, b: &str| ((a.to_owned(), b.to_owned()), Default::default());
    let family = [arrow("a.rs", "a/b.rs"), arrow("a/b.rs", "a.rs")];
    assert!(files::circles(&family.clone().into()).is_empty());
    let cousins = [arrow("a/b.rs", "c.rs"), arrow("c.rs", "a.rs")];
    let relatives = family.into_iter().chain(cousins).collect();
    assert_eq!(files::circles(&relatives)[0], ["a/b.rs", "c.rs", "a.rs", "a/b.rs"]);
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
            assert!(path.starts_with("backend/redis"), "{path} names redis");
        }
        if named("rmcp::") {
            let allowed = path.starts_with("session/rmcp") || path.starts_with("http/") || path == "courier.rs";
            assert!(allowed, "{path} names rmcp");
        }
        if named("actix_web::") || named("rmcp_actix_web::") {
            assert!(path.starts_with("http/"), "{path} names actix-web");
        }
        if named("serde_json::") {
            assert!(!path.starts_with("actors"), "{path} names JSON");
        }
        if named("actix::") {
            assert!(path.starts_with("actors") || path == "courier.rs", "{path} names actix");
        }
        // Tests pause tokio's clock, and with it all that actors do.
        if path.starts_with("actors") && path != "actors/clock.rs" {
            assert!(!code.contains("Instant::now"), "{path} reads a clock of its own: take actors::clock::now");
        }
        assert!(!code.contains("ctx.wait("), "{path} waits in its context: its mailbox would sleep");
    }
}

/// Names of redis-rs for what makes, is, configures or tells of a connection.
const CONNECTION_TYPES: &[&str] = &[
    "aio",
    "AsyncConnectionConfig",
    "AsyncPushSender",
    "Client",
    "ConnectionAddr",
    "ConnectionInfo",
    "ConnectionLike",
    "ConnectionManager",
    "IntoConnectionInfo",
    "MultiplexedConnection",
    "PubSub",
    "PushInfo",
    "PushKind",
    "RedisConnectionInfo",
    "TcpSettings",
];

#[test]
fn only_one_file_names_the_connection_types_of_redis() {
    let named_in = |file: &Path| -> Vec<String> {
        let code = code(file);
        let words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
        words.filter(|word| CONNECTION_TYPES.contains(word)).map(str::to_owned).collect()
    };
    let one = src().join("backend/redis/link/connection.rs");
    assert!(named_in(&one).len() > 10, "the file that names them was not found");
    let backend = sources(&src().join("backend")).into_iter().chain([src().join("backend.rs")]);
    for file in backend.filter(|file| *file != one) {
        let named = named_in(&file);
        assert!(named.is_empty(), "{} names {named:?}", file.display());
    }
}

/// The arguments of all calls of tracing's macros in a file.
fn log_calls(code: &str) -> impl Iterator<Item = &str> {
    code.split("tracing::").skip(1).filter_map(|rest| rest.split_once("!(")?.1.split(';').next())
}

#[test]
fn a_session_id_is_logged_by_its_debug_which_shortens_it() {
    let mut calls = 0;
    for file in sources(&src()) {
        for call in log_calls(&code(&file)) {
            calls += 1;
            let displayed = call.split('%').skip(1).map(|rest| {
                let end = rest.find(|c: char| !c.is_alphanumeric() && !"_.():&*".contains(c)).unwrap_or(rest.len());
                rest[..end].trim_end_matches("()").to_owned()
            });
            for value in displayed.chain(call.match_indices("{session").map(|(at, _)| call[at + 1..].to_owned())) {
                let last = value.rsplit(['.', ':']).next().unwrap_or_default();
                let whole = value.starts_with("session}") || value.starts_with("session_id}");
                assert!(
                    !whole && !["session", "session_id"].contains(&last),
                    "{}: {call:?} logs a whole session id: write ?{value}",
                    file.display()
                );
            }
        }
    }
    assert!(calls > 20, "tracing's calls were not found");
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
fn each_feature_brings_only_its_own_crates() {
    for (features, without) in [
        ("", &["actix", "actix-rt", "jsonschema", "opentelemetry", "schemars", "rmcp", "actix-web", "openssl"][..]),
        ("elicitation", &["actix", "actix-rt", "rmcp", "actix-web", "openssl"]),
        ("server", &["jsonschema", "schemars", "rmcp", "actix-web", "openssl"]),
        ("opentelemetry", &["actix", "jsonschema", "opentelemetry_sdk", "rmcp"]),
        ("elicitation,rmcp", &["native-tls", "openssl", "opentelemetry", "rustls", "tracing-opentelemetry"]),
    ] {
        let tree = packages(features);
        for krate in without {
            let is_there = tree.lines().any(|line| line.starts_with(&format!("{krate} v")));
            assert!(!is_there, "{krate} comes in with the features {features:?}:\n{tree}");
        }
    }
}

/// Returns the packages of a build with these features, one a line.
fn packages(features: &str) -> String {
    let tree = std::process::Command::new(env!("CARGO"))
        .args(["tree", "--no-default-features", "--features", features])
        .args(["-e", "normal", "--prefix", "none", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        // A test may run under another clock; the compiler stops where libfaketime is loaded into it.
        .env_remove("LD_PRELOAD")
        .output()
        .unwrap();
    let tree = String::from_utf8(tree.stdout).unwrap();
    assert!(tree.contains("redis v"), "the tree was not read: {tree}");
    tree
}

/// Any moment of this century passes, and then what is made of it expires. The corpus is exempt: its messages are only
/// decoded as they are, and `bad_input.rs` gives them the time of the day before anything waits for their expiry.
#[test]
fn no_test_or_example_names_a_moment_that_can_pass() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dirs = ["cli", "tests", "testing", "examples", "src"].map(|dir| root.join(dir));
    let python = std::fs::read_dir(root.join("tests/python")).unwrap().map(|entry| entry.unwrap().path());
    let python = python.filter(|path| path.extension().is_some_and(|e| e == "py"));
    let files = dirs
        .iter()
        .flat_map(|dir| sources(dir))
        .chain(python)
        .chain([root.join("testing/benches/alternatives/fastmcp/side.py")]);
    for file in files.filter(|file| !file.ends_with("tests/protocol/bad_input.rs")) {
        for line in std::fs::read_to_string(&file).unwrap().lines().filter(|line| !line.trim_start().starts_with("//"))
        {
            assert!(!names_a_moment(line), "{}: make it relative to now: {line}", file.display());
        }
    }
    assert!(names_a_moment(&format!("at 20{}T10", "26-11-23")));
}

/// Returns whether a line holds a date of this century with a time of day: `20YY-MM-DDT`.
fn names_a_moment(line: &str) -> bool {
    let matches = |text: &[u8]| {
        let form = b"20##-##-##T";
        form.iter().zip(text).all(|(form, c)| if *form == b'#' { c.is_ascii_digit() } else { form == c })
    };
    line.as_bytes().windows(11).any(matches)
}

#[test]
fn the_page_of_the_architecture_has_the_drawing_of_the_machine_and_names_each_room() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md")).unwrap();
    let state = std::fs::read_to_string(src().join("subscription/state.rs")).unwrap();
    let drawing: Vec<_> = state.lines().skip_while(|line| *line != "//! ```text").skip(1).collect();
    let drawing: Vec<_> = drawing.iter().take_while(|line| **line != "//! ```").map(|line| &line[3..]).collect();
    assert!(drawing.len() > 5, "the drawing was not found");
    for line in drawing {
        let line = line.strip_prefix(' ').unwrap_or(line);
        assert!(page.lines().any(|other| other == line), "{line:?} is not in the page: draw the machine there too");
    }
    for room in ORDER {
        assert!(page.contains(room), "{room} is not in the page");
    }
}

/// Words that open a sentence and leave out its subject.
const WITHOUT_SUBJECT: [&str; 12] =
    ["What", "Whose", "Who", "Whoever", "Where", "Whether", "How", "It", "They", "That", "Those", "One"];

/// Returns the first line of each doc comment, with its number.
fn openings(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let doc = |line: &str| ["///", "//!"].into_iter().find(|mark| line.trim_start().starts_with(mark));
    let mut before = None;
    text.lines().enumerate().filter_map(move |(at, line)| {
        let mark = doc(line);
        let is_first = mark.is_some() && mark != before;
        before = mark;
        is_first.then(|| (at + 1, line.trim_start()[3..].trim()))
    })
}

fn has_no_subject(opening: &str) -> bool {
    let first = opening.split_whitespace().next().unwrap_or_default().trim_matches(|c: char| !c.is_alphabetic());
    WITHOUT_SUBJECT.contains(&first.trim_end_matches("'s"))
}

#[test]
fn at_most_3_percent_of_the_doc_comments_open_without_a_subject() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for dir in ["cli", "examples", "src", "testing/benches", "testing/src", "tests"].map(|dir| root.join(dir)) {
        let (mut all, mut found) = (0, Vec::new());
        for file in sources(&dir) {
            for (line, opening) in openings(&std::fs::read_to_string(&file).unwrap()) {
                all += 1;
                if has_no_subject(opening) {
                    found.push(format!("{}:{line}: {opening}", file.display()));
                }
            }
        }
        assert!(all > 100, "only {all} doc comments were found");
        assert!(100 * found.len() <= 3 * all, "{} of {all}: name the subject\n{}", found.len(), found.join("\n"));
    }

    let text =
        "//! What it is.\n\n    /// Returns it.\n    /// That is all.\n    fn a() {}\n/// (One of two.)\n// How.";
    let found: Vec<_> = openings(text).filter(|(_, opening)| has_no_subject(opening)).map(|(line, _)| line).collect();
    assert_eq!(found, [1, 6]);
}
