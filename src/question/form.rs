//! Rules of MCP 2025-11-25 for the fields of a form.

use serde_json::{Map, Value};

/// Formats of text that a form may ask for.
pub(crate) const FORMATS: [&str; 4] = ["email", "uri", "date", "date-time"];

/// Description of the allowed fields, for errors.
pub(crate) const ALLOWED: &str = "a field of a form must be a string (of any text, or of the format email, uri, date or \
    date-time), a number, an integer, a boolean, a choice of one name (a string with `enum`, or with `oneOf` of `const` \
    and `title`), or of several (an array whose `items` are one with `enum`, or `anyOf` of `const` and `title`)";

/// Returns whether MCP allows a field in a form.
pub(crate) fn is_allowed(field: &Value) -> bool {
    let Some(field) = field.as_object() else { return false };
    match field.get("type").and_then(Value::as_str) {
        Some("number" | "integer" | "boolean") => true,
        Some("string") => {
            let format = field.get("format").is_none_or(|format| FORMATS.iter().any(|allowed| format == allowed));
            let has_names = field.get("enum").is_none_or(are_names);
            format && has_names && field.get("oneOf").is_none_or(are_titled)
        }
        Some("array") => field.get("items").and_then(Value::as_object).is_some_and(are_choices),
        _ => false,
    }
}

fn are_choices(items: &Map<String, Value>) -> bool {
    match items.get("anyOf") {
        Some(titled) => are_titled(titled),
        None => items.get("type").is_some_and(|kind| kind == "string") && items.get("enum").is_some_and(are_names),
    }
}

fn are_names(names: &Value) -> bool {
    names.as_array().is_some_and(|names| !names.is_empty() && names.iter().all(Value::is_string))
}

fn are_titled(choices: &Value) -> bool {
    let is_titled =
        |choice: &Value| ["const", "title"].iter().all(|part| choice.get(part).is_some_and(Value::is_string));
    choices.as_array().is_some_and(|choices| !choices.is_empty() && choices.iter().all(is_titled))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_mcp_shows_as_a_field_is_allowed_and_nothing_else() {
        let titled = json!([{"const": "r", "title": "Red"}]);
        for field in [
            json!({"type": "string", "minLength": 1, "title": "Name"}),
            json!({"type": "string", "format": "date-time"}),
            json!({"type": "string", "enum": ["a"], "enumNames": ["A"]}),
            json!({"type": "string", "oneOf": titled}),
            json!({"type": "number", "minimum": 0.5}),
            json!({"type": "integer"}),
            json!({"type": "boolean", "default": true}),
            json!({"type": "array", "items": {"type": "string", "enum": ["a"]}, "maxItems": 2}),
            json!({"type": "array", "items": {"anyOf": titled}}),
        ] {
            assert!(is_allowed(&field), "{field}");
        }
        for field in [
            json!(true),
            json!({}),
            json!({"type": ["string", "null"]}),
            json!({"type": "object"}),
            json!({"type": "null"}),
            json!({"oneOf": titled}),
            json!({"type": "string", "format": "uuid"}),
            json!({"type": "string", "enum": ["a", null]}),
            json!({"type": "string", "oneOf": [{"const": "a", "description": "A"}]}),
            json!({"type": "array"}),
            json!({"type": "array", "items": {"type": "string"}}),
            json!({"type": "array", "items": {"type": "integer", "enum": [1]}}),
        ] {
            assert!(!is_allowed(&field), "{field}");
        }
    }
}
