//! TLS: the server's certificate, and the one that clients must have been given.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tonic::transport::{Certificate, Identity, ServerTlsConfig};
use windrow_core::{Error, ErrorKind, Result};

/// Files of PEM.
#[derive(Debug, Clone)]
pub struct TlsConfig {
    /// The certificate of the server, with those that lead to its authority.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authority that clients' certificates must be of; `None`: clients need none.
    pub client_ca: Option<PathBuf>,
}

impl TlsConfig {
    /// Reads the files. A handshake may take as long as `patience`.
    ///
    /// # Errors
    /// When one cannot be read.
    pub(crate) fn read(&self, patience: Duration) -> Result<ServerTlsConfig> {
        // Two providers are linked in; without a choice the first handshake would panic. When
        // somebody has chosen already, that is as good.
        drop(rustls::crypto::ring::default_provider().install_default());
        let (cert, key) = (read(&self.cert)?, read(&self.key)?);
        let tls = ServerTlsConfig::new().identity(Identity::from_pem(cert, key)).timeout(patience);
        Ok(match &self.client_ca {
            Some(ca) => tls.client_ca_root(Certificate::from_pem(read(ca)?)),
            None => tls,
        })
    }

    /// The error for files that are no certificate or key, or do not belong together.
    pub(crate) fn unusable(&self, e: tonic::transport::Error) -> Error {
        let mut cause: &dyn std::error::Error = &e;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        let (cert, key) = (self.cert.display(), self.key.display());
        let message = format!("\"{cert}\" and \"{key}\" cannot be used for TLS: {cause}");
        Error::config(message)
            .with_hint("--tls-cert and --tls-key name PEM files that belong together.")
            .with_source(e)
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| {
        let message = format!("cannot read \"{}\": {e}", path.display());
        Error::new(ErrorKind::Unavailable, message).with_source(e)
    })
}
