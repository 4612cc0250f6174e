//! What requests took, by the tenth of a second in which they were sent.

use std::time::Duration;

/// What the usual p99 is taken of: short enough that most of them see no rare stall, and long enough for a p99.
const SLICE: Duration = Duration::from_millis(100);

#[derive(Default)]
pub(crate) struct Times(Vec<Vec<Duration>>);

impl Times {
    /// Notes a request that was sent so long after the first that counts.
    pub(crate) fn add(&mut self, since: Duration, took: Duration) {
        let slice = (since.as_nanos() / SLICE.as_nanos()) as usize;
        if self.0.len() <= slice {
            self.0.resize_with(slice + 1, Vec::new);
        }
        if let Some(slice) = self.0.get_mut(slice) {
            slice.push(took);
        }
    }

    /// How many there are, and the p50 and p99 of all, then the median of the p99 of each slice, in microseconds.
    pub(crate) fn summary(self) -> (usize, [u128; 3]) {
        let all = self.0.concat();
        let count = all.len();
        let (p50, p99) = (quantile(all.clone(), 0.5), quantile(all, 0.99));
        let slices = self.0.into_iter().filter(|slice| !slice.is_empty());
        let usual = quantile(slices.map(|slice| quantile(slice, 0.99)).collect(), 0.5);
        (count, [p50, p99, usual].map(|time| time.as_micros()))
    }
}

fn quantile(mut times: Vec<Duration>, q: f64) -> Duration {
    times.sort_unstable();
    times.get((times.len() as f64 * q) as usize).copied().unwrap_or_default()
}
