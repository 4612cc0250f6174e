//! TLS client configuration for Cal.com and the stores. Certificates are always verified, and no option turns that off.

use std::path::Path;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};

/// Returns the certificate authorities of `ca_file`, or the public ones if there is no file.
///
/// # Errors
/// The reason why `ca_file` cannot be used.
pub fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let Some(path) = ca_file else {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        return Ok(roots);
    };
    for certificate in CertificateDer::pem_file_iter(path).map_err(|e| e.to_string())? {
        roots.add(certificate.map_err(|e| e.to_string())?).map_err(|e| e.to_string())?;
    }
    if roots.is_empty() { Err("it holds no certificate".to_owned()) } else { Ok(roots) }
}

/// Public certificate authorities to trust.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Roots {
    /// Authorities that are compiled in.
    Bundled,
    /// Authorities of the system, or of the file that `SSL_CERT_FILE` names.
    System,
    /// Both.
    Both,
}

impl Roots {
    /// Returns the default for a configuration without `upstream.roots`. An operator sets `SSL_CERT_FILE` to add an
    /// authority.
    pub fn of_environment() -> Self {
        let is_set = std::env::var_os("SSL_CERT_FILE").is_some_and(|file| !file.is_empty());
        if is_set { Self::Both } else { Self::Bundled }
    }
}

/// Returns the certificate authorities to trust for Cal.com: those of `ca_file` alone, or else those of `choice`.
///
/// # Errors
/// The reason why a file cannot be used.
pub fn trusted(ca_file: Option<&Path>, choice: Roots) -> Result<RootCertStore, String> {
    if ca_file.is_some() || choice == Roots::Bundled {
        return roots(ca_file);
    }
    let mut trusted = if choice == Roots::Both { roots(None)? } else { RootCertStore::empty() };
    let found = rustls_native_certs::load_native_certs();
    let (added, _) = trusted.add_parsable_certificates(found.certs);
    if added == 0 {
        let why = found.errors.first().map(|fault| format!(" ({fault})")).unwrap_or_default();
        return Err(format!(
            "the system has no certificate authorities{why}: set SSL_CERT_FILE, upstream.ca_file, or upstream.roots to \
             \"bundled\""
        ));
    }
    Ok(trusted)
}

/// Returns whether a certificate can be verified for that name or address.
pub fn can_check(host: &str) -> bool {
    ServerName::try_from(host).is_ok()
}

/// Returns the configuration of the gateway's TLS connections. ALPN (RFC 7301) offers `protocols`.
///
/// # Errors
/// If the crypto library refuses its own defaults.
pub fn client(roots: RootCertStore, protocols: &[&[u8]]) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = builder.map_err(|e| e.to_string())?.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

/// Returns a configuration that trusts no certificate, for a client that speaks plain HTTP.
///
/// # Errors
/// If the crypto library refuses its own defaults.
pub fn without_authorities() -> Result<Arc<ClientConfig>, String> {
    client(RootCertStore::empty(), &[])
}
