//! `[limits]`: sizes, counts and timeouts that protect the gateway from one caller or from Cal.com.

use std::time::Duration;

use super::section::Section;

/// Settings of `[limits]`.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// Maximum size of a request target, in bytes.
    pub target_bytes: usize,
    /// Maximum size of a request's header fields, names and values, in bytes.
    pub head_bytes: usize,
    /// Maximum size of a request body, in bytes.
    pub body_bytes: u64,
    /// Maximum size of a JSON request body, in bytes. Cal.com answers a longer one with 413 (FACTS §5).
    pub json_body_bytes: u64,
    /// Maximum size of a request body that is buffered so that the request can be sent again, in bytes.
    pub replay_body_limit: usize,
    /// Timeout from accepting a connection to its first byte.
    pub first_byte: Duration,
    /// Timeout from the first byte of a request to the end of its head.
    pub head: Duration,
    /// Timeout from the end of the head to the end of the body.
    pub body: Duration,
    /// Timeout of a connection without a request.
    pub idle: Duration,
    /// Maximum age of a connection. It is closed after its current request.
    pub connection_age: Duration,
    /// Maximum number of open connections.
    pub connections: usize,
    /// Maximum number of requests in flight.
    pub in_flight: usize,
    /// Timeout of the DNS lookup of Cal.com.
    pub upstream_lookup: Duration,
    /// Timeout for connecting to Cal.com, TLS included.
    pub upstream_connect: Duration,
    /// Timeout from the end of a request, its body included, to the head of its response.
    pub upstream_headers: Duration,
    /// Timeout from sending a request to the end of its response, also if it is the caller that is slow to read it.
    pub upstream_total: Duration,
    /// Maximum age of a connection to Cal.com. It is closed after its current requests.
    pub upstream_connection_age: Duration,
    /// Timeout from SIGTERM to cancelling the requests in flight.
    pub drain: Duration,
    /// Maximum number of callers without a configured consumer (addresses, passthrough credentials) that have a bucket of their own.
    pub tracked_callers: usize,
}

/// Maximum size of a request body, with the configuration key that sets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyLimit {
    /// Size in bytes.
    pub bytes: u64,
    /// Configuration key, such as `limits.body_bytes`.
    pub key: &'static str,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            target_bytes: 8 * 1024,
            head_bytes: 32 * 1024,
            body_bytes: 1024 * 1024,
            json_body_bytes: 100 * 1024,
            replay_body_limit: 64 * 1024,
            first_byte: Duration::from_secs(10),
            head: Duration::from_secs(10),
            body: Duration::from_secs(30),
            idle: Duration::from_secs(75),
            connection_age: Duration::from_secs(3600),
            connections: 10_000,
            in_flight: 4096,
            upstream_lookup: Duration::from_secs(5),
            upstream_connect: Duration::from_secs(5),
            upstream_headers: Duration::from_secs(30),
            upstream_total: Duration::from_secs(60),
            upstream_connection_age: Duration::from_secs(300),
            drain: Duration::from_secs(30),
            tracked_callers: 65_536,
        }
    }
}

impl Bounds {
    /// Returns the limit of a body. The smaller of both limits applies to JSON.
    pub fn body_limit(&self, is_json: bool) -> BodyLimit {
        if is_json && self.json_body_bytes < self.body_bytes {
            BodyLimit { bytes: self.json_body_bytes, key: "limits.json_body_bytes" }
        } else {
            BodyLimit { bytes: self.body_bytes, key: "limits.body_bytes" }
        }
    }

    pub(super) fn read(section: &Section<'_>) -> Self {
        let default = Self::default();
        let count = |key, allowed, default: usize| section.integer(key, allowed).map_or(default, |n| n as usize);
        let time = |key, default| section.duration(key).unwrap_or(default);
        Self {
            target_bytes: count("target_bytes", 64..=65_000, default.target_bytes),
            head_bytes: count("head_bytes", 1024..=1_048_576, default.head_bytes),
            body_bytes: section.integer("body_bytes", 0..=u32::MAX).map_or(default.body_bytes, u64::from),
            json_body_bytes: section
                .integer("json_body_bytes", 0..=u32::MAX)
                .map_or(default.json_body_bytes, u64::from),
            replay_body_limit: count("replay_body_limit", 0..=1_048_576, default.replay_body_limit),
            first_byte: time("first_byte", default.first_byte),
            head: time("head", default.head),
            body: time("body", default.body),
            idle: time("idle", default.idle),
            connection_age: time("connection_age", default.connection_age),
            connections: count("connections", 1..=1_000_000, default.connections),
            in_flight: count("in_flight", 1..=1_000_000, default.in_flight),
            upstream_lookup: time("upstream_lookup", default.upstream_lookup),
            upstream_connect: time("upstream_connect", default.upstream_connect),
            upstream_headers: time("upstream_headers", default.upstream_headers),
            upstream_total: time("upstream_total", default.upstream_total),
            upstream_connection_age: time("upstream_connection_age", default.upstream_connection_age),
            drain: time("drain", default.drain),
            tracked_callers: count("tracked_callers", 16..=10_000_000, default.tracked_callers),
        }
    }
}
