//! The number of gateways, from reports for budgets with different users.

use calgate::limit_store::peers::PeerCount;
use calgate::time::MonoTime;

fn at(milliseconds: u64) -> MonoTime {
    MonoTime(milliseconds * 1_000_000)
}

#[test]
fn counts_the_maximum_over_all_budgets() {
    let gateways = PeerCount::default();
    assert_eq!(gateways.count(), 1);
    // Two budgets report twice a second: that of a credential that all gateways use, and that of a managed user.
    for beat in 0..100 {
        gateways.observe(8, at(beat * 500));
        assert_eq!(gateways.count(), 8);
        gateways.observe(1, at(beat * 500 + 250));
        assert_eq!(gateways.count(), 8);
    }
}

#[test]
fn forgets_gateways_that_have_left() {
    let gateways = PeerCount::default();
    gateways.observe(8, at(500));
    let counts = [1000, 1500, 2000, 2500, 3000].map(|now| {
        gateways.observe(3, at(now));
        gateways.count()
    });
    assert_eq!((counts[0], counts[4]), (8, 3), "{counts:?}");
}

#[test]
fn keeps_the_count_while_there_are_no_reports() {
    let gateways = PeerCount::default();
    gateways.observe(8, at(500));
    assert_eq!(gateways.count(), 8);
    gateways.observe(1, at(60_000));
    assert_eq!(gateways.count(), 8, "the other budgets have not reported yet");
}
