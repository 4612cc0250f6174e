//! Histogram in which each worker counts for itself, so that workers do not contend. A scrape adds the counts up.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

/// Upper bounds, of times from 10 µs to a minute; the last bucket takes all above.
const BOUNDS: [Duration; 17] = [
    Duration::from_micros(10),
    Duration::from_micros(25),
    Duration::from_micros(50),
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_millis(1),
    Duration::from_millis(5),
    Duration::from_millis(25),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2500),
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_secs(60),
    Duration::MAX,
];

/// More threads than this share.
const SHARES: usize = 8;

/// A histogram of times.
#[derive(Debug, Clone, Default)]
pub struct ShardedHistogram(Arc<[Share; SHARES]>);

/// What some threads counted, on cache lines of its own; two of them, for processors fetch lines in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Share {
    /// Number of times in each bucket: up to its bound, and above the bound before it.
    counts: [AtomicU64; BOUNDS.len()],
    nanoseconds: AtomicU64,
}

impl ShardedHistogram {
    /// Counts a time.
    pub fn observe(&self, took: Duration) {
        let Some(share) = MINE.with(|mine| self.0.get(*mine)) else { return };
        if let Some((_, count)) = BOUNDS.iter().zip(&share.counts).find(|(bound, _)| took <= **bound) {
            count.fetch_add(1, Relaxed);
        }
        share.nanoseconds.fetch_add(crate::time::nanoseconds(took), Relaxed);
    }
}

impl EncodeMetric for ShardedHistogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut buckets =
            BOUNDS.map(|bound| (if bound == Duration::MAX { f64::INFINITY } else { bound.as_secs_f64() }, 0));
        let mut nanoseconds = 0;
        for share in self.0.iter() {
            for ((_, sum), count) in buckets.iter_mut().zip(&share.counts) {
                *sum += count.load(Relaxed);
            }
            nanoseconds += share.nanoseconds.load(Relaxed);
        }
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = Duration::from_nanos(nanoseconds).as_secs_f64();
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

thread_local! {
    /// Which share this thread counts in.
    static MINE: usize = {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        THREADS.fetch_add(1, Relaxed) % SHARES
    };
}
