use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::{NonZeroI32, NonZeroU8, NonZeroU64};
use std::path::PathBuf;

use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Map, json};

use super::*;
use crate::question::InvalidQuestion;

#[derive(Debug, Deserialize, JsonSchema, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Colour {
    /// Like a rose.
    Red,
    Green,
    /// Like the sky.
    #[serde(rename = "sky-blue")]
    Blue,
}

#[derive(Debug, Deserialize, JsonSchema, PartialEq, Eq, Hash)]
#[serde(rename_all = "kebab-case")]
enum Size {
    VerySmall,
    Large,
}

#[derive(Debug, Deserialize, JsonSchema)]
enum Only {
    /// The only one.
    One,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Metres(#[allow(dead_code)] f64);

#[derive(Debug, Deserialize, JsonSchema)]
struct Count(#[allow(dead_code)] u16);

#[derive(Debug, Deserialize, JsonSchema)]
#[allow(dead_code)]
struct Place {
    street: String,
    floor: Option<i8>,
}

/// Has one field of each type that a form can have.
#[derive(Debug, Deserialize, JsonSchema)]
#[allow(dead_code)]
struct Everything {
    boolean: bool,
    /// Any text.
    text: String,
    #[schemars(length(min = 1, max = 3), regex(pattern = "^[a-z]*$"))]
    short: String,
    #[schemars(email)]
    mail: String,
    #[schemars(extend("format" = "date"))]
    date: String,
    uuid: uuid_as_text::Text,
    character: char,
    path: PathBuf,
    int8: i8,
    uint8: u8,
    int16: i16,
    uint16: u16,
    int32: i32,
    uint32: u32,
    int64: i64,
    uint64: u64,
    int128: i128,
    uint128: u128,
    isize: isize,
    usize: usize,
    #[schemars(range(min = 1, max = 9.5))]
    ranged: u64,
    not_zero: NonZeroI32,
    positive: Option<NonZeroU64>,
    positive_byte: NonZeroU8,
    float: f32,
    double: f64,
    newtype: Metres,
    newtype_of_integer: Option<Count>,
    colour: Colour,
    size: Size,
    only: Only,
    #[serde(rename = "colours")]
    several: Vec<Colour>,
    set: BTreeSet<Colour>,
    two: [Colour; 2],
    sizes: Option<HashSet<Size>>,
    optional_items: Vec<Option<Size>>,
    optional: Option<i32>,
    optional_text: Option<Box<str>>,
    /// The colour of the frame.
    optional_colour: Option<Colour>,
    optional_only: Option<Only>,
    #[serde(default)]
    defaulted: u32,
    #[serde(default)]
    defaulted_optional: Option<u32>,
    ip: IpAddr,
    ipv4: Ipv4Addr,
    ipv6: Option<Ipv6Addr>,
    #[serde(flatten)]
    flattened: Place,
}

/// Reads a UUID as the crate `uuid` does, whose own `serde` is not turned on here.
mod uuid_as_text {
    use super::*;

    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(try_from = "String")]
    #[schemars(with = "String", extend("format" = "uuid"))]
    pub(super) struct Text(#[allow(dead_code)] uuid::Uuid);

    impl TryFrom<String> for Text {
        type Error = uuid::Error;

        fn try_from(text: String) -> Result<Self, uuid::Error> {
            text.parse().map(Self)
        }
    }
}

fn form_of<T: JsonSchema>() -> Result<(Value, Schema), InvalidQuestion> {
    let Flat { shown, checked } = flat(schema_of::<T>())?;
    let Elicitation::Form { requested_schema, .. } = Elicitation::form("?", shown)? else { unreachable!() };
    Ok((Value::Object(requested_schema), Schema::build(checked)?))
}

fn fields<T: JsonSchema>() -> Value {
    form_of::<T>().unwrap().0["properties"].take()
}

/// Returns the value that `elicit_as` makes of content.
fn answered<T: DeserializeOwned>(schema: &Schema, content: Value) -> Result<T, String> {
    match schema.check(crate::elicitation::schema::into_object(content)) {
        Answer::Accept(content) => {
            Ok(serde_json::from_value(Value::Object(content)).expect("the type accepts what the schema accepts"))
        }
        other => Err(format!("{other:?}")),
    }
}

#[test]
fn each_ordinary_type_has_a_field_that_mcp_allows() {
    let fields = fields::<Everything>();
    let names = json!(["Green", "Red", "sky-blue"]);
    let told = "Red: Like a rose.\n\nsky-blue: Like the sky.";
    for (name, expected) in [
        ("boolean", json!({"type": "boolean"})),
        ("text", json!({"type": "string", "description": "Any text."})),
        ("mail", json!({"type": "string", "format": "email"})),
        ("uuid", json!({"type": "string"})),
        ("ip", json!({"type": "string"})),
        ("character", json!({"type": "string", "minLength": 1, "maxLength": 1})),
        ("uint8", json!({"type": "integer", "minimum": 0, "maximum": 255})),
        ("int32", json!({"type": "integer", "minimum": i32::MIN, "maximum": i32::MAX})),
        ("uint32", json!({"type": "integer", "minimum": 0, "maximum": u32::MAX})),
        ("uint64", json!({"type": "integer", "minimum": 0, "maximum": i64::MAX})),
        ("int128", json!({"type": "integer", "minimum": i64::MIN, "maximum": i64::MAX})),
        ("ranged", json!({"type": "integer", "minimum": 1, "maximum": 9})),
        ("positive", json!({"type": "integer", "minimum": 1, "maximum": i64::MAX})),
        ("float", json!({"type": "number"})),
        ("newtype", json!({"type": "number"})),
        ("newtype_of_integer", json!({"type": "integer", "minimum": 0, "maximum": 65535})),
        ("colour", json!({"type": "string", "enum": names, "description": told})),
        ("size", json!({"type": "string", "enum": ["very-small", "large"]})),
        ("only", json!({"type": "string", "enum": ["One"], "description": "The only one."})),
        ("colours", json!({"type": "array", "items": {"type": "string", "enum": names}, "description": told})),
        (
            "sizes",
            json!({"type": "array", "items": {"type": "string", "enum": ["very-small", "large"]}, "uniqueItems": true}),
        ),
        ("optional_text", json!({"type": "string"})),
        (
            "optional_colour",
            json!({"type": "string", "enum": names, "description": format!("The colour of the frame.\n\n{told}")}),
        ),
        ("defaulted", json!({"type": "integer", "minimum": 0, "maximum": u32::MAX, "default": 0})),
        ("defaulted_optional", json!({"type": "integer", "minimum": 0, "maximum": u32::MAX})),
        ("street", json!({"type": "string"})),
        ("floor", json!({"type": "integer", "minimum": -128, "maximum": 127})),
    ] {
        assert_eq!(fields[name], expected, "{name}");
    }
    assert!(!fields.to_string().contains("null"), "MCP has none: {fields}");
}

#[test]
fn a_type_that_no_form_can_have_is_refused_by_name() {
    macro_rules! refused {
        ($($name:literal: $type:ty),+ $(,)?) => {$({
            #[derive(Deserialize, JsonSchema)]
            #[allow(dead_code)]
            struct Form {
                #[serde(rename = $name)]
                field: $type,
            }
            let error = form_of::<Form>().map(drop).unwrap_err().to_string();
            assert!(error.contains(&format!("field {:?}", $name)), "{error}");
            assert!(error.contains("a field of a form must be a string"), "{error}");
        })+};
    }
    #[derive(Deserialize, JsonSchema)]
    #[allow(dead_code)]
    enum WithData {
        None,
        Some(u8),
    }
    #[derive(Deserialize, JsonSchema)]
    #[serde(untagged)]
    #[allow(dead_code)]
    enum Untagged {
        Number(i64),
        Text(String),
    }
    #[derive(Deserialize, JsonSchema)]
    #[allow(dead_code)]
    struct List {
        next: Option<Box<List>>,
    }
    refused! {
        "nested": Place,
        "optional nested": Option<Place>,
        "strings": Vec<String>,
        "numbers": Vec<u8>,
        "tuple": (u8, u8),
        "map": BTreeMap<String, u8>,
        "anything": Value,
        "unit": (),
        "duration": Duration,
        "time": std::time::SystemTime,
        "data": WithData,
        "untagged": Untagged,
        "list": List,
        "result": Result<u8, String>,
    }
    #[derive(Deserialize, JsonSchema)]
    #[allow(dead_code)]
    struct Clock {
        #[schemars(extend("format" = "partial-time"))]
        at: String,
    }
    let error = form_of::<Clock>().map(drop).unwrap_err().to_string();
    assert!(error.contains("field \"at\" has the format \"partial-time\""), "{error}");
    for error in [
        form_of::<String>().map(drop),
        form_of::<(u8, u8)>().map(drop),
        form_of::<Option<Place>>().map(drop),
        form_of::<BTreeMap<String, u8>>().map(drop),
        form_of::<WithData>().map(drop),
        form_of::<Colour>().map(drop),
        form_of::<Value>().map(drop),
    ] {
        assert!(error.unwrap_err().to_string().len() > 20);
    }
}

#[test]
fn a_struct_without_fields_is_a_form_without_fields() {
    #[derive(Deserialize, JsonSchema)]
    struct Nothing {}
    let (form, schema) = form_of::<Nothing>().unwrap();
    assert_eq!(form["properties"], json!({}));
    answered::<Nothing>(&schema, json!({})).unwrap();
}

#[test]
fn a_whole_number_is_an_integer_however_it_is_written() {
    #[derive(Debug, Deserialize, JsonSchema)]
    struct Order {
        count: u32,
        change: Option<i64>,
        price: f64,
    }
    let (_, schema) = form_of::<Order>().unwrap();
    let order = |text: &str| answered::<Order>(&schema, serde_json::from_str(text).unwrap());
    for text in [r#"{"count":3,"price":2}"#, r#"{"count":3.0,"price":2.5}"#, r#"{"count":3e0,"price":2,"change":null}"#]
    {
        let order = order(text).unwrap();
        assert_eq!((order.count, order.change), (3, None), "{text}");
        assert!(order.price >= 2.0);
    }
    let big = order(r#"{"count":-0.0,"change":-9.223372036854775808e18,"price":1e300}"#).unwrap();
    assert_eq!((big.count, big.change), (0, Some(i64::MIN)));
    for text in [
        r#"{"count":3.5,"price":1}"#,
        r#"{"count":-1.0,"price":1}"#,
        r#"{"count":4294967296,"price":1}"#,
        r#"{"count":1e300,"price":1}"#,
        r#"{"count":1,"price":1,"change":9.223372036854775808e18}"#,
        r#"{"count":null,"price":1}"#,
        r#"{"count":"3","price":1}"#,
    ] {
        let refused = order(text).unwrap_err();
        assert!(refused.contains("does not fit the schema at /"), "{text}: {refused}");
    }
}

/// Values of every kind, on and beyond the bounds of the types.
fn value() -> impl Strategy<Value = Value> {
    const TEXTS: &str = "x xyz wxyz X Red Green sky-blue Blue very-small large One a@b.example 1972-02-29 1973-02-29 \
        1972-02-29T00:00:00Z 127.0.0.1 ::1 ::ffff:1.2.3.4 1.2.3 fe80::1%eth0 01a20633-8601-72df-afc7-ed3bd94d95cf \
        01a20633860172dfafc7ed3bd94d95cf {01a20633-8601-72df-afc7-ed3bd94d95cf} é 💩 e\u{301} \0";
    const NUMBERS: &str = "0.0 -0.0 0.5 1.0 -1.0 9.0 9.5 10.0 127.0 128.0 -128.0 -129.0 255.0 256.0 65535.0 65536.0 \
        2147483647.0 2147483648.0 -2147483648.0 -2147483649.0 4294967295.0 4294967296.0 9007199254740993.0 \
        9223372036854774784.0 9223372036854775808.0 -9223372036854775808.0 -9223372036854777856.0 \
        18446744073709549568.0 18446744073709551616.0 1e30 -1e30 1e308 5e-324";
    let text = prop::sample::select(TEXTS.split(' ').chain([""]).collect::<Vec<_>>());
    let bound = prop::sample::select(NUMBERS.split(' ').map(|n| n.parse::<f64>().unwrap()).collect::<Vec<_>>());
    let name = prop::sample::select(vec!["Red", "Green", "sky-blue", "very-small", "large", "pink"]);
    let name = prop_oneof![9 => name.prop_map(Value::from), 1 => Just(Value::Null)];
    prop_oneof![
        4 => text.prop_map(Value::from),
        2 => bound.clone().prop_map(Value::from),
        2 => bound.prop_map(|n| Value::from(n as i64)),
        1 => any::<u64>().prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
        1 => any::<f64>().prop_map(Value::from),
        1 => ".{0,3}".prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::from),
        1 => Just(Value::Null),
        1 => Just(json!({})),
        2 => prop::collection::vec(name, 0..4).prop_map(Value::from),
    ]
}

fn fitting() -> Map<String, Value> {
    let content = json!({
        "boolean": true, "text": "", "short": "x", "mail": "a@b.example", "date": "1972-02-29",
        "uuid": "01a20633-8601-72df-afc7-ed3bd94d95cf", "character": "é", "path": "/", "int8": 1, "uint8": 1, "int16": 1,
        "uint16": 1, "int32": 1, "uint32": 1, "int64": 1, "uint64": 1, "int128": 1, "uint128": 1, "isize": 1, "usize": 1,
        "ranged": 1, "not_zero": -1, "positive_byte": 1, "float": 1, "double": 1, "newtype": 1, "colour": "Red",
        "size": "large", "only": "One", "colours": [], "set": ["Red"], "two": ["Red", "Green"],
        "optional_items": ["large"], "ip": "::1", "ipv4": "127.0.0.1", "street": "",
    });
    let Value::Object(content) = content else { unreachable!() };
    content
}

#[test]
fn the_smallest_fitting_content_is_accepted() {
    let (_, schema) = form_of::<Everything>().unwrap();
    answered::<Everything>(&schema, Value::Object(fitting())).unwrap();
}

proptest! {
    /// Only one field at a time gets an odd value, because a form with fifty odd values would never fit.
    #[test]
    fn the_type_accepts_whatever_the_schema_accepts(odd in prop::collection::vec((any::<prop::sample::Index>(), value()), 40)) {
        let (form, schema) = form_of::<Everything>().unwrap();
        let names: Vec<&String> = form["properties"].as_object().unwrap().keys().collect();
        for (name, value) in odd {
            let mut content = fitting();
            content.insert((*name.get(&names)).clone(), value);
            let _ = answered::<Everything>(&schema, Value::Object(content));
        }
    }
}
