//! A budget for which a store decides: what it does by itself, and what it does not.

use std::time::Duration;

use calgate::budget::machine::{Asked, Machine, Next};
use calgate::budget::queue::{Asker, Priority};
use calgate::budget::rules::No;
use calgate::budget::{Hold, Settings};
use calgate::limit::Tick;

const WINDOW: Duration = Duration::from_secs(60);

fn at(milliseconds: u64) -> Tick {
    Tick(milliseconds * 1_000_000)
}

fn asker(key: u64) -> Asker {
    Asker { key, weight: 1, priority: Priority::Default }
}

/// One of two gateways on a store.
fn machine() -> Machine {
    let mut machine = Machine::new(Settings { limit: 120, window: WINDOW, replicas: 1, learn_limit: false }, 7);
    machine.go_by_store(2);
    machine
}

fn no(milliseconds: u64, now: Tick) -> No {
    No::new(Hold::Requests, Some(Duration::from_millis(milliseconds)), Duration::ZERO, now)
}

#[test]
fn a_no_that_has_run_out_lets_nobody_go_before_the_store_is_asked_again() {
    let mut machine = machine();
    assert!(matches!(machine.next(at(1000)), Next::Idle), "nobody waits");
    machine.held_by_store(no(50, at(1000)));
    for key in 0..3 {
        assert!(matches!(machine.ask(&asker(key), WINDOW, at(1001)), Asked::Wait(_, Hold::Requests)));
    }
    let again = |machine: &mut Machine, now| match machine.next(now) {
        Next::At(again) => again,
        said => panic!("the store has not been asked: {said:?}"),
    };
    assert_eq!((machine.wants(at(1049)), again(&mut machine, at(1049))), (None, at(1050)));
    assert_eq!((machine.wants(at(1050)), again(&mut machine, at(1050))), (Some(true), at(1050)));
    assert_eq!(again(&mut machine, at(9000)), at(9000));
    assert!(matches!(machine.next_allowed(at(9000)), Next::Go(..)), "it has been asked");
    again(&mut machine, at(9000));
    machine.go_alone(1);
    assert!(matches!(machine.next(at(9000)), Next::Go(..)));
}
