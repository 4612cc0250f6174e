//! Client addresses: keys of buckets, and trust in `X-Forwarded-For`.

use std::net::IpAddr;

use calgate::identify::{AddressKey, TrustedProxies};

use crate::given::headers;

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn counts_ipv6_by_the_64_prefix_and_ipv4_by_the_address() {
    let table = [
        ("192.0.2.1", "192.0.2.1", true),
        ("192.0.2.1", "192.0.2.2", false),
        ("192.0.2.1", "::ffff:192.0.2.1", true),
        ("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", true),
        ("2001:db8::1", "2001:db8:0:1::1", false),
        ("::1", "0.0.0.1", false),
        ("::ffff:0:0", "0.0.0.0", true),
    ];
    for (one, other, same) in table {
        assert_eq!(AddressKey::of(address(one)) == AddressKey::of(address(other)), same, "{one} and {other}");
    }
}

#[test]
fn reads_x_forwarded_for_up_to_the_first_address_that_is_not_a_trusted_proxy() {
    let proxies = TrustedProxies::new(vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()]);
    let table = [
        ("203.0.113.9", vec!["198.51.100.1"], "203.0.113.9"),
        ("10.0.0.1", vec![], "10.0.0.1"),
        ("10.0.0.1", vec!["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", vec!["1.1.1.1, 198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", vec!["1.1.1.1, 198.51.100.1 , 10.0.0.2"], "198.51.100.1"),
        ("10.0.0.1", vec!["1.1.1.1", "198.51.100.1", "10.0.0.2"], "198.51.100.1"),
        ("10.0.0.1", vec!["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", vec!["198.51.100.1, unknown"], "10.0.0.1"),
        ("10.0.0.1", vec!["198.51.100.1,"], "10.0.0.1"),
        ("10.0.0.1", vec!["198.51.100.1, _hidden, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", vec!["198.51.100.1:4711"], "198.51.100.1"),
        ("10.0.0.1", vec!["2001:db8::1"], "2001:db8::1"),
        ("fd00::1", vec!["[2001:db8::1]"], "2001:db8::1"),
        ("fd00::1", vec!["[2001:db8::1]:443"], "2001:db8::1"),
        ("::ffff:10.0.0.1", vec!["198.51.100.1"], "198.51.100.1"),
    ];
    for (peer, lines, expected) in table {
        let mut fields = headers([("forwarded", "for=1.2.3.4"), ("x-real-ip", "1.2.3.4")]);
        for line in &lines {
            fields.append("x-forwarded-for", line.parse().unwrap());
        }
        assert_eq!(proxies.client(address(peer), &fields), address(expected), "{peer} with {lines:?}");
    }
    let none = TrustedProxies::default();
    let fields = headers([("x-forwarded-for", "198.51.100.1")]);
    assert_eq!(none.client(address("127.0.0.1"), &fields), address("127.0.0.1"));
}
