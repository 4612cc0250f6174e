//! Limits of single operations, tested through the program: they never hold the whole credential.

use crate::cal_sim::Sim;
use crate::cal_sim::operations::OperationLimit;
use crate::cal_sim::options::{DEMO_API_KEY, Options};
use crate::credential::rig::SEAL_KEY;
use crate::harness::{Gateway, Key, RawConnection, Redis, Setup, eventually};

/// An operation without a limit in the catalog, and one with a limit.
const UNLISTED: &str = "GET /v2/calendars";
const LISTED: &str = "POST /v2/bookings/x/guests";

fn cal_com(change: impl FnOnce(&mut Options)) -> Sim {
    let mut options = Options::default();
    options.limits.operations.push(OperationLimit::new(UNLISTED, "Calendars_requests", 3));
    change(&mut options);
    Sim::start(options).unwrap()
}

fn gateway(sim: &Sim, key: &Key, more: &str) -> Gateway {
    let config = format!(
        "[tiers.roomy]\nrequests_per_minute = 100000\n\
         [credentials.main]\nkind = \"api-key\"\napi_key = {{ env = \"CAL_KEY\" }}\nplan = \"unrestricted\"\n\
         [consumers.c]\nkeys = [\"{}\"]\ncredential = \"main\"\ntier = \"roomy\"\n{more}",
        key.hash
    );
    Setup::to(&sim.base_url()).with(&config).env("CAL_KEY", DEMO_API_KEY).env("SEAL_KEY", SEAL_KEY).start()
}

/// Returns how often `request` gets a 200 and how often calgate refuses it, of `times` times.
fn ask(gateway: &Gateway, key: &Key, request: &str, times: usize) -> (usize, usize) {
    let own = format!("X-Api-Key: {}", key.text);
    let version = "cal-api-version: 2024-08-13";
    let mut counts = (0, 0);
    for _ in 0..times {
        let answer = gateway.ask(request, &[&own, version, "X-Calgate-Max-Wait: 1s"]);
        match (answer.status, answer.code()) {
            (200, None) => counts.0 += 1,
            (429, Some("GATEWAY_UPSTREAM_BUDGET")) => counts.1 += 1,
            other => panic!("{other:?}"),
        }
    }
    counts
}

#[test]
fn a_limit_learned_from_a_response_applies_to_its_operation() {
    let (sim, key) = (cal_com(|_| {}), Key::new());
    let gateway = gateway(&sim, &key, "");
    assert_eq!(ask(&gateway, &key, UNLISTED, 6), (3, 3), "the first answers that this credential ever had");
    assert_eq!(ask(&gateway, &key, "GET /v2/me", 30), (30, 0));
    assert_eq!(ask(&gateway, &key, UNLISTED, 1), (0, 1));
    assert_eq!((sim.rate_limited(), gateway.metric("calgate_budget_limit", "main")), (0, 120));
    assert_eq!(gateway.metric("calgate_budget_used", "main"), 30, "Cal.com does not count the others there");
}

#[test]
fn a_429_for_one_operation_blocks_that_operation() {
    for (operation, limit) in [(UNLISTED, 3), (LISTED, 5)] {
        let (sim, key) = (cal_com(|_| {}), Key::new());
        let bearer = format!("Authorization: Bearer {DEMO_API_KEY}");
        for _ in 0..limit {
            let used = RawConnection::connect(sim.address()).ask(operation, &[&bearer, "cal-api-version: 2024-08-13"]);
            assert_eq!(used.status, 200, "another program uses the operation up");
        }
        let gateway = gateway(&sim, &key, "");
        assert_eq!(ask(&gateway, &key, operation, 1), (0, 1));
        let logged = gateway.wait_for_log("Cal.com's limiter refused a request");
        assert!(logged.contains(r#""scope":"operation""#), "{logged}");
        let seen = sim.seen_count();
        assert_eq!(ask(&gateway, &key, operation, 2), (0, 2));
        assert_eq!(sim.seen_count(), seen, "it is blocked");
        assert_eq!(ask(&gateway, &key, "GET /v2/me", 10), (10, 0), "and nothing else is");
    }
}

#[test]
fn a_listed_operation_without_a_limit_of_its_own_counts_for_the_credential() {
    let (sim, key) = (cal_com(|options| options.limits.operations.clear()), Key::new());
    let gateway = gateway(&sim, &key, "");
    assert_eq!(ask(&gateway, &key, LISTED, 8), (8, 0), "more than the five of the catalog");
    assert_eq!(gateway.metric("calgate_budget_used", "main"), 8);
    assert_eq!(ask(&gateway, &key, "GET /v2/me", 112), (112, 0));
    assert_eq!(ask(&gateway, &key, LISTED, 1), (0, 1));
    assert_eq!(sim.rate_limited(), 0);
}

#[test]
fn a_key_with_limits_of_its_own_keeps_to_them_in_any_order() {
    for own in [&[("Burst", 40)][..], &[("Team", 100)], &[("Short", 20), ("Long", 60)]] {
        let limits = own.iter().map(|&(name, limit)| (name.to_owned(), limit)).collect();
        let (sim, key) = (cal_com(|options| options.limits.api_key = limits), Key::new());
        let gateway = gateway(&sim, &key, "");
        assert_eq!(ask(&gateway, &key, "GET /v2/me", 5), (5, 0));
        assert_eq!(ask(&gateway, &key, UNLISTED, 4), (3, 1));
        let widest = own.iter().map(|(_, limit)| *limit as usize).max().unwrap();
        assert_eq!(ask(&gateway, &key, "GET /v2/teams", 120), (widest - 5, 125 - widest), "{own:?}");
        assert_eq!(sim.rate_limited(), 0);
    }
}

/// A learned limit may grow with later responses. A limit of the catalog may not, also after a restart.
#[test]
fn a_limit_of_the_catalog_stays_one_after_a_restart() {
    let more = OperationLimit::new("POST /v2/bookings/{bookingUid}/guests", "Booking_guests_requests", 20);
    let (sim, key) = (cal_com(|options| options.limits.operations = vec![more]), Key::new());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store/tokens.db");
    let store = format!("[token_store]\npath = \"{}\"\nseal_keys = [{{ env = \"SEAL_KEY\" }}]\n", path.display());
    let mut before = gateway(&sim, &key, &store);
    assert_eq!(ask(&before, &key, LISTED, 1), (1, 0));
    before.signal("-TERM");
    before.wait_for_exit();
    let after = gateway(&sim, &key, &store);
    assert_eq!(ask(&after, &key, LISTED, 8), (5, 3), "the five of the catalog");
}

#[test]
fn gateways_on_a_store_share_the_limit_of_an_operation() {
    let (redis, key) = (Redis::start(), Key::new());
    let sim = cal_com(|_| {});
    let store = format!("[limit_store]\nredis = \"{}\"\n", redis.url());
    let gateways = [gateway(&sim, &key, &store), gateway(&sim, &key, &store)];
    for gateway in &gateways {
        eventually("both on the store", || (gateway.metric("calgate_sharing_gateways", "") == 2).then_some(()));
    }
    assert_eq!(ask(&gateways[0], &key, UNLISTED, 1), (1, 0));
    assert_eq!(ask(&gateways[1], &key, UNLISTED, 1), (1, 0));
    let (served, _) = ask(&gateways[0], &key, UNLISTED, 3);
    let (more, _) = ask(&gateways[1], &key, UNLISTED, 3);
    assert!(served + more <= 1, "three of both together: {served} and {more}");
    for gateway in &gateways {
        assert_eq!(ask(gateway, &key, "GET /v2/me", 20), (20, 0));
    }
    assert_eq!(sim.rate_limited(), 0);
}
