//! The Lua scripts in a real Redis.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/redis_server.rs"]
mod redis_server;

use mcp_courier::testing::backend::lua_scripts;

use crate::redis_server::RedisServer;

#[tokio::test]
async fn every_script_compiles() {
    let server = RedisServer::start();
    let mut connection = server.connection().await;
    for (name, text) in lua_scripts() {
        let loaded: redis::RedisResult<String> =
            redis::cmd("SCRIPT").arg("LOAD").arg(text).query_async(&mut connection).await;
        assert!(loaded.is_ok(), "{name}: {loaded:?}");
    }
}
