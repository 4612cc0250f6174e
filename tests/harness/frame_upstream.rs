//! HTTP/2 upstream over TLS that sends single frames, so that a test can violate the protocol.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::cal_sim::certificates::make;

/// Returns the frames to send after a frame of a request: connection, stream, and number of the frame in the request.
type Script = dyn Fn(usize, u32, usize) -> Vec<u8> + Send + Sync;

/// Limits of a [`FrameUpstream`].
#[derive(Clone, Copy)]
pub struct Limits {
    /// The value of `SETTINGS_MAX_CONCURRENT_STREAMS`, if it sends this setting.
    pub streams: Option<u32>,
    /// Number of connections that it serves. It accepts further connections and sends nothing on them.
    pub connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { streams: None, connections: usize::MAX }
    }
}

/// Upstream whose frames a script decides.
pub struct FrameUpstream {
    address: SocketAddr,
    authority: tempfile::NamedTempFile,
    requests: Arc<Mutex<Vec<(usize, u32)>>>,
}

impl FrameUpstream {
    /// Calls `script` for the head of each request, with the number of the connection (from 0) and of the stream (odd, from 1).
    pub fn answering(script: impl Fn(usize, u32) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::answering_frames(
            move |connection, stream, frame| if frame == 0 { script(connection, stream) } else { Vec::new() },
        )
    }

    /// Calls `script` for each frame of a request, also with the number of the frame: 0 for the head, then 1, 2, … for the body.
    pub fn answering_frames(script: impl Fn(usize, u32, usize) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::with_limits(Limits::default(), script)
    }

    /// Does the same with other limits.
    pub fn with_limits(limits: Limits, script: impl Fn(usize, u32, usize) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let (tls, pem) = make(Ipv4Addr::LOCALHOST.into()).unwrap();
        let mut authority = tempfile::NamedTempFile::new().unwrap();
        authority.write_all(pem.as_bytes()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, requests) = (listener.local_addr().unwrap(), Arc::default());
        let (seen, script): (Arc<Mutex<Vec<_>>>, Arc<Script>) = (Arc::clone(&requests), Arc::new(script));
        std::thread::spawn(move || {
            let mut silent = Vec::new();
            for (number, stream) in listener.incoming().enumerate() {
                let (tls, seen, script) = (tls.clone(), seen.clone(), script.clone());
                let stream = stream.unwrap();
                if number >= limits.connections {
                    // Keeps the connection open.
                    silent.push(stream);
                    continue;
                }
                let settings = limits.streams.map(|streams| [&[0, 3], &streams.to_be_bytes()[..]].concat());
                std::thread::spawn(move || {
                    serve(number, stream, &tls, &settings.unwrap_or_default(), &seen, &*script);
                });
            }
        });
        Self { address, authority, requests }
    }

    pub fn base_url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Returns the `ca_file` line of `[upstream]`, with which a gateway trusts this server.
    pub fn ca_file(&self) -> String {
        format!("ca_file = \"{}\"", self.authority.path().display())
    }

    /// Returns the connection and stream of each request so far.
    pub fn requests(&self) -> Vec<(usize, u32)> {
        self.requests.lock().clone()
    }
}

fn serve(
    number: usize,
    stream: TcpStream,
    tls: &Arc<ServerConfig>,
    settings: &[u8],
    seen: &Mutex<Vec<(usize, u32)>>,
    script: &Script,
) {
    let mut stream = StreamOwned::new(ServerConnection::new(tls.clone()).unwrap(), stream);
    let mut preface = [0; 24];
    let _ = stream.read_exact(&mut preface);
    let _ = stream.write_all(&frame(SETTINGS, 0, 0, settings));
    let (mut head, mut pieces) = ([0; 9], HashMap::new());
    // Ends when the gateway closes the connection.
    while stream.read_exact(&mut head).is_ok() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        stream.read_exact(&mut payload).unwrap();
        let on = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let reply = match (head[3], head[4]) {
            (HEADERS, _) => {
                seen.lock().push((number, on));
                script(number, on, 0)
            }
            (DATA, _) => {
                let piece = pieces.entry(on).or_default();
                *piece += 1;
                script(number, on, *piece)
            }
            (SETTINGS, 0) => frame(SETTINGS, 1, 0, &[]),
            (PING, 0) => frame(PING, 1, 0, &payload),
            _ => Vec::new(),
        };
        let _ = stream.write_all(&reply).and_then(|()| stream.flush());
    }
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;

/// Returns a frame (RFC 9113 §4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Returns a 200 response with this body. 0x88 is `:status: 200` (RFC 7541 appendix A).
pub fn ok(stream: u32, body: &[u8]) -> Vec<u8> {
    [frame(HEADERS, 4, stream, &[0x88]), frame(DATA, 1, stream, body)].concat()
}

/// Returns a `RST_STREAM` frame with an error code (RFC 9113 §6.4, §7).
pub fn reset(stream: u32, reason: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &reason.to_be_bytes())
}

/// Returns a GOAWAY frame: the server did not process streams after `last` (RFC 9113 §6.8).
pub fn go_away(last: u32, reason: u32) -> Vec<u8> {
    frame(GOAWAY, 0, 0, &[last.to_be_bytes(), reason.to_be_bytes()].concat())
}

/// Returns a GOAWAY frame with debug data (RFC 9113 §6.8).
pub fn go_away_with_text(last: u32, code: u32, text: &str) -> Vec<u8> {
    frame(GOAWAY, 0, 0, &[&last.to_be_bytes(), &code.to_be_bytes(), text.as_bytes()].concat())
}
