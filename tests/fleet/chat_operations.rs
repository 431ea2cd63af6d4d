//! The chat as its operators see it: health and metrics, asked of real processes over HTTP.
use std::time::Duration;

use mcp_courier_testing::eventually::{eventually, eventually_some};
use mcp_courier_testing::examples::ChatProcess;
use mcp_courier_testing::raw_client::RawClient;
use mcp_courier_testing::redis_server::RedisServer;
use reqwest::StatusCode;
use serde_json::{Value, json};

/// Asks a server for a path beside its MCP endpoint.
async fn get(server: &ChatProcess, path: &str) -> Option<(StatusCode, String)> {
    let url = server.url.replace("/mcp", path);
    let response = reqwest::get(url).await.ok()?;
    Some((response.status(), response.text().await.ok()?))
}

async fn health(server: &ChatProcess, path: &str) -> Option<(StatusCode, Value)> {
    let (status, body) = get(server, path).await?;
    Some((status, serde_json::from_str(&body).expect("a report")))
}

/// Waits until both probes answer with these statuses, and returns the last report.
async fn until_health_is(server: &ChatProcess, live: u16, ready: u16) -> Value {
    eventually_some("the probes answer so", Duration::from_secs(30), async || {
        let (is_live, _) = health(server, "/livez").await?;
        let (is_ready, report) = health(server, "/readyz").await?;
        ((is_live.as_u16(), is_ready.as_u16()) == (live, ready)).then_some(report)
    })
    .await
}

#[tokio::test]
async fn the_chat_answers_probes_and_leaves_the_balancer_as_its_drain_begins() {
    let redis = RedisServer::start();
    let mut server = ChatProcess::start(&["--redis", &redis.url(), "--poll-timeout", "600"]).await;
    let report = until_health_is(&server, 200, 200).await;
    assert_eq!((&report["live"], &report["ready"]), (&json!(true), &json!(true)), "{report}");
    redis.signal("-STOP");
    let report = until_health_is(&server, 200, 503).await;
    let queue = report["checks"].as_array().unwrap().iter().find(|check| check["part"] == "queue").unwrap();
    assert_eq!(queue["problem"], "the queue did not answer within 800ms");
    redis.signal("-CONT");
    until_health_is(&server, 200, 200).await;

    // A client that reads nothing holds the drain up, so there is a time in which the server can be asked.
    let client = RawClient::connect(&server.url).await;
    let stream = client.open_stream().await;
    stream.answer_pings(false);
    let joined = client.call_tool("join", json!({"room": "r", "name": "a"})).await;
    assert_eq!(joined["isError"], false, "{joined}");
    client.call_tool("say", json!({"room": "r", "text": "x"})).await;
    eventually("it is asked to confirm", Duration::from_secs(30), async || stream.pings() > 0).await;
    server.signal("-TERM");
    let report = until_health_is(&server, 200, 503).await;
    let shutdown = report["checks"].as_array().unwrap().iter().find(|check| check["part"] == "shutdown").unwrap();
    assert_eq!(shutdown["problem"], "the server shuts down");
    assert_eq!(server.ended().await.code(), Some(0));
}

#[cfg(feature = "metrics")]
mod metrics {
    use std::collections::HashSet;

    use mcp_courier_testing::scrape::Scrape;

    use super::*;
    use crate::chat::member;

    const WAIT: Duration = Duration::from_secs(30);

    async fn scrape(server: &ChatProcess) -> Scrape {
        let (status, text) = get(server, "/metrics").await.expect("an answer");
        assert_eq!(status, 200);
        Scrape::read(&text)
    }

    /// Waits until a series of a server has this value.
    async fn until(server: &ChatProcess, series: &str, value: f64) {
        let what = format!("{series} is {value}");
        eventually(&what, WAIT, async || scrape(server).await.value(series) == value).await;
    }

    #[tokio::test]
    async fn a_scrape_shows_every_metric_with_its_kind_and_what_has_happened() {
        const SAID: usize = 20;
        let mut redis = RedisServer::durable();
        let one = ChatProcess::start(&["--redis", &redis.url()]).await;
        let other = ChatProcess::start(&["--redis", &redis.url()]).await;
        let (a, mut a_hears) = member(&one, "a").await;
        let (b, mut b_hears) = member(&other, "b").await;
        for n in 0..SAID {
            let said = a.call_tool("say", json!({"room": "r", "text": n.to_string()})).await;
            assert_eq!(said["isError"], false, "{said}");
        }
        a_hears.notifications(SAID).await;
        b_hears.notifications(SAID).await;

        // All pushes were those of the server at which the speaker is. Each server delivers to its own client.
        let said = SAID as f64;
        for server in [&one, &other] {
            until(server, "mcp_courier_confirmed_total", said).await;
            let scrape = scrape(server).await;
            for (series, value) in [
                ("mcp_courier_delivered_total", said),
                ("mcp_courier_delivery_seconds_count", said),
                ("mcp_courier_repeated_total", 0.0),
                ("mcp_courier_streams_open", 1.0),
                ("mcp_courier_sessions", 1.0),
                (r#"mcp_courier_streams_opened_total{kind="new"}"#, 1.0),
            ] {
                assert_eq!(scrape.value(series), value, "{series} of {}", server.url);
            }
            assert_eq!(scrape.sum("mcp_courier_discarded_total"), 0.0);
            assert_eq!(scrape.sum("mcp_courier_push_refused_total"), 0.0);
            let seconds = scrape.value("mcp_courier_delivery_seconds_sum");
            assert!(seconds > 0.0 && seconds < 30.0 * said, "{seconds} s for {said}");
        }
        assert_eq!(scrape(&one).await.sum("mcp_courier_pushed_total"), 2.0 * said);
        assert_eq!(scrape(&other).await.sum("mcp_courier_pushed_total"), 0.0);
        until(&one, r#"mcp_courier_subscribers{state="waiting"}"#, 1.0).await;

        // Each metric of the table is there, with its kind and its text, and no other.
        let (shown, table) = (scrape(&one).await, mcp_courier::testing::metrics::all());
        for metric in &table {
            assert_eq!(shown.kind(metric.name), Some(metric.kind), "{}", metric.name);
            assert_eq!(shown.text(metric.name), Some(metric.text));
        }
        let names: HashSet<_> = table.iter().map(|metric| metric.name).collect();
        assert!(shown.names("mcp_courier_").into_iter().all(|name| names.contains(name)));
        assert!(shown.series("mcp_courier_") < 150, "{} series", shown.series("mcp_courier_"));

        // The client of one server goes to the other, with its session and the name of its last event.
        let last = b_hears.last_event_id().unwrap().to_owned();
        drop(b_hears);
        until(&other, r#"mcp_courier_streams_closed_total{by="client",cause="hung_up"}"#, 1.0).await;
        let b = b.at(&one.url);
        let mut b_hears = b.come_back(&last).await;
        b.call_tool("say", json!({"room": "r", "text": "again"})).await;
        b_hears.notifications(1).await;
        until(&one, "mcp_courier_sessions", 2.0).await;
        let shown = scrape(&one).await;
        assert_eq!(shown.value(r#"mcp_courier_sessions_restored_total{outcome="restored"}"#), 1.0);
        assert_eq!(shown.value(r#"mcp_courier_streams_opened_total{kind="resumed"}"#), 1.0);
        // An early close, and then the real stream.
        assert_eq!(shown.value(r#"mcp_courier_streams_closed_total{by="server",cause="early_close"}"#), 1.0);

        redis.start_again();
        until_health_is(&one, 200, 200).await;
        eventually("it has connected again", WAIT, async || {
            scrape(&one).await.value(r#"mcp_courier_redis_connections_total{outcome="made_again"}"#) > 0.0
        })
        .await;
    }
}
