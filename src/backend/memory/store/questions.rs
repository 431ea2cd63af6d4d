//! Questions that sessions have open.

use super::Moment;
use super::list::OpenQuestions;
use crate::envelope::Timestamp;
use crate::question::Question;
use crate::session_id::SessionId;

impl OpenQuestions {
    /// Adds a question, in place of an earlier one of the same id.
    pub(super) fn open(&mut self, question: &Question, until: Timestamp) {
        match self.all.iter_mut().find(|open| open.request_id == question.request_id) {
            Some(open) => open.clone_from(question),
            None => self.all.push(question.clone()),
        }
        self.until = self.until.max(Some(until));
    }
}

impl Moment<'_> {
    /// Returns the questions that a session was asked and has not answered.
    pub fn open_questions(&mut self, session: &SessionId) -> Vec<Question> {
        self.with_list(session, |_, list| list.questions.all.clone())
    }

    /// Removes a question from those that a session has open.
    pub fn close_question(&mut self, session: &SessionId, request_id: &str) {
        self.with_list(session, |_, list| list.questions.all.retain(|question| question.request_id != request_id));
    }
}
