//! Cost of shared sessions: connections, threads and descriptors of the arbiters, whatever the number of sessions.

use std::thread::available_parallelism;

use mcp_courier_testing::in_own_process;
use mcp_courier_testing::process::Process;

use super::place::{NEVER, Place, shared};

#[actix::test]
async fn g6_connections_threads_and_descriptors_do_not_grow_with_the_sessions() {
    in_own_process!();
    let arbiters = available_parallelism().unwrap().get();
    let mut place = Place::new(0, shared()).await;
    let without = place.redis.connected_clients().await;
    let count = async |place: &Place| {
        (place.redis.connected_clients().await, Process::this().threads(), Process::this().descriptors())
    };
    place.add(4 * arbiters).await;
    place.flows().await;
    let few = count(&place).await;
    assert!(few.0 <= without + 2 * arbiters, "{without} connections, and then {few:?}");
    place.add(1000).await;
    place.redis::<()>(&["PING"]).await;
    let many = count(&place).await;
    assert_eq!(few.0, many.0, "connections");
    assert!(many.1 <= few.1 && many.2 <= few.2, "threads and descriptors: {few:?}, {many:?}");
}

#[actix::test]
async fn sessions_that_stop_leave_their_neighbours_connections_alone() {
    let mut place = Place::new(50, shared().heartbeat(NEVER)).await;
    place.flows_at_once().await;
    let lines = place.lines().await;
    for (id, recorder) in place.sessions.split_off(10) {
        assert!(place.courier.stop_subscriber(&id, None).await);
        assert_eq!(recorder.taken(), [0]);
    }
    place.flows_at_once().await;
    assert_eq!(place.lines().await, lines);
}
