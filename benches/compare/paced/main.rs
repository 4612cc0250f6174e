//! Open-loop load generator: sends requests at a fixed rate, and measures their latency.
//!
//! `paced ADDRESS RATE SECONDS CONNECTIONS TARGET KEYS [UPSTREAM]` sends `GET TARGET` with the keys of the file KEYS (one
//! `Authorization` value a line) and prints `RESULT requests failed p50_us p99_us`. Each connection has its own Poisson schedule.
//! If a late response delays the next request of a connection, the latency of that request counts from the moment at which it was
//! due. So a proxy that stalls cannot hide it. A late wake-up of the generator itself does not count.
//!
//! With the address UPSTREAM, the program is also the upstream behind the proxy, and never sleeps. On a core of its own, it
//! leaves the other core to the proxy, so that the tail of the latency is that of the proxy. The first half second does not
//! count, because the proxy opens its connections then.
//!
//! One thread drives all connections. Several threads would compete, and measure the scheduler.
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "small numbers of a measurement"
)]
#![expect(clippy::disallowed_methods, reason = "a load generator keeps real time")]

mod caller;
mod schedule;
mod upstream;

use std::io;
use std::num::NonZero;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::OwnedFd;
use rustix::thread::set_current_timer_slack;
use rustix::time::Timespec;

use caller::Caller;
use schedule::Schedule;
use upstream::Upstream;

/// Maximum wait for the last responses.
const PATIENCE: Duration = Duration::from_secs(5);

/// Time for the proxy to open its connections to the new upstream.
const WARM_UP: Duration = Duration::from_millis(500);

fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let ([address, rate, seconds, connections, target, keys] | [address, rate, seconds, connections, target, keys, _]) =
        args.as_slice()
    else {
        return Err(invalid("usage: paced ADDRESS RATE SECONDS CONNECTIONS TARGET KEYS [UPSTREAM]"));
    };
    let number = |text: &String| text.parse::<f64>().map_err(|_| invalid("RATE, SECONDS and CONNECTIONS are numbers"));
    let (rate, seconds, connections) = (number(rate)?, number(seconds)?, number(connections)?.max(1.0));
    let requests: Vec<Vec<u8>> = std::fs::read_to_string(keys)?
        .lines()
        .map(|key| format!("GET {target} HTTP/1.1\r\nHost: gateway\r\nAuthorization: {key}\r\n\r\n").into_bytes())
        .collect();
    let upstream = args.get(6).map(|address| Upstream::listen(address)).transpose()?;
    let warm_up = if upstream.is_some() { WARM_UP } else { Duration::ZERO };
    let mut load = Load {
        epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
        callers: (0..connections as usize).map(|index| Caller::connect(address, index)).collect::<io::Result<_>>()?,
        requests,
        upstream,
        schedule: Schedule::new(Duration::from_secs_f64(connections / rate)),
        outstanding: 0,
        counted_from: Instant::now() + warm_up,
        times: Vec::new(),
        failed: 0,
    };
    load.run(warm_up + Duration::from_secs_f64(seconds))?;
    load.times.sort_unstable();
    let [p50, p99] = [0.5, 0.99].map(|q| quantile(&load.times, q).as_micros());
    println!("RESULT {} {} {p50} {p99}", load.times.len(), load.failed);
    Ok(())
}

struct Load {
    epoll: OwnedFd,
    callers: Vec<Caller>,
    requests: Vec<Vec<u8>>,
    upstream: Option<Upstream>,
    schedule: Schedule,
    /// Number of requests without a response.
    outstanding: usize,
    counted_from: Instant,
    /// Latencies of the answered requests.
    times: Vec<Duration>,
    failed: usize,
}

impl Load {
    fn run(&mut self, length: Duration) -> io::Result<()> {
        set_current_timer_slack(NonZero::new(1))?;
        let end = Instant::now() + length;
        for (index, caller) in self.callers.iter().enumerate() {
            epoll::add(&self.epoll, caller, EventData::new_u64(index as u64), EventFlags::IN)?;
            self.schedule.first(index);
        }
        if let Some(upstream) = &self.upstream {
            epoll::add(&self.epoll, upstream, EventData::new_u64(self.callers.len() as u64), EventFlags::IN)?;
        }
        let mut events = Vec::with_capacity(4 * self.callers.len());
        loop {
            let now = Instant::now();
            if now >= end && (self.outstanding == 0 || now >= end + PATIENCE) {
                self.failed += self.outstanding;
                return Ok(());
            }
            while let Some((index, due)) = if now < end { self.schedule.due(now) } else { None } {
                self.ask(index, due);
            }
            if self.upstream.is_none() {
                let next = self.schedule.next().map_or(end, |due| due.min(end));
                self.wait(if now >= end { PATIENCE } else { next.saturating_duration_since(Instant::now()) })?;
            }
            events.clear();
            epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&Timespec::default()))?;
            for event in &events {
                self.hear(event.data.u64() as usize)?;
            }
        }
    }

    /// Until there is something to read, or this long; an epoll's own wait would round it up to milliseconds.
    fn wait(&self, patience: Duration) -> io::Result<()> {
        let patience = Timespec::try_from(patience).map_err(|_| invalid("SECONDS is too large"))?;
        poll(&mut [PollFd::new(&self.epoll, PollFlags::IN)], Some(&patience))?;
        Ok(())
    }

    /// Sends the request of a connection that was due at this time.
    fn ask(&mut self, index: usize, due: schedule::Due) {
        let Some(caller) = self.callers.get_mut(index) else { return };
        match caller.ask(&self.requests, due) {
            Ok(()) => self.outstanding += 1,
            Err(_) => self.failed += 1,
        }
    }

    /// Reads the input of a client connection or of the upstream.
    fn hear(&mut self, index: usize) -> io::Result<()> {
        let Some(caller) = self.callers.get_mut(index) else { return self.answer(index - self.callers.len()) };
        match caller.hear() {
            Ok(None) => return Ok(()),
            Ok(Some(from)) => {
                let now = Instant::now();
                if from >= self.counted_from {
                    self.times.push(now - from);
                }
                self.schedule.after(index, now);
            }
            Err(_) => {
                self.failed += 1;
                // Without this, epoll would report it forever.
                epoll::delete(&self.epoll, caller)?;
            }
        }
        self.outstanding -= 1;
        Ok(())
    }

    /// The upstream's part: 0 is its listener, others are connections.
    fn answer(&mut self, index: usize) -> io::Result<()> {
        let Some(upstream) = &mut self.upstream else { return Ok(()) };
        let Some(index) = index.checked_sub(1) else {
            return upstream.accept(|index, connection| {
                let data = EventData::new_u64((self.callers.len() + 1 + index) as u64);
                Ok(epoll::add(&self.epoll, connection, data, EventFlags::IN)?)
            });
        };
        upstream.answer(index)
    }
}

/// Returns a percentile of sorted times.
fn quantile(times: &[Duration], q: f64) -> Duration {
    times.get((times.len() as f64 * q) as usize).copied().unwrap_or_default()
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
