//! TLS of connections that connectors make themselves: the certificates that they trust.
//!
//! Invariant: every connection with such a configuration verifies the server's certificate and name.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use windrow_core::{Error, Result};

/// Returns a configuration that trusts the certificates of a file, or of the system. `option`: the one that names the file.
/// Blocks briefly.
///
/// # Errors
/// When there are none.
pub(crate) fn client_config(option: &str, file: Option<&Path>) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    match file {
        Some(file) => {
            let shown = file.display();
            let wrong =
                |why: String| Error::config(format!("option \"{option}\": \"{shown}\" {why}"));
            let certificates = CertificateDer::pem_file_iter(file)
                .map_err(|e| wrong(format!("cannot be read: {e}")))?;
            for certificate in certificates {
                let certificate =
                    certificate.map_err(|e| wrong(format!("is not a certificate: {e}")))?;
                roots
                    .add(certificate)
                    .map_err(|e| wrong(format!("has a certificate that cannot be used: {e}")))?;
            }
            if roots.is_empty() {
                return Err(wrong("has no certificate".to_owned()));
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                return Err(Error::config("the system has no certificates to check the server by")
                    .with_hint(format!("Name a file: {option} = 'ca.pem'.")));
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::internal("TLS cannot be set up").with_source(e))?
        .with_root_certificates(roots)
        .with_no_client_auth())
}
