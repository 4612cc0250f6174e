//! The limiter while a limit store decides.

use std::time::Duration;

use calgate::ratelimit::authority::No;
use calgate::ratelimit::fair_queue::{Asker, Priority};
use calgate::ratelimit::limiter::{Asked, Flight, Machine, Next};
use calgate::ratelimit::parts::Part;
use calgate::ratelimit::usage_headers::{Told, Verdict};
use calgate::ratelimit::{Held, Hold, Settings};
use calgate::time::MonoTime;

const WINDOW: Duration = Duration::from_secs(60);

fn at(milliseconds: u64) -> MonoTime {
    MonoTime(milliseconds * 1_000_000)
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

fn no(milliseconds: u64, now: MonoTime) -> No {
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
    machine.go_alone(1, WINDOW, at(9000));
    assert!(matches!(machine.next(at(9000)), Next::Go(..)));
}

/// What whose request is answered so at one second is told.
fn told_of(machine: &mut Machine, verdict: Verdict) -> Held {
    let Asked::Go(flight) = machine.ask(&asker(1), Duration::ZERO, at(900)) else { panic!("nothing holds it") };
    machine.answered(&flight, verdict, &Told::default(), at(1000)).unwrap()
}

#[test]
fn whose_request_is_refused_is_told_by_whom_and_for_how_long_whoever_decides() {
    let seconds = Duration::from_secs;
    let alone = || {
        let mut machine = machine();
        machine.go_alone(1, WINDOW, at(0));
        machine
    };
    for (verdict, by, wait) in [
        (Verdict::Edge { retry_after: None }, Hold::Edge, seconds(1)),
        (Verdict::Edge { retry_after: Some(seconds(9)) }, Hold::Edge, seconds(9)),
        (Verdict::Refused { retry_after: Some(seconds(7)) }, Hold::Refused, seconds(7)),
        (Verdict::Refused { retry_after: None }, Hold::Refused, WINDOW),
    ] {
        let [by_store, alone] = [&mut machine(), &mut alone()].map(|machine| told_of(machine, verdict));
        assert_eq!(by_store, alone);
        assert_eq!(by_store.by, by);
        let jitter = by_store.wait.checked_sub(wait).unwrap();
        assert!(jitter < seconds(2) && (by == Hold::Refused || jitter.is_zero()), "{by_store:?}");
    }
    let mut both = machine();
    let [first, second] = [(); 2].map(|()| {
        let Asked::Go(flight) = both.ask(&asker(1), Duration::ZERO, at(900)) else { panic!("nothing holds it") };
        flight
    });
    both.answered(&first, Verdict::Refused { retry_after: Some(seconds(7)) }, &Told::default(), at(1000)).unwrap();
    let held = both.answered(&second, Verdict::Edge { retry_after: None }, &Told::default(), at(2000)).unwrap();
    assert!(held.by == Hold::Refused && held.wait > seconds(6), "{held:?}");
}

fn asked_at_once(machine: &mut Machine, now: MonoTime) -> Vec<Flight> {
    let ask = |_| match machine.ask(&asker(1), Duration::ZERO, now) {
        Asked::Go(flight) => Some(flight),
        Asked::Wait(ticket, _) => {
            machine.leave(ticket, &asker(1));
            None
        }
        Asked::Refuse(_) => None,
    };
    (0..20).filter_map(ask).collect()
}

#[test]
fn who_loses_the_store_sends_no_more_than_its_part_until_all_that_the_store_let_out_is_over() {
    const DEADLINE: Duration = Duration::from_secs(30);
    let mut machine = machine();
    machine.told_part(Part { epoch: 7, requests: 2 }, at(0));
    machine.go_alone(2, DEADLINE, at(1000));
    let flights = asked_at_once(&mut machine, at(1000));
    assert_eq!(flights.len(), 2);
    for flight in flights {
        machine.answered(&flight, Verdict::Passed, &Told::default(), at(1100));
    }
    assert!(asked_at_once(&mut machine, at(60_000)).is_empty(), "both may still count");
    // A response that was under way tells that the part is smaller.
    machine.told_part(Part { epoch: 8, requests: 0 }, at(900));
    assert!(asked_at_once(&mut machine, at(62_000)).is_empty(), "and it has none");
    machine.told_part(Part { epoch: 9, requests: 5 }, at(900));
    assert!(asked_at_once(&mut machine, at(92_000)).is_empty(), "without the store no part becomes larger");
    assert!(!asked_at_once(&mut machine, at(92_600)).is_empty(), "from here on Cal.com's count is shared");
}

#[test]
fn who_was_alone_when_it_loses_the_store_keeps_to_its_part_like_any_other() {
    let mut machine = machine();
    machine.go_by_store(1);
    machine.told_part(Part { epoch: 7, requests: 2 }, at(0));
    machine.go_alone(1, WINDOW, at(1000));
    assert_eq!(asked_at_once(&mut machine, at(1000)).len(), 2);
}

#[test]
fn who_joins_again_has_no_part_before_it_is_told_of_one() {
    let mut machine = machine();
    machine.told_part(Part { epoch: 7, requests: 2 }, at(0));
    machine.give_up_part();
    machine.told_part(Part { epoch: 7, requests: 2 }, at(1));
    machine.go_alone(2, WINDOW, at(2));
    assert!(asked_at_once(&mut machine, at(2)).is_empty());
}
