//! `[listen]`: the addresses of the gateway and of its admin listener, and who may connect.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;

use super::cors_origin;
use super::section::{Section, Spanned};
use crate::identify::{Hosts, TrustedProxies};

/// Address of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// TCP socket.
    Tcp(SocketAddr),
    /// Unix domain socket.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "http://{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Address {
    /// Returns whether two listeners cannot use both addresses. The kernel assigns a different port each time for port 0.
    fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp(one), Self::Tcp(two)) => {
                let (a, b) = (one.ip(), two.ip());
                let all = a.is_ipv4() == b.is_ipv4() && (a.is_unspecified() || b.is_unspecified());
                one.port() == two.port() && one.port() != 0 && (a == b || all)
            }
            (Self::Unix(one), Self::Unix(two)) => one == two,
            (Self::Tcp(_), Self::Unix(_)) | (Self::Unix(_), Self::Tcp(_)) => false,
        }
    }
}

impl Address {
    /// Returns whether a connection from this machine to `host` and `port` ends at this address.
    fn is_reached_by(&self, host: &str, port: u16) -> bool {
        let Self::Tcp(own) = self else { return false };
        let is_loopback = own.ip().is_unspecified() || own.ip().is_loopback();
        let is_host = match host.parse::<IpAddr>() {
            Ok(address) => address == own.ip() || is_loopback && (address.is_loopback() || address.is_unspecified()),
            Err(_) => is_loopback && host == "localhost",
        };
        own.port() == port && is_host
    }
}

/// Settings of `[listen]`.
#[derive(Debug, Clone)]
pub struct Listen {
    /// Address of the gateway.
    pub address: Address,
    /// Address of the admin listener, unless it is off.
    pub admin: Option<Address>,
    /// Number of worker threads. Each has its own connections to Cal.com.
    pub workers: usize,
    /// Proxies whose `X-Forwarded-For` calgate trusts.
    pub trusted_proxies: TrustedProxies,
    /// Origins that browsers may call from. Without any, responses have no CORS headers.
    pub cors_origins: Vec<String>,
    /// Values of `Host` that are allowed in requests without a key and on the admin listener.
    pub hosts: Hosts,
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            address: Address::Tcp(SocketAddr::from(([127, 0, 0, 1], 8080))),
            admin: Some(Address::Tcp(SocketAddr::from(([127, 0, 0, 1], 9090)))),
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            trusted_proxies: TrustedProxies::default(),
            cors_origins: Vec::new(),
            hosts: Hosts::default(),
        }
    }
}

impl Listen {
    /// Returns the key of the listener that a connection from this machine to `host` and `port` reaches.
    pub(super) fn reached_by(&self, host: &str, port: u16) -> Option<&'static str> {
        let is_admin = || self.admin.as_ref().is_some_and(|admin| admin.is_reached_by(host, port));
        let is_gateway = self.address.is_reached_by(host, port);
        is_gateway.then_some("listen.address").or_else(|| is_admin().then_some("listen.admin"))
    }

    pub(super) fn read(section: &Section<'_>) -> Self {
        let default = Self::default();
        let workers = section.integer("workers", 1..=256).map(|n| n as usize);
        let proxies = section.strings("trusted_proxies").map(|list| networks(section, &list.value));
        let origins = section.strings("cors_origins").map(|list| origins(section, &list.value));
        let hosts = section.strings("hosts").map(|list| hosts(section, &list.value));
        let given = section.string("address");
        let address = match &given {
            Some(text) => read_address(section, "address", text),
            None => Some(default.address.clone()),
        };
        let given_admin = section.string("admin");
        let admin = match &given_admin {
            Some(off) if off.value == "off" => None,
            Some(text) => read_address(section, "admin", text),
            None => default.admin,
        };
        if let (Some(callers), Some(operators)) = (&address, &admin)
            && callers.overlaps(operators)
        {
            let place = given_admin.or(given).map_or(section.span.clone(), |text| text.span);
            let help = "set another address, or admin = \"off\"".to_owned();
            section.error(place, format!("`listen.admin` must differ from `listen.address`: {operators}"), help);
        }
        Self {
            address: address.unwrap_or(default.address),
            admin,
            workers: workers.unwrap_or(default.workers),
            trusted_proxies: TrustedProxies::new(proxies.unwrap_or_default()),
            cors_origins: origins.unwrap_or_default(),
            hosts: hosts.unwrap_or_default(),
        }
    }
}

fn read_address(section: &Section<'_>, key: &str, text: &Spanned<&str>) -> Option<Address> {
    let read = match text.value.strip_prefix("unix:") {
        Some(path) if path.starts_with('/') => Some(Address::Unix(path.into())),
        Some(_) => None,
        None => text.value.parse().ok().map(Address::Tcp),
    };
    if read.is_none() {
        let help = "write \"127.0.0.1:8080\", \"[::1]:8080\" or \"unix:/run/calgate/calgate.sock\"".to_owned();
        section.error(text.span.clone(), format!("`listen.{key}` is not an address: `{}`", text.value), help);
    }
    read
}

fn networks(section: &Section<'_>, list: &[Spanned<&str>]) -> Vec<IpNet> {
    let network = |entry: &Spanned<&str>| {
        let network = entry.value.parse().ok().or_else(|| entry.value.parse::<IpAddr>().ok().map(IpNet::from));
        if network.is_none() {
            let help = "write an address or a network, as \"10.0.0.0/8\" or \"fd00::/8\"".to_owned();
            section.error(entry.span.clone(), format!("`{}` is not a network", entry.value), help);
        }
        network
    };
    list.iter().filter_map(network).collect()
}

fn hosts(section: &Section<'_>, list: &[Spanned<&str>]) -> Hosts {
    let mut hosts = Hosts::default();
    for entry in list {
        if !hosts.add(entry.value) {
            if entry.value.contains('@') {
                section.hide(entry.span.clone());
            }
            let help = "write a name or an address without a port, such as \"calgate.internal\"".to_owned();
            section.error(entry.span.clone(), format!("`listen.hosts`: `{}` is not a host", entry.value), help);
        }
    }
    hosts
}

fn origins(section: &Section<'_>, list: &[Spanned<&str>]) -> Vec<String> {
    let read = |entry: &Spanned<&str>| {
        let fault = match cors_origin::read(entry.value) {
            Ok(origin) => return Some(origin),
            Err(fault) => fault,
        };
        if entry.value.contains(['@', '?']) {
            section.hide(entry.span.clone());
        }
        let help = "write each origin as browsers send it, such as \"https://app.example.com\"".to_owned();
        section.error(entry.span.clone(), format!("`listen.cors_origins`: this is not an origin: {fault}"), help);
        None
    };
    list.iter().filter_map(read).collect()
}
