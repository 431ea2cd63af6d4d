//! Slots of Redis Cluster: the CRC16 of a key, or of its hash tag.

/// Number of slots of a cluster.
pub(crate) const SLOTS: u16 = 16384;

/// Remainders of each byte for the polynomial of XMODEM, 0x1021.
const REMAINDERS: [u16; 256] = {
    let mut remainders = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
            bit += 1;
        }
        remainders[byte] = crc;
        byte += 1;
    }
    remainders
};

/// Returns the slot of a key. Keys with the same text between their first `{` and the next `}` share a slot.
pub(crate) fn slot(key: &[u8]) -> u16 {
    let tag = || {
        let open = key.iter().position(|byte| *byte == b'{')? + 1;
        let length = key[open..].iter().position(|byte| *byte == b'}')?;
        (length > 0).then(|| &key[open..open + length])
    };
    let hashed = tag().unwrap_or(key);
    let crc = hashed.iter().fold(0_u16, |crc, byte| (crc << 8) ^ REMAINDERS[usize::from((crc >> 8) as u8 ^ byte)]);
    crc % SLOTS
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_slots_are_those_of_redis() {
        // As CLUSTER KEYSLOT answers.
        for (key, expected) in [
            ("123456789", 12739),
            ("", 0),
            ("foo", 12182),
            ("{user1000}.following", slot(b"user1000")),
            ("foo{}{bar}", 8363),
            ("foo{{bar}}zap", slot(b"{bar")),
            ("foo{bar}{zap}", slot(b"bar")),
            ("foo{bar", slot(b"foo{bar")),
        ] {
            assert_eq!(slot(key.as_bytes()), expected, "{key}");
        }
    }

    proptest! {
        #[test]
        fn a_table_of_bytes_gives_the_same_as_the_specification_bit_by_bit(key in "[a-z0-9:]{0,40}") {
            let mut crc: u16 = 0;
            for byte in key.bytes() {
                crc ^= u16::from(byte) << 8;
                for _ in 0..8 {
                    crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
                }
            }
            prop_assert_eq!(slot(key.as_bytes()), crc % SLOTS);
        }
    }
}
