//! Tests of requests without a key. They act as the anonymous consumer only if no foreign web page can have sent them.

use std::os::unix::net::UnixStream;

use crate::harness::{Gateway, Key, RawConnection, Response, Setup, Upstream, client_builder};

fn keyless(upstream: &Upstream, key: &Key, listen: &str) -> Setup {
    let setup = Setup::to(&upstream.base_url()).listen(&format!("address = \"127.0.0.1:0\"\n{listen}"));
    setup.billing("teams", key).with("[anonymous]\nconsumer = \"billing\"")
}

/// Sends a request with only these lines.
fn bare(gateway: &Gateway, request: &str, lines: &[&str]) -> Response {
    let lines: String = lines.iter().flat_map(|line| [line, "\r\n"]).collect();
    gateway.connect().send(format!("{request} HTTP/1.1\r\n{lines}\r\n")).read_response()
}

#[test]
fn accepts_a_loopback_name_the_listen_address_or_a_listed_host() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let gateway = keyless(&upstream, &key, "hosts = [\"calgate\", \"10.0.0.7\"]").start();
    let ask = |host: &str| bare(&gateway, "GET /v2/me", &[&format!("Host: {host}")]);
    for host in
        ["localhost", "app.localhost:3000", "127.0.0.1", "[::1]:80", &gateway.address, "calgate:8080", "10.0.0.7"]
    {
        assert_eq!(ask(host).status, 200, "{host}");
    }
    let good = upstream.requests().len();
    for host in ["evil.example", "localhost.evil.example:8080", "10.0.0.8", "0.0.0.0", "user@localhost"] {
        let answer = ask(host);
        assert_eq!((answer.status, answer.code()), (421, Some("GATEWAY_HOST_NOT_ALLOWED")), "{host}");
    }
    let rebound = "Host: evil.example";
    assert_eq!(bare(&gateway, "GET /v2/me", &[rebound, "Authorization: Bearer placeholder"]).status, 421);
    assert_eq!(bare(&gateway, "POST /v2/bookings", &[rebound, "Content-Length: 0"]).status, 421);
    assert_eq!(upstream.requests().len(), good, "nothing went upstream");
    let detail = gateway.access_log(good + 1)[good]["detail"].clone();
    assert_eq!(detail, "\"evil.example\" is not in listen.hosts");
    let with_key = format!("X-Api-Key: {}", key.text);
    assert_eq!(bare(&gateway, "GET /v2/me", &[rebound, &with_key]).status, 200, "a key is its own authority");
    let answer = gateway.connect().send("GET /v2/me HTTP/1.0\r\n\r\n").read_response();
    assert_eq!(answer.status, 200, "no browser leaves Host out");
}

#[test]
fn uses_the_authority_as_host_in_http2() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let gateway = keyless(&upstream, &key, "hosts = [\"calgate\"]").start();
    let address = gateway.address.parse().unwrap();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let client = client_builder().http2_prior_knowledge();
        let client = ["evil.example", "calgate", "a.localhost"].iter().fold(client, |c, name| c.resolve(name, address));
        let client = client.build().unwrap();
        for (host, expected) in [("evil.example", 421), ("calgate", 200), ("a.localhost", 200), ("127.0.0.1", 200)] {
            let url = format!("http://{host}:{}/v2/me", address.port());
            assert_eq!(client.get(url).send().await.unwrap().status(), expected, "{host}");
        }
    });
}

#[test]
fn rejects_requests_of_foreign_web_pages() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let gateway = keyless(&upstream, &key, "cors_origins = [\"https://app.example.com\"]").start();
    let (own, form) =
        (format!("Origin: http://{}", gateway.address), "Content-Type: application/x-www-form-urlencoded");
    let host = format!("Host: {}", gateway.address);
    let ask =
        |request: &str, lines: &[&str]| bare(&gateway, request, &[&[&*host, "Content-Length: 0"], lines].concat());
    let good: [&[&str]; 7] = [
        &[],
        &[&own],
        &["Sec-Fetch-Site: same-origin"],
        &["Sec-Fetch-Site: none"],
        &["Sec-Fetch-Site: same-origin", "Origin: https://behind.tls.example"],
        &["Origin: https://app.example.com"],
        &["Origin: https://app.example.com", "Sec-Fetch-Site: cross-site"],
    ];
    for lines in good {
        assert_eq!(ask("POST /v2/bookings", lines).status, 200, "{lines:?}");
    }
    let bad: [&[&str]; 10] = [
        &["Origin: https://evil.example", "Sec-Fetch-Site: cross-site", form],
        &["Origin: https://evil.example", form],
        &["Origin: null", form],
        &["Origin: http://localhost:1"],
        &["Origin:"],
        &["Sec-Fetch-Site: cross-site"],
        &["Sec-Fetch-Site: same-site", "Origin: http://localhost:3000"],
        &["Sec-Fetch-Site: same-origin", "Sec-Fetch-Site: cross-site"],
        &["Origin: https://app.example.com", "Origin: https://evil.example"],
        &["Origin: https://app.example.com.evil.example"],
    ];
    for lines in bad {
        for request in ["POST /v2/bookings", "GET /v2/me"] {
            let answer = ask(request, lines);
            assert_eq!((answer.status, answer.code()), (403, Some("GATEWAY_ORIGIN_NOT_ALLOWED")), "{lines:?}");
        }
    }
    assert_eq!(upstream.requests().len(), good.len(), "nothing of the others went upstream");
    let with_key = format!("X-Api-Key: {}", key.text);
    assert_eq!(ask("GET /v2/me", &[bad[0][0], &with_key]).status, 200, "no page has the key");
}

#[test]
fn allows_any_host_to_public_and_passthrough_callers() {
    let upstream = Upstream::start();
    let passthrough = "[passthrough]\nenabled = true\nplan = \"teams\"";
    let gateway = Setup::to(&upstream.base_url()).with(passthrough).start();
    let foreign = ["Host: calgate.example", "Origin: https://page.example"];
    assert_eq!(bare(&gateway, "GET /v2/slots", &foreign).status, 200);
    let own = [foreign[0], foreign[1], "Authorization: Bearer cal_0123456789"];
    assert_eq!(bare(&gateway, "GET /v2/me", &own).status, 200);
}

#[test]
fn a_unix_socket_accepts_any_host_but_no_foreign_page() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("calgate.sock");
    let listen = format!("address = \"unix:{}\"", path.display());
    let anonymous = "[anonymous]\nconsumer = \"billing\"";
    let setup = Setup::to(&upstream.base_url()).listen(&listen).billing("teams", &key).with(anonymous);
    let _gateway = setup.start();
    let status = |lines: &str| {
        let mut stream = UnixStream::connect(&path).unwrap();
        let request = format!("GET /v2/me HTTP/1.1\r\nConnection: close\r\n{lines}\r\n\r\n");
        std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
        let mut answer = String::new();
        std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
        answer[9..12].to_owned()
    };
    assert_eq!(status("Host: any.name"), "200");
    assert_eq!(status("Host: any.name\r\nOrigin: https://evil.example"), "403");
}

#[test]
fn the_admin_listener_checks_host_too() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let gateway = keyless(&upstream, &key, "hosts = [\"calgate-admin\"]").start();
    let ask = |request: &str, host: &str| {
        let request = format!("{request} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n");
        RawConnection::connect(gateway.admin).send(request).read_response()
    };
    for host in ["localhost", "127.0.0.1:9090", &gateway.admin.to_string(), "calgate-admin:9090"] {
        for path in ["/livez", "/readyz", "/metrics"] {
            assert_eq!(ask(&format!("GET {path}"), host).status, 200, "{path} by {host}");
        }
    }
    for request in ["GET /livez", "GET /readyz", "GET /metrics", "POST /explain", "GET /nothing"] {
        let answer = ask(request, "evil.example");
        assert_eq!(answer.status, 421, "{request}");
        assert!(answer.text().contains("listen.hosts"), "{}", answer.text());
    }
    gateway.reload(|text| text.replace("calgate-admin", "renamed"));
    assert_eq!((ask("GET /livez", "calgate-admin").status, ask("GET /livez", "renamed").status), (421, 200));
}
