//! The example `chat` in trouble: signals at its start, a Redis that permits little, connections that were closed.
#![cfg(feature = "rmcp")]

#[path = "support/chat_process.rs"]
mod chat_process;

use chat_process::ChatProcess;

#[tokio::test]
async fn a_signal_right_after_the_start_ends_the_chat_cleanly() {
    for _ in 0..20 {
        let mut server = ChatProcess::start(&[]).await;
        let status = server.terminate().await;
        assert_eq!(status.code(), Some(0), "{status}");
    }
}
