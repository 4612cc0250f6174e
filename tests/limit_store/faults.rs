//! The store fails while eight gateways are at work: nobody is failed for it, and Cal.com never has to say no.

use std::time::Duration;

use super::{degraded, joined};
use crate::harness::{Fleet, Proxy, Redis, Terms, Watched, eventually, time_limit};

const WINDOW: Duration = Duration::from_secs(4);

/// A fleet whose gateways each reach the store by a way of their own.
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
        joined(&fleet);
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

/// Nine tenths of what Cal.com grants, while `meanwhile` goes on; that harms nobody.
fn busy(fleet: &Fleet, length: Duration, meanwhile: impl FnOnce()) {
    let tally = fleet.load(36, Duration::from_millis(1950), length, meanwhile);
    println!("{:?}, p99 {:?}", tally.answers, tally.p99());
    assert_eq!(fleet.sim.rate_limited(), 0, "{:?}", tally.answers);
    let told = tally.answers.keys().find(|(status, code)| *status != 200 && code != "GATEWAY_UPSTREAM_BUDGET");
    assert_eq!(told, None, "{:?}", tally.answers);
}

/// Waits until Cal.com has received that many more requests: 20 a second are granted.
fn served(fleet: &Fleet, requests: usize) {
    let until = fleet.sim.seen_count() + requests;
    eventually("requests", || (fleet.sim.seen_count() >= until).then_some(()));
}

#[test]
fn the_store_is_frozen_and_comes_back() {
    let mut site = Site::start();
    site.busy(WINDOW * 4, |redis, _, fleet| {
        served(fleet, 60);
        redis.signal("-STOP");
        degraded(fleet, 8);
        let ready = fleet.gateways[0].ask_admin("GET /readyz", &[]);
        assert_eq!(ready.status, 200);
        assert!(ready.text().starts_with("degraded"), "{}", ready.text());
        served(fleet, 80);
        redis.signal("-CONT");
        degraded(fleet, 0);
    });
}

#[test]
fn the_store_is_killed_and_comes_back_empty() {
    let mut site = Site::start();
    site.busy(WINDOW * 4, |redis, _, fleet| {
        served(fleet, 60);
        redis.kill();
        degraded(fleet, 8);
        served(fleet, 60);
        redis.restart();
        degraded(fleet, 0);
        redis.kill();
        redis.restart();
    });
}

#[test]
fn the_store_is_slow() {
    let mut site = Site::start();
    site.busy(WINDOW * 4, |_, proxies, fleet| {
        served(fleet, 60);
        for proxy in proxies {
            proxy.slow(Duration::from_millis(200));
        }
        degraded(fleet, 8);
        served(fleet, 80);
        proxies.iter().for_each(Proxy::mend);
        degraded(fleet, 0);
    });
}

#[test]
fn one_gateway_is_cut_off_from_the_store_and_the_others_are_not() {
    let mut site = Site::start();
    site.busy(WINDOW * 4, |_, proxies, fleet| {
        served(fleet, 60);
        proxies[3].cut();
        degraded(fleet, 1);
        served(fleet, 120);
        proxies[3].mend();
        degraded(fleet, 0);
    });
}

/// The second gateway reaches the store only when the first one, which was alone there, has lost it. It uses what it may of Cal.com's
/// window, and then the first one, which knows nothing of that, is asked for as much as was left of it.
#[test]
fn a_gateway_joins_while_the_one_that_was_alone_is_cut_off() {
    const LIMIT: usize = 120;
    let redis = Redis::start();
    let proxies: Vec<Proxy> = (0..2).map(|_| Proxy::to(redis.port)).collect();
    proxies[1].cut();
    let terms = Terms { gateways: 2, limit: 120, window: Duration::from_secs(30), ..terms() };
    let fleet = Fleet::start(&terms, |index| format!("redis = \"{}\"", proxies[index].url()));
    degraded(&fleet, 1);
    assert_eq!(fleet.ask(0), (200, String::new()), "Cal.com's window begins");
    proxies[0].cut();
    degraded(&fleet, 2);
    proxies[1].mend();
    degraded(&fleet, 1);
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
fn the_store_fails_over_to_its_replica() {
    let mut watched = Watched::start();
    let fleet = Fleet::start(&terms(), |_| watched.config());
    joined(&fleet);
    busy(&fleet, WINDOW * 3, || {
        served(&fleet, 60);
        watched.primary.kill();
        degraded(&fleet, 8);
        watched.replica_took_over();
        degraded(&fleet, 0);
    });
    assert!(fleet.losses() >= 8);
}

/// The clock of one gateway's process is set forward by a day, and then back by two; its steady clock goes on, as it does where a
/// machine's clock is set. libfaketime tells the process so.
#[test]
fn the_clock_of_one_gateway_is_set() {
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
    // The longest timeout: a busy machine is late without any clock that is set.
    let store = |_| format!("redis = \"{}\"\ntimeout = \"500ms\"", redis.url());
    let fleet = Fleet::start_with_env(&terms(), store, |index| if index == 3 { faked() } else { Vec::new() });
    joined(&fleet);
    busy(&fleet, WINDOW * 2, || {
        let real = fleet.time_of(0);
        for (offset, seconds) in [("+1d", 86_400), ("-1d", -86_400)] {
            served(&fleet, 40);
            set(offset);
            let apart = fleet.time_of(3) - real;
            assert!((apart - seconds).abs() < 600, "{apart} s apart");
        }
    });
    assert_eq!(fleet.losses(), 0);
}
