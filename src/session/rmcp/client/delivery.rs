//! [`Delivery`]: state machine of the messages that a client was handed and has not confirmed. No I/O, no clock.

use std::collections::VecDeque;

/// State of the deliveries to one client.
///
/// ```text
///            handed_over                 confirm
///    Idle ────────────────► Sending ─────────────────► Confirming ◄─┐ handed_over,
///     ▲ ▲                    │   ▲                      │  │  │  └──┘ confirm, ping
///     │ │                    │   └── answered, with ────┘  │  │
///     │ │                    │       messages behind       │  │
///     │ └────────────────────┼─── answered, with none ─────┘  │
///     │                      │ break_off                      │ break_off
///     │  all notified        ▼                                │
///     └──────────────────── Broken ◄──────────────────────────┘
/// ```
///
/// All messages in `Sending` and `Confirming` went down one stream. Confirmations are cumulative: the answer to a ping
/// confirms everything that was handed over before that ping.
///
/// The end of the stream, and a newer stream, break all of it off: the client may have received any part. In `Broken`
/// no further message goes down any stream until each caller has got the failure. Otherwise later messages would
/// overtake the unconfirmed ones.
///
/// `W` is the type of those who wait for a confirmation.
#[derive(Debug)]
pub(super) enum Delivery<W> {
    /// Every message that was handed over is confirmed.
    Idle,
    /// Messages were handed over, and no confirmation is awaited.
    Sending {
        /// Number of the stream that got the messages.
        stream: u64,
    },
    /// Confirmations are awaited.
    Confirming {
        /// Number of the stream that got the messages and the pings.
        stream: u64,
        /// Awaited confirmations, the oldest first.
        awaited: VecDeque<Awaited<W>>,
        /// Set where messages were handed over after the newest of these confirmations was asked for.
        behind: bool,
    },
    /// The stream was lost before its messages were confirmed.
    Broken {
        why: Break,
        /// First pings of the confirmations whose callers have not returned yet.
        untold: Vec<u128>,
        /// Set where messages were handed over for which nobody has asked a confirmation yet. The next call then fails.
        behind: bool,
    },
}

/// Awaited confirmation.
#[derive(Debug)]
pub(super) struct Awaited<W> {
    /// Nonces of the pings that were sent for it. The first one names the confirmation.
    pings: Vec<u128>,
    /// Sender of the outcome to the caller.
    waiter: W,
}

/// Reason why a stream is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Break {
    /// The client has opened a newer stream, so this one may be dead.
    Superseded,
    /// The stream has ended.
    Ended,
    /// The client does not read its stream.
    Unread,
    /// The client answers no ping.
    Unanswered,
}

impl Break {
    /// Returns the cause of the break, for the log.
    pub(super) fn cause(self) -> &'static str {
        match self {
            Self::Superseded => "the client has a newer stream",
            Self::Ended => "the client or the server has ended it",
            Self::Unread => "the client does not read it",
            Self::Unanswered => "the client answers no ping",
        }
    }
}

impl<W> Delivery<W> {
    /// Returns the stream that got the unconfirmed messages.
    pub(super) fn stream(&self) -> Option<u64> {
        match self {
            Self::Sending { stream } | Self::Confirming { stream, .. } => Some(*stream),
            Self::Idle | Self::Broken { .. } => None,
        }
    }

    /// Allows the next message, or returns the reason for which earlier messages are lost.
    pub(super) fn admit(&mut self) -> Result<(), Break> {
        match self {
            Self::Broken { why, behind, .. } => {
                let why = *why;
                *behind = false;
                self.settle();
                Err(why)
            }
            _ => Ok(()),
        }
    }

    /// Notes that a message went down a stream. While messages are unconfirmed, this is the stream that
    /// [`stream`](Self::stream) returns.
    pub(super) fn handed_over(&mut self, stream: u64) {
        match self {
            Self::Confirming { behind, .. } => *behind = true,
            _ => *self = Self::Sending { stream },
        }
    }

    /// Begins to await a confirmation of everything that was handed over. Returns the stream for the ping. After an
    /// error nothing is awaited.
    pub(super) fn confirm(&mut self, ping: u128, waiter: W) -> Result<u64, Break> {
        self.admit()?;
        let next = Awaited { pings: vec![ping], waiter };
        match self {
            Self::Sending { stream } => {
                let stream = *stream;
                *self = Self::Confirming { stream, awaited: VecDeque::from([next]), behind: false };
                Ok(stream)
            }
            Self::Confirming { stream, awaited, behind } => {
                *behind = false;
                awaited.push_back(next);
                Ok(*stream)
            }
            // Nothing was handed over, or its caller has got the failure already.
            Self::Idle | Self::Broken { .. } => Err(Break::Ended),
        }
    }

    /// Adds one more ping to a confirmation. Returns the stream for the ping, or `None` where the confirmation is no
    /// longer awaited.
    pub(super) fn ping_again(&mut self, first: u128, ping: u128) -> Option<u64> {
        let Self::Confirming { stream, awaited, .. } = self else { return None };
        let again = awaited.iter_mut().find(|awaited| awaited.pings[0] == first)?;
        again.pings.push(ping);
        Some(*stream)
    }

    /// Takes the answer to a ping. Returns those who waited for this confirmation and for earlier ones. The answer to
    /// any other ping confirms nothing, be it late, repeated or invented.
    pub(super) fn answered(&mut self, ping: u128) -> Vec<W> {
        let Self::Confirming { awaited, .. } = self else { return Vec::new() };
        let Some(at) = awaited.iter().position(|awaited| awaited.pings.contains(&ping)) else { return Vec::new() };
        let confirmed = awaited.drain(..=at).map(|awaited| awaited.waiter).collect();
        self.settle();
        confirmed
    }

    /// Removes the confirmation whose first ping this was: its caller has returned, or is gone.
    pub(super) fn forget(&mut self, first: u128) {
        match self {
            Self::Confirming { awaited, .. } => awaited.retain(|awaited| awaited.pings[0] != first),
            Self::Broken { untold, .. } => untold.retain(|untold| *untold != first),
            Self::Idle | Self::Sending { .. } => {}
        }
        self.settle();
    }

    /// Gives up all unconfirmed messages. Returns those who waited for their confirmation.
    pub(super) fn break_off(&mut self, why: Break) -> Vec<W> {
        let (awaited, behind) = match std::mem::replace(self, Self::Idle) {
            Self::Sending { .. } => (VecDeque::new(), true),
            Self::Confirming { awaited, behind, .. } => (awaited, behind),
            unchanged @ (Self::Idle | Self::Broken { .. }) => {
                *self = unchanged;
                return Vec::new();
            }
        };
        let (untold, waiters) = awaited.into_iter().map(|awaited| (awaited.pings[0], awaited.waiter)).unzip();
        *self = Self::Broken { why, untold, behind };
        waiters
    }

    /// Leaves a state in which nothing is awaited any more.
    fn settle(&mut self) {
        match self {
            Self::Confirming { stream, awaited, behind } if awaited.is_empty() => {
                *self = if *behind { Self::Sending { stream: *stream } } else { Self::Idle };
            }
            Self::Broken { untold, behind: false, .. } if untold.is_empty() => *self = Self::Idle,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
