//! [`Cursor`]: passes over JSON text from its beginning on, and copies nothing.
//!
//! A cursor reads the plainest JSON only: on one line, without escapes that need a look at a second one, and not deeply nested.
//! Each method returns `None` where the text is anything else, also where it is right. Such a text is left to
//! [`Fields`](super::Fields).

use super::MAX_DEPTH;

/// Rest of a text that is passed over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
}

/// Number of bytes that are looked at together, and a number with a one in each of these bytes.
const BLOCK: usize = 8;
const ONES: u64 = 0x0101_0101_0101_0101;

/// Most digits that fit a number of 64 bits, whichever they are.
const DIGITS: usize = 19;

impl<'a> Cursor<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { rest: text.as_bytes() }
    }

    /// Returns the number of bytes that are left.
    pub(crate) fn left(&self) -> usize {
        self.rest.len()
    }

    /// Passes over this text, if it is next. Returns whether it was.
    #[inline]
    pub(crate) fn eat(&mut self, text: &str) -> bool {
        let behind = self.rest.strip_prefix(text.as_bytes());
        self.rest = behind.unwrap_or(self.rest);
        behind.is_some()
    }

    /// Passes over this text.
    #[inline]
    pub(crate) fn expect(&mut self, text: &str) -> Option<()> {
        self.eat(text).then_some(())
    }

    /// Passes over so many bytes.
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

    /// Passes over the fields of an object, whose names must all pass, and the brace behind them. Returns whether there are any.
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

    /// Passes over the items of an array, and the bracket behind them.
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

    /// Passes over a string. Returns what stands between its quotation marks.
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

    /// Passes over what stands in a string as it is.
    fn pass_plain(&mut self) {
        self.pass(others_than_plain, is_plain);
    }

    /// Passes over all bytes that pass. `others` finds, in a block, those that do not.
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

/// Returns whether a byte stands in a string as it is.
fn is_plain(byte: u8) -> bool {
    byte >= b' ' && byte != b'"' && byte != b'\\'
}

/// Returns a word whose lowest one is the highest bit of the first byte that is not plain; 0 where there is none.
fn others_than_plain(block: u64) -> u64 {
    let equal = |byte: u8| below(block ^ (ONES * u64::from(byte)), 1);
    below(block, b' ') | equal(b'"') | equal(b'\\')
}

/// Returns such a word for the first byte that is no digit.
fn others_than_digits(block: u64) -> u64 {
    let values = block ^ (ONES * u64::from(b'0'));
    // No digit carries into the next byte.
    (values.wrapping_add(ONES * (0x80 - 10)) | values) & (ONES << 7)
}

/// Returns such a word for the first byte that is below a limit of at most 128.
fn below(block: u64, limit: u8) -> u64 {
    // A byte below the limit borrows from the next, which is then taken for one perhaps. One of 128 and more is none.
    block.wrapping_sub(ONES * u64::from(limit)) & !block & (ONES << 7)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::IgnoredAny;

    use super::super::{Fields, survey};
    use super::*;

    /// Returns the length of the object that a text begins with, and whether it has fields.
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
