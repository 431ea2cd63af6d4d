//! TLS of a connection, by rustls.
//!
//! redis-rs can do TLS too. It needs a default crypto provider of the process, and panics without one. A library must
//! not install such a default: the program's own later call would fail. Also redis-rs reads the system's authorities
//! again for each connection, and says little about the cause of a failure. So the crate encrypts the stream itself,
//! and gives redis-rs that stream.

use std::error::Error;
use std::io;
use std::path::Path;
use std::sync::Arc;

use futures_util::{FutureExt, future};
use redis::io::tcp::socket2::{SockRef, TcpKeepalive};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::backend::redis::url::{Node, TlsOptions};

/// Settings of all TLS connections to one Redis. The files were read when this was made.
#[derive(Clone)]
pub(super) struct Tls {
    config: Arc<ClientConfig>,
    /// Name that certificates must be for, where that is not the host.
    name: Option<ServerName<'static>>,
    has_client_certificate: bool,
}

impl Tls {
    /// Reads the files that the options name.
    ///
    /// # Errors
    /// Text with the file or option, and the reason.
    pub(super) fn new(options: &TlsOptions) -> Result<Self, String> {
        // The program's choice, if it made one.
        let provider = CryptoProvider::get_default().cloned().unwrap_or_else(|| Arc::new(ring::default_provider()));
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("the process's default crypto provider of rustls cannot be used: {error}"))?;
        let config = config.with_root_certificates(match &options.cacert {
            Some(file) => authorities(file)?,
            None => authorities_of_the_system()?,
        });
        let config = match (&options.cert, &options.key) {
            (Some(cert), Some(key)) => {
                let chain = certificates("cert", cert)?;
                let read = PrivateKeyDer::from_pem_slice(&contents("key", key)?);
                let read = read
                    .map_err(|_| format!("the file of its option key has no private key in PEM: {}", key.display()))?;
                config
                    .with_client_auth_cert(chain, read)
                    .map_err(|error| format!("the files of its options cert and key do not fit together: {error}"))?
            }
            _ => config.with_no_client_auth(),
        };
        let name = options.sni.as_ref().map(|name| ServerName::try_from(name.clone())).transpose();
        let name = name.map_err(|_| "its option sni must be a host name or an address".to_owned())?;
        Ok(Self { config: Arc::new(config), name, has_client_certificate: options.cert.is_some() })
    }

    /// Connects to a node. TCP probes the connection by `probes`.
    ///
    /// # Errors
    /// Error whose text says the reason, and the way to mend it.
    pub(super) async fn connect(&self, node: &Node, probes: &TcpKeepalive) -> io::Result<TlsStream<TcpStream>> {
        let name = match &self.name {
            Some(name) => name.clone(),
            None => ServerName::try_from(node.host.clone()).map_err(|_| {
                let host = &node.host;
                io::Error::other(format!("{host} is no name that a certificate can be for; the option sni names one"))
            })?,
        };
        // As redis-rs does without TLS: all addresses of the host at once.
        let addresses = tokio::net::lookup_host((node.host.as_str(), node.port)).await?;
        let streams: Vec<_> = addresses.map(|address| TcpStream::connect(address).boxed()).collect();
        if streams.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the host has no address"));
        }
        let (stream, _) = future::select_ok(streams).await?;
        stream.set_nodelay(true)?;
        SockRef::from(&stream).set_tcp_keepalive(probes)?;
        TlsConnector::from(Arc::clone(&self.config)).connect(name, stream).await
    }

    /// Returns the text of a failure that TLS caused. In TLS 1.3 a server refuses a client certificate only after the
    /// handshake.
    pub(super) fn explained(&self, node: &Node, error: &(dyn Error + 'static)) -> Option<String> {
        let text = match tls_error(error)? {
            rustls::Error::InvalidCertificate(error) => self.unverified(node, error),
            rustls::Error::AlertReceived(alert) => self.alerted(node, *alert),
            rustls::Error::InvalidMessage(_) => {
                format!("{node} does not answer in TLS: it needs redis:// in place of rediss://, or its TLS port")
            }
            error => format!("TLS with {node} failed: {error}"),
        };
        Some(text)
    }

    fn unverified(&self, node: &Node, error: &CertificateError) -> String {
        let wrong = format!("the certificate of {node}");
        match error {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => format!(
                "{wrong} is from an authority that is not trusted; the option cacert names a file with the authority's certificate"
            ),
            CertificateError::NotValidForNameContext { expected, presented } => format!(
                "{wrong} is not for {}, but for {}; connect by such a name, or expect one by the option sni",
                expected.to_str(),
                names(presented)
            ),
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                format!("{wrong} has expired; renew it, or correct this machine's clock")
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                format!("{wrong} is not valid yet; correct this machine's clock, or wait")
            }
            error => format!("{wrong} cannot be used: {error}"),
        }
    }

    fn alerted(&self, node: &Node, alert: AlertDescription) -> String {
        match alert {
            AlertDescription::CertificateRequired if !self.has_client_certificate => {
                format!("{node} demands a client certificate; the options cert and key name its files")
            }
            // OpenSSL's answer in TLS 1.2.
            AlertDescription::HandshakeFailure if !self.has_client_certificate => format!(
                "{node} refuses the TLS handshake; it may demand a client certificate, whose files the options cert and key name"
            ),
            AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateRequired
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::DecryptError => format!(
                "{node} refuses the client certificate ({alert:?}); an authority that the server trusts must have signed it, \
                 and it must not have expired"
            ),
            AlertDescription::ProtocolVersion => {
                format!("{node} speaks neither TLS 1.2 nor TLS 1.3, which its setting tls-protocols allows")
            }
            alert => format!("{node} refuses the TLS handshake: {alert:?}"),
        }
    }
}

/// Returns the names of a certificate, which rustls has as `DnsName("…")` or as they are.
fn names(presented: &[String]) -> String {
    let bare = |name: &String| name.split('"').nth(1).unwrap_or(name).to_owned();
    if presented.is_empty() { "no name".to_owned() } else { presented.iter().map(bare).collect::<Vec<_>>().join(", ") }
}

/// Returns the error of rustls that an error contains, however it is wrapped.
fn tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = match (error.downcast_ref::<io::Error>(), error.downcast_ref::<Arc<dyn Error + Send + Sync>>()) {
            // An `io::Error` leaves its own content out of its sources, and so does an `Arc`.
            (Some(error), _) => error.get_ref().map(|inner| inner as &(dyn Error + 'static)),
            (_, Some(inner)) => Some(&**inner as &(dyn Error + 'static)),
            _ => error.source(),
        };
    }
    None
}

fn contents(option: &str, file: &Path) -> Result<Vec<u8>, String> {
    // The content may be a private key, which no error may show.
    if file.to_string_lossy().contains("-----BEGIN") {
        return Err(format!("its option {option} must be the path of a file, and is the content of one"));
    }
    let read = std::fs::read(file);
    read.map_err(|error| format!("the file of its option {option} cannot be read: {}: {error}", file.display()))
}

/// Reads the certificates of a file, of which there must be one or more.
fn certificates(option: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_slice_iter(&contents(option, file)?).collect::<Result<Vec<_>, _>>();
    match read {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(format!("the file of its option {option} has no certificate in PEM: {}", file.display())),
    }
}

fn authorities(file: &Path) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    for certificate in certificates("cacert", file)? {
        store
            .add(certificate)
            .map_err(|error| format!("the file of its option cacert has a certificate that cannot be used: {error}"))?;
    }
    Ok(store)
}

/// Returns the authorities that the operating system trusts. `SSL_CERT_FILE` and `SSL_CERT_DIR` name others.
fn authorities_of_the_system() -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    let (usable, _) = store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if usable == 0 {
        return Err(
            "this machine has no list of trusted authorities; the option cacert names a file of them".to_owned()
        );
    }
    Ok(store)
}
