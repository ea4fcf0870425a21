//! TLS: whom to trust, and as whom to come.
//!
//! The files are read at each connect, so that a new certificate needs no
//! restart.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::options::RedisOptions;

/// A connection that has sent nothing yet, to a server of this name or address.
pub fn client(options: &RedisOptions, host: &str) -> Result<ClientConnection, String> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| format!("TLS: no name for a certificate: {host}"))?;
    ClientConnection::new(Arc::new(config(options)?), name).map_err(|error| format!("TLS: {error}"))
}

fn config(options: &RedisOptions) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    match &options.ca_file {
        Some(path) => {
            for certificate in certificates(path)? {
                let added = roots.add(certificate);
                added.map_err(|error| in_file(path, &error.to_string()))?;
            }
            if roots.is_empty() {
                return Err(in_file(path, "no certificate"));
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                return Err("TLS: the system has no certificates to trust: \
                            see --store-ca-file"
                    .into());
            }
        }
    }
    // The crate knows several providers of cryptography, and has none by itself.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS: {error}"))?
        .with_root_certificates(roots);
    match &options.certificate_file {
        None => Ok(builder.with_no_client_auth()),
        Some(path) => {
            let key = PrivateKeyDer::from_pem_file(path);
            let key = key.map_err(|error| in_file(path, &pem_error(&error)))?;
            let builder = builder.with_client_auth_cert(certificates(path)?, key);
            builder.map_err(|error| in_file(path, &error.to_string()))
        }
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| in_file(path, &pem_error(&error)))
}

fn pem_error(error: &pem::Error) -> String {
    match error {
        pem::Error::Io(error) => crate::sys::errors::describe(error),
        pem::Error::NoItemsFound => "no key".into(),
        error => error.to_string(),
    }
}

fn in_file(path: &Path, reason: &str) -> String {
    format!("TLS: {}: {reason}", path.display())
}
