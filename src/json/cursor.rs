//! [`Cursor`]: passes over JSON text from its beginning, and copies nothing.
//!
//! A cursor reads simple JSON only: on one line, without `\u` escapes, and not deeply nested. Each method returns
//! `None` for any other text, also where that text is valid. [`Fields`](super::Fields) reads such a text.

use super::{MAX_DEPTH, is_plain};

/// Rest of a text that is being passed over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
}

/// Number of bytes that are compared together.
const BLOCK: usize = 8;
/// Word with a one in each byte of a block.
const ONES: u64 = 0x0101_0101_0101_0101;

/// Largest number of digits that always fit into 64 bits.
const DIGITS: usize = 19;

impl<'a> Cursor<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { rest: text.as_bytes() }
    }

    /// Returns the number of bytes that are left.
    pub(crate) fn left(&self) -> usize {
        self.rest.len()
    }

    /// Passes over `text`, if it comes next. Returns whether it did.
    #[inline]
    pub(crate) fn eat(&mut self, text: &str) -> bool {
        let behind = self.rest.strip_prefix(text.as_bytes());
        self.rest = behind.unwrap_or(self.rest);
        behind.is_some()
    }

    /// Passes over `text`. Returns `None` where other text comes next.
    #[inline]
    pub(crate) fn expect(&mut self, text: &str) -> Option<()> {
        self.eat(text).then_some(())
    }

    /// Passes over this number of bytes, and returns them.
    pub(crate) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    /// Passes over an integer without a sign, and returns its value.
    pub(crate) fn integer(&mut self) -> Option<u64> {
        let text = self.rest;
        self.digits()?;
        let digits = &text[..text.len() - self.left()];
        let is_shortest = digits.len() == 1 || digits[0] != b'0';
        let value =
            digits.iter().fold(0_u64, |value, digit| value.wrapping_mul(10).wrapping_add(u64::from(digit - b'0')));
        (is_shortest && digits.len() <= DIGITS).then_some(value)
    }

    /// Passes over the rest of a string without escapes, and the quotation mark at its end. Returns its length.
    pub(crate) fn plain_rest(&mut self) -> Option<usize> {
        let before = self.left();
        self.pass_plain();
        let length = before - self.left();
        self.expect("\"").map(|()| length)
    }

    /// Passes over an object without a field `_meta`. Returns whether the object has any fields.
    pub(crate) fn object(&mut self) -> Option<bool> {
        self.expect("{")?;
        self.fields(MAX_DEPTH, |name| name != b"_meta")
    }

    /// Passes over the fields of an object and its closing brace. `passes` must accept each name. Returns whether there
    /// are any fields.
    fn fields(&mut self, depth: usize, passes: impl Fn(&[u8]) -> bool) -> Option<bool> {
        let depth = depth.checked_sub(1)?;
        self.space();
        if self.eat("}") {
            return Some(false);
        }
        loop {
            passes(self.string()?).then_some(())?;
            self.space();
            self.expect(":")?;
            self.space();
            self.value(depth)?;
            self.space();
            match self.next()? {
                b',' => self.space(),
                b'}' => return Some(true),
                _ => return None,
            }
        }
    }

    /// Passes over the items of an array and its closing bracket.
    fn items(&mut self, depth: usize) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        self.space();
        if self.eat("]") {
            return Some(());
        }
        loop {
            self.value(depth)?;
            self.space();
            match self.next()? {
                b',' => self.space(),
                b']' => return Some(()),
                _ => return None,
            }
        }
    }

    fn value(&mut self, depth: usize) -> Option<()> {
        match self.rest.first()? {
            b'"' => self.string().map(drop),
            b'{' => {
                self.next();
                self.fields(depth, |_| true).map(drop)
            }
            b'[' => {
                self.next();
                self.items(depth)
            }
            b't' => self.expect("true"),
            b'f' => self.expect("false"),
            b'n' => self.expect("null"),
            _ => self.number(),
        }
    }

    /// Passes over a string, and returns the bytes between its quotation marks.
    fn string(&mut self) -> Option<&'a [u8]> {
        self.expect("\"")?;
        let text = self.rest;
        loop {
            self.pass_plain();
            match self.next()? {
                b'"' => return Some(&text[..text.len() - self.left() - 1]),
                b'\\' if matches!(self.next()?, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {}
                _ => return None,
            }
        }
    }

    fn number(&mut self) -> Option<()> {
        self.eat("-");
        if !self.eat("0") {
            self.digits()?;
        }
        if self.eat(".") {
            self.digits()?;
        }
        if self.eat("e") || self.eat("E") {
            let _ = self.eat("+") || self.eat("-");
            self.digits()?;
        }
        Some(())
    }

    fn digits(&mut self) -> Option<()> {
        let before = self.left();
        self.pass(others_than_digits, |byte| byte.is_ascii_digit());
        (self.left() < before).then_some(())
    }

    fn space(&mut self) {
        while self.eat(" ") {}
    }

    /// Passes over bytes that need no escape in a string.
    fn pass_plain(&mut self) {
        self.pass(others_than_plain, is_plain);
    }

    /// Passes over all bytes that `passes` accepts. `others` marks, in a block, the bytes that are not accepted.
    fn pass(&mut self, others: impl Fn(u64) -> u64, passes: impl Fn(u8) -> bool) {
        while let Some(block) = self.rest.first_chunk::<BLOCK>() {
            match others(u64::from_le_bytes(*block)) {
                0 => self.rest = &self.rest[BLOCK..],
                found => return self.rest = &self.rest[found.trailing_zeros() as usize / 8..],
            }
        }
        while let [byte, rest @ ..] = self.rest
            && passes(*byte)
        {
            self.rest = rest;
        }
    }

    #[inline]
    fn next(&mut self) -> Option<u8> {
        let (byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*byte)
    }
}

/// Returns a word that marks the bytes of a block that need an escape; 0 where there are none. The lowest bit that is
/// set is the highest bit of the first such byte.
fn others_than_plain(block: u64) -> u64 {
    let equal = |byte: u8| below(block ^ (ONES * u64::from(byte)), 1);
    below(block, b' ') | equal(b'"') | equal(b'\\')
}

/// Returns a word that marks the bytes of a block that are no digits, as [`others_than_plain`] does.
fn others_than_digits(block: u64) -> u64 {
    let values = block ^ (ONES * u64::from(b'0'));
    // No digit carries into the next byte.
    (values.wrapping_add(ONES * (0x80 - 10)) | values) & (ONES << 7)
}

/// Returns a word that marks the bytes of a block below a limit of at most 128, as [`others_than_plain`] does.
fn below(block: u64, limit: u8) -> u64 {
    // A byte below the limit borrows from the next byte, which may then be marked wrongly. The first marked byte is
    // right. A byte of 128 or more is never marked.
    block.wrapping_sub(ONES * u64::from(limit)) & !block & (ONES << 7)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::IgnoredAny;

    use super::super::{Fields, survey};
    use super::*;

    /// Returns the length of the object at the beginning of a text, and whether it has fields.
    fn object(text: &str) -> Option<(usize, bool)> {
        let mut cursor = Cursor::new(text);
        cursor.object().map(|has_fields| (text.len() - cursor.left(), has_fields))
    }

    #[test]
    fn plain_objects_are_passed_over() {
        for (text, has_fields) in [
            ("{}", false),
            ("{  }", false),
            (r#"{"a":[],"b":{},"c":[1, -0.5e+7 ,"x"], "a" : null,"d":[true,false]}"#, true),
            (r#"{"ä\"\\\/\b\f\n\r\t{[":"}","meta":{"_meta":1}}"#, true),
        ] {
            assert_eq!(object(text), Some((text.len(), has_fields)), "{text}");
            assert_eq!(object(&format!("{text}}}")), Some((text.len(), has_fields)));
        }
    }

    #[test]
    fn other_texts_are_not() {
        for text in [
            "",
            "[]",
            " {}",
            "{",
            "{\n}",
            r#"{"a"}"#,
            r#"{"a":1,}"#,
            r#"{,"a":1}"#,
            r#"{"a":01}"#,
            r#"{"a":1.}"#,
            r#"{"a":-}"#,
            r#"{"a":.5}"#,
            r#"{"a":1e}"#,
            r#"{"a":+1}"#,
            r#"{"a":nul}"#,
            r#"{"a":[1 2]}"#,
            r#"{"a":[1,]}"#,
            r#"{"a":"\u0041"}"#,
            r#"{"a":"\x"}"#,
            "{\"a\":\"\t\"}",
            r#"{"_meta":1}"#,
            r#"{"a":1,"_meta":{}}"#,
            r#"{"a":"}"#,
            r#"{a:1}"#,
            r#"{"a":NaN}"#,
        ] {
            assert_eq!(object(text), None, "{text}");
        }
    }

    #[test]
    fn objects_nest_as_deeply_as_allowed() {
        let nested = |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1));
        assert!(object(&nested(MAX_DEPTH)).is_some());
        assert!(object(&nested(MAX_DEPTH + 1)).is_none());
        assert!(object(&nested(1_000_000)).is_none(), "however deeply they nest");
    }

    #[test]
    fn integers_are_read_as_json_writes_them() {
        let integer = |text| {
            let mut cursor = Cursor::new(text);
            cursor.integer().map(|value| (value, cursor.left()))
        };
        assert_eq!(
            (integer("0}"), integer("9999999999999999999/")),
            (Some((0, 1)), Some((9_999_999_999_999_999_999, 1)))
        );
        for text in ["", "00", "01", "-1", "+1", "x", "/", ":", "10000000000000000000"] {
            assert_eq!(integer(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn blocks_are_passed_over_as_bytes_are(bytes in prop::collection::vec(prop_oneof![0_u8.., 0x2e..0x3c_u8, 0x20..0x24_u8], 0..20)) {
            let passed = |others: fn(u64) -> u64, passes: fn(u8) -> bool| {
                let mut cursor = Cursor { rest: &bytes };
                cursor.pass(others, passes);
                bytes.len() - cursor.left() == bytes.iter().take_while(|byte| passes(**byte)).count()
            };
            prop_assert!(passed(others_than_plain, is_plain));
            prop_assert!(passed(others_than_digits, |byte| byte.is_ascii_digit()));
        }

        #[test]
        fn whatever_is_passed_over_is_an_object_on_one_line(
            pieces in prop::collection::vec(prop_oneof![
                prop::sample::select(vec![
                    "{", "}", "[", "]", ":", ",", "\"", "\"a\"", "\"_meta\"", "\\", "\\u", "\\\"", " ", "\n", "1", "0", "-", ".",
                    "e5", "true", "null", "\"a\":1", "{\"a\":", "é", "0123456789abcdef",
                ]).prop_map(str::to_owned),
                ".{0,3}",
            ], 0..12),
        ) {
            let text = format!("{{{}", pieces.concat());
            if let Some((length, has_fields)) = object(&text) {
                let text = &text[..length];
                prop_assert!(serde_json::from_str::<IgnoredAny>(text).is_ok(), "{text}");
                let fields = Fields::of(text).unwrap();
                prop_assert_eq!(fields.each().next().is_some(), has_fields);
                prop_assert_eq!(fields.get("_meta"), None);
                let found = survey(text);
                prop_assert!(found.depth <= MAX_DEPTH && !found.has_half_a_pair && !text.contains(['\n', '\r']));
            }
        }

        #[test]
        fn what_serde_writes_is_passed_over(text in "[^\\p{Cc}]{0,40}", number: f64, integer: i64, flag: bool) {
            let value = serde_json::json!({"a": text, &text: [number, integer, flag, null_of(flag)], "b": {"c": [text.clone()]}});
            let written = value.to_string();
            prop_assert!(text == "_meta" || object(&written) == Some((written.len(), true)), "{}", written);
        }
    }

    fn null_of(flag: bool) -> Option<bool> {
        flag.then_some(flag)
    }
}
