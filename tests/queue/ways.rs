//! Ways in which Redis is run: with TLS, behind Sentinels, with users of few rights. Each test talks to real servers.

mod rights;
#[cfg(feature = "sentinel")]
mod sentinel;
#[cfg(feature = "tls")]
mod tls;
