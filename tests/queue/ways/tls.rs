//! TLS, with certificates that the test makes. A failure says what is wrong and how to mend it.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mcp_courier::testing::backend::connect;
use mcp_courier::{Config, ConnectError, Courier, Notification, Publisher, QueueErrorKind, SessionId};
use mcp_courier_testing::certificates::{Authority, Issued};
use mcp_courier_testing::recorder::Recorder;
use mcp_courier_testing::redis_server::RedisServer;
use mcp_courier_testing::waiting;
use serde_json::json;

const HERE: &[&str] = &["127.0.0.1", "localhost"];

/// Returns the options of a server with this certificate, which demands client certificates of the authority or does not.
fn options(authority: &Authority, Issued { cert, key }: &Issued, demands: &str) -> Vec<String> {
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let (cert, key, ca) = (path(cert), path(key), path(&authority.file()));
    let options = [
        ("--tls-cert-file", cert),
        ("--tls-key-file", key),
        ("--tls-ca-cert-file", ca),
        ("--tls-auth-clients", demands.to_owned()),
    ];
    options.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
}

fn words(options: &[String]) -> Vec<&str> {
    options.iter().map(String::as_str).collect()
}

/// Starts a server with this certificate, which demands client certificates of the authority or does not.
fn server(authority: &Authority, issued: &Issued, demands: &str) -> RedisServer {
    RedisServer::with_tls(&words(&options(authority, issued, demands)))
}

/// Returns the URL of a server with options, each of which names a file or another text.
fn url(server: &RedisServer, options: &[(&str, &Path)]) -> String {
    with(server.url(), options)
}

fn with(url: String, options: &[(&str, &Path)]) -> String {
    let options: Vec<String> = options.iter().map(|(name, value)| format!("{name}={}", value.display())).collect();
    format!("{url}?{}", options.join("&"))
}

/// Returns the text of a refused connection, with its causes.
async fn refused(url: &str) -> String {
    let error = connect(url, Arc::new(Config::default())).await.expect_err(url);
    let queue = match &error {
        ConnectError::Backend(queue) => queue,
        error => panic!("{error:?}"),
    };
    assert!(matches!(queue.kind, QueueErrorKind::Unreachable(_)), "{error:?}");
    let causes = std::iter::successors(error.source(), |cause| (*cause).source()).map(ToString::to_string);
    let text = std::iter::once(error.to_string()).chain(causes).collect::<Vec<_>>().join(": ");
    println!("{text}");
    text
}

/// Returns the text of a URL that is refused before any connection.
async fn refused_url(url: &str) -> String {
    let error = connect(url, Arc::new(Config::default())).await.expect_err(url);
    assert!(matches!(error, ConnectError::Url(_)), "{error:?}");
    println!("{error}");
    error.to_string()
}

/// Pushes notifications, and waits until a subscriber of another process has delivered them.
async fn deliver(url: &str) {
    let config = waiting::config().heartbeat(Duration::from_millis(200)).build().unwrap();
    let courier = Courier::start(url, config.clone()).await.unwrap();
    let session = SessionId::new("tls").unwrap();
    let recorder = Recorder::new();
    courier.ensure_subscriber(&session, recorder.clone()).await.unwrap();
    let publisher = Publisher::connect(url, config).await.unwrap();
    for n in 0..50 {
        // Large ones too, which take several records of TLS.
        let params = json!({"n": n, "text": "x".repeat(n * 2_000)});
        let note = Notification::new("notifications/x").unwrap().with_params(params).unwrap();
        publisher.push(&session, note).await.unwrap();
    }
    recorder.until_taken(50).await;
    assert_eq!(recorder.taken(), (0..50).collect::<Vec<_>>());
    courier.shutdown(Duration::from_secs(5)).await;
}

#[actix::test]
async fn notifications_are_delivered_over_tls() {
    let authority = Authority::new();
    let server = server(&authority, &authority.issue(HERE), "no");
    deliver(&url(&server, &[("cacert", &authority.file())])).await;
    server.assert_no_key_without_expiry().await;
    // The end of a link with a blocking command ends its connection: only that of this question is left.
    mcp_courier_testing::eventually::eventually("no connection is left", Duration::from_secs(10), async || {
        server.blocked_clients().await == 0
    })
    .await;
}

#[actix::test]
async fn a_client_certificate_lets_in_where_the_server_demands_one() {
    let authority = Authority::new();
    let server = server(&authority, &authority.issue(HERE), "yes");
    let client = authority.issue(&["worker"]);
    let files = [("cacert", &*authority.file()), ("cert", &*client.cert), ("key", &*client.key)];
    deliver(&url(&server, &files)).await;

    let text = refused(&url(&server, &files[..1])).await;
    assert!(text.contains("demands a client certificate; the options cert and key name its files"), "{text}");
    let foreign = Authority::new().issue(&["worker"]);
    // Signed by an authority that the server does not know, whose files are gone already.
    assert!(
        refused_url(&url(&server, &[("cert", &foreign.cert), ("key", &foreign.key)])).await.contains("cannot be read")
    );
    let other = Authority::new();
    let foreign = other.issue(&["worker"]);
    let text = refused(&url(&server, &[files[0], ("cert", &foreign.cert), ("key", &foreign.key)])).await;
    assert!(text.contains("refuses the client certificate"), "{text}");
    let expired = authority.issue_expired(&["worker"]);
    let text = refused(&url(&server, &[files[0], ("cert", &expired.cert), ("key", &expired.key)])).await;
    assert!(text.contains("refuses the client certificate (CertificateExpired)"), "{text}");
}

#[cfg(feature = "cluster")]
#[actix::test]
async fn notifications_are_delivered_over_tls_by_a_cluster() {
    use mcp_courier_testing::redis_cluster::RedisCluster;

    let authority = Authority::new();
    let cluster = RedisCluster::with_tls(&words(&options(&authority, &authority.issue(HERE), "no"))).await;
    let url = with(cluster.url(), &[("cacert", &authority.file())]);
    assert!(url.starts_with("rediss+cluster://"), "{url}");
    deliver(&url).await;
    let other = Authority::new();
    let text = refused(&with(cluster.url(), &[("cacert", &other.file())])).await;
    assert!(text.contains("from an authority that is not trusted"), "{text}");
    cluster.assert_no_key_without_expiry().await;
}

#[cfg(feature = "sentinel")]
#[actix::test]
async fn a_failover_of_sentinels_that_speak_tls_is_followed() {
    use mcp_courier_testing::eventually::eventually;
    use mcp_courier_testing::sentinels::{Sentinels, Setup};

    let authority = Authority::new();
    let certificates = options(&authority, &authority.issue(HERE), "no");
    let all = Sentinels::start_with(Setup { replicas: 1, tls: &words(&certificates), ..Setup::default() }).await;
    let url = with(all.url(), &[("cacert", &authority.file())]);
    assert!(url.starts_with("rediss+sentinel://"), "{url}");
    deliver(&url).await;
    let before = all.primary().await;
    all.fail_over().await;
    eventually("another primary", Duration::from_secs(60), async || all.primary().await != before).await;
    deliver(&url).await;
    let other = Authority::new();
    let text = refused(&with(all.url(), &[("cacert", &other.file())])).await;
    assert!(text.contains("from an authority that is not trusted"), "{text}");
}

#[tokio::test]
async fn a_certificate_that_proves_nothing_is_refused_with_the_way_to_mend_it() {
    let (authority, other) = (Authority::new(), Authority::new());
    let elsewhere = server(&authority, &authority.issue(&["redis.example.com"]), "no");
    let files = [("cacert", &*authority.file())];
    let text = refused(&url(&elsewhere, &files)).await;
    assert!(text.contains("is not for 127.0.0.1, but for redis.example.com; connect by such a name"), "{text}");
    assert!(text.contains("option sni"), "{text}");
    // As the text advises.
    let named = format!("{}&sni=redis.example.com", url(&elsewhere, &files));
    Publisher::connect(&named, Config::default()).await.unwrap();

    let text = refused(&url(&elsewhere, &[("cacert", &other.file())])).await;
    assert!(text.contains("from an authority that is not trusted; the option cacert names a file"), "{text}");
    // The authorities of this machine do not know that one either.
    match connect(&elsewhere.url(), Arc::new(Config::default())).await.unwrap_err() {
        ConnectError::Backend(_) => {
            assert!(refused(&elsewhere.url()).await.contains("from an authority that is not trusted"));
        }
        error => assert!(error.to_string().contains("no list of trusted authorities"), "{error}"),
    }

    let expired = server(&authority, &authority.issue_expired(HERE), "no");
    let text = refused(&url(&expired, &files)).await;
    assert!(text.contains("has expired; renew it"), "{text}");
}

#[tokio::test]
async fn a_file_that_cannot_be_used_is_named() {
    let authority = Authority::new();
    let [client, other] = [(); 2].map(|()| authority.issue(&["worker"]));
    let empty = authority.dir().join("empty.pem");
    std::fs::write(&empty, "nothing in PEM").unwrap();
    let missing = authority.dir().join("missing.pem");
    for (options, rule) in [
        (format!("cacert={}", missing.display()), "the file of its option cacert cannot be read: "),
        (format!("cacert={}", empty.display()), "the file of its option cacert has no certificate in PEM: "),
        (format!("cert={0}&key={0}", client.cert.display()), "the file of its option key has no private key in PEM: "),
        (format!("cert={0}&key={0}", client.key.display()), "the file of its option cert has no certificate in PEM: "),
        (
            format!("cert={}&key={}", client.cert.display(), other.key.display()),
            "the files of its options cert and key do not fit together",
        ),
        (
            format!("cert={}&key=-----BEGIN PRIVATE KEY-----\nsecret", client.cert.display()),
            "its option key must be the path of a file, and is the content of one",
        ),
        ("sni=a%20b".to_owned(), "its option sni must be a host name or an address"),
    ] {
        let text = refused_url(&format!("rediss://:secret@127.0.0.1:1/?{options}")).await;
        assert!(text.contains(rule), "{text}");
        assert!(!text.contains("secret"), "{text}");
    }
    assert!(refused_url(&format!("rediss://h/?cacert={}", missing.display())).await.contains("missing.pem"));
}

#[tokio::test]
async fn a_port_that_speaks_the_other_language_is_told_by_its_silence() {
    let authority = Authority::new();
    let encrypted = server(&authority, &authority.issue(HERE), "no");
    let text = refused(&encrypted.url().replace("rediss", "redis")).await;
    assert!(text.contains("a port that speaks TLS needs rediss://"), "{text}");
    let plain = RedisServer::start();
    let text =
        refused(&format!("{}?cacert={}", plain.url().replace("redis", "rediss"), authority.file().display())).await;
    assert!(text.contains("TLS"), "{text}");
}

#[test]
fn a_process_without_a_default_provider_gets_none() {
    mcp_courier_testing::in_own_process!();
    actix::System::new().block_on(async {
        let authority = Authority::new();
        let server = server(&authority, &authority.issue(HERE), "no");
        deliver(&url(&server, &[("cacert", &authority.file())])).await;
    });
    assert!(rustls::crypto::CryptoProvider::get_default().is_none(), "the crate chose for the whole process");
    rustls::crypto::ring::default_provider().install_default().unwrap();
}
