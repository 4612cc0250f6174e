//! API versions: accepted values of `cal-api-version`, and the hint about the versions of an operation.

use calgate::catalog::version::check;
use calgate::catalog::{ApiVersion, Catalog};
use http::HeaderValue;
use proptest::prelude::*;

use crate::given::code;

fn is_accepted(text: &str) -> bool {
    let header = HeaderValue::from_bytes(text.as_bytes()).unwrap();
    let accepted = code(check(Some(&header))) == "ok";
    assert_eq!(ApiVersion::parse(text).is_some(), accepted, "{text}");
    accepted
}

#[test]
fn accepts_any_date_and_nothing_else() {
    assert_eq!(code(check(None)), "ok");
    let dates = ["2024-04-15", "2024-08-13", "2026-02-25", "2026-05-01", "2026-06-12", "2024-02-29", "2099-12-31"];
    for date in dates {
        assert!(is_accepted(date), "{date}");
    }
    let others = [
        "",
        "latest",
        "2",
        "v2",
        "2024-8-13",
        "2024-08-13 ",
        "2024-08-13T00:00:00Z",
        "20240813",
        "2024/08/13",
        "13-08-2024",
        "2024-13-01",
        "2024-00-10",
        "2024-02-30",
        "2023-02-29",
        "2024-08-32",
        "2024-08-13, 2024-08-13",
        "-024-08-13",
        "2024-08--3",
    ];
    for other in others {
        assert!(!is_accepted(other), "{other}");
    }
    assert!(check(Some(&HeaderValue::from_bytes(b"2024-08-1\xff").unwrap())).is_err());
}

proptest! {
    #[test]
    fn accepts_a_date_of_any_year(year in 0..=9999_u16, month in 1..=12_u8, day in 1..=28_u8) {
        let text = format!("{year:04}-{month:02}-{day:02}");
        prop_assert!(is_accepted(&text));
    }

    #[test]
    fn rejects_ten_characters_in_another_form(text in "[0-9-]{10}") {
        let parts: Vec<_> = text.split('-').collect();
        prop_assume!(parts.iter().map(|part| part.len()).collect::<Vec<_>>() != [4, 2, 2]);
        prop_assert!(!is_accepted(&text));
    }
}

#[test]
fn the_hint_lists_the_versions_of_the_operation() {
    let hint = |operation: &str, sent: Option<&'static str>| {
        let endpoint = Catalog::built_in().find_by_name(operation).unwrap();
        let hint = endpoint.version_hint(sent.map(HeaderValue::from_static).as_ref());
        hint.map(|hint| hint.to_str().unwrap().to_owned())
    };
    let emails = "GET /v2/verified-resources/emails";
    let hints = [
        hint("GET /v2/slots", None),
        hint("GET /v2/slots", Some("2024-08-13")),
        hint("GET /v2/bookings", Some("2024-09-04")),
        hint(emails, Some("2024-08-13")),
    ];
    insta::assert_snapshot!(hints.map(Option::unwrap).join("\n"), @r"
    calgate's catalog lists cal-api-version 2024-09-04 for GET /v2/slots, and not 2024-04-15, which Cal.com uses without the header
    calgate's catalog lists cal-api-version 2024-09-04 for GET /v2/slots, and not 2024-08-13, which this request sent
    calgate's catalog lists cal-api-version 2024-04-15 (or no header), 2024-06-11, 2024-06-14, 2024-08-13, 2026-05-01 for GET /v2/bookings, and not 2024-09-04, which this request sent
    calgate's catalog lists cal-api-version 2024-04-15 (or no header) for GET /v2/verified-resources/emails, and not 2024-08-13, which this request sent
    ");
    for (operation, sent) in [
        ("GET /v2/slots", Some("2024-09-04")),
        ("GET /v2/bookings", None),
        ("GET /v2/bookings", Some("2024-08-13")),
        (emails, None),
        ("GET /v2/me", Some("2024-09-04")),
        ("GET /v2/me", None),
    ] {
        assert_eq!(hint(operation, sent), None, "{operation} {sent:?}");
    }
}
