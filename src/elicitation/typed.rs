//! Questions whose form is a Rust type.

use std::time::Duration;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Elicitor;
use super::flat::{Flat, flat};
use super::schema::Schema;
use crate::elicitation::ElicitError;
use crate::question::{Answer, Elicitation, TaskKey};
use crate::session_id::SessionId;

/// Outcome of a typed question.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Elicited<T> {
    /// The user answered with this content.
    Accepted(T),
    /// The user declined.
    Declined,
    /// The user dismissed the question, or could not be asked.
    Cancelled {
        /// Reason, where the cancellation was not the user's act.
        reason: Option<String>,
    },
}

impl Elicitor {
    /// Asks for a `T`, a struct whose fields become the form's fields. Otherwise this method does the same as
    /// [`elicit`](Self::elicit).
    ///
    /// A field may be a `bool`, an integer, a float, a `String`, a `char`, or an enum without data. A `Vec` of such an
    /// enum is possible, and an `Option` of each. Types are possible too whose schema has one of these formats: date,
    /// date and time, URI, e-mail address, UUID, IP address. An integer is asked for within the bounds of its type and
    /// of `i64`.
    ///
    /// A whole number is an integer however the client writes it, `3`, `3.0` or `3e0`. Content that the schema of `T`
    /// accepts and its [`Deserialize`](serde::Deserialize) refuses is [`Elicited::Cancelled`].
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use mcp_courier::{Elicited, Elicitor, SessionId, TaskKey};
    /// use schemars::JsonSchema;
    /// use serde::Deserialize;
    ///
    /// #[derive(Deserialize, JsonSchema)]
    /// struct Approval {
    ///     approve: bool,
    ///     /// Why, if you like.
    ///     comment: Option<String>,
    /// }
    ///
    /// # async fn worker(elicitor: Elicitor, session: SessionId) -> Result<(), Box<dyn std::error::Error>> {
    /// let (task, patience) = (TaskKey::anonymous("task-7")?, Duration::from_secs(600));
    /// match elicitor.elicit_as::<Approval>(&session, &task, "Pay 1,200 €?", patience).await? {
    ///     Elicited::Accepted(approval) => println!("{}", approval.approve),
    ///     _ => println!("no answer"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ElicitError`] as from [`elicit`](Self::elicit), and where `T` has a field that a form cannot have.
    ///
    /// # Cancellation
    /// Dropping the future withdraws the question.
    pub async fn elicit_as<T: DeserializeOwned + JsonSchema>(
        &self,
        session: &SessionId,
        task: &TaskKey,
        message: &str,
        timeout: Duration,
    ) -> Result<Elicited<T>, ElicitError> {
        let Flat { shown, checked } = flat(schema_of::<T>())?;
        let (question, schema) = (Elicitation::form(message, shown)?, Schema::build(checked)?);
        Ok(match self.elicit_checked(session, task, question, &schema, timeout).await? {
            Answer::Accept(content) => match serde_json::from_value(Value::Object(content)) {
                Ok(content) => Elicited::Accepted(content),
                // The error quotes the content, which may be private.
                Err(_) => Elicited::Cancelled { reason: Some("the client's answer does not fit the type".to_owned()) },
            },
            Answer::Decline => Elicited::Declined,
            Answer::Cancel { reason } => Elicited::Cancelled { reason },
        })
    }
}

/// Returns the schema that `T` has for deserialisation, without references.
fn schema_of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    settings.into_generator().into_root_schema_for::<T>().to_value()
}

#[cfg(test)]
mod tests;
