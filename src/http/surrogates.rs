//! Repair of JSON with a lone half of a surrogate pair.
//!
//! JavaScript writes a text that was cut within an emoji as `"\ud83d"`. RFC 8259 allows that escape, but strict parsers
//! refuse the whole message. Java's modified UTF-8 may contain the same as three raw bytes.

/// Replaces every lone half of a surrogate pair by U+FFFD, in place: the length does not change in either form.
pub(super) fn repair(json: &mut [u8]) {
    let mut at = 0;
    while let Some(found) = json[at..].iter().position(|byte| matches!(byte, b'\\' | 0xED)) {
        at += found;
        at += match (surrogate(&json[at..]), json.get(at + 6..).and_then(surrogate)) {
            (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => 12,
            (Some(_), _) => {
                json[at + 2..at + 6].copy_from_slice(b"fffd");
                6
            }
            // The character behind a backslash belongs to the escape, above all another backslash.
            (None, _) if json[at] == b'\\' => 2.min(json.len() - at),
            (None, _) => raw(&mut json[at..]),
        };
    }
}

/// Returns the half of a surrogate pair that an escape sequence stands for.
fn surrogate(bytes: &[u8]) -> Option<u16> {
    let digits = bytes.strip_prefix(br"\u")?.get(..4)?;
    let digits = digits.iter().all(u8::is_ascii_hexdigit).then_some(digits)?;
    let unit = u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    (0xD800..=0xDFFF).contains(&unit).then_some(unit)
}

/// Replaces an unescaped surrogate, which UTF-8 forbids. Returns the number of bytes passed.
fn raw(bytes: &mut [u8]) -> usize {
    match bytes {
        [0xED, 0xA0..=0xBF, 0x80..=0xBF, ..] => {
            bytes[..3].copy_from_slice("\u{FFFD}".as_bytes());
            3
        }
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn repaired(json: &[u8]) -> Vec<u8> {
        let mut json = json.to_vec();
        repair(&mut json);
        json
    }

    #[test]
    fn halves_are_replaced_and_pairs_are_not() {
        for (json, wanted) in [
            (r#""well done \ud83d""#, r#""well done \ufffd""#),
            (r#""\uD83D\uDE00""#, r#""\uD83D\uDE00""#),
            (r#""\ude00\ud83d""#, r#""\ufffd\ufffd""#),
            (r#""\ud83d\ud83d\ude00""#, r#""\ufffd\ud83d\ude00""#),
            (r#""\ud83d\\ude00""#, r#""\ufffd\\ude00""#),
            (r#""\\ud83d""#, r#""\\ud83d""#),
            (r#""\\\ud83d""#, r#""\\\ufffd""#),
            (r#""\u00e9\ud7ff\ue000""#, r#""\u00e9\ud7ff\ue000""#),
            (r#""\ud83"#, r#""\ud83"#),
            (r"\", r"\"),
            (r#""\ud83d\n""#, r#""\ufffd\n""#),
        ] {
            assert_eq!(repaired(json.as_bytes()), wanted.as_bytes(), "{json}");
        }
    }

    #[test]
    fn unescaped_halves_are_replaced_too() {
        assert_eq!(repaired(b"\"a\xED\xA0\xBD\""), "\"a\u{FFFD}\"".as_bytes());
        assert_eq!(repaired("\"\u{D7FF}\"".as_bytes()), "\"\u{D7FF}\"".as_bytes());
    }

    proptest! {
        #[test]
        fn any_utf_16_as_javascript_writes_it_can_be_read(units in proptest::collection::vec(
            prop_oneof![0xD800u16..0xE000, any::<u16>()], 0..12)) {
            // Written as by JSON.stringify: pairs and other characters unchanged, lone halves escaped.
            let mut json = String::from('"');
            for decoded in char::decode_utf16(units.iter().copied()) {
                match decoded {
                    Ok(char) => json += serde_json::to_string(&char).unwrap().trim_matches('"'),
                    Err(half) => json += &format!("\\u{:04x}", half.unpaired_surrogate()),
                }
            }
            // Quotation marks are escaped above and trimmed: only the two outer ones count.
            json = json.replace("\\\"", "\\u0022") + "\"";
            prop_assume!(!units.contains(&u16::from(b'"')) && !units.contains(&u16::from(b'\\')));
            let read: String = serde_json::from_slice(&repaired(json.as_bytes())).unwrap();
            prop_assert_eq!(read, String::from_utf16_lossy(&units));
        }

        #[test]
        fn what_can_be_read_stays_as_it_is(text in "\\PC{0,40}") {
            let json = serde_json::to_vec(&text).unwrap();
            prop_assert_eq!(repaired(&json), json);
        }

        #[test]
        fn bytes_of_any_kind_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(repaired(&bytes).len(), bytes.len());
        }
    }
}
