//! Failures of the store under the load of eight gateways. No request fails for it, and Cal.com never answers 429.

use std::time::Duration;

use super::{wait_for_degraded, wait_for_joins};
use crate::harness::{Fleet, Proxy, Redis, ReplicatedRedis, Terms, eventually, time_limit};

const WINDOW: Duration = Duration::from_secs(4);

/// Fleet whose gateways each have their own proxy to the store.
struct Site {
    redis: Redis,
    proxies: Vec<Proxy>,
    fleet: Fleet,
}

impl Site {
    fn start() -> Self {
        let redis = Redis::start();
        let proxies: Vec<Proxy> = (0..8).map(|_| Proxy::to(redis.port)).collect();
        let fleet = Fleet::start(&terms(), |index| format!("redis = \"{}\"", proxies[index].url()));
        wait_for_joins(&fleet);
        Self { redis, proxies, fleet }
    }

    fn busy(&mut self, length: Duration, meanwhile: impl FnOnce(&mut Redis, &[Proxy], &Fleet)) {
        let (redis, proxies, fleet) = (&mut self.redis, &self.proxies, &self.fleet);
        busy(fleet, length, || meanwhile(redis, proxies, fleet));
    }
}

fn terms() -> Terms {
    Terms {
        gateways: 8,
        limit: 80,
        window: WINDOW,
        quirk: false,
        others: 0,
        config: format!("[limits]\nupstream_connect = \"500ms\"\nupstream_headers = \"{}\"", time_limit(500)),
        per_minute: 1_000_000,
    }
}

/// Sends nine tenths of what Cal.com grants while `meanwhile` runs. Checks that no request fails.
fn busy(fleet: &Fleet, length: Duration, meanwhile: impl FnOnce()) {
    let tally = fleet.load(36, Duration::from_millis(1950), length, meanwhile);
    println!("{:?}, p99 {:?}", tally.answers, tally.p99());
    assert_eq!(fleet.sim.rate_limited(), 0, "{:?}", tally.answers);
    let failed = tally.answers.keys().find(|(status, code)| *status != 200 && code != "GATEWAY_UPSTREAM_BUDGET");
    assert_eq!(failed, None, "{:?}", tally.answers);
}

/// Waits until Cal.com has received that many more requests. It grants 20 a second.
fn wait_for_requests(fleet: &Fleet, requests: usize) {
    let until = fleet.sim.seen_count() + requests;
    eventually("requests", || (fleet.sim.seen_count() >= until).then_some(()));
}

#[test]
fn survives_a_frozen_store() {
    let mut site = Site::start();
    site.busy(WINDOW * 4, |redis, _, fleet| {
        wait_for_requests(fleet, 60);
        redis.signal("-STOP");
        wait_for_degraded(fleet, 8);
        let ready = fleet.gateways[0].ask_admin("GET /readyz", &[]);
        assert_eq!(ready.status, 200);
        assert!(ready.text().starts_with("degraded"), "{}", ready.text());
        wait_for_requests(fleet, 80);
        redis.signal("-CONT");
        wait_for_degraded(fleet, 0);
    });
}

#[test]
fn survives_a_store_that_comes_back_empty() {
    let mut site = Site::start();
    site.busy(WINDOW * 4, |redis, _, fleet| {
        wait_for_requests(fleet, 60);
        redis.kill();
        wait_for_degraded(fleet, 8);
        wait_for_requests(fleet, 60);
        redis.restart();
        wait_for_degraded(fleet, 0);
        redis.kill();
        redis.restart();
    });
}

#[test]
fn survives_a_slow_store() {
    let mut site = Site::start();
    site.busy(WINDOW * 4, |_, proxies, fleet| {
        wait_for_requests(fleet, 60);
        for proxy in proxies {
            proxy.slow(Duration::from_millis(200));
        }
        wait_for_degraded(fleet, 8);
        wait_for_requests(fleet, 80);
        proxies.iter().for_each(Proxy::mend);
        wait_for_degraded(fleet, 0);
    });
}

#[test]
fn survives_the_cut_off_of_one_gateway() {
    let mut site = Site::start();
    site.busy(WINDOW * 4, |_, proxies, fleet| {
        wait_for_requests(fleet, 60);
        proxies[3].cut();
        wait_for_degraded(fleet, 1);
        wait_for_requests(fleet, 120);
        proxies[3].mend();
        wait_for_degraded(fleet, 0);
    });
}

/// The second gateway reaches the store only after the first one, which was alone, has lost it. The second uses all that it
/// may of Cal.com's window. Then clients ask the first one, which does not know that, for as much as was left.
#[test]
fn a_gateway_joins_while_the_only_other_one_is_cut_off() {
    const LIMIT: usize = 120;
    let redis = Redis::start();
    let proxies: Vec<Proxy> = (0..2).map(|_| Proxy::to(redis.port)).collect();
    proxies[1].cut();
    let terms = Terms { gateways: 2, limit: 120, window: Duration::from_secs(30), ..terms() };
    let fleet = Fleet::start(&terms, |index| format!("redis = \"{}\"", proxies[index].url()));
    wait_for_degraded(&fleet, 1);
    assert_eq!(fleet.ask(0), (200, String::new()), "Cal.com's window begins");
    proxies[0].cut();
    wait_for_degraded(&fleet, 2);
    proxies[1].mend();
    wait_for_degraded(&fleet, 1);
    let served = |gateway| {
        let ask = |_| fleet.ask(gateway).0 == 200;
        std::thread::scope(|scope| {
            let callers: Vec<_> = (0..LIMIT).map(|caller| scope.spawn(move || ask(caller))).collect();
            callers.into_iter().map(|caller| usize::from(caller.join().unwrap())).sum::<usize>()
        })
    };
    let (second, first) = (served(1), served(0));
    println!("{second} and {first} served, {} of Cal.com's 429s", fleet.sim.rate_limited());
    assert_eq!(fleet.sim.rate_limited(), 0);
    assert!(second > 0 && first > 0 && second + first < LIMIT, "{second} and {first}");
}

#[test]
fn survives_a_failover_to_the_replica() {
    let mut watched = ReplicatedRedis::start();
    let fleet = Fleet::start(&terms(), |_| watched.config());
    wait_for_joins(&fleet);
    busy(&fleet, WINDOW * 3, || {
        wait_for_requests(&fleet, 60);
        watched.primary.kill();
        wait_for_degraded(&fleet, 8);
        watched.wait_for_failover();
        wait_for_degraded(&fleet, 0);
    });
    assert!(fleet.losses() >= 8);
}

/// Sets the time of day of one gateway forward by a day, then back by two, with libfaketime. Its monotonic clock goes on, as on
/// a machine whose time of day is set.
#[test]
fn survives_a_changed_time_of_day() {
    let redis = Redis::start();
    let folder = tempfile::tempdir().unwrap();
    let clock = folder.path().join("clock");
    let set = |offset: &str| {
        std::fs::write(clock.with_extension("new"), offset).unwrap();
        std::fs::rename(clock.with_extension("new"), &clock).unwrap();
    };
    set("+0");
    let libraries = std::fs::read_dir("/usr/lib").unwrap().map(|entry| entry.unwrap().path());
    let library = libraries.map(|path| path.join("faketime/libfaketimeMT.so.1")).find(|path| path.exists());
    let library = library.expect("libfaketime is there; scripts/test-deps installs it");
    let faked = || {
        vec![
            ("LD_PRELOAD", library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", clock.display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
    };
    // The longest timeout, because a busy machine may be late for other reasons.
    let store = |_| format!("redis = \"{}\"\ntimeout = \"500ms\"", redis.url());
    let fleet = Fleet::start_with_env(&terms(), store, |index| if index == 3 { faked() } else { Vec::new() });
    wait_for_joins(&fleet);
    busy(&fleet, WINDOW * 2, || {
        let real = fleet.time_of(0);
        for (offset, seconds) in [("+1d", 86_400), ("-1d", -86_400)] {
            wait_for_requests(&fleet, 40);
            set(offset);
            let apart = fleet.time_of(3) - real;
            assert!((apart - seconds).abs() < 600, "{apart} s apart");
        }
    });
    assert_eq!(fleet.losses(), 0);
}
