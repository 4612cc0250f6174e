//! `[upstream]`: the address of Cal.com, the certificate authorities to trust, and the headers to forward.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;
use http::header::HeaderName;
use http::uri::Authority;

use super::limits::Bounds;
use super::listen::Listen;
use super::proxy::ProxyChoice;
use super::section::{Section, Spanned};
use crate::headers;
use crate::tls::{self, Roots};

/// Address of Cal.com.
pub const CAL_COM: &str = "https://api.cal.com";

/// Settings of `[upstream]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// Address.
    pub base_url: BaseUrl,
    /// PEM file of the only certificate authorities to trust, instead of the public ones.
    pub ca_file: Option<PathBuf>,
    /// Public certificate authorities to trust if there is no `ca_file`.
    pub roots: Roots,
    /// HTTP proxy.
    pub proxy: ProxyChoice,
    /// Whether calgate offers HTTP/2 over TLS.
    pub http2: bool,
    /// Request headers to forward in addition to the built-in list.
    pub forward_headers: Vec<HeaderName>,
    /// Whether calgate adds the catalog's `cal-api-version` if the client sends none.
    pub pin_api_version: bool,
}

/// Values of `upstream.roots`.
const ROOTS: [(&str, Roots); 3] = [("bundled", Roots::Bundled), ("system", Roots::System), ("both", Roots::Both)];

/// Parsed address of the upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl {
    /// Whether the connection uses TLS.
    pub tls: bool,
    /// Host name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// `host` or `host:port`, the value of `Host`.
    pub authority: String,
    /// Path before `/v2`. Either empty, or with a leading `/` and without a trailing one.
    pub path: String,
}

impl BaseUrl {
    /// Parses an address.
    ///
    /// # Errors
    /// The reason why the address is invalid.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let uri: Uri = text.parse().map_err(|_| "it is not a URL")?;
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err("it must begin with https://"),
        };
        let authority = uri.authority().ok_or("it has no host")?;
        if authority.as_str().contains('@') || uri.query().is_some() || text.contains('#') {
            return Err("it must not have a user, query or fragment");
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        if !is_tls && !is_loopback(&host) {
            return Err("plain http:// is allowed for loopback addresses only; use https://");
        }
        if is_tls && !tls::can_check(&host) {
            return Err("its host is not a valid name for a certificate");
        }
        let port = port_of(authority)?;
        let path = uri.path().trim_end_matches('/');
        if path.ends_with("/v2") {
            return Err("it must not include /v2, which callers send");
        }
        Ok(Self {
            tls: is_tls,
            port: port.unwrap_or(if is_tls { 443 } else { 80 }),
            authority: authority.as_str().to_ascii_lowercase(),
            path: path.to_owned(),
            host,
        })
    }
}

impl BaseUrl {
    /// Returns whether the address is a loopback address.
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.host)
    }
}

/// Returns the port of an address, if it has one. The crate `http` ignores an invalid port, and the default port would be used.
pub(super) fn port_of(authority: &Authority) -> Result<Option<u16>, &'static str> {
    let address = authority.as_str().rsplit('@').next().unwrap_or_default();
    let Some(port) = address.strip_prefix(authority.host()).filter(|rest| !rest.is_empty()) else { return Ok(None) };
    let digits = port.strip_prefix(':').filter(|port| port.bytes().all(|b| b.is_ascii_digit()));
    match digits.and_then(|port| port.parse().ok()) {
        Some(port @ 1..) => Ok(Some(port)),
        _ => Err("its port must be a number from 1 to 65535"),
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl Upstream {
    /// Returns the longest time from taking a place in the budget to the head of the response. An address needs no lookup.
    pub fn response_within(&self, limits: &Bounds) -> Duration {
        let lookup = if self.needs_lookup() { limits.upstream_lookup } else { Duration::ZERO };
        lookup + limits.upstream_connect + limits.upstream_headers
    }

    /// Returns whether a new connection begins with the lookup of a name: that of the upstream, or that of its proxy.
    pub fn needs_lookup(&self) -> bool {
        let is_address = self.base_url.host.parse::<IpAddr>().is_ok();
        let is_direct = self.base_url.is_loopback() || self.proxy == ProxyChoice::Direct;
        !(is_address && is_direct)
    }

    pub(super) fn read(section: &Section<'_>, listen: &Listen) -> Self {
        let url = section.string("base_url").unwrap_or(Spanned { value: CAL_COM, span: section.span.clone() });
        let given = url.span.clone();
        let base_url = BaseUrl::parse(url.value).unwrap_or_else(|fault| {
            if url.value.contains('@') {
                section.hide(url.span.clone());
            }
            section.error(url.span, format!("`upstream.base_url` cannot be used: {fault}"), None);
            BaseUrl { tls: true, host: String::new(), port: 443, authority: String::new(), path: String::new() }
        });
        if let Some(key) = listen.reached_by(&base_url.host, base_url.port) {
            let help = "calgate would send requests to itself; set the address of Cal.com".to_owned();
            section.error(given, format!("`upstream.base_url` is calgate's own address, `{key}`"), help);
        }
        let extra = section.strings("forward_headers");
        Self {
            base_url,
            ca_file: section.ca_file("ca_file").map(|path| path.value),
            roots: section.choice("roots", &ROOTS).unwrap_or_else(Roots::of_environment),
            proxy: ProxyChoice::read(section),
            http2: section.boolean("http2").unwrap_or(true),
            forward_headers: extra.map(|list| header_names(section, &list.value)).unwrap_or_default(),
            pin_api_version: section.boolean("pin_api_version").unwrap_or(false),
        }
    }
}

fn header_names(section: &Section<'_>, list: &[Spanned<&str>]) -> Vec<HeaderName> {
    let name = |entry: &Spanned<&str>| {
        let name =
            HeaderName::from_bytes(entry.value.as_bytes()).ok().filter(|name| !headers::is_never_forwarded(name));
        if name.is_none() {
            let help = "headers that carry credentials, addresses, framing or overrides are never forwarded".to_owned();
            section.error(entry.span.clone(), format!("the header `{}` cannot be forwarded", entry.value), help);
        }
        name
    };
    list.iter().filter_map(name).collect()
}
