//! [`Trace`]: the story of a run, for people.

use super::scheduler::Time;

/// Number of lines that are shown of a run that failed, where `SIMULATION_LINES` sets no other.
const SHOWN: usize = 250;

/// Lines that say when, who and what. Kept only on demand: a run that failed is run again with its trace.
#[derive(Default)]
pub(crate) struct Trace(Option<Vec<Line>>);

struct Line {
    at: Time,
    /// Session that the line is about; `None` where it is about all.
    session: Option<usize>,
    text: String,
}

impl Trace {
    pub(crate) fn kept() -> Self {
        Self(Some(Vec::new()))
    }

    pub(crate) fn is_kept(&self) -> bool {
        self.0.is_some()
    }

    pub(crate) fn add(&mut self, at: Time, session: Option<usize>, text: String) {
        if let Some(lines) = &mut self.0 {
            lines.push(Line { at, session, text });
        }
    }

    /// Returns all lines.
    pub(crate) fn whole(&self) -> Vec<String> {
        self.0.iter().flatten().map(|line| format!("{} {:?} {}", line.at, line.session, line.text)).collect()
    }

    /// Returns the last lines about one session, and about all.
    pub(crate) fn of(&self, session: Option<usize>) -> String {
        let is_shown = |line: &&Line| session.is_none() || line.session.is_none() || line.session == session;
        let lines: Vec<_> = self.0.iter().flatten().filter(is_shown).collect();
        let shown = std::env::var("SIMULATION_LINES").ok().and_then(|lines| lines.parse().ok()).unwrap_or(SHOWN);
        let from = lines.len().saturating_sub(shown);
        lines[from..].iter().map(|line| format!("{} {}\n", line.at, line.text)).collect()
    }
}

/// Adds a line to the trace of a world. Nothing is formatted where the trace is not kept.
macro_rules! trace {
    ($world:expr, $session:expr, $($text:tt)*) => {
        if $world.trace.is_kept() {
            let (at, text) = ($world.scheduler.now(), format!($($text)*));
            $world.trace.add(at, $session, text);
        }
    };
}

pub(crate) use trace;
