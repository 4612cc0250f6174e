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
fn a_lower_limit_holds_at_once_and_a_higher_one_after_three_responses() {
    assert_eq!(after(120, false, &[80]), 80);
    assert_eq!(after(120, false, &[80, 100, 100]), 80);
    assert_eq!(after(120, false, &[80, 100, 100, 100]), 100);
    assert_eq!(after(120, false, &[80, 100, 100, 90, 100]), 80);
    assert_eq!(after(120, false, &[80, 100, 100, 80, 100]), 80);
}

#[test]
fn a_limit_above_the_configured_one_has_to_be_allowed() {
    assert_eq!(after(120, false, &[200; 9]), 120);
    assert_eq!(after(120, true, &[200, 200]), 120);
    assert_eq!(after(120, true, &[200, 200, 200]), 200);
    assert_eq!(after(120, false, &[80, 200, 200, 200]), 120);
}

#[test]
fn a_reload_without_a_change_keeps_the_learned_limit() {
    let mut granted = EffectiveLimit::new(120, false);
    granted.observe(80);
    granted.configure(120, false);
    assert_eq!(granted.get(), 80);
    granted.configure(200, false);
    assert_eq!(granted.get(), 200);
}
