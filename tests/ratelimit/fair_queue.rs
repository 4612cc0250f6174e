//! Weighted fair queue: the order of waiting requests.

use std::time::Duration;

use calgate::ratelimit::ThrottleReason;
use calgate::ratelimit::demand::SharedLimit;
use calgate::ratelimit::fair_queue::{FairQueue, Flow, Priority, Ticket};
use calgate::time::MonoTime;

/// A limit of 100 per minute, all of it this gateway's.
const ALONE: SharedLimit = SharedLimit { limit: 100, window: MINUTE, gateways: 1 };
const MINUTE: Duration = Duration::from_secs(60);

fn at(seconds: u64) -> MonoTime {
    MonoTime::default().after(Duration::from_secs(seconds))
}

fn flow(key: u64, weight: u32, priority: Priority) -> Flow {
    Flow { key, weight, priority }
}

fn wait(queue: &mut FairQueue, flow: &Flow, n: usize) -> Vec<Ticket> {
    (0..n).map(|_| queue.enqueue(flow, false).unwrap()).collect()
}

/// Returns the consumers of the next `n` turns.
fn turns(queue: &mut FairQueue, n: usize) -> Vec<u64> {
    (0..n).map_while(|_| queue.next_turn()).map(|(_, key)| key).collect()
}

fn of(turns: &[u64], key: u64) -> usize {
    turns.iter().filter(|k| **k == key).count()
}

#[test]
fn a_heavy_consumer_waits_for_light_ones() {
    let mut queue = FairQueue::default();
    wait(&mut queue, &flow(1, 120, Priority::Default), 100);
    wait(&mut queue, &flow(2, 120, Priority::Default), 2);
    wait(&mut queue, &flow(3, 120, Priority::Default), 1);
    let turns = turns(&mut queue, 6);
    assert_eq!((of(&turns, 1), of(&turns, 2), of(&turns, 3)), (3, 2, 1), "{turns:?}");
}

#[test]
fn turns_are_weighted_by_tiers() {
    let mut queue = FairQueue::default();
    wait(&mut queue, &flow(1, 800, Priority::Default), 200);
    wait(&mut queue, &flow(2, 200, Priority::Default), 200);
    let turns = turns(&mut queue, 100);
    assert_eq!((of(&turns, 1), of(&turns, 2)), (80, 20));
}

#[test]
fn a_higher_class_goes_first_except_for_one_send_in_ten() {
    let mut queue = FairQueue::default();
    wait(&mut queue, &flow(3, 120, Priority::Batch), 50);
    wait(&mut queue, &flow(1, 120, Priority::Interactive), 250);
    let turns = turns(&mut queue, 200);
    assert_eq!((of(&turns, 1), of(&turns, 3)), (180, 20));
}

#[test]
fn waiting_requests_are_bounded_for_each_flow_and_in_total() {
    let mut queue = FairQueue::default();
    wait(&mut queue, &flow(1, 1, Priority::Default), 256);
    assert_eq!(queue.enqueue(&flow(1, 1, Priority::Default), false), Err(ThrottleReason::Queue));
    for key in 2..5 {
        wait(&mut queue, &flow(key, 1, Priority::Default), 256);
    }
    assert_eq!(queue.enqueue(&flow(9, 1, Priority::Default), false), Err(ThrottleReason::Queue));
}

#[test]
fn a_consumer_without_requests_is_forgotten() {
    let mut queue = FairQueue::default();
    let one = flow(1, 120, Priority::Default);
    let tickets = wait(&mut queue, &one, 10);
    assert!(tickets.iter().all(|ticket| queue.cancel(*ticket, 1)));
    assert!(!queue.cancel(tickets[0], 1));
    assert_eq!((queue.len(), queue.consumers(), queue.next_turn()), (0, 0, None));
}

#[test]
fn a_consumer_below_its_share_is_express_unless_a_higher_class_waits() {
    let mut queue = FairQueue::default();
    let (heavy, light) = (flow(1, 100, Priority::Default), flow(2, 100, Priority::Default));
    (0..100).for_each(|_| queue.record_express(&heavy));
    assert!(
        queue.is_under_fair_share(&light, &ALONE, MonoTime(0))
            && !queue.is_under_fair_share(&heavy, &ALONE, MonoTime(0))
    );
    (0..80).for_each(|_| queue.record_express(&light));
    assert!(!queue.is_under_fair_share(&light, &ALONE, MonoTime(0)));
    (0..70).for_each(|_| queue.record_expiry(2));
    assert!(queue.is_under_fair_share(&light, &ALONE, MonoTime(0)));
    queue.enqueue(&flow(3, 100, Priority::Interactive), false).unwrap();
    assert!(!queue.is_under_fair_share(&light, &ALONE, MonoTime(0)));
}

#[test]
fn long_run_demand_within_a_share_allows_random_bursts() {
    let mut queue = FairQueue::default();
    let shared = SharedLimit { limit: 80, window: MINUTE, gateways: 10 };
    let (heavy, light) = (flow(1, 100, Priority::Default), flow(2, 100, Priority::Default));
    for second in 0..600 {
        queue.record_arrival(&heavy, &shared, at(second));
        if second % 15 == 0 {
            queue.record_arrival(&light, &shared, at(second));
        }
    }
    (0..8).for_each(|_| queue.record_express(&heavy));
    (0..9).for_each(|_| queue.record_express(&light));
    assert!(
        queue.is_under_fair_share(&light, &shared, at(600)) && !queue.is_under_fair_share(&heavy, &shared, at(600))
    );
    // A single gateway compares only what each consumer has used.
    assert!(!queue.is_under_fair_share(&light, &SharedLimit { limit: 8, gateways: 1, ..shared }, at(600)));
}

#[test]
fn a_new_consumer_may_exceed_its_share_unless_it_has_the_most() {
    let mut queue = FairQueue::default();
    let shared = SharedLimit { limit: 100, window: MINUTE, gateways: 10 };
    let (heavy, light) = (flow(1, 100, Priority::Default), flow(2, 100, Priority::Default));
    for (flow, requests) in [(&heavy, 7), (&light, 6)] {
        (0..requests).for_each(|_| queue.record_arrival(flow, &shared, at(0)));
        (0..requests).for_each(|_| queue.record_express(flow));
    }
    assert!(queue.is_under_fair_share(&light, &shared, at(1)) && !queue.is_under_fair_share(&heavy, &shared, at(1)));
}

#[test]
fn demand_above_a_share_below_one_request_takes_turns() {
    let mut queue = FairQueue::default();
    let shared = SharedLimit { limit: 100, window: MINUTE, gateways: 50 };
    let askers: Vec<Flow> = (1..=4).map(|key| flow(key, 100, Priority::Default)).collect();
    for flow in &askers {
        queue.record_arrival(flow, &shared, at(0));
    }
    (0..20).for_each(|second| queue.record_arrival(&askers[0], &shared, at(second)));
    assert!(
        !queue.is_under_fair_share(&askers[0], &shared, at(20))
            && queue.is_under_fair_share(&askers[1], &shared, at(20))
    );
}

#[test]
fn the_load_of_light_consumers_is_counted() {
    let mut queue = FairQueue::default();
    let (heavy, light) = (flow(1, 100, Priority::Default), flow(2, 100, Priority::Default));
    (0..9).for_each(|_| queue.record_express(&heavy));
    (0..8).for_each(|_| queue.record_express(&light));
    assert_eq!((queue.light_load(None), queue.light_load(Some(2))), (17, 9));
    queue.enqueue(&heavy, false).unwrap();
    assert_eq!(queue.light_load(None), 8);
}
