//! Regression tests: sequences of events after which Cal.com once counted more than N requests in a window.

use std::time::Duration;

use calgate::time::MonoTime;

use super::interleavings::Event::{Answered, Arrives, Asks, Passes, Reload};
use super::interleavings::World;

/// Two slow responses locate the ends of two windows so vaguely that the bounds overlap. The window that was still open then counted as
/// over, and a gateway sent more than its part of it.
#[test]
fn responses_of_two_windows_with_overlapping_bounds() {
    World::new(4, 7, true).happen(&[
        Passes(386),
        Asks(0),
        Arrives(0),
        Passes(25_024),
        Asks(1),
        Asks(1),
        Asks(0),
        Asks(1),
        Passes(6),
        Arrives(0),
        Asks(0),
        Arrives(0),
        Arrives(0),
        Asks(0),
        Asks(0),
        Passes(19),
        Answered(7_297_082_240_738_741_314),
        Answered(2_192_274_100_240_877_035),
        Arrives(4_687_613_067_738_466_983),
        Answered(4_557_463_459_352_610_880),
        Answered(8_831_163_634_807_922_220),
        Passes(36_146),
        Passes(131),
        Arrives(6_919_719_006_826_227_041),
        Asks(3),
        Arrives(16_051_435_412_224_837_322),
        Asks(3),
        Answered(6_954_758_837_837_124_749),
        Answered(13_555_261_593_003_173_029),
        Passes(1023),
        Arrives(14_117_242_539_197_426_708),
        Asks(2),
        Answered(17_294_545_255_693_534_257),
        Passes(1034),
        Passes(38),
        Asks(0),
        Arrives(17_473_124_844_940_132_210),
        Asks(0),
        Answered(699_197_261_142_983_623),
        Passes(33_058),
        Asks(1),
        Passes(1755),
        Passes(369),
        Passes(2052),
        Passes(47),
        Arrives(9_764_986_016_694_775_899),
        Asks(0),
        Arrives(17_832_022_323_166_642_673),
        Answered(17_138_248_416_166_301_282),
        Arrives(9_722_511_779_809_764_478),
        Arrives(2_528_650_307_993_953_987),
    ]);
}

/// The same within the times that a gateway waits: two responses that took 34 s and 27 s. Each of two gateways may send one of
/// the last two requests of a window of five.
#[test]
fn two_responses_that_took_half_a_window_each() {
    let mut world = World::new(2, 5, true);
    let at = |world: &mut World, ms: u64| world.now = MonoTime(1).after(Duration::from_millis(ms));
    let first = world.ask(0, 0).unwrap();
    let response = world.respond();
    at(&mut world, 34_000);
    world.answered(0, &first, &response);
    // The next window begins with requests of the other gateway. Then a request of the first gateway takes long.
    let send = |world: &mut World, ms: u64| {
        at(world, ms);
        if let Some(flight) = world.ask(1, 0) {
            let response = world.respond();
            world.answered(1, &flight, &response);
        }
    };
    for ms in [60_100, 62_800, 62_800] {
        send(&mut world, ms);
    }
    let slow = world.ask(0, 0).unwrap();
    for ms in [70_000, 80_000, 89_000, 89_900] {
        send(&mut world, ms);
    }
    at(&mut world, 90_000);
    let response = world.respond();
    world.answered(0, &slow, &response);
    assert!(response.standings[0].remaining < 2, "it is one of the last two of a window that ends at 120.1 s");
    for ms in [90_000, 94_300, 119_900] {
        at(&mut world, ms);
        assert!(world.ask(0, 0).is_none(), "at {ms} ms the gateway has had its part of the window");
    }
    at(&mut world, 122_100);
    assert!(world.ask(0, 0).is_some(), "a new window");
}

/// The first reload halves the tail of the window and each gateway's share of it. The second restores both. In between, a gateway
/// sends three requests of the tail, which is then four requests again, two of which are the other gateway's.
#[test]
fn reloads_of_another_limit_within_a_window() {
    World::new(2, 16, true).happen(&[
        Asks(2),
        Asks(2),
        Arrives(0),
        Asks(1),
        Answered(0),
        Asks(1),
        Reload(8),
        Asks(2),
        Arrives(0),
        Asks(2),
        Arrives(0),
        Asks(0),
        Answered(0),
        Answered(0),
        Arrives(0),
        Answered(0),
        Arrives(0),
        Asks(1),
        Answered(0),
        Arrives(0),
        Passes(85),
        Answered(0),
        Arrives(0),
        Answered(0),
        Asks(1),
        Arrives(0),
        Answered(0),
        Arrives(0),
        Asks(1),
        Answered(0),
        Asks(0),
        Arrives(0),
        Asks(1),
        Asks(0),
        Asks(0),
        Asks(0),
        Asks(1),
        Answered(0),
        Arrives(0),
        Answered(0),
        Arrives(0),
        Answered(0),
        Asks(2),
        Arrives(0),
        Asks(2),
        Passes(899),
        Asks(2),
        Answered(0),
        Arrives(0),
        Answered(0),
        Asks(1),
        Arrives(0),
        Reload(16),
        Arrives(0),
        Arrives(0),
    ]);
}

/// The same without a change at any gateway. Their limits differ, as while a reload has reached only one of them. The tail of the
/// window is two requests of each gateway.
#[test]
fn gateways_with_different_limits() {
    let mut world = World::new(2, 19, true);
    world.configure(1, 15);
    // A new consumer does not wait for a turn.
    let mut consumers = 0..;
    let mut ask = |world: &mut World, gateway: usize| world.ask(gateway, consumers.next().unwrap());
    for _ in 0..10 {
        let flight = ask(&mut world, 0).unwrap();
        let response = world.respond();
        world.answered(0, &flight, &response);
    }
    // The first gateway's last report was a remaining count of nine.
    let mut sent = 0;
    while let Some(flight) = ask(&mut world, 1) {
        let response = world.respond();
        world.answered(1, &flight, &response);
        sent += 1;
    }
    assert_eq!(sent, 7, "the five before the last four, and two of those");
    let flights = [ask(&mut world, 0).unwrap(), ask(&mut world, 0).unwrap()];
    assert!(ask(&mut world, 0).is_none());
    for flight in flights {
        let response = world.respond();
        world.answered(0, &flight, &response);
    }
}
