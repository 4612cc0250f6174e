//! Consumers' buckets while the store is late, lost and back: what it has not said is not handed out twice.

use std::time::{Duration, Instant};

use calgate::limit_store::CALL_TIMEOUT;

use super::{degraded, joined};
use crate::harness::{Fleet, Proxy, Redis, Terms, eventually, time_limit};

/// Two gateways with ways of their own to one store, which share a consumer's four requests; one more comes back in 15 s.
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
        joined(&fleet);
        Self { redis, proxies, fleet }
    }

    /// So many requests of one gateway are let through.
    fn passes(&self, gateway: usize, count: usize) {
        for number in 1..=count {
            assert_eq!(self.fleet.ask(gateway), (200, String::new()), "request {number} of {count}");
        }
    }

    /// The next one is not.
    fn refuses(&self, gateway: usize, status: u16, code: &str) {
        assert_eq!(self.fleet.ask(gateway), (status, code.to_owned()));
    }

    fn lose(&mut self) {
        self.redis.kill();
        degraded(&self.fleet, 2);
    }

    /// The store is there again, and knows nothing.
    fn restore(&mut self) {
        self.redis.restart();
        degraded(&self.fleet, 0);
        for gateway in &self.fleet.gateways {
            gateway.wait_for_log("limit store is back");
        }
    }

    /// Each gateway has written down at that level what becomes of its consumers.
    fn told_of_the_loss(&self, level: &str, outcome: &str) {
        for gateway in &self.fleet.gateways {
            let line = gateway.wait_for_log("limit store unavailable");
            assert!(line.contains(&format!(r#""level":"{level}""#)) && line.contains(outcome), "{line}");
            assert!(gateway.metric("calgate_sharing_losses", "") > 0);
        }
    }
}

/// What the second gateway answers to a request whose answer from the store is late; `None` where that was later than it is waited
/// for, as on a machine that has no time for it.
fn late_answer(mode: &str) -> Option<(u16, String)> {
    let pair = Pair::start("local", mode);
    pair.passes(SECOND, 1);
    pair.passes(FIRST, 3);
    // As far as the second one has been told, three are left.
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

fn what_is_late_is_not_handed_out_from_memory(mode: &str) {
    let answer = (0..10).find_map(|_| late_answer(mode)).expect("one of ten answers is not too late");
    assert_eq!(answer, (429, LIMITED.to_owned()));
}

#[test]
fn a_late_no_is_still_a_no() {
    what_is_late_is_not_handed_out_from_memory("off");
}

#[test]
fn a_late_no_is_still_a_no_where_the_budget_is_asked_along() {
    what_is_late_is_not_handed_out_from_memory("enforce");
}

#[test]
fn callers_are_told_how_the_shared_bucket_stands_after_their_own_request() {
    for mode in ["off", "observe", "enforce"] {
        let pair = Pair::start("local", mode);
        let told = |gateway: usize| {
            let answer = pair.fleet.answer(gateway);
            let number = |name| answer.header(name).unwrap().parse::<u64>().unwrap();
            let (remaining, reset) = (number("x-ratelimit-remaining-default"), number("x-ratelimit-reset-default"));
            assert_eq!(answer.header("ratelimit"), Some(&*format!("\"default\";r={remaining};t={reset}")));
            (answer.status, remaining, reset > 15)
        };
        assert_eq!(told(FIRST), (200, 3, false), "{mode}");
        assert_eq!([2, 1, 0].map(|_| told(FIRST)), [2, 1, 0].map(|left| (200, left, true)), "{mode}");
        assert_eq!(told(SECOND), (429, 0, true), "{mode}");
    }
}

#[test]
fn a_gateway_that_has_to_join_again_asks_the_store_for_tokens_meanwhile() {
    let pair = Pair::start("local", "enforce");
    pair.passes(SECOND, 1);
    pair.passes(FIRST, 3);
    let keys = pair.redis.cli(&["keys", "*:joined"]);
    for key in keys.lines() {
        pair.redis.cli(&["del", key]);
    }
    pair.refuses(SECOND, 429, LIMITED);
}

#[test]
fn without_the_store_each_gateway_has_a_whole_bucket_and_the_store_is_told_of_it() {
    let mut pair = Pair::start("local", "enforce");
    pair.passes(FIRST, 1);
    pair.lose();
    // From what it was last told.
    pair.passes(FIRST, 3);
    pair.refuses(FIRST, 429, LIMITED);
    pair.passes(SECOND, 2);
    pair.restore();
    pair.refuses(SECOND, 429, LIMITED);
    // So it is of what Cal.com has had: that counts for a minute.
    eventually("six requests in the store's log", || {
        let counts = pair.redis.cli(&["keys", "calgate:*:log"]);
        let counts = counts.lines().map(|key| pair.redis.cli(&["zcard", key]).trim().parse::<u32>().unwrap());
        (counts.sum::<u32>() == 6).then_some(())
    });
}

#[test]
fn without_the_store_a_gateway_goes_on_from_the_last_no_it_was_told() {
    let mut pair = Pair::start("local", "enforce");
    pair.passes(SECOND, 4);
    pair.refuses(FIRST, 429, LIMITED);
    pair.lose();
    pair.refuses(FIRST, 429, LIMITED);
}

#[test]
fn without_the_store_each_gateway_has_an_equal_part() {
    let mut pair = Pair::start("share", "enforce");
    pair.lose();
    pair.told_of_the_loss("WARN", "each gateway limits on its own");
    pair.passes(FIRST, 2);
    pair.refuses(FIRST, 429, LIMITED);
    pair.passes(SECOND, 1);
    pair.restore();
    // Of four, three are gone; it is the store again that says to whom the last one goes.
    pair.passes(FIRST, 1);
    pair.refuses(SECOND, 429, LIMITED);
}

#[test]
fn without_the_store_nobody_gets_through() {
    let mut pair = Pair::start("closed", "enforce");
    pair.passes(FIRST, 1);
    pair.lose();
    pair.told_of_the_loss("ERROR", "rejecting consumers");
    pair.refuses(FIRST, 503, LOST);
    pair.refuses(SECOND, 503, LOST);
    pair.restore();
    pair.passes(SECOND, 4);
    pair.refuses(FIRST, 429, LIMITED);
}
