//! Readers of hexadecimal digits in the one form in which ids have them: in lower case, and without a sign.

/// Returns whether a text consists of such digits.
pub(crate) fn are_digits(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Reads a number. Returns `None` for any other text.
pub(crate) fn read(text: &str) -> Option<u64> {
    if are_digits(text) { u64::from_str_radix(text, 16).ok() } else { None }
}

/// Reads a number without leading zeros. Returns `None` for any other text.
pub(crate) fn read_shortest(text: &str) -> Option<u64> {
    if text.len() > 1 && text.starts_with('0') { None } else { read(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_in_the_form_in_which_they_are_written() {
        for number in [0, 9, 0xa, 0x10, 0x65a1_b2c3_d4e5, u64::MAX] {
            assert_eq!(read_shortest(&format!("{number:x}")), Some(number));
            assert_eq!(read(&format!("{number:016x}")), Some(number));
        }
        for text in ["", "+1", "-1", "A", "0x1", "g", " 1", "10000000000000000"] {
            assert_eq!((read(text), read_shortest(text)), (None, None), "{text:?}");
        }
        assert_eq!((read("01"), read_shortest("01")), (Some(1), None));
    }
}
