//! Responses of Cal.com that break off, and parts of a response that calgate never passes on.

use crate::harness::frame_upstream::go_away_with_text;
use crate::harness::{FrameUpstream, Gateway, Key, Response, Setup, UPSTREAM_KEY, Upstream};

fn asked(method: &str, response: impl Into<Vec<u8>>) -> (Response, Gateway) {
    let (response, key) = (response.into(), Key::new());
    let upstream = Upstream::answering(move |_| response.clone());
    let gateway =
        Setup::to(&upstream.base_url()).with("[limits]\nupstream_total = \"400ms\"").billing("teams", &key).start();
    let answer = gateway.ask(&format!("{method} /v2/bookings"), &[&format!("Authorization: Bearer {}", key.text)]);
    (answer, gateway)
}

#[test]
fn a_response_that_ends_before_its_body_is_a_502_with_sent_true() {
    let error = "HTTP/1.1 422 Unprocessable Entity\r\nContent-Type: application/json\r\n";
    let success = "HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (status, response) in [
        (422, format!("{error}Content-Length: 90\r\n\r\n{{\"status\":")),
        (422, format!("{error}Transfer-Encoding: chunked\r\n\r\n5\r\n{{\"sta\r\nno size\r\n")),
        (503, "HTTP/1.1 503 Unavailable\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".to_owned()),
        (201, format!("{success}no size\r\n{{}}")),
        (201, format!("{success}ffffffffffffffffff\r\n{{}}")),
    ] {
        for method in ["GET", "POST"] {
            let (answer, gateway) = asked(method, response.as_bytes());
            assert_eq!((answer.status, answer.code()), (502, Some("GATEWAY_UPSTREAM_BROKEN")), "{method} {response:?}");
            let text = answer.text();
            assert!(text.contains(&status.to_string()) && text.contains("was sent"), "{method} {response:?}: {text}");
            let line = &gateway.access_log(1)[0];
            assert!(line["detail"].as_str().unwrap().starts_with(&format!("status {status}: ")), "{line}");
        }
    }
}

#[test]
fn a_response_to_head_with_two_lengths_is_a_502() {
    for lengths in ["Content-Length: 2\r\nContent-Length: 3", "Content-Length: 2, 3", "Content-Length: +2"] {
        let (answer, _gateway) = asked("HEAD", format!("HTTP/1.1 200 OK\r\n{lengths}\r\n\r\n"));
        assert_eq!((answer.status, answer.code()), (502, Some("GATEWAY_UPSTREAM_INVALID")), "{lengths}");
    }
    let (answer, _gateway) = asked("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n");
    assert_eq!((answer.status, answer.header("content-length")), (200, Some("2")));
}

#[test]
fn a_body_that_comes_with_its_head_arrives_unchanged() {
    for (response, body) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ""),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", ""),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n", "abcde"),
        ("HTTP/1.1 404 Not Found\r\nContent-Type: image/png\r\nContent-Length: 3\r\n\r\nabc", "abc"),
    ] {
        let (answer, _gateway) = asked("GET", response);
        assert_eq!(answer.text(), body, "{response:?}");
    }
}

#[test]
fn the_gateway_drops_the_reason_phrase() {
    for status in ["200", "422"] {
        let (answer, _gateway) =
            asked("GET", format!("HTTP/1.1 {status} key {UPSTREAM_KEY}\r\nContent-Length: 2\r\n\r\n{{}}"));
        assert_eq!(answer.status.to_string(), status);
        assert!(!answer.head.contains(UPSTREAM_KEY) && !answer.head.contains(" key "), "{}", answer.head);
    }
}

#[test]
fn the_text_of_a_goaway_frame_is_not_logged() {
    let (upstream, key) =
        (FrameUpstream::answering(|_, _| go_away_with_text(0, 11, &format!("{UPSTREAM_KEY}\n{{}}"))), Key::new());
    let gateway = Setup::to(&upstream.base_url()).with(&upstream.ca_file()).billing("teams", &key).start();
    let head = [&*format!("Authorization: Bearer {}", key.text), "Content-Type: text/plain"];
    let answer = gateway.connect().ask_with("POST /v2/bookings", &head, "x");
    assert_eq!(answer.status, 502, "{}", answer.text());
    let line = gateway.access_log(1)[0].to_string();
    assert!(line.contains("HTTP/2 GOAWAY, code 11"), "{line}");
    assert!(!line.contains(UPSTREAM_KEY) && !gateway.log().join("\n").contains(UPSTREAM_KEY), "{line}");
}
