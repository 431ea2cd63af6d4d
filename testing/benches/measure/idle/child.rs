//! Measurements of idle sessions, each in a process of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use mcp_courier::Courier;
use mcp_courier_testing::process::Process;
use redis::aio::MultiplexedConnection;

use crate::support::bare;
use crate::support::courier::{self, Mode};
use crate::support::messages::{lease_of, message, queue_of, session};
use crate::support::sessions::Counter;

/// Heartbeat where renewals are measured: longer than the start of 100,000 sessions, and shorter than an answer's time-out.
const HEARTBEAT: Duration = Duration::from_secs(3);

/// Measurement of this process.
#[derive(Debug, Subcommand)]
pub(crate) enum Child {
    /// Starts sessions and lets them rest.
    Rest(Case),
    /// Keeps Redis from taking renewals until all are due, and measures until all are done.
    Renew(Case),
}

#[derive(Debug, Args)]
pub(crate) struct Case {
    mode: String,
    sessions: usize,
    redis: String,
}

impl Child {
    /// Measures, and prints the figures by name.
    pub(crate) fn run(self) {
        let figures = actix::System::new().block_on(async {
            match self {
                Self::Rest(case) => case.rest().await,
                Self::Renew(case) => BTreeMap::from([("renew", case.renew().await)]),
            }
        });
        println!("{}", serde_json::to_string(&figures).unwrap());
    }
}

impl Case {
    fn mode(&self) -> Mode {
        Mode::BOTH.into_iter().find(|mode| mode.name() == self.mode).unwrap()
    }

    async fn rest(&self) -> BTreeMap<&'static str, f64> {
        let courier = courier::start(&self.redis, self.mode()).await;
        let mut observer = bare::connect(&self.redis).await;
        let (process, counter) = (Process::this(), Counter::new());
        let before = process.resident() as f64;
        let kib = |bytes: u64| (bytes as f64 - before) / 1024.0 / self.sessions.max(1) as f64;
        let start = self.start(&courier, &counter, &mut observer).await;
        let mut figures = BTreeMap::from([
            ("start", start),
            ("idle", kib(process.resident())),
            ("threads", process.threads() as f64),
            // Without the observer's, and that of the directory.
            ("descriptors", process.descriptors() as f64 - 2.0),
            ("connections", info(&mut observer, "clients", "connected_clients").await - 1.0),
        ]);
        for from in (0..self.sessions).step_by(1000) {
            let mut pipe = redis::pipe();
            for number in from..self.sessions.min(from + 1000) {
                pipe.lpush(queue_of(&session(number)), message(300)).ignore();
            }
            let () = pipe.query_async(&mut observer).await.unwrap();
        }
        counter.until(self.sessions).await;
        until_quiet(&mut observer).await;
        figures.extend([("used", kib(process.resident())), ("most", kib(process.most_resident()))]);
        let begun = Instant::now();
        courier::stop(courier).await;
        figures.insert("stop", begun.elapsed().as_secs_f64());
        assert_eq!(self.leases(&mut observer).await.iter().filter(|life| **life > 0).count(), 0, "leases are left");
        if self.sessions == 0 {
            figures.retain(|name, _| !["start", "stop"].contains(name));
        }
        figures
    }

    async fn renew(&self) -> f64 {
        let config = self.mode().settings().heartbeat(HEARTBEAT).build().unwrap();
        let courier = Courier::start(&self.redis, config).await.unwrap();
        let mut observer = bare::connect(&self.redis).await;
        for number in 0..self.sessions {
            courier.ensure_subscriber(&session(number), Counter::new()).await.unwrap();
        }
        // All are claimed, and some have been renewed. From here on none is renewed for longer than a heartbeat.
        while self.leases(&mut observer).await.iter().any(|life| *life <= 0) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let pause = HEARTBEAT + Duration::from_millis(200);
        let pause_ms = u64::try_from(pause.as_millis()).unwrap();
        let () = redis::cmd("CLIENT").arg("PAUSE").arg(pause_ms).arg("WRITE").query_async(&mut observer).await.unwrap();
        let paused = Instant::now();
        tokio::time::sleep(pause).await;
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let lives = self.leases(&mut observer).await;
            let since_pause = (paused.elapsed() - pause).as_secs_f64();
            // How long ago each was renewed.
            let ages: Vec<f64> =
                lives.iter().map(|life| 2.0 * HEARTBEAT.as_secs_f64() - *life as f64 / 1000.0).collect();
            if ages.iter().all(|age| *age <= since_pause) {
                courier::stop(courier).await;
                return since_pause - ages.into_iter().fold(f64::INFINITY, f64::min);
            }
        }
    }

    /// Starts all sessions, and returns how long until they rested, in seconds.
    async fn start(&self, courier: &Courier, counter: &Arc<Counter>, observer: &mut MultiplexedConnection) -> f64 {
        let begun = Instant::now();
        for number in 0..self.sessions {
            courier.ensure_subscriber(&session(number), counter.clone()).await.unwrap();
        }
        until_quiet(observer).await.duration_since(begun).as_secs_f64()
    }

    /// Returns the lives of all leases, in milliseconds.
    async fn leases(&self, observer: &mut MultiplexedConnection) -> Vec<i64> {
        let mut lives = Vec::new();
        for from in (0..self.sessions).step_by(10_000) {
            let mut pipe = redis::pipe();
            for number in from..self.sessions.min(from + 10_000) {
                pipe.pttl(lease_of(&session(number)));
            }
            lives.extend(pipe.query_async::<Vec<i64>>(observer).await.unwrap());
        }
        lives
    }
}

/// Waits until nothing but the observer has sent a command for a while, and returns when the last other command was seen.
async fn until_quiet(observer: &mut MultiplexedConnection) -> Instant {
    let (mut commands, mut last) = (0.0, Instant::now());
    while last.elapsed() < Duration::from_millis(300) {
        let now = info(observer, "stats", "total_commands_processed").await;
        // One of them is the observer's.
        if now > commands + 1.0 {
            last = Instant::now();
        }
        commands = now;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    last
}

async fn info(observer: &mut MultiplexedConnection, section: &str, field: &str) -> f64 {
    let info: String = redis::cmd("INFO").arg(section).query_async(observer).await.unwrap();
    let line = info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap().trim().parse().unwrap()
}
