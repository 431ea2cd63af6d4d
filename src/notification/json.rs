//! [`Object`]: params or `_meta` in the form in which a producer gave them.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::json::{self, Fields, NoObject};
use crate::notification::InvalidNotification;

/// JSON object: as fields to be rendered, or as the text that its producer wrote.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Object {
    Fields(Map<String, Value>),
    Text(String),
}

impl Object {
    /// Converts a value. `null` gives no object. The error names the kind of any other value.
    pub(super) fn of(value: Value) -> Result<Option<Self>, &'static str> {
        match value {
            Value::Object(fields) => Ok(Some(Self::Fields(fields))),
            Value::Null => Ok(None),
            other => Err(json::kind(&other)),
        }
    }

    /// Converts a text. `null` gives no object. `of_kind` makes the error for a value of any other kind.
    pub(super) fn of_text(
        field: &'static str,
        text: &str,
        of_kind: impl Fn(&'static str) -> InvalidNotification,
    ) -> Result<Option<Self>, InvalidNotification> {
        let wrong = |why: String| InvalidNotification::Json { field, why };
        match Fields::of(text) {
            Err(NoObject::Syntax(error)) => Err(wrong(error.to_string())),
            Err(NoObject::Kind(_)) if text.trim() == "null" => Ok(None),
            Err(NoObject::Kind(kind)) => Err(of_kind(kind)),
            Ok(_) if json::survey(text).has_half_a_pair => Err(wrong(json::HALF_A_PAIR.to_owned())),
            Ok(_) => Ok(Some(Self::Text(text.to_owned()))),
        }
    }

    /// Returns the object as text.
    pub(crate) fn to_text(&self) -> Cow<'_, str> {
        match self {
            // A map from strings to values has nothing that JSON cannot hold.
            Self::Fields(fields) => serde_json::to_string(fields).unwrap_or_default().into(),
            Self::Text(text) => text.into(),
        }
    }

    /// Returns the field of this name, where it is a string.
    pub(super) fn string(&self, name: &str) -> Option<Cow<'_, str>> {
        match self {
            Self::Fields(fields) => Some(fields.get(name)?.as_str()?.into()),
            Self::Text(text) => json::string(Fields::of(text).ok()?.get(name)?),
        }
    }

    /// Returns the JSON of the field of this name, if there is one.
    pub(super) fn json(&self, name: &str) -> Option<Cow<'_, str>> {
        match self {
            Self::Fields(fields) => Some(fields.get(name)?.to_string().into()),
            Self::Text(text) => Some(Fields::of(text).ok()?.get(name)?.to_owned().into()),
        }
    }

    /// Sets a field of the object.
    pub(super) fn set(&mut self, name: &str, value: Value) {
        match self {
            Self::Fields(fields) => drop(fields.insert(name.to_owned(), value)),
            Self::Text(text) => {
                // The text was checked when the object was created.
                let mut fields = Fields::of(text).unwrap_or_default();
                let value = value.to_string();
                fields.set(name, &value);
                *text = fields.to_text();
            }
        }
    }

    /// Returns whether the object has more levels than `limit`.
    pub(super) fn is_deeper(&self, limit: usize) -> bool {
        match self {
            Self::Fields(fields) => json::nests_deeper(fields.values(), limit.saturating_sub(1)),
            Self::Text(text) => json::survey(text).depth > limit,
        }
    }
}

impl Default for Object {
    fn default() -> Self {
        Self::Fields(Map::new())
    }
}
