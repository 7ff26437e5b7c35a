//! Options of commands that ask a server: whom to trust.

use std::path::PathBuf;

use clap::Args;

use crate::tls::ClientTls;

/// Only for servers that speak TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct Trust {
    /// Certificates of the authorities to trust, as PEM (default: the system's).
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// A certificate to show, as PEM, for servers that ask for one.
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Its private key.
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
}

impl Trust {
    pub fn tls(&self) -> ClientTls {
        let identity = self.cert.clone().zip(self.key.clone());
        ClientTls { ca: self.ca.clone(), identity, server_name: None }
    }
}
