//! What the limit store answers to a heartbeat.

use std::time::Duration;

use crate::ratelimit::ends::Ends;
use crate::ratelimit::parts::Part;
use crate::ratelimit::usage_headers::Seen;
use crate::time::MonoTime;

/// The answer to [`Scripts::heartbeat`](crate::limit_store::scripts::Scripts::heartbeat).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heard {
    /// Whether this gateway is a member.
    pub is_member: bool,
    /// Gateways that have been heard of lately.
    pub gateways: u32,
    /// Those of them that go by the store.
    pub members: u32,
    /// Requests of others on the credential in one window: seen, expected by the windows before, or suspected.
    pub foreign: u32,
    /// The part of this gateway.
    pub part: Part,
    /// Cal.com's open windows.
    pub windows: Vec<OpenWindow>,
}

/// A window of Cal.com's, as the responses to all gateways describe it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenWindow {
    /// What is left of it, and the latest time to its end.
    pub seen: Seen,
    /// How much earlier than that it may end.
    pub uncertain: Duration,
}

impl OpenWindow {
    /// The bounds of its end, where the store was asked at `asked` and has answered by `now`.
    pub fn ends(&self, asked: MonoTime, now: MonoTime) -> Ends {
        let Self { seen, uncertain } = self;
        Ends { earliest: asked.after(seen.reset).before(*uncertain), latest: now.after(seen.reset) }
    }
}

impl Heard {
    pub(super) fn read(words: &[String]) -> Option<Self> {
        let (head, windows) = words.split_at_checked(8)?;
        let number = |at: usize| head.get(at)?.parse::<u32>().ok();
        let read = |window: &[String]| {
            let [name, limit, remaining, reset, uncertain] = window else { return None };
            let seen = Seen {
                name: name.parse().ok()?,
                limit: limit.parse().ok(),
                remaining: remaining.parse().ok()?,
                reset: Duration::from_nanos(reset.parse().ok()?),
            };
            Some(OpenWindow { seen, uncertain: Duration::from_nanos(uncertain.parse().ok()?) })
        };
        let windows = windows.chunks_exact(5).map(read).collect::<Option<Vec<_>>>()?;
        let (gateways, members, foreign) = (number(1)?, number(2)?, number(5)?);
        let part = Part { epoch: head.get(6)?.parse().ok()?, requests: number(7)? };
        Some(Self { is_member: number(0)? == 1, gateways, members, foreign, part, windows })
    }
}
