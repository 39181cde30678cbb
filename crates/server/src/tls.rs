//! TLS: the server's certificate, and the authority of clients' certificates.

use std::path::{Path, PathBuf};

use windrow_core::{Error, ErrorKind, Result};

/// PEM files.
#[derive(Debug, Clone)]
pub struct TlsConfig {
    /// The certificate of the server, with the chain to its authority.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authority that must have issued clients' certificates; `None`: clients need none.
    pub client_ca: Option<PathBuf>,
}

/// The contents of the files of a [`TlsConfig`], from which a wire configures its TLS.
pub struct Pem {
    /// The certificates.
    pub cert: Vec<u8>,
    /// The private key.
    pub key: Vec<u8>,
    /// The authority of clients' certificates.
    pub client_ca: Option<Vec<u8>>,
}

impl std::fmt::Debug for Pem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The key is a secret.
        f.debug_struct("Pem").finish_non_exhaustive()
    }
}

impl TlsConfig {
    /// Reads the files.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn read(&self) -> Result<Pem> {
        // Two providers are linked in; without a choice the first handshake would panic. A provider that is already
        // installed is as good.
        drop(rustls::crypto::ring::default_provider().install_default());
        Ok(Pem {
            cert: read(&self.cert)?,
            key: read(&self.key)?,
            client_ca: self.client_ca.as_deref().map(read).transpose()?,
        })
    }

    /// Returns the error for files that are not a certificate or key, or do not belong together.
    pub fn unusable(&self, e: impl std::error::Error + Send + Sync + 'static) -> Error {
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
