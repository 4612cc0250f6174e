//! HTTP proxy whose tunnels (CONNECT, RFC 9110 §9.3.6) all lead to one address, or that refuses them.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use parking_lot::Mutex;

use super::patience;

/// A listening proxy.
pub struct ConnectProxy {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

impl ConnectProxy {
    /// Starts a proxy whose tunnels lead to `target`.
    pub fn to(target: SocketAddr) -> Self {
        Self::answering(target, "200 Connection established")
    }

    /// Starts a proxy that answers CONNECT with this status.
    pub fn answering(target: SocketAddr, status: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests: Arc<Mutex<Vec<String>>> = Arc::default();
        let log = requests.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let log = log.clone();
                std::thread::spawn(move || serve(client, target, status, &log));
            }
        });
        Self { address, requests }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the heads of the requests so far.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().clone()
    }
}

fn serve(mut client: TcpStream, target: SocketAddr, status: &str, log: &Mutex<Vec<String>>) {
    client.set_read_timeout(Some(patience())).unwrap();
    let (mut head, mut byte) = (String::new(), [0]);
    while !head.ends_with("\r\n\r\n") {
        let Ok(1) = client.read(&mut byte) else { return };
        head.push(byte[0].into());
    }
    log.lock().push(head);
    let length = if status.starts_with('2') { "" } else { "Content-Length: 0\r\n" };
    let _ = client.write_all(format!("HTTP/1.1 {status}\r\n{length}\r\n").as_bytes());
    if !status.starts_with('2') {
        return;
    }
    client.set_read_timeout(None).unwrap();
    let server = TcpStream::connect(target).unwrap();
    for (mut from, mut to) in
        [(&client, &server), (&server, &client)].map(|(a, b)| (a.try_clone().unwrap(), b.try_clone().unwrap()))
    {
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(std::net::Shutdown::Both);
        });
    }
}
