//! `[upstream]`: where Cal.com is, and how it is trusted.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;
use http::header::HeaderName;
use http::uri::Authority;

use super::limits::Bounds;
use super::listen::Listen;
use super::proxy::ProxyChoice;
use super::reader::{Located, Section};
use crate::headers;
use crate::tls::{self, Roots};

/// Cal.com's own address.
pub const CAL_COM: &str = "https://api.cal.com";

/// Where Cal.com is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// Its address.
    pub base_url: BaseUrl,
    /// The only certificate authority to trust, instead of the public ones: a PEM file.
    pub ca_file: Option<PathBuf>,
    /// The public authorities to trust, where there is no `ca_file`.
    pub roots: Roots,
    /// Which HTTP proxy leads there.
    pub proxy: ProxyChoice,
    /// Whether HTTP/2 is offered where TLS is used.
    pub http2: bool,
    /// Request headers that are forwarded beside the usual ones.
    pub forward_headers: Vec<HeaderName>,
    /// Whether the catalog's `cal-api-version` is added where the client sends none.
    pub pin_api_version: bool,
}

/// The values of `upstream.roots`.
const ROOTS: [(&str, Roots); 3] = [("bundled", Roots::Bundled), ("system", Roots::System), ("both", Roots::Both)];

/// An upstream address, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl {
    /// Whether TLS is spoken.
    pub tls: bool,
    /// Host name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// `host` or `host:port`, as the `Host` header has it.
    pub authority: String,
    /// What stands before `/v2`; empty, or begins with `/` and does not end with it.
    pub path: String,
}

impl BaseUrl {
    /// Reads an address.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let uri: Uri = text.parse().map_err(|_| "it is not a URL")?;
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err("it has to begin with https://"),
        };
        let authority = uri.authority().ok_or("it names no host")?;
        if authority.as_str().contains('@') || uri.query().is_some() || text.contains('#') {
            return Err("it takes no user, query or fragment");
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        if !is_tls && !is_loopback(&host) {
            return Err("plain http:// is for loopback addresses only; use https://");
        }
        if is_tls && !tls::can_check(&host) {
            return Err("its host is no name that a certificate can be checked for");
        }
        let port = port_of(authority)?;
        let path = uri.path().trim_end_matches('/');
        if path.ends_with("/v2") {
            return Err("it has to end before /v2, which callers send");
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
    /// Whether it is this machine's own.
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.host)
    }
}

/// The port of an address, if it names one. To `http`, a number that is none is no port, and the default would be taken.
pub(super) fn port_of(authority: &Authority) -> Result<Option<u16>, &'static str> {
    let address = authority.as_str().rsplit('@').next().unwrap_or_default();
    let Some(port) = address.strip_prefix(authority.host()).filter(|rest| !rest.is_empty()) else { return Ok(None) };
    let digits = port.strip_prefix(':').filter(|port| port.bytes().all(|b| b.is_ascii_digit()));
    match digits.and_then(|port| port.parse().ok()) {
        Some(port @ 1..) => Ok(Some(port)),
        _ => Err("its port is no number from 1 to 65535"),
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl Upstream {
    /// Returns the longest time from taking a place in the budget to the head of the response. An address needs no lookup.
    pub fn response_within(&self, limits: &Bounds) -> Duration {
        let lookup = if self.looks_up() { limits.upstream_lookup } else { Duration::ZERO };
        lookup + limits.upstream_connect + limits.upstream_headers
    }

    /// Returns whether a new connection begins with the lookup of a name: that of the upstream, or that of its proxy.
    pub fn looks_up(&self) -> bool {
        let is_address = self.base_url.host.parse::<IpAddr>().is_ok();
        let is_direct = self.base_url.is_loopback() || self.proxy == ProxyChoice::Direct;
        !(is_address && is_direct)
    }

    pub(super) fn read(section: &Section<'_>, listen: &Listen) -> Self {
        let url = section.string("base_url").unwrap_or(Located { value: CAL_COM, span: section.span.clone() });
        let given = url.span.clone();
        let base_url = BaseUrl::parse(url.value).unwrap_or_else(|fault| {
            if url.value.contains('@') {
                section.hide(url.span.clone());
            }
            section.wrong(url.span, format!("`upstream.base_url` cannot be used: {fault}"), None);
            BaseUrl { tls: true, host: String::new(), port: 443, authority: String::new(), path: String::new() }
        });
        if let Some(key) = listen.reached_by(&base_url.host, base_url.port) {
            let help = "requests would come back to calgate; name the address of Cal.com".to_owned();
            section.wrong(given, format!("`upstream.base_url` is calgate's own address, `{key}`"), help);
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

fn header_names(section: &Section<'_>, list: &[Located<&str>]) -> Vec<HeaderName> {
    let name = |entry: &Located<&str>| {
        let name =
            HeaderName::from_bytes(entry.value.as_bytes()).ok().filter(|name| !headers::is_never_forwarded(name));
        if name.is_none() {
            let help = "headers that carry credentials, addresses, framing or overrides are never forwarded".to_owned();
            section.wrong(entry.span.clone(), format!("the header `{}` cannot be forwarded", entry.value), help);
        }
        name
    };
    list.iter().filter_map(name).collect()
}
