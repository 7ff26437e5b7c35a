//! Certificates made for a test.

use std::path::{Path, PathBuf};

use feature_store::tls::ClientTls;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

/// An authority, and the files of what it has signed.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: TempDir,
}

/// A certificate's files.
#[derive(Clone, Debug)]
pub struct Files {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key"));
        let authority =
            Self { issuer: issuer.expect("a certificate"), dir: TempDir::new().expect("a directory") };
        std::fs::write(authority.ca(), authority.issuer.pem()).expect("a file");
        authority
    }

    /// The authority's own certificate.
    pub fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// A certificate for these names, in files called after `file`, over whatever was there.
    pub fn issue(&self, file: &str, names: &[&str]) -> Files {
        let (certificate, key) = self.make(names);
        let path = |end: &str| self.dir.path().join(format!("{file}{end}"));
        let files = Files { certificate: path(".pem"), key: path(".key") };
        replace(&files.certificate, &certificate);
        replace(&files.key, &key);
        files
    }

    /// A certificate and its key, as PEM.
    pub fn make(&self, names: &[&str]) -> (String, String) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let params = CertificateParams::new(names).expect("names");
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &*self.issuer).expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    }

    pub fn trusted(&self) -> ClientTls {
        ClientTls { ca: Some(self.ca()), ..ClientTls::default() }
    }

    pub fn trusted_by(&self, client: &Files) -> ClientTls {
        let identity = Some((client.certificate.clone(), client.key.clone()));
        ClientTls { identity, ..self.trusted() }
    }
}

/// As careful people do: never half a file.
pub fn replace(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).expect("a file");
    std::fs::rename(beside, path).expect("a rename");
}
