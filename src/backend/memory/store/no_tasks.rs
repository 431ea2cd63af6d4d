//! Tasks in a build without the feature `elicitation`. Nobody asks a question through the memory of such a process.

use super::Moment;
use crate::backend::Settled;
use crate::question::{Answer, TaskKey};

impl Moment<'_> {
    /// Returns that no worker waits for this answer.
    pub fn settle_question(&mut self, _: &TaskKey, _: &str, _: &Answer) -> Settled {
        Settled::NotWaiting
    }

    /// Returns that no worker waits for an answer.
    pub fn is_waiting(&mut self, _: &TaskKey, _: &str) -> bool {
        false
    }
}
