//! Catalog files: round trip, and error messages.

use calgate::catalog::{Catalog, file};

#[test]
fn the_built_in_catalog_equals_its_file() {
    let whole = file::read(include_str!("../../config/catalog.toml")).unwrap();
    assert_eq!(Catalog::built_in().endpoints(), whole.endpoints());
}

#[test]
fn a_catalog_survives_a_round_trip() {
    let again = file::read(&file::write(Catalog::built_in())).unwrap();
    assert_eq!(again.endpoints(), Catalog::built_in().endpoints());
}

#[test]
fn an_error_names_the_mistake() {
    let row = |operation: &str, rest: &str| {
        format!("[[endpoint]]\noperation = \"{operation}\"\ntag = \"A\"\ncredential = \"bearer\"\n{rest}")
    };
    let table = [
        (String::new(), "missing field `endpoint`"),
        ("endpoint = []".to_owned(), "the catalog has no endpoints"),
        (row("GET /v2/a", "colour = 1"), "unknown field `colour`"),
        (row("GET", ""), "`GET`: is not `METHOD /path`"),
        (row("HEAD /v2/a", ""), "`HEAD /v2/a`: the method `HEAD` is not one of GET, POST, PUT, PATCH, DELETE"),
        (row("GET v2/a", ""), "the path `v2/a` does not begin with `/`"),
        (row("GET /v2/A", ""), "a segment `A` that is neither lower-case text nor `{name}`"),
        (row("GET /v2//a", ""), "a segment `` that is neither"),
        (row("GET /v2/..", ""), "a segment `..` that is neither"),
        (row("GET /v2/a{b}", ""), "a segment `a{b}` that is neither"),
        (row("GET /v2/a", "api_version = \"new\""), "the api_version `new` is not a date"),
        (row("GET /v2/a", "api_version = \"2024-13-01\""), "the api_version `2024-13-01` is not a date"),
        (row("GET /v2/a", "api_versions = [\"1\"]"), "the api_versions entry `1` is not a date"),
        (row("GET /v2/a", "requests_per_minute = 0"), "requests_per_minute must be at least 1"),
        (row("GET /v2/a", "").replace("\"A\"", "\"A/B\""), "the tag `A/B` is not words separated by ` / `"),
        (row("GET /v2/a", "").replace("bearer", "cookie"), "unknown variant `cookie`"),
    ];
    for (text, expected) in table {
        let fault = file::read(&text).unwrap_err();
        assert!(fault.contains(expected), "{fault}");
    }
}

#[test]
fn every_template_that_matches_a_credential_operation_needs_the_mark() {
    let row = |operation: &str, rest: &str| {
        format!("[[endpoint]]\noperation = \"{operation}\"\ntag = \"Platform\"\ncredential = \"client\"\n{rest}\n")
    };
    let mark = "credential_operation = true";
    let (refresh, wide, narrow) =
        ("POST /v2/oauth/{id}/refresh", "POST /v2/oauth/{a}/{b}", "POST /v2/oauth/own/refresh");
    let fault = format!("`{refresh}`: shows or changes credentials, so it must have `credential_operation = true`");
    assert_eq!(file::read(&row(refresh, "")).unwrap_err(), fault);
    for other in [wide, narrow, "POST /v2/{a}/{b}/{c}"] {
        assert!(file::read(&row(other, "")).unwrap_err().starts_with(&format!("`{other}`: shows")));
        assert!(file::read(&row(other, mark)).is_ok());
    }
    let both = row("GET /v2/oauth-clients", "") + &row("GET /v2/oauth-clients/{id}", "");
    let fault = file::read(&both).unwrap_err();
    assert!(fault.starts_with("`GET /v2/oauth-clients`, `GET /v2/oauth-clients/{id}`: "), "{fault}");
    let listed = ["POST /v2/oauth/{id}/refresh", "POST /v2/oauth/{id}/exchange", "POST /v2/oauth/{id}/authorize"];
    let guarded = listed.map(|operation| row(operation, mark)).concat() + &row(wide, "") + &row(narrow, "");
    assert!(file::read(&guarded).is_ok());
    assert!(file::read(&row("GET /v2/oauth/{id}/refresh", "")).is_ok());
}
