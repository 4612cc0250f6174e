//! Allowed values of `Host`.

use std::net::IpAddr;

use calgate::identify::Hosts;
use http::{Request, Version, request};

fn head(version: Version, uri: &str, hosts: &[&str]) -> request::Parts {
    let mut builder = Request::builder().version(version).uri(uri);
    for host in hosts {
        builder = builder.header("host", *host);
    }
    builder.body(()).unwrap().into_parts().0
}

fn listed() -> Hosts {
    let mut hosts = Hosts::default();
    assert!(["calgate", "Calgate.Internal.", "10.0.0.7", "fd00::7", "[fd00::8]"].iter().all(|host| hosts.add(host)));
    hosts
}

#[test]
fn allows_loopback_names_the_local_address_and_listed_hosts() {
    let (hosts, local): (_, IpAddr) = (listed(), "10.0.0.5".parse().unwrap());
    let good = [
        "localhost",
        "localhost:8080",
        "LOCALHOST.",
        "app.localhost:1",
        "127.0.0.1",
        "127.9.8.7:80",
        "[::1]",
        "[::1]:8080",
        "[::ffff:127.0.0.1]:80",
        "10.0.0.5",
        "10.0.0.5:8080",
        "[::ffff:10.0.0.5]",
        "calgate",
        "CALGATE:8080",
        "calgate.",
        "calgate.internal",
        "10.0.0.7:1",
        "[fd00::7]:1",
        "[fd00::8]",
        "localhost:",
    ];
    let bad = [
        "",
        "evil.example",
        "localhost.evil.example",
        "evillocalhost",
        "127.0.0.1.evil.example",
        "10.0.0.6",
        "0.0.0.0",
        "[::]",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "calgate.evil",
        "a.calgate",
        "user@localhost",
        "localhost@evil",
        "localhost:x",
        "localhost/",
        "[::1",
        "::1",
        "[::1]x",
        "local host",
        ".",
        "localhost,evil.example",
        "[fd00::9]",
    ];
    for host in good {
        assert_eq!(hosts.check(&head(Version::HTTP_11, "/", &[host]), Some(local)), Ok(()), "{host}");
    }
    for host in bad {
        let checked = hosts.check(&head(Version::HTTP_11, "/", &[host]), Some(local));
        assert!(checked.is_err(), "{host}");
        assert!(
            hosts.check(&head(Version::HTTP_11, "/", &[host]), None).is_ok(),
            "browsers do not connect to a Unix socket"
        );
    }
    let named = hosts.check(&head(Version::HTTP_11, "/", &["evil.example:80"]), Some(local)).unwrap_err();
    assert_eq!(&*named, "evil.example:80");
}

#[test]
fn every_authority_of_a_request_must_be_allowed() {
    let (hosts, local) = (Hosts::default(), Some("127.0.0.1".parse().unwrap()));
    let table = [
        (Version::HTTP_2, "http://localhost/", &[][..], true),
        (Version::HTTP_2, "http://evil.example/", &[], false),
        (Version::HTTP_2, "http://localhost/", &["evil.example"], false),
        (Version::HTTP_2, "http://evil.example/", &["localhost"], false),
        (Version::HTTP_2, "/", &["localhost"], true),
        (Version::HTTP_2, "/", &["localhost", "evil.example"], false),
        (Version::HTTP_2, "/", &[], false),
        (Version::HTTP_11, "/", &[], false),
        (Version::HTTP_10, "/", &[], true),
        (Version::HTTP_10, "/", &["evil.example"], false),
    ];
    for (version, uri, fields, expected) in table {
        let checked = hosts.check(&head(version, uri, fields), local);
        assert_eq!(checked.is_ok(), expected, "{version:?} {uri} {fields:?}");
    }
}

#[test]
fn rejects_a_listed_host_that_is_not_a_name_or_address() {
    for text in ["", "a:80", "[::1]:80", "http://a", "*.example.com", "a b", "user@a", "a/", "[a]"] {
        assert!(!Hosts::default().add(text), "{text}");
    }
}
