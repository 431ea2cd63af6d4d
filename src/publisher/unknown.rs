//! [`UnknownSessions`]: count of the pushes to sessions that the fleet does not know, with a warning.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::lock::lock;
use crate::session_id::SessionId;

/// Shortest time between two warnings, so that a worker with many wrong ids does not fill the log.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// Pushes to unknown sessions, counted since the publisher was created.
#[derive(Debug, Default)]
pub(super) struct UnknownSessions {
    count: AtomicU64,
    /// Moment of the newest warning, from which [`WARN_EVERY`] counts.
    warned_at: Mutex<Option<Instant>>,
}

impl UnknownSessions {
    /// Counts one push. Warns where the last warning is older than [`WARN_EVERY`].
    pub(super) fn push(&self, session: &SessionId) {
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let mut warned_at = lock(&self.warned_at);
        if warned_at.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
            *warned_at = Some(Instant::now());
            tracing::warn!(
                ?session,
                count,
                "no server of the fleet knows the session of a push; the notification waits until it expires: check the id"
            );
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use super::*;

    /// Log of one test.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            lock(&self.0).write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn many_pushes_are_counted_and_warned_of_once_with_a_short_id() {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        let unknown = UnknownSessions::default();
        tracing::subscriber::with_default(subscriber, || {
            for _ in 0..100 {
                unknown.push(&SessionId::new("0123456789abcdef").unwrap());
            }
        });
        assert_eq!(unknown.count(), 100);
        let log = String::from_utf8(lock(&log.0).clone()).unwrap();
        assert_eq!(log.lines().count(), 1, "{log}");
        assert!(log.contains("session=01234567… count=1") && log.contains("check the id"), "{log}");
        assert!(!log.contains("89abcdef"), "{log}");
    }
}
