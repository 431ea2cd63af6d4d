//! Escaping of line separators in JSON text.
//!
//! JSON allows U+2028, U+2029 and U+0085 unescaped in strings. Many readers of event streams end a line at each of
//! them, and so lose the message: httpx-sse before 0.4.2, the Java SDK, and all readers that split by Unicode's rules.

/// Characters at which readers end a line.
pub(super) const SEPARATORS: [char; 3] = ['\u{2028}', '\u{2029}', '\u{85}'];

/// Escapes the [separators](SEPARATORS) in JSON text that arrives in pieces.
#[derive(Debug, Default)]
pub(crate) struct Escaper {
    /// Beginning of a character whose last bytes have not arrived: at most two bytes.
    held: Vec<u8>,
}

/// Result of a search for a separator at the beginning of some bytes.
enum Found {
    /// A separator of this many bytes, and its escape sequence.
    Separator(usize, &'static [u8]),
    /// Only the first bytes of a possible separator are there.
    Incomplete,
    Other,
}

impl Escaper {
    /// Appends the escaped text to `out`.
    pub(crate) fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        if self.held.is_empty() {
            return self.escape(bytes, out);
        }
        let mut text = std::mem::take(&mut self.held);
        text.extend_from_slice(bytes);
        self.escape(&text, out);
    }

    /// Appends the held bytes at the end of the text.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.held);
    }

    fn escape(&mut self, text: &[u8], out: &mut Vec<u8>) {
        let mut rest = text;
        while let Some(at) = rest.iter().position(|byte| matches!(byte, 0xE2 | 0xC2)) {
            out.extend_from_slice(&rest[..at]);
            rest = &rest[at..];
            let passed = match separator(rest) {
                Found::Separator(length, escaped) => {
                    out.extend_from_slice(escaped);
                    length
                }
                Found::Incomplete => {
                    self.held.extend_from_slice(rest);
                    return;
                }
                Found::Other => {
                    out.push(rest[0]);
                    1
                }
            };
            rest = &rest[passed..];
        }
        out.extend_from_slice(rest);
    }
}

fn separator(bytes: &[u8]) -> Found {
    match bytes {
        [0xE2, 0x80, 0xA8, ..] => Found::Separator(3, br"\u2028"),
        [0xE2, 0x80, 0xA9, ..] => Found::Separator(3, br"\u2029"),
        [0xC2, 0x85, ..] => Found::Separator(2, br"\u0085"),
        [0xE2] | [0xE2, 0x80] | [0xC2] => Found::Incomplete,
        _ => Found::Other,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn escaped<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
        let (mut escaper, mut out) = (Escaper::default(), Vec::new());
        for piece in pieces {
            escaper.push(piece, &mut out);
            assert!(escaper.held.len() <= 2, "held: {:?}", escaper.held);
        }
        escaper.finish(&mut out);
        out
    }

    #[test]
    fn separators_are_escaped_and_their_neighbours_are_not() {
        let text = "a\u{2027}\u{2028}\u{2029}\u{202A}\u{84}\u{85}\u{86}é€😀";
        let wanted = "a\u{2027}\\u2028\\u2029\u{202A}\u{84}\\u0085\u{86}é€😀";
        assert_eq!(escaped([text.as_bytes()]), wanted.as_bytes());
    }

    #[test]
    fn bytes_that_end_within_a_character_are_passed_on() {
        assert_eq!(escaped([&b"a\xE2\x80"[..]]), b"a\xE2\x80");
    }

    proptest! {
        #[test]
        fn every_split_gives_the_same_and_the_json_keeps_its_meaning(
            text in "[a\u{85}\u{2028}\u{2029}\u{2030}é€\"\\\\]{0,30}",
            cuts in proptest::collection::vec(0usize..200, 0..8),
        ) {
            let json = serde_json::to_string(&text).unwrap();
            let whole = escaped([json.as_bytes()]);
            let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (json.len() + 1)).collect();
            ends.extend([0, json.len()]);
            ends.sort_unstable();
            let pieces = ends.windows(2).map(|pair| &json.as_bytes()[pair[0]..pair[1]]);
            prop_assert_eq!(&escaped(pieces), &whole);
            let whole = String::from_utf8(whole).unwrap();
            prop_assert!(!whole.contains(SEPARATORS));
            prop_assert_eq!(serde_json::from_str::<String>(&whole).unwrap(), text);
        }
    }
}
