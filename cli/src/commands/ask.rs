//! `ask`: a question to a user.

use mcp_courier::{Answer, ElicitError, Elicitation, TaskKey};
use serde_json::{Value, json};

use super::{BadArgument, Outcome};
use crate::arguments::Ask;
use crate::settings::Settings;
use crate::{Failure, output};

pub(super) async fn run(arguments: Ask, settings: &Settings, is_json: bool) -> Result<Outcome, Failure> {
    let Ask { session, message, schema, page, timeout, task } = arguments;
    let own = || format!("cli-{}-{}", std::process::id(), output::time(std::time::SystemTime::now()));
    let task = task.unwrap_or_else(own);
    let question = match (schema, page) {
        (_, Some(page)) => Elicitation::url(message, page, &*task),
        (schema, None) => {
            let schema: Value = match schema {
                Some(text) => serde_json::from_str(&text).map_err(|error| BadArgument::of("--schema", error))?,
                None => json!({"type": "object", "properties": {}}),
            };
            Elicitation::form(message, schema).map_err(|error| BadArgument::of("--schema", error))?
        }
    };
    let task = TaskKey::anonymous(task).map_err(|error| BadArgument::of("--task", error))?;
    let elicitor = settings.connect().await?.elicitor();
    let answer = elicitor.elicit(&session, &task, question, timeout).await.map_err(|error| match error {
        ElicitError::Invalid(error) => BadArgument::of("the question", error),
        error => error.into(),
    })?;
    let shown = match &answer {
        Answer::Accept(content) => json!({"action": "accept", "content": content}),
        Answer::Decline => json!({"action": "decline"}),
        Answer::Cancel { reason } => json!({"action": "cancel", "reason": reason}),
        _ => json!({"action": "unknown"}),
    };
    match &answer {
        _ if is_json => output::json(&shown),
        Answer::Accept(content) if content.is_empty() => output::line("accepted"),
        Answer::Accept(content) => {
            output::line(format!("accepted: {}", output::plain(&Value::from(content.clone()).to_string(), 10_000)));
        }
        Answer::Decline => output::line("declined"),
        Answer::Cancel { reason: Some(reason) } => output::line(format!("cancelled: {}", output::plain(reason, 300))),
        _ => output::line("cancelled by the user"),
    }
    Ok(matches!(answer, Answer::Accept(_)).into())
}
