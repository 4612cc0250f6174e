//! HTTP/2 from clients, with prior knowledge.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::mpsc;

use parking_lot::Mutex;
use reqwest::{Client, Response, Version};

use crate::harness::{
    Gateway, Key, OK, Setup, Upstream, client_builder, connect_with_small_buffer, eventually, patience, time_limit,
};

/// A connection preface (RFC 9113 §3.4) and an empty SETTINGS frame.
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().unwrap()
}

fn client() -> Client {
    client_builder().http2_prior_knowledge().build().unwrap()
}

async fn ask(client: &Client, gateway: &Gateway, path: &str, key: &Key) -> Response {
    let request = client.get(format!("http://{}{path}", gateway.address)).bearer_auth(&key.text);
    request.header("x-cal-secret-key", "mine").header("cookie", "session=mine").send().await.unwrap()
}

#[test]
fn one_connection_carries_many_requests_and_the_same_rules_hold() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let gateway = Setup::to(&upstream.base_url()).billing("teams", &key).start();
    runtime().block_on(async {
        let client = client();
        let answers = futures_util::future::join_all((0..50).map(|_| ask(&client, &gateway, "/v2/me", &key))).await;
        for answer in answers {
            assert_eq!((answer.status().as_u16(), answer.version()), (200, Version::HTTP_2));
            assert_eq!(answer.bytes().await.unwrap().len(), 20);
        }
        let refused = ask(&client, &gateway, "/v2/organizations/1/teams", &key).await;
        assert_eq!(
            (refused.status().as_u16(), &refused.headers()["x-calgate-code"]),
            (403, &"GATEWAY_NOT_ENTITLED".parse().unwrap())
        );
        let posted =
            client.post(format!("http://{}/v2/bookings", gateway.address)).bearer_auth(&key.text).body("{\"a\":1}");
        assert_eq!(posted.send().await.unwrap().status(), 200);
        assert_eq!(gateway.metric("calgate_connections", ""), 1);
    });
    let asked = upstream.requests();
    assert_eq!((asked.len(), asked[50].body.as_slice()), (51, &b"{\"a\":1}"[..]));
    assert!(asked.iter().all(|a| a.headers("x-cal-secret-key").is_empty() && a.headers("cookie").is_empty()));
    assert!(asked.iter().all(|a| a.headers("authorization") == ["Bearer cal_test_0123456789abcdef"]));
}

#[test]
fn a_refusal_of_head_has_no_content() {
    let gateway = Setup::to(&Upstream::start().base_url()).billing("teams", &Key::new()).start();
    runtime().block_on(async {
        let refused = client().head(format!("http://{}/v2/me", gateway.address)).send().await.unwrap();
        assert_eq!(
            (refused.status(), &refused.headers()["x-calgate-code"]),
            (401.try_into().unwrap(), &"GATEWAY_UNAUTHENTICATED".parse().unwrap())
        );
        assert!(refused.headers().contains_key("content-length"), "what GET would have");
        assert!(refused.bytes().await.unwrap().is_empty());
    });
}

#[test]
fn more_fields_than_are_taken_are_refused_with_a_code() {
    let key = Key::new();
    let gateway = Setup::to(&Upstream::start().base_url()).billing("teams", &key).start();
    runtime().block_on(async {
        for (fields, status) in [(90, 200), (101, 431), (1500, 431)] {
            let mut request = client().get(format!("http://{}/v2/me", gateway.address)).bearer_auth(&key.text);
            for field in 0..fields {
                request = request.header(format!("a{field}"), "b");
            }
            let answer = request.send().await.unwrap();
            let code = answer.headers().get("x-calgate-code").map(|code| code.to_str().unwrap());
            assert_eq!(answer.status(), status, "{fields}");
            assert_eq!(code, (status == 431).then_some("GATEWAY_HEAD_TOO_LARGE"), "{fields}");
        }
    });
}

#[test]
fn a_length_that_is_said_twice_goes_on_once_and_two_lengths_go_nowhere() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let gateway = Setup::to(&upstream.base_url()).billing("teams", &key).start();
    runtime().block_on(async {
        for second in ["7", "8"] {
            let request = client().post(format!("http://{}/v2/bookings", gateway.address)).bearer_auth(&key.text);
            let request = request.header("content-length", "7").header("content-length", second);
            let status = request.body("{\"a\":1}").send().await.map(|answer| answer.status().as_u16());
            assert_eq!(status.is_ok_and(|status| status == 200), second == "7", "{second}");
        }
    });
    assert_eq!(upstream.only_request().headers("content-length"), ["7"]);
}

#[test]
fn a_connection_that_asks_nothing_is_let_go() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let limits = format!("[limits]\nfirst_byte = \"{0}\"\nidle = \"{0}\"", time_limit(150));
    let gateway = Setup::to(&upstream.base_url()).with(&limits).billing("teams", &key).start();
    let settings = gateway.connect().send(HELLO).read_to_end();
    assert!(!settings.is_empty(), "the gateway said hello and went away");
}

/// Types and flags of frames (RFC 9113 §6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
const LAST: u8 = 1;

/// SETTINGS with an initial window of 0 (RFC 9113 §6.5.2), and `GET /v2/me` without a key.
const ASK_AND_TAKE_NOTHING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\
    \x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x04\x00\x00\x00\x00\
    \x00\x00\x0d\x01\x05\x00\x00\x00\x01\x82\x86\x01\x01h\x04\x06/v2/me";

#[test]
fn a_refusal_that_nobody_takes_keeps_no_place_from_others() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let limits = "[limits]\nin_flight = 1";
    let gateway = Setup::to(&upstream.base_url()).with(limits).billing("teams", &key).start();
    let mut connection = TcpStream::connect(&gateway.address).unwrap();
    connection.write_all(ASK_AND_TAKE_NOTHING).unwrap();
    while read_frame(&mut connection).0 != HEADERS {}
    assert_eq!(gateway.ask("GET /v2/me", &[&format!("X-Api-Key: {}", key.text)]).status, 200);
}

#[test]
fn a_caller_that_does_not_take_its_answer_is_let_go() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let limits = "[limits]\nupstream_total = \"300ms\"\nhead = \"1s\"";
    let gateway = Setup::to(&upstream.base_url()).with(limits).billing("teams", &key).start();
    let mut connection = gateway.connect();
    connection.send(ASK_AND_TAKE_NOTHING);
    let line = &gateway.access_log(1)[0];
    let ms = |field: &str| line[field].as_f64().unwrap();
    assert!(ms("gateway_ms") < ms("total_ms"), "the caller's own time is not the gateway's: {line}");
    assert!(connection.read_to_end().starts_with(b"\0\0"), "there were frames before the end");
}

/// Returns [`ASK_AND_TAKE_NOTHING`] with a window of one byte. hyper has nothing to do after it has sent that byte.
fn ask_and_take_one_byte() -> Vec<u8> {
    let mut asked = ASK_AND_TAKE_NOTHING.to_vec();
    // The offset skips the preface, the head of a frame, and the first bytes of the setting.
    asked[24 + 9 + 5] = 1;
    asked
}

/// Returns the bytes of one frame.
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(payload.len()).unwrap().to_be_bytes();
    [&[0, high, low, kind, flags, 0, 0, 0, stream][..], payload].concat()
}

/// Reads one frame, and returns its type, its flags and its payload.
fn read_frame(connection: &mut TcpStream) -> (u8, u8, Vec<u8>) {
    let mut head = [0; 9];
    connection.read_exact(&mut head).expect("a frame");
    let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
    connection.read_exact(&mut payload).unwrap();
    (head[3], head[4], payload)
}

/// `GET /v2/me` with a long query, its field block in five frames (RFC 9113 §6.10, RFC 7541 §6.2.2).
fn ask_in_pieces(stream: u8, query: &str, key: &Key) -> Vec<u8> {
    let path = format!("/v2/me?q={query}");
    let beyond = u16::try_from(path.len() - 127).unwrap();
    let length = [0x7f, u8::try_from(beyond % 128).unwrap() | 0x80, u8::try_from(beyond / 128).unwrap()];
    let own = [&b"\x00\x09x-api-key"[..], &[u8::try_from(key.text.len()).unwrap()], key.text.as_bytes()].concat();
    let block = [&b"\x82\x86\x01\x01h\x04"[..], &length, path.as_bytes(), &own].concat();
    let pieces: Vec<_> = block.chunks(block.len().div_ceil(5)).collect();
    let frames = pieces.iter().enumerate().map(|(n, piece)| match n {
        0 => frame(HEADERS, LAST, stream, piece),
        _ => frame(CONTINUATION, if n + 1 == pieces.len() { END_HEADERS } else { 0 }, stream, piece),
    });
    frames.collect::<Vec<_>>().concat()
}

#[test]
fn a_field_block_that_comes_in_pieces_is_whole_and_the_next_one_too() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let gateway = Setup::to(&upstream.base_url()).workers(1).billing("unrestricted", &key).start();
    for (round, size) in [1, 700, 2048, 5000, 20_000].into_iter().enumerate() {
        let queries: Vec<String> = (0..3).map(|n| format!("{round}{n}").repeat(3000)).collect();
        let mut connection = TcpStream::connect(&gateway.address).unwrap();
        connection.set_read_timeout(Some(patience())).unwrap();
        connection.set_nodelay(true).unwrap();
        let asked = [1, 3, 5].iter().zip(&queries).flat_map(|(stream, query)| ask_in_pieces(*stream, query, &key));
        for piece in [HELLO.to_vec(), asked.collect()].concat().chunks(size) {
            connection.write_all(piece).unwrap();
        }
        for _ in &queries {
            while read_frame(&mut connection).0 != HEADERS {}
        }
        let targets: Vec<_> =
            upstream.requests().iter().skip(3 * round).map(|asked| asked.target().to_owned()).collect();
        for query in queries {
            assert!(targets.contains(&format!("/v2/me?q={query}")), "in pieces of {size}");
        }
    }
}

#[test]
fn the_drain_waits_for_what_a_caller_makes_room_for() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let mut gateway = Setup::to(&upstream.base_url()).workers(1).billing("teams", &key).start();
    let mut caller = TcpStream::connect(&gateway.address).unwrap();
    caller.set_read_timeout(Some(patience())).unwrap();
    caller.write_all(&ask_and_take_one_byte()).unwrap();
    let mut body = loop {
        let (kind, _, payload) = read_frame(&mut caller);
        if kind == DATA {
            break payload;
        }
    };
    assert_eq!(body.len(), 1, "there is no room for more");
    let mut silent = gateway.connect();
    gateway.signal("-TERM");
    gateway.wait_for_log("draining");
    assert!(silent.is_closed(), "one that asked nothing is given up");

    caller.write_all(&frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0xff, 0xff])).unwrap();
    loop {
        let (kind, flags, payload) = read_frame(&mut caller);
        if kind == DATA {
            body.extend(&payload);
            if flags & LAST == LAST {
                break;
            }
        }
        if kind == PING && flags == 0 {
            caller.write_all(&frame(PING, LAST, 0, &payload)).unwrap();
        }
    }
    let refusal: serde_json::Value = serde_json::from_slice(&body).expect("the whole answer");
    assert_eq!(refusal["error"]["code"], "GATEWAY_UNAUTHENTICATED");
    drop(caller);
    assert_eq!(gateway.wait_for_exit(), Some(0));
}

#[test]
fn a_connection_that_ends_leaves_nothing_behind_that_was_written() {
    let length = 1_000_000;
    let (release, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let upstream = Upstream::answering(move |_| {
        let _ = held.lock().recv();
        let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").into_bytes();
        answer.resize(answer.len() + length, b'x');
        answer
    });
    let key = Key::new();
    let mut gateway = Setup::to(&upstream.base_url()).workers(1).billing("teams", &key).start();
    let mut caller = connect_with_small_buffer(&gateway.address);
    let mut fields = b"\x82\x86\x01\x01h\x04\x06/v2/me\x00\x09x-api-key".to_vec();
    fields.push(key.text.len().try_into().unwrap());
    fields.extend(key.text.as_bytes());
    let mut asked = HELLO[..24].to_vec();
    asked.extend(frame(SETTINGS, 0, 0, b"\x00\x04\x7f\xff\xff\xff"));
    asked.extend(frame(WINDOW_UPDATE, 0, 0, b"\x7f\x00\x00\x00"));
    asked.extend(frame(HEADERS, LAST | 4, 1, &fields));
    caller.write_all(&asked).unwrap();
    eventually("a request in flight", || (upstream.requests().len() == 1).then_some(()));
    gateway.signal("-TERM");
    let goes_away = loop {
        let (kind, flags, payload) = read_frame(&mut caller);
        if kind == PING && flags == 0 {
            break payload;
        }
    };
    caller.write_all(&frame(PING, LAST, 0, &goes_away)).unwrap();
    release.send(()).unwrap();
    eventually("the whole answer is written", || (gateway.metric("calgate_requests_in_flight", "") == 0).then_some(()));
    let mut taken = 0;
    while taken < length {
        let (kind, _, payload) = read_frame(&mut caller);
        if kind == DATA {
            taken += payload.len();
            caller.write_all(&frame(WINDOW_UPDATE, 0, 0, b"\x00\x00\x00\x01")).unwrap();
        }
    }
    drop(caller);
    assert_eq!(gateway.wait_for_exit(), Some(0));
}

#[test]
fn a_caller_that_takes_only_a_part_is_let_go() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let limits = "[limits]\nupstream_total = \"1s\"\nidle = \"1h\"";
    let gateway = Setup::to(&upstream.base_url()).with(limits).billing("teams", &key).start();
    let mut caller = gateway.connect();
    caller.send(ask_and_take_one_byte());
    eventually("a connection", || (gateway.access_log(1).len() == 1).then_some(()));
    eventually("none", || (gateway.metric("calgate_connections", "") == 0).then_some(()));
}

#[test]
fn the_drain_finishes_what_is_in_flight() {
    let (release, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let upstream = Upstream::answering(move |_| {
        let _ = held.lock().recv();
        OK.into()
    });
    let key = Key::new();
    let mut gateway = Setup::to(&upstream.base_url()).billing("teams", &key).start();
    std::thread::scope(|scope| {
        let answer =
            scope.spawn(|| runtime().block_on(async { ask(&client(), &gateway, "/v2/me", &key).await.status() }));
        eventually("a request in flight", || (upstream.requests().len() == 1).then_some(()));
        gateway.signal("-TERM");
        gateway.wait_for_log("draining");
        release.send(()).unwrap();
        assert_eq!(answer.join().unwrap(), 200);
    });
    assert_eq!(gateway.wait_for_exit(), Some(0));
}
