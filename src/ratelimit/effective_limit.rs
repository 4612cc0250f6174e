//! Limit in force for a credential: the configured one, or one learned from responses.

/// Consecutive responses that have to agree before a limit is raised.
const AGREEING_READINGS: u8 = 3;

/// Limit in force.
#[derive(Debug, Clone, Copy)]
pub struct EffectiveLimit {
    configured: u32,
    learn: bool,
    now: u32,
    /// Candidate for a higher limit, and how many consecutive responses reported it.
    higher: (u32, u8),
}

impl EffectiveLimit {
    /// Starts with the configured limit. Responses may lower it. With `learn` they may also raise it.
    pub fn new(configured: u32, learn: bool) -> Self {
        Self { configured, learn, now: configured, higher: (0, 0) }
    }

    /// Returns the limit in force.
    pub fn get(self) -> u32 {
        self.now
    }

    /// Applies a reload. A limit that responses lowered stays, unless the configuration changed.
    pub fn configure(&mut self, configured: u32, learn: bool) {
        let before = (self.configured, self.learn);
        if before != (configured, learn) {
            *self = Self::new(configured, learn);
        }
    }

    /// Records the limit in a response. A lower limit holds at once, a higher one after three agreeing responses.
    pub fn observe(&mut self, limit: u32) {
        let limit = if self.learn { limit } else { limit.min(self.configured) };
        if limit <= self.now {
            self.now = limit;
            self.higher = (0, 0);
            return;
        }
        let (candidate, times) = self.higher;
        self.higher = if candidate == limit { (limit, times + 1) } else { (limit, 1) };
        if self.higher.1 >= AGREEING_READINGS {
            self.now = limit;
            self.higher = (0, 0);
        }
    }
}
