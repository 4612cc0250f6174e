//! HTTP client of the tests.

use std::sync::Arc;

use calgate::tls::without_authorities;

/// Returns a builder of clients that speak plain HTTP. reqwest has no TLS configuration of its own here.
pub fn client_builder() -> reqwest::ClientBuilder {
    let tls = without_authorities().unwrap();
    reqwest::Client::builder().tls_backend_preconfigured(Arc::unwrap_or_clone(tls))
}
