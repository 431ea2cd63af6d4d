//! What README.md says, read from there, so that a test and the README cannot differ.
#![allow(dead_code)] // each test file uses a part of it

const README: &str = include_str!("../../README.md");

/// The text between two others, each of which must be there.
fn between(begin: &str, end: &str) -> &'static str {
    let after = README.split_once(begin).unwrap_or_else(|| panic!("README.md has no {begin:?}")).1;
    after.split_once(end).unwrap_or_else(|| panic!("README.md has no {end:?} after {begin:?}")).0
}

/// Rights of a restricted Redis user under the default prefix, with the password `secret`, as arguments of `ACL SETUSER`.
pub(crate) fn rights() -> Vec<&'static str> {
    let mut rights = vec!["on", ">secret", "resetchannels", "&mcp-courier:news*", "~mcp-courier:*", "~{mcp-courier:*"];
    rights.extend(between("A restricted ACL user needs `", "`").split_whitespace());
    rights
}
