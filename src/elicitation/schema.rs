//! Check of a user's input against the schema of its form.

use jsonschema::Validator;
use serde_json::{Map, Value};

use crate::question::InvalidQuestion;
use crate::question::{Answer, Elicitation};

/// Schema that accepted content must fit; `None` for a question without a form.
pub(super) struct Schema(Option<(Validator, Value)>);

impl Schema {
    /// Returns the schema of a question's form. A question of URL mode has none.
    pub(super) fn of(elicitation: &Elicitation) -> Result<Self, InvalidQuestion> {
        match elicitation {
            Elicitation::Form { requested_schema, .. } => Self::build(Value::Object(requested_schema.clone())),
            // In URL mode a web page takes the input, and the client sends no content.
            Elicitation::Url { .. } => Ok(Self(None)),
        }
    }

    /// Compiles a schema.
    pub(super) fn build(schema: Value) -> Result<Self, InvalidQuestion> {
        let validator = jsonschema::options()
            .should_validate_formats(true)
            .build(&schema)
            .map_err(|e| InvalidQuestion::Schema { why: format!("it is no JSON schema: {e}") })?;
        Ok(Self(Some((validator, schema))))
    }

    /// Returns the answer if its content fits the schema, and otherwise a cancellation that names the place of the
    /// fault.
    pub(super) fn check(&self, mut content: Map<String, Value>) -> Answer {
        let Some((validator, schema)) = &self.0 else { return Answer::Accept(content) };
        normalise(schema, &mut content);
        let content = Value::Object(content);
        // The validator's error quotes the content, which may be private. The place of the fault is enough.
        let wrong = validator.iter_errors(&content).next().map(|error| error.instance_path().to_string());
        match wrong {
            Some(at) => {
                let at = if at.is_empty() { "/".to_owned() } else { at };
                Answer::cancelled(format!("the client's answer does not fit the schema at {at}"))
            }
            None => Answer::Accept(into_object(content)),
        }
    }
}

/// Returns the fields of an object, and none of any other value.
pub(super) fn into_object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// Rewrites content into the form that a Rust type reads. A JSON schema accepts 3.0 as an integer and serde does not.
/// An optional field that is null is removed.
fn normalise(schema: &Value, content: &mut Map<String, Value>) {
    let is_required =
        |name: &str| schema["required"].as_array().is_some_and(|names| names.iter().any(|one| one == name));
    let field = |name: &str| schema["properties"].get(name);
    content.retain(|name, value| !value.is_null() || is_required(name) || field(name).is_none());
    for (name, value) in content {
        if field(name).is_some_and(|field| field["type"] == "integer")
            && let Some(whole) = value.as_f64().filter(|_| value.is_f64()).and_then(whole)
        {
            *value = whole;
        }
    }
}

/// Returns a whole number of at most 64 bits as an integer.
fn whole(number: f64) -> Option<Value> {
    // The bounds are powers of two, which a float holds exactly.
    const I64: std::ops::Range<f64> = -9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0;
    const U64: std::ops::Range<f64> = 0.0..18_446_744_073_709_551_616.0;
    match number {
        _ if number.fract() != 0.0 => None,
        _ if I64.contains(&number) => Some((number as i64).into()),
        _ if U64.contains(&number) => Some((number as u64).into()),
        _ => None,
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
        let check = |content: Value| schema.check(into_object(content));
        assert_eq!(check(json!({"n": 1})), Answer::Accept(into_object(json!({"n": 1}))));
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
