//! Client addresses, by which calgate counts callers without a key.

use std::net::{IpAddr, Ipv6Addr};

use http::HeaderMap;
use ipnet::IpNet;

/// Address as the key of a bucket: a whole IPv4 address, or the /64 of an IPv6 address, which one subscriber has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AddressKey(u128);

impl AddressKey {
    /// Returns the key of an address. An IPv4-mapped IPv6 address counts as the IPv4 address.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self(v4.to_ipv6_mapped().to_bits()),
            IpAddr::V6(v6) => Self(v6.to_bits() & !u128::from(u64::MAX)),
        }
    }

    /// Returns the key as a number.
    pub fn as_u128(self) -> u128 {
        self.0
    }
}

/// Proxies whose `X-Forwarded-For` calgate trusts (`[listen] trusted_proxies`).
#[derive(Debug, Default, Clone)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// Trusts the configured networks.
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|net| net.contains(&address))
    }

    /// Returns the address of the client. It is the peer of the connection, unless the peer is a trusted proxy.
    ///
    /// The entries of `X-Forwarded-For` are read from the right, as long as each is a trusted proxy. An entry that is not an
    /// address ends the search, because no trusted proxy vouches for the entries to its left.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer;
        if self.0.is_empty() || !self.contains(peer) {
            return client;
        }
        let lines = headers.get_all("x-forwarded-for").iter().rev();
        for entry in lines.flat_map(|line| line.to_str().unwrap_or_default().rsplit(',')) {
            let Some(hop) = parse_hop(entry.trim()) else { return client };
            client = hop;
            if !self.contains(hop) {
                return client;
            }
        }
        client
    }
}

/// Parses an address with or without a port. Brackets around an IPv6 address are optional.
fn parse_hop(entry: &str) -> Option<IpAddr> {
    let bare = entry.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let bracketed = bare.and_then(|inner| inner.parse::<Ipv6Addr>().ok()).map(IpAddr::V6);
    bracketed.or_else(|| entry.parse().ok()).or_else(|| entry.parse().ok().map(|a: std::net::SocketAddr| a.ip()))
}
