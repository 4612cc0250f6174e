//! Upstreams that answer before they have read the request body, and close the connection.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};

use crate::harness::{Key, Setup, find};

/// Answers each request after its head and a part of its body, and closes with the rest unread, which resets the connection.
fn refusing() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || listener.incoming().for_each(|stream| refuse(&mut stream.unwrap())));
    address
}

fn refuse(stream: &mut TcpStream) {
    let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
    while find(&bytes, b"\r\n\r\n").is_none() {
        match stream.read(&mut piece) {
            Ok(read @ 1..) => bytes.extend_from_slice(&piece[..read]),
            _ => return,
        }
    }
    let head = "HTTP/1.1 413 Payload Too Large\r\nContent-Type: application/json\r\nContent-Length: 18\r\n";
    let _ = stream.write_all(format!("{head}Connection: close\r\n\r\n{{\"statusCode\":413}}").as_bytes());
    let _ = stream.shutdown(Shutdown::Write);
}

#[test]
fn an_early_response_to_an_upload_is_read_although_the_upload_fails() {
    let (upstream, key) = (refusing(), Key::new());
    let gateway =
        Setup::to(&format!("http://{upstream}")).with("[budget]\nmode = \"off\"").billing("teams", &key).start();
    let body = "x".repeat(240_000);
    for round in 0..60 {
        let headers = [format!("X-Api-Key: {}", key.text)];
        let answer = gateway.connect().ask_with("POST /v2/bookings", &[&headers[0]], &body);
        assert_eq!((answer.status, answer.text().as_str()), (413, "{\"statusCode\":413}"), "round {round}");
    }
}
