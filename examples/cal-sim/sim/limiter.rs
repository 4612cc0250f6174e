//! Model of Cal.com's rate limiter: fixed windows that start at the first request, and blocks in which requests still count.
//!
//! The caller passes the time, so that an hour is simulated at once (FACTS §2).

use std::time::Duration;

/// Limit of a credential. Most have a single one with the name `Default`. A key may have several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedLimit {
    /// Name, with which the headers end: `X-RateLimit-Limit-<Name>`.
    pub name: String,
    /// Requests per window.
    pub limit: u32,
    /// Length of a window, which starts at its first request.
    pub window: Duration,
    /// Length of a block, which starts at the request that exceeds the limit.
    pub block: Duration,
}

/// Counters of a tracker, which is a credential, or the address of requests without one.
#[derive(Debug, Clone)]
pub struct Limiter {
    counters: Vec<Counter>,
    quirk: bool,
}

#[derive(Debug, Clone)]
struct Counter {
    limit: NamedLimit,
    hits: u32,
    /// End of the window. Before the first request it is in the past.
    window_end: Duration,
    block_end: Duration,
    blocks: u64,
    prolonged: u64,
}

/// Result of counting a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether all limits are exceeded. A request passes if one of them is not.
    pub refused: bool,
    /// State of each limit, in the order of the options.
    pub standings: Vec<Standing>,
}

/// Values of the headers of a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Name of the limit.
    pub name: String,
    /// Requests per window.
    pub limit: u32,
    /// Remaining requests. 0 during a block.
    pub remaining: u32,
    /// Seconds until the window or block ends, rounded up.
    pub reset_seconds: u64,
}

impl Limiter {
    /// Creates a tracker without requests.
    ///
    /// With `quirk`, windows end in whole milliseconds, and a request in the last millisecond prolongs the window with its old
    /// count. Cal.com's library increments the existing counter, finds that it has no time left, and starts another window for
    /// it.
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

    /// Counts a request that arrives at `now`. `now` never decreases.
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

    /// Returns the number of blocks so far, of all limits.
    pub fn blocks(&self) -> u64 {
        self.counters.iter().map(|counter| counter.blocks).sum()
    }

    /// Returns the number of windows that were prolonged with their old count so far, of all limits.
    pub fn prolonged(&self) -> u64 {
        self.counters.iter().map(|counter| counter.prolonged).sum()
    }

    /// Returns whether a new tracker would behave the same, because no window or block is in progress.
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
