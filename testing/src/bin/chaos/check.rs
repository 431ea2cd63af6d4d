//! Checker: compares the records of the workers with those of the clients.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use mcp_courier::Cause;
use uuid::Uuid;

use crate::faults::Done;
use crate::schedule::Part;
use crate::{Chaos, WINDOW};

/// Outcome of a push, as its worker knows it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Outcome {
    Ok(Uuid),
    Refused,
    /// An error that says so, or a worker that was killed before it knew.
    Uncertain,
}

#[derive(Debug, Clone, Copy)]
struct Push {
    at: u64,
    outcome: Outcome,
}

#[derive(Debug)]
struct Got {
    at: u64,
    worker: String,
    n: usize,
    id: Uuid,
}

#[derive(Debug, Default)]
struct Client {
    got: Vec<Got>,
    /// When it opened a stream.
    opened: Vec<u64>,
    /// Number of answers that the session does not exist.
    sessions_lost: usize,
}

/// All pushes of one worker to one client; the first has number 1.
type Pushes = BTreeMap<(usize, String), Vec<Push>>;

#[derive(Debug, Default)]
pub(crate) struct Checked {
    pub(crate) pushed: usize,
    pub(crate) refused: usize,
    pub(crate) uncertain: usize,
    pub(crate) uncertain_delivered: usize,
    pub(crate) delivered: usize,
    /// Repeats at clients that send `Last-Event-ID`, and at the others.
    pub(crate) duplicates: [usize; 2],
    pub(crate) lost: usize,
    pub(crate) reordered: usize,
    pub(crate) streams: usize,
    pub(crate) discarded: BTreeMap<String, usize>,
    /// Times for which clients got no notification, by the kind of the fault before.
    pub(crate) gaps: BTreeMap<String, Vec<u64>>,
    pub(crate) violations: Vec<String>,
}

pub(crate) fn check(dir: &Path, chaos: &Chaos, faults: &[Done]) -> Result<Checked, Cause> {
    let mut checked = Checked::default();
    let (pushes, discarded) = read(dir, &mut checked)?;
    for client in 0..usize::from(chaos.clients) {
        let record = client_record(&dir.join(format!("client-{client}.record")))?;
        let felt: Vec<&Done> = faults.iter().filter(|done| done.clients.contains(&client)).collect();
        let again = checked.deliveries(client, &record, &pushes, &felt);
        checked.losses(client, &record, &pushes, &discarded, &felt);
        checked.repeats(client, &record, chaos.resumes(client), &again, &felt);
        checked.gaps(&record, &felt);
    }
    let outcomes = || pushes.values().flatten().map(|push| push.outcome);
    checked.pushed = outcomes().filter(|outcome| matches!(outcome, Outcome::Ok(_))).count();
    checked.refused = outcomes().filter(|outcome| *outcome == Outcome::Refused).count();
    checked.uncertain = outcomes().filter(|outcome| *outcome == Outcome::Uncertain).count();
    Ok(checked)
}

impl Checked {
    /// Checks what a client got against what was pushed. Returns the repeats.
    fn deliveries(&mut self, client: usize, record: &Client, pushes: &Pushes, felt: &[&Done]) -> Vec<String> {
        let (mut seen, mut last, mut again) = (HashSet::new(), HashMap::<&str, usize>::new(), Vec::new());
        for Got { at, worker, n, id } in &record.got {
            let push = pushes.get(&(client, worker.clone())).and_then(|all| all.get(n.checked_sub(1)?));
            let what = || format!("client-{client}: {worker} #{n} {id} {}", before(felt, *at));
            if !seen.insert(*id) {
                again.push(what());
                continue;
            }
            match push.map(|push| push.outcome) {
                Some(Outcome::Ok(pushed)) if pushed == *id => {
                    let last = last.entry(worker).or_default();
                    if *n < *last {
                        self.reordered += 1;
                        self.violations.push(format!("out of order, behind #{last}: {}", what()));
                    }
                    *last = (*last).max(*n);
                    self.delivered += 1;
                }
                Some(Outcome::Uncertain) => self.uncertain_delivered += 1,
                Some(Outcome::Refused) => self.violations.push(format!("refused, and delivered: {}", what())),
                _ => self.violations.push(format!("never pushed so: {}", what())),
            }
        }
        again
    }

    /// Finds what was pushed to a client with `Ok`, and neither came nor was discarded.
    fn losses(&mut self, client: usize, record: &Client, pushes: &Pushes, discarded: &HashSet<Uuid>, felt: &[&Done]) {
        let seen: HashSet<Uuid> = record.got.iter().map(|got| got.id).collect();
        for ((_, worker), all) in pushes.range((client, String::new())..(client + 1, String::new())) {
            for (n, push) in all.iter().enumerate() {
                if let Push { at, outcome: Outcome::Ok(id) } = push
                    && !seen.contains(id)
                    && !discarded.contains(id)
                {
                    self.lost += 1;
                    let fault = before(felt, *at);
                    self.violations.push(format!("lost: client-{client}: {worker} #{} {id} {fault}", n + 1));
                }
            }
        }
        if record.sessions_lost > 0 {
            self.violations.push(format!("client-{client}: its session was unknown {} times", record.sessions_lost));
        }
    }

    /// Checks the repeats at a client: a client that sends `Last-Event-ID` gets none, whatever is done; another one no
    /// more than a window for each stream and fault.
    fn repeats(&mut self, client: usize, record: &Client, resumes: bool, again: &[String], felt: &[&Done]) {
        self.duplicates[usize::from(!resumes)] += again.len();
        self.streams += record.opened.len();
        let most = WINDOW * (record.opened.len() + felt.len());
        if resumes {
            self.violations.extend(again.iter().map(|what| format!("came twice: {what}")));
        } else if again.len() > most {
            let repeats = again.len();
            self.violations.push(format!("client-{client}: {repeats} repeats, and at most {most} are explained"));
        }
    }

    /// Notes how long a client went without, by what was done.
    fn gaps(&mut self, record: &Client, felt: &[&Done]) {
        let times: Vec<u64> = record.got.iter().map(|got| got.at).collect();
        for done in felt {
            let what = match done.fault.part {
                Part::Redis => "Redis",
                Part::Server(_) => "server",
                Part::Worker(_) => "worker",
                Part::Client(_) => "client",
            };
            if let Some(gap) = gap(&times, done) {
                self.gaps.entry(format!("{what} {}", done.fault.kind)).or_default().push(gap);
            }
        }
    }
}

/// The longest time without a delivery that began before the end of a fault, and ended after its begin.
fn gap(times: &[u64], done: &Done) -> Option<u64> {
    let first = times.partition_point(|at| *at < done.begun).checked_sub(1)?;
    let pairs = times[first..].windows(2).take_while(|pair| pair[0] <= done.healed);
    // What was before the fault is not its doing.
    pairs.map(|pair| pair[1] - pair[0].max(done.begun)).max()
}

fn before(felt: &[&Done], at: u64) -> String {
    match felt.iter().rev().find(|done| done.begun <= at) {
        Some(done) => format!("at {at}, {} ms after: {}", (at - done.begun) / 1000, done.fault),
        None => format!("at {at}, before any fault that it felt"),
    }
}

/// All that the workers have pushed, and what the servers' logs say that they discarded.
fn read(dir: &Path, checked: &mut Checked) -> Result<(Pushes, HashSet<Uuid>), Cause> {
    let (mut pushes, mut discarded) = (Pushes::new(), HashSet::new());
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let extension = path.extension().unwrap_or_default();
        if name.starts_with("worker-") && extension == "record" {
            worker_record(&path, &name, &mut pushes)?;
        } else if extension == "log" {
            let log = std::fs::read(&path)?;
            let log = String::from_utf8_lossy(&log);
            let mut lines = log.lines();
            while let Some(line) = lines.next() {
                if let Some((_, rest)) = line.split_once("a notification is discarded") {
                    let reason = rest.split_once("reason=").map_or("unknown", |(_, reason)| reason);
                    *checked.discarded.entry(reason.to_owned()).or_default() += 1;
                    discarded.extend(rest.split('"').find_map(|word| Uuid::parse_str(word).ok()));
                } else if line.contains("panicked") {
                    // What it said is in the next line.
                    checked.violations.push(format!("{name}: {line} {}", lines.next().unwrap_or_default()));
                }
            }
        }
    }
    Ok((pushes, discarded))
}

fn worker_record(path: &Path, name: &str, pushes: &mut Pushes) -> Result<(), Cause> {
    for line in std::fs::read_to_string(path)?.lines() {
        let wrong = || format!("{}: {line:?}", path.display());
        let words: Vec<&str> = line.split(' ').collect();
        let [kind, at, client, n] = words.first_chunk().ok_or_else(wrong)?;
        let client = client.strip_prefix("client-").ok_or_else(wrong)?.parse()?;
        let (at, n): (u64, usize) = (at.parse()?, n.parse()?);
        let all = pushes.entry((client, name.to_owned())).or_default();
        if *kind == "T" {
            all.push(Push { at, outcome: Outcome::Uncertain });
        }
        let push = all.get_mut(n.checked_sub(1).ok_or_else(wrong)?).ok_or_else(wrong)?;
        push.outcome = match *kind {
            "T" | "U" => Outcome::Uncertain,
            "K" => Outcome::Ok(words.get(4).ok_or_else(wrong)?.parse()?),
            "R" => Outcome::Refused,
            _ => return Err(wrong().into()),
        };
    }
    Ok(())
}

fn client_record(path: &Path) -> Result<Client, Cause> {
    let mut client = Client::default();
    for line in std::fs::read_to_string(path)?.lines() {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["G", at, worker, n, id] => {
                let got = Got { at: at.parse()?, worker: worker.to_owned(), n: n.parse()?, id: id.parse()? };
                client.got.push(got);
            }
            ["O", at] => client.opened.push(at.parse()?),
            ["N", _] => client.sessions_lost += 1,
            ["S" | "E" | "I", ..] => {}
            _ => return Err(format!("{}: {line:?}", path.display()).into()),
        }
    }
    Ok(client)
}
