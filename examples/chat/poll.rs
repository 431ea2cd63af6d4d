//! [`Polls`]: background tasks that ask all members of a room by elicitation.

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use mcp_courier::{Answer, Elicitation, Elicitor, Notification, Publisher, SessionId, Task, TaskKey, TaskStatus};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::chat::{Chat, MAX_NAME, SPEECH, check_length, check_name, with_causes};
use crate::rooms::{Member, Result};

/// Name under which a result is said. No member can have this name.
pub(crate) const POLL: &str = "poll";

/// Length of the longest question, in characters.
pub(crate) const MAX_QUESTION: usize = 1024;

/// Number of options that a poll may have.
pub(crate) const OPTIONS: RangeInclusive<usize> = 2..=10;

/// Number of polls that one server runs at the same time.
const MAX_POLLS: usize = 64;

/// Time by which the timeout of a question exceeds that of its poll. So the poll ends the question, and knows then that
/// the member did not answer.
const MARGIN: Duration = Duration::from_secs(30);

/// Polls of this server.
pub(crate) struct Polls {
    publisher: Publisher,
    elicitor: Elicitor,
    /// Time that members have to answer.
    patience: Duration,
    stop: CancellationToken,
    running: Mutex<JoinSet<()>>,
}

/// Outcome of the question to one member.
enum Outcome {
    Chose(String),
    Declined,
    Silent,
    Unable,
}

impl Polls {
    pub(crate) fn new(publisher: &Publisher, patience: Duration) -> Self {
        Self {
            publisher: publisher.clone(),
            elicitor: publisher.elicitor(),
            patience,
            stop: CancellationToken::new(),
            running: Mutex::default(),
        }
    }

    fn begin(&self, poll: impl Future<Output = ()> + Send + 'static) -> Result<()> {
        let mut running = self.running();
        while running.try_join_next().is_some() {}
        if running.len() >= MAX_POLLS {
            return Err(format!("at most {MAX_POLLS} polls may run at one server; try again later").into());
        }
        running.spawn(poll);
        Ok(())
    }

    /// Ends the running polls with the answers that have come.
    pub(crate) async fn end(&self) {
        self.stop.cancel();
        let running = std::mem::take(&mut *self.running());
        if tokio::time::timeout(SPEECH, running.join_all()).await.is_err() {
            tracing::warn!("ending the polls took too long; the rest end without a result");
        }
    }

    fn running(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Chat {
    /// Begins a poll. The result is said in the room when all members have answered, or when the time is over.
    pub(crate) async fn poll(
        self: &Arc<Self>,
        session: &SessionId,
        room: &str,
        question: &str,
        options: Vec<String>,
    ) -> Result<Value> {
        check_name("room", room)?;
        check_length("question", question, MAX_QUESTION)?;
        check_options(&options)?;
        let members = self.members_for(session, room).await?;
        let schema = json!({
            "type": "object",
            "properties": {"choice": {"type": "string", "title": "Your choice", "enum": options}},
            "required": ["choice"],
        });
        let form = Elicitation::form(question, schema)?;
        let begun = json!({
            "room": room, "begun": true, "members": members.len(), "seconds": self.polls().patience.as_secs(),
        });
        let id = fastrand::u128(..);
        let poll = Poll { chat: Arc::clone(self), id, room: room.to_owned(), form, options, members };
        self.polls().begin(poll.run())?;
        Ok(begun)
    }
}

/// Poll that runs. The poll holds no seat of the member that began it, because the member may leave meanwhile.
struct Poll {
    chat: Arc<Chat>,
    id: u128,
    room: String,
    form: Elicitation,
    options: Vec<String>,
    members: Vec<Member>,
}

impl Poll {
    async fn run(self) {
        let began = SystemTime::now();
        let outcomes = join_all((0..self.members.len()).map(|n| self.ask(n))).await;
        let result = result(self.form.message(), &self.options, &outcomes);
        self.report_end(began).await;
        if let Err(error) = self.chat.announce(&self.room, &result).await {
            tracing::warn!(room = self.room, error, "announcing the result of a poll failed; the members miss it");
        }
    }

    /// Returns the id of a member's task. Each question has a task of its own, because the questions of one task are
    /// asked one after another.
    fn task_id(&self, n: usize) -> String {
        format!("poll-{:032x}-{n}", self.id)
    }

    async fn ask(&self, n: usize) -> Outcome {
        let polls = self.chat.polls();
        let asked = async {
            let task = TaskKey::anonymous(self.task_id(n))?;
            let session = &self.members[n].session;
            Ok::<_, mcp_courier::Cause>(
                polls.elicitor.elicit(session, &task, self.form.clone(), polls.patience + MARGIN).await?,
            )
        };
        // Dropping the future of a question withdraws the question.
        let answer = tokio::select! {
            biased;
            answer = asked => answer,
            () = tokio::time::sleep(polls.patience) => return Outcome::Silent,
            () = polls.stop.cancelled() => return Outcome::Silent,
        };
        match answer {
            Ok(Answer::Accept(content)) => match content.get("choice").and_then(Value::as_str) {
                Some(choice) => Outcome::Chose(choice.to_owned()),
                None => Outcome::Unable,
            },
            Ok(Answer::Decline) => Outcome::Declined,
            Ok(Answer::Cancel { reason: None }) => Outcome::Silent,
            Ok(other) => {
                tracing::debug!(?other, "a member could not be asked; it counts as unable to answer");
                Outcome::Unable
            }
            Err(error) => {
                tracing::warn!(error = with_causes(&*error), "asking a member failed; it counts as unable to answer");
                Outcome::Unable
            }
        }
    }

    /// Reports the end of the tasks to the clients, which had learned that the tasks need input.
    async fn report_end(&self, began: SystemTime) {
        let each = self.members.iter().enumerate().map(|(n, member)| {
            let mut task = Task::new(self.task_id(n), TaskStatus::Completed, SystemTime::now());
            task.created_at = began;
            (member.session.clone(), Notification::task_status(&task))
        });
        for refused in self.chat.polls().publisher.push_many(each).await.into_iter().filter_map(|pushed| pushed.err()) {
            tracing::warn!(error = with_causes(&refused), "reporting the end of a poll failed; a member misses it");
        }
    }
}

fn check_options(options: &[String]) -> Result<()> {
    let (min, max) = (OPTIONS.start(), OPTIONS.end());
    if !OPTIONS.contains(&options.len()) {
        return Err(format!("options: there must be {min} to {max}, and these are {}", options.len()).into());
    }
    let mut seen = HashSet::new();
    for option in options {
        check_name("options", option)?;
        if !seen.insert(option) {
            return Err(format!("options: they must be distinct, and {option:?} comes twice").into());
        }
    }
    Ok(())
}

/// Returns the result as text, as in `Lunch? pizza 2, sushi 1 (1 declined, 1 did not answer)`.
fn result(question: &str, options: &[String], outcomes: &[Outcome]) -> String {
    let count = |what: &dyn Fn(&Outcome) -> bool| outcomes.iter().filter(|outcome| what(outcome)).count();
    let votes: Vec<_> = options
        .iter()
        .map(|option| format!("{option} {}", count(&|o| matches!(o, Outcome::Chose(choice) if choice == option))))
        .collect();
    let others = [
        (count(&|o| matches!(o, Outcome::Declined)), "declined"),
        (count(&|o| matches!(o, Outcome::Silent)), "did not answer"),
        (count(&|o| matches!(o, Outcome::Unable)), "not able to answer"),
    ];
    let others: Vec<_> = others.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
    let others = if others.is_empty() { String::new() } else { format!(" ({})", others.join(", ")) };
    format!("{question} {}{others}", votes.join(", "))
}

const _: () = assert!(MAX_QUESTION + 10 * (MAX_NAME + 24) + 100 < crate::chat::MAX_TEXT, "a result is a message");
