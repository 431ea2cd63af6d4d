//! [`Step`]: one call of a backend, or what a foreign hand does, in terms that mean the same in both worlds.

use fastrand::Rng;
use mcp_courier_testing::waiting;

/// Number of owners, sessions and tasks.
pub(crate) const OWNERS: usize = 3;
pub(crate) const SESSIONS: usize = 2;
pub(crate) const TASKS: usize = 2;

/// Calls that a schedule is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Queues,
    Outcomes,
    Questions,
    Sessions,
    Inspection,
    All,
    /// As `All`, with short lives and with time that passes.
    Time,
}

/// A session and one who owns its queue, or would.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct At {
    pub(crate) owner: usize,
    pub(crate) session: usize,
}

#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) session: usize,
    pub(crate) number: u32,
    pub(crate) size: Size,
    pub(crate) has_receipt: bool,
    /// Number of the deduplication key, if the message has one.
    pub(crate) key: Option<u8>,
    /// Number of the collapse key, if the message has one.
    pub(crate) collapse_key: Option<u8>,
    /// Index of the time to live, among those that the configuration of the kind has.
    pub(crate) life: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    Small,
    /// Two of these are more than one batch has.
    Large,
    /// More than a message may have.
    TooLarge,
}

#[derive(Debug, Clone)]
pub(crate) enum Raw {
    FastMcp(u32),
    Garbage(u32),
    Empty,
}

/// Fault of a mark or a count, if it has any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    OtherLength,
    OtherBytes,
    CountTooHigh,
    CountZero,
}

/// Acknowledgement of the oldest messages of a batch that the owner has read.
#[derive(Debug, Clone)]
pub(crate) struct Ack {
    /// Set where the step is about the batch before the last one.
    pub(crate) is_stale: bool,
    pub(crate) count: usize,
    pub(crate) fault: Fault,
    /// Bits of the messages: a set bit marks a discarded one.
    pub(crate) discarded: u8,
    pub(crate) questions: Vec<u32>,
}

/// Messages that a read passes over: the next ones of the batch, behind those that are acknowledged.
#[derive(Debug, Clone)]
pub(crate) struct PassedOver {
    pub(crate) count: usize,
    pub(crate) fault: Fault,
}

#[derive(Debug, Clone)]
pub(crate) enum Step {
    Push(Vec<Message>),
    PushRaw { session: usize, raw: Raw },
    DeleteQueue { session: usize },
    DeleteLease { session: usize },
    Flush,
    Reopen(At),
    Claim(At),
    Renew(At),
    ClaimIfAbsent(At),
    Release(At),
    Take { at: At, ack: Option<Ack>, behind: Option<PassedOver> },
    Wait(At),
    WaitForPush { at: At, message: Message },
    Replace { at: At, position: usize, fault: Fault },
    Record { session: usize, number: u32, is_discarded: bool },
    Receipt { session: usize, number: u32 },
    UntilSettled { session: usize, number: u32 },
    Letters { session: usize, skip: usize, limit: usize },
    Redrive { session: usize, position: usize, fault: Fault, message: Message },
    Purge { session: usize },
    SessionsWithLetters,
    Pose { task: usize, question: u32 },
    IsWaiting { task: usize, question: u32 },
    Settle { task: usize, question: u32, answer: u32 },
    Withdraw { task: usize, question: u32 },
    AnswerTo { task: usize, question: u32 },
    OpenQuestions { session: usize },
    OpenQuestion { session: usize, question: u32 },
    CloseQuestion { session: usize, question: u32 },
    Remember { session: usize, state: u32 },
    Recall { session: usize },
    Keep,
    LookUp,
    KnowsAll { sessions: usize },
    Forget { session: usize, is_known: bool },
    Hear,
    Inspect { session: usize, what: Inspected },
    Sleep,
}

/// What an operator looks at, or removes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Inspected {
    /// All sessions, in pages of this many.
    Sessions(usize),
    Facts,
    Details,
    /// So many of the oldest messages.
    Queue(usize),
    Receipts,
    /// So many of the oldest messages, to be removed.
    Purge(usize, Fault),
}

/// Makes the steps of a schedule.
pub(crate) struct Steps {
    rng: Rng,
    kind: Kind,
    pushed: u32,
    posed: u32,
}

impl Steps {
    pub(crate) fn new(kind: Kind, seed: u64) -> Self {
        Self { rng: Rng::with_seed(seed), kind, pushed: 0, posed: 0 }
    }

    pub(crate) fn schedule(&mut self, length: usize) -> Vec<Step> {
        let mut steps: Vec<_> = (0..length).map(|_| self.step()).collect();
        if self.kind == Kind::Time {
            // All that is done between two pauses must be short beside them.
            let every = length / 8;
            for at in (1..8).rev() {
                steps.insert(at * every, Step::Sleep);
            }
        }
        steps.push(Step::Hear);
        steps
    }

    fn step(&mut self) -> Step {
        let part = match self.kind {
            Kind::Queues => 0,
            Kind::Outcomes => [0, 0, 1][self.rng.usize(..3)],
            Kind::Questions => [0, 2, 2][self.rng.usize(..3)],
            Kind::Sessions => [0, 3, 3, 3][self.rng.usize(..4)],
            Kind::Inspection => [0, 0, 0, 1, 2, 3, 4, 4, 4][self.rng.usize(..9)],
            Kind::All => self.rng.usize(..5),
            // Without inspection, the last, where waiting is shared: other schedules meet a difference that is meant (seed
            // 18). In Redis, a shared owner that acknowledges nothing may read without a script, and then extends no
            // queue's life. Memory extends it.
            Kind::Time => [0, 0, 0, 1, 1, 2, 3, 4][self.rng.usize(..if waiting::is_shared() { 7 } else { 8 })],
        };
        match part {
            0 => self.of_queues(),
            1 => self.of_outcomes(),
            2 => self.of_questions(),
            3 => self.of_sessions(),
            _ => self.of_inspection(),
        }
    }

    fn at(&mut self) -> At {
        // Mostly one owner of one session, so that a story comes about.
        let owner = if self.rng.bool() { 0 } else { self.rng.usize(..OWNERS) };
        At { owner, session: self.session() }
    }

    fn session(&mut self) -> usize {
        if self.rng.usize(..4) == 0 { self.rng.usize(..SESSIONS) } else { 0 }
    }

    fn message(&mut self, session: usize) -> Message {
        self.pushed += 1;
        let size = match self.rng.usize(..12) {
            0 => Size::TooLarge,
            1..=3 => Size::Large,
            _ => Size::Small,
        };
        let (has_receipt, life) = (self.rng.usize(..2) == 0, self.rng.usize(..2));
        // More keys than are remembered.
        let key = (self.rng.usize(..4) == 0).then(|| self.rng.u8(..6));
        let collapse_key = (self.rng.usize(..3) == 0).then(|| self.rng.u8(..3));
        Message { session, number: self.pushed, size, has_receipt, key, collapse_key, life }
    }

    /// Number of a message that was pushed, or of one that was not.
    fn number(&mut self) -> u32 {
        self.rng.u32(..=self.pushed.saturating_add(1))
    }

    fn fault(&mut self) -> Fault {
        match self.rng.usize(..12) {
            0 => Fault::OtherLength,
            1 => Fault::OtherBytes,
            2 => Fault::CountTooHigh,
            3 => Fault::CountZero,
            _ => Fault::None,
        }
    }

    fn ack(&mut self) -> Option<Ack> {
        if self.rng.usize(..4) == 0 {
            return None;
        }
        let questions = if self.kind == Kind::Queues { 0 } else { self.rng.usize(..3) };
        Some(Ack {
            is_stale: self.rng.usize(..8) == 0,
            count: self.rng.usize(1..5),
            fault: self.fault(),
            discarded: if self.rng.bool() { 0 } else { self.rng.u8(..) },
            questions: (0..questions).map(|_| self.rng.u32(..4)).collect(),
        })
    }

    fn behind(&mut self) -> Option<PassedOver> {
        let fault = if self.rng.usize(..8) == 0 { Fault::OtherBytes } else { Fault::None };
        let fault = if self.rng.usize(..12) == 0 { Fault::CountTooHigh } else { fault };
        (self.rng.usize(..3) == 0).then(|| PassedOver { count: self.rng.usize(1..4), fault })
    }

    fn of_queues(&mut self) -> Step {
        let (at, session) = (self.at(), self.session());
        match self.rng.usize(..34) {
            0..=6 => {
                let count = self.rng.usize(1..4);
                Step::Push(
                    (0..count)
                        .map(|_| {
                            let session = self.session();
                            self.message(session)
                        })
                        .collect(),
                )
            }
            7 => {
                let raw = match self.rng.usize(..4) {
                    0 => Raw::Garbage(self.rng.u32(..9)),
                    1 => Raw::Empty,
                    // Few numbers, so that there are equal ones.
                    _ => Raw::FastMcp(self.rng.u32(..3)),
                };
                Step::PushRaw { session, raw }
            }
            8 if self.rng.bool() => Step::DeleteQueue { session },
            9 => Step::DeleteLease { session },
            10 if self.rng.usize(..8) == 0 => Step::Flush,
            11 => Step::Reopen(at),
            12..=13 => Step::Claim(at),
            14..=15 => Step::Renew(at),
            16 => Step::ClaimIfAbsent(at),
            17 => Step::Release(at),
            18 => Step::Wait(at),
            19 => Step::WaitForPush { at, message: self.message(at.session) },
            21..=23 => Step::Replace { at, position: self.rng.usize(..4) / 3, fault: self.fault() },
            _ => Step::Take { at, ack: self.ack(), behind: self.behind() },
        }
    }

    fn of_outcomes(&mut self) -> Step {
        let (session, number) = (self.session(), self.number());
        match self.rng.usize(..12) {
            0 => Step::Record { session, number, is_discarded: self.rng.bool() },
            1..=3 => Step::Receipt { session, number },
            4 => Step::UntilSettled { session, number },
            5..=6 => Step::Letters { session, skip: self.rng.usize(..6) / 2, limit: self.rng.usize(..8) },
            7..=9 => {
                let message = self.message(session);
                Step::Redrive { session, position: self.rng.usize(..4), fault: self.fault(), message }
            }
            10 => Step::Purge { session },
            _ => Step::SessionsWithLetters,
        }
    }

    fn of_questions(&mut self) -> Step {
        let (session, task) = (self.session(), self.rng.usize(..TASKS));
        // The last one of all tasks, or one before.
        let question = self.posed.saturating_sub(self.rng.u32(..6) / 3);
        match self.rng.usize(..16) {
            0..=3 => {
                self.posed += u32::from(self.rng.usize(..5) > 0);
                Step::Pose { task, question: self.posed }
            }
            4..=5 => Step::IsWaiting { task, question },
            6..=8 => Step::Settle { task, question, answer: self.rng.u32(..3) },
            9 => Step::Withdraw { task, question },
            10..=11 => Step::AnswerTo { task, question },
            12..=13 => Step::OpenQuestions { session },
            14 => Step::OpenQuestion { session, question: self.rng.u32(..4) },
            _ => Step::CloseQuestion { session, question: self.rng.u32(..4) },
        }
    }

    fn of_sessions(&mut self) -> Step {
        let session = self.session();
        match self.rng.usize(..10) {
            0..=2 => Step::Remember { session, state: self.rng.u32(..3) },
            3..=4 => Step::Recall { session },
            5 => Step::Keep,
            6 => Step::LookUp,
            7 => Step::KnowsAll { sessions: self.rng.usize(..=SESSIONS) },
            8 => Step::Forget { session, is_known: self.rng.bool() },
            _ => Step::Hear,
        }
    }

    fn of_inspection(&mut self) -> Step {
        let what = match self.rng.usize(..12) {
            0 => Inspected::Sessions(self.rng.usize(1..4)),
            1..=2 => Inspected::Facts,
            3..=5 => Inspected::Details,
            6..=7 => Inspected::Queue(self.rng.usize(1..12)),
            8 => Inspected::Receipts,
            _ => Inspected::Purge(self.rng.usize(..5), self.fault()),
        };
        Step::Inspect { session: self.session(), what }
    }
}
