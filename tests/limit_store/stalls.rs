//! Gateways that stop for a while, or whose store is far away. The store decides for some of eight, others decide locally, and
//! some change between the two. Cal.com never answers 429.
//!
//! `CALGATE_STALL_SECONDS` sets the length of each run (`make test-stalls`).

use std::time::{Duration, Instant};

use super::wait_for_joins;
use crate::harness::{CpuLimit, Fleet, Proxy, Redis, Terms, pass};
use crate::ratelimit::table::random::Random;

const WINDOW: Duration = Duration::from_secs(6);
const LIMIT: u32 = 120;

fn length() -> Duration {
    let seconds = std::env::var("CALGATE_STALL_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(13))
}

fn terms() -> Terms {
    let config = String::new();
    Terms { gateways: 8, limit: LIMIT, window: WINDOW, quirk: false, others: 0, config, per_minute: 1_000_000 }
}

/// Sends three times what Cal.com grants while `meanwhile` runs.
fn overload(name: &str, fleet: &Fleet, meanwhile: impl FnOnce()) {
    wait_for_joins(fleet);
    let per_second = 3.0 * f64::from(LIMIT) / WINDOW.as_secs_f64();
    let (before, started) = (fleet.sim.seen_count(), Instant::now());
    let tally = fleet.random_load(per_second, length(), meanwhile);
    let (used, took) = (fleet.sim.seen_count() - before, started.elapsed());
    let granted = f64::from(LIMIT) * took.as_secs_f64() / WINDOW.as_secs_f64();
    println!(
        "{name}: {} of Cal.com's 429s, {used} requests in {:.1} s ({:.0} % of N), the store was marked unavailable {} times; {:?}",
        fleet.sim.rate_limited(),
        took.as_secs_f64(),
        100.0 * f64::from(u32::try_from(used).unwrap()) / granted,
        fleet.losses(),
        tally.answers
    );
    assert_eq!(fleet.sim.rate_limited(), 0, "{:?}", tally.answers);
    let other = tally.answers.keys().find(|(status, code)| *status != 200 && code != "GATEWAY_UPSTREAM_BUDGET");
    assert_eq!(other, None, "{:?}", tally.answers);
    assert!(tally.of(200) > 0, "{:?}", tally.answers);
}

/// Stops each gateway at random moments for up to `longest`.
fn stop_at_random(fleet: &Fleet, longest: Duration) {
    let start = Instant::now();
    std::thread::scope(|scope| {
        for (seed, gateway) in (1..).zip(&fleet.gateways) {
            scope.spawn(move || {
                let mut random = Random::new(seed);
                while start.elapsed() < length() {
                    pass(Duration::from_secs_f64(random.unit() * 3.0));
                    gateway.signal("-STOP");
                    pass(longest.mul_f64(0.05 + 0.95 * random.unit()));
                    gateway.signal("-CONT");
                }
            });
        }
    });
}

/// Starts a fleet with proxies to the store. Each proxy delays packets by its own time, up to half of `farthest`.
fn start_far(farthest: Duration, redis: &Redis, store: &str) -> (Fleet, Vec<Proxy>) {
    let proxies: Vec<Proxy> = (0..8).map(|_| Proxy::to(redis.port)).collect();
    let fleet = Fleet::start(&terms(), |index| format!("redis = \"{}\"\n{store}", proxies[index].url()));
    wait_for_joins(&fleet);
    let mut random = Random::new(5);
    let least = Duration::from_millis(20);
    for proxy in &proxies {
        proxy.slow(least + (farthest / 2).saturating_sub(least).mul_f64(random.unit()));
    }
    (fleet, proxies)
}

#[test]
fn never_exceeds_the_limit_when_gateways_stop() {
    let redis = Redis::start();
    let fleet = Fleet::start(&terms(), |_| format!("redis = \"{}\"", redis.url()));
    overload("stops of up to 2 s", &fleet, || stop_at_random(&fleet, Duration::from_secs(2)));
}

#[test]
fn never_exceeds_the_limit_when_gateways_stop_with_a_long_timeout() {
    let redis = Redis::start();
    let fleet = Fleet::start(&terms(), |_| format!("redis = \"{}\"\ntimeout = \"500ms\"", redis.url()));
    overload("stops of up to 2 s, timeout 500 ms", &fleet, || stop_at_random(&fleet, Duration::from_secs(2)));
}

#[test]
fn never_exceeds_the_limit_with_a_tenth_of_a_processor() {
    let redis = Redis::start();
    let fleet = Fleet::start(&terms(), |_| format!("redis = \"{}\"\ntimeout = \"250ms\"", redis.url()));
    wait_for_joins(&fleet);
    let limits: Vec<_> = fleet.gateways.iter().map(|gateway| CpuLimit::of(gateway.pid(), 10)).collect();
    overload("CPU quotas of 10 %", &fleet, || {});
    drop(limits);
}

#[test]
fn never_exceeds_the_limit_with_a_distant_store() {
    let redis = Redis::start();
    let (fleet, _proxies) = start_far(Duration::from_millis(200), &redis, "timeout = \"500ms\"");
    overload("a store 40 to 200 ms away, timeout 500 ms", &fleet, || {});
}

#[test]
fn never_exceeds_the_limit_with_a_store_beyond_its_timeout() {
    let redis = Redis::start();
    let (fleet, proxies) = start_far(Duration::from_millis(200), &redis, "");
    overload("a store 40 to 200 ms away, at times", &fleet, || {
        let (start, mut random) = (Instant::now(), Random::new(9));
        while start.elapsed() < length() {
            let proxy = &proxies[random.below(proxies.len())];
            let delay = if random.below(2) == 0 { 0 } else { 20 + random.below(80) as u64 };
            proxy.slow(Duration::from_millis(delay));
            pass(Duration::from_millis(100));
        }
    });
}
