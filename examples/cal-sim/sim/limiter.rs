//! Model of Cal.com's rate limiter: fixed windows that start at the first request, and blocks in which requests still count.
//!
//! The caller passes the time, so that an hour is simulated at once (FACTS §2).

use std::time::Duration;

/// A limit of one credential. `Default` is the usual one; a key may have several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedLimit {
    /// What the headers end in: `X-RateLimit-Limit-<Name>`.
    pub name: String,
    /// Requests per window.
    pub limit: u32,
    /// From the first request of a window to its end.
    pub window: Duration,
    /// From the request that exceeded the limit to the end of the refusals.
    pub block: Duration,
}

/// The counters of one tracker, which is one credential, or one address without a credential.
#[derive(Debug, Clone)]
pub struct Limiter {
    counters: Vec<Counter>,
    quirk: bool,
}

#[derive(Debug, Clone)]
struct Counter {
    limit: NamedLimit,
    hits: u32,
    /// The window counts until then; before the first hit it has ended.
    window_end: Duration,
    block_end: Duration,
    blocks: u64,
    prolonged: u64,
}

/// What a request is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether every limit is exceeded: one that is not suffices to let a request pass.
    pub refused: bool,
    /// Each limit, in the order they were given.
    pub standings: Vec<Standing>,
}

/// What the headers of one limit say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The limit's name.
    pub name: String,
    /// Requests per window.
    pub limit: u32,
    /// What is left of them; 0 during a block.
    pub remaining: u32,
    /// Whole seconds until the window, or the block, ends; rounded up.
    pub reset_seconds: u64,
}

impl Limiter {
    /// A tracker that has seen nothing. With `quirk`, windows end in whole milliseconds, and a hit in the very
    /// millisecond in which one ends prolongs it, with the count it had: Cal.com's library increments a counter that is
    /// still there, sees that it has no time left, and gives it another window.
    pub fn new(limits: Vec<NamedLimit>, quirk: bool) -> Self {
        let fresh = |limit| Counter {
            limit,
            hits: 0,
            window_end: Duration::ZERO,
            block_end: Duration::ZERO,
            blocks: 0,
            prolonged: 0,
        };
        Self { counters: limits.into_iter().map(fresh).collect(), quirk }
    }

    /// Counts a request that arrives at `now`, a time since some fixed moment that never runs backwards.
    pub fn hit(&mut self, now: Duration) -> Verdict {
        let quirk = self.quirk;
        let mut refused = !self.counters.is_empty();
        let standings = self.counters.iter_mut().map(|counter| {
            counter.count(now, quirk);
            refused &= counter.is_blocked(now);
            counter.standing(now)
        });
        Verdict { standings: standings.collect(), refused }
    }

    /// Blocks that have begun so far, of all limits.
    pub fn blocks(&self) -> u64 {
        self.counters.iter().map(|counter| counter.blocks).sum()
    }

    /// Windows that have been prolonged with their old count so far, of all limits.
    pub fn prolonged(&self) -> u64 {
        self.counters.iter().map(|counter| counter.prolonged).sum()
    }

    /// Whether a new tracker would behave the same: no window counts and no block is in force.
    pub fn is_forgotten(&self, now: Duration) -> bool {
        self.counters.iter().all(|counter| counter.window_end.max(counter.block_end) < now)
    }
}

impl Counter {
    fn count(&mut self, now: Duration, quirk: bool) {
        let at = if quirk { whole_milliseconds(now) } else { now };
        if self.hits == 0 || at > self.window_end || (at == self.window_end && !quirk) {
            (self.hits, self.window_end) = (1, at + self.limit.window);
        } else {
            self.hits = self.hits.saturating_add(1);
            if at == self.window_end {
                self.window_end += self.limit.window;
                self.prolonged += 1;
            }
        }
        if self.hits > self.limit.limit && !self.is_blocked(now) {
            self.block_end = now + self.limit.block;
            self.blocks += 1;
        }
    }

    fn is_blocked(&self, now: Duration) -> bool {
        now < self.block_end
    }

    fn standing(&self, now: Duration) -> Standing {
        let NamedLimit { name, limit, .. } = &self.limit;
        let (remaining, end) =
            if self.is_blocked(now) { (0, self.block_end) } else { (limit.saturating_sub(self.hits), self.window_end) };
        let left = end.saturating_sub(now);
        let reset_seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
        Standing { name: name.clone(), limit: *limit, remaining, reset_seconds }
    }
}

fn whole_milliseconds(time: Duration) -> Duration {
    time.saturating_sub(Duration::from_nanos(u64::from(time.subsec_nanos() % 1_000_000)))
}
