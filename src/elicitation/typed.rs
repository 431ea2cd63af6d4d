//! Questions whose form is a Rust type.

use std::time::Duration;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::Elicitor;
use crate::error::ElicitError;
use crate::question::{Answer, Elicitation, TaskKey};
use crate::session_id::SessionId;

/// What came of a typed question.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Elicited<T> {
    /// The user answered.
    Accepted(T),
    /// The user said no.
    Declined,
    /// The user gave no answer, or could not be asked.
    Cancelled {
        /// Why, where it was not the user.
        reason: Option<String>,
    },
}

impl Elicitor {
    /// Asks for a `T`: its fields, which must be of primitive types, are those of the form. All else is as of
    /// [`elicit`](Self::elicit). Content that fits the schema and is no `T` all the same is [`Elicited::Cancelled`].
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
    /// [`ElicitError`] as from [`elicit`](Self::elicit); also where `T` has a field that a form cannot have.
    ///
    /// # Cancellation
    /// Dropping it withdraws the question.
    pub async fn elicit_as<T: DeserializeOwned + JsonSchema>(
        &self,
        session: &SessionId,
        task: &TaskKey,
        message: &str,
        timeout: Duration,
    ) -> Result<Elicited<T>, ElicitError> {
        let question = Elicitation::form(message, schema_of::<T>())?;
        Ok(match self.elicit(session, task, question, timeout).await? {
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

/// The schema of a type in the narrow form that MCP allows: no references, and no null beside a type.
fn schema_of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    let properties = schema.get_mut("properties").and_then(Value::as_object_mut);
    for property in properties.into_iter().flat_map(Map::values_mut) {
        // An optional field is one that may be left out, and not one that may be null.
        if let Some(types) = property.get_mut("type")
            && let Some([one]) = types.as_array().map(|types| without_null(types)).as_deref()
        {
            *types = one.clone();
        }
        let Some(property) = property.as_object_mut() else { continue };
        if let Some(choices) = property.get_mut("enum").and_then(Value::as_array_mut) {
            choices.retain(|choice| !choice.is_null());
        }
        if property.get("default").is_some_and(Value::is_null) {
            property.remove("default");
        }
    }
    schema
}

fn without_null(types: &[Value]) -> Vec<Value> {
    types.iter().filter(|one| *one != "null").cloned().collect()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Deserialize, JsonSchema)]
    #[allow(dead_code)]
    struct Form {
        approve: bool,
        /// Why.
        comment: Option<String>,
        #[schemars(range(min = 1))]
        amount: u8,
        colour: Colour,
    }

    #[derive(Deserialize, JsonSchema)]
    #[allow(dead_code)]
    enum Colour {
        Red,
        Green,
    }

    #[derive(Deserialize, JsonSchema)]
    #[allow(dead_code)]
    struct Nested {
        form: Form,
    }

    #[test]
    fn a_types_fields_become_those_of_a_form() {
        let schema = schema_of::<Form>();
        assert_eq!(schema["properties"]["comment"], json!({"description": "Why.", "type": "string"}));
        assert_eq!(schema["properties"]["colour"]["enum"], json!(["Red", "Green"]));
        assert_eq!(schema["required"], json!(["approve", "amount", "colour"]));
        assert!(Elicitation::form("?", schema).is_ok());
    }

    #[test]
    fn an_optional_field_has_no_null_anywhere() {
        #[derive(Deserialize, JsonSchema)]
        #[allow(dead_code)]
        struct Optional {
            colour: Option<Colour>,
            #[serde(default)]
            comment: Option<String>,
        }
        let schema = schema_of::<Optional>();
        assert_eq!(schema["properties"]["colour"], json!({"type": "string", "enum": ["Red", "Green"]}));
        assert_eq!(schema["properties"]["comment"], json!({"type": "string"}));
    }

    #[test]
    fn a_type_that_no_form_can_have_is_refused() {
        let error = Elicitation::form("?", schema_of::<Nested>()).unwrap_err();
        assert!(error.to_string().contains("\"form\""), "{error}");
    }
}
