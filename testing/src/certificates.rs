//! Certificates for servers and clients that speak TLS, made anew for each test.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use tempfile::TempDir;

/// Authority that signs certificates. Its files are removed when this is dropped.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    dir: TempDir,
}

/// Certificate and its private key, each in a file in PEM.
#[derive(Debug, Clone)]
pub struct Issued {
    /// File of the certificate.
    pub cert: PathBuf,
    /// File of the private key.
    pub key: PathBuf,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Authority({})", self.dir.path().display())
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Authority {
    /// Makes an authority that nobody else knows.
    pub fn new() -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, format!("authority {}", uuid::Uuid::new_v4()));
        let certificate = params.self_signed(&key).expect("a certificate of the authority");
        std::fs::write(dir.path().join("ca.pem"), certificate.pem()).expect("the authority's file");
        Self { issuer: Issuer::new(params, key), dir }
    }

    /// Returns the file with the certificate of the authority.
    pub fn file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// Returns the directory of the files.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Signs a certificate for these names and addresses.
    pub fn issue(&self, names: &[&str]) -> Issued {
        self.sign(names, |_| ())
    }

    /// Signs a certificate that expired long ago.
    pub fn issue_expired(&self, names: &[&str]) -> Issued {
        self.sign(names, |params| params.not_after = date_time_ymd(2000, 1, 1))
    }

    fn sign(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Issued {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).expect("names for a certificate");
        params.distinguished_name.push(DnType::CommonName, "redis");
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let id = uuid::Uuid::new_v4();
        let file = |kind: &str, text: String| {
            let file = self.dir.path().join(format!("{id}.{kind}"));
            std::fs::write(&file, text).expect("a file");
            file
        };
        Issued { cert: file("pem", certificate.pem()), key: file("key", key.serialize_pem()) }
    }
}
