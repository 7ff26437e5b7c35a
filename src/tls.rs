//! TLS as a client, and what clients and the server read from files: PEM, as everybody writes it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

/// What is wrong with certificates or keys; names the file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{}: {reason}", path.display())]
    File { path: PathBuf, reason: String },
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("the certificate and the key are of no use: {0}")]
    Unusable(#[from] rustls::Error),
    #[error("the system's certificates cannot be read: {0}")]
    SystemRoots(String),
    #[error("{0:?} is no name of a server: {1}")]
    Name(String, String),
}

/// Whom a client trusts, and who it says it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTls {
    /// Certificates of authorities; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// Certificate chain and key, for servers that ask for them.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// What certificates must be for; `None`: the host that is connected to.
    pub server_name: Option<String>,
}

/// The implementation of cryptography.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

impl ClientTls {
    /// Reads the files.
    pub fn config(&self) -> Result<ClientConfig, TlsError> {
        let builder =
            ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
        let roots = match &self.ca {
            Some(path) => authorities(path, &read(path)?)?,
            None => system_authorities()?,
        };
        let builder = match &self.server_name {
            Some(name) => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(NamedVerifier::new(roots, name)?)),
            None => builder.with_root_certificates(roots),
        };
        Ok(match &self.identity {
            Some((certificate, key)) => builder.with_client_auth_cert(
                certificates(certificate, &read(certificate)?)?,
                private_key(key, &read(key)?)?,
            )?,
            None => builder.with_no_client_auth(),
        })
    }

    /// Connects to `http://` and `https://`, and speaks HTTP/1.
    pub fn connector(&self) -> Result<HttpsConnector<HttpConnector>, TlsError> {
        let builder = HttpsConnectorBuilder::new().with_tls_config(self.config()?);
        Ok(builder.https_or_http().enable_http1().build())
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|error| TlsError::File { path: path.to_owned(), reason: error.to_string() })
}

fn system_authorities() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Some systems hold certificates that are too odd to be used; the others will do.
    let (usable, _) = roots.add_parsable_certificates(found.certs);
    let reason = found.errors.first().map_or_else(|| "there are none".to_owned(), ToString::to_string);
    if usable == 0 { Err(TlsError::SystemRoots(reason)) } else { Ok(roots) }
}

/// As rustls judges, with a name of our own in place of the host's.
#[derive(Debug)]
struct NamedVerifier {
    verifier: Arc<WebPkiServerVerifier>,
    name: ServerName<'static>,
}

impl NamedVerifier {
    fn new(roots: RootCertStore, name: &str) -> Result<Self, TlsError> {
        let unusable = |error: &dyn std::fmt::Display| TlsError::Name(name.to_owned(), error.to_string());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build();
        Ok(Self {
            verifier: verifier.map_err(|error| unusable(&error))?,
            name: ServerName::try_from(name.to_owned()).map_err(|error| unusable(&error))?,
        })
    }
}

impl ServerCertVerifier for NamedVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verifier.verify_server_cert(end_entity, intermediates, &self.name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

/// For asking a server on this machine whether it is well: nothing secret is said, and the name in its
/// certificate is that by which others reach it. So any certificate will do.
pub fn trusting_anybody() -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let verifier = Arc::new(Anybody(provider()));
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// The certificates in a file, at least one; `path` is for messages.
pub fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |reason: String| TlsError::File { path: path.to_owned(), reason };
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| failed(error.to_string()))?;
    if found.is_empty() { Err(failed("there is no certificate in it".to_owned())) } else { Ok(found) }
}

/// The private key in a file.
pub fn private_key(path: &Path, pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    // The error may repeat a part of what it did not understand.
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| TlsError::File {
        path: path.to_owned(),
        reason: "there is no private key in it".to_owned(),
    })
}

/// The authorities in a file.
pub fn authorities(path: &Path, pem: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, pem)? {
        roots
            .add(certificate)
            .map_err(|error| TlsError::File { path: path.to_owned(), reason: error.to_string() })?;
    }
    Ok(roots)
}
