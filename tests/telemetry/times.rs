//! Tests of histograms with a shard for each worker: a scrape returns the sum.

use std::fmt::Debug;
use std::str::FromStr;
use std::thread;
use std::time::Duration;

use calgate::telemetry::{Gauges, Metrics};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::properties::cases;

/// Returns the value of a series, which must exist.
fn value<T: FromStr<Err: Debug>>(text: &str, series: &str) -> T {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in\n{text}")).parse().unwrap()
}

/// Returns the bounds of the buckets in seconds, with the number of times up to each.
fn buckets(text: &str) -> Vec<(f64, usize)> {
    let of = |line: &str| {
        let (bound, count) = line.strip_prefix("calgate_gateway_seconds_bucket{le=\"")?.split_once("\"} ")?;
        Some((bound.parse().unwrap(), count.parse().unwrap()))
    };
    text.lines().filter_map(of).collect()
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn whatever_threads_count_adds_up(threads in vec(vec(0..100_000_000_000_u64, 0..20), 1..20)) {
        let metrics = Metrics::default();
        thread::scope(|scope| {
            for times in &threads {
                scope.spawn(|| times.iter().for_each(|time| metrics.gateway_seconds.observe(Duration::from_nanos(*time))));
            }
        });
        let (text, all) = (metrics.encode(&Gauges::default()), threads.concat());
        prop_assert_eq!(value::<usize>(&text, "calgate_gateway_seconds_count"), all.len());
        let sum = Duration::from_nanos(all.iter().sum()).as_secs_f64();
        prop_assert!((value::<f64>(&text, "calgate_gateway_seconds_sum") - sum).abs() < 1e-6);
        let buckets = buckets(&text);
        prop_assert!(buckets.last().is_some_and(|(bound, _)| bound.is_infinite()));
        for (bound, count) in buckets {
            let below = all.iter().filter(|time| Duration::from_nanos(**time).as_secs_f64() <= bound).count();
            prop_assert_eq!(count, below, "up to {}", bound);
        }
    }
}

#[test]
fn counts_a_time_equal_to_a_bound_in_its_bucket() {
    let metrics = Metrics::default();
    metrics.gateway_seconds.observe(Duration::from_millis(1));
    let text = metrics.encode(&Gauges::default());
    assert_eq!(value::<usize>(&text, "calgate_gateway_seconds_bucket{le=\"0.00025\"}"), 0, "{text}");
    assert_eq!(value::<usize>(&text, "calgate_gateway_seconds_bucket{le=\"0.001\"}"), 1);
    assert!(text.contains("# TYPE calgate_gateway_seconds histogram"));
}
