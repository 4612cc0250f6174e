//! Client addresses: what callers without a key are counted by.

use std::net::{IpAddr, Ipv6Addr};

use http::HeaderMap;
use ipnet::IpNet;

/// An address as a bucket's key: IPv4 whole, IPv6 by its /64, which is what one subscriber has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AddressKey(u128);

impl AddressKey {
    /// The key of an address. An IPv4-mapped IPv6 address counts as the IPv4 one.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self(v4.to_ipv6_mapped().to_bits()),
            IpAddr::V6(v6) => Self(v6.to_bits() & !u128::from(u64::MAX)),
        }
    }

    /// The key as a number.
    pub fn as_u128(self) -> u128 {
        self.0
    }
}

/// The proxies whose `X-Forwarded-For` is believed (`[listen] trusted_proxies`).
#[derive(Debug, Default, Clone)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// From the configured networks.
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|net| net.contains(&address))
    }

    /// The address a request comes from: the connection's peer, or, as long as that is a trusted proxy, the hop it
    /// names, read from the right. An entry that is no address ends the walk: what stands left of it proves nothing.
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

/// An address with or without a port, IPv6 with or without brackets.
fn parse_hop(entry: &str) -> Option<IpAddr> {
    let bare = entry.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let bracketed = bare.and_then(|inner| inner.parse::<Ipv6Addr>().ok()).map(IpAddr::V6);
    bracketed.or_else(|| entry.parse().ok()).or_else(|| entry.parse().ok().map(|a: std::net::SocketAddr| a.ip()))
}
