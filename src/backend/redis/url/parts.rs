//! Parts of a URL behind its scheme, as text.

use super::{ENCODE, Node};

/// Most hosts that a URL may name.
const MAX_HOSTS: usize = 64;

/// Parts of a URL behind `://`. All are as the URL has them, not decoded.
pub(super) struct Parts<'a> {
    /// Text before the last `@` of the authority; empty where there is none.
    pub(super) login: &'a str,
    /// Hosts with their ports; empty for a socket.
    pub(super) hosts: &'a str,
    /// Path with the slash that begins it, or nothing.
    pub(super) path: &'a str,
    /// Text behind the `?`.
    pub(super) query: &'a str,
}

impl<'a> Parts<'a> {
    /// Splits the text behind `://`.
    ///
    /// # Errors
    /// The rule that is broken. A part of the password may then stand anywhere.
    pub(super) fn split(rest: &'a str, is_socket: bool) -> Result<Self, String> {
        let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
        let (authority, behind) = rest.split_at(end);
        let (login, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (path, query) = behind.split_once('?').unwrap_or((behind, ""));
        if behind.ends_with("#insecure") {
            return Err("certificates are always verified; the option cacert names a file of authorities".to_owned());
        }
        // An @ behind the authority shows that the password contains a character that ended the authority too early. Only
        // the path of a socket may contain one, and only where no login stands before it or at its beginning.
        let may_contain_at = is_socket && authority.is_empty() && !path.contains(':');
        if behind.contains('#') || (!may_contain_at && behind.contains('@')) || (!is_socket && behind.contains('\\')) {
            return Err(ENCODE.to_owned());
        }
        if is_socket && (!hosts.is_empty() || path.len() < 2 || !path.starts_with('/')) {
            return Err("it must name the path of a socket from the root on, as in unix:///run/redis.sock".to_owned());
        }
        Ok(Self { login, hosts, path, query })
    }
}

/// Reads hosts with their ports, which commas separate.
///
/// # Errors
/// The rule that is broken.
pub(super) fn nodes(hosts: &str, default_port: u16) -> Result<Vec<Node>, String> {
    let nodes: Vec<Node> = hosts.split(',').map(|text| node(text, default_port)).collect::<Result<_, _>>()?;
    if nodes.len() > MAX_HOSTS {
        return Err(format!("it names {} hosts, and may name {MAX_HOSTS}", nodes.len()));
    }
    Ok(nodes)
}

fn node(text: &str, default_port: u16) -> Result<Node, String> {
    const RULE: &str = "it cannot be read: each host must be a name, an IPv4 address, or an IPv6 address in brackets";
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) if address.parse::<std::net::Ipv6Addr>().is_ok() => (address, port),
        Some(_) => return Err(RULE.to_owned()),
        None => {
            let (host, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            let is_name = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
            if host.is_empty() || !host.bytes().all(is_name) {
                return Err(RULE.to_owned());
            }
            (host, port)
        }
    };
    if ["0.0.0.0", "::"].contains(&host) {
        return Err("it cannot be used: 0.0.0.0 and :: are addresses to listen at, and not to connect to".to_owned());
    }
    let rule = || "it cannot be read: a port must be a number from 1 to 65535".to_owned();
    let port = match port.strip_prefix(':') {
        Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or_else(rule)?,
        None if port.is_empty() => default_port,
        None => return Err(rule()),
    };
    Ok(Node { host: host.to_owned(), port })
}
