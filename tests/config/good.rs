//! Values of valid configurations.

use std::time::Duration;

use calgate::catalog::UnknownEndpoints;
use calgate::config::Config;
use calgate::config::listen::Address;
use calgate::config::upstream::BaseUrl;
use calgate::entitle::EntitlementMode;
use calgate::ratelimit::Quota;

use crate::given::config;

fn parse(text: &str) -> Config {
    Config::parse("test.toml", text).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn an_empty_configuration_is_all_defaults() {
    let config = parse("");
    assert_eq!(config.listen.address.to_string(), "http://127.0.0.1:8080");
    assert_eq!(config.listen.admin.unwrap().to_string(), "http://127.0.0.1:9090");
    assert_eq!(config.upstream.base_url, BaseUrl::parse("https://api.cal.com").unwrap());
    assert_eq!((config.entitlements, config.catalog.unknown), (EntitlementMode::Enforce, UnknownEndpoints::Refuse));
    assert!(config.passthrough.is_none() && config.anonymous.consumer.is_none() && config.consumers.is_empty());
    let built_in = ["elevated", "premium", "standard"].map(str::to_owned);
    assert!(config.tiers.keys().eq(&built_in));
}

#[test]
fn addresses_are_tcp_or_unix_and_the_admin_listener_can_be_off() {
    let listen = parse("[listen]\naddress = \"unix:/run/calgate/calgate.sock\"\nadmin = \"off\"").listen;
    assert_eq!(listen.address, Address::Unix("/run/calgate/calgate.sock".into()));
    assert_eq!(listen.admin, None);
    let listen = parse("[listen]\naddress = \"[::1]:0\"").listen;
    assert_eq!(listen.address, Address::Tcp("[::1]:0".parse().unwrap()));
}

#[test]
fn tiers_change_and_add_to_the_built_in_ones() {
    let tiers =
        parse("[tiers.premium]\nrequests_per_minute = 0x190\n[tiers.own]\nrequests_per_minute = 30\nburst = 5\n").tiers;
    let quota = |name: &str| tiers[name].quota;
    assert_eq!(quota("premium"), Quota::per_minute(400, 400));
    assert_eq!(quota("own"), Quota::per_minute(30, 5));
    assert_eq!(quota("standard"), Quota::per_minute(120, 120));
}

#[test]
fn times_have_units() {
    let limits = parse("[limits]\nidle = \"1m 30s\"\nbody = \"250ms\"\nconnection_age = \"168h\"").limits;
    assert_eq!(limits.idle, Duration::from_secs(90));
    assert_eq!(limits.body, Duration::from_millis(250));
    assert_eq!(limits.connection_age, Duration::from_hours(168));
}

#[test]
fn the_address_of_the_upstream_is_parsed() {
    let table = [
        ("https://api.cal.com", (true, "api.cal.com", 443, "api.cal.com", "")),
        ("https://API.Cal.Com:8443/cal/", (true, "api.cal.com", 8443, "api.cal.com:8443", "/cal")),
        ("http://127.0.0.1:3000", (false, "127.0.0.1", 3000, "127.0.0.1:3000", "")),
        ("http://127.9.9.9", (false, "127.9.9.9", 80, "127.9.9.9", "")),
        ("http://localhost", (false, "localhost", 80, "localhost", "")),
        ("http://[::1]:3000", (false, "::1", 3000, "[::1]:3000", "")),
    ];
    for (text, (tls, host, port, authority, path)) in table {
        let url = BaseUrl::parse(text).unwrap();
        assert_eq!((url.tls, &*url.host, url.port, &*url.authority, &*url.path), (tls, host, port, authority, path));
    }
    for plain in
        ["http://128.0.0.1", "http://localhost.example.com", "http://0.0.0.0", "http://[::]", "http://127.1.example"]
    {
        assert!(BaseUrl::parse(plain).is_err(), "{plain}");
    }
    for port in ["", "0", "00", "65536", "99999", "-1", "+80", "x", "8o"] {
        for host in ["127.0.0.1", "[::1]", "api.cal.com"] {
            assert!(BaseUrl::parse(&format!("https://{host}:{port}/cal")).is_err(), "{host}:{port}");
        }
    }
    assert_eq!(BaseUrl::parse("https://[::1]").unwrap().port, 443);
    assert_eq!(BaseUrl::parse("https://[::1]:65535").unwrap().port, 65535);
}

#[test]
fn origins_are_those_that_browsers_send() {
    let read = |origin: &str| {
        Config::parse("calgate.toml", &format!("[listen]\ncors_origins = [\"{origin}\"]\n"))
            .map(|config| config.listen.cors_origins.concat())
    };
    for (text, origin) in [
        ("https://app.example.com", "https://app.example.com"),
        ("HTTPS://App.Example.com", "https://app.example.com"),
        ("https://app.example.com:8443", "https://app.example.com:8443"),
        ("https://app.example.com:80", "https://app.example.com:80"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://127.0.0.1:443", "http://127.0.0.1:443"),
        ("http://[::1]:3000", "http://[::1]:3000"),
        ("http://[0:0:0:0:0:0:0:1]", "http://[::1]"),
        ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example"),
        ("https://a_b.example.", "https://a_b.example."),
    ] {
        assert_eq!(read(text).unwrap(), origin, "{text}");
    }
    for bad in [
        "https://app.example.com:443",
        "http://app.example.com:80",
        "http://[::1]:80",
        "https://app.example.com:",
        "https://app.example.com:0",
        "https://app.example.com:99999",
        "https://app.example.com/",
        "https://app.example.com/a",
        "https://a.b?c",
        "https://a.b#c",
        "https://u@h",
        "https://u:p@h",
        "https://*.example.com",
        "https://a..b",
        "https://",
        "https://127.1",
        "https://256.0.0.1",
        "https://[::ffff:1.2.3.4]",
        "https://bücher.example",
        "ftp://a",
        "app.example.com",
        "null",
        "*",
        "",
    ] {
        assert!(read(bad).is_err(), "{bad}");
    }
}

#[test]
fn the_log_level_is_checked() {
    let read = |level: &str| Config::parse("calgate.toml", &format!("[log]\nlevel = '{level}'\n"));
    for good in [
        "info",
        "OFF",
        "calgate::server=debug",
        "calgate::server",
        "info,calgate::refresh=debug,hyper=warn",
        "info,my-target=debug",
        "[a]=debug",
        "calgate[a{b=1}]=debug,info",
    ] {
        assert_eq!(read(good).unwrap().log.level, good);
    }
    for bad in [
        "",
        "calgate",
        "calgate:debug",
        "calgate:server=debug",
        "calgate:::server=debug",
        "calgate::",
        "::",
        ":",
        ":=debug",
        "=debug",
        "calgate=",
        "calgate=loud",
        "info,",
        "info, debug",
        " debug",
        "info, calgate::refresh",
        "info;debug",
    ] {
        assert!(read(bad).is_err(), "{bad}");
    }
}

#[test]
fn an_own_catalog_replaces_the_built_in_one() {
    let text = "[[endpoint]]\noperation = \"GET /v2/new\"\ntag = \"New\"\ncredential = \"any\"\n";
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("catalog.toml");
    std::fs::write(&file, text).unwrap();
    let own = format!("[catalog]\nfile = \"{}\"\nunknown_endpoints = \"forward\"\n", file.display());
    let config = config(&format!("{own}[plans.new]\nallow = [\"New\"]\n"));
    assert_eq!(config.catalog.custom.unwrap().endpoints().len(), 1);
    assert_eq!(config.catalog.unknown, UnknownEndpoints::Forward);
}
