//! What is asked of JSON before it is taken: its kind, and how deep it goes.

use serde_json::{Map, Value};

/// An object, or none.
pub(super) fn object(value: Value) -> Result<Option<Map<String, Value>>, &'static str> {
    match value {
        Value::Object(map) => Ok(Some(map)),
        Value::Null => Ok(None),
        other => Err(kind(&other)),
    }
}

/// Which kind of JSON it is, for an error that must not show what is in it.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "absent or null",
        Value::Object(_) => "an object",
        Value::Array(_) => "an array",
        Value::String(_) => "a string",
        Value::Number(_) => "a number",
        Value::Bool(_) => "a boolean",
    }
}

/// How deep JSON may be nested. Whoever reads it from the queue, and many a client, stops at 128, and the envelope and a
/// question's place in it need some of that.
pub(crate) const MAX_DEPTH: usize = 100;

/// Whether it is nested deeper than `limit`; it goes no deeper itself.
pub(crate) fn nests_deeper<'a>(values: impl IntoIterator<Item = &'a Value>, limit: usize) -> bool {
    values.into_iter().any(|value| match value {
        Value::Object(_) | Value::Array(_) if limit == 0 => true,
        Value::Object(fields) => nests_deeper(&mut fields.values() as &mut dyn Iterator<Item = _>, limit - 1),
        Value::Array(items) => nests_deeper(&mut items.iter() as &mut dyn Iterator<Item = _>, limit - 1),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn depth_is_counted_in_objects_and_arrays() {
        let value = json!({"a": [1, {"b": 2}], "c": 3});
        assert!(!nests_deeper([&value], 3));
        assert!(nests_deeper([&value], 2));
        assert!(!nests_deeper([&json!(1)], 0));
    }
}
