//! Consumers' buckets while the store is late, unavailable and back. No token is used twice.

use std::time::{Duration, Instant};

use calgate::limit_store::CALL_TIMEOUT;

use super::{wait_for_degraded, wait_for_joins};
use crate::harness::{Fleet, Proxy, Redis, Terms, eventually, time_limit};

/// Two gateways, each behind its own proxy to one store. They share a consumer's four requests, and one more every 15 s.
struct Pair {
    redis: Redis,
    proxies: [Proxy; 2],
    fleet: Fleet,
}

const FIRST: usize = 0;
const SECOND: usize = 1;
const LOST: &str = "GATEWAY_STORE_LOST";
const LIMITED: &str = "GATEWAY_RATE_LIMITED";

impl Pair {
    fn start(on_loss: &str, mode: &str) -> Self {
        let redis = Redis::start();
        let proxies = [Proxy::to(redis.port), Proxy::to(redis.port)];
        let terms = Terms {
            gateways: 2,
            limit: 100_000,
            window: Duration::from_secs(60),
            quirk: false,
            others: 0,
            config: format!(
                "mode = \"{mode}\"\n[limits]\nupstream_connect = \"500ms\"\nupstream_headers = \"{}\"",
                time_limit(500)
            ),
            per_minute: 4,
        };
        let fleet =
            Fleet::start(&terms, |index| format!("on_loss = \"{on_loss}\"\nredis = \"{}\"", proxies[index].url()));
        wait_for_joins(&fleet);
        Self { redis, proxies, fleet }
    }

    /// Checks that one gateway admits `count` requests.
    fn check_admitted(&self, gateway: usize, count: usize) {
        for number in 1..=count {
            assert_eq!(self.fleet.ask(gateway), (200, String::new()), "request {number} of {count}");
        }
    }

    /// Checks that one gateway rejects the next request.
    fn check_rejected(&self, gateway: usize, status: u16, code: &str) {
        assert_eq!(self.fleet.ask(gateway), (status, code.to_owned()));
    }

    fn kill_store(&mut self) {
        self.redis.kill();
        wait_for_degraded(&self.fleet, 2);
    }

    /// Starts the store again, empty.
    fn restart_store(&mut self) {
        self.redis.restart();
        wait_for_degraded(&self.fleet, 0);
        for gateway in &self.fleet.gateways {
            gateway.wait_for_log("limit store is back");
        }
    }

    /// Checks that each gateway has logged the loss and its effect on consumers, at that level.
    fn check_logged_loss(&self, level: &str, outcome: &str) {
        for gateway in &self.fleet.gateways {
            let line = gateway.wait_for_log("limit store unavailable");
            assert!(line.contains(&format!(r#""level":"{level}""#)) && line.contains(outcome), "{line}");
            assert!(gateway.metric("calgate_sharing_losses", "") > 0);
        }
    }
}

/// Returns the response of the second gateway to a request whose reply from the store is late. `None` if a busy machine was so
/// late that the gateway no longer waited.
fn response_after_late_reply(mode: &str) -> Option<(u16, String)> {
    let pair = Pair::start("local", mode);
    pair.check_admitted(SECOND, 1);
    pair.check_admitted(FIRST, 3);
    // The second gateway last heard that three are left.
    let failures = || pair.fleet.gateways[SECOND].metric("calgate_sharing_failures", "");
    let before = failures();
    pair.proxies[SECOND].hold();
    let asked = Instant::now();
    std::thread::scope(|scope| {
        let late = scope.spawn(|| (pair.fleet.ask(SECOND), asked.elapsed()));
        eventually("a call that is late", || (failures() > before).then_some(()));
        pair.proxies[SECOND].mend();
        let (answer, took) = late.join().unwrap();
        (took < CALL_TIMEOUT * 2).then_some(answer)
    })
}

fn check_late_denial(mode: &str) {
    let answer = (0..10).find_map(|_| response_after_late_reply(mode)).expect("one of ten answers is not too late");
    assert_eq!(answer, (429, LIMITED.to_owned()));
}

#[test]
fn obeys_a_late_denial_of_a_bucket() {
    check_late_denial("off");
}

#[test]
fn obeys_a_late_denial_of_a_call_for_bucket_and_budget() {
    check_late_denial("enforce");
}

#[test]
fn headers_show_the_shared_bucket_after_the_request() {
    for mode in ["off", "observe", "enforce"] {
        let pair = Pair::start("local", mode);
        let standing = |gateway: usize| {
            let answer = pair.fleet.answer(gateway);
            let number = |name| answer.header(name).unwrap().parse::<u64>().unwrap();
            let (remaining, reset) = (number("x-ratelimit-remaining-default"), number("x-ratelimit-reset-default"));
            assert_eq!(answer.header("ratelimit"), Some(&*format!("\"default\";r={remaining};t={reset}")));
            (answer.status, remaining, reset > 15)
        };
        assert_eq!(standing(FIRST), (200, 3, false), "{mode}");
        assert_eq!([2, 1, 0].map(|_| standing(FIRST)), [2, 1, 0].map(|left| (200, left, true)), "{mode}");
        assert_eq!(standing(SECOND), (429, 0, true), "{mode}");
    }
}

#[test]
fn a_gateway_that_joins_again_charges_the_shared_bucket() {
    let pair = Pair::start("local", "enforce");
    pair.check_admitted(SECOND, 1);
    pair.check_admitted(FIRST, 3);
    let keys = pair.redis.cli(&["keys", "*:joined"]);
    for key in keys.lines() {
        pair.redis.cli(&["del", key]);
    }
    pair.check_rejected(SECOND, 429, LIMITED);
}

#[test]
fn local_mode_gives_each_gateway_a_whole_bucket_and_reports_charges() {
    let mut pair = Pair::start("local", "enforce");
    pair.check_admitted(FIRST, 1);
    pair.kill_store();
    // It continues from the last reply.
    pair.check_admitted(FIRST, 3);
    pair.check_rejected(FIRST, 429, LIMITED);
    pair.check_admitted(SECOND, 2);
    pair.restart_store();
    pair.check_rejected(SECOND, 429, LIMITED);
    // The store counts what Cal.com received meanwhile, too, for a minute.
    eventually("six requests in the store's log", || {
        let counts = pair.redis.cli(&["keys", "calgate:*:log"]);
        let counts = counts.lines().map(|key| pair.redis.cli(&["zcard", key]).trim().parse::<u32>().unwrap());
        (counts.sum::<u32>() == 6).then_some(())
    });
}

#[test]
fn local_mode_continues_from_the_last_denial() {
    let mut pair = Pair::start("local", "enforce");
    pair.check_admitted(SECOND, 4);
    pair.check_rejected(FIRST, 429, LIMITED);
    pair.kill_store();
    pair.check_rejected(FIRST, 429, LIMITED);
}

#[test]
fn share_mode_gives_each_gateway_an_equal_part() {
    let mut pair = Pair::start("share", "enforce");
    pair.kill_store();
    pair.check_logged_loss("WARN", "each gateway limits on its own");
    pair.check_admitted(FIRST, 2);
    pair.check_rejected(FIRST, 429, LIMITED);
    pair.check_admitted(SECOND, 1);
    pair.restart_store();
    // Three of four are used. The store decides again who gets the last one.
    pair.check_admitted(FIRST, 1);
    pair.check_rejected(SECOND, 429, LIMITED);
}

#[test]
fn closed_mode_rejects_all_requests() {
    let mut pair = Pair::start("closed", "enforce");
    pair.check_admitted(FIRST, 1);
    pair.kill_store();
    pair.check_logged_loss("ERROR", "rejecting consumers");
    pair.check_rejected(FIRST, 503, LOST);
    pair.check_rejected(SECOND, 503, LOST);
    pair.restart_store();
    pair.check_admitted(SECOND, 4);
    pair.check_rejected(FIRST, 429, LIMITED);
}
