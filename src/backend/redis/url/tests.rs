use proptest::prelude::*;

use super::*;

#[test]
fn a_url_is_shown_by_its_place() {
    for (url, expected) in [
        ("redis://u:p@h:1/0", "redis://h:1/0"),
        ("redis://u:p@ss@h/", "redis://h:6379/"),
        ("redis://h:1/0?pass=p", "redis://h:1/0"),
        ("redis://:p@[::1]:7/2", "redis://[::1]:7/2"),
        ("unix:///run/r.sock?db=1&pass=p", "unix:///run/r.sock"),
        ("unix://u:p@/run/r.sock", "unix:///run/r.sock"),
        ("redis+unix:///run/r@1.sock?pass=p", "redis+unix:///run/r@1.sock"),
        ("rediss://u:p@h?cacert=/ca.pem", "rediss://h:6379/"),
        ("redis+sentinel://u:p@a,b:7/my/2?sentinel_pass=p", "redis+sentinel://a:26379,b:7/my/2"),
        ("rediss+cluster://:p@a,[::1]:7,c", "rediss+cluster://a:6379,[::1]:7,c:6379/"),
        ("http://u:p@h/", "http://…"),
        ("redis+sentinel://a/m%79", "redis+sentinel://a:26379/…"),
        ("redis://h/p", "redis://h:6379/…"),
        ("redis+unix:///run/r.sock?pass=p#p", UNREADABLE),
        ("unix://u:p/x@/run/r.sock", UNREADABLE),
        ("unix://u:p@/x@/run/r.sock", UNREADABLE),
        ("unix://u:p@/x?y@/run/r.sock", UNREADABLE),
        ("unix://u:p@/run/r%401.sock", "unix:///run/r%401.sock"),
        ("unix:///u:p@/run/r.sock", UNREADABLE),
        ("unix:///run/r:1.sock", "unix:///run/r:1.sock"),
        ("redis://u:1/p@h:1/0", UNREADABLE),
        ("redis://u:1?p@h:1/0", UNREADABLE),
        ("redis+sentinel://u:1,p/x@h:1/my", UNREADABLE),
        ("redis+cluster://u:p,h:1", UNREADABLE),
        ("u:p@h:1", UNREADABLE),
        ("redis:u:p@h", UNREADABLE),
        ("", UNREADABLE),
    ] {
        assert_eq!(shown(url), expected, "{url}");
    }
}

fn login(user: &str, password: &str) -> Login {
    let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    Login { user: given(user), password: given(password) }
}

fn node(host: &str, port: u16) -> Node {
    Node { host: host.to_owned(), port }
}

#[test]
fn each_form_is_read() {
    let tcp = |host, port| Place::Tcp(node(host, port));
    let sentinel =
        |sentinels: &[Node], login| Place::Sentinel { sentinels: sentinels.to_vec(), service: "my".to_owned(), login };
    let nobody = Login::default;
    let unix = Place::Unix("/run/my redis.sock".into());
    let tls = |cacert: &str, sni: &str| {
        let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        Some(TlsOptions { cacert: given(cacert).map(PathBuf::from), sni: given(sni), ..TlsOptions::default() })
    };
    let both = || Some(TlsOptions { cert: Some("/c".into()), key: Some("/k".into()), ..TlsOptions::default() });
    for (url, place, login, database, tls) in [
        ("redis://h", tcp("h", 6379), nobody(), 0, None),
        ("valkey://u:p%40s@s@h:7/2/?protocol=resp3", tcp("h", 7), login("u", "p@s@s"), 2, None),
        ("redis://:p@[::1]/", tcp("::1", 6379), login("", "p"), 0, None),
        ("rediss://h", tcp("h", 6379), nobody(), 0, tls("", "")),
        ("valkeys://h?cacert=/a%20b&sni=n", tcp("h", 6379), nobody(), 0, tls("/a b", "n")),
        ("rediss://h/1?cert=/c&key=/k", tcp("h", 6379), nobody(), 1, both()),
        ("unix:///run/my%20redis.sock?db=3&user=u&pass=p%26q", unix.clone(), login("u", "p&q"), 3, None),
        ("redis+unix://:p@/run/my%20redis.sock", unix, login("", "p"), 0, None),
        (
            "redis+sentinel://u:p@a,b:7/my/2?sentinel_user=s&sentinel_pass=t",
            sentinel(&[node("a", 26379), node("b", 7)], login("s", "t")),
            login("u", "p"),
            2,
            None,
        ),
        ("rediss+sentinel://a/my", sentinel(&[node("a", 26379)], nobody()), nobody(), 0, tls("", "")),
        ("redis+cluster://:p@a:1,b", Place::Cluster(vec![node("a", 1), node("b", 6379)]), login("", "p"), 0, None),
        ("valkeys+cluster://a:1/0", Place::Cluster(vec![node("a", 1)]), nobody(), 0, tls("", "")),
    ] {
        let read = Address::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"));
        assert!(read == Address { place, login, database, tls }, "{url}");
    }
}

#[test]
fn a_url_that_breaks_a_rule_is_refused_by_that_rule() {
    for (url, rule) in [
        ("http://h/", "http://…, but it must begin with redis://, rediss://, valkey://"),
        ("h:6379", "it must begin with redis://"),
        ("redis://", "each host must be a name"),
        ("redis://h:notaport/", "a port must be a number"),
        ("redis://h:0/", "a port must be a number"),
        ("redis://h:65536/", "a port must be a number"),
        ("redis://[::1]x/", "a port must be a number"),
        ("redis://[:1/", "each host must be a name"),
        ("redis://0.0.0.0/", "addresses to listen at"),
        ("redis://h/notadatabase", "the database must be a number"),
        ("redis://h/-1", "the database must be a number"),
        ("redis://h/1/2", "too much stands behind"),
        ("redis://u@h/", "a user without a password"),
        ("redis://u:p/q@h/", "write / as %2F"),
        ("redis://u:p#q@h/", "write / as %2F"),
        ("redis://:%ff@h/", "no UTF-8"),
        ("rediss://h/#insecure", "certificates are always verified"),
        ("redis://a,b/", "redis+sentinel:// and redis+cluster://"),
        ("redis://h/?timeout=3", "an unknown option timeout; redis:// allows the options protocol"),
        ("redis://h/?cacert=/x", "an unknown option cacert; redis:// allows"),
        ("rediss://h/?ca=/x", "an unknown option ca; rediss:// allows the options cacert, cert, key, sni"),
        ("rediss://h/?cert=/x", "needs both options, cert and key"),
        ("rediss://h/?sni=a&sni=b", "the option sni twice"),
        ("rediss://h/?sni", "its option sni has no value"),
        ("redis://h/?protocol=resp2", "protocol must be resp3"),
        ("unix://run/r.sock", "the path of a socket from the root on"),
        ("unix:///", "the path of a socket from the root on"),
        ("unix://u:p@/r.sock?pass=p", "a login twice"),
        ("unix://u:p@/x@/run/r.sock", "@ as %40"),
        ("unix:///r.sock?user=u", "a user without a password"),
        ("unix:///r.sock?pass=a&b=c", "an unknown option; unix:// allows the options db, user, pass"),
        ("redis+sentinel://a,b", "it must name the service"),
        ("redis+sentinel://a/my/x", "the database must be a number"),
        ("redis+sentinel://a/my?sentinel_user=u", "a user without a password"),
        ("redis+cluster://a/1", "a cluster has only database 0"),
        ("redis+cluster://a,,b", "each host must be a name"),
    ] {
        let error = Address::parse(url).err().unwrap_or_else(|| panic!("{url} is read")).to_string();
        assert!(error.contains(rule), "{url}: {error}");
    }
    let many = format!("redis+cluster://{}", vec!["h"; 65].join(","));
    assert!(Address::parse(&many).err().unwrap().to_string().contains("may name 64"));
}

#[test]
fn the_arguments_of_an_unknown_command_are_not_shown() {
    let said = "unknown command `HELLO`, with args beginning with: `3`, `AUTH`, `app`, `S3CRET`, ";
    assert_eq!(without_arguments(said), "unknown command `HELLO`, with arguments that are not shown");
    assert_eq!(without_arguments("wrong type"), "wrong type");
}

/// Returns URLs with a password in each place where one can stand, not encoded, each with the form in which it is shown
/// where it can be read.
fn with_password(password: &str) -> [(String, &'static str); 21] {
    [
        (format!("redis://:{password}@h:1/0"), "redis://h:1/0"),
        (format!("redis://app:{password}@h:1/0"), "redis://h:1/0"),
        (format!("rediss://app:{password}@h:1/0"), "rediss://h:1/0"),
        (format!("redis://app:{password}@h:nonsense/0"), UNREADABLE),
        (format!("unix:///nowhere/r.sock?user=app&pass={password}"), "unix:///nowhere/r.sock"),
        (format!("redis+unix:///nowhere/r.sock?pass={password}&db=x"), "redis+unix:///nowhere/r.sock"),
        (format!("redis://h:1/0?pass={password}"), "redis://h:1/0"),
        (format!("redis://h:1/0?protocol={password}"), "redis://h:1/0"),
        (format!("app:{password}@h:1"), "app://…"),
        (format!("REDIS://app:{password}@h:1/0"), UNREADABLE),
        (format!("redis://app:{password}@x@h:1"), "redis://h:1/"),
        (format!("valkey:/app:{password}@h"), UNREADABLE),
        (format!("redis+sentinel://app:{password}@h:1,i:2/my/0"), "redis+sentinel://h:1,i:2/my/0"),
        (
            format!("rediss+sentinel://h:1,i:2/my/0?sentinel_user=s&sentinel_pass={password}"),
            "rediss+sentinel://h:1,i:2/my/0",
        ),
        (
            format!("redis+sentinel://:p@h:1,i:2/my?sentinel_pass={password}&sentinel_user=s"),
            "redis+sentinel://h:1,i:2/my",
        ),
        (format!("redis+cluster://app:{password}@h:1,i:2,[::1]:3"), "redis+cluster://h:1,i:2,[::1]:3/"),
        (format!("rediss+cluster://:{password}@h:1,i:nonsense"), UNREADABLE),
        (format!("unix://app:{password}@/nowhere/r.sock"), "unix:///nowhere/r.sock"),
        (format!("valkey+unix:///app:{password}@/nowhere/r.sock"), UNREADABLE),
        (format!("rediss://app:{password}@h:1/0?cacert=/no/where&cert=/no&key=/no"), "rediss://h:1/0"),
        (format!("redis+other://app:{password}@h:1,i:2"), "redis+other://…"),
    ]
}

fn check_shown(url: &str, readable: &str) {
    let shown = shown(url);
    assert!(shown == readable || shown == UNREADABLE, "{url} is shown as {shown}");
}

fn check_error(url: &str, error: Option<ConfigError>) {
    let said = error.map(|error| format!("{error} {error:?}").to_lowercase()).unwrap_or_default();
    assert!(!said.contains("s3cret"), "{url} makes {said}");
}

#[test]
fn no_password_is_shown_whatever_ends_a_part_of_the_url_within_it() {
    const BEGINNINGS: [&str; 11] = ["", "a", ":", "@", "/", "?", "#", "\\", "&", "%", ","];
    for (a, b, c) in BEGINNINGS.iter().flat_map(|a| BEGINNINGS.map(|b| BEGINNINGS.map(|c| (*a, b, c)))).flatten() {
        for (url, readable) in with_password(&format!("{a}{b}{c}S3CRET")) {
            check_shown(&url, readable);
            check_error(&url, Address::parse(&url).err());
        }
    }
}

proptest! {
    #[test]
    fn no_secret_is_shown_wherever_a_password_can_stand(
        before in "[a-z0-9:@/?#\\\\&=%+,. -]{0,6}", after in "[a-z0-9:@/?#\\\\&=%+,. -]{0,6}", form in 0..21_usize,
    ) {
        let (url, readable) = &with_password(&format!("{before}S3CRET{after}"))[form];
        check_shown(url, readable);
        check_error(url, super::super::link::Deployment::new(url).err());
    }
}
