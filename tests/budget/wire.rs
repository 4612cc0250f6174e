//! The program against a simulated Cal.com, in real time and with a short window.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::cal_sim::Sim;
use crate::cal_sim::options::{DEMO_API_KEY, Limits, Options};
use crate::harness::{Gateway, Key, Setup, Upstream, eventually, pass, scaled};

const WINDOW: Duration = Duration::from_secs(3);
/// Limit of a window.
const LIMIT: u32 = 60;

fn cal_com(foreign: u32, window: Duration) -> Sim {
    let limits = Limits {
        window,
        block: window,
        api_key: vec![("Default".to_owned(), LIMIT)],
        foreign_per_minute: foreign,
        ..Limits::default()
    };
    let (latency, jitter) = (Duration::from_millis(10), Duration::from_millis(10));
    Sim::start(Options { latency, jitter, limits, ..Options::default() }).unwrap()
}

/// One consumer for each of `keys`, which share a credential.
fn gateway(sim: &Sim, keys: &[Key], window: Duration, budget: &str) -> Gateway {
    let (window, per_minute) = (window.as_millis(), u128::from(LIMIT) * 60_000 / window.as_millis());
    let mut config = format!(
        "[budget]\nwindow = \"{window}ms\"\n{budget}\n[tiers.roomy]\nrequests_per_minute = 100000\n\
         [credentials.main]\nkind = \"api-key\"\napi_key = {{ env = \"CAL_KEY\" }}\nplan = \"unrestricted\"\n\
         requests_per_minute = {per_minute}\n"
    );
    for (n, key) in keys.iter().enumerate() {
        config += &format!("[consumers.c{n}]\nkeys = [\"{}\"]\ncredential = \"main\"\ntier = \"roomy\"\n", key.hash);
    }
    Setup::to(&sim.base_url()).with(&config).env("CAL_KEY", DEMO_API_KEY).start()
}

fn own(key: &Key) -> String {
    format!("X-Api-Key: {}", key.text)
}

/// Keeps three times the limit waiting for four windows. Returns the served requests of each consumer.
fn under_three_times_the_load() -> [u64; 2] {
    let (sim, keys) = (cal_com(0, WINDOW), [Key::new(), Key::new()]);
    let gateway = gateway(&sim, &keys, WINDOW, "max_wait = \"2s\"");
    let served = [AtomicU64::new(0), AtomicU64::new(0)];
    let until = Instant::now() + WINDOW * 4;
    std::thread::scope(|scope| {
        // Each sends its next request at once: far more than the limit. After a refusal it waits a little.
        for n in 0..48 {
            let (gateway, key, served) = (&gateway, &keys[n % 2], &served[n % 2]);
            scope.spawn(move || {
                let mut connection = gateway.connect();
                while Instant::now() < until {
                    let answer = connection.ask("GET /v2/me", &[&own(key)]);
                    match (answer.status, answer.code()) {
                        (200, None) => drop(served.fetch_add(1, Ordering::Relaxed)),
                        (429, Some("GATEWAY_UPSTREAM_BUDGET")) => pass(Duration::from_millis(200)),
                        other => panic!("{other:?}"),
                    }
                }
            });
        }
    });
    assert_eq!((sim.rate_limited(), gateway.metric("calgate_upstream_429_total", "")), (0, 0));
    assert_eq!(gateway.metric("calgate_budget_in_flight", "main"), 0);
    served.map(AtomicU64::into_inner)
}

#[test]
fn under_three_times_the_load_there_is_no_429() {
    let [one, two] = under_three_times_the_load();
    assert!(one > 0 && two > 0, "{one} and {two}");
}

#[test]
#[ignore = "measures throughput: make test-quiet"]
fn under_three_times_the_load_next_to_nothing_is_left_unused() {
    let [one, two] = under_three_times_the_load();
    let granted = u64::from(LIMIT) * 4;
    assert!(one + two >= granted * 95 / 100, "{one} + {two} of {granted}");
    assert!(one.abs_diff(two) * 10 <= one + two, "{one} and {two} should be equal");
}

#[test]
fn the_access_log_and_the_metrics_report_waits() {
    // All requests of a window have to be sent within it.
    let window = scaled(Duration::from_secs(2));
    let (sim, keys) = (cal_com(0, window), [Key::new()]);
    let gateway = gateway(&sim, &keys, window, "max_wait = \"1h\"");
    let mut connection = gateway.connect();
    assert_eq!(connection.ask("GET /v2/me", &[&own(&keys[0])]).status, 200);
    std::thread::scope(|scope| {
        for _ in 1..LIMIT {
            scope.spawn(|| assert_eq!(gateway.ask("GET /v2/me", &[&own(&keys[0])]).status, 200));
        }
    });
    let refused = connection.ask("GET /v2/me", &[&own(&keys[0]), "X-Calgate-Max-Wait: 1ms"]);
    assert_eq!((refused.status, refused.code()), (429, Some("GATEWAY_UPSTREAM_BUDGET")));
    let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=window.as_secs() + 1).contains(&seconds), "{seconds}");
    assert_eq!(connection.ask("GET /v2/me", &[&own(&keys[0])]).status, 200, "it waits for the next window");
    let log = gateway.access_log(LIMIT as usize + 2);
    let (refused, waited) = (&log[LIMIT as usize], &log[LIMIT as usize + 1]);
    assert_eq!((&refused["held_by"], &refused["credential"]), (&"requests".into(), &"main".into()));
    assert!(waited["held_ms"].as_f64().unwrap() > 0.0, "{waited}");
    assert!(log[0].get("held_by").is_none());
    assert_eq!(gateway.metric("calgate_budget_held_total", "requests"), 2);
    assert_eq!(gateway.metric("calgate_budget_limit", "main"), u64::from(LIMIT));
    assert_eq!(sim.rate_limited(), 0);
}

#[test]
fn the_metrics_report_other_clients_of_the_credential() {
    let (sim, keys) = (cal_com(240, WINDOW), [Key::new()]);
    let gateway = gateway(&sim, &keys, WINDOW, "");
    eventually("others in the metrics", || {
        assert_eq!(gateway.ask("GET /v2/me", &[&own(&keys[0])]).status, 200);
        (gateway.metric("calgate_budget_foreign", "main") > 0).then_some(())
    });
    assert_eq!(sim.rate_limited(), 0);
}

#[test]
fn an_invalid_max_wait_is_a_bad_request_and_is_not_forwarded() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let gateway = Setup::to(&upstream.base_url()).billing("teams", &key).start();
    for (wait, status) in [("soon", 400), ("-1", 400), ("", 400), ("2s", 200), ("250ms", 200), ("0", 200)] {
        let wait = format!("X-Calgate-Max-Wait: {wait}");
        assert_eq!(gateway.ask("GET /v2/me", &[&own(&key), &wait]).status, status, "{wait}");
    }
    assert!(upstream.requests().iter().all(|asked| asked.headers("x-calgate-max-wait").is_empty()));
}

#[test]
fn an_unexpected_429_stops_all_requests_until_the_block_ends() {
    let refusal = "HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\
        X-RateLimit-Limit-Default: 120\r\nX-RateLimit-Remaining-Default: 0\r\nX-RateLimit-Reset-Default: 40\r\n\r\n{}";
    let (upstream, key) = (Upstream::answering(|_| refusal.into()), Key::new());
    let gateway = Setup::to(&upstream.base_url()).billing("teams", &key).start();
    for _ in 0..3 {
        let answer = gateway.ask("GET /v2/me", &[&own(&key)]);
        assert_eq!((answer.status, answer.code()), (429, Some("GATEWAY_UPSTREAM_BUDGET")));
        let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((30..=43).contains(&seconds), "{seconds}");
    }
    assert_eq!(upstream.requests().len(), 1, "what follows is not sent");
    assert_eq!(gateway.metric("calgate_upstream_429_total", ""), 1);
    let logged = gateway.wait_for_log("Cal.com's limiter refused a request");
    assert!(logged.contains(r#""credential":"main""#) && logged.contains(r#""by":"refused""#), "{logged}");
    let question = r#"{"consumer": "billing", "method": "GET", "path": "/v2/me"}"#;
    let explained = crate::harness::RawConnection::connect(gateway.admin).ask_with(
        "POST /explain",
        &["Content-Type: application/json"],
        question,
    );
    assert_eq!(explained.json()["budget"]["held_by"], "refused");
}

#[test]
fn a_caller_that_disconnects_releases_its_place() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let gateway = Setup::to(&upstream.base_url()).billing("teams", &key).start();
    gateway.reload(|text| {
        text.replace("requests_per_minute = 100000\n[tiers", "requests_per_minute = 2\nlearn_limit = true\n[tiers")
            .replace("tier = \"roomy\"", "tier = \"patient\"")
            + "[tiers.patient]\nrequests_per_minute = 9000\nmax_wait = \"10m\"\n"
    });
    let waiting = || gateway.metric("calgate_budget_waiting", "main");
    for _ in 0..2 {
        assert_eq!(gateway.ask("GET /v2/me", &[&own(&key)]).status, 200);
    }
    let mut connection = gateway.connect();
    connection.send(format!("GET /v2/me HTTP/1.1\r\nHost: gateway\r\n{}\r\n\r\n", own(&key)));
    crate::harness::eventually("waiting", || (waiting() == 1).then_some(()));
    connection.reset();
    crate::harness::eventually("leaving", || (waiting() == 0).then_some(()));
    assert_eq!(upstream.requests().len(), 2);
}
