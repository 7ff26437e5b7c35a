//! The server's certificate, taken over anew when its files change.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use metrics::counter;
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::keys::{RELOAD_FAILURES, Watched};
use crate::tls::{TlsError, authorities, certificates, private_key, provider};

const WHAT: &str = "certificates";

/// Where certificate and key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain, the server's own certificate first.
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Authorities of the clients' certificates; `None`: clients are not asked for any.
    pub client_ca: Option<PathBuf>,
}

/// See the module's documentation.
pub struct Tls {
    files: TlsFiles,
    watched: tokio::sync::Mutex<Watched>,
    config: ArcSwap<ServerConfig>,
}

impl Tls {
    /// Reads the files for the first time, which must succeed.
    pub fn open(files: TlsFiles) -> Result<Self, TlsError> {
        let paths = [&files.certificate, &files.key].into_iter().chain(&files.client_ca).cloned();
        let mut watched = Watched::new(paths.collect());
        let config = server_config(&files, &watched.read()?)?;
        counter!(RELOAD_FAILURES, "what" => WHAT).increment(0);
        Ok(Self { files, watched: watched.into(), config: ArcSwap::from_pointee(config) })
    }

    /// Takes over what the files hold by now, for connections to come. What is of no use leaves things
    /// as they are: so it is for a moment while a certificate is new and its key is not.
    pub async fn refresh(&self) {
        let mut watched = self.watched.lock().await;
        let changed = match watched.changed().await {
            Ok(None) => return,
            Ok(Some(contents)) => server_config(&self.files, &contents),
            Err(error) => Err(error.into()),
        };
        match changed {
            Ok(config) => {
                self.config.store(Arc::new(config));
                tracing::info!(certificate = %self.files.certificate.display(), "another certificate is shown from now on");
            }
            Err(error) => {
                tracing::error!(%error, "the certificate that is shown stays the old one");
                counter!(RELOAD_FAILURES, "what" => WHAT).increment(1);
            }
        }
    }

    /// The handshake.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        TlsAcceptor::from(self.config.load_full()).accept(stream).await
    }
}

fn server_config(files: &TlsFiles, contents: &[Vec<u8>]) -> Result<ServerConfig, TlsError> {
    let content = |place: usize| contents.get(place).map_or(&[][..], Vec::as_slice);
    let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let builder = match &files.client_ca {
        Some(path) => {
            let roots = Arc::new(authorities(path, content(2))?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build();
            let unusable = |error: rustls::server::VerifierBuilderError| TlsError::File {
                path: path.clone(),
                reason: error.to_string(),
            };
            builder.with_client_cert_verifier(verifier.map_err(unusable)?)
        }
        None => builder.with_no_client_auth(),
    };
    let chain = certificates(&files.certificate, content(0))?;
    // Refuses a key that is not the certificate's.
    let mut config = builder.with_single_cert(chain, private_key(&files.key, content(1))?)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // Clients that come back need no second handshake, and the server remembers none of them.
    config.ticketer = rustls::crypto::ring::Ticketer::new()?;
    Ok(config)
}
