//! Parts of a link that the subscribers of a server need.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::endpoint::Endpoint;
use super::inner::{Common, Inner};
use super::pushes::Pushes;
use super::watches::Concerned;
use super::{Command, Deployment, Link, Route};
use crate::backend::redis::lua::Script;
use crate::config::Config;
use crate::failure::QueueErrorKind;

impl Link {
    /// Makes a link for one subscriber, to be connected once. In a cluster the link leads to the node of `key`, and may
    /// carry only commands whose keys share its slot.
    pub(in crate::backend::redis) fn dedicated(
        deployment: &Deployment,
        config: &Config,
        pushes: Pushes,
        #[cfg_attr(not(feature = "cluster"), expect(unused_variables, reason = "one server has all keys"))] key: &str,
    ) -> Self {
        let common = Common::new(config, pushes, None);
        let endpoint = match deployment {
            Deployment::Server(server) => Endpoint::Server(server.clone()),
            #[cfg(feature = "cluster")]
            Deployment::Cluster(topology) => {
                Endpoint::Slot(Arc::clone(topology), crate::keys::slot::slot(key.as_bytes()))
            }
        };
        Self { route: Route::to(endpoint, &common), common, is_for_large_answers: false }
    }

    /// Returns the one connection of a dedicated link; `None` for a shared link to a cluster.
    fn line(&self) -> Option<&Arc<Inner>> {
        match &self.route {
            Route::One(line) => Some(line),
            #[cfg(feature = "cluster")]
            Route::Nodes(_) => None,
        }
    }

    /// Connects, unless the link is connected already. A shared link to a cluster connects at its first request.
    ///
    /// # Errors
    /// Redis's refusal, or a connection that did not come about in time.
    pub(in crate::backend::redis) async fn connect(&self) -> Result<(), QueueErrorKind> {
        match self.line() {
            Some(line) => line.connected().await.map(drop),
            None => Ok(()),
        }
    }

    /// Loads scripts. Returns Redis's reason where it refuses one. Callers need not load: the link itself loads a
    /// script that Redis turns out not to know.
    pub(in crate::backend::redis) async fn load(&self, scripts: &[&'static Script]) -> Option<String> {
        match self.line() {
            Some(line) => line.load(scripts).await,
            None => None,
        }
    }

    /// Registers for all keys, as [`watch`](Link::watch) does for one. The listener learns which keys may have
    /// changed.
    pub(in crate::backend::redis) fn observe(&self, listener: impl Fn(Concerned<'_>) + Send + Sync + 'static) {
        self.common.watches.observe(listener);
    }

    /// Returns whether Redis announces changed keys over the current connection, as the link asked it to.
    pub(in crate::backend::redis) fn is_tracking(&self) -> bool {
        self.common.is_tracking.load(Ordering::Relaxed)
    }

    /// Returns whether the link leads to all nodes of a cluster, as a shared link does.
    pub(in crate::backend::redis) fn is_cluster(&self) -> bool {
        !matches!(self.route, Route::One(_))
    }

    /// Returns the slot of the first of these commands that has a key; 0 where one server has all keys.
    pub(in crate::backend::redis) fn slot_of(&self, commands: &[Command]) -> u16 {
        if self.is_cluster() { commands.iter().find_map(Command::slot).unwrap_or_default() } else { 0 }
    }

    /// Returns a number for the server that has a slot now. Slots of one server have the same number.
    pub(in crate::backend::redis) fn lane(
        &self,
        #[cfg_attr(not(feature = "cluster"), expect(unused_variables, reason = "one server has all slots"))] slot: u16,
    ) -> usize {
        match &self.route {
            #[cfg(feature = "cluster")]
            Route::Nodes(nodes) => nodes.number_of(slot),
            _ => 0,
        }
    }
}
