//! Time from a push to its client, at 100 pushes a second. The null courier gets its pushes by POST: no process of a producer holds
//! the client's stream, so a message has to come to the server's in both.

use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::Duration;

use mcp_courier::{Config, Publisher, SessionId};
use mcp_courier_testing::redis_server::RedisServer;

use crate::support::figures::{Bench, Row, Wanted, per_mille, print_row};
use crate::support::load::{SIZE, on_a_thread};
use crate::support::messages::{notification, now};
use crate::web::connection::Connection;
use crate::web::{Client, Frames, Server};

/// Number of messages of one round.
const COUNT: usize = 1000;
const PACE: Duration = Duration::from_millis(10);

/// Messages before those that are measured.
const WARM_UP: usize = 20;

/// Percentiles that are shown, in thousandths.
const PERCENTILES: [(usize, &str); 2] = [(500, "p50"), (990, "p99")];

/// Measures the times of one client's messages.
pub(super) async fn measure(bench: &Bench, frames: &Frames) {
    let mut rows = PERCENTILES.map(|(per_mille, name)| {
        let row = Row::new(format!("{name} from push to client at 100 a second"), "µs");
        if per_mille == 500 { row.wanted(Wanted::AtMost(2.0)) } else { row }
    });
    let count = bench.count(COUNT);
    for _ in bench.rounds(&rows) {
        let (ours, beside) = (courier(count), null(frames, count));
        for ((thousandths, _), row) in PERCENTILES.into_iter().zip(&mut rows) {
            row.add(per_mille(&ours, thousandths), per_mille(&beside, thousandths));
        }
    }
    rows.iter().for_each(print_row);
}

fn courier(count: usize) -> Vec<f64> {
    let redis = RedisServer::start();
    let server = Server::courier(&redis.url());
    times(&server, count, |session, count| {
        let (url, session) = (redis.url(), SessionId::new(session).unwrap());
        on_a_thread(async move {
            let publisher = Publisher::connect(&url, Config::default()).await.unwrap();
            let mut ticks = tokio::time::interval(PACE);
            for _ in 0..count {
                ticks.tick().await;
                publisher.push(&session, notification(SIZE)).await.unwrap();
            }
        })
    })
}

fn null(frames: &Frames, count: usize) -> Vec<f64> {
    let server = Server::null(frames, 0);
    let address = server.address();
    times(&server, count, |session, count| {
        let frames = frames.clone();
        on_a_thread(async move {
            let mut connection = Connection::open(address).await.unwrap();
            let mut ticks = tokio::time::interval(PACE);
            for _ in 0..count {
                ticks.tick().await;
                connection.exchange(&push(address, &session, &frames.data_made(now()))).await.unwrap();
            }
        })
    })
}

/// Returns the sorted times of the messages that `send` sends to a session from a thread of its own.
fn times(server: &Server, count: usize, send: impl FnOnce(String, usize) -> JoinHandle<()>) -> Vec<f64> {
    let (mut client, sessions) = Client::begin(server.address(), 1);
    client.open();
    let mut thread = None;
    let session = sessions.into_iter().next().unwrap();
    let mut times = client.times(WARM_UP + count, || thread = Some(send(session, WARM_UP + count)));
    thread.unwrap().join().unwrap();
    let mut times = times.split_off(WARM_UP);
    times.sort_by(f64::total_cmp);
    times
}

fn push(address: SocketAddr, session: &str, data: &str) -> String {
    format!(
        "POST /push HTTP/1.1\r\nhost: {address}\r\nmcp-session-id: {session}\r\ncontent-type: text/plain\r\n\
         content-length: {}\r\n\r\n{data}",
        data.len()
    )
}
