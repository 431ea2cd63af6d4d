//! Settings that README.md recommends, read from there, so that a test and the README cannot differ.
const README: &str = include_str!("../../README.md");

/// Returns the text between two others, each of which must be there.
fn between(begin: &str, end: &str) -> &'static str {
    let after = README.split_once(begin).unwrap_or_else(|| panic!("README.md has no {begin:?}")).1;
    after.split_once(end).unwrap_or_else(|| panic!("README.md has no {end:?} after {begin:?}")).0
}

/// Returns the rights of a restricted Redis user under the default prefix, with the password `secret`, as arguments of
/// `ACL SETUSER`.
pub fn rights() -> Vec<&'static str> {
    let mut rights = vec!["on", ">secret", "resetchannels", "&mcp-courier:news*", "~mcp-courier:*", "~{mcp-courier:*"];
    rights.extend(between("A restricted ACL user needs `", "`").split_whitespace());
    rights
}
