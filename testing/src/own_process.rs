//! Tests that need a process of their own, as they count threads, descriptors or memory, or read the log, of their process.
//!
//! `cargo nextest` gives each test a process. `cargo test` runs the tests of a binary as threads of one process. There such
//! a test starts its binary again for itself alone, and passes where that process passes.

use std::process::{Command, Stdio};

/// Set in a process that runs one test.
const ALONE: &str = "MCP_COURIER_TEST_ALONE";

/// Returns from the test where its process runs other tests too, once a process of its own has run the test.
///
/// # Panics
/// Where the test fails in its own process.
#[macro_export]
macro_rules! in_own_process {
    () => {
        fn here() {}
        if !$crate::own_process::is_alone(::std::any::type_name_of_val(&here)) {
            return;
        }
    };
}

/// Returns whether this process runs one test. If not, runs the test that contains the item of this path in a process of its own.
///
/// # Panics
/// Where the test fails in its own process.
#[must_use]
pub fn is_alone(item: &str) -> bool {
    if std::env::var_os(ALONE).is_some() || std::env::var_os("NEXTEST").is_some() {
        return true;
    }
    // The path begins with the name of the binary, and ends with the item and the closures around it.
    let (_, path) = item.split_once("::").expect("a path in a crate");
    let test = path.trim_end_matches("::here").replace("::{{closure}}", "");
    let program = std::env::current_exe().expect("the binary of the tests");
    let output = Command::new(program)
        .args([&test, "--exact", "--include-ignored", "--nocapture"])
        .env(ALONE, "1")
        .stdin(Stdio::null())
        .output()
        .expect("the binary of the tests runs");
    let shown = [String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)].concat();
    print!("{shown}");
    assert!(output.status.success(), "{test} failed in its own process");
    // A name that is not found is no failure for the binary.
    assert!(shown.contains("1 passed"), "{test} is not the name of a test");
    false
}
