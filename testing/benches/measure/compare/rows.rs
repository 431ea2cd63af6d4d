//! Rows of the comparison: what is done to each side, and how the figures of several rounds are shown.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use super::side::{Kind, Running};
use crate::support::figures::{Bench, per_mille, spread};

type Given = Result<Vec<f64>, Kind>;

/// Row of the table.
pub(crate) struct Row {
    pub(crate) name: String,
    /// Does it once, and returns the figures.
    pub(crate) does: Box<dyn Fn(&Running) -> Given>,
    /// Returns the figures of several rounds as text.
    pub(crate) shown: fn(&[Vec<f64>]) -> String,
}

/// Returns all rows.
pub(crate) fn rows(bench: &Bench, sessions: &[usize]) -> Vec<Row> {
    let row = |name: &str, does: Box<dyn Fn(&Running) -> Given>, shown| Row { name: name.to_owned(), does, shown };
    let mut rows = vec![
        row("5 notifications, the first send fails once: delivered", Box::new(order), |given| {
            let texts = given.iter().map(|got| got.iter().map(f64::to_string).collect::<Vec<_>>().join(" "));
            texts.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(", ")
        }),
        row("20 pushed, subscriber stopped and started while sending: lost", Box::new(restarts), |given| {
            column(given, 0)
        }),
        row(
            "300 pushed, server killed with SIGKILL 5 times while sending: missing 5 s later",
            Box::new(kills),
            |given| format!("{} ({} came twice)", column(given, 0), column(given, 1)),
        ),
        row(
            "time to live 2 s, one push a second; half a second after the fifth, a subscriber starts: delivered",
            Box::new(|side| Ok(vec![side.figure(&["expire"], "sent")?])),
            |given| column(given, 0),
        ),
        row("session moved to another process, old subscriber still alive, 20 pushed", Box::new(moved), |given| {
            format!("old {}, new {}", column(given, 0), column(given, 1))
        }),
    ];
    for count in sessions {
        let count = count.to_string();
        let name = format!("{count} sessions in one process, and from there one push to each");
        let does = move |side: &Running| {
            let said = side.run(&["many", &count])?;
            Ok(vec![said["pushed"].as_f64().ok_or(Kind::Failed)?, said["came"].as_f64().ok_or(Kind::Failed)?])
        };
        rows.push(row(&name, Box::new(does), |given| {
            format!("{} pushed, {} delivered", column(given, 0), column(given, 1))
        }));
    }
    let backlog = bench.count(10_000).to_string();
    let name = format!("one queue, backlog of {backlog} drained: messages a second");
    let does = move |side: &Running| Ok(vec![side.figure(&["drain", &backlog], "rate")?]);
    rows.push(row(&name, Box::new(does), |given| column(given, 0)));
    for (queues, count) in [("1", 20_000), ("1000", 5000)] {
        let count = bench.count(count).to_string();
        let name = format!("{queues} queues, {count} messages from push to handled in one process: messages a second");
        let does = move |side: &Running| Ok(vec![side.figure(&["through", &count, queues], "rate")?]);
        rows.push(row(&name, Box::new(does), |given| column(given, 0)));
    }
    let paced = bench.count(500).to_string();
    rows.push(row(
        "push to deliver at 100 a second: p50, p99 in ms",
        Box::new(move |side| pace(side, &paced)),
        |given| format!("{}, {}", column(given, 0), column(given, 1)),
    ));
    rows
}

/// Returns one figure of each round as text.
fn column(given: &[Vec<f64>], number: usize) -> String {
    spread(given.iter().map(|figures| figures[number]))
}

fn order(side: &Running) -> Given {
    let file = side.file("session");
    side.run(&["push", "5", "--from", "1"])?;
    let _server = side.serve(&file, &["--fail-first"])?;
    Ok(settled(&file, 5, Duration::from_secs(5)).into_iter().map(|n| n as f64).collect())
}

fn restarts(side: &Running) -> Given {
    Ok(vec![20.0 - side.figure(&["restart", "20"], "sent")?])
}

fn kills(side: &Running) -> Given {
    let file = side.file("session");
    side.run(&["push", "300"])?;
    for round in 1..=5 {
        let _server = side.serve(&file, &["--takes", "1"])?;
        let before = read(&file).len();
        until(Duration::from_secs(5), || read(&file).len() >= 30 * round);
        // Nothing comes any more: what was pushed is lost, or held back for a time.
        if read(&file).len() == before {
            break;
        }
    }
    let _server = side.serve(&file, &["--takes", "1"])?;
    let got = settled(&file, 300, Duration::from_secs(5));
    let different = got.iter().collect::<BTreeSet<_>>().len();
    Ok(vec![(300 - different) as f64, (got.len() - different) as f64])
}

fn moved(side: &Running) -> Given {
    let (old_file, new_file) = (side.file("old"), side.file("new"));
    let _old = side.serve(&old_file, &[])?;
    side.run(&["push", "5"])?;
    let before = settled(&old_file, 5, Duration::from_secs(10)).len();
    let _new = side.serve(&new_file, &[])?;
    std::thread::sleep(Duration::from_millis(500));
    side.run(&["push", "20", "--pace", "10", "--from", "100"])?;
    until(Duration::from_secs(5), || read(&old_file).len() - before + read(&new_file).len() >= 20);
    Ok(vec![(read(&old_file).len() - before) as f64, read(&new_file).len() as f64])
}

fn pace(side: &Running, count: &str) -> Given {
    let file = side.file("session");
    let _server = side.serve(&file, &[])?;
    std::thread::sleep(Duration::from_millis(500));
    side.run(&["push", count, "--pace", "10"])?;
    settled(&file, count.parse().unwrap(), Duration::from_secs(10));
    let mut took: Vec<f64> = read(&file).into_iter().map(|(_, took)| took as f64 / 1e6).collect();
    took.sort_by(f64::total_cmp);
    if took.is_empty() { Err(Kind::Failed) } else { Ok(vec![per_mille(&took, 500), per_mille(&took, 990)]) }
}

/// Returns what a session wrote: numbers, in order, and how long each took from its push, in nanoseconds.
fn read(file: &Path) -> Vec<(usize, u64)> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    // A line that is being written is read the next time.
    let lines = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
    lines
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let number = words.next()?.parse().ok()?;
            let pushed: u64 = words.next()?.parse().ok()?;
            let came: u64 = words.next()?.parse().ok()?;
            Some((number, came.saturating_sub(pushed)))
        })
        .collect()
}

/// Returns the numbers that a session got, when it has so many different ones, or nothing more came for so long.
fn settled(file: &Path, count: usize, patience: Duration) -> Vec<usize> {
    let numbers = || read(file).into_iter().map(|(number, _)| number).collect::<Vec<_>>();
    until(patience, || numbers().into_iter().collect::<BTreeSet<_>>().len() >= count);
    numbers()
}

fn until(patience: Duration, mut reached: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !reached() && begun.elapsed() < patience {
        std::thread::sleep(Duration::from_millis(2));
    }
}
