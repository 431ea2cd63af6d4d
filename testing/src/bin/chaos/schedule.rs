//! The schedule of faults: made of the seed and the sizes alone.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use crate::{Chaos, LEASE};

/// Something of the fleet that a fault is done to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Part {
    Redis,
    Server(usize),
    Worker(usize),
    Client(usize),
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Redis => f.write_str("redis"),
            Self::Server(n) => write!(f, "server-{n}"),
            Self::Worker(n) => write!(f, "worker-{n}"),
            Self::Client(n) => write!(f, "client-{n}"),
        }
    }
}

/// Kind of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// SIGKILL, and a new one later. A client goes on with its session, a worker's successor begins anew, and Redis has
    /// what it had written to its disk.
    Kill,
    /// SIGTERM, and a new one later.
    Terminate,
    /// SIGSTOP and SIGCONT, a server's past its lease. Its clients' new connections go elsewhere.
    Stop,
    /// The connections of the target end: a client's to its server, a server's or worker's to Redis.
    Cut,
    /// Nothing passes on its connections; nothing ends.
    Silence,
    /// Each piece on its connections comes later.
    Slow,
    /// Ends a client's connections. The client continues at the next server.
    Move,
    /// CLIENT KILL of all.
    KillClients,
    /// CLIENT PAUSE.
    PauseClients,
    /// SCRIPT FLUSH.
    FlushScripts,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kill => "SIGKILL",
            Self::Terminate => "SIGTERM",
            Self::Stop => "SIGSTOP",
            Self::Cut => "cut",
            Self::Silence => "silence",
            Self::Slow => "slow",
            Self::Move => "move",
            Self::KillClients => "CLIENT KILL",
            Self::PauseClients => "CLIENT PAUSE",
            Self::FlushScripts => "SCRIPT FLUSH",
        })
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Fault {
    pub(crate) at: Duration,
    pub(crate) part: Part,
    pub(crate) kind: Kind,
    /// Time until the fault is healed.
    pub(crate) lasts: Duration,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, part, kind, lasts } = self;
        write!(f, "{:8.3} {part} {kind} for {} ms", at.as_secs_f64(), lasts.as_millis())
    }
}

/// Weight of each kind of fault, and its shortest and longest duration, in milliseconds.
const SERVER: &[(Kind, u32, u64, u64)] = &[
    (Kind::Kill, 4, 100, 1500),
    (Kind::Terminate, 3, 100, 1500),
    (Kind::Stop, 3, LEASE.as_millis() as u64 + 200, LEASE.as_millis() as u64 + 2000),
    (Kind::Cut, 2, 0, 1),
    (Kind::Silence, 2, 200, 3000),
    (Kind::Slow, 1, 500, 3000),
];
const WORKER: &[(Kind, u32, u64, u64)] = &[(Kind::Kill, 2, 50, 500), (Kind::Cut, 1, 0, 1)];
const CLIENT: &[(Kind, u32, u64, u64)] =
    &[(Kind::Kill, 3, 50, 1000), (Kind::Cut, 2, 0, 1), (Kind::Move, 3, 0, 1), (Kind::Silence, 2, 200, 3000)];
const REDIS: &[(Kind, u32, u64, u64)] = &[
    (Kind::KillClients, 1, 0, 1),
    (Kind::PauseClients, 1, 100, 1500),
    (Kind::FlushScripts, 1, 0, 1),
    (Kind::Stop, 1, 100, 2000),
    (Kind::Kill, 1, 100, 1000),
];

/// Time that a server which was killed stays away, where nothing else is done.
const AWAY: Duration = Duration::from_millis(500);

pub(crate) fn schedule(seed: u64, chaos: &Chaos) -> Vec<Fault> {
    if let Some(every) = chaos.kill_every {
        return kills(Duration::from_millis(every), chaos);
    }
    let mut random = fastrand::Rng::with_seed(seed);
    let mut busy: HashMap<Part, Duration> = HashMap::new();
    let mut faults = Vec::new();
    let (mut at, end) = (Duration::from_millis(500), Duration::from_secs(chaos.seconds));
    let pick = |random: &mut fastrand::Rng, of: u16| random.usize(..usize::from(of));
    while at < end {
        let (part, kinds) = match random.u8(..10) {
            0..4 => (Part::Server(pick(&mut random, chaos.servers)), SERVER),
            4 => (Part::Worker(pick(&mut random, chaos.workers)), WORKER),
            5..8 => (Part::Client(pick(&mut random, chaos.clients)), CLIENT),
            _ => (Part::Redis, REDIS),
        };
        let mut drawn = random.u32(..kinds.iter().map(|(_, weight, ..)| weight).sum::<u32>());
        for (kind, weight, least, most) in kinds {
            if drawn >= *weight {
                drawn -= weight;
                continue;
            }
            let lasts = Duration::from_millis(random.u64(*least..=*most));
            // One thing at a time to one part; and where there are several servers, one of them is left alone.
            let servers = busy.iter().filter(|(part, until)| matches!(part, Part::Server(_)) && **until > at).count();
            let crowded = matches!(part, Part::Server(_)) && servers + 1 >= usize::from(chaos.servers.max(2));
            if busy.get(&part).is_none_or(|until| *until <= at) && !crowded {
                // A process takes its time to start.
                busy.insert(part, at + lasts + Duration::from_millis(500));
                faults.push(Fault { at, part, kind: *kind, lasts });
            }
            break;
        }
        at += Duration::from_millis(random.u64(1..=2 * chaos.every));
    }
    faults
}

/// Kills the servers one after the other.
fn kills(every: Duration, chaos: &Chaos) -> Vec<Fault> {
    let times = (1..).map(|n| every * n).take_while(|at| *at < Duration::from_secs(chaos.seconds));
    let servers = (0..usize::from(chaos.servers)).cycle();
    times.zip(servers).map(|(at, n)| Fault { at, part: Part::Server(n), kind: Kind::Kill, lasts: AWAY }).collect()
}
