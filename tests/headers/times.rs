//! Tests of times in response headers: units, reference and trust.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use calgate::headers::times::{Reference, TimeLeft, timestamp};

use crate::given::headers;

const WINDOW: Duration = Duration::from_secs(60);
const NOW: u64 = 1_796_000_000;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn trusted(seconds: u64) -> TimeLeft {
    TimeLeft::Trusted(Duration::from_secs(seconds))
}

fn retry_after(value: &str) -> Option<TimeLeft> {
    let fields = headers([("date", &*httpdate::fmt_http_date(at(NOW))), ("retry-after", value)]);
    // The clock of this machine is a day ahead. No result may depend on it.
    Reference::of(&fields, at(NOW + 86_400)).retry_after(&fields, WINDOW)
}

#[test]
fn reads_retry_after_as_seconds_or_as_any_of_three_date_forms() {
    for (value, expected) in [
        ("0", Some(trusted(0))),
        ("17", Some(trusted(17))),
        ("180", Some(trusted(180))),
        ("181", Some(TimeLeft::TooLong(181))),
        ("86400", Some(TimeLeft::TooLong(86_400))),
        ("59000", Some(TimeLeft::TooLong(59_000))),
        ("Mon, 30 Nov 2026 00:53:50 GMT", Some(trusted(30))),
        ("Monday, 30-Nov-26 00:53:50 GMT", Some(trusted(30))),
        ("Mon Nov 30 00:53:50 2026", Some(trusted(30))),
        ("Mon, 30 Nov 2026 00:53:10 GMT", Some(trusted(0))),
        ("Tue, 01 Dec 2026 00:53:20 GMT", Some(TimeLeft::TooLong(86_400))),
        ("soon", None),
        ("-1", None),
        ("1e3", None),
        ("NaN", None),
        ("", None),
    ] {
        assert_eq!(retry_after(value), expected, "{value}");
    }
}

#[test]
fn recognises_the_unit_of_a_reset_by_its_size() {
    let reference = Reference::of(&headers([]), at(NOW));
    let left = |value: &str| reference.time_left(value, WINDOW);
    for (value, expected) in [
        ("40".to_owned(), Some(trusted(40))),
        ("39.2".to_owned(), Some(trusted(40))),
        ("40000".to_owned(), Some(trusted(40))),
        ("61001".to_owned(), Some(TimeLeft::TooLong(61_001))),
        ((NOW + 40).to_string(), Some(trusted(40))),
        (((NOW + 40) * 1000).to_string(), Some(trusted(40))),
        (((NOW + 40) * 1_000_000).to_string(), Some(trusted(40))),
        ((NOW - 40).to_string(), Some(trusted(0))),
        ((NOW + 57_600).to_string(), Some(TimeLeft::TooLong(57_600))),
        ("99999999999999999999999".to_owned(), Some(TimeLeft::TooLong(100_000_000_000_000 - NOW))),
        ("9".repeat(25), None),
    ] {
        assert_eq!(left(&value), expected, "{value}");
    }
}

#[test]
fn reads_a_timestamp_in_four_units() {
    for scale in [1e0, 1e3, 1e6, 1e9] {
        let seconds = timestamp(1.796e9 * scale).as_secs();
        assert!(seconds.abs_diff(NOW) <= 1, "{scale}: {seconds}");
    }
}
