//! URLs of Redis, and their form in logs and errors, which shows nothing that could be a password.

use crate::config::ConfigError;

/// Text for a URL that has no parts to show.
const UNREADABLE: &str = "a URL that cannot be read";

/// Returns the form of a URL that may be shown: its scheme, host, port and database, or the path of its socket. Any
/// other part is left out. A URL that cannot be parsed is left out whole.
pub(crate) fn shown(url: &str) -> String {
    shown_parts(url).unwrap_or_else(|| UNREADABLE.to_owned())
}

/// Returns the parts of a URL that may be shown; `None` where a part of the password may be among them.
fn shown_parts(url: &str) -> Option<String> {
    let parsed = redis::parse_redis_url(url)?;
    let (scheme, path) = (parsed.scheme(), parsed.path());
    if scheme.ends_with("unix") {
        return Some(format!("{scheme}://{path}"));
    }
    // An @ behind the host shows that the password contains a character that ended the host too early.
    let rest = &url[url.find("://")? + 3..];
    let authority = rest.split(['/', '?', '#', '\\']).next()?;
    if rest[authority.len()..].contains('@') {
        return None;
    }
    let database = path.trim_start_matches('/');
    let database = if database.bytes().all(|b| b.is_ascii_digit()) { database } else { "…" };
    Some(format!("{scheme}://{}:{}/{database}", parsed.host_str()?, parsed.port().unwrap_or(6379)))
}

/// Returns the error of a URL that cannot be read or used. redis-rs's own detail is left out, as it quotes the URL.
pub(super) fn refused(url: &str, what: &str, error: &redis::RedisError) -> ConfigError {
    let why =
        if error.detail().is_none() { error.to_string() } else { "a part of it is none that is known".to_owned() };
    ConfigError::new("url", shown(url), format!("it cannot be {what}: {why}"))
}

/// Cuts off the arguments of a command that Redis does not know. The arguments of HELLO and AUTH are a user and a
/// password.
pub(super) fn without_arguments(said: &str) -> String {
    match said.split_once("with args beginning with") {
        Some((before, _)) => format!("{before}with arguments that are not shown"),
        None => said.to_owned(),
    }
}

#[cfg(test)]
mod tests {
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
            ("redis+unix:///run/r.sock?pass=p#p", "redis+unix:///run/r.sock"),
            ("rediss://u:p@h", "rediss://h:6379/"),
            ("redis://u:1/p@h:1/0", UNREADABLE),
            ("redis://u:1?p@h:1/0", UNREADABLE),
            ("redis://h/p", "redis://h:6379/…"),
            ("u:p@h:1", UNREADABLE),
            ("redis:u:p@h", UNREADABLE),
            ("", UNREADABLE),
        ] {
            assert_eq!(shown(url), expected, "{url}");
        }
    }

    #[test]
    fn the_arguments_of_an_unknown_command_are_not_shown() {
        let said = "unknown command `HELLO`, with args beginning with: `3`, `AUTH`, `app`, `S3CRET`, ";
        assert_eq!(without_arguments(said), "unknown command `HELLO`, with arguments that are not shown");
        assert_eq!(without_arguments("wrong type"), "wrong type");
    }

    proptest! {
        #[test]
        fn no_secret_is_shown_wherever_a_password_can_stand(
            before in "[a-z0-9:@/?#&=%+. -]{0,6}", after in "[a-z0-9:@/?#&=%+. -]{0,6}", form in 0..12_usize,
        ) {
            let secret = format!("{before}S3CRET{after}");
            let url = match form {
                0 => format!("redis://:{secret}@h:1/0"),
                1 => format!("redis://app:{secret}@h:1/0"),
                2 => format!("rediss://app:{secret}@h:1/0"),
                3 => format!("redis://app:{secret}@h:nonsense/0"),
                4 => format!("unix:///nowhere/r.sock?user=app&pass={secret}"),
                5 => format!("redis+unix:///nowhere/r.sock?pass={secret}&db=x"),
                6 => format!("redis://h:1/0?pass={secret}"),
                7 => format!("redis://h:1/0?protocol={secret}"),
                8 => format!("app:{secret}@h:1"),
                9 => format!("REDIS://app:{secret}@h:1/0"),
                10 => format!("redis://app:{secret}@x@h:1"),
                _ => format!("valkey:/app:{secret}@h"),
            };
            let shown = shown(&url);
            prop_assert!(!shown.to_lowercase().contains("s3cret"), "{} is shown as {}", url, shown);
            if let Err(error) = super::super::link::Server::new(&url) {
                let said = format!("{error} {error:?}").to_lowercase();
                prop_assert!(!said.contains("s3cret"), "{} makes {}", url, said);
            }
        }
    }
}
