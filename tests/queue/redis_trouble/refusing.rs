//! Redis answers, and refuses.

use std::time::Duration;

use mcp_courier::{PushRefusal, SubscriberState};
use mcp_courier_testing::in_own_process;
use mcp_courier_testing::log;
use mcp_courier_testing::redis_server::RedisServer;
use mcp_courier_testing::waiting;

use super::place::Place;

fn assert_refused((refusal, took): (PushRefusal, Duration), text: &str) {
    assert!(matches!(&refusal, PushRefusal::Refused(said) if said.contains(text)), "{refusal:?}");
    assert!(!refusal.may_have_been_queued());
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[actix::test]
async fn out_of_memory_what_is_queued_is_delivered_and_what_is_pushed_is_refused() {
    in_own_process!();
    let mut place = Place::new().await;
    place.recorder().presence().disconnected();
    place.queue().await;
    let () = place.command(&["CONFIG", "SET", "maxmemory", "1"]).await;
    place.recorder().presence().connected(2);
    place.recorder().until_taken(2).await;
    assert_refused(place.refusal().await, "OOM");
    // A wait that blocks is refused. A shared one reads, which needs no memory.
    let is_refused = !waiting::is_shared();
    if is_refused {
        place.until_all_say("OOM").await;
    } else {
        place.until_all_wait().await;
    }
    place.assert_calm("out of memory", Duration::from_secs(3)).await;
    let () = place.command(&["CONFIG", "SET", "maxmemory", "0"]).await;
    let took = place.flows().await;
    println!("out of memory: flows {took:?} after its end");
    if is_refused {
        place.assert_logged("OOM").await;
    }
}

#[actix::test]
async fn a_primary_that_becomes_a_replica_is_left_for_the_one_its_address_leads_to() {
    in_own_process!();
    let mut place = Place::new().await;
    let mut new_primary = RedisServer::start();
    let port = new_primary.port().to_string();
    let () = place.command(&["REPLICAOF", "127.0.0.1", &port]).await;
    place.until_all_say("READONLY").await;
    assert_refused(place.refusal().await, "READONLY");
    place.assert_calm("a read-only replica", Duration::from_secs(3)).await;
    // The name leads to the new primary now; connections to the old one are not cut.
    place.forwarder.lead_to(new_primary.port());
    let took = place.flows().await;
    println!("read-only, and the address leads to the new primary: flows {took:?} after");
    place.assert_logged("READONLY").await;
    // And back.
    let () = place.command(&["REPLICAOF", "NO", "ONE"]).await;
    place.forwarder.lead_to(place.redis.port());
    new_primary.kill();
    let took = place.flows().await;
    println!("and back: flows {took:?} after");
}

#[actix::test]
async fn a_replica_that_becomes_the_primary_again_goes_on_at_the_same_address() {
    in_own_process!();
    let mut place = Place::new().await;
    let other = RedisServer::start();
    let () = place.command(&["REPLICAOF", "127.0.0.1", &other.port().to_string()]).await;
    place.until_all_say("READONLY").await;
    let () = place.command(&["REPLICAOF", "NO", "ONE"]).await;
    let took = place.flows().await;
    println!("read-only, and back: flows {took:?} after");
}

#[actix::test]
async fn scripts_that_were_flushed_are_loaded_again_and_nobody_notices() {
    in_own_process!();
    let mut place = Place::new().await;
    for _ in 0..3 {
        place.until_all_wait().await;
        let () = place.command(&["SCRIPT", "FLUSH"]).await;
        place.push().await.0.unwrap();
        let () = place.command(&["SCRIPT", "FLUSH"]).await;
        place.flows().await;
    }
    place.assert_calm("scripts flushed", Duration::from_secs(1)).await;
    // Only where the next flush came between loading a script and calling it.
    let errors: Vec<_> = place.subscribers().await.into_iter().filter_map(|info| info.last_error).collect();
    assert!(errors.iter().all(|error| error.contains("NOSCRIPT")), "{errors:?}");
}

#[actix::test]
async fn after_a_flush_the_owners_take_their_leases_again_and_go_on() {
    in_own_process!();
    let mut place = Place::new().await;
    for command in ["FLUSHALL", "FLUSHDB"] {
        place.until_all_wait().await;
        let () = place.command(&[command]).await;
        let took = place.flows().await;
        println!("{command}: flows after {took:?}");
    }
    let id = if waiting::is_shared() { String::new() } else { format!("{:?}", place.id()) };
    assert!(!log::lines(&[&id, "WARN", "the lease had gone; it is claimed again"]).is_empty());
    place.assert_calm("flushed", Duration::from_secs(1)).await;
    place.redis.assert_no_key_without_expiry().await;
}

#[actix::test]
async fn a_password_that_was_changed_is_named_and_goes_on_when_it_is_right_again() {
    in_own_process!();
    let redis = RedisServer::start();
    let mut place = Place::with(redis, ":right@").await;
    let () = place.command(&["CONFIG", "SET", "requirepass", "other"]).await;
    // Those who are in stay in.
    place.flows().await;
    let _: usize = place.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
    place.until_all_say("WRONGPASS").await;
    assert_refused(place.refusal().await, "WRONGPASS");
    assert_refused(place.refusal().await, "WRONGPASS");
    place.assert_calm("a wrong password", Duration::from_secs(3)).await;
    let () = place.command(&["CONFIG", "SET", "requirepass", "right"]).await;
    let took = place.flows().await;
    println!("wrong password: flows {took:?} after it is right again");
    place.assert_logged("WRONGPASS").await;
    assert!(log::lines(&[":right@"]).is_empty(), "a password is in the log");
}

#[actix::test]
async fn a_right_that_is_missing_is_named_and_goes_on_when_it_is_given() {
    in_own_process!();
    let mut place = Place::new().await;
    let () = place.command(&["ACL", "SETUSER", "default", "-blmove", "-evalsha"]).await;
    place.until_all_say("NOPERM").await;
    assert_refused(place.refusal().await, "NOPERM");
    place.assert_calm("no right to BLMOVE and EVALSHA", Duration::from_secs(2)).await;
    let () = place.command(&["ACL", "SETUSER", "default", "+@all"]).await;
    place.flows().await;
    place.assert_logged("NOPERM").await;
}

#[actix::test]
async fn another_type_under_a_queue_or_a_lease_is_named_and_waited_out_until_it_is_removed() {
    in_own_process!();
    let mut place = Place::new().await;
    let queue = format!("mcp-courier:notifications:{}", place.whole_id());
    let lease = format!("{{{queue}}}:lease");
    for (key, command, said) in [
        (&queue, "SET", "the key of the queue holds a string, not a list"),
        (&lease, "RPUSH", "the key of the lease holds a list, not a string"),
    ] {
        // In one step: an owner takes a lease that is gone at once.
        let put = format!("redis.call('DEL', KEYS[1]) redis.call('{command}', KEYS[1], 'x')");
        let () = place.command(&["EVAL", &put, "1", key]).await;
        place.until_one_says(said).await;
        // Nobody else is concerned.
        let others = place.subscribers().await;
        assert_eq!(others.iter().filter(|info| info.last_error.is_some()).count(), 1);
        place.assert_calm(said, Duration::from_secs(2)).await;
        if key == &queue {
            let refused = place.push_to_the_first().await.unwrap_err();
            assert!(refused.reason.to_string().contains("WRONGTYPE"), "{refused}");
        }
        let () = place.command(&["DEL", key]).await;
        place.flows().await;
        place.assert_logged(said).await;
    }
}

#[actix::test]
async fn another_type_under_the_live_sessions_is_logged_and_holds_nothing_up() {
    in_own_process!();
    let mut place = Place::new().await;
    let () = place.command(&["DEL", "mcp-courier:sessions"]).await;
    let () = place.command(&["SET", "mcp-courier:sessions", "x", "EX", "60"]).await;
    let id = format!("{:?}", place.id());
    mcp_courier_testing::eventually::eventually("a word in the log", super::place::RECOVERY, async || {
        // Shared sessions are announced together.
        let said: &[&str] = if waiting::is_shared() {
            &["WARN", "announcing shared sessions as live failed", "WRONGTYPE"]
        } else {
            &[&id, "WARN", "announcing a session as live failed", "WRONGTYPE"]
        };
        !log::lines(said).is_empty()
    })
    .await;
    place.flows().await;
    mcp_courier_testing::eventually::eventually("all are at work", super::place::RECOVERY, async || {
        place.subscribers().await.iter().all(|info| info.state == SubscriberState::Waiting)
    })
    .await;
}

#[actix::test]
async fn a_policy_that_evicts_is_warned_of_at_start() {
    in_own_process!();
    let redis = RedisServer::with(&["--maxmemory-policy", "allkeys-lru"]);
    let place = Place::with(redis, "").await;
    let port = place.forwarder.port().to_string();
    let said = log::lines(&["WARN", "set maxmemory-policy to noeviction", "allkeys-lru", &port]);
    assert!(!said.is_empty(), "{:?}", log::lines(&["WARN"]));
}
