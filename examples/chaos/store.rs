//! Sessions in Redis, so that a client goes on at another server with its session id.

use std::pin::Pin;

use mcp_courier::Cause;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use rmcp::transport::streamable_http_server::session::{SessionState, SessionStore, SessionStoreError};

pub(crate) struct Store(ConnectionManager);

type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, SessionStoreError>> + Send + 'a>>;

impl Store {
    pub(crate) fn new(url: &str) -> Result<Self, Cause> {
        let config = ConnectionManagerConfig::new().set_number_of_retries(0);
        Ok(Self(redis::Client::open(url)?.get_connection_manager_lazy(config)?))
    }
}

fn key(id: &str) -> String {
    format!("{}:session:{id}", crate::PREFIX)
}

impl SessionStore for Store {
    fn load<'s, 'i, 'a>(&'s self, id: &'i str) -> Answer<'a, Option<SessionState>>
    where
        's: 'a,
        'i: 'a,
    {
        Box::pin(async move {
            let json: Option<Vec<u8>> = redis::cmd("GET").arg(key(id)).query_async(&mut self.0.clone()).await?;
            Ok(json.map(|json| serde_json::from_slice(&json)).transpose()?)
        })
    }

    fn store<'s, 'i, 't, 'a>(&'s self, id: &'i str, state: &'t SessionState) -> Answer<'a, ()>
    where
        's: 'a,
        'i: 'a,
        't: 'a,
    {
        Box::pin(async move {
            let json = serde_json::to_vec(state)?;
            Ok(redis::cmd("SET").arg(key(id)).arg(json).query_async(&mut self.0.clone()).await?)
        })
    }

    fn delete<'s, 'i, 'a>(&'s self, id: &'i str) -> Answer<'a, ()>
    where
        's: 'a,
        'i: 'a,
    {
        Box::pin(async move { Ok(redis::cmd("DEL").arg(key(id)).query_async(&mut self.0.clone()).await?) })
    }
}
