//! How many gateways there are, by what budgets hear that do not all hear of the same ones.

use calgate::limit_store::peers::PeerCount;
use calgate::time::MonoTime;

fn at(milliseconds: u64) -> MonoTime {
    MonoTime(milliseconds * 1_000_000)
}

#[test]
fn the_budget_that_hears_of_most_is_believed_whatever_the_others_hear_of() {
    let gateways = PeerCount::default();
    assert_eq!(gateways.count(), 1);
    // Two budgets are heard twice a second: that of a credential that all use, and that of a managed user.
    for beat in 0..100 {
        gateways.observe(8, at(beat * 500));
        assert_eq!(gateways.count(), 8);
        gateways.observe(1, at(beat * 500 + 250));
        assert_eq!(gateways.count(), 8);
    }
}

#[test]
fn those_that_are_gone_are_forgotten() {
    let gateways = PeerCount::default();
    gateways.observe(8, at(500));
    let counts = [1000, 1500, 2000, 2500, 3000].map(|now| {
        gateways.observe(3, at(now));
        gateways.count()
    });
    assert_eq!((counts[0], counts[4]), (8, 3), "{counts:?}");
}

#[test]
fn nothing_is_forgotten_while_nothing_is_heard() {
    let gateways = PeerCount::default();
    gateways.observe(8, at(500));
    assert_eq!(gateways.count(), 8);
    gateways.observe(1, at(60_000));
    assert_eq!(gateways.count(), 8, "the others have not been heard yet");
}
