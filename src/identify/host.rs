//! Allowed values of `Host`, as a protection against DNS rebinding. If a foreign name resolves to calgate's address, a browser
//! sends that name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::header::HOST;
use http::{Version, request};

use super::leak::contains_gateway_key;

/// Addresses of both ends of a client connection.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionEnds {
    /// Address of the client. The peer of a Unix-domain socket counts as the loopback address.
    pub peer: IpAddr,
    /// Address that the client connected to. `None` for a Unix-domain socket.
    pub local: Option<IpAddr>,
}

/// Host of an authority (RFC 3986 §3.2.2).
#[derive(Debug, PartialEq, Eq)]
enum Host<'a> {
    Address(IpAddr),
    Name(&'a str),
}

impl<'a> Host<'a> {
    /// Parses a host without a port.
    fn parse(text: &'a str) -> Option<Self> {
        if let Some(inner) = text.strip_prefix('[') {
            let address: Ipv6Addr = inner.strip_suffix(']')?.parse().ok()?;
            return Some(Self::Address(IpAddr::V6(address).to_canonical()));
        }
        if let Ok(address) = text.parse::<Ipv4Addr>() {
            return Some(Self::Address(address.into()));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        let is_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        (!name.is_empty() && name.bytes().all(is_name)).then_some(Self::Name(name))
    }

    /// Parses `host` or `host:port`, as in a `Host` field. The port is ignored, because a container may map it to another one.
    fn of_authority(text: &'a str) -> Option<Self> {
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port),
            _ => (text, ""),
        };
        let is_port = port.bytes().all(|b| b.is_ascii_digit());
        Self::parse(host).filter(|_| is_port)
    }
}

/// Longest host that is logged, 255 bytes, which is the limit of the DNS (RFC 1035 §2.3.4).
const MAX_LOGGED: usize = 255;

/// Host names and addresses of `[listen] hosts`.
#[derive(Debug, Default, Clone)]
pub struct Hosts {
    names: Vec<Box<str>>,
    addresses: Vec<IpAddr>,
}

impl Hosts {
    /// Adds a host without a port. Brackets around an IPv6 address are optional. Returns whether `text` is a host.
    pub fn add(&mut self, text: &str) -> bool {
        let bare = text.parse::<Ipv6Addr>().ok().map(|address| Host::Address(IpAddr::V6(address).to_canonical()));
        match bare.or_else(|| Host::parse(text)) {
            Some(Host::Address(address)) => self.addresses.push(address),
            Some(Host::Name(name)) => self.names.push(name.into()),
            None => return false,
        }
        true
    }

    /// Checks `Host`, or `:authority` in HTTP/2, to prevent DNS rebinding. If a foreign name resolves to this address, a browser
    /// takes calgate for a part of the foreign site.
    ///
    /// Loopback names, the local address of the connection and listed hosts are allowed. Requests over a Unix-domain socket and
    /// HTTP/1.0 requests without `Host` are allowed, too, because no browser sends them.
    ///
    /// # Errors
    /// The rejected host, for the access log. Empty if it is unsafe to log.
    pub fn check(&self, head: &request::Parts, local: Option<IpAddr>) -> Result<(), Box<str>> {
        let Some(local) = local else { return Ok(()) };
        let mut given = authorities(head).peekable();
        if given.peek().is_none() && head.version != Version::HTTP_10 {
            return Err(Box::default());
        }
        match given.find(|authority| !self.allows(authority, local)) {
            None => Ok(()),
            Some(foreign) => {
                let is_loggable = foreign.len() <= MAX_LOGGED
                    && Host::of_authority(foreign).is_some()
                    && !contains_gateway_key(foreign.as_bytes());
                Err(if is_loggable { foreign.into() } else { Box::default() })
            }
        }
    }

    fn allows(&self, authority: &str, local: IpAddr) -> bool {
        match Host::of_authority(authority) {
            Some(Host::Address(address)) => {
                address.is_loopback() || address == local.to_canonical() || self.addresses.contains(&address)
            }
            Some(Host::Name(name)) => {
                is_localhost(name) || self.names.iter().any(|listed| listed.eq_ignore_ascii_case(name))
            }
            None => false,
        }
    }
}

/// Returns the authorities of a request: that of its target and those of its `Host` fields. An HTTP/2 request may have both.
pub(super) fn authorities(head: &request::Parts) -> impl Iterator<Item = &str> {
    let fields = head.headers.get_all(HOST).iter().map(|value| value.to_str().unwrap_or_default());
    head.uri.authority().map(http::uri::Authority::as_str).into_iter().chain(fields)
}

/// Returns whether the name is `localhost` or below it. Such names resolve to loopback addresses (RFC 6761 §6.3).
fn is_localhost(name: &str) -> bool {
    const LOCALHOST: &str = "localhost";
    let Some((rest, end)) = name.len().checked_sub(LOCALHOST.len()).and_then(|at| name.split_at_checked(at)) else {
        return false;
    };
    end.eq_ignore_ascii_case(LOCALHOST) && (rest.is_empty() || rest.ends_with('.'))
}
