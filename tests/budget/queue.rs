//! Who goes next.

use calgate::budget::Hold;
use calgate::budget::queue::{Asker, Priority, Queue, Ticket};

fn asker(key: u64, weight: u32, priority: Priority) -> Asker {
    Asker { key, weight, priority }
}

fn wait(queue: &mut Queue, asker: &Asker, n: usize) -> Vec<Ticket> {
    (0..n).map(|_| queue.line_up(asker, false).unwrap()).collect()
}

/// Whose the next `n` turns are.
fn turns(queue: &mut Queue, n: usize) -> Vec<u64> {
    (0..n).map_while(|_| queue.next_turn()).map(|(_, key)| key).collect()
}

fn of(turns: &[u64], key: u64) -> usize {
    turns.iter().filter(|k| **k == key).count()
}

#[test]
fn a_heavy_consumer_waits_for_the_light_ones_and_not_they_for_it() {
    let mut queue = Queue::default();
    wait(&mut queue, &asker(1, 120, Priority::Default), 100);
    wait(&mut queue, &asker(2, 120, Priority::Default), 2);
    wait(&mut queue, &asker(3, 120, Priority::Default), 1);
    let turns = turns(&mut queue, 6);
    assert_eq!((of(&turns, 1), of(&turns, 2), of(&turns, 3)), (3, 2, 1), "{turns:?}");
}

#[test]
fn turns_are_weighted_by_tiers() {
    let mut queue = Queue::default();
    wait(&mut queue, &asker(1, 800, Priority::Default), 200);
    wait(&mut queue, &asker(2, 200, Priority::Default), 200);
    let turns = turns(&mut queue, 100);
    assert_eq!((of(&turns, 1), of(&turns, 2)), (80, 20));
}

#[test]
fn a_higher_class_goes_first_and_one_in_ten_is_of_a_lower() {
    let mut queue = Queue::default();
    wait(&mut queue, &asker(3, 120, Priority::Batch), 50);
    wait(&mut queue, &asker(1, 120, Priority::Interactive), 250);
    let turns = turns(&mut queue, 200);
    assert_eq!((of(&turns, 1), of(&turns, 3)), (180, 20));
}

#[test]
fn what_may_wait_is_bounded_for_each_and_for_all() {
    let mut queue = Queue::default();
    wait(&mut queue, &asker(1, 1, Priority::Default), 256);
    assert_eq!(queue.line_up(&asker(1, 1, Priority::Default), false), Err(Hold::Queue));
    for key in 2..5 {
        wait(&mut queue, &asker(key, 1, Priority::Default), 256);
    }
    assert_eq!(queue.line_up(&asker(9, 1, Priority::Default), false), Err(Hold::Queue));
}

#[test]
fn who_leaves_is_forgotten() {
    let mut queue = Queue::default();
    let one = asker(1, 120, Priority::Default);
    let tickets = wait(&mut queue, &one, 10);
    assert!(tickets.iter().all(|ticket| queue.leave(*ticket, 1)));
    assert!(!queue.leave(tickets[0], 1));
    assert_eq!((queue.len(), queue.consumers(), queue.next_turn()), (0, 0, None));
}

#[test]
fn who_has_less_than_its_part_need_not_take_turns_unless_a_higher_class_waits() {
    let mut queue = Queue::default();
    let (heavy, light) = (asker(1, 100, Priority::Default), asker(2, 100, Priority::Default));
    (0..100).for_each(|_| queue.passed(&heavy));
    assert!(queue.is_below_part(&light, 100, false) && !queue.is_below_part(&heavy, 100, false));
    (0..80).for_each(|_| queue.passed(&light));
    assert!(!queue.is_below_part(&light, 100, false));
    (0..70).for_each(|_| queue.released(2));
    assert!(queue.is_below_part(&light, 100, false));
    queue.line_up(&asker(3, 100, Priority::Interactive), false).unwrap();
    assert!(!queue.is_below_part(&light, 100, false));
}

#[test]
fn where_chance_divides_consumers_among_gateways_who_has_not_most_may_have_a_little_more_than_its_part() {
    let mut queue = Queue::default();
    let (heavy, light) = (asker(1, 100, Priority::Default), asker(2, 100, Priority::Default));
    (0..9).for_each(|_| queue.passed(&heavy));
    (0..8).for_each(|_| queue.passed(&light));
    assert!(!queue.is_below_part(&light, 8, false) && queue.is_below_part(&light, 10, true));
    assert!(!queue.is_below_part(&heavy, 10, true));
    assert_eq!((queue.light(None), queue.light(Some(2))), (17, 9));
    queue.line_up(&heavy, false).unwrap();
    assert_eq!(queue.light(None), 8);
}
