//! Histogram with one shard for each worker, so that workers do not contend. A scrape adds the shards.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

/// Upper bounds of the buckets, from 10 µs to a minute. The last bucket contains all longer times.
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

/// Number of shards. More threads than this share them.
const SHARDS: usize = 8;

/// Histogram of durations.
#[derive(Debug, Clone, Default)]
pub struct ShardedHistogram(Arc<[Shard; SHARDS]>);

/// Counts of some threads. It is aligned to two cache lines, because processors fetch lines in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard {
    /// Number of times in each bucket: up to its bound, and above the bound before it.
    counts: [AtomicU64; BOUNDS.len()],
    nanoseconds: AtomicU64,
}

impl ShardedHistogram {
    /// Counts a duration.
    pub fn observe(&self, took: Duration) {
        let Some(shard) = SHARD.with(|index| self.0.get(*index)) else { return };
        if let Some((_, count)) = BOUNDS.iter().zip(&shard.counts).find(|(bound, _)| took <= **bound) {
            count.fetch_add(1, Relaxed);
        }
        shard.nanoseconds.fetch_add(crate::time::nanoseconds(took), Relaxed);
    }
}

impl EncodeMetric for ShardedHistogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut buckets =
            BOUNDS.map(|bound| (if bound == Duration::MAX { f64::INFINITY } else { bound.as_secs_f64() }, 0));
        let mut nanoseconds = 0;
        for shard in self.0.iter() {
            for ((_, sum), count) in buckets.iter_mut().zip(&shard.counts) {
                *sum += count.load(Relaxed);
            }
            nanoseconds += shard.nanoseconds.load(Relaxed);
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
    /// Index of the shard of this thread.
    static SHARD: usize = {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        THREADS.fetch_add(1, Relaxed) % SHARDS
    };
}
