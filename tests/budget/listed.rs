//! Settings of budgets: which ones the configuration decides, for listed and for unlisted credentials.

use std::time::Duration;

use calgate::budget::{API_KEY_PER_MINUTE, BudgetRegistry, OAUTH_PER_MINUTE};
use calgate::ratelimit::Settings;

/// Settings as a configuration has them for all.
fn common(window: u64) -> Settings {
    Settings { limit: 1, window: Duration::from_secs(window), replicas: 1, learn_limit: false }
}

fn registry(capacity: usize) -> BudgetRegistry {
    BudgetRegistry::new(capacity, common(60).of(API_KEY_PER_MINUTE), None)
}

#[test]
fn a_reload_reaches_those_that_no_configuration_lists() {
    let registry = registry(10);
    let limit = |key, window| registry.dynamic(key, "(managed)", common(window).of(OAUTH_PER_MINUTE)).status().limit;
    assert_eq!([limit(1, 60), limit(2, 60)], [500, 500]);
    assert_eq!([limit(1, 30), limit(2, 60), limit(1, 60)], [250, 500, 500]);
}

#[test]
fn one_that_is_listed_keeps_what_the_configuration_says_whoever_uses_it() {
    let registry = registry(10);
    let unlisted = |key, window| registry.dynamic(key, "(own)", common(window).of(OAUTH_PER_MINUTE)).status().limit;
    let listed =
        |key, limit| registry.configured(key, &"tag".into(), &"main".into(), common(60).of(limit)).status().limit;
    assert_eq!([listed(1, 70), unlisted(1, 60), unlisted(1, 30)], [70, 70, 70]);
    assert_eq!([listed(1, 90), unlisted(1, 30)], [90, 90]);
    assert_eq!([unlisted(2, 60), listed(2, 70), unlisted(2, 60)], [500, 70, 70], "one that has become listed");
}

#[test]
fn a_reload_reaches_the_one_that_newcomers_to_a_full_table_share() {
    let registry = registry(1);
    let limit = |key, window| registry.dynamic(key, "(managed)", common(window).of(OAUTH_PER_MINUTE));
    let first = limit(1, 60);
    assert_eq!((first.status().limit, limit(2, 60).status().limit), (500, 120));
    assert_eq!((limit(3, 30).status().limit, first.status().limit), (60, 500));
}
