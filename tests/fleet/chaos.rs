//! Short runs of the example `chaos`: a fleet of processes under a schedule of faults, and its checker.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use mcp_courier_testing::examples;

/// The schedule is the same each time, unless another is asked for.
const SEED: &str = "7";

fn chaos(args: &[&str]) -> Output {
    let output = Command::new(examples::chaos()).args(args).stdin(Stdio::null()).output().unwrap();
    // Past the capture of `cargo test`: its seed and figures are to be seen. (For nextest see .config/nextest.toml.)
    std::io::stdout().write_all(&[&output.stdout[..], &output.stderr].concat()).unwrap();
    output
}

fn holds(waiting: &str) {
    let seed = std::env::var("CHAOS_SEED").unwrap_or_else(|_| SEED.to_owned());
    let sizes = ["--seconds", "15", "--clients", "8", "--drain", "60"];
    let output = chaos(&[&sizes[..], &["--waiting", waiting, "--seed", &seed]].concat());
    assert!(output.status.success(), "chaos with seed {seed}, {waiting} waiting");
}

#[test]
fn g1_g2_g3_whatever_dies_all_that_was_pushed_arrives_in_order() {
    holds("dedicated");
}

#[test]
fn g1_g2_g3_whatever_dies_all_that_was_pushed_arrives_in_order_over_shared_connections() {
    holds("shared");
}

#[test]
fn g1_g2_g3_whatever_dies_sessions_that_move_between_both_ways_of_waiting_get_all_in_order() {
    holds("both");
}

#[test]
fn its_checker_finds_what_a_delivery_that_may_lose_has_lost() {
    let dir = tempfile::tempdir().unwrap();
    let keep = ["--keep", dir.path().to_str().unwrap()];
    let busy = ["--seconds", "8", "--every", "100", "--rate", "150", "--clients", "6", "--seed", "5", "--drain", "60"];
    let output = chaos(&[&busy[..], &keep, &["--at-most-once"]].concat());
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("lost: client-"));
}

/// Runs many kills without the event ids, and has the checker find what comes twice.
fn finds_repeats_without_ids_in(place: &str) {
    let dir = tempfile::tempdir().unwrap();
    let keep = ["--keep", dir.path().to_str().unwrap(), "--leave-out-ids", place];
    let kills = ["--kill-every", "300", "--seconds", "10", "--rate", "1000", "--clients", "4", "--seed", "5"];
    let output = chaos(&[&kills[..], &keep, &["--drain", "60", "--without-last-event-id", "0"]].concat());
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("came twice: client-"));
    // Nothing else is wrong.
    assert!(!said.contains("lost: client-") && !said.contains("out of order"));
}

#[test]
fn g3_its_checker_finds_what_comes_twice_where_clients_do_not_send_the_id() {
    finds_repeats_without_ids_in("header");
}

#[test]
fn g3_its_checker_finds_what_comes_twice_where_events_have_no_ids() {
    finds_repeats_without_ids_in("events");
}

#[test]
fn g3_nothing_comes_twice_to_clients_that_send_the_id_while_servers_are_killed() {
    let kills = ["--kill-every", "300", "--seconds", "10", "--rate", "1000", "--clients", "4", "--seed", "5"];
    let output = chaos(&[&kills[..], &["--drain", "60", "--without-last-event-id", "0"]].concat());
    assert!(output.status.success());
}
