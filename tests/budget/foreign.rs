//! What others on the credential use, as answers tell, and what is left to them.

use std::time::Duration;

use calgate::budget::foreign::Foreign;
use calgate::limit::Tick;

const WINDOW: Duration = Duration::from_secs(60);

fn at(seconds: u64) -> Tick {
    Tick::default().after(Duration::from_secs(seconds))
}

/// A window of 100 that began at 0, in which others had used `others` when our only other answer came, at `told`.
fn seen(others: u32, told: u64) -> Foreign {
    let mut foreign = Foreign::new(99, at(0));
    foreign.own();
    foreign.note(98 - others, 0, at(told));
    foreign
}

#[test]
fn our_own_requests_are_not_others() {
    let mut foreign = Foreign::new(99, at(0));
    for left in (90..99).rev() {
        foreign.own();
        foreign.note(left, 2, at(10));
    }
    assert_eq!(foreign.seen(), 0);
    assert_eq!(foreign.reserve(at(10), at(60), WINDOW, 0, true), 0);
}

#[test]
fn what_was_seen_in_a_part_of_a_window_is_expected_in_every_part_of_the_next() {
    assert_eq!(seen(6, 60).next_window(99, at(61), WINDOW).seen(), 6);
    assert_eq!(seen(6, 30).next_window(99, at(61), WINDOW).seen(), 12);
    let hardly_watched = seen(6, 1).next_window(99, at(61), WINDOW);
    assert_eq!(hardly_watched.seen(), 24, "as if a quarter of the window had been watched");
    assert_eq!(hardly_watched.next_window(99, at(121), WINDOW).seen(), 18, "what is not seen again fades");
}

#[test]
fn what_others_may_have_used_since_the_last_answer_is_left_to_them_too() {
    let foreign = seen(0, 0).next_window(99, at(0), WINDOW);
    assert_eq!(foreign.reserve(at(50), at(60), WINDOW, 0, true), 0, "nobody is there");
    let mut foreign = seen(24, 60).next_window(99, at(60), WINDOW);
    let last_told = foreign.reserve(at(110), at(120), WINDOW, 0, true);
    assert_eq!(last_told, 24 + 8 + 2, "of the whole window, and four deviations of the four that are still to come");
    foreign.own();
    foreign.note(78, 0, at(110));
    assert_eq!(foreign.reserve(at(110), at(120), WINDOW, 0, true), 4 + 8 + 2, "told a moment ago");
}

#[test]
fn without_any_window_before_more_may_come_than_was_seen() {
    let foreign = seen(9, 30);
    let rate = (9 + 6) * 2;
    assert_eq!(foreign.reserve(at(30), at(60), WINDOW, 0, true), rate / 2 + 15 + 2);
}

#[test]
fn of_several_gateways_only_what_is_suspected_is_left() {
    let foreign = seen(24, 30);
    assert_eq!(foreign.reserve(at(30), at(60), WINDOW, 0, false), 0);
    assert_eq!(foreign.reserve(at(30), at(60), WINDOW, 40, false), 20 + 16 + 2);
    assert_eq!(foreign.reserve(at(60), at(60), WINDOW, 40, false), 2);
}
