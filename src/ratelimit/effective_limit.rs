//! The limit in force for a credential: the configured one, or one learned from responses.

/// So many answers in a row have to agree before a limit is raised.
const AGREEING_READINGS: u8 = 3;

/// The limit in force.
#[derive(Debug, Clone, Copy)]
pub struct EffectiveLimit {
    configured: u32,
    learn: bool,
    now: u32,
    /// A higher limit, and how many answers in a row told of it.
    higher: (u32, u8),
}

impl EffectiveLimit {
    /// What is configured, until answers say otherwise. With `learn` they may also say more.
    pub fn new(configured: u32, learn: bool) -> Self {
        Self { configured, learn, now: configured, higher: (0, 0) }
    }

    /// The limit.
    pub fn get(self) -> u32 {
        self.now
    }

    /// A reload: a limit that has been lowered by answers stays so, unless what is configured is another number now.
    pub fn configure(&mut self, configured: u32, learn: bool) {
        let before = (self.configured, self.learn);
        if before != (configured, learn) {
            *self = Self::new(configured, learn);
        }
    }

    /// An answer told of a limit: a lower one holds at once, a higher one when three agree.
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
