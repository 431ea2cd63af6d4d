//! A short run of the example `chaos`: a fleet of processes under faults, and its checker.

use std::process::{Command, Stdio};

#[path = "support/chat_process.rs"]
mod chat_process;

use chat_process::example;

/// The schedule is the same each time, unless another is asked for.
const SEED: &str = "7";

#[test]
fn g1_g2_g3_whatever_dies_all_that_was_pushed_arrives_in_order() {
    let seed = std::env::var("CHAOS_SEED").unwrap_or_else(|_| SEED.to_owned());
    let args = ["--seconds", "15", "--clients", "8", "--drain", "60", "--seed", &seed];
    let output = Command::new(example("chaos")).args(args).stdin(Stdio::null()).output().unwrap();
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    // Seen with `cargo test -- --nocapture`, `cargo nextest run --no-capture`, and after a failure.
    println!("{said}{complained}");
    assert!(output.status.success(), "chaos with seed {seed}");
}
