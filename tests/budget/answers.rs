//! What answers tell of limits, in every known spelling, and what is ignored.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use calgate::budget::headers::{Seen, Verdict, name_hash, read};
use http::{HeaderMap, StatusCode};

use crate::given::headers;

const WALL: u64 = 1_800_000_000;

fn wall() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(WALL)
}

fn told(fields: &HeaderMap) -> Vec<Seen> {
    read(StatusCode::OK, fields, wall()).1.limits.to_vec()
}

fn seen(name: &str, limit: Option<u32>, remaining: u32, reset: u64) -> Seen {
    Seen { name: name_hash(name), limit, remaining, reset: Duration::from_secs(reset) }
}

#[test]
fn every_spelling_is_read() {
    let cal_com = |name: &str, reset: &str| {
        let field = |part: &str| format!("x-ratelimit-{part}{name}");
        headers([(&*field("limit"), "120"), (&*field("remaining"), "7"), (&*field("reset"), reset)])
    };
    assert_eq!(told(&cal_com("-default", "40")), [seen("Default", Some(120), 7, 40)]);
    assert_eq!(told(&cal_com("-my-own", "40")), [seen("my-own", Some(120), 7, 40)]);
    assert_eq!(told(&cal_com("", "40")), [seen("", Some(120), 7, 40)]);
    assert_eq!(told(&cal_com("", &(WALL + 40).to_string())), [seen("", Some(120), 7, 40)], "a moment");
    assert_eq!(
        told(&cal_com("", &(WALL * 1000 + 39_001).to_string())),
        [seen("", Some(120), 7, 40)],
        "in milliseconds"
    );
    assert_eq!(told(&cal_com("", &(WALL - 5).to_string())), [seen("", Some(120), 7, 0)], "one that has passed");
    assert_eq!(told(&cal_com("", "39.2")), [seen("", Some(120), 7, 40)]);
    for (fields, expected) in [
        (headers([("ratelimit", "\"burst\";r=7;t=40")]), seen("burst", None, 7, 40)),
        (
            headers([("ratelimit-policy", "\"burst\";q=120;w=60"), ("ratelimit", "\"burst\";r=7;t=40")]),
            seen("burst", Some(120), 7, 40),
        ),
        (headers([("ratelimit", "limit=120, remaining=7, reset=40")]), seen("", Some(120), 7, 40)),
        (
            headers([("ratelimit-limit", "120, 120;w=60"), ("ratelimit-remaining", "7"), ("ratelimit-reset", "40")]),
            seen("", Some(120), 7, 40),
        ),
    ] {
        assert_eq!(told(&fields), [expected], "{fields:?}");
    }
}

#[test]
fn two_limits_are_two() {
    let fields = headers([
        ("x-ratelimit-limit-default", "120"),
        ("x-ratelimit-remaining-default", "0"),
        ("x-ratelimit-reset-default", "40"),
        ("x-ratelimit-limit-long", "1000"),
        ("x-ratelimit-remaining-long", "900"),
        ("x-ratelimit-reset-long", "3000"),
    ]);
    let mut both = told(&fields);
    both.sort_by_key(|seen| seen.remaining);
    assert_eq!(both, [seen("default", Some(120), 0, 40), seen("long", Some(1000), 900, 3000)]);
}

#[test]
fn what_makes_no_sense_is_ignored_and_said() {
    for (limit, remaining, reset) in [
        ("0", "0", "40"),
        ("120", "121", "40"),
        ("120", "-1", "40"),
        ("120", "many", "40"),
        ("120", "7", "90000"),
        ("120", "7", ""),
        ("99999999999999999999", "7", "40"),
        ("120", "7", "NaN"),
    ] {
        let fields = headers([
            ("x-ratelimit-limit-default", limit),
            ("x-ratelimit-remaining-default", remaining),
            ("x-ratelimit-reset-default", reset),
        ]);
        let (_, told) = read(StatusCode::OK, &fields, wall());
        assert!(told.limits.is_empty() && told.absurd, "{fields:?}");
    }
    assert!(!read(StatusCode::OK, &headers([("x-ratelimit-limit", "120")]), wall()).1.absurd, "half of it is no fault");
}

#[test]
fn cal_coms_no_is_told_from_that_of_the_edge_in_front_of_it() {
    let json = ("content-type", "application/json; charset=utf-8");
    let html = ("content-type", "text/html");
    let after = ("retry-after", "17");
    let wait = Some(Duration::from_secs(17));
    for (status, fields, verdict) in [
        (200, headers([json]), Verdict::Passed),
        (403, headers([json]), Verdict::Passed),
        (403, headers([html]), Verdict::Edge { retry_after: None }),
        (403, headers([html, ("x-ratelimit-remaining-default", "7")]), Verdict::Passed),
        (429, headers([html, after]), Verdict::Edge { retry_after: wait }),
        (429, headers([json, after]), Verdict::Refused { retry_after: wait }),
        (429, headers([html, ("x-ratelimit-remaining-default", "0")]), Verdict::Refused { retry_after: None }),
        (503, headers([html]), Verdict::Passed),
    ] {
        assert_eq!(read(StatusCode::from_u16(status).unwrap(), &fields, wall()).0, verdict, "{status} {fields:?}");
    }
}
