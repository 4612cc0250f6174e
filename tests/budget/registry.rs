//! Settings of budgets: which ones the configuration decides, for listed and for unlisted credentials.

use std::time::Duration;

use calgate::budget::{API_KEY_PER_MINUTE, BudgetRegistry, OAUTH_PER_MINUTE};
use calgate::ratelimit::Settings;

/// Settings that a configuration has for all budgets.
fn common(window: u64) -> Settings {
    Settings { limit: 1, window: Duration::from_secs(window), replicas: 1, learn_limit: false }
}

fn registry(capacity: usize) -> BudgetRegistry {
    BudgetRegistry::new(capacity, common(60).of(API_KEY_PER_MINUTE), None)
}

#[test]
fn a_reload_reaches_unlisted_budgets() {
    let registry = registry(10);
    let limit = |key, window| registry.dynamic(key, "(managed)", common(window).of(OAUTH_PER_MINUTE)).status().limit;
    assert_eq!([limit(1, 60), limit(2, 60)], [500, 500]);
    assert_eq!([limit(1, 30), limit(2, 60), limit(1, 60)], [250, 500, 500]);
}

#[test]
fn a_listed_budget_keeps_its_configured_limit() {
    let registry = registry(10);
    let unlisted = |key, window| registry.dynamic(key, "(own)", common(window).of(OAUTH_PER_MINUTE)).status().limit;
    let listed =
        |key, limit| registry.configured(key, &"tag".into(), &"main".into(), common(60).of(limit)).status().limit;
    assert_eq!([listed(1, 70), unlisted(1, 60), unlisted(1, 30)], [70, 70, 70]);
    assert_eq!([listed(1, 90), unlisted(1, 30)], [90, 90]);
    assert_eq!([unlisted(2, 60), listed(2, 70), unlisted(2, 60)], [500, 70, 70], "one that has become listed");
}

#[test]
fn a_reload_reaches_the_overflow_budget() {
    let registry = registry(1);
    let limit = |key, window| registry.dynamic(key, "(managed)", common(window).of(OAUTH_PER_MINUTE));
    let first = limit(1, 60);
    assert_eq!((first.status().limit, limit(2, 60).status().limit), (500, 120));
    assert_eq!((limit(3, 30).status().limit, first.status().limit), (60, 500));
}
