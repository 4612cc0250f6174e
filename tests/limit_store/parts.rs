//! The part of a limit that the store reserves for gateways that lose it.

use std::time::Duration;

use calgate::limit_store::{AcquireRequest, Acquired, Member, RequestOutcome};
use calgate::ratelimit::usage_headers::{LimitReadings, UpstreamOutcome};

use super::scripts::{A, B, Bench, SECOND, START, limit};

/// Returns how many requests of a gateway the store admits. The gateway confirms each epoch of parts as it learns of it.
fn admitted(bench: &mut Bench, at: u64, member: Member<'_>) -> usize {
    let (mut epoch, mut count) = (bench.heartbeat(at, member).part.epoch, 0);
    // If the reserve denies a request, the gateway asks again when it knows of smaller parts.
    for request in 1000..1300 {
        let asking = AcquireRequest { request, express: true, waiting: false, anyway: false, light: 0, epoch };
        let (scripts, link) = (&bench.scripts, &mut bench.link);
        let asked = scripts.acquire(link, limit(bench.limit, at), member, asking, None);
        let (acquired, part) = bench.runtime.block_on(asked).unwrap();
        epoch = part.epoch;
        count += usize::from(matches!(acquired, Acquired::Go { .. }));
    }
    count
}

/// Settles a response without limits, long before, so that only the log limits the requests that follow.
fn settle_without_limits(bench: &mut Bench) {
    let before = START - 300 * SECOND;
    bench.join(before, A, &[]);
    let request = bench.acquire(before, A).unwrap();
    bench.settle(
        before,
        A,
        request,
        RequestOutcome::answered(Duration::ZERO, UpstreamOutcome::Passed, LimitReadings::default()),
    );
}

#[test]
fn a_gateway_that_was_alone_keeps_half_until_it_learns_of_another() {
    let mut bench = Bench::of(120);
    settle_without_limits(&mut bench);
    bench.join(START, A, &[]);
    (0..50).for_each(|_| assert!(bench.acquire(START, A).is_ok()));
    let alone = bench.heartbeat(START, A).part;
    assert_eq!(alone.requests, 60, "however much it uses");
    // From here on, A does not reach the store.
    bench.join(START + SECOND, B, &[]);
    assert_eq!(admitted(&mut bench, START + SECOND, B), 10, "what A did not use of the other half");
    let runs = |bench: &mut Bench| {
        bench.heartbeat(START + SECOND, A);
        bench.acquire(START + SECOND, B).is_ok()
    };
    assert_eq!((0..90).filter(|_| runs(&mut bench)).count(), 60, "A is back and gives up its part");
}

/// The log of the gateway that stays lacks the requests of the gateway that left.
#[test]
fn the_last_gateway_is_alone_only_when_the_requests_of_others_expired() {
    let mut bench = Bench::of(120);
    settle_without_limits(&mut bench);
    bench.join(START, A, &[]);
    bench.join(START, B, &[]);
    assert_eq!(admitted(&mut bench, START, B), 60);
    let keys = limit(120, START).keys;
    bench.runtime.block_on(bench.scripts.leave(&mut bench.link, keys, B)).unwrap();
    bench.heartbeat(START + SECOND, A);
    let kept = bench.heartbeat(START + SECOND, A).part.requests;
    assert_eq!(kept, 30, "as one of several, because requests of B are in the log");
    assert_eq!(bench.heartbeat(START + 91 * SECOND, A).part.requests, 60, "all requests of B have expired");
}

#[test]
fn a_gateway_after_two_crashed_ones_has_what_they_do_not_hold() {
    let mut bench = Bench::of(120);
    settle_without_limits(&mut bench);
    for member in [A, B, Member { gateway: "c", times: 1 }] {
        bench.join(START, member, &[]);
    }
    let third = Member { gateway: "c", times: 1 };
    assert_eq!(admitted(&mut bench, START, third), 30, "60 that A held alone, and 30 that B learned of when it joined");
}

#[test]
fn a_gateway_that_is_cut_off_is_known_while_its_requests_may_count() {
    let mut bench = Bench::of(120);
    bench.join(START, A, &[]);
    bench.join(START, B, &[]);
    // A sends from its part for a window and a deadline. Its last request from that counts as long again.
    let counts = START + 180 * SECOND;
    assert_eq!(bench.heartbeat(counts, B).gateways, 2);
    assert_eq!(bench.heartbeat(counts + 2 * SECOND, B).gateways, 1);
}

#[test]
fn a_part_is_reserved_until_its_gateway_gives_it_up() {
    let mut bench = Bench::of(120);
    settle_without_limits(&mut bench);
    bench.join(START, A, &[]);
    bench.join(START, B, &[]);
    // B learns of its part, and then does not run.
    let (scripts, link) = (&bench.scripts, &mut bench.link);
    let heard = bench.runtime.block_on(scripts.heartbeat(link, limit(120, START), B, 0)).unwrap();
    assert_eq!(heard.part.requests, 30, "half of what is granted, divided among both");
    assert_eq!(admitted(&mut bench, START, A), 90, "all but the part of B, however often A asks");
    // A late call of B names an old epoch.
    let (scripts, link) = (&bench.scripts, &mut bench.link);
    bench.runtime.block_on(scripts.heartbeat(link, limit(120, START), B, heard.part.epoch)).unwrap();
    assert!(bench.acquire(START, A).is_err());
    let runs = |bench: &mut Bench| {
        bench.heartbeat(START, B);
        bench.acquire(START, A).is_ok()
    };
    assert_eq!((0..60).filter(|_| runs(&mut bench)).count(), 30, "B runs again and gives up its part");
}
