//! Effective limit: the configured one, unless the responses of Cal.com report another.

use calgate::ratelimit::effective_limit::EffectiveLimit;

fn after(configured: u32, learn: bool, told: &[u32]) -> u32 {
    let mut granted = EffectiveLimit::new(configured, learn);
    for &limit in told {
        granted.observe(limit);
    }
    granted.get()
}

#[test]
fn less_holds_at_once_and_more_when_three_answers_agree() {
    assert_eq!(after(120, false, &[80]), 80);
    assert_eq!(after(120, false, &[80, 100, 100]), 80);
    assert_eq!(after(120, false, &[80, 100, 100, 100]), 100);
    assert_eq!(after(120, false, &[80, 100, 100, 90, 100]), 80);
    assert_eq!(after(120, false, &[80, 100, 100, 80, 100]), 80);
}

#[test]
fn more_than_is_configured_has_to_be_allowed() {
    assert_eq!(after(120, false, &[200; 9]), 120);
    assert_eq!(after(120, true, &[200, 200]), 120);
    assert_eq!(after(120, true, &[200, 200, 200]), 200);
    assert_eq!(after(120, false, &[80, 200, 200, 200]), 120);
}

#[test]
fn a_reload_that_says_nothing_new_changes_nothing() {
    let mut granted = EffectiveLimit::new(120, false);
    granted.observe(80);
    granted.configure(120, false);
    assert_eq!(granted.get(), 80);
    granted.configure(200, false);
    assert_eq!(granted.get(), 200);
}
