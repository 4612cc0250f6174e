//! What is done at most once a second.

use calgate::time::{MonoTime, OncePerSecond};

#[test]
fn it_is_due_at_once_and_then_once_a_second_for_one_of_those_who_ask() {
    let seldom = OncePerSecond::default();
    let due = |milliseconds: u64| seldom.try_start(MonoTime(milliseconds * 1_000_000));
    assert_eq!([due(5), due(5), due(1004), due(1005), due(1006), due(9000)], [true, false, false, true, false, true]);
    let asked = std::thread::scope(|scope| {
        let ask = || scope.spawn(|| seldom.try_start(MonoTime(60_000_000_000)));
        let all: Vec<_> = (0..8).map(|_| ask()).collect();
        all.into_iter().map(|thread| thread.join().unwrap()).filter(|&due| due).count()
    });
    assert_eq!(asked, 1);
}
