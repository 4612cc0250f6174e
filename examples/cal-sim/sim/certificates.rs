//! Certificate authority of the simulation, created at each start.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose, SanType};
use rustls::ServerConfig;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// Additional name in the certificate. No resolver knows it, so clients reach it only through a proxy.
pub const NAME: &str = "api.cal.test";

/// TLS configuration of the server, and the certificate of the authority as PEM for clients.
pub fn make(listening: IpAddr) -> io::Result<(Arc<ServerConfig>, String)> {
    let (key, certificate, authority) = issue(listening).map_err(io::Error::other)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(io::Error::other)?.with_no_client_auth();
    let mut config = builder.with_single_cert(vec![certificate.der().clone()], key).map_err(io::Error::other)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok((Arc::new(config), authority))
}

/// Creates a key, a certificate for the names and addresses of the server, and the certificate of the authority as PEM.
pub fn issue(listening: IpAddr) -> Result<(KeyPair, rcgen::Certificate, String), rcgen::Error> {
    let mut authority = CertificateParams::default();
    authority.distinguished_name.push(DnType::CommonName, "cal-sim authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;

    let mut server = CertificateParams::new(vec!["localhost".to_owned(), NAME.to_owned()])?;
    server.distinguished_name.push(DnType::CommonName, "cal-sim");
    let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    server.subject_alt_names.extend(loopback.map(SanType::IpAddress));
    if !loopback.contains(&listening) {
        server.subject_alt_names.push(SanType::IpAddress(listening));
    }
    let key = KeyPair::generate()?;
    let certificate = server.signed_by(&key, &authority)?;
    Ok((key, certificate, authority.pem()))
}
