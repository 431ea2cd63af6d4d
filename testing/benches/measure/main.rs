//! Measurements of this crate beside alternatives, a table each: `cargo bench -p mcp-courier-testing -- drain --quick`.
//!
//! `scripts/benchmark` runs them and writes the tables into docs/performance.md.

mod compare;
mod drain;
mod http;
mod idle;
mod isolation;
mod latency;
#[cfg(feature = "metrics")]
mod metered;
mod push;
#[cfg(feature = "seal")]
mod seal;
mod streams;
mod support;
#[cfg(any(feature = "metrics", feature = "opentelemetry"))]
mod switched;
mod throughput;
#[cfg(feature = "opentelemetry")]
mod traced;
mod web;

use clap::{Parser, Subcommand};
use mcp_courier::Cause;

use support::figures::Bench;

#[derive(Debug, Parser)]
struct Line {
    #[command(subcommand)]
    table: Table,
}

#[derive(Debug, Subcommand)]
enum Table {
    /// Draining of a full queue.
    Drain(Bench),
    /// Time from a push to the delivery.
    Latency(Bench),
    /// Messages a second from the first push to the last delivery.
    Throughput(Bench),
    /// Neighbours of a session that drains.
    Isolation(Bench),
    /// Pushes.
    Push(Bench),
    /// Sealed payloads.
    #[cfg(feature = "seal")]
    Seal(Bench),
    /// Idle sessions.
    Idle(Bench),
    /// Notifications over HTTP.
    Http(Bench),
    /// Many open streams.
    Streams(Bench),
    /// Recorded spans, beside disabled ones.
    #[cfg(feature = "opentelemetry")]
    Traced(Bench),
    /// Metrics that Prometheus' recorder takes, beside metrics that nobody takes.
    #[cfg(feature = "metrics")]
    Metered(Bench),
    /// Other packages that bring messages through Redis.
    Compare(compare::Comparison),
    /// This crate's side of the comparison.
    #[command(hide = true)]
    Side(compare::OwnSide),
    /// Measurement of idle sessions in a process of its own.
    #[command(hide = true, subcommand)]
    IdlePart(idle::child::Child),
    /// Servers or clients of a measurement over HTTP, in a process of their own.
    #[command(hide = true, subcommand)]
    WebPart(web::Part),
}

fn main() -> Result<(), Cause> {
    match Line::parse().table {
        Table::Drain(bench) => drain::run(&bench),
        Table::Latency(bench) => latency::run(&bench),
        Table::Throughput(bench) => throughput::run(&bench),
        Table::Isolation(bench) => isolation::run(&bench),
        Table::Push(bench) => push::run(&bench),
        #[cfg(feature = "seal")]
        Table::Seal(bench) => seal::run(&bench),
        Table::Idle(bench) => idle::run(&bench),
        Table::Http(bench) => http::run(&bench),
        Table::Streams(bench) => streams::run(&bench),
        #[cfg(feature = "opentelemetry")]
        Table::Traced(bench) => traced::run(&bench),
        #[cfg(feature = "metrics")]
        Table::Metered(bench) => metered::run(&bench),
        Table::Compare(comparison) => return compare::run(comparison),
        Table::Side(side) => return side.run(),
        Table::IdlePart(child) => child.run(),
        Table::WebPart(part) => part.run(),
    }
    Ok(())
}
