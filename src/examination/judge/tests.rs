//! Judgements of servers with one fault each.

use super::super::Verdict;
use super::*;

fn fields(pairs: &[(&str, &str)]) -> Option<std::collections::HashMap<String, String>> {
    Some(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
}

/// Returns facts in which nothing is wrong.
fn good() -> Facts {
    Facts {
        info: fields(&[
            ("redis_version", "7.0.15"),
            ("role", "master"),
            ("maxmemory_policy", "noeviction"),
            ("used_memory", "1000000"),
            ("maxmemory", "100000000"),
            ("aof_enabled", "1"),
            ("aof_last_write_status", "ok"),
            ("connected_slaves", "1"),
            ("connected_clients", "5"),
            ("maxclients", "10000"),
            ("cluster_enabled", "0"),
        ]),
        settings: fields(&[
            ("appendfsync", "everysec"),
            ("save", ""),
            ("min-replicas-to-write", "1"),
            ("timeout", "0"),
            ("tracking-table-max-keys", "1000000"),
        ]),
        trips: vec![Duration::from_micros(200); 5],
        denied: Some(Denied::default()),
        ..Facts::default()
    }
}

#[test]
fn a_good_server_has_no_advice() {
    let checks = good().judge();
    assert!(checks.iter().all(|check| check.verdict == Verdict::Good && check.advice.is_none()), "{checks:#?}");
    assert!(checks.len() > 10, "{checks:#?}");
}

#[test]
fn each_fault_is_found_by_its_own_check_and_no_other() {
    use Verdict::{Unknown, Warning, Wrong};
    type Fault = fn(&mut Facts);
    fn info(facts: &mut Facts, field: &str, value: &str) {
        facts.info.as_mut().unwrap().insert(field.to_owned(), value.to_owned());
    }
    fn set(facts: &mut Facts, name: &str, value: &str) {
        facts.settings.as_mut().unwrap().insert(name.to_owned(), value.to_owned());
    }
    let faults: [(&str, Verdict, Fault); 26] = [
        ("latency", Warning, |f| f.trips = vec![Duration::from_millis(50); 5]),
        ("version", Wrong, |f| info(f, "redis_version", "6.0.16")),
        ("version", Wrong, |f| info(f, "redis_version", "nonsense")),
        ("role", Wrong, |f| {
            info(f, "role", "slave");
            info(f, "master_host", "10.0.0.1");
            info(f, "master_port", "6379");
        }),
        ("role", Wrong, |f| info(f, "loading", "1")),
        ("write", Wrong, |f| f.write_refused = Some("OOM command not allowed".to_owned())),
        ("rights", Wrong, |f| f.denied.as_mut().unwrap().worker.push("LPUSH".to_owned())),
        ("rights", Warning, |f| f.denied.as_mut().unwrap().server.push("BLMOVE".to_owned())),
        ("rights", Unknown, |f| f.denied = None),
        ("eviction", Wrong, |f| info(f, "maxmemory_policy", "volatile-ttl")),
        ("memory", Warning, |f| info(f, "used_memory", "90000000")),
        ("memory", Wrong, |f| info(f, "used_memory", "100000001")),
        ("persistence", Wrong, |f| info(f, "aof_enabled", "0")),
        ("persistence", Wrong, |f| info(f, "aof_last_write_status", "err")),
        ("persistence", Warning, |f| set(f, "appendfsync", "no")),
        ("persistence", Warning, |f| {
            info(f, "aof_enabled", "0");
            set(f, "save", "3600 1");
        }),
        ("persistence", Wrong, |f| {
            info(f, "aof_enabled", "0");
            info(f, "rdb_last_bgsave_status", "err");
        }),
        ("replication", Warning, |f| set(f, "min-replicas-to-write", "0")),
        ("tracking", Warning, |f| f.tracking_refused = Some("NOPERM".to_owned())),
        ("tracking", Warning, |f| info(f, "tracking_total_keys", "900000")),
        ("clock", Warning, |f| f.clock_ahead = 3_600_000_000),
        ("clock", Warning, |f| f.clock_ahead = -3_600_000_000),
        ("connections", Warning, |f| info(f, "connected_clients", "9000")),
        ("timeout", Warning, |f| set(f, "timeout", "10")),
        ("cluster", Wrong, |f| info(f, "cluster_enabled", "1")),
        ("cluster", Wrong, |f| f.is_cluster_url = true),
    ];
    for (name, verdict, fault) in faults {
        let mut facts = good();
        fault(&mut facts);
        let found: Vec<Check> = facts.judge().into_iter().filter(|check| check.verdict != Verdict::Good).collect();
        let [check] = &found[..] else { panic!("{name}: {found:#?}") };
        assert_eq!((check.name, check.verdict), (name, verdict));
        assert!(check.advice.is_some(), "{check:?}");
    }
}

#[test]
fn a_server_that_tells_nothing_is_unknown_and_not_wrong() {
    let facts = Facts { info: None, settings: None, denied: None, ..good() };
    let checks = facts.judge();
    assert!(checks.iter().all(|check| check.verdict <= Verdict::Unknown), "{checks:#?}");
    assert_eq!(checks.iter().filter(|check| check.verdict == Verdict::Unknown).count(), 5, "{checks:#?}");
}

#[test]
fn valkey_is_named() {
    let mut facts = good();
    facts.info.as_mut().unwrap().insert("valkey_version".to_owned(), "9.0.0".to_owned());
    let version = facts.judge().into_iter().find(|check| check.name == "version").unwrap();
    assert_eq!(version.found, "Valkey 9.0.0, compatible with Redis 7.0.15");
}
