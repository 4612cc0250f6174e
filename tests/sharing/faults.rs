//! The store fails while eight gateways are at work: nobody is failed for it, and Cal.com never has to say no.

use std::time::Duration;

use super::{degraded, joined};
use crate::harness::{Fleet, Proxy, Redis, Tally, Terms};

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
        let terms = Terms {
            gateways: 8,
            limit: 80,
            window: WINDOW,
            quirk: false,
            config: "[limits]\nupstream_connect = \"500ms\"\nupstream_headers = \"1s\"".to_owned(),
            per_minute: 1_000_000,
        };
        let fleet = Fleet::start(&terms, |index| format!("redis = \"{}\"", proxies[index].url()));
        joined(&fleet);
        Self { redis, proxies, fleet }
    }

    /// Nine tenths of what Cal.com grants, while `meanwhile` goes on.
    fn busy(&mut self, length: Duration, meanwhile: impl FnOnce(&mut Redis, &[Proxy], &Fleet)) -> Tally {
        let (redis, proxies, fleet) = (&mut self.redis, &self.proxies, &self.fleet);
        let tally = fleet.load(36, Duration::from_millis(1950), length, || meanwhile(redis, proxies, fleet));
        println!("{:?}, p99 {:?}", tally.answers, tally.p99());
        assert_eq!(fleet.sim.rate_limited(), 0, "{:?}", tally.answers);
        let told = tally.answers.keys().find(|(status, code)| *status != 200 && code != "GATEWAY_UPSTREAM_BUDGET");
        assert_eq!(told, None, "{:?}", tally.answers);
        tally
    }
}

fn pause(seconds: u64) {
    std::thread::sleep(Duration::from_secs(seconds));
}

#[test]
fn the_store_is_frozen_and_comes_back() {
    let mut site = Site::start();
    site.busy(WINDOW * 4, |redis, _, fleet| {
        pause(3);
        redis.signal("-STOP");
        degraded(fleet, 8);
        let ready = fleet.gateways[0].ask_admin("GET /readyz", &[]);
        assert_eq!(ready.status, 200);
        assert!(ready.text().starts_with("degraded"), "{}", ready.text());
        pause(4);
        redis.signal("-CONT");
        degraded(fleet, 0);
    });
}

#[test]
fn the_store_is_killed_and_comes_back_empty() {
    let mut site = Site::start();
    site.busy(WINDOW * 4, |redis, _, fleet| {
        pause(3);
        redis.kill();
        degraded(fleet, 8);
        pause(3);
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
        pause(3);
        for proxy in proxies {
            proxy.slow(Duration::from_millis(200));
        }
        degraded(fleet, 8);
        pause(4);
        proxies.iter().for_each(Proxy::mend);
        degraded(fleet, 0);
    });
}

#[test]
fn one_gateway_is_cut_off_from_the_store_and_the_others_are_not() {
    let mut site = Site::start();
    site.busy(WINDOW * 4, |_, proxies, fleet| {
        pause(3);
        proxies[3].cut();
        degraded(fleet, 1);
        pause(6);
        proxies[3].mend();
        degraded(fleet, 0);
    });
}
