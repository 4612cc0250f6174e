//! An upstream that speaks HTTP/2 over TLS, frame by frame: for what no well-behaved server does when it is asked to.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::cal_sim::certificates::make;

/// What is answered to a frame of a request: frames.
type Script = dyn Fn(usize, u32, usize) -> Vec<u8> + Send + Sync;

/// How an [`FrameUpstream`] takes connections and requests.
#[derive(Clone, Copy)]
pub struct Rules {
    /// `SETTINGS_MAX_CONCURRENT_STREAMS`, if it sends that.
    pub streams: Option<u32>,
    /// How many connections it speaks on; it accepts more, and is silent on them.
    pub connections: usize,
}

impl Default for Rules {
    fn default() -> Self {
        Self { streams: None, connections: usize::MAX }
    }
}

/// One that answers as it is told.
pub struct FrameUpstream {
    address: SocketAddr,
    authority: tempfile::NamedTempFile,
    asked: Arc<Mutex<Vec<(usize, u32)>>>,
}

impl FrameUpstream {
    /// `script` is told the number of a connection, from 0, and that of a stream on it, from 1 and odd, for each head.
    pub fn answering(script: impl Fn(usize, u32) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::answering_frames(
            move |connection, stream, frame| if frame == 0 { script(connection, stream) } else { Vec::new() },
        )
    }

    /// `script` is told the number of a frame, too: 0 for a head, and then that of each piece of its body.
    pub fn answering_frames(script: impl Fn(usize, u32, usize) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::by(Rules::default(), script)
    }

    /// The same, by other rules.
    pub fn by(rules: Rules, script: impl Fn(usize, u32, usize) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let (tls, pem) = make(Ipv4Addr::LOCALHOST.into()).unwrap();
        let mut authority = tempfile::NamedTempFile::new().unwrap();
        authority.write_all(pem.as_bytes()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, asked) = (listener.local_addr().unwrap(), Arc::default());
        let (seen, script): (Arc<Mutex<Vec<_>>>, Arc<Script>) = (Arc::clone(&asked), Arc::new(script));
        std::thread::spawn(move || {
            let mut silent = Vec::new();
            for (number, stream) in listener.incoming().enumerate() {
                let (tls, seen, script) = (tls.clone(), seen.clone(), script.clone());
                let stream = stream.unwrap();
                if number >= rules.connections {
                    // Kept open, and not spoken on.
                    silent.push(stream);
                    continue;
                }
                let settings = rules.streams.map(|streams| [&[0, 3], &streams.to_be_bytes()[..]].concat());
                std::thread::spawn(move || {
                    serve(number, stream, &tls, &settings.unwrap_or_default(), &seen, &*script);
                });
            }
        });
        Self { address, authority, asked }
    }

    pub fn base_url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The key of `[upstream]` with which a gateway trusts it.
    pub fn ca_file(&self) -> String {
        format!("ca_file = \"{}\"", self.authority.path().display())
    }

    /// Heads of requests so far: connection and stream.
    pub fn requests(&self) -> Vec<(usize, u32)> {
        self.asked.lock().clone()
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
    // Until the gateway has closed.
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

/// RFC 9113 §4.1.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// An answer of 200 (RFC 7541, appendix A, 8) with this body.
pub fn ok(stream: u32, body: &[u8]) -> Vec<u8> {
    [frame(HEADERS, 4, stream, &[0x88]), frame(DATA, 1, stream, body)].concat()
}

/// The end of a stream, for a reason (RFC 9113 §7).
pub fn reset(stream: u32, reason: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &reason.to_be_bytes())
}

/// The end of a connection, for a reason (RFC 9113 §7): streams after `last` are left alone.
pub fn go_away(last: u32, reason: u32) -> Vec<u8> {
    frame(GOAWAY, 0, 0, &[last.to_be_bytes(), reason.to_be_bytes()].concat())
}

/// The end of a connection with an error code and a text of the peer's own (RFC 9113 §6.8).
pub fn go_away_saying(last: u32, code: u32, text: &str) -> Vec<u8> {
    frame(GOAWAY, 0, 0, &[&last.to_be_bytes(), &code.to_be_bytes(), text.as_bytes()].concat())
}
