//! Stored form of a session's state, which is sealed where the server seals.
//!
//! A session that is plain, or sealed under another key than the primary one, is stored anew after a server has loaded
//! it. So the sessions in use follow a change of the key.

use crate::config::Config;
use crate::failure::{QueueError, QueueErrorKind};
use crate::json::Fields;
use crate::keys::Keys;
use crate::seal::{Binding, FIELD, Purpose, Refused, Sealed, SealingKeys, sealer};
use crate::session_id::SessionId;

/// State of a session that was read.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) state: String,
    /// Set where the state is stored as this process would store it.
    pub(super) is_current: bool,
}

/// Returns the state of a session as it is stored.
///
/// # Errors
/// [`QueueErrorKind::Sealing`] where the state cannot be sealed.
pub(super) fn to_stored(config: &Config, session: &SessionId, state: String) -> Result<String, QueueError> {
    let Some((keys, primary)) = sealer(config.sealing_keys()) else {
        return Ok(state);
    };
    let queue = Keys::new(config.prefix()).queue(session);
    match keys.seal(primary, &Binding { purpose: Purpose::Session, owner: &queue, id: "" }, &state) {
        Ok(sealed) => Ok(format!("{{\"{FIELD}\":{sealed}}}")),
        Err(error) => Err(QueueError::new("storing a session", QueueErrorKind::from(error))),
    }
}

/// Reads the stored state of a session.
///
/// # Errors
/// [`Refused`] where the state cannot be opened, or is plain and only sealed ones are accepted.
pub(super) fn from_stored(config: &Config, session: &SessionId, stored: String) -> Result<Loaded, Refused> {
    let keys = config.sealing_keys();
    let sealed = Fields::of(&stored).ok().and_then(|fields| Sealed::of(fields.get(FIELD)?));
    let Some(sealed) = sealed else {
        return match keys {
            Some(keys) if keys.is_required() => Err(Refused::Plain),
            _ => Ok(Loaded { is_current: keys.and_then(SealingKeys::primary).is_none(), state: stored }),
        };
    };
    let sealed = sealed?;
    let queue = Keys::new(config.prefix()).queue(session);
    let state = sealed.open(keys, &Binding { purpose: Purpose::Session, owner: &queue, id: "" })?;
    let is_current = keys.and_then(SealingKeys::primary).is_none_or(|primary| primary == sealed.key);
    Ok(Loaded { state, is_current })
}
