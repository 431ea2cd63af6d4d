//! Requests over one connection of a link: their sending, their repetitions, and the check of the server.

use std::sync::Arc;
use std::time::Instant;

use futures_util::future;
use redis::Value;

use super::Answer;
use super::error::{is_broken, is_noscript, kind, no_answer, read};
use super::inner::Inner;
use super::line_capacity::LARGE;
use super::primary::{is_no_primary, refuses};
use super::request::{Request, size};
use crate::backend::redis::lua::Script;
use crate::failure::QueueErrorKind;

impl Inner {
    /// Sends a request, and returns the outcome of each of its commands. Loads scripts that Redis does not know, and
    /// sends their calls again. The answer to a request for `large` answers teaches the line.
    ///
    /// # Errors
    /// Those of [`Link::send`](super::Link::send).
    ///
    /// # Cancellation
    /// A command that was sent may be done.
    pub(super) async fn send(self: &Arc<Self>, request: &Request, large: bool) -> Result<Vec<Answer>, QueueErrorKind> {
        let values = self.deliver(request, large).await?;
        let mut unknown = request.without_script(&values);
        let mut answers: Vec<Answer> = values.into_iter().map(read).collect();
        // Redis was restarted, or its scripts were flushed: nothing of these calls was done. Twice, as the repetition
        // may be the request that moves to a new primary, which does not know the scripts either.
        for _ in 0..2 {
            if unknown.is_empty() {
                break;
            }
            unknown = self.load_and_repeat(request, &unknown, &mut answers, large).await?;
        }
        Ok(answers)
    }

    /// Loads the scripts of these commands, sends the commands again, and replaces their answers. Returns the commands
    /// whose scripts are still unknown.
    async fn load_and_repeat(
        self: &Arc<Self>,
        request: &Request,
        unknown: &[usize],
        answers: &mut [Answer],
        large: bool,
    ) -> Result<Vec<usize>, QueueErrorKind> {
        let refused = self.load(&request.scripts(unknown)).await;
        let repeated = request.only(unknown);
        let values = match self.deliver(&repeated, large).await {
            Ok(values) => values,
            Err(error) if unknown.len() == answers.len() => return Err(error),
            Err(error) => {
                let broken = || QueueErrorKind::Broken(error.to_string().into());
                unknown.iter().for_each(|&i| answers[i] = Err(broken()));
                return Ok(Vec::new());
            }
        };
        let still = repeated.without_script(&values).into_iter().map(|i| unknown[i]).collect();
        for (&i, value) in unknown.iter().zip(values) {
            answers[i] = match &refused {
                Some(why) if is_noscript(&value) => Err(QueueErrorKind::Refused(why.clone())),
                _ => read(value),
            };
        }
        Ok(if refused.is_some() { Vec::new() } else { still })
    }

    /// Loads scripts. Returns Redis's reason where it refuses one.
    pub(super) async fn load(self: &Arc<Self>, scripts: &[&'static Script]) -> Option<String> {
        let mut load = Request::new();
        for script in scripts {
            load.add(redis::cmd("SCRIPT").arg("LOAD").arg(script.text()));
        }
        let loaded = self.deliver(&load, false).await.and_then(|answers| answers.into_iter().try_for_each(read));
        let error = loaded.err()?;
        let names: Vec<_> = scripts.iter().map(|script| script.name()).collect();
        tracing::warn!(?names, %error, "loading scripts into Redis failed; their calls fail");
        if let QueueErrorKind::Refused(why) = error { Some(why) } else { None }
    }

    /// Checks the server, as [`Link::check`](super::Link::check) says. Returns the number of the connection.
    pub(super) async fn check(self: &Arc<Self>) -> Result<u64, QueueErrorKind> {
        let pause = self.state().health.pause(Instant::now());
        tokio::time::sleep(pause).await;
        let probe = Request::probe(self.probe());
        let answer = self.deliver(&probe, false).await?.into_iter().map(read::<Value>).next();
        match answer {
            Some(Err(error)) if is_no_primary(&error) => Err(error),
            _ => Ok(self.state().health.generation()),
        }
    }

    /// Drops the current connection. The next request makes another.
    pub(super) fn disconnect(&self) {
        let generation = self.state().health.generation();
        self.forget(generation);
    }

    /// Sends a request. Repeats the request once, over a new connection, where its server turns out to be no primary
    /// and [`Request::is_repeatable`] allows that. No repetition happens while the pause before the next connection
    /// lasts.
    async fn deliver(self: &Arc<Self>, request: &Request, large: bool) -> Result<Vec<Value>, QueueErrorKind> {
        let (mut result, again) = self.deliver_once(request, large).await;
        if again {
            (result, _) = self.deliver_once(request, large).await;
        }
        match result {
            Ok(answers) if answers.len() != request.len() => {
                Err(QueueErrorKind::Broken("answers of an unexpected number".into()))
            }
            result => result,
        }
    }

    /// Sends a request. Returns its result, and whether the request is to be sent again: its server was no primary, a
    /// repetition does no harm, and another connection may be made at once.
    async fn deliver_once(
        self: &Arc<Self>,
        request: &Request,
        large: bool,
    ) -> (Result<Vec<Value>, QueueErrorKind>, bool) {
        let (made, connection, is_check_due) = match self.connected().await {
            Ok(connected) => connected,
            Err(error) => return (Err(error), false),
        };
        let probe = is_check_due && !request.is_probe;
        // The probe travels before the request, and costs no round trip.
        let probed = async { if probe { Some(connection.send(self.probe()).await) } else { None } };
        let under_way = self.line.begin(large || request.bytes() >= LARGE);
        let time = request.time().unwrap_or_else(|| under_way.time());
        let sent = Instant::now();
        let both = future::join(probed, connection.send(request.commands()));
        let Ok((probed, result)) = tokio::time::timeout(time, both).await else {
            // The line learns once for each connection: all requests that share a connection time out together.
            if self.is_shared() && self.forget(made) {
                under_way.timed_out();
            }
            return (Err(no_answer(time)), false);
        };
        drop(under_way);
        if !self.is_shared() {
            return (result.map_err(kind), false);
        }
        if let (true, Ok(answers)) = (large, &result) {
            self.line.learn_answer(answers.iter().map(size).sum(), sent.elapsed());
        }
        if probed.iter().any(|probe| probe.as_ref().is_err_and(is_broken)) || result.as_ref().is_err_and(is_broken) {
            self.forget(made);
            return (result.map_err(kind), false);
        }
        let probe_refused = probed.iter().flatten().flatten().any(refuses);
        let any_refused = result.iter().flatten().any(refuses);
        if probe_refused || any_refused {
            let is_repeatable = result.as_ref().is_ok_and(|answers| request.is_repeatable(answers));
            return (result.map_err(kind), self.replace(made) && is_repeatable);
        }
        if probed.is_some() || request.is_probe {
            self.state().health.mark_primary(made);
        }
        (result.map_err(kind), false)
    }
}
