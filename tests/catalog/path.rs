//! Canonical form of paths: paths that have one, paths that have none, and equivalent spellings.

use calgate::catalog::{CanonicalPath, Catalog, UnknownEndpoints};
use calgate::refusal::PathError;
use http::Method;
use proptest::prelude::*;

use crate::properties::cases;

fn canonical(raw: &str) -> Result<String, PathError> {
    let path = CanonicalPath::parse(raw)?;
    Ok("/".to_owned() + &path.segments().collect::<Vec<_>>().join("/"))
}

#[test]
fn an_unambiguous_path_has_a_canonical_form() {
    let table = [
        ("/v2/me", "/v2/me"),
        ("/v2/me/", "/v2/me"),
        ("/V2/Bookings/Uid-A_b.c~", "/V2/Bookings/Uid-A_b.c~"),
        ("/", "/"),
        ("/v2/%62ookings/%7Eu%2De%2ef%5fg", "/v2/bookings/~u-e.f_g"),
        ("/v2/bookings/a%20b", "/v2/bookings/a%20b"),
        ("/v2/bookings/%c3%A9%e2%82%ac", "/v2/bookings/%C3%A9%E2%82%AC"),
        ("/v2/bookings/%3A%40%2b", "/v2/bookings/%3A%40%2B"),
        ("/v2/bookings/a:b@c!$&'()*+,=d", "/v2/bookings/a:b@c!$&'()*+,=d"),
        ("/v2/...", "/v2/..."),
        ("/v2/.a/b./..c", "/v2/.a/b./..c"),
        ("/v2/recurring", "/v2/recurring"),
    ];
    for (raw, expected) in table {
        assert_eq!(canonical(raw).as_deref(), Ok(expected), "{raw}");
    }
}

#[test]
fn an_ambiguous_path_has_no_canonical_form() {
    use PathError::*;
    let table = [
        ("", NotOriginForm),
        ("*", NotOriginForm),
        ("v2/me", NotOriginForm),
        ("https://api.cal.com/v2/me", NotOriginForm),
        ("//v2/me", EmptySegment),
        ("/v2//me", EmptySegment),
        ("/v2/me//", EmptySegment),
        ("//", EmptySegment),
        ("/v2/./me", DotSegment),
        ("/v2/bookings/..", DotSegment),
        ("/v2/bookings/../", DotSegment),
        ("/v2/bookings/%2e%2E/cancel", DotSegment),
        ("/v2/bookings/.%2e", DotSegment),
        ("/v2/%2e/me", DotSegment),
        ("/v2/bookings/a%2Fb", AmbiguousEscape),
        ("/v2/bookings/a%2fb", AmbiguousEscape),
        ("/v2/bookings/a%5cb", AmbiguousEscape),
        ("/v2/bookings/a%25b", AmbiguousEscape),
        ("/v2/bookings/%252e%252e", AmbiguousEscape),
        ("/v2/bookings/a%3fb", AmbiguousEscape),
        ("/v2/bookings/a%23b", AmbiguousEscape),
        ("/v2/bookings/a%3Bb", AmbiguousEscape),
        ("/v2/bookings/%00", AmbiguousEscape),
        ("/v2/bookings/%0d%0aHost", AmbiguousEscape),
        ("/v2/bookings/%7f", AmbiguousEscape),
        ("/v2/bookings/%c2%85", AmbiguousEscape),
        ("/v2/bookings/%", BrokenEscape),
        ("/v2/bookings/%4", BrokenEscape),
        ("/v2/bookings/%zz", BrokenEscape),
        ("/v2/bookings/%+4", BrokenEscape),
        ("/v2/bookings/%u0041", BrokenEscape),
        ("/v2/bookings/%ff", NotUtf8),
        ("/v2/bookings/%c0%af", NotUtf8),
        ("/v2/bookings/%c3x%a9", NotUtf8),
        ("/v2/bookings/a\\b", InvalidByte),
        ("/v2/bookings/a;b", InvalidByte),
        ("/v2/bookings/a#b", InvalidByte),
        ("/v2/bookings/a?b", InvalidByte),
        ("/v2/bookings/a b", InvalidByte),
        ("/v2/bookings/a\tb", InvalidByte),
        ("/v2/bookings/{uid}", InvalidByte),
        ("/v2/bookings/é", InvalidByte),
        ("/v2/bookings/é%20", InvalidByte),
        ("/v2/bookings/reccuring", Rewritten),
        ("/v2/RecCuring/x", Rewritten),
        ("/v2/re%63curing", Rewritten),
    ];
    for (raw, fault) in table {
        assert_eq!(canonical(raw), Err(fault), "{raw:?}");
    }
}

/// Generates arbitrary paths, most of them with dots, escapes and slashes.
fn raw_path() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "[a-zA-Z0-9._~-]{1,6}",
        2 => "%[0-9a-fA-F]{2}",
        1 => Just("%2e".to_owned()),
        1 => Just("..".to_owned()),
        2 => Just("/".to_owned()),
        1 => Just("reccuring".to_owned()),
        1 => any::<String>(),
    ];
    let pieces = proptest::collection::vec(piece, 0..8).prop_map(|pieces| "/".to_owned() + &pieces.concat());
    prop_oneof![9 => pieces, 1 => any::<String>()]
}

/// Returns another spelling of a path: unreserved characters escaped, hexadecimal digits in lower case, a trailing slash.
fn respelled(path: &str, choices: &[u8]) -> String {
    let mut choice = choices.iter().cycle();
    let mut out = String::new();
    for byte in path.bytes() {
        match choice.next().unwrap_or(&0) % 4 {
            0 if byte != b'/' && byte.is_ascii_alphanumeric() && !out.ends_with(['%']) && !in_escape(&out) => {
                out += &format!("%{byte:02x}");
            }
            1 if in_escape(&out) => out.push(char::from(byte).to_ascii_lowercase()),
            _ => out.push(char::from(byte)),
        }
    }
    if choice.next() == Some(&0) && path != "/" { out + "/" } else { out }
}

/// Returns whether the next character belongs to an unfinished escape.
fn in_escape(text: &str) -> bool {
    text.ends_with('%') || text.get(text.len().saturating_sub(2)..).is_some_and(|end| end.starts_with('%'))
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn the_canonical_form_of_a_canonical_path_is_the_same(raw in raw_path()) {
        let Ok(once) = canonical(&raw) else { return Ok(()) };
        prop_assert_eq!(canonical(&once), Ok(once));
    }

    #[test]
    fn the_canonical_form_is_unambiguous(raw in raw_path()) {
        let Ok(path) = canonical(&raw) else { return Ok(()) };
        for segment in path.split('/').skip(1).filter(|_| path != "/") {
            prop_assert!(!segment.is_empty() && segment != "." && segment != "..", "{}", path);
        }
        for delimiter in ["%2F", "%5C", "%25", "%3F", "%23", "%3B", "%2E", "%00", "%0A", "%0D", "%7F"] {
            prop_assert!(!path.contains(delimiter), "{}", path);
        }
        prop_assert!(path.bytes().all(|b| b.is_ascii_graphic() && !b"\\?#;\"<>^`{|}[]".contains(&b)), "{}", path);
        prop_assert!(!path.to_ascii_lowercase().contains("reccuring"), "{}", path);
    }

    #[test]
    fn all_spellings_of_a_path_have_the_same_canonical_form(raw in raw_path(), choices in proptest::collection::vec(any::<u8>(), 1..32)) {
        let Ok(path) = canonical(&raw) else { return Ok(()) };
        prop_assert_eq!(canonical(&respelled(&path, &choices)), Ok(path));
    }

    #[test]
    fn all_spellings_of_a_path_match_the_same_endpoints(
        (index, values) in (0..Catalog::built_in().endpoints().len(), proptest::collection::vec("[a-z0-9]{1,5}", 6)),
        choices in proptest::collection::vec(any::<u8>(), 1..32),
    ) {
        let endpoint = &Catalog::built_in().endpoints()[index];
        let path = super::lookup::fill(endpoint, &values);
        let other = respelled(&path, &choices);
        let find = |path: &str| {
            let found = Catalog::built_in().match_route(&endpoint.method, path, UnknownEndpoints::Refuse).unwrap();
            let mut upstream = String::new();
            found.write_upstream_path(&mut upstream);
            assert!(!found.is_canonical() || upstream == path, "{path}");
            (found.candidates().iter().map(|e| e.id).collect::<Vec<_>>(), upstream)
        };
        prop_assert_eq!(find(&path), find(&other), "{}", other);
    }

    #[test]
    fn lookup_never_panics(raw in any::<Vec<u8>>(), method in "[A-Z]{1,7}") {
        let raw = String::from_utf8_lossy(&raw);
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        for target in [raw.clone().into_owned(), format!("/{raw}"), format!("/v2/{raw}")] {
            for unknown in [UnknownEndpoints::Refuse, UnknownEndpoints::Forward] {
                let _ = Catalog::built_in().match_route(&method, &target, unknown);
            }
            let _ = Catalog::built_in().allow(&target, UnknownEndpoints::Forward);
        }
    }
}
