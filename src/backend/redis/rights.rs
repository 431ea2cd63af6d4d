//! Commands that workers and servers call, with the keys that they call them on. [`examine`](super::examine) asks Redis
//! whether a user may call them. The documentation has the same rights as rules of an ACL.

use crate::keys::{Keys, QueueKeys};
use crate::notification::NotificationId;
use crate::session_id::SessionId;

/// Session whose keys stand for those of all sessions. It need not exist, as nothing is done with its keys.
const EXAMPLE: &str = "example";

/// Command with its arguments: a key where the command takes one.
pub(super) struct Call(pub(super) Vec<String>);

impl Call {
    /// Returns the name of the command as an ACL spells it, such as `GET` or `CLIENT|TRACKING`.
    pub(super) fn name(&self) -> String {
        let words = if ["CLIENT", "CLUSTER", "MEMORY", "PUBSUB", "SCRIPT"].contains(&&*self.0[0]) { 2 } else { 1 };
        self.0[..words].join("|")
    }
}

/// Returns the calls of a worker, and those that only a server makes.
pub(super) fn calls(keys: &Keys) -> Option<(Vec<Call>, Vec<Call>)> {
    let session = SessionId::new(EXAMPLE).ok()?;
    let QueueKeys { queue, lease, questions, dead, .. } = &keys.of(&session);
    let receipt = &keys.of(&session).receipt(NotificationId(uuid::Uuid::nil()));
    let (sessions, stored, probe) = (&keys.sessions(), &keys.session(&session), &keys.probe());
    let call = |words: &[&str]| Call(words.iter().map(ToString::to_string).collect());
    let hash = "0000000000000000000000000000000000000000";
    let worker = vec![
        call(&["EVALSHA", hash, "1", queue]),
        call(&["SCRIPT", "LOAD", "return 1"]),
        call(&["TIME"]),
        call(&["CLIENT", "TRACKING", "ON"]),
        call(&["LPUSH", queue, ""]),
        call(&["LLEN", queue]),
        call(&["LRANGE", dead, "0", "0"]),
        call(&["LINDEX", dead, "0"]),
        call(&["LSET", dead, "0", ""]),
        call(&["LREM", dead, "0", ""]),
        call(&["LTRIM", dead, "0", "0"]),
        call(&["RPOP", dead]),
        call(&["MEMORY", "USAGE", queue]),
        call(&["PTTL", lease]),
        call(&["PEXPIRE", probe, "1"]),
        call(&["GET", receipt]),
        call(&["SET", receipt, ""]),
        call(&["DEL", receipt]),
        call(&["EXISTS", lease]),
        call(&["HGET", questions, ""]),
        call(&["HSET", questions, "", ""]),
        call(&["HDEL", questions, ""]),
        call(&["HLEN", questions]),
        call(&["STRLEN", stored]),
        call(&["SCAN", "0"]),
        call(&["ZRANGEBYSCORE", sessions, "0", "0"]),
    ];
    let server = vec![
        call(&["BLMOVE", queue, queue, "RIGHT", "RIGHT", "0"]),
        call(&["CLIENT", "CACHING", "NO"]),
        call(&["GETEX", stored]),
        call(&["HVALS", questions]),
        call(&["PUBLISH", &keys.news(), ""]),
        call(&["PUBSUB", "NUMSUB"]),
        call(&["SUBSCRIBE", &keys.news()]),
        call(&["ZADD", sessions, "0", ""]),
        call(&["ZREM", sessions, ""]),
        call(&["ZREMRANGEBYSCORE", sessions, "0", "0"]),
        call(&["TYPE", queue]),
    ];
    Some((worker, server))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Returns the commands that the documentation allows a user, sorted.
    fn documented(user: &str) -> BTreeSet<String> {
        let text = include_str!("../../../docs/redis.md");
        let rule = text.split_once(&format!("ACL SETUSER {user} ")).expect("a rule of this user").1;
        let rule = rule.split("```").next().and_then(|rule| rule.split("ACL SETUSER").next()).expect("an end");
        rule.split_whitespace().filter_map(|word| word.strip_prefix('+')).map(str::to_uppercase).collect()
    }

    #[test]
    fn the_documented_rights_are_those_of_these_calls() {
        let (worker, server) = calls(&Keys::new("p")).expect("calls");
        let worker: BTreeSet<String> = worker.iter().map(Call::name).collect();
        assert_eq!(documented("worker"), worker);
        let server = server.iter().map(Call::name).chain(worker).collect::<BTreeSet<_>>();
        assert_eq!(documented("server"), server);
    }

    #[cfg(all(feature = "server", feature = "testing"))]
    #[test]
    fn every_script_calls_only_what_is_documented() {
        let allowed = documented("server");
        let mut calls = 0;
        for script in crate::backend::redis::lua::ALL {
            for call in script.text().split("call('").skip(1) {
                let name = call.split('\'').next().expect("a name").to_uppercase();
                let name = if name == "MEMORY" { "MEMORY|USAGE".to_owned() } else { name };
                assert!(allowed.contains(&name), "{} calls {name}, which docs/redis.md does not allow", script.name());
                calls += 1;
            }
        }
        assert!(calls > 50, "only {calls} calls were found");
    }
}
