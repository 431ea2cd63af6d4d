//! Judgements about the facts of a server, one function for each property.

use std::time::Duration;

use super::{Check, Denied, Facts};

/// Oldest version of Redis that the scripts need.
const OLDEST: (u32, u32) = (6, 2);

/// Longest round trip that needs no remark. Each push waits for one.
const FAST: Duration = Duration::from_millis(10);

/// Difference of two clocks that needs no remark, in microseconds.
const CLOCKS_AGREE: i64 = 1_000_000;

/// Share of a limit beyond which the limit is near, in percent.
const NEAR: u64 = 80;

/// Advice where `INFO` is refused.
const NEEDS_INFO: &str = "give the user the right `+info`, or look the property up in the service's own console";

/// Advice where `CONFIG GET` is refused.
const NEEDS_CONFIG: &str =
    "give the user the right `+config|get`, or look the property up in the service's own console";

/// Judges all properties.
pub(super) fn all(facts: &Facts) -> Vec<Check> {
    [
        latency,
        version,
        role,
        write,
        rights,
        eviction,
        memory,
        persistence,
        replication,
        tracking,
        clock,
        connections,
        timeout,
        cluster,
    ]
    .into_iter()
    .filter_map(|judge| judge(facts))
    .collect()
}

impl Facts {
    fn info(&self, field: &str) -> Option<&str> {
        self.info.as_ref()?.get(field).map(String::as_str)
    }

    fn info_number(&self, field: &str) -> Option<u64> {
        self.info(field)?.parse().ok()
    }

    fn setting(&self, name: &str) -> Option<&str> {
        self.settings.as_ref()?.get(name).map(String::as_str)
    }
}

/// Returns whether `part` is near `whole`.
fn is_near(part: u64, whole: u64) -> bool {
    u128::from(part) * 100 >= u128::from(whole) * u128::from(NEAR)
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

fn latency(facts: &Facts) -> Option<Check> {
    let mut trips = facts.trips.clone();
    trips.sort_unstable();
    let (median, slowest) = (*trips.get(trips.len() / 2)?, *trips.last()?);
    let found = format!("a round trip takes {median:.1?} in the median, {slowest:.1?} at most, of {}", trips.len());
    Some(if median <= FAST {
        Check::good("latency", found)
    } else {
        let advice =
            "run Redis near the workers and servers: each push and each acknowledgement waits for one round trip";
        Check::warning("latency", found, advice)
    })
}

fn version(facts: &Facts) -> Option<Check> {
    const NAME: &str = "version";
    let Some(redis) = facts.info("redis_version") else {
        return Some(Check::unknown(NAME, "the server does not tell its version", NEEDS_INFO));
    };
    let found = match facts.info("valkey_version") {
        Some(valkey) => format!("Valkey {valkey}, compatible with Redis {redis}"),
        None => format!("Redis {redis}"),
    };
    let mut numbers = redis.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    Some(if version < OLDEST {
        let advice =
            format!("use Redis {}.{} or newer, or Valkey: the scripts need GETEX and RESP3", OLDEST.0, OLDEST.1);
        Check::wrong(NAME, found, advice)
    } else {
        Check::good(NAME, found)
    })
}

fn role(facts: &Facts) -> Option<Check> {
    const NAME: &str = "role";
    let Some(role) = facts.info("role") else {
        return Some(Check::unknown(NAME, "the server does not tell its role", NEEDS_INFO));
    };
    Some(match role {
        "master" if facts.info("loading") == Some("1") => {
            Check::wrong(NAME, "a primary that still loads its data", "wait until the data is loaded")
        }
        "master" => Check::good(NAME, "a primary"),
        _ => {
            let primary = match (facts.info("master_host"), facts.info("master_port")) {
                (Some(host), Some(port)) => format!("the primary at {host}:{port}"),
                _ => "the primary".to_owned(),
            };
            let advice = format!("connect to {primary}, or by redis+sentinel:// to whichever server is the primary");
            Check::wrong(NAME, format!("a replica of {primary}"), advice)
        }
    })
}

fn write(facts: &Facts) -> Option<Check> {
    const NAME: &str = "write";
    let Some(refusal) = &facts.write_refused else { return Some(Check::good(NAME, "a write is accepted")) };
    let advice = match refusal.split_whitespace().next() {
        Some("READONLY") => "connect to the primary",
        Some("LOADING") => "wait until the server has loaded its data",
        Some("MASTERDOWN") => "mend the replica's connection to its primary, and connect to the primary",
        Some("MISCONF") => "mend the server's disk: it cannot write its snapshot, and refuses writes until it can",
        Some("NOREPLICAS") => "start more replicas, or lower min-replicas-to-write",
        Some("OOM") => "raise maxmemory, or delete what fills the memory",
        Some("NOPERM") => "give the user the rights that docs/redis.md lists",
        _ => "mend what the server's answer names",
    };
    Some(Check::wrong(NAME, format!("a write is refused: {refusal}"), advice))
}

fn rights(facts: &Facts) -> Option<Check> {
    const NAME: &str = "rights";
    let user = match &facts.user {
        Some(user) => format!("the user {user:?}"),
        None => "the user".to_owned(),
    };
    let Some(Denied { worker, server }) = &facts.denied else {
        let found = format!("the server does not say what {user} may do");
        return Some(Check::unknown(
            NAME,
            found,
            "Redis says so from version 7.0 on; compare with docs/redis.md by hand",
        ));
    };
    let rights =
        |denied: &[String]| denied.iter().map(|c| format!("+{}", c.to_lowercase())).collect::<Vec<_>>().join(" ");
    Some(if !worker.is_empty() {
        let all: Vec<String> = worker.iter().chain(server).cloned().collect();
        let found = format!("{user} may not call {} on the courier's keys", all.join(", "));
        let advice = format!("ACL SETUSER … {}, with the key patterns of docs/redis.md", rights(&all));
        Check::wrong(NAME, found, advice)
    } else if !server.is_empty() {
        let found = format!("{user} has a worker's rights, and may not call {}", server.join(", "));
        let advice =
            format!("nothing for a worker; a server needs ACL SETUSER … {}, see docs/redis.md", rights(server));
        Check::warning(NAME, found, advice)
    } else {
        Check::good(NAME, format!("{user} may call all that workers and servers need"))
    })
}

fn eviction(facts: &Facts) -> Option<Check> {
    const NAME: &str = "eviction";
    let Some(policy) = facts.info("maxmemory_policy").or_else(|| facts.setting("maxmemory-policy")) else {
        return Some(Check::unknown(NAME, "the server does not tell its eviction policy", NEEDS_INFO));
    };
    let found = format!("maxmemory-policy is {policy}");
    let advice = "set maxmemory-policy to noeviction: any other policy deletes queues when the memory is full";
    Some(match facts.info_number("maxmemory") {
        _ if policy == "noeviction" => Check::good(NAME, found),
        Some(0) => Check::warning(NAME, format!("{found}, and maxmemory is not set"), advice),
        _ => Check::wrong(NAME, found, advice),
    })
}

fn memory(facts: &Facts) -> Option<Check> {
    const NAME: &str = "memory";
    let (used, limit) = (facts.info_number("used_memory")?, facts.info_number("maxmemory")?);
    if limit == 0 {
        return Some(Check::good(NAME, format!("{} are used, and maxmemory is not set", mebibytes(used))));
    }
    let found = format!("{} of {} are used", mebibytes(used), mebibytes(limit));
    Some(if is_near(used, limit) {
        let advice = "raise maxmemory, or find what fills it: a full Redis refuses pushes";
        if used >= limit { Check::wrong(NAME, found, advice) } else { Check::warning(NAME, found, advice) }
    } else {
        Check::good(NAME, found)
    })
}

fn persistence(facts: &Facts) -> Option<Check> {
    const NAME: &str = "persistence";
    let Some(aof) = facts.info("aof_enabled") else {
        return Some(Check::unknown(NAME, "the server does not tell its persistence", NEEDS_INFO));
    };
    let advice =
        "set appendonly to yes, with appendfsync everysec or always: a restart then loses one second or nothing";
    if aof == "1" {
        if facts.info("aof_last_write_status").is_some_and(|status| status != "ok") {
            let advice = "mend the server's disk: the append-only file is not written";
            return Some(Check::wrong(NAME, "the append-only file could not be written", advice));
        }
        return Some(match facts.setting("appendfsync") {
            Some("no") => {
                Check::warning(NAME, "an append-only file, which the operating system writes when it likes", advice)
            }
            Some(fsync) => Check::good(NAME, format!("an append-only file, appendfsync {fsync}")),
            None => Check::good(NAME, "an append-only file"),
        });
    }
    if facts.info("rdb_last_bgsave_status").is_some_and(|status| status != "ok") {
        return Some(Check::wrong(
            NAME,
            "the last snapshot failed",
            "mend the server's disk, and set appendonly to yes",
        ));
    }
    Some(match facts.setting("save") {
        Some("") => Check::wrong(NAME, "none: a restart of Redis loses all queues", advice),
        Some(save) => Check::warning(
            NAME,
            format!("snapshots only (save {save}): a crash loses the time since the last one"),
            advice,
        ),
        None => Check::unknown(NAME, "no append-only file; the server does not tell its snapshots", NEEDS_CONFIG),
    })
}

fn replication(facts: &Facts) -> Option<Check> {
    const NAME: &str = "replication";
    let replicas = facts.info_number("connected_slaves").filter(|_| facts.info("role") == Some("master"))?;
    if replicas == 0 {
        return Some(Check::good(NAME, "no replica is connected"));
    }
    let found = format!("{replicas} connected replicas");
    Some(match facts.setting("min-replicas-to-write") {
        Some("0") => {
            let advice = "set min-replicas-to-write to 1: a primary that is cut off then refuses pushes, which a failover would lose";
            Check::warning(NAME, format!("{found}, and min-replicas-to-write is 0"), advice)
        }
        Some(least) => Check::good(NAME, format!("{found}, and min-replicas-to-write is {least}")),
        None => Check::unknown(NAME, found, NEEDS_CONFIG),
    })
}

fn tracking(facts: &Facts) -> Option<Check> {
    const NAME: &str = "tracking";
    if let Some(refusal) = &facts.tracking_refused {
        let advice = "give the user the right `+client|tracking`, and use no proxy that lacks RESP3: \
                      without tracking, queues are read every 250 ms";
        return Some(Check::warning(NAME, format!("CLIENT TRACKING is refused: {refusal}"), advice));
    }
    let limit = facts.setting("tracking-table-max-keys").and_then(|limit| limit.parse().ok()).unwrap_or(0);
    let tracked = facts.info_number("tracking_total_keys").unwrap_or(0);
    let found = format!("CLIENT TRACKING is accepted, and {tracked} keys are tracked");
    Some(if limit > 0 && is_near(tracked, limit) {
        let advice = "raise tracking-table-max-keys: beyond it Redis forgets keys, and messages wait for a heartbeat";
        Check::warning(NAME, format!("{found} of at most {limit}"), advice)
    } else {
        Check::good(NAME, found)
    })
}

fn clock(facts: &Facts) -> Option<Check> {
    let ahead = facts.clock_ahead;
    let distance = Duration::from_micros(ahead.unsigned_abs());
    let found = match ahead {
        0.. => format!("the server's clock is {distance:.1?} ahead of this host's"),
        _ => format!("the server's clock is {distance:.1?} behind this host's"),
    };
    Some(if ahead.abs() <= CLOCKS_AGREE {
        Check::good("clock", found)
    } else {
        let advice = "set both clocks by NTP: notifications expire by the server's clock, and logs carry this host's";
        Check::warning("clock", found, advice)
    })
}

fn connections(facts: &Facts) -> Option<Check> {
    let (open, limit) = (facts.info_number("connected_clients")?, facts.info_number("maxclients")?);
    let found = format!("{open} of {limit} connections are open");
    Some(if is_near(open, limit) {
        let advice = "raise maxclients, or lower dedicated_limit: each dedicated subscriber has a connection";
        Check::warning("connections", found, advice)
    } else {
        Check::good("connections", found)
    })
}

fn timeout(facts: &Facts) -> Option<Check> {
    let seconds: u64 = facts.setting("timeout")?.parse().ok()?;
    Some(match seconds {
        0 => Check::good("timeout", "idle connections stay open"),
        // A link that is used is checked every five seconds.
        1..60 => {
            let advice = "set timeout to 0: the crate opens a connection again each time, which delays deliveries";
            Check::warning("timeout", format!("the server closes connections that are idle for {seconds} s"), advice)
        }
        _ => Check::good("timeout", format!("the server closes connections that are idle for {seconds} s")),
    })
}

fn cluster(facts: &Facts) -> Option<Check> {
    let is_cluster = facts.info("cluster_enabled")? == "1";
    match (is_cluster, facts.is_cluster_url) {
        (true, true) => Some(Check::good("cluster", "a cluster, by a URL of a cluster")),
        (false, false) => None,
        (true, false) => {
            let advice = "use redis+cluster://: by this URL only the sessions in this node's slots are reached";
            Some(Check::wrong("cluster", "the server is a node of a cluster, and the URL names one server", advice))
        }
        (false, true) => Some(Check::wrong(
            "cluster",
            "the URL names a cluster, and the server is none",
            "use redis:// for one server",
        )),
    }
}

#[cfg(test)]
mod tests;
