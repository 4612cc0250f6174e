//! Lookup of a method and path: compared with a matcher that uses no tree, and case by case.

use calgate::catalog::endpoint::Segment;
use calgate::catalog::{Catalog, Endpoint, RouteMatch, UnknownEndpoints, file};
use calgate::refusal::Refusal;
use http::Method;
use proptest::prelude::*;

use crate::given::{code, find};
use crate::properties::cases;

/// Returns the path of an endpoint with `values` for its parameters.
pub(super) fn fill(endpoint: &Endpoint, values: &[String]) -> String {
    let mut values = values.iter().cycle();
    let segment = |segment: &Segment| match segment {
        Segment::Literal(text) => text.to_string(),
        Segment::Parameter(_) => values.next().unwrap().clone(),
    };
    endpoint.template.segments().iter().map(segment).fold(String::new(), |path, segment| path + "/" + &segment)
}

/// Returns whether a path matches a template, by a plain comparison of texts.
fn matches(template: &str, path: &str) -> bool {
    let (template, path): (Vec<&str>, Vec<&str>) = (template.split('/').collect(), path.split('/').collect());
    template.len() == path.len()
        && template.iter().zip(path).all(|(part, given)| part.starts_with('{') || part.eq_ignore_ascii_case(given))
}

/// Generates paths from the words of the catalog's templates, also in other orders.
fn near_path() -> impl Strategy<Value = String> {
    let words: Vec<String> = Catalog::built_in()
        .endpoints()
        .iter()
        .flat_map(|e| e.template.as_str().split('/').filter(|part| !part.is_empty()))
        .map(|part| if part.starts_with('{') { "1".to_owned() } else { part.to_owned() })
        .collect();
    let template = (0..Catalog::built_in().endpoints().len(), proptest::collection::vec(0..words.len(), 6));
    let (some, other) = (words.clone(), words);
    let filled = template.prop_map(move |(index, picks)| {
        let values: Vec<String> = picks.into_iter().map(|at| some[at].clone()).collect();
        fill(&Catalog::built_in().endpoints()[index], &values)
    });
    let shuffled = proptest::collection::vec(0..other.len(), 1..5)
        .prop_map(move |picks| picks.into_iter().fold("/v2".to_owned(), |path, at| path + "/" + &other[at]));
    prop_oneof![3 => filled, 1 => shuffled]
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn lookup_agrees_with_a_naive_matcher(path in near_path(), upper in any::<bool>()) {
        let target = if upper { path.to_uppercase() } else { path.clone() };
        for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            let catalog = Catalog::built_in();
            let naive = catalog.endpoints().iter().filter(|e| e.method == method && matches(e.template.as_str(), &path));
            let naive: Vec<_> = naive.map(ToString::to_string).collect();
            let found = catalog.match_route(&method, &target, UnknownEndpoints::Refuse);
            let mut found: Vec<_> =
                found.iter().flat_map(RouteMatch::candidates).map(ToString::to_string).collect();
            found.sort_by_key(|name| catalog.find_by_name(name).map(|e| e.id));
            prop_assert_eq!(naive, found, "{} {}", method, target);
        }
    }
}

#[test]
fn every_operation_matches_its_own_path_and_keeps_it() {
    for endpoint in Catalog::built_in().endpoints() {
        let path = fill(endpoint, &["Val-1".to_owned()]);
        let found = Catalog::built_in().match_route(&endpoint.method, &path, UnknownEndpoints::Refuse).unwrap();
        let mut upstream = String::new();
        found.write_upstream_path(&mut upstream);
        assert!(found.candidates().iter().any(|e| e.id == endpoint.id), "{endpoint}");
        assert_eq!(upstream, path);
        assert!(found.is_canonical(), "{endpoint}");
    }
}

#[test]
fn writes_the_canonical_path_for_cal_com() {
    let table = [
        ("GET /V2/BOOKINGS/Uid/", "/v2/bookings/Uid"),
        ("HEAD /v2/%6d%65", "/v2/me"),
        ("GET /v2/bookings/a%c3%a9%2db", "/v2/bookings/a%C3%A9-b"),
        ("GET /v2/Schedules/Default", "/v2/schedules/default"),
        ("POST /v2/bookings/Cancel/CANCEL", "/v2/bookings/Cancel/cancel"),
    ];
    for (request, expected) in table {
        let (found, mut upstream) = (find(request).unwrap(), String::new());
        found.write_upstream_path(&mut upstream);
        assert_eq!(upstream, expected, "{request}");
        assert!(!found.is_canonical(), "{request}");
    }
}

#[test]
fn returns_all_overlapping_templates_with_the_most_literal_first() {
    let table = [
        ("GET /v2/schedules/default", &["GET /v2/schedules/default", "GET /v2/schedules/{scheduleId}"][..]),
        (
            "GET /v2/organizations/1/teams/me",
            &["GET /v2/organizations/{orgId}/teams/me", "GET /v2/organizations/{orgId}/teams/{teamId}"],
        ),
        ("GET /v2/schedules/7", &["GET /v2/schedules/{scheduleId}"]),
        ("HEAD /v2/me", &["GET /v2/me"]),
    ];
    for (request, expected) in table {
        let found = find(request).unwrap();
        let names: Vec<_> = found.candidates().iter().map(ToString::to_string).collect();
        assert_eq!(names, expected, "{request}");
        assert_eq!(found.endpoint().unwrap().to_string(), expected[0]);
    }
}

#[test]
fn refuses_operations_outside_the_catalog() {
    let table = [
        ("GET /v2/nothing", "GATEWAY_UNKNOWN_ENDPOINT"),
        ("GET /", "GATEWAY_UNKNOWN_ENDPOINT"),
        ("GET /v2", "GATEWAY_UNKNOWN_ENDPOINT"),
        ("GET /v1/me", "GATEWAY_API_VERSION_GONE"),
        ("GET /api/v2/me", "GATEWAY_UNKNOWN_ENDPOINT"),
        ("GET /v2/ee/me", "GATEWAY_UNKNOWN_ENDPOINT"),
        ("GET /v2/EE/me", "GATEWAY_UNKNOWN_ENDPOINT"),
        ("GET /v2/me/x", "GATEWAY_UNKNOWN_ENDPOINT"),
        ("GET /v2/me%20", "GATEWAY_UNKNOWN_ENDPOINT"),
        ("DELETE /v2/me", "GATEWAY_METHOD_NOT_ALLOWED"),
        ("HEAD /v2/api-keys/refresh", "GATEWAY_METHOD_NOT_ALLOWED"),
        ("get /v2/me", "GATEWAY_METHOD_NOT_ALLOWED"),
        ("PROPFIND /v2/me", "GATEWAY_METHOD_NOT_ALLOWED"),
        ("GET /v2/../me", "GATEWAY_BAD_REQUEST"),
    ];
    for (request, expected) in table {
        assert_eq!(code(find(request)), expected, "{request}");
    }
}

#[test]
fn allow_lists_the_methods_of_a_path() {
    let Err(Refusal::MethodNotAllowed { allow, .. }) = find("PUT /v2/schedules/default") else { panic!() };
    assert_eq!(allow, "DELETE, GET, HEAD, OPTIONS, PATCH");
    let allow = |path| Catalog::built_in().allow(path, UnknownEndpoints::Refuse);
    assert_eq!(allow("/v2/api-keys/refresh/").unwrap(), "OPTIONS, POST");
    assert_eq!(code(allow("/v2/nothing")), "GATEWAY_UNKNOWN_ENDPOINT");
    assert!(allow("/v2/..").is_err());
}

#[test]
fn forwards_unknown_paths_only_if_enabled_and_never_aliases() {
    let table = [
        ("GET /v2/new/thing", "ok"),
        ("HEAD /v2/new/thing/", "ok"),
        ("GET /v2/organizations/1/new", "ok"),
        ("DELETE /v2/me", "ok"),
        ("PROPFIND /v2/me", "GATEWAY_METHOD_NOT_ALLOWED"),
        ("PUT /v2/oauth-clients/x", "GATEWAY_METHOD_NOT_ALLOWED"),
        ("PROPFIND /v2/new", "GATEWAY_UNKNOWN_ENDPOINT"),
        ("GET /v2", "GATEWAY_UNKNOWN_ENDPOINT"),
        ("GET /v1/new", "GATEWAY_API_VERSION_GONE"),
        ("GET /api/v2/me", "GATEWAY_UNKNOWN_ENDPOINT"),
        ("GET /v2/ee/me", "GATEWAY_UNKNOWN_ENDPOINT"),
        ("GET /v2/%65%45/me", "GATEWAY_UNKNOWN_ENDPOINT"),
        ("POST /v2/new/reccuring", "GATEWAY_BAD_REQUEST"),
        ("GET /v2/new//thing", "GATEWAY_BAD_REQUEST"),
    ];
    for (request, expected) in table {
        let (method, path) = request.split_once(' ').unwrap();
        let found = Catalog::built_in().match_route(&method.parse().unwrap(), path, UnknownEndpoints::Forward);
        assert_eq!(code(found), expected, "{request}");
    }
    let found = Catalog::built_in().match_route(&Method::GET, "/v2/New/%7ething/", UnknownEndpoints::Forward).unwrap();
    let mut upstream = String::new();
    found.write_upstream_path(&mut upstream);
    assert_eq!((found.endpoint(), upstream.as_str()), (None, "/v2/New/~thing"));
}

#[test]
fn never_forwards_credential_operations_as_unknown() {
    let row = "[[endpoint]]\noperation = \"GET /v2/me\"\ntag = \"Me\"\ncredential = \"bearer\"\n";
    let small = file::read(row).unwrap();
    let credential_operations = Catalog::built_in().endpoints().iter().filter(|e| e.credential_operation);
    for endpoint in credential_operations {
        let path = endpoint.template.as_str().replace(['{', '}'], "").replace("users", "Users");
        let found = small.match_route(&endpoint.method, &path, UnknownEndpoints::Forward);
        assert_eq!(code(found), "GATEWAY_UNKNOWN_ENDPOINT", "{endpoint}");
    }
    for (method, path, expected) in [
        (Method::HEAD, "/v2/oauth-clients/", "GATEWAY_UNKNOWN_ENDPOINT"),
        (Method::POST, "/v2/api-keys/%72efresh", "GATEWAY_UNKNOWN_ENDPOINT"),
        (Method::GET, "/v2/api-keys/refresh", "GATEWAY_UNKNOWN_ENDPOINT"),
        (Method::PUT, "/v2/OAuth-Clients/x", "GATEWAY_UNKNOWN_ENDPOINT"),
        (Method::POST, "/v2/api-keys/refresh/x", "ok"),
        (Method::POST, "/v2/api-keys", "ok"),
    ] {
        assert_eq!(code(small.match_route(&method, path, UnknownEndpoints::Forward)), expected, "{method} {path}");
    }
}

#[test]
fn rejects_a_catalog_with_too_many_endpoints() {
    let sample = Catalog::built_in().endpoints()[0].clone();
    let numbered = |n: usize| {
        let template = calgate::catalog::endpoint::Template::parse(&format!("/v2/{n}")).unwrap();
        Endpoint { template, ..sample.clone() }
    };
    assert_eq!(
        Catalog::new((0..=65_536).map(numbered).collect()).unwrap_err(),
        "a catalog has at most 65536 endpoints"
    );
}

#[test]
fn rejects_a_catalog_with_a_duplicate_operation() {
    let twice = "[[endpoint]]\noperation = \"GET /v2/x/{a}\"\ntag = \"X\"\ncredential = \"any\"\n\
                 [[endpoint]]\noperation = \"GET /v2/x/{b}\"\ntag = \"X\"\ncredential = \"any\"\n";
    assert_eq!(file::read(twice).unwrap_err(), "`GET /v2/x/{b}` and `GET /v2/x/{a}` are the same operation");
}
