//! Poisson schedule of the requests of one connection, so that load arrives in bursts.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

/// Time at which a request was due.
#[derive(Clone, Copy)]
pub(crate) struct Due {
    pub(crate) at: Instant,
    /// It had to wait for the answer to the one before it.
    pub(crate) late: bool,
}

pub(crate) struct Schedule {
    /// Of idle connections, the earliest first; after the time, whether that was over when it was planned.
    planned: BinaryHeap<Reverse<(Instant, bool, usize)>>,
    /// Time at which the last request of each connection was due.
    last: Vec<Instant>,
    random: u64,
    /// Mean time between two requests of a connection.
    pause: Duration,
}

impl Schedule {
    pub(crate) fn new(pause: Duration) -> Self {
        Self { planned: BinaryHeap::new(), last: Vec::new(), random: 0x9E37_79B9_7F4A_7C15, pause }
    }

    /// Plans the first request of a connection. Connections are added in order.
    pub(crate) fn first(&mut self, index: usize) {
        let now = Instant::now();
        self.last.push(now);
        self.after(index, now);
    }

    /// Plans the next request of a connection, which has got its answer. The gap counts from when the last one was due.
    pub(crate) fn after(&mut self, index: usize, now: Instant) {
        let gap = self.gap();
        let Some(at) = self.last.get_mut(index) else { return };
        *at += gap;
        self.planned.push(Reverse((*at, *at < now, index)));
    }

    /// Removes and returns a connection whose request is due.
    pub(crate) fn due(&mut self, now: Instant) -> Option<(usize, Due)> {
        let (at, late, index) = self.planned.peek().map(|Reverse(first)| *first).filter(|(at, ..)| *at <= now)?;
        self.planned.pop();
        Some((index, Due { at, late }))
    }

    /// Returns the time at which the next request is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.planned.peek().map(|Reverse((at, ..))| *at)
    }

    /// Returns an exponentially distributed gap.
    fn gap(&mut self) -> Duration {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let uniform = ((self.random >> 11) as f64 + 1.0) / (1u64 << 53) as f64;
        self.pause.mul_f64(-uniform.ln())
    }
}
