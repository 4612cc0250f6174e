//! What the store keeps of a limit for gateways that lose it.

use std::time::Duration;

use calgate::limit_store::{AcquireRequest, Acquired, Member, RequestOutcome};
use calgate::ratelimit::usage_headers::{LimitReadings, UpstreamOutcome};

use super::scripts::{A, B, Bench, SECOND, START, limit};

/// How many requests of a gateway's the store lets out that names the epochs of parts as it learns of them.
fn lets_out(bench: &mut Bench, at: u64, member: Member<'_>) -> usize {
    let (mut epoch, mut count) = (bench.heartbeat(at, member).part.epoch, 0);
    // A request that is held for the sake of parts is asked for again once its gateway knows of smaller ones.
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

/// A response without limits, long before: nothing but the log holds what follows.
fn is_silent(bench: &mut Bench) {
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
fn half_of_the_limit_is_kept_for_one_that_was_alone_until_it_knows_that_it_is_not() {
    let mut bench = Bench::of(120);
    is_silent(&mut bench);
    bench.join(START, A, &[]);
    (0..50).for_each(|_| assert!(bench.acquire(START, A).is_ok()));
    let alone = bench.heartbeat(START, A).part;
    assert_eq!(alone.requests, 60, "however much it uses");
    // From here on A does not reach the store.
    bench.join(START + SECOND, B, &[]);
    assert_eq!(lets_out(&mut bench, START + SECOND, B), 10, "what A did not use of the other half");
    let runs = |bench: &mut Bench| {
        bench.heartbeat(START + SECOND, A);
        bench.acquire(START + SECOND, B).is_ok()
    };
    assert_eq!((0..90).filter(|_| runs(&mut bench)).count(), 60, "A is back and gives up its part");
}

/// The gateway's own log lacks what one sent that has said goodbye.
#[test]
fn who_is_the_only_one_is_not_alone_before_others_requests_are_over() {
    let mut bench = Bench::of(120);
    is_silent(&mut bench);
    bench.join(START, A, &[]);
    bench.join(START, B, &[]);
    assert_eq!(lets_out(&mut bench, START, B), 60);
    let keys = limit(120, START).keys;
    bench.runtime.block_on(bench.scripts.leave(&mut bench.link, keys, B)).unwrap();
    bench.heartbeat(START + SECOND, A);
    let kept = bench.heartbeat(START + SECOND, A).part.requests;
    assert_eq!(kept, 30, "as one of several, and what B sent is in the store's log");
    assert_eq!(bench.heartbeat(START + 91 * SECOND, A).part.requests, 60, "all of B's are over");
}

#[test]
fn who_comes_after_two_that_crashed_is_left_what_they_do_not_hold() {
    let mut bench = Bench::of(120);
    is_silent(&mut bench);
    for member in [A, B, Member { gateway: "c", times: 1 }] {
        bench.join(START, member, &[]);
    }
    let third = Member { gateway: "c", times: 1 };
    assert_eq!(
        lets_out(&mut bench, START, third),
        30,
        "60 that A held alone, and 30 that B was told of when it joined"
    );
}

#[test]
fn who_is_cut_off_is_known_for_as_long_as_its_last_request_may_count() {
    let mut bench = Bench::of(120);
    bench.join(START, A, &[]);
    bench.join(START, B, &[]);
    // A window and a deadline long A sends from its part. Its last request from that counts for as long again.
    let counts = START + 180 * SECOND;
    assert_eq!(bench.heartbeat(counts, B).gateways, 2);
    assert_eq!(bench.heartbeat(counts + 2 * SECOND, B).gateways, 1);
}

#[test]
fn what_a_gateway_may_send_without_the_store_is_kept_until_it_has_given_it_up() {
    let mut bench = Bench::of(120);
    is_silent(&mut bench);
    bench.join(START, A, &[]);
    bench.join(START, B, &[]);
    // B learns of its part, and then does not run.
    let (scripts, link) = (&bench.scripts, &mut bench.link);
    let heard = bench.runtime.block_on(scripts.heartbeat(link, limit(120, START), B, 0)).unwrap();
    assert_eq!(heard.part.requests, 30, "half of what is granted, divided among both");
    assert_eq!(lets_out(&mut bench, START, A), 90, "all but the part of B, however often A asks");
    // A call of B's that is late names an epoch that is over.
    let (scripts, link) = (&bench.scripts, &mut bench.link);
    bench.runtime.block_on(scripts.heartbeat(link, limit(120, START), B, heard.part.epoch)).unwrap();
    assert!(bench.acquire(START, A).is_err());
    let runs = |bench: &mut Bench| {
        bench.heartbeat(START, B);
        bench.acquire(START, A).is_ok()
    };
    assert_eq!((0..60).filter(|_| runs(&mut bench)).count(), 30, "B runs again and gives up its part");
}
