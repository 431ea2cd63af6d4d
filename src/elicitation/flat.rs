//! Conversion of the schema that `schemars` makes of a type into a form of MCP. Such a form is flat and has few
//! keywords.
//!
//! | type of a field | field of the form |
//! | --- | --- |
//! | `bool`, `String`, `char`, `f32`, `f64` | boolean, string, number |
//! | integers, also `NonZero…` | integer, within the bounds of the type and of `i64`, which clients can read |
//! | enum without data | string with `enum`; what is documented of the variants stands in the field's description |
//! | `Vec` or a set of such an enum | array of them |
//! | `Option` | the same field, which may be left out |
//! | dates, times with a date, URLs | string with the format that MCP has for it |
//! | UUIDs and IP addresses | string, whose format is checked here, since MCP has none for it |
//! | all others | refused |

use serde_json::{Map, Value, json};

use crate::question::InvalidQuestion;
use crate::question::{ALLOWED, FORMATS};

/// Formats that are checked here, because MCP has none of these names.
const CHECKED_HERE: [&str; 4] = ["uuid", "ipv4", "ipv6", "ip"];

/// Form that was made of a type.
pub(super) struct Flat {
    /// Schema that the client gets, within the keywords of MCP.
    pub(super) shown: Value,
    /// Schema that the answer is checked against. It is stricter where MCP has no keyword for a rule of the type.
    pub(super) checked: Value,
}

/// Converts the schema of a type into a form.
pub(super) fn flat(schema: Value) -> Result<Flat, InvalidQuestion> {
    let wrong = |why: String| Err(InvalidQuestion::Schema { why });
    let Value::Object(mut schema) = schema else { return wrong("the type may be anything".to_owned()) };
    if ["oneOf", "anyOf", "allOf", "$ref"].iter().any(|keyword| schema.contains_key(*keyword)) {
        return wrong("the type is not one struct with named fields".to_owned());
    }
    // A struct without fields makes a form without fields. A map has fields that no form can show.
    if schema.get("type") == Some(&json!("object")) && schema.get("additionalProperties").is_none_or(Value::is_boolean)
    {
        schema.entry("properties").or_insert_with(|| json!({}));
    }
    let (mut shown, mut checked) = (schema.clone(), schema);
    let fields = checked.get_mut("properties").and_then(Value::as_object_mut);
    for (name, field) in fields.into_iter().flatten() {
        let mut flat = match field.take() {
            Value::Object(field) => flat_field(field),
            other => return wrong(format!("field {name:?} is {other}; {ALLOWED}")),
        };
        let mut checked = flat.clone();
        if let Some(format) = flat.get("format").and_then(Value::as_str).map(str::to_owned) {
            if CHECKED_HERE.contains(&format.as_str()) {
                flat.remove("format");
            } else if !FORMATS.contains(&format.as_str()) {
                return wrong(format!("field {name:?} has the format {format:?}; {ALLOWED}"));
            }
            if format == "ip" {
                checked.remove("format");
                checked.insert("anyOf".to_owned(), json!([{"format": "ipv4"}, {"format": "ipv6"}]));
            }
        }
        shown["properties"][name.as_str()] = Value::Object(flat);
        *field = Value::Object(checked);
    }
    Ok(Flat { shown: Value::Object(shown), checked: Value::Object(checked) })
}

/// Converts the schema of one field.
fn flat_field(field: Map<String, Value>) -> Map<String, Value> {
    let mut field = with_choices(without_null(field));
    if let Some(Value::Object(items)) = field.get_mut("items") {
        *items = with_choices(without_null(std::mem::take(items)));
        if let Some(description) = items.remove("description") {
            describe(&mut field, &description);
        }
    }
    match field.get("type").and_then(Value::as_str) {
        Some("integer") => bound(&mut field),
        // MCP has formats for strings only.
        Some("number") => drop(field.remove("format")),
        _ => {}
    }
    field
}

/// Converts a field that may be null into one that may be left out, because MCP has no null.
fn without_null(mut field: Map<String, Value>) -> Map<String, Value> {
    let is_null =
        |branch: &Value| branch.get("type") == Some(&json!("null")) || branch.get("const") == Some(&Value::Null);
    for keyword in ["anyOf", "oneOf"] {
        let Some(Value::Array(branches)) = field.get_mut(keyword) else { continue };
        branches.retain(|branch| !is_null(branch));
        if let [Value::Object(only)] = branches.as_mut_slice() {
            let only = std::mem::take(only);
            field.remove(keyword);
            // The field's own description takes precedence over its type's.
            for (name, value) in only {
                field.entry(name).or_insert(value);
            }
        }
    }
    if let Some(types) = field.get_mut("type")
        && let Some([one]) = types.as_array().map(|types| without(types, "null")).as_deref()
    {
        *types = one.clone();
    }
    if let Some(Value::Array(names)) = field.get_mut("enum") {
        names.retain(|name| !name.is_null());
    }
    if field.get("default").is_some_and(Value::is_null) {
        field.remove("default");
    }
    field
}

fn without(types: &[Value], kind: &str) -> Vec<Value> {
    types.iter().filter(|one| *one != kind).cloned().collect()
}

/// Merges the branches that `schemars` writes for documented variants into one list of names. Each branch is a constant
/// with a description.
fn with_choices(mut field: Map<String, Value>) -> Map<String, Value> {
    if let Some(name) = field.remove("const") {
        field.insert("enum".to_owned(), json!([name]));
    }
    let branches = field.get("oneOf").or(field.get("anyOf")).and_then(Value::as_array);
    let Some(choices) = branches.and_then(|branches| branches.iter().map(names_of).collect::<Option<Vec<_>>>()) else {
        return field;
    };
    field.remove("oneOf");
    field.remove("anyOf");
    field.insert("type".to_owned(), json!("string"));
    let names: Vec<&str> = choices.iter().flat_map(|(names, _)| names).map(String::as_str).collect();
    field.insert("enum".to_owned(), json!(names));
    for (names, description) in &choices {
        if let (Some(description), [name]) = (description, names.as_slice()) {
            describe(&mut field, &json!(format!("{name}: {description}")));
        }
    }
    field
}

/// Returns the names of one branch, and their description.
fn names_of(branch: &Value) -> Option<(Vec<String>, Option<String>)> {
    if branch.get("type")? != "string" {
        return None;
    }
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let names = match (branch.get("const"), branch.get("enum")) {
        (Some(name), None) => vec![text(name)?],
        (None, Some(names)) => names.as_array()?.iter().map(text).collect::<Option<_>>()?,
        _ => return None,
    };
    Some((names, branch.get("description").and_then(text)))
}

/// Adds a paragraph to the description of a field.
fn describe(field: &mut Map<String, Value>, more: &Value) {
    let more = more.as_str().unwrap_or_default();
    let text = match field.get("description").and_then(Value::as_str) {
        Some(text) => format!("{text}\n\n{more}"),
        None => more.to_owned(),
    };
    field.insert("description".to_owned(), json!(text));
}

/// Bounds an integer by its type. `schemars` names the type in `format` and does not bound the wider types. No bound
/// exceeds `i64`, because typed clients read bounds into that type.
fn bound(field: &mut Map<String, Value>) {
    let format = field.remove("format");
    let (least, most) = match format.as_ref().and_then(Value::as_str) {
        Some("int32") => (i32::MIN.into(), i32::MAX.into()),
        Some("uint32") => (0, u32::MAX.into()),
        Some("int") => (isize::MIN as i64, isize::MAX as i64),
        Some("uint") => (0, isize::MAX as i64),
        _ => (i64::MIN, i64::MAX),
    };
    // The type's author may have stated a bound as a float.
    let stated = |name: &str, whole: fn(f64) -> f64| {
        let bound = field.get(name)?;
        bound.as_i64().or(bound.as_f64().map(|bound| whole(bound) as i64))
    };
    let least = stated("minimum", f64::ceil).map_or(least, |stated| stated.max(least));
    let most = stated("maximum", f64::floor).map_or(most, |stated| stated.min(most));
    field.insert("minimum".to_owned(), json!(least));
    field.insert("maximum".to_owned(), json!(most));
}
