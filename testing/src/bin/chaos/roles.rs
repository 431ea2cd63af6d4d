//! Rules that the roles share: a role ends when its parent process has ended, for whatever reason, and gets commands
//! from it as lines.

use std::io::{BufRead, Write};

use mcp_courier::Cause;
use mcp_courier_testing::redis_server::RedisServer;
use tokio::sync::mpsc;

/// The lines of standard input. At its end the process ends, at once.
pub(crate) fn orders() -> mpsc::UnboundedReceiver<String> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
        std::process::exit(0);
    });
    receiver
}

/// Tells whoever started this.
pub(crate) fn say(line: &str) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}

/// Keeps a Redis: a process of its own, since a `redis-server` would outlive whoever started it.
pub(crate) fn keep_redis() -> Result<(), Cause> {
    let mut redis = RedisServer::durable();
    let here = |redis: &RedisServer| say(&format!("{} {}", redis.port(), redis.pid().unwrap_or_default()));
    here(&redis)?;
    for order in std::io::stdin().lock().lines().map_while(Result::ok) {
        match order.as_str() {
            "kill" => {
                redis.kill();
                say("killed")?;
            }
            "start" => {
                redis.start_again();
                here(&redis)?;
            }
            other => return Err(format!("no such order: {other}").into()),
        }
    }
    Ok(())
}
