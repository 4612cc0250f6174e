//! Query parameters by which a request controls the simulation itself. Cal.com does not have them.

use std::time::Duration;

/// Controls of one request.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Wishes {
    /// `sim_body=65536`: length of the response body in bytes.
    pub(super) body: Option<u64>,
    /// `sim_pause_ms=50`: pause before each 16 KiB of the body.
    pub(super) pause: Duration,
    /// `sim_delay_ms=200`: delay of the response head.
    pub(super) delay: Duration,
    /// `sim_status=503`: status of the response, in Cal.com's envelope.
    pub(super) status: Option<u16>,
    /// `sim_edge=403`: status of a response of the edge in front of Cal.com, without envelope and limit headers.
    pub(super) edge: Option<u16>,
    /// `sim_forbidden=1`: response 403 with the bearer token in its message.
    pub(super) forbidden: bool,
    /// `sim_headers=1`: the response lists the header fields that arrived.
    pub(super) headers: bool,
}

impl Wishes {
    pub(super) fn of(query: &str) -> Self {
        let mut wishes = Self::default();
        if !query.contains("sim_") {
            return wishes;
        }
        let status = |value: u64| u16::try_from(value).ok().filter(|status| (200..=599).contains(status));
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let Ok(value) = value.parse() else { continue };
            match &*name {
                "sim_body" => wishes.body = Some(value),
                "sim_pause_ms" => wishes.pause = Duration::from_millis(value),
                "sim_delay_ms" => wishes.delay = Duration::from_millis(value),
                "sim_status" => wishes.status = status(value),
                "sim_edge" => wishes.edge = status(value),
                "sim_forbidden" => wishes.forbidden = value != 0,
                "sim_headers" => wishes.headers = value != 0,
                _ => {}
            }
        }
        wishes
    }
}
