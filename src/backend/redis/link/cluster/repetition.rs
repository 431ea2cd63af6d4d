//! Decisions on commands that a node of a cluster sent elsewhere: which to send again, when, and the end of it.

use std::time::{Duration, Instant};

use redis::Value;

use super::super::command_slot::slot_of;
use super::super::connection::ANSWER_TIMEOUT;
use super::super::request::{MIGRATION_PAUSES, Request};
use super::super::topology::Redirect;
use crate::failure::QueueErrorKind;

/// Number of redirections that are followed at once. Two nodes that disagree would send a command to and fro.
const HOPS: u32 = 3;

/// Decides when the commands of a request are sent again, and when no more.
pub(super) struct Attempts {
    /// Time until which a migration is waited for.
    end: Instant,
    /// Set where a migration is waited for.
    is_patient: bool,
    hops: u32,
    pauses: u32,
}

impl Attempts {
    pub(super) fn new(request: &Request) -> Self {
        let is_patient = !request.is_impatient;
        let patience = if is_patient { request.time().unwrap_or(ANSWER_TIMEOUT) } else { Duration::ZERO };
        Self { end: Instant::now() + patience, is_patient, hops: 0, pauses: 0 }
    }

    /// Returns whether a command with this answer is sent again.
    pub(super) fn repeats(&self, answer: &Result<Value, QueueErrorKind>) -> bool {
        match Redirect::of(answer) {
            Some(Redirect::Moved { .. }) => true,
            Some(Redirect::Migrating) => self.is_patient,
            Some(Redirect::Down) | None => false,
        }
    }

    /// Returns the pause before the next attempt; `None` where the time is over.
    pub(super) fn next(&mut self, redirects: impl IntoIterator<Item = Option<Redirect>>) -> Option<Duration> {
        self.hops += 1;
        let waits = self.is_patient && redirects.into_iter().flatten().any(|redirect| redirect == Redirect::Migrating);
        if !waits && self.hops <= HOPS {
            return Some(Duration::ZERO);
        }
        let pause = MIGRATION_PAUSES.pause(self.pauses, fastrand::f64());
        self.pauses += 1;
        (Instant::now() + pause < self.end).then_some(pause)
    }
}

/// Returns the positions to send again: those that did nothing, all that follow in their sequences, and the commands
/// without a key directly before them. `CLIENT CACHING` concerns the command behind it, and `TIME` the clock of its
/// node.
pub(super) fn again(request: &Request, positions: &[usize], did_nothing: impl Fn(usize) -> bool) -> Vec<usize> {
    let mut first: Vec<bool> = vec![false; request.len()];
    positions.iter().filter(|&&i| did_nothing(i)).for_each(|&i| first[i] = true);
    if !first.contains(&true) {
        return Vec::new();
    }
    let has_no_key: Vec<bool> = request.commands().cmd_iter().map(|command| slot_of(command).is_none()).collect();
    for i in (1..first.len()).rev() {
        if first[i] && has_no_key[i - 1] && request.sequences()[i - 1] == request.sequences()[i] {
            first[i - 1] = true;
        }
    }
    request.with_followers(positions.iter().copied(), |i| first[i])
}

/// Returns the answers, their redirections in words. Where no command has an answer, the request failed as a whole.
pub(super) fn finish(
    mut answers: Vec<Result<Value, QueueErrorKind>>,
) -> Result<Vec<Result<Value, QueueErrorKind>>, QueueErrorKind> {
    let has_no_answer = |answer: &Result<Value, QueueErrorKind>| {
        answer.as_ref().is_err_and(|e| !matches!(e, QueueErrorKind::Refused(_)))
    };
    if !answers.is_empty() && answers.iter().all(has_no_answer) {
        return Err(answers.swap_remove(0).err().unwrap_or_else(|| QueueErrorKind::Broken("no answer".into())));
    }
    for answer in &mut answers {
        if let (Some(redirect), Err(QueueErrorKind::Refused(text))) = (Redirect::of(answer), answer) {
            *text = redirect.explained(text);
        }
    }
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request {
        let mut request = Request::of(redis::cmd("TIME"));
        let cmd = |name: &str, key: &str| redis::cmd(name).arg(key).take();
        let caching = redis::cmd("CLIENT").arg(&["CACHING", "YES"]).take();
        request.add_sequence([cmd("LRANGE", "a").into(), caching.into(), cmd("GET", "a").into()]);
        request.add_sequence([cmd("GET", "b").into(), redis::cmd("TIME").into()]);
        request
    }

    #[test]
    fn what_did_nothing_is_sent_again_with_all_that_follow_and_with_the_command_that_concerns_it() {
        let all = [0, 1, 2, 3, 4, 5];
        for (did_nothing, expected) in [
            (vec![], vec![]),
            (vec![1], vec![1, 2, 3]),
            // CLIENT CACHING concerns the command behind it.
            (vec![3], vec![2, 3]),
            (vec![4], vec![4, 5]),
            (vec![1, 3, 4], vec![1, 2, 3, 4, 5]),
        ] {
            assert_eq!(again(&request(), &all, |i| did_nothing.contains(&i)), expected, "{did_nothing:?}");
        }
        assert_eq!(again(&request(), &[4, 5], |_| true), [4, 5], "only what was sent is sent again");
    }

    #[test]
    fn a_migration_is_waited_for_within_the_time_and_a_move_is_followed_at_once() {
        let moved = || Some(Redirect::Moved { slot: 1, host: None, port: 1 });
        let mut attempts = Attempts::new(&request().impatient());
        for _ in 0..HOPS {
            assert_eq!(attempts.next([None, moved()]), Some(Duration::ZERO));
        }
        assert_eq!(attempts.next([moved()]), None, "two nodes that disagree");
        let migrating = Err(QueueErrorKind::Refused("TRYAGAIN x".to_owned()));
        assert!(!attempts.repeats(&migrating) && Attempts::new(&request()).repeats(&migrating));
        let mut attempts = Attempts::new(&request().within(Duration::from_secs(60)));
        let pauses: Vec<Duration> =
            (0..5).map(|_| attempts.next([Some(Redirect::Migrating), moved()]).unwrap()).collect();
        assert!(pauses[0] >= MIGRATION_PAUSES.initial.mul_f64(0.75) && pauses.is_sorted(), "{pauses:?}");
    }

    #[test]
    fn a_request_fails_as_a_whole_only_where_no_command_was_answered() {
        let broken = || Err(QueueErrorKind::Broken("cut".into()));
        let refused = |text: &str| Err(QueueErrorKind::Refused(text.to_owned()));
        assert!(matches!(finish(vec![broken(), broken()]), Err(QueueErrorKind::Broken(_))));
        let answers = finish(vec![broken(), Ok(Value::Nil), refused("TRYAGAIN x"), refused("OOM x")]).unwrap();
        let texts: Vec<String> =
            answers.iter().flat_map(|answer| answer.as_ref().err()).map(ToString::to_string).collect();
        assert_eq!(
            texts[1..],
            [
                "the queue refused: the slot of the key is being migrated; try again when the migration has ended \
                 (TRYAGAIN x)",
                "the queue refused: OOM x"
            ]
        );
        assert!(finish(Vec::new()).unwrap().is_empty());
    }
}
