//! [`Deployment`], the way in which Redis is run, and [`Endpoint`], the place to which one connection leads.

#[cfg(feature = "cluster")]
use std::sync::Arc;

use redis::{Pipeline, RedisResult};

use super::connection::{Connection, Push, Server};
#[cfg(feature = "cluster")]
use super::topology::Topology;
use crate::backend::redis::url::Address;
#[cfg(feature = "cluster")]
use crate::backend::redis::url::Place;
use crate::config::ConfigError;

/// Redis as its URL names it: one server, which Sentinels may name, or a cluster.
#[derive(Clone)]
pub(in crate::backend::redis) enum Deployment {
    /// Single server.
    Server(Server),
    /// Cluster of several masters.
    #[cfg(feature = "cluster")]
    Cluster(Arc<Topology>),
}

impl Deployment {
    /// Reads a URL. Makes no connection.
    ///
    /// # Errors
    /// [`ConfigError`], without the parts of the URL that may be secret.
    pub(in crate::backend::redis) fn new(url: &str) -> Result<Self, ConfigError> {
        let address = Address::parse(url)?;
        #[cfg(feature = "cluster")]
        if let Place::Cluster(seeds) = &address.place {
            let seeds = seeds.clone();
            return Ok(Self::Cluster(Arc::new(Topology::new(Server::new(url, address)?, seeds))));
        }
        Server::new(url, address).map(Self::Server)
    }

    /// Returns whether Redis is a cluster.
    pub(in crate::backend::redis) fn is_cluster(&self) -> bool {
        match self {
            Self::Server(_) => false,
            #[cfg(feature = "cluster")]
            Self::Cluster(_) => true,
        }
    }
}

/// Place to which a connection leads.
#[derive(Clone)]
pub(super) enum Endpoint {
    /// Single server.
    Server(Server),
    /// Node of a cluster that serves this slot at the moment of the connection.
    #[cfg(all(feature = "cluster", feature = "server"))]
    Slot(Arc<Topology>, u16),
}

impl Endpoint {
    /// Makes a connection, as [`Server::connect`] does with the same probe. Returns it with its server.
    ///
    /// # Errors
    /// Those of [`Server::connect`], and a slot whose node is not known.
    pub(super) async fn connect(
        &self,
        probe: &Pipeline,
        pushed: impl Fn(Push) + Send + Sync + 'static,
    ) -> RedisResult<(Connection, Server)> {
        match self {
            Self::Server(server) => Ok((server.connect(probe, pushed).await?, server.clone())),
            #[cfg(all(feature = "cluster", feature = "server"))]
            Self::Slot(topology, slot) => {
                // No command was sent, so the error is that of a connection that was not made.
                let refused = |error: crate::failure::QueueErrorKind| {
                    std::io::Error::new(std::io::ErrorKind::ConnectionRefused, error.to_string())
                };
                let server = topology.server_at(&topology.node_of(*slot).await.map_err(refused)?);
                let connected = server.connect(probe, pushed).await;
                if connected.is_err() {
                    topology.refresh_after_loss();
                }
                Ok((connected?, server))
            }
        }
    }
}
