//! URLs of Redis: their schemes, their parts, and their form in logs and errors, which shows nothing that could be a
//! password.
//!
//! A URL has one of four forms:
//!
//! ```text
//! redis://    [user]:[password]@host[:port][/database]                                  [?options]
//! unix://     [user]:[password]@/path                                                   [?options]
//! redis+sentinel:// [user]:[password]@host[:port],host[:port],…/service[/database]      [?options]
//! redis+cluster://  [user]:[password]@host[:port],host[:port],…                         [?options]
//! ```
//!
//! [`SCHEMES`] has the schemes, and [`Scheme::options`] the options of each. No two parts of the crate read a URL:
//! [`Address::parse`] is the one reader, and `parts` splits the text for both the reader and [`shown`].

use std::path::PathBuf;

use percent_encoding::percent_decode_str;

use self::parts::Parts;
use crate::config::ConfigError;

mod parts;

/// Text for a URL that has no parts to show.
const UNREADABLE: &str = "a URL that cannot be read";

/// Rule that a URL breaks where a character ends a part of it too early.
const ENCODE: &str =
    "it cannot be read: in a user, a password or an option, write / as %2F, ? as %3F, # as %23, @ as %40";

/// Kind of place that a scheme names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tcp,
    Unix,
    Sentinel,
    Cluster,
}

/// Scheme of a URL.
#[derive(Debug, Clone, Copy)]
struct Scheme {
    name: &'static str,
    kind: Kind,
    is_tls: bool,
}

/// Table of all schemes. A scheme of Valkey means the same as that of Redis.
const SCHEMES: &[Scheme] = &[
    Scheme { name: "redis", kind: Kind::Tcp, is_tls: false },
    Scheme { name: "rediss", kind: Kind::Tcp, is_tls: true },
    Scheme { name: "valkey", kind: Kind::Tcp, is_tls: false },
    Scheme { name: "valkeys", kind: Kind::Tcp, is_tls: true },
    Scheme { name: "unix", kind: Kind::Unix, is_tls: false },
    Scheme { name: "redis+unix", kind: Kind::Unix, is_tls: false },
    Scheme { name: "valkey+unix", kind: Kind::Unix, is_tls: false },
    Scheme { name: "redis+sentinel", kind: Kind::Sentinel, is_tls: false },
    Scheme { name: "rediss+sentinel", kind: Kind::Sentinel, is_tls: true },
    Scheme { name: "valkey+sentinel", kind: Kind::Sentinel, is_tls: false },
    Scheme { name: "valkeys+sentinel", kind: Kind::Sentinel, is_tls: true },
    Scheme { name: "redis+cluster", kind: Kind::Cluster, is_tls: false },
    Scheme { name: "rediss+cluster", kind: Kind::Cluster, is_tls: true },
    Scheme { name: "valkey+cluster", kind: Kind::Cluster, is_tls: false },
    Scheme { name: "valkeys+cluster", kind: Kind::Cluster, is_tls: true },
];

impl Scheme {
    fn named(name: &str) -> Option<Self> {
        SCHEMES.iter().find(|scheme| scheme.name == name).copied()
    }

    /// Returns the port of a host that names none.
    fn port(self) -> u16 {
        if self.kind == Kind::Sentinel { 26379 } else { 6379 }
    }

    /// Returns the options that a URL of this scheme may have.
    fn options(self) -> Vec<&'static str> {
        let of_kind: &[&str] = match self.kind {
            Kind::Tcp | Kind::Cluster => &[],
            Kind::Unix => &["db", "user", "pass"],
            Kind::Sentinel => &["sentinel_user", "sentinel_pass"],
        };
        let of_tls: &[&str] = if self.is_tls { &["cacert", "cert", "key", "sni"] } else { &[] };
        // Clients of Redis know this option. The crate itself always speaks RESP3.
        [of_kind, of_tls, &["protocol"]].concat()
    }
}

/// Host and port of one server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Node {
    /// Name or address. An IPv6 address has no brackets.
    pub(super) host: String,
    pub(super) port: u16,
}

/// User and password. Without a user the password is that of the user `default`.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Login {
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
}

/// Files and names of a TLS connection, as the options name them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct TlsOptions {
    /// Certificates of the authorities that are trusted in place of the system's.
    pub(super) cacert: Option<PathBuf>,
    /// Client certificate, with its intermediate certificates behind it.
    pub(super) cert: Option<PathBuf>,
    /// Private key of the client certificate.
    pub(super) key: Option<PathBuf>,
    /// Name that the server's certificate must be for, where that is not the host.
    pub(super) sni: Option<String>,
}

/// Place of the server or servers.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Place {
    Tcp(Node),
    Unix(PathBuf),
    /// Sentinels that know the primary of a service. They may have a login of their own.
    Sentinel {
        sentinels: Vec<Node>,
        service: String,
        login: Login,
    },
    /// Some nodes of a cluster, which know the others.
    Cluster(Vec<Node>),
}

/// Everything that a URL says. Has no `Debug`, as it contains the password.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) place: Place,
    pub(super) login: Login,
    pub(super) database: u32,
    /// Set where connections use TLS, those to Sentinels too.
    pub(super) tls: Option<TlsOptions>,
}

impl Address {
    /// Reads a URL. Makes no connection and opens no file.
    ///
    /// # Errors
    /// [`ConfigError`] with the broken rule and what is allowed, without the parts of the URL that may be secret.
    pub(super) fn parse(url: &str) -> Result<Self, ConfigError> {
        Self::read(url).map_err(|rule| refused(url, rule))
    }

    fn read(url: &str) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").ok_or_else(unknown_scheme)?;
        let scheme = Scheme::named(scheme).ok_or_else(unknown_scheme)?;
        let parts = Parts::split(rest, scheme.kind == Kind::Unix)?;
        let mut options = Options::read(scheme, parts.query)?;
        let login = Login::of_authority(parts.login)?;
        let (place, database) = match scheme.kind {
            Kind::Unix => {
                let path = decoded(parts.path)?;
                (Place::Unix(path.into()), database(options.take("db").as_deref().unwrap_or_default())?)
            }
            kind => {
                let mut nodes = parts::nodes(parts.hosts, scheme.port())?;
                let mut path = parts.path.trim_matches('/').split('/').filter(|segment| !segment.is_empty());
                let place = match kind {
                    Kind::Sentinel => Place::Sentinel {
                        sentinels: nodes,
                        service: decoded(path.next().ok_or(
                            "it must name the service behind the hosts, as in \
                            redis+sentinel://host1,host2/mymaster",
                        )?)?,
                        login: Login::checked(options.take("sentinel_user"), options.take("sentinel_pass"))?,
                    },
                    Kind::Cluster => Place::Cluster(nodes),
                    _ if nodes.len() > 1 => {
                        return Err(
                            "it names several hosts, which only the schemes of Sentinel and Cluster do, such as \
                            redis+sentinel:// and redis+cluster://"
                                .to_owned(),
                        );
                    }
                    _ => Place::Tcp(nodes.remove(0)),
                };
                let number = database(path.next().unwrap_or_default())?;
                if path.next().is_some() {
                    return Err("it cannot be read: too much stands behind its hosts".to_owned());
                }
                if kind == Kind::Cluster && number != 0 {
                    return Err("it cannot be used: a cluster has only database 0".to_owned());
                }
                (place, number)
            }
        };
        let login = login.or(Login::checked(options.take("user"), options.take("pass"))?)?;
        let tls = if scheme.is_tls { Some(options.tls()?) } else { None };
        Ok(Self { place, login, database, tls })
    }
}

impl Login {
    fn checked(user: Option<String>, password: Option<String>) -> Result<Self, String> {
        if user.is_some() && password.is_none() {
            return Err("it names a user without a password".to_owned());
        }
        Ok(Self { user, password })
    }

    /// Reads the text before the `@`.
    fn of_authority(text: &str) -> Result<Self, String> {
        let (user, password) = text.split_once(':').map_or((text, None), |(user, password)| (user, Some(password)));
        let given = |text: &str| if text.is_empty() { Ok(None) } else { decoded(text).map(Some) };
        Self::checked(given(user)?, password.map_or(Ok(None), given)?)
    }

    /// Returns the login of the options, or this one where the options have none.
    fn or(self, options: Self) -> Result<Self, String> {
        match (self == Self::default(), options == Self::default()) {
            (true, _) => Ok(options),
            (false, true) => Ok(self),
            (false, false) => Err("it names a login twice: before the path, and as options".to_owned()),
        }
    }
}

/// Options that were read and not yet taken.
struct Options(Vec<(&'static str, String)>);

impl Options {
    /// Reads the options of a query, each of which the scheme allows, once.
    fn read(scheme: Scheme, query: &str) -> Result<Self, String> {
        let allowed = scheme.options();
        let mut options = Self(Vec::new());
        for option in query.split('&').filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            let Some(name) = allowed.iter().find(|allowed| **allowed == name) else {
                return Err(format!(
                    "it has {}; {}:// allows the options {}",
                    options.unknown(name),
                    scheme.name,
                    allowed.join(", ")
                ));
            };
            if options.0.iter().any(|(given, _)| given == name) {
                return Err(format!("it has the option {name} twice"));
            }
            let value = decoded(value)?;
            if value.is_empty() {
                return Err(format!("its option {name} has no value"));
            }
            if *name == "protocol" && !["3", "resp3"].contains(&value.as_str()) {
                return Err("its option protocol must be resp3, which carries news of changes".to_owned());
            }
            options.0.push((name, value));
        }
        Ok(options)
    }

    /// Returns the form of an unknown option that may be shown. The name is left out where it could be a part of a
    /// password: a password before it may contain a `&`.
    fn unknown(&self, name: &str) -> String {
        let is_word = name.len() <= 20 && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        let follows_secret = self.0.iter().any(|(given, _)| given.ends_with("pass"));
        if is_word && !follows_secret { format!("an unknown option {name}") } else { "an unknown option".to_owned() }
    }

    fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(given, _)| *given == name)?;
        Some(self.0.swap_remove(at).1)
    }

    fn tls(&mut self) -> Result<TlsOptions, String> {
        let [cacert, cert, key] = ["cacert", "cert", "key"].map(|name| self.take(name).map(PathBuf::from));
        if cert.is_some() != key.is_some() {
            return Err("a client certificate needs both options, cert and key".to_owned());
        }
        Ok(TlsOptions { cacert, cert, key, sni: self.take("sni") })
    }
}

fn unknown_scheme() -> String {
    let schemes: Vec<String> = SCHEMES.iter().map(|scheme| format!("{}://", scheme.name)).collect();
    format!("it must begin with {}, or with memory:// and a name", schemes.join(", "))
}

fn decoded(text: &str) -> Result<String, String> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(String::from).map_err(|_| "it cannot be read: a part of it is no UTF-8".to_owned())
}

fn database(text: &str) -> Result<u32, String> {
    let rule = || "it cannot be read: the database must be a number from 0 on".to_owned();
    if text.is_empty() { Ok(0) } else { text.parse().map_err(|_| rule()) }
}

/// Returns the error of a URL that breaks a rule.
pub(super) fn refused(url: &str, rule: impl ToString) -> ConfigError {
    ConfigError::new("url", shown(url), rule)
}

/// Returns the form of a URL that may be shown: its scheme, hosts, ports, service and database, or the path of its
/// socket. Any other part is left out. A URL that cannot be read is left out whole.
pub(crate) fn shown(url: &str) -> String {
    shown_parts(url).unwrap_or_else(|| UNREADABLE.to_owned())
}

/// Returns the parts of a URL that may be shown; `None` where a part of the password may be among them.
fn shown_parts(url: &str) -> Option<String> {
    let (name, rest) = url.split_once("://")?;
    let Some(scheme) = Scheme::named(name) else {
        let is_word = name.len() <= 20 && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'+');
        return is_word.then(|| format!("{name}://…"));
    };
    let parts = Parts::split(rest, scheme.kind == Kind::Unix).ok()?;
    if scheme.kind == Kind::Unix {
        return Some(format!("{name}://{}", parts.path));
    }
    let nodes = parts::nodes(parts.hosts, scheme.port()).ok()?;
    let nodes: Vec<String> = nodes.iter().map(Node::to_string).collect();
    let path = parts.path.trim_matches('/');
    let is_plain = match scheme.kind {
        Kind::Sentinel => path.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b)),
        _ => path.bytes().all(|b| b.is_ascii_digit()),
    };
    Some(format!("{name}://{}/{}", nodes.join(","), if is_plain { path } else { "…" }))
}

impl std::fmt::Display for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
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
mod tests;
