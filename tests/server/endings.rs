//! Ends of connections: after a request was read, the client always receives a response.

use crate::harness::{Key, Setup, Upstream};

#[test]
fn a_response_that_breaks_off_at_once_is_not_taken_for_no_response() {
    let broken = [
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnot a chunk\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
        "HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
    ];
    for response in broken {
        let (upstream, key) = (Upstream::answering(|_| response.into()), Key::new());
        // An open connection ends soon.
        let gateway =
            Setup::to(&upstream.base_url()).with("[limits]\nidle = \"1s\"").billing("unrestricted", &key).start();
        let mut client = gateway.connect();
        let own = format!("Host: h\r\nX-Api-Key: {}", key.text);
        client.send(format!("POST /v2/bookings HTTP/1.1\r\n{own}\r\nContent-Length: 2\r\n\r\n{{}}"));
        assert!(client.read_to_end().starts_with(b"HTTP/1.1 "), "{response:?}");
        assert_eq!(upstream.requests().len(), 1, "{response:?}");
    }
}
