//! Rate limits of the edge in front of Cal.com, and times in responses, tested through the program.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::harness::{Gateway, Key, OK, Response, Setup, Upstream};

fn response(status: &str, fields: &[&str], body: &[u8]) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n", body.len());
    for field in fields {
        head += field;
        head += "\r\n";
    }
    [head.as_bytes(), b"\r\n", body].concat()
}

/// Starts a gateway in front of an upstream that sends `response` if the query is `no`, and 200 otherwise.
fn refusing(response: Vec<u8>) -> (Upstream, Gateway, Key) {
    let answer = move |asked: &crate::harness::ReceivedRequest| {
        if asked.target().contains("no") { response.clone() } else { OK.into() }
    };
    let (upstream, key) = (Upstream::answering(answer), Key::new());
    let gateway = Setup::to(&upstream.base_url()).billing("teams", &key).start();
    (upstream, gateway, key)
}

fn ask(gateway: &Gateway, key: &Key, query: &str) -> Response {
    gateway.ask(&format!("GET /v2/me{query}"), &[&format!("X-Api-Key: {}", key.text)])
}

#[test]
fn a_403_page_of_the_edge_is_about_the_request_that_it_refuses() {
    for kind in ["Text/HTML; charset=UTF-8", "text/plain", "application/xml"] {
        let page =
            response("403 Forbidden", &[&format!("Content-Type: {kind}"), "Retry-After: 30"], b"error code: 1020");
        let (upstream, gateway, key) = refusing(page);
        for _ in 0..3 {
            let refused = ask(&gateway, &key, "?no");
            assert_eq!((refused.status, refused.code(), refused.text()), (403, None, "error code: 1020".to_owned()));
            assert_eq!(ask(&gateway, &key, "").status, 200, "nobody else is held");
        }
        assert_eq!(upstream.requests().len(), 6);
        assert!(!gateway.log().iter().any(|line| line.contains("refused a request")));
    }
}

#[test]
fn a_page_that_reports_rate_limiting_blocks_whatever_its_status_is() {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(b"<h1>Error <span>1015</span></h1>").unwrap();
    let gzip = gzip.finish().unwrap();
    let pages = [
        response("403 Forbidden", &["Content-Type: text/plain", "Retry-After: 30"], b"error code: 1015"),
        response(
            "503 Service Unavailable",
            &["Content-Type: text/html", "Content-Encoding: gzip", "Retry-After: 30"],
            &gzip,
        ),
    ];
    for page in pages {
        let (upstream, gateway, key) = refusing(page);
        let refused = ask(&gateway, &key, "?no");
        assert!(matches!(refused.status, 403 | 503) && refused.code().is_none() && !refused.body.is_empty());
        let held = ask(&gateway, &key, "");
        assert_eq!((held.status, held.code()), (429, Some("GATEWAY_UPSTREAM_BUDGET")));
        let seconds: u64 = held.header("retry-after").unwrap().parse().unwrap();
        assert!((20..=30).contains(&seconds), "{seconds}");
        assert_eq!(upstream.requests().len(), 1);
        assert!(gateway.wait_for_log("refused a request").contains(r#""by":"edge""#));
    }
}

#[test]
fn a_retry_after_is_read_as_seconds_or_a_date_and_only_trusted_for_a_few_windows() {
    let json = "Content-Type: Application/JSON; charset=utf-8";
    let date = "Date: Mon, 30 Nov 2020 10:00:00 GMT";
    for (after, least, most) in [
        ("Retry-After: 30", 25, 32),
        ("Retry-After: Mon, 30 Nov 2020 10:00:30 GMT", 25, 32),
        // Not plausible: one window.
        ("Retry-After: 86400", 55, 62),
        ("Retry-After: Tue, 01 Dec 2020 10:00:00 GMT", 55, 62),
    ] {
        let (_upstream, gateway, key) = refusing(response("429 Too Many Requests", &[json, date, after], b"{}"));
        let refused = ask(&gateway, &key, "?no");
        assert_eq!((refused.status, refused.code()), (429, Some("GATEWAY_UPSTREAM_BUDGET")));
        let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
        assert!((least..=most).contains(&seconds), "{after}: {seconds}");
        assert!(
            gateway.wait_for_log("refused a request").contains(r#""by":"refused""#),
            "Cal.com's own, whatever the case"
        );
        if least > 30 {
            let ignored = gateway.wait_for_log("ignoring a time from upstream");
            assert!(
                ignored.contains(r#""field":"retry-after""#) && ignored.contains(r#""seconds":86400"#),
                "{ignored}"
            );
        }
    }
}

#[test]
fn a_reset_in_milliseconds_or_of_a_day_blocks_for_no_longer_than_a_window() {
    let limits = ["X-RateLimit-Limit-Default: 120", "X-RateLimit-Remaining-Default: 0"];
    for (reset, least, most) in [("40000", 35, 42), ("86400", 55, 62), ("1606730440000", 35, 42)] {
        let reset = format!("X-RateLimit-Reset-Default: {reset}");
        let fields =
            ["Content-Type: application/json", "Date: Mon, 30 Nov 2020 10:00:00 GMT", limits[0], limits[1], &reset];
        let (_upstream, gateway, key) = refusing(response("429 Too Many Requests", &fields, b"{}"));
        let refused = ask(&gateway, &key, "?no");
        let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
        assert!((least..=most).contains(&seconds), "{reset}: {seconds}");
    }
}

/// Of a window of 16 requests, two of the last four are this gateway's share, because it is one of two. Cal.com may have counted
/// the request that a proxy answered.
#[test]
fn a_502_without_limits_counts_as_one_of_the_last_requests_of_a_window() {
    let reports = |left: u32| {
        let fields = format!(
            "X-RateLimit-Limit-Default: 16\r\nX-RateLimit-Remaining-Default: {left}\r\nX-RateLimit-Reset-Default: 60\r\n"
        );
        format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 2\r\n\r\n{{}}").into_bytes()
    };
    let answer = move |asked: &crate::harness::ReceivedRequest| match asked.target() {
        target if target.contains("first") => reports(15),
        target if target.contains("late") => reports(3),
        _ => response("502 Bad Gateway", &["Content-Type: text/html"], b"<h1>502</h1>"),
    };
    let (upstream, key) = (Upstream::answering(answer), Key::new());
    let setup = Setup::to(&upstream.base_url()).billing("teams", &key).with("[budget]\nexpected_replicas = 2");
    let gateway = setup.start();
    for (query, status) in [("?first", 200), ("?late", 200), ("?broken", 502)] {
        assert_eq!(ask(&gateway, &key, query).status, status, "{query}");
    }
    let own_key = format!("X-Api-Key: {}", key.text);
    let fields = [own_key.as_str(), "X-Calgate-Max-Wait: 0s"];
    let held = gateway.ask("GET /v2/me?late", &fields);
    assert_eq!((held.status, held.code()), (429, Some("GATEWAY_UPSTREAM_BUDGET")));
    assert_eq!(upstream.requests().len(), 3);
}
