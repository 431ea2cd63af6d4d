//! Grammars of W3C Trace Context (level 2) and W3C Baggage, with their bounds.
//!
//! Each function returns the fault of a text without its content: a baggage may hold what must not reach a log.

use std::collections::HashSet;
use std::ops::Range;

use super::TraceContext;
use crate::hex;

/// Number of characters of a `traceparent` of version 00.
pub(super) const LENGTH: usize = 55;
/// Places of the parts of a `traceparent`.
const VERSION: Range<usize> = 0..2;
pub(super) const TRACE_ID: Range<usize> = 3..35;
pub(super) const PARENT_ID: Range<usize> = 36..52;
pub(super) const FLAGS: Range<usize> = 53..55;
/// Flag that says that the caller may have recorded its part of the trace.
pub(super) const SAMPLED: u8 = 1;

/// Longest key of a `tracestate`, and longest value, in characters.
const MEMBER_MAX: usize = 256;

/// Checks a `traceparent`, and returns it in the form of version 00.
pub(super) fn traceparent(text: &str) -> Result<String, String> {
    let fault = |why: &str| Err(why.to_owned());
    if !text.is_ascii() {
        return fault("this one has a character outside of ASCII");
    }
    if text.len() < LENGTH {
        return Err(format!("this one has {} characters in place of {LENGTH}", text.len()));
    }
    let parts = [("version", VERSION), ("trace id", TRACE_ID), ("parent id", PARENT_ID), ("part of flags", FLAGS)];
    for (name, place) in parts {
        if !hex::are_digits(&text[place]) {
            return Err(format!("its {name} has another character"));
        }
    }
    if [VERSION, TRACE_ID, PARENT_ID].iter().any(|part| text.as_bytes()[part.end] != b'-') {
        return fault("its parts are not separated by \"-\"");
    }
    match (&text[VERSION], text.len()) {
        ("ff", _) => return fault("its version is ff, which W3C forbids"),
        ("00", length) if length > LENGTH => {
            return Err(format!("this one has {length} characters in place of {LENGTH}"));
        }
        (_, length) if length > LENGTH && text.as_bytes()[LENGTH] != b'-' => {
            return fault("its version is a later one, and something other than \"-\" follows the flags");
        }
        _ => {}
    }
    for (name, place) in [("trace id", TRACE_ID), ("parent id", PARENT_ID)] {
        if text[place].bytes().all(|digit| digit == b'0') {
            return Err(format!("its {name} is all zeros"));
        }
    }
    if &text[VERSION] == "00" {
        return Ok(text.to_owned());
    }
    // Of a later version W3C defines these parts, and of the flags the first.
    let flags = hex::read(&text[FLAGS]).unwrap_or_default() & u64::from(SAMPLED);
    Ok(format!("00-{}-{}-{flags:02x}", &text[TRACE_ID], &text[PARENT_ID]))
}

/// Checks a `tracestate`. Returns `None` for an empty one.
pub(super) fn tracestate(text: &str) -> Result<Option<&str>, String> {
    let text = text.trim_matches(SPACE);
    if text.len() > TraceContext::TRACESTATE_MAX_BYTES {
        return Err(format!("this one has {} bytes", text.len()));
    }
    let mut keys = HashSet::new();
    for (number, member) in members(text) {
        let Some((key, value)) = member.split_once('=') else {
            return Err(format!("entry {number} has no \"=\""));
        };
        if !is_tracestate_key(key) {
            return Err(format!("the key of entry {number} has a character that W3C forbids, or a wrong length"));
        }
        if !is_tracestate_value(value) {
            return Err(format!("the value of entry {number} has a character that W3C forbids, or a wrong length"));
        }
        if !keys.insert(key) {
            return Err(format!("entry {number} has the key of an earlier one"));
        }
        if keys.len() > TraceContext::TRACESTATE_MAX_MEMBERS {
            return Err("this one has more".to_owned());
        }
    }
    Ok((!keys.is_empty()).then_some(text))
}

/// Checks a `baggage`. Returns `None` for an empty one.
pub(super) fn baggage(text: &str) -> Result<Option<&str>, String> {
    let text = text.trim_matches(SPACE);
    if text.len() > TraceContext::BAGGAGE_MAX_BYTES {
        return Err(format!("this one has {} bytes", text.len()));
    }
    let mut count = 0;
    for (number, member) in members(text) {
        count += 1;
        let mut parts = member.split(';');
        let entry = parts.next().unwrap_or_default();
        let Some((key, value)) = entry.split_once('=') else {
            return Err(format!("entry {number} has no \"=\""));
        };
        if !is_token(key.trim_end_matches(SPACE)) {
            return Err(format!("the key of entry {number} is no token"));
        }
        if !is_baggage_value(value.trim_matches(SPACE)) {
            return Err(format!("the value of entry {number} has a character that must be percent-encoded"));
        }
        for property in parts {
            let property = property.trim_matches(SPACE);
            let (key, value) = property.split_once('=').unwrap_or((property, ""));
            if !is_token(key.trim_end_matches(SPACE)) || !is_baggage_value(value.trim_matches(SPACE)) {
                return Err(format!("a property of entry {number} has a character that W3C forbids"));
            }
        }
    }
    Ok((count > 0).then_some(text))
}

/// Characters that may stand around an entry.
const SPACE: [char; 2] = [' ', '\t'];

/// Returns the entries of a list with their numbers, counted from 1. W3C allows empty entries, which are left out.
fn members(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let members = text.split(',').map(|member| member.trim_matches(SPACE)).zip(1..);
    members.filter(|(member, _)| !member.is_empty()).map(|(member, number)| (number, member))
}

fn is_tracestate_key(key: &str) -> bool {
    let is_key = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/' | b'@');
    let begins = key.bytes().next().is_some_and(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9'));
    begins && key.len() <= MEMBER_MAX && key.bytes().all(is_key)
}

fn is_tracestate_value(value: &str) -> bool {
    let is_value = |byte: u8| matches!(byte, b' '..=b'~') && byte != b',' && byte != b'=';
    // The last character is no space: the entry was trimmed.
    (1..=MEMBER_MAX).contains(&value.len()) && value.bytes().all(is_value)
}

/// Returns whether a text is a token of RFC 9110.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

fn is_baggage_value(value: &str) -> bool {
    value.bytes().all(|byte| byte.is_ascii_graphic() && !b"\",;\\".contains(&byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_is_of_the_grammar_or_its_fault_is_named() {
        assert_eq!(traceparent(PARENT).unwrap(), PARENT);
        assert_eq!(traceparent(&PARENT.replace("-01", "-ff")).unwrap(), PARENT.replace("-01", "-ff"));
        for (text, why) in [
            (String::new(), "this one has 0 characters in place of 55"),
            (PARENT[1..].to_owned(), "this one has 54 characters"),
            (format!("{PARENT}-"), "this one has 56 characters"),
            (PARENT.replacen("00", "ff", 1), "its version is ff"),
            (PARENT.replacen("4b", "4B", 1), "its trace id has another character"),
            (PARENT.replacen("b7-", "bg-", 1), "its parent id has another character"),
            (PARENT.replacen("-01", "-0x", 1), "its part of flags has another character"),
            (PARENT.replacen("6-0", "6_0", 1), "its parts are not separated"),
            (PARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)), "its trace id is all zeros"),
            (PARENT.replace("00f067aa0ba902b7", &"0".repeat(16)), "its parent id is all zeros"),
            (format!("{}é", &PARENT[..54]), "this one has a character outside of ASCII"),
        ] {
            let fault = traceparent(&text).unwrap_err();
            assert!(fault.starts_with(why), "{text}: {fault}");
        }
    }

    #[test]
    fn a_traceparent_of_a_later_version_is_read_as_far_as_w3c_defines() {
        let later = PARENT.replacen("00", "cc", 1);
        assert_eq!(traceparent(&later).unwrap(), PARENT);
        assert_eq!(traceparent(&format!("{later}-what-the-future-brings")).unwrap(), PARENT);
        assert_eq!(traceparent(&later.replace("-01", "-f2")).unwrap(), PARENT.replace("-01", "-00"));
        assert!(traceparent(&format!("{later}.x")).is_err());
    }

    #[test]
    fn a_tracestate_is_of_the_grammar_or_its_fault_is_named() {
        for text in ["congo=t61rcWkgMzE", "a=1,b=2", " a=1 ,\t0x/y@z*=x y , ,", "a=!\"\\~"] {
            assert_eq!(tracestate(text), Ok(Some(text.trim_matches(SPACE))));
        }
        assert_eq!((tracestate(""), tracestate(" , ,")), (Ok(None), Ok(None)));
        let many = |n: usize| (0..n).map(|i| format!("k{i}=v")).collect::<Vec<_>>().join(",");
        assert!(tracestate(&many(32)).is_ok());
        for (text, why) in [
            (many(33), "this one has more"),
            (format!("a={}", "v".repeat(511)), "this one has 513 bytes"),
            (format!("a={}", "v".repeat(257)), "the value of entry 1"),
            (format!("{}=v", "k".repeat(257)), "the key of entry 1"),
            ("a".to_owned(), "entry 1 has no \"=\""),
            ("a=1,B=2".to_owned(), "the key of entry 2"),
            ("_a=1".to_owned(), "the key of entry 1"),
            ("a=".to_owned(), "the value of entry 1"),
            ("a=1=2".to_owned(), "the value of entry 1"),
            ("a=é".to_owned(), "the value of entry 1"),
            ("a=1,a=2".to_owned(), "entry 2 has the key of an earlier one"),
        ] {
            let fault = tracestate(&text).unwrap_err();
            assert!(fault.starts_with(why), "{text}: {fault}");
        }
    }

    #[test]
    fn a_baggage_is_of_the_grammar_or_its_fault_is_named() {
        for text in ["k=v", "k = v;p;q = 1 , userId=alice%40example.com", "k=", "k=a=b"] {
            assert_eq!(baggage(text), Ok(Some(text)));
        }
        assert_eq!(baggage(" "), Ok(None));
        for (text, why) in [
            (format!("k={}", "v".repeat(8191)), "this one has 8193 bytes"),
            ("k".to_owned(), "entry 1 has no \"=\""),
            ("k=v,k(=v".to_owned(), "the key of entry 2 is no token"),
            ("k=a b".to_owned(), "the value of entry 1"),
            ("k=\"v\"".to_owned(), "the value of entry 1"),
            ("k=é".to_owned(), "the value of entry 1"),
            ("k=v;=".to_owned(), "a property of entry 1"),
        ] {
            let fault = baggage(&text).unwrap_err();
            assert!(fault.starts_with(why), "{text}: {fault}");
        }
        assert!(baggage(&format!("k={}", "v".repeat(8190))).is_ok());
    }

    proptest! {
        #[test]
        fn no_text_stops_a_check_and_what_passes_passes_again(text in "[0-9a-f=,; \t\\-éA\"]{0,80}|.*") {
            if let Ok(read) = traceparent(&text) {
                prop_assert_eq!(traceparent(&read), Ok(read.clone()));
            }
            for check in [tracestate, baggage] {
                if let Ok(Some(read)) = check(&text) {
                    prop_assert_eq!(check(read), Ok(Some(read)));
                }
            }
        }
    }
}
