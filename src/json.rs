//! JSON as text. An object is split into its fields, and each value stays as its author wrote it.
//!
//! No function here converts a number into a Rust number, so none is rounded.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Value, json};

mod cursor;

pub(crate) use self::cursor::Cursor;

/// Fields of an object, in their order. A name may occur twice: readers of JSON use the last of its values.
#[derive(Debug, Default)]
pub(crate) struct Fields<'a>(Vec<(Cow<'a, str>, &'a str)>);

/// Reason why a text has no fields.
#[derive(Debug)]
pub(crate) enum NoObject {
    /// The text is no JSON.
    Syntax(serde_json::Error),
    /// The text is JSON of another kind.
    Kind(&'static str),
}

/// Returns what is wrong with a text that others wrote, without the values that an error of serde_json quotes.
pub(crate) fn fault(error: &serde_json::Error) -> String {
    let what = if error.is_data() { "a field is missing or has another type" } else { "the text is no JSON" };
    format!("{what} (line {}, column {})", error.line(), error.column())
}

impl<'a> Fields<'a> {
    /// Reads an object. The syntax of the whole text is checked, but strings only as far as they need no decoding: see
    /// [`survey`].
    pub(crate) fn of(text: &'a str) -> Result<Self, NoObject> {
        if !text.trim_ascii_start().starts_with('{') {
            serde_json::from_str::<IgnoredAny>(text).map_err(NoObject::Syntax)?;
            return Err(NoObject::Kind(kind_of(text)));
        }
        serde_json::from_str(text).map_err(NoObject::Syntax)
    }

    /// Returns the text of the last field of this name.
    pub(crate) fn get(&self, name: &str) -> Option<&'a str> {
        self.0.iter().rev().find(|(other, _)| other == name).map(|(_, value)| *value)
    }

    /// Returns all fields in their order.
    #[cfg(test)]
    pub(crate) fn each(&self) -> impl Iterator<Item = (&str, &'a str)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), *value))
    }

    /// Removes all fields of this name, and returns the text of the last.
    pub(crate) fn remove(&mut self, name: &str) -> Option<&'a str> {
        let at = self.0.iter().rposition(|(other, _)| other == name)?;
        let (_, value) = self.0.remove(at);
        self.0.retain(|(other, _)| other != name);
        Some(value)
    }

    /// Sets a field: in place of the first of this name, or behind all others.
    pub(crate) fn set(&mut self, name: &'a str, value: &'a str) {
        let at = self.0.iter().position(|(other, _)| other == name).unwrap_or(self.0.len());
        self.0.retain(|(other, _)| other != name);
        self.0.insert(at, (name.into(), value));
    }

    /// Adds the fields of another object behind these. Fields of the same names are removed from these.
    pub(crate) fn extend(&mut self, other: Self) {
        if self.0.is_empty() {
            *self = other;
            return;
        }
        // A hash set, because a producer decides how many fields there are.
        let names: HashSet<&str> = other.0.iter().map(|(name, _)| name.as_ref()).collect();
        self.0.retain(|(name, _)| !names.contains(name.as_ref()));
        self.0.extend(other.0);
    }

    /// Appends `{"name":value,…}` to a text.
    pub(crate) fn write(&self, out: &mut String) {
        out.push('{');
        for (n, (name, value)) in self.0.iter().enumerate() {
            if n > 0 {
                out.push(',');
            }
            push_field(out, name, value);
        }
        out.push('}');
    }

    /// Returns the object as text.
    pub(crate) fn to_text(&self) -> String {
        let mut text = String::new();
        self.write(&mut text);
        text
    }

    /// Appends the fields to an open object: `,"name":value` for each.
    pub(crate) fn append_to(&self, out: &mut String) {
        for (name, value) in &self.0 {
            out.push(',');
            push_field(out, name, value);
        }
    }
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Vec::new();
                while let Some((Text(name), value)) = map.next_entry::<Text<'de>, &RawValue>()? {
                    fields.push((name, value.get()));
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Reads a JSON string. Returns `None` for JSON of any other kind.
pub(crate) fn string(text: &str) -> Option<Cow<'_, str>> {
    serde_json::from_str::<Text<'_>>(text).ok().map(|Text(text)| text)
}

fn push_field(out: &mut String, name: &str, value: &str) {
    push_string(out, name);
    out.push(':');
    out.push_str(value);
}

/// Returns a text as a JSON string.
pub(crate) fn quoted(string: &str) -> String {
    let mut text = String::with_capacity(string.len() + 2);
    push_string(&mut text, string);
    text
}

/// Returns whether a byte needs no escape in a JSON string.
fn is_plain(byte: u8) -> bool {
    (byte >= b' ') & (byte != b'"') & (byte != b'\\')
}

/// Returns whether bytes need no escape in a JSON string.
pub(crate) fn are_plain(bytes: &[u8]) -> bool {
    // The loop has no early exit, so that the compiler can check many bytes at a time.
    bytes.iter().fold(true, |plain, b| plain & is_plain(*b))
}

/// Appends a JSON string to a text.
pub(crate) fn push_string(out: &mut String, string: &str) {
    if are_plain(string.as_bytes()) {
        out.push('"');
        out.push_str(string);
        out.push('"');
    } else {
        out.push_str(&json!(string).to_string());
    }
}

/// Returns the same JSON without line breaks. JSON has line breaks between its tokens only, where they mean nothing.
pub(crate) fn on_one_line(text: &str) -> Cow<'_, str> {
    if text.bytes().any(|b| b == b'\n' || b == b'\r') { text.replace(['\n', '\r'], "").into() } else { text.into() }
}

/// Reason for the refusal of a text where [`survey`] found half of a surrogate pair.
pub(crate) const HALF_A_PAIR: &str = "a string has half of a surrogate pair, which is no character";

/// Properties of a JSON text that the syntax check does not show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Survey {
    /// Number of objects and arrays around the innermost value, that value included.
    pub(crate) depth: usize,
    /// Set where a string has an escape for half of a surrogate pair, which is no character. Many readers refuse such a
    /// string.
    pub(crate) has_half_a_pair: bool,
}

/// Surveys a text whose syntax was checked.
pub(crate) fn survey(text: &str) -> Survey {
    let bytes = text.as_bytes();
    let (mut depth, mut deepest, mut has_half_a_pair) = (0_usize, 0, false);
    let (mut at, mut is_in_string) = (0, false);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => is_in_string = !is_in_string,
            b'\\' => {
                let first = escaped(bytes, at);
                at += 1;
                match first {
                    Some(0xd800..=0xdbff) if matches!(escaped(bytes, at + 5), Some(0xdc00..=0xdfff)) => at += 10,
                    Some(0xd800..=0xdfff) => has_half_a_pair = true,
                    _ => {}
                }
            }
            _ if is_in_string => {}
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    Survey { depth: deepest, has_half_a_pair }
}

/// Returns the code unit of an escape `\u1234` at this position.
fn escaped(bytes: &[u8], at: usize) -> Option<u16> {
    let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// Names the kind of a JSON text, for an error that must not show the text.
pub(crate) fn kind_of(text: &str) -> &'static str {
    match text.trim_ascii_start().as_bytes().first() {
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') | None => "absent or null",
        Some(_) => "a number",
    }
}

/// Names the kind of a JSON value, for an error that must not show the value.
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

/// Number of levels to which params and `_meta` may be nested. Readers of the queue, and many clients, stop at 128, and
/// the envelope needs some of these levels.
pub(crate) const MAX_DEPTH: usize = 100;

/// Returns whether a value is nested deeper than `limit`. The check recurses no deeper than `limit`.
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
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_fault_shows_its_place_and_no_value() {
        let fault_of = |text| fault(&serde_json::from_str::<[u8; 2]>(text).unwrap_err());
        assert_eq!(fault_of("[1,\n\"S3CRET\"]"), "a field is missing or has another type (line 2, column 8)");
        assert_eq!(fault_of("[1, S3CRET]"), "the text is no JSON (line 1, column 5)");
    }

    #[test]
    fn depth_is_counted_in_objects_and_arrays() {
        let value = json!({"a": [1, {"b": 2}], "c": 3});
        assert!(!nests_deeper([&value], 3));
        assert!(nests_deeper([&value], 2));
        assert!(!nests_deeper([&json!(1)], 0));
        assert_eq!(survey(&value.to_string()).depth, 3);
        assert_eq!(survey(r#"{"[[[\"[[":"]\\"}"#), Survey { depth: 1, has_half_a_pair: false });
    }

    #[test]
    fn half_a_surrogate_pair_is_found_and_a_whole_one_is_none() {
        for (text, expected) in [
            (r#""\ud83d\udca9""#, false),
            (r#""\uD83D\uDCA9x""#, false),
            (r#""\\ud83d""#, false),
            (r#""\ud83d""#, true),
            (r#""\udca9\ud83d""#, true),
            (r#""\ud83d\ud83d\udca9""#, true),
            (r#""\ud83dx\udca9""#, true),
            (r#"{"\udfff":1}"#, true),
        ] {
            assert_eq!(survey(text).has_half_a_pair, expected, "{text}");
        }
    }

    #[test]
    fn a_field_that_is_set_stands_where_it_stood() {
        let mut fields = Fields::of(r#" {"a": 1.0, "b" :2,"a":3, "\u0062":4} "#).unwrap();
        assert_eq!((fields.get("a"), fields.get("b"), fields.get("c")), (Some("3"), Some("4"), None));
        fields.set("a", "5");
        fields.set("c", "6");
        assert_eq!(fields.to_text(), r#"{"a":5,"b":2,"b":4,"c":6}"#);
        assert_eq!(fields.remove("b"), Some("4"));
        fields.extend(Fields::of(r#"{"c": 1E400}"#).unwrap());
        assert_eq!(fields.to_text(), r#"{"a":5,"c":1E400}"#);
    }

    #[test]
    fn what_is_no_object_is_named() {
        for (text, expected) in
            [("[]", "an array"), ("-0", "a number"), (" null", "absent or null"), ("\"{\"", "a string")]
        {
            assert!(matches!(Fields::of(text), Err(NoObject::Kind(kind)) if kind == expected), "{text}");
        }
        for text in ["", "{", "[", "{\"a\":01}", "{}x", "{\"a\":\"\n\"}", "NaN"] {
            assert!(matches!(Fields::of(text), Err(NoObject::Syntax(_))), "{text}");
        }
    }

    proptest! {
        #[test]
        fn strings_are_written_as_serde_writes_them(text in ".*") {
            let mut written = String::new();
            push_string(&mut written, &text);
            prop_assert_eq!(&written, &json!(text).to_string());
            prop_assert_eq!(string(&written).unwrap(), text);
        }
    }
}
