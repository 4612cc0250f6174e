//! An open-loop load: so many requests a second whatever the answers take, and how long the answers took.
//!
//! `paced ADDRESS RATE SECONDS CONNECTIONS TARGET KEYS` sends `GET TARGET` with the keys of the file KEYS (one
//! `Authorization` value a line) and prints `RESULT requests failed p50_us p99_us`. Each connection has a thread and a
//! Poisson schedule of its own. A request that is late because the answer before it was late counts from the moment it
//! was due, so that a proxy that stalls cannot hide it; a late wake-up of the generator's own does not count.
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "small numbers of a measurement"
)]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [address, rate, seconds, connections, target, keys] = args.as_slice() else {
        return Err(invalid("usage: paced ADDRESS RATE SECONDS CONNECTIONS TARGET KEYS"));
    };
    let number = |text: &String| text.parse::<f64>().map_err(|_| invalid("RATE, SECONDS and CONNECTIONS are numbers"));
    let (rate, seconds, connections) = (number(rate)?, number(seconds)?, number(connections)?.max(1.0));
    let keys: Arc<[String]> = std::fs::read_to_string(keys)?.lines().map(str::to_owned).collect();
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    let mut threads = Vec::new();
    for index in 0..connections as usize {
        let caller = Caller {
            connection: BufReader::with_capacity(128 * 1024, TcpStream::connect(address)?),
            target: target.clone(),
            keys: keys.clone(),
            next: index,
            random: seed(index as u64 + 1),
            pause: connections / rate,
        };
        threads.push(thread::spawn(move || caller.call_until(end)));
    }
    let mut times = Vec::new();
    let mut failed = 0;
    for thread in threads {
        match thread.join().map_err(|_| invalid("a thread panicked"))? {
            Ok(some) => times.extend(some),
            Err(_) => failed += 1,
        }
    }
    times.sort_unstable();
    let quantile = |q: f64| times.get((times.len() as f64 * q) as usize).map_or(0, Duration::as_micros);
    println!("RESULT {} {failed} {} {}", times.len(), quantile(0.5), quantile(0.99));
    Ok(())
}

struct Caller {
    connection: BufReader<TcpStream>,
    target: String,
    keys: Arc<[String]>,
    next: usize,
    random: u64,
    /// Mean seconds between two requests.
    pause: f64,
}

impl Caller {
    fn call_until(mut self, end: Instant) -> io::Result<Vec<Duration>> {
        self.connection.get_ref().set_nodelay(true)?;
        self.connection.get_ref().set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut times = Vec::new();
        let mut due = Instant::now();
        loop {
            due += self.gap();
            if due >= end {
                return Ok(times);
            }
            let early = due.saturating_duration_since(Instant::now());
            thread::sleep(early);
            let from = if early.is_zero() { due } else { Instant::now() };
            self.call()?;
            times.push(from.elapsed());
        }
    }

    /// Time to the next request: exponentially distributed.
    fn gap(&mut self) -> Duration {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let uniform = ((self.random >> 11) as f64 + 1.0) / (1u64 << 53) as f64;
        Duration::from_secs_f64(-uniform.ln() * self.pause)
    }

    fn call(&mut self) -> io::Result<()> {
        let key = self.keys.get(self.next % self.keys.len()).map_or("", String::as_str);
        self.next += 61;
        let request = format!("GET {} HTTP/1.1\r\nHost: gateway\r\nAuthorization: {key}\r\n\r\n", self.target);
        self.connection.get_mut().write_all(request.as_bytes())?;
        let mut line = String::new();
        self.connection.read_line(&mut line)?;
        if !line.starts_with("HTTP/1.1 200 ") {
            return Err(invalid("the answer is not 200"));
        }
        let mut length = None;
        while line != "\r\n" {
            line.clear();
            if self.connection.read_line(&mut line)? == 0 {
                return Err(invalid("the answer broke off"));
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().ok();
            }
        }
        let mut body = vec![0; length.ok_or_else(|| invalid("the answer has no Content-Length"))?];
        self.connection.read_exact(&mut body)
    }
}

/// Seeds that have nothing in common (splitmix64): with similar ones, all connections would send their first request at once.
fn seed(number: u64) -> u64 {
    let mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
