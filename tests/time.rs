//! Tests of the gate for work that runs at most once a second.

use calgate::time::{MonoTime, OncePerSecond};

#[test]
fn starts_at_once_and_then_once_a_second_for_one_caller() {
    let gate = OncePerSecond::default();
    let starts = |milliseconds: u64| gate.try_start(MonoTime(milliseconds * 1_000_000));
    assert_eq!(
        [starts(5), starts(5), starts(1004), starts(1005), starts(1006), starts(9000)],
        [true, false, false, true, false, true]
    );
    let asked = std::thread::scope(|scope| {
        let start = || scope.spawn(|| gate.try_start(MonoTime(60_000_000_000)));
        let all: Vec<_> = (0..8).map(|_| start()).collect();
        all.into_iter().map(|thread| thread.join().unwrap()).filter(|&due| due).count()
    });
    assert_eq!(asked, 1);
}
