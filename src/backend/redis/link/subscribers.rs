//! Parts of a link that the subscribers of a server need.

use std::sync::atomic::Ordering;

use super::pushes::Pushes;
use super::{Link, Server};
use crate::backend::redis::lua::Script;
use crate::config::Config;
use crate::failure::QueueErrorKind;

impl Link {
    /// Makes a link for one subscriber, to be connected once.
    pub(in crate::backend::redis) fn dedicated(server: &Server, config: &Config, pushes: Pushes) -> Self {
        Self::new(server, config, pushes, None)
    }

    /// Connects, unless the link is connected already.
    ///
    /// # Errors
    /// Redis's refusal, or a connection that did not come about in time.
    pub(in crate::backend::redis) async fn connect(&self) -> Result<(), QueueErrorKind> {
        self.inner.connected().await.map(drop)
    }

    /// Loads scripts. Returns Redis's reason where it refuses one. Callers need not load: the link itself loads a
    /// script that Redis turns out not to know.
    pub(in crate::backend::redis) async fn load(&self, scripts: &[&'static Script]) -> Option<String> {
        self.inner.load(scripts).await
    }

    /// Registers for all keys, as [`watch`](Link::watch) does for one. The listener gets no name where all keys may
    /// have changed.
    pub(in crate::backend::redis) fn observe(&self, listener: impl Fn(Option<&[u8]>) + Send + Sync + 'static) {
        self.inner.watches.observe(listener);
    }

    /// Returns whether Redis announces changed keys over the current connection, as the link asked it to.
    pub(in crate::backend::redis) fn is_tracking(&self) -> bool {
        self.inner.is_tracking.load(Ordering::Relaxed)
    }
}
