//! Settings of the dead letters and receipts in Redis, as scripts take them.

use crate::config::Config;

/// Returns the settings that scripts take: most dead letters, their life in ms, most bytes of them, and the life of a
/// receipt in ms.
pub(super) fn settings(config: &Config) -> [Vec<u8>; 4] {
    let text = |n: u128| n.to_string().into_bytes();
    [
        text(config.dead_letters() as u128),
        text(config.dead_letter_life().as_millis()),
        text(config.queue_max_bytes() as u128),
        text(config.receipt_life().as_millis()),
    ]
}
