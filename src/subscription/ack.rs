//! What an owner acknowledges: the oldest messages of its queue, and what became of each.

use super::batch::Mark;
use crate::fate::DiscardReason;
use crate::notification::NotificationId;
use crate::question::Question;

/// What an owner has delivered and not yet removed: the `count` oldest, the last of which has this mark.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivered {
    /// How many.
    pub count: usize,
    /// The mark of the newest of them.
    pub last: Mark,
    /// The questions that they brought. They become open questions of the queue in the same step.
    pub questions: Vec<Question>,
    /// What became of those that were discarded, and of those whose producer asked for a receipt; the oldest first.
    pub fates: Vec<Fate>,
}

/// What became of one notification of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fate {
    /// Which: 0 is the oldest.
    pub position: usize,
    /// Why it was discarded; `None` where it was delivered.
    pub discarded: Option<DiscardReason>,
    /// Its id, where its producer asked for a receipt.
    pub receipt: Option<NotificationId>,
}
