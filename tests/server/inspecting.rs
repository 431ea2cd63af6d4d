//! Why a session gets nothing: sessions at real servers, each silent for another reason, and the reason that operators
//! are told.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mcp_courier::testing::backend::{OwnerToken, Permit, connect, server_record};
use mcp_courier::{
    ConfigBuilder, Courier, Finding, FindingCode, HandOverError, Inspector, Notification, NotificationId, Principal,
    Publisher, Receipt, SessionId, Severity, Task, TaskStatus, TroubleState,
};
use mcp_courier_testing::eventually::{SOON, eventually, eventually_some};
use mcp_courier_testing::mcp_server::McpServer;
use mcp_courier_testing::raw_client::RawClient;
use mcp_courier_testing::recorder::{Act, Recorder};
use mcp_courier_testing::redis_server::RedisServer;
use mcp_courier_testing::waiting;

/// Settings under which records are written often.
fn config() -> ConfigBuilder {
    waiting::config().heartbeat(Duration::from_millis(300)).dead_letters(10)
}

/// A Redis, a server on rmcp over it, a worker, and an operator.
struct Fleet {
    redis: RedisServer,
    server: McpServer,
    publisher: Publisher,
    inspector: Inspector,
}

impl Fleet {
    async fn start() -> Self {
        let redis = RedisServer::start();
        let courier = Courier::start(&redis.url(), config().build().unwrap()).await.unwrap();
        let manager = courier.session_manager();
        let server = McpServer::of_fleet(courier, manager);
        let publisher = Publisher::connect(&redis.url(), config().build().unwrap()).await.unwrap();
        let inspector = Inspector::connect(&redis.url(), config().build().unwrap()).await.unwrap();
        Self { redis, server, publisher, inspector }
    }

    async fn push(&self, session: &SessionId) -> NotificationId {
        self.publisher.push(session, Notification::tools_list_changed().with_receipt()).await.unwrap().id
    }

    async fn findings(&self, session: &SessionId) -> Vec<Finding> {
        let findings = self.inspector.explain(session).await.unwrap();
        assert!(findings.iter().all(|finding| !finding.text.contains(session.as_str())), "{findings:?}");
        assert!(findings.iter().all(|finding| !finding.text.is_empty() && !finding.advice.is_empty()), "{findings:?}");
        findings
    }

    async fn codes(&self, session: &SessionId) -> Vec<FindingCode> {
        self.findings(session).await.iter().map(|finding| finding.code).collect()
    }

    /// Waits until this finding comes first, and returns the finding.
    async fn first(&self, session: &SessionId, code: FindingCode) -> Finding {
        eventually_some(&format!("{code:?}"), SOON, async || {
            let found = self.findings(session).await.swap_remove(0);
            (found.code == code).then_some(found)
        })
        .await
    }
}

fn id(client: &RawClient) -> SessionId {
    SessionId::new(client.session_id()).unwrap()
}

fn named(name: &str) -> SessionId {
    SessionId::new(name).unwrap()
}

#[actix::test]
async fn an_id_that_no_session_has_is_unknown() {
    let fleet = Fleet::start().await;
    let session = named("0f0c2f6e-mistyped");
    fleet.push(&session).await;
    let finding = fleet.first(&session, FindingCode::UnknownSession).await;
    assert_eq!(finding.severity, Severity::Error);
    assert!(finding.text.contains("1 message waits"), "{finding:?}");
}

#[actix::test]
async fn a_session_that_has_ended_says_so() {
    let fleet = Fleet::start().await;
    let client = RawClient::connect(&fleet.server.url).await;
    assert!(client.delete().await.is_success());
    fleet.push(&id(&client)).await;
    fleet.first(&id(&client), FindingCode::Ended).await;
}

#[actix::test]
async fn a_client_without_a_stream_is_away() {
    let fleet = Fleet::start().await;
    let client = RawClient::connect(&fleet.server.url).await;
    let stream = client.open_stream().await;
    eventually("an owner", SOON, async || fleet.inspector.owner(&id(&client)).await.unwrap().is_some()).await;
    stream.close();
    let finding = fleet.first(&id(&client), FindingCode::ClientAway).await;
    assert!(finding.text.contains("no message waits"), "{finding:?}");
    fleet.push(&id(&client)).await;
    let finding = fleet.first(&id(&client), FindingCode::ClientAway).await;
    assert!(finding.text.contains("1 message waits"), "{finding:?}");
}

#[actix::test]
async fn a_worker_that_leaves_the_user_out_pushes_to_another_session() {
    let fleet = Fleet::start().await;
    let client = RawClient::connect_as(&fleet.server.url, "alice").await;
    let _stream = client.open_stream().await;
    let (pushed_to, of_client) = (id(&client), id(&client).bound_to(Principal::new("alice").unwrap()));
    fleet.push(&pushed_to).await;
    let finding = fleet.first(&pushed_to, FindingCode::WrongPrincipal).await;
    assert!(finding.text.contains("bound to a user, and this one to nobody: 1 message"), "{finding:?}");
    // And asked about the client's own session.
    let finding = fleet.first(&of_client, FindingCode::WrongPrincipal).await;
    assert!(finding.text.contains("1 message"), "{finding:?}");
    assert!(!finding.text.contains("alice"), "{finding:?}");
    // The other way about: the client is bound to nobody.
    let client = RawClient::connect(&fleet.server.url).await;
    let pushed_to = id(&client).bound_to(Principal::new("bob").unwrap());
    fleet.push(&pushed_to).await;
    fleet.first(&pushed_to, FindingCode::WrongPrincipal).await;
}

#[actix::test]
async fn an_owner_that_does_not_renew_its_lease_is_named() {
    let fleet = Fleet::start().await;
    let dying = server_record(Duration::from_secs(1));
    let config = Arc::new(config().heartbeat(Duration::from_secs(1)).build().unwrap());
    let queue = connect(&fleet.redis.url(), config).await.unwrap();
    queue.announce_server(&dying).await.unwrap();
    let session = named("0f0c2f6e-of-a-dead-process");
    let mut owner = queue.open(&session, OwnerToken::of(dying.id), Arc::new(Permit::new())).await.unwrap();
    owner.claim().await.unwrap();
    fleet.push(&session).await;
    assert_eq!(fleet.codes(&session).await[0], FindingCode::Delivering, "a fresh lease is no trouble");
    let finding = fleet.first(&session, FindingCode::LeaseNotRenewed).await;
    assert!(
        finding.text.contains(&dying.id.to_string()) && finding.text.contains(&dying.pid.to_string()),
        "{finding:?}"
    );
}

#[actix::test]
async fn a_subscriber_that_pauses_is_named_with_its_error() {
    let fleet = Fleet::start().await;
    let config = config().backoff_initial(SOON).backoff_max(SOON).build().unwrap();
    let courier = Courier::start(&fleet.redis.url(), config).await.unwrap();
    let (session, failing) = (named("0f0c2f6e-failing"), Recorder::new());
    failing.always(Some(Act::Fail(HandOverError::Transient("the disk is on fire".into()))));
    courier.ensure_subscriber(&session, failing.clone()).await.unwrap();
    fleet.push(&session).await;
    failing.until_offered(1).await;
    let finding = fleet.first(&session, FindingCode::OwnerBacksOff).await;
    assert!(finding.text.contains("the disk is on fire"), "{finding:?}");
    assert!(fleet.codes(&session).await.contains(&FindingCode::AttemptsFail));
    courier.shutdown(SOON).await;
    let servers = fleet.inspector.servers().await.unwrap();
    assert_eq!(servers.len(), 1, "the record of the process that was shut down is gone: {servers:?}");
}

#[actix::test]
async fn a_client_that_waits_for_a_place_is_told_apart_from_one_that_is_away() {
    let fleet = Fleet::start().await;
    let config = config().dedicated_limit(1).shared_limit(0).build().unwrap();
    let courier = Courier::start(&fleet.redis.url(), config).await.unwrap();
    let (session, back, other) = (named("0f0c2f6e-back"), Recorder::new(), Recorder::new());
    courier.ensure_subscriber(&session, back.clone()).await.unwrap();
    back.presence().disconnected();
    let place = async || courier.ensure_subscriber(&named("other"), other.clone()).await.is_ok();
    eventually("a place", SOON, place).await;
    fleet.push(&session).await;
    back.presence().connected(2);
    let finding = fleet.first(&session, FindingCode::WaitsForPlace).await;
    assert!(finding.text.contains("dedicated_limit"), "{finding:?}");
    let servers = fleet.inspector.servers().await.unwrap();
    let full = servers.iter().find(|server| server.subscribers.parked == 1).unwrap();
    assert_eq!((full.subscribers.total(), full.troubles[0].state), (2, TroubleState::WaitsForPlace));
    let record = serde_json::to_string(full).unwrap();
    assert!(record.contains("0f0c2f6e…") && !record.contains(session.as_str()), "{record}");
    assert!(full.troubles[0].is_of(&session) && !full.troubles[0].is_of(&named("other")));
}

#[actix::test]
async fn a_client_that_got_everything_is_told_by_its_receipts() {
    let fleet = Fleet::start().await;
    let client = RawClient::connect(&fleet.server.url).await;
    let mut stream = client.open_stream().await;
    eventually("an owner", SOON, async || fleet.inspector.owner(&id(&client)).await.unwrap().is_some()).await;
    fleet.first(&id(&client), FindingCode::QueueEmpty).await;
    let pushed = fleet.push(&id(&client)).await;
    stream.notifications(1).await;
    let receipt = fleet.publisher.until_settled(&id(&client), pushed, SOON).await.unwrap();
    assert!(matches!(receipt, Receipt::Delivered { .. }), "{receipt:?}");
    let finding = fleet.first(&id(&client), FindingCode::AllDelivered).await;
    assert_eq!(finding.severity, Severity::Info);
}

#[actix::test]
async fn a_client_that_refuses_everything_is_told_by_its_discards() {
    let fleet = Fleet::start().await;
    let courier = Courier::start(&fleet.redis.url(), config().build().unwrap()).await.unwrap();
    let (session, refusing) = (named("0f0c2f6e-refusing"), Recorder::new());
    refusing.always(Some(Act::Fail(HandOverError::Rejected("not for me".into()))));
    courier.ensure_subscriber(&session, refusing.clone()).await.unwrap();
    // Without a receipt: the dead letter alone says so.
    fleet.publisher.push(&session, Notification::tools_list_changed()).await.unwrap();
    let finding = fleet.first(&session, FindingCode::Discarded).await;
    assert!(finding.text.contains("not for me"), "{finding:?}");
}

#[actix::test]
async fn what_lies_before_the_eyes_is_said_behind_the_absence_of_the_client() {
    let fleet = Fleet::start().await;
    let client = RawClient::connect(&fleet.server.url).await;
    let queue = format!("mcp-courier:notifications:{}", client.session_id());
    let short_lived = Notification::tools_list_changed().with_time_to_live(Duration::from_millis(1)).unwrap();
    fleet.publisher.push(&id(&client), short_lived).await.unwrap();
    eventually("the expiry", SOON, async || fleet.codes(&id(&client)).await.contains(&FindingCode::OldestExpired))
        .await;
    assert_eq!(fleet.codes(&id(&client)).await, [FindingCode::ClientAway, FindingCode::OldestExpired]);
    let _: i64 = fleet.redis.command(&["RPUSH", &queue, "no message"]).await;
    assert_eq!(fleet.codes(&id(&client)).await, [FindingCode::ClientAway, FindingCode::Undecodable]);
    let small = Inspector::connect(&fleet.redis.url(), config().queue_max_messages(2).build().unwrap()).await.unwrap();
    assert!(small.explain(&id(&client)).await.unwrap().iter().any(|found| found.code == FindingCode::QueueFull));
    let _: i64 = fleet.redis.command(&["DEL", &queue]).await;
    let _: String = fleet.redis.command(&["SET", &queue, "a string", "EX", "60"]).await;
    let finding = fleet.first(&id(&client), FindingCode::WrongType).await;
    assert!(finding.text.ends_with(": queue"), "{finding:?}");
}

#[actix::test]
async fn what_another_program_takes_is_told_by_its_receipt() {
    let fleet = Fleet::start().await;
    let session = named("0f0c2f6e-taken");
    fleet.push(&session).await;
    let taken: Option<Vec<u8>> = fleet.redis.command(&["RPOP", &format!("mcp-courier:notifications:{session}")]).await;
    assert!(taken.is_some());
    fleet.first(&session, FindingCode::TakenWithoutLease).await;
}

#[actix::test]
async fn sessions_of_fastmcp_servers_are_known_to_those_alone() {
    let fleet = Fleet::start().await;
    let config = config().prefix("docket:fastmcp").fastmcp_servers(true).build().unwrap();
    let publisher = Publisher::connect(&fleet.redis.url(), config).await.unwrap();
    let session = named("1f0c2f6e-7a52-4c5e-9a3c-2f0f4a0c9a11");
    let mut task = Task::new("t", TaskStatus::Working, SystemTime::now());
    task.ttl = Some(SOON);
    publisher.push(&session, Notification::task_status(&task)).await.unwrap();
    let findings = publisher.inspector().explain(&session).await.unwrap();
    assert_eq!(findings[0].code, FindingCode::FastMcpServer, "{findings:?}");
    // Another tool looks under the wrong prefix.
    let finding = fleet.first(&session, FindingCode::OtherPrefix).await;
    assert!(finding.text.contains("docket:fastmcp"), "{finding:?}");
}
