//! Parser of rate-limit headers: all known spellings, and values that it ignores.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use calgate::ratelimit::usage_headers::{HeadReading, Ignored, LimitReading, UpstreamOutcome, name_hash};
use http::{HeaderMap, StatusCode};

use crate::given::headers;

const WALL: u64 = 1_800_000_000;

fn wall() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(WALL)
}

fn parse(status: StatusCode, fields: &HeaderMap) -> HeadReading {
    calgate::ratelimit::usage_headers::parse(status, fields, wall(), Duration::from_secs(60))
}

fn told(fields: &HeaderMap) -> Vec<LimitReading> {
    parse(StatusCode::OK, fields).readings.limits.to_vec()
}

fn seen(name: &str, limit: Option<u32>, remaining: u32, reset: u64) -> LimitReading {
    LimitReading { name: name_hash(name), limit, remaining, reset: Duration::from_secs(reset) }
}

#[test]
fn parses_every_spelling() {
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
fn parses_two_limits_separately() {
    let fields = headers([
        ("x-ratelimit-limit-default", "120"),
        ("x-ratelimit-remaining-default", "0"),
        ("x-ratelimit-reset-default", "40"),
        ("x-ratelimit-limit-long", "1000"),
        ("x-ratelimit-remaining-long", "900"),
        ("x-ratelimit-reset-long", "180"),
    ]);
    let mut both = told(&fields);
    both.sort_by_key(|seen| seen.remaining);
    assert_eq!(both, [seen("default", Some(120), 0, 40), seen("long", Some(1000), 900, 180)]);
}

#[test]
fn ignores_implausible_values_and_reports_them() {
    for (limit, remaining, reset) in [
        ("0", "0", "40"),
        ("120", "121", "40"),
        ("120", "-1", "40"),
        ("120", "many", "40"),
        ("120", "7", "-40"),
        ("120", "7", "soon"),
        ("120", "7", ""),
        ("99999999999999999999", "7", "40"),
        ("120", "7", "NaN"),
    ] {
        let fields = headers([
            ("x-ratelimit-limit-default", limit),
            ("x-ratelimit-remaining-default", remaining),
            ("x-ratelimit-reset-default", reset),
        ]);
        let told = parse(StatusCode::OK, &fields).readings;
        assert!(told.limits.is_empty() && told.has_implausible, "{fields:?}");
    }
    assert!(
        !parse(StatusCode::OK, &headers([("x-ratelimit-limit", "120")])).readings.has_implausible,
        "half of it is no fault"
    );
}

#[test]
fn absolute_times_are_relative_to_the_date_of_the_response() {
    let date = httpdate_of(WALL - 3600);
    let reset = (WALL - 3600 + 40).to_string();
    for reset in [reset.clone(), format!("{reset}000"), httpdate_of(WALL - 3600 + 40)] {
        let fields = headers([
            ("date", &*date),
            ("x-ratelimit-limit-default", "120"),
            ("x-ratelimit-remaining-default", "7"),
            ("x-ratelimit-reset-default", &*reset),
        ]);
        assert_eq!(told(&fields), [seen("Default", Some(120), 7, 40)], "{reset}, an hour behind this machine");
    }
}

#[test]
fn a_reset_in_milliseconds_is_recognised_and_one_that_is_too_long_is_ignored() {
    for (reset, seconds, ignored) in [("59000", 59, None), ("180", 180, None), ("86400", 60, Some(86400))] {
        let fields = headers([
            ("x-ratelimit-limit-default", "120"),
            ("x-ratelimit-remaining-default", "7"),
            ("x-ratelimit-reset-default", reset),
        ]);
        let reading = parse(StatusCode::OK, &fields);
        assert_eq!(
            reading.readings.limits.to_vec(),
            [seen("Default", Some(120), 7, seconds)],
            "what is left still counts"
        );
        assert_eq!(reading.ignored, ignored.map(|seconds| Ignored { field: "reset", seconds }));
    }
}

#[test]
fn only_a_429_is_a_refusal_and_its_media_type_names_the_sender() {
    let json = ("content-type", "application/json; charset=utf-8");
    let spelled = ("content-type", "Application/JSON;charset=UTF-8");
    let html = ("content-type", "Text/HTML");
    let problem = ("content-type", "application/problem+json");
    let after = ("retry-after", "17");
    let wait = Some(Duration::from_secs(17));
    let date = httpdate_of(WALL + 17);
    for (status, fields, verdict) in [
        (200, headers([json]), UpstreamOutcome::Passed),
        (403, headers([json]), UpstreamOutcome::Unclear),
        (403, headers([html]), UpstreamOutcome::Unclear),
        (403, headers([html, ("x-ratelimit-remaining-default", "7")]), UpstreamOutcome::Passed),
        (404, headers([json]), UpstreamOutcome::Unclear),
        (429, headers([html, after]), UpstreamOutcome::Edge { retry_after: wait }),
        (429, headers([problem, after]), UpstreamOutcome::Edge { retry_after: wait }),
        (429, headers([html, ("retry-after", &*date)]), UpstreamOutcome::Edge { retry_after: wait }),
        (429, headers([html, ("retry-after", "86400")]), UpstreamOutcome::Edge { retry_after: None }),
        (429, headers([json, after]), UpstreamOutcome::Refused { retry_after: wait }),
        (429, headers([spelled, after]), UpstreamOutcome::Refused { retry_after: wait }),
        (429, headers([html, ("x-ratelimit-remaining-default", "0")]), UpstreamOutcome::Refused { retry_after: None }),
        (503, headers([html]), UpstreamOutcome::Unclear),
    ] {
        assert_eq!(parse(StatusCode::from_u16(status).unwrap(), &fields).outcome, verdict, "{status} {fields:?}");
    }
}

fn httpdate_of(seconds: u64) -> String {
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds))
}
