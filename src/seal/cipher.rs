//! Cipher of sealed texts, and the associated data that binds each text to its place.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::inout::InOutBuf;
use chacha20poly1305::{AeadInOut, Key, KeyInit, Tag, XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

use super::form::{Binding, SealError, VERSION, Why};
use super::key::SealingKey;

/// Length of a nonce, in bytes.
pub(super) const NONCE: usize = 24;

/// Length of the tag behind the ciphertext, in bytes.
pub(super) const TAG: usize = 16;

/// First part of the associated data: the crate's name, so that no other use of the key opens the text.
const CONTEXT: &str = "mcp-courier";

/// Returns the associated data. Each part is preceded by its length in four bytes, the highest first, so that two
/// different lists of parts never give the same bytes.
pub(super) fn associated_data(key_id: &str, binding: &Binding<'_>) -> Vec<u8> {
    let version = VERSION.to_string();
    let parts = [CONTEXT, &version, binding.purpose.name(), key_id, binding.owner, binding.id];
    let mut data = Vec::with_capacity(parts.iter().map(|part| part.len() + 4).sum());
    for part in parts {
        // No part is longer than a message, which has at most 64 MiB.
        data.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        data.extend_from_slice(part.as_bytes());
    }
    data
}

/// Seals a text under a nonce. Returns nonce, ciphertext and tag in base64.
pub(super) fn seal(
    key_id: &str,
    key: &SealingKey,
    nonce: [u8; NONCE],
    binding: &Binding<'_>,
    text: &str,
) -> Result<String, SealError> {
    let mut bytes = Vec::with_capacity(NONCE + text.len() + TAG);
    bytes.extend_from_slice(&nonce);
    bytes.extend_from_slice(text.as_bytes());
    let tag = cipher(key)
        .encrypt_inout_detached(
            &XNonce::from(nonce),
            &associated_data(key_id, binding),
            InOutBuf::from(&mut bytes[NONCE..]),
        )
        .map_err(|_| SealError::Cipher(text.len()))?;
    bytes.extend_from_slice(&tag);
    Ok(STANDARD.encode(&bytes))
}

/// Opens what [`seal`] returned.
pub(super) fn open(key_id: &str, key: &SealingKey, binding: &Binding<'_>, data: &str) -> Result<String, Why> {
    let mut bytes = STANDARD.decode(data).map_err(|_| Why::Form("n is no base64"))?;
    let text_end = bytes.len().checked_sub(TAG).filter(|end| *end >= NONCE).ok_or(Why::Form("n is too short"))?;
    let mut nonce = XNonce::default();
    nonce.copy_from_slice(&bytes[..NONCE]);
    let mut tag = Tag::default();
    tag.copy_from_slice(&bytes[text_end..]);
    bytes.truncate(text_end);
    cipher(key)
        .decrypt_inout_detached(&nonce, &associated_data(key_id, binding), InOutBuf::from(&mut bytes[NONCE..]), &tag)
        .map_err(|_| Why::Changed)?;
    bytes.drain(..NONCE);
    String::from_utf8(bytes).map_err(|_| Why::Form("the opened text is no UTF-8"))
}

/// Makes the cipher for one text. Its copy of the key is overwritten when it is dropped.
fn cipher(key: &SealingKey) -> XChaCha20Poly1305 {
    let copy: Zeroizing<[u8; SealingKey::LENGTH]> = Zeroizing::new(*key.bytes());
    XChaCha20Poly1305::new(<&Key>::from(&*copy))
}
