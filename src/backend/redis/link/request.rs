//! Requests: commands that are sent together, and the scripts that they call.
//!
//! *Sequences*. A pipeline is no transaction. Where Redis has lost a script, its call answers NOSCRIPT and the commands
//! behind it are performed all the same. A read behind an acknowledgement would then return messages that should have
//! been removed. So a request states which commands build on each other, and the link repeats a failed call with all
//! that follow in its sequence (`only_calls_without_their_script_are_sent_again_and_in_a_sequence_all_that_follows`).

use std::time::Duration;

use redis::{Arg, Cmd, Pipeline, ToRedisArgs, Value};

use super::error::is_noscript;
use super::primary::refuses;
use crate::backend::redis::lua::{PUSH, PUSH_KEYED, RECORD, REDRIVE, Script};
#[cfg(any(feature = "cluster", feature = "server"))]
use crate::retry::Backoff;

/// Pauses between two attempts at a slot that is being migrated.
#[cfg(any(feature = "cluster", feature = "server"))]
pub(in crate::backend::redis) const MIGRATION_PAUSES: Backoff =
    Backoff { initial: Duration::from_millis(20), max: Duration::from_millis(250) };

/// Single command, or call of a script.
#[derive(Clone)]
pub(in crate::backend::redis) struct Command {
    command: Cmd,
    /// Script that the command calls, so that the link can load it.
    script: Option<&'static Script>,
    /// Set for a command that changes nothing.
    is_read: bool,
}

impl Command {
    /// Makes the call of a script by its hash. The link loads the script where Redis does not know it.
    pub(in crate::backend::redis) fn call(
        script: &'static Script,
        keys: &[impl ToRedisArgs],
        arguments: &[impl ToRedisArgs],
    ) -> Self {
        let mut call = Self::begin(script, keys);
        call.command.arg(arguments);
        call
    }

    /// Makes the call of a script, whose arguments [`arg`](Self::arg) adds.
    pub(in crate::backend::redis) fn begin(script: &'static Script, keys: &[impl ToRedisArgs]) -> Self {
        let mut command = Cmd::with_capacity(16, 512);
        command.arg("EVALSHA").arg(script.hash()).arg(keys.len()).arg(keys);
        Self { command, script: Some(script), is_read: false }
    }

    /// Returns the slot of the command in a cluster; `None` where it has no key.
    #[cfg(feature = "server")]
    pub(in crate::backend::redis) fn slot(&self) -> Option<u16> {
        #[cfg(feature = "cluster")]
        return super::command_slot::slot_of(&self.command);
        #[cfg(not(feature = "cluster"))]
        None
    }

    /// Marks a command as one that changes nothing. A request with it may be sent again where its other commands did
    /// nothing.
    pub(in crate::backend::redis) fn read(command: Cmd) -> Self {
        Self { command, script: None, is_read: true }
    }

    /// Adds an argument, or each argument of a list.
    pub(in crate::backend::redis) fn arg(&mut self, argument: impl ToRedisArgs) -> &mut Self {
        self.command.arg(argument);
        self
    }
}

impl From<Cmd> for Command {
    fn from(command: Cmd) -> Self {
        Self { command, script: None, is_read: false }
    }
}

impl From<&mut Cmd> for Command {
    /// Takes the command at the end of a chain of `arg` calls.
    fn from(command: &mut Cmd) -> Self {
        command.take().into()
    }
}

/// Commands that are sent together.
#[derive(Default)]
pub(in crate::backend::redis) struct Request {
    commands: Pipeline,
    /// Script that each command calls, if it calls one.
    scripts: Vec<Option<&'static Script>>,
    /// Number of the sequence that each command belongs to. A command builds on those before it in its sequence.
    sequences: Vec<usize>,
    /// Set for each command that changes nothing.
    reads: Vec<bool>,
    /// Set where all commands belong to one sequence.
    is_sequence: bool,
    /// Set for the check of a server, beside which no further check is sent.
    pub(super) is_probe: bool,
    /// Time for the answer, where it differs from the link's own.
    time: Option<Duration>,
    /// Set where a slot of a cluster that is being migrated is not waited for.
    #[cfg(feature = "cluster")]
    pub(super) is_impatient: bool,
}

impl Request {
    /// Begins a request whose commands do not depend on each other.
    pub(in crate::backend::redis) fn new() -> Self {
        Self::default()
    }

    /// Begins a request of one command.
    pub(in crate::backend::redis) fn of(command: impl Into<Command>) -> Self {
        let mut request = Self::new();
        request.add(command);
        request
    }

    fn push(&mut self, Command { command, script, is_read }: Command, sequence: usize) {
        self.reads.push(is_read);
        self.commands.add_command(command);
        self.scripts.push(script);
        self.sequences.push(sequence);
    }

    /// Makes the check of a server, which counts as the check of its connection.
    pub(super) fn probe(probe: &Pipeline) -> Self {
        Self {
            commands: probe.clone(),
            scripts: vec![None],
            sequences: vec![0],
            reads: vec![false],
            is_probe: true,
            ..Self::default()
        }
    }

    /// Adds a command.
    pub(in crate::backend::redis) fn add(&mut self, command: impl Into<Command>) -> &mut Self {
        let sequence = if self.is_sequence { 0 } else { self.len() };
        self.push(command.into(), sequence);
        self
    }

    /// Returns the time that [`within`](Self::within) set.
    pub(in crate::backend::redis) fn time(&self) -> Option<Duration> {
        self.time
    }

    /// Returns the number of commands.
    pub(super) fn len(&self) -> usize {
        self.scripts.len()
    }

    pub(super) fn commands(&self) -> &Pipeline {
        &self.commands
    }

    /// Returns the number of bytes of the arguments, which make up nearly all that is sent.
    pub(super) fn bytes(&self) -> usize {
        let length = |argument| if let Arg::Simple(bytes) = argument { <[u8]>::len(bytes) } else { 0 };
        self.commands.cmd_iter().flat_map(Cmd::args_iter).map(length).sum()
    }

    /// Returns whether the request may be sent once more, to another server, after these answers. Called where an
    /// answer, or the probe that was sent before the request, says that the server is no primary.
    ///
    /// - A request whose commands all did nothing may be repeated: each only reads, was refused, or called a script
    ///   that the server does not know.
    /// - A single command may be repeated even where it was done. An answer without a refusal came from a replica, or
    ///   from a server that has become the primary since the probe. Doing such a command twice is harmless.
    /// - The scripts `push`, `push_keyed`, `record` and `redrive` are the exceptions: a repetition would queue or record twice.
    pub(super) fn is_repeatable(&self, answers: &[Value]) -> bool {
        // A request of several commands may contain such a script, so each of its commands must have done nothing.
        let once = |script: Option<&'static Script>| {
            script.is_some_and(|script| {
                [&PUSH, &PUSH_KEYED, &RECORD, &REDRIVE].iter().any(|once| std::ptr::eq::<Script>(*once, script))
            })
        };
        let did_nothing = |(is_read, answer): (&bool, _)| *is_read || refuses(answer) || is_noscript(answer);
        (self.len() == 1 && !once(self.scripts[0])) || self.reads.iter().zip(answers).all(did_nothing)
    }

    /// Returns the positions of the commands to send again after their scripts are loaded.
    pub(super) fn without_script(&self, answers: &[Value]) -> Vec<usize> {
        let is_unknown = |i: usize| self.scripts[i].is_some() && answers.get(i).is_some_and(is_noscript);
        self.with_followers(0..self.len(), is_unknown)
    }

    /// Returns those of the positions that did nothing, each with all that follow in its sequence.
    pub(super) fn with_followers(
        &self,
        positions: impl IntoIterator<Item = usize>,
        did_nothing: impl Fn(usize) -> bool,
    ) -> Vec<usize> {
        let mut again: Vec<usize> = Vec::new();
        for i in positions {
            if did_nothing(i) || again.last().is_some_and(|&last| self.sequences[last] == self.sequences[i]) {
                again.push(i);
            }
        }
        again
    }

    /// Returns the number of the sequence of each command.
    #[cfg(feature = "cluster")]
    pub(super) fn sequences(&self) -> &[usize] {
        &self.sequences
    }

    /// Returns the scripts at these positions, each once.
    pub(super) fn scripts(&self, positions: &[usize]) -> Vec<&'static Script> {
        let mut scripts: Vec<&'static Script> = Vec::new();
        for script in positions.iter().filter_map(|&i| self.scripts[i]) {
            if !scripts.iter().any(|known| std::ptr::eq(*known, script)) {
                scripts.push(script);
            }
        }
        scripts
    }

    /// Returns a request of the commands at these positions.
    pub(super) fn only(&self, positions: &[usize]) -> Self {
        let mut only = Self { is_sequence: self.is_sequence, time: self.time, ..Self::default() };
        for (i, command) in self.commands.cmd_iter().enumerate().filter(|(i, _)| positions.binary_search(i).is_ok()) {
            let is_read = self.reads[i];
            only.push(Command { command: command.clone(), script: self.scripts[i], is_read }, self.sequences[i]);
        }
        only
    }
}

/// Returns the approximate number of bytes of an answer.
pub(in crate::backend::redis) fn size(answer: &Value) -> usize {
    match answer {
        Value::BulkString(bytes) => bytes.len(),
        Value::Array(answers) => answers.iter().map(size).sum(),
        _ => 0,
    }
}

/// Requests of subscribers.
#[cfg(any(test, feature = "server"))]
impl Request {
    /// Begins a request whose commands build on those before them. Where Redis does not know a script, the commands
    /// behind its call are sent again too.
    pub(in crate::backend::redis) fn sequence() -> Self {
        Self { is_sequence: true, ..Self::default() }
    }

    /// Adds commands that build on each other, and on no other command of the request.
    pub(in crate::backend::redis) fn add_sequence(&mut self, commands: impl IntoIterator<Item = Command>) {
        let sequence = self.len();
        for command in commands {
            self.push(command, sequence);
        }
    }

    /// Makes a request that does not wait for the end of a migration of slots. A command whose slot is being migrated
    /// then returns its refusal at once.
    #[cfg_attr(not(feature = "cluster"), expect(unused_mut, reason = "only a cluster migrates slots"))]
    pub(in crate::backend::redis) fn impatient(mut self) -> Self {
        #[cfg(feature = "cluster")]
        {
            self.is_impatient = true;
        }
        self
    }

    /// Sets the time for the answer, in place of the link's own.
    pub(in crate::backend::redis) fn within(mut self, time: Duration) -> Self {
        self.time = Some(time);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::redis::lua::{PURGE, WAITING};

    fn answer(text: &str) -> Value {
        redis::parse_redis_value(text.as_bytes()).unwrap()
    }

    const NOSCRIPT: &str = "-NOSCRIPT No matching script.\r\n";
    const READONLY: &str = "-READONLY You can't write against a read only replica.\r\n";
    const OK: &str = "+OK\r\n";

    fn calls(mut request: Request) -> Request {
        request.add(redis::cmd("PING")).add(Command::call(&PUSH, &["k"], &["a"]));
        request.add(Command::call(&PURGE, &["k"], &["abc"])).add(Command::call(&PUSH, &["l"], &["b"]));
        request
    }

    fn names(request: &Request) -> Vec<String> {
        request.commands.cmd_iter().map(|command| format!("{:?}", command.args_iter().count())).collect()
    }

    #[test]
    fn only_calls_without_their_script_are_sent_again_and_in_a_sequence_all_that_follows() {
        let answers: Vec<Value> = [OK, NOSCRIPT, OK, NOSCRIPT].map(answer).into();
        let request = calls(Request::new());
        let unknown = request.without_script(&answers);
        assert_eq!(unknown, [1, 3]);
        assert_eq!(request.scripts(&unknown).iter().map(|script| script.name()).collect::<Vec<_>>(), ["push"]);
        assert_eq!(request.only(&unknown).len(), 2);
        assert_eq!(request.without_script(&[OK, OK, OK, OK].map(answer)), Vec::<usize>::new());

        let mut request = Request::of(redis::cmd("TIME"));
        let call = |key: &str| Command::call(&PUSH, &[key], &["a"]);
        request.add_sequence([call("a"), redis::cmd("PING").into()]);
        request.add_sequence([redis::cmd("PING").into(), call("b"), redis::cmd("PING").into()]);
        let answers: Vec<Value> = [OK, OK, OK, OK, NOSCRIPT, OK].map(answer).into();
        assert_eq!(request.without_script(&answers), [4, 5]);
        let answers: Vec<Value> = [OK, NOSCRIPT, OK, OK, NOSCRIPT, OK].map(answer).into();
        assert_eq!(request.without_script(&answers), [1, 2, 4, 5]);
        let again = request.only(&[1, 2, 4, 5]);
        assert_eq!(again.without_script(&[NOSCRIPT, OK, OK, OK].map(answer)), [0, 1]);

        let sequence = calls(Request::sequence()).within(Duration::from_secs(7));
        let unknown = sequence.without_script(&answers);
        assert_eq!(unknown, [1, 2, 3]);
        assert_eq!(
            sequence.scripts(&unknown).iter().map(|script| script.name()).collect::<Vec<_>>(),
            ["push", "purge"]
        );
        let again = sequence.only(&unknown);
        assert_eq!((again.len(), again.time()), (3, Some(Duration::from_secs(7))));
        assert_eq!(names(&again), names(&sequence)[1..]);
    }

    #[test]
    fn what_may_have_done_something_is_not_sent_to_another_server() {
        let request = calls(Request::new());
        for (answers, is_repeatable) in [
            ([READONLY, READONLY, READONLY, READONLY], true),
            ([READONLY, NOSCRIPT, READONLY, NOSCRIPT], true),
            ([READONLY, OK, READONLY, READONLY], false),
            ([OK, READONLY, READONLY, READONLY], false),
        ] {
            assert_eq!(request.is_repeatable(&answers.map(answer)), is_repeatable, "{answers:?}");
        }
        let one = Request::of(Command::call(&WAITING, &["k"], &["a"]));
        assert!(one.is_repeatable(&[answer(OK)]), "the answer of a replica to a single command");
        let push = Request::of(Command::call(&PUSH, &["k"], &["a"]));
        assert!(!push.is_repeatable(&[answer(OK)]), "it would be queued twice");
        assert!(push.is_repeatable(&[answer(READONLY)]));
        let mut read = push;
        read.add(Command::read(redis::cmd("STRLEN")));
        assert!(read.is_repeatable(&[answer(READONLY), answer(":0\r\n")]), "a replica answers a read");
        assert!(!read.is_repeatable(&[answer(OK), answer(READONLY)]));
    }

    #[test]
    fn a_request_is_as_large_as_its_arguments() {
        let mut request = Request::of(redis::cmd("SET").arg("key").arg("value"));
        assert_eq!(request.bytes(), 3 + 3 + 5);
        request.add(redis::cmd("GET").arg("key"));
        assert_eq!(request.bytes(), 11 + 6);
        assert_eq!(size(&answer("*2\r\n$3\r\nabc\r\n:7\r\n")), 3);
    }
}
