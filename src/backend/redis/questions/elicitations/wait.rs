//! Wait for the answer to a question.

use std::time::{Duration, Instant};

use redis::Value;

use crate::backend::questions::TAKEN_OVER;
use crate::backend::redis::key_watcher::{ALIVE, KeyWatcher};
use crate::backend::redis::link::Command;
use crate::backend::redis::lua::{COLLECT, TOUCH};
use crate::backend::redis::reply::{self, BadReply};
use crate::backend::sealing::read_answer;
use crate::failure::QueueErrorKind;
use crate::keys::ElicitKeys;
use crate::question::Answer;
use crate::seal::{Refused, SealingKeys};

/// Longest time between FastMCP's write of an answer and its write of the status, and pause between two reads
/// meanwhile.
const GIVING: Duration = Duration::from_secs(1);
const GLANCE: Duration = Duration::from_millis(2);

/// Pause after a failed read of an answer.
const PAUSE: Duration = Duration::from_millis(500);

/// Answer of the script while FastMCP has written the answer but not yet the status.
const BEING_GIVEN: Value = Value::Int(2);

/// Waits until there is an answer, and retries after failures. The caller limits the time.
/// An answer that cannot be used is the outcome too: it was the first, so no other follows.
pub(super) async fn answer_to(
    watcher: &KeyWatcher,
    keys: ElicitKeys,
    sealing: Option<&SealingKeys>,
    request_id: &str,
) -> Result<Answer, Refused> {
    let alive = ALIVE.as_millis().to_string();
    let touch = Command::call(&TOUCH, &[&keys.asker, &keys.response, &keys.request], &[request_id, &alive]);
    let waiting = watcher.register(keys.response.clone(), touch, |answers| !matches!(answers, Value::Int(0)));
    loop {
        waiting.until_due().await;
        let collected = collect(watcher, &keys, request_id)
            .await
            .and_then(|answer| Ok(read(answer, |wire| read_answer(sealing, &keys.request, request_id, wire))?));
        match collected {
            Ok(Some(answer)) => return answer,
            // The announcement was for another change.
            Ok(None) => {}
            // Without this pause a key that holds another type would be read in a tight loop.
            Err(error) => {
                tracing::debug!(%error, "reading the answer to a question failed; trying again");
                tokio::time::sleep(PAUSE).await;
            }
        }
        // The touch tracks the key again, and wakes this waiter if there is an answer already.
        waiting.touch_soon();
    }
}

/// Takes the answer from Redis. While FastMCP has not set the status yet, reads again every [`GLANCE`], for [`GIVING`]
/// at most.
async fn collect(watcher: &KeyWatcher, keys: &ElicitKeys, request_id: &str) -> Result<Value, QueueErrorKind> {
    let ElicitKeys { request, response, status, asker } = keys;
    let began = Instant::now();
    loop {
        let how = if began.elapsed() < GIVING { "wait" } else { "take" };
        match watcher
            .link()
            .query(Command::call(&COLLECT, &[request, response, status, asker], &[request_id, how]))
            .await?
        {
            BEING_GIVEN => tokio::time::sleep(GLANCE).await,
            answer => return Ok(answer),
        }
    }
}

/// Reads the reply of the script. `read_text` reads the text of the answer, if there is one.
fn read(
    value: Value,
    read_text: impl Fn(&[u8]) -> Result<Option<Answer>, Refused>,
) -> Result<Option<Result<Answer, Refused>>, BadReply> {
    match value {
        Value::Nil => Ok(None),
        Value::Int(_) => Ok(Some(Ok(Answer::cancelled(TAKEN_OVER)))),
        other => Ok(read_text(&reply::bytes(other)?).transpose()),
    }
}
