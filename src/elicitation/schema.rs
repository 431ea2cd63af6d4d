//! Checking what a user entered against the schema of its form.

use jsonschema::Validator;
use serde_json::{Map, Value};

use crate::error::InvalidQuestion;
use crate::question::{Answer, Elicitation};

/// What accepted content must look like.
pub(super) struct Schema(Option<Validator>);

impl Schema {
    pub(super) fn of(elicitation: &Elicitation) -> Result<Self, InvalidQuestion> {
        match elicitation {
            Elicitation::Form { requested_schema, .. } => {
                let schema = Value::Object(requested_schema.clone());
                let validator = jsonschema::options()
                    .should_validate_formats(true)
                    .build(&schema)
                    .map_err(|e| InvalidQuestion::Schema { why: format!("it is no JSON schema: {e}") })?;
                Ok(Self(Some(validator)))
            }
            // A page takes the input, and the client sends none.
            Elicitation::Url { .. } => Ok(Self(None)),
        }
    }

    /// The answer if its content fits, and else a cancellation that says what does not.
    pub(super) fn check(&self, content: Map<String, Value>) -> Answer {
        let Some(validator) = &self.0 else { return Answer::Accept(content) };
        let content = Value::Object(content);
        // The error quotes the content, which may be private: where it is wrong is enough.
        let wrong = validator.iter_errors(&content).next().map(|error| error.instance_path().to_string());
        match wrong {
            Some(at) => {
                let at = if at.is_empty() { "/".to_owned() } else { at };
                Answer::cancelled(format!("the client's answer does not fit the schema at {at}"))
            }
            None => Answer::Accept(super::into_object(content)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn content_is_checked_and_what_is_wrong_is_located_and_not_quoted() {
        let schema = json!({"type": "object", "required": ["n"], "properties": {
            "n": {"type": "integer", "minimum": 1}, "mail": {"type": "string", "format": "email"}}});
        let schema = Schema::of(&Elicitation::form("?", schema).unwrap()).unwrap();
        let check = |content: Value| schema.check(super::super::into_object(content));
        assert_eq!(check(json!({"n": 1})), Answer::Accept(super::super::into_object(json!({"n": 1}))));
        for (content, at) in [
            (json!({}), "/"),
            (json!({"n": 0}), "/n"),
            (json!({"n": "secret"}), "/n"),
            (json!({"n": 1, "mail": "secret"}), "/mail"),
        ] {
            let wrong = format!("the client's answer does not fit the schema at {at}");
            assert_eq!(check(content), Answer::cancelled(wrong));
        }
    }
}
