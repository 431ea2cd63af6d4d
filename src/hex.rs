//! Hexadecimal digits without the machinery of formatting: each message that goes out has an id of some.

use std::fmt::{Formatter, Result};

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Writes a number in lower case, in at least as many digits.
pub(crate) fn write_hex(f: &mut Formatter<'_>, number: u64, least: usize) -> Result {
    let mut digits = [b'0'; 16];
    let (mut begin, mut rest) = (digits.len(), number);
    while rest > 0 {
        begin -= 1;
        digits[begin] = DIGITS[(rest % 16) as usize];
        rest /= 16;
    }
    let begin = begin.min(digits.len().saturating_sub(least.max(1)));
    // The digits are ASCII.
    f.write_str(std::str::from_utf8(&digits[begin..]).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::fmt::Display;

    use proptest::prelude::*;

    use super::*;

    struct Hex(u64, usize);

    impl Display for Hex {
        fn fmt(&self, f: &mut Formatter<'_>) -> Result {
            write_hex(f, self.0, self.1)
        }
    }

    proptest! {
        #[test]
        fn numbers_are_written_as_the_standard_library_writes_them(number in any::<u64>(), shift in 0..64_u32) {
            let number = number >> shift;
            prop_assert_eq!(Hex(number, 0).to_string(), format!("{number:x}"));
            prop_assert_eq!(Hex(number, 16).to_string(), format!("{number:016x}"));
        }
    }

    #[test]
    fn zero_has_a_digit() {
        assert_eq!(Hex(0, 0).to_string(), "0");
    }
}
