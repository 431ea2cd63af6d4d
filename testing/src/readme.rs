//! Settings that the documents recommend, read from there, so that a test and a document cannot differ.

/// Document with the rights.
const REDIS: &str = include_str!("../../docs/redis.md");

/// Returns the rights of a server's user of Redis under the default prefix, with the password `secret`, as arguments of
/// `ACL SETUSER`.
pub fn rights() -> Vec<&'static str> {
    rule("server")
}

/// Returns the rights of a worker's user of Redis, in the same form.
pub fn worker_rights() -> Vec<&'static str> {
    rule("worker")
}

fn rule(user: &str) -> Vec<&'static str> {
    let begin = format!("ACL SETUSER {user} ");
    let after = REDIS.split_once(&begin).unwrap_or_else(|| panic!("docs/redis.md has no {begin:?}")).1;
    let rule = after.split("```").next().and_then(|rule| rule.split("ACL SETUSER").next()).unwrap_or_default();
    rule.split_whitespace().map(|word| if word == ">PASSWORD" { ">secret" } else { word }).collect()
}
