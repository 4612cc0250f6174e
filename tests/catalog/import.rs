//! Import of small API documents, and of Cal.com's own if it is available.

use calgate::catalog::import::{ImportError, import};
use calgate::catalog::{Accepts, ApiVersion, Catalog, Endpoint, file};
use serde_json::{Value, json};

use crate::given::{known_document, openapi};

/// Creates a document of operations, each with method, path, tag and parameters.
fn document(operations: &[(&str, &str, &str, Value)]) -> String {
    let mut paths = json!({});
    for (method, path, tag, parameters) in operations {
        paths[path][method.to_lowercase()] = json!({ "tags": [tag], "parameters": parameters });
    }
    json!({ "openapi": "3.0.0", "paths": paths }).to_string()
}

fn header(name: &str, required: bool) -> Value {
    json!({ "name": name, "in": "header", "required": required })
}

fn query(name: &str) -> Value {
    json!({ "name": name, "in": "query" })
}

fn import_one(method: &str, path: &str, tag: &str, parameters: Value) -> Endpoint {
    let imported = import(&document(&[(method, path, tag, parameters)])).unwrap();
    imported.catalog.endpoints().iter().find(|endpoint| endpoint.is_documented).unwrap().clone()
}

fn faults(json: &str) -> Vec<String> {
    import(json).unwrap_err().iter().map(ToString::to_string).collect()
}

#[test]
fn reads_the_credential_kinds_from_the_header_parameters() {
    let (bearer, id, secret) = ("Authorization", "x-cal-client-id", "x-cal-secret-key");
    let table = [
        (vec![header(bearer, true)], Accepts::Bearer),
        (vec![header(secret, true)], Accepts::Client),
        (vec![header(secret, true), header(id, true)], Accepts::Client),
        (vec![header(bearer, false), header(secret, false), header(id, false)], Accepts::Either),
        (vec![header(bearer, false), header(id, false)], Accepts::Any),
        (vec![], Accepts::Either),
    ];
    for (parameters, expected) in table {
        let shown = json!(parameters).to_string();
        assert_eq!(import_one("GET", "/v2/things", "Things", json!(parameters)).accepts, expected, "{shown}");
    }
    let unknown = document(&[("GET", "/v2/things", "Things", json!([header(id, true)]))]);
    assert_eq!(faults(&unknown), ["GET /v2/things: the combination of its credential headers is unknown"]);
}

#[test]
fn public_operations_are_the_listed_ones_and_oauth_callbacks() {
    let callback = || json!([query("state"), query("code")]);
    let table = [
        ("GET", "/v2/slots", "Slots", json!([]), true),
        ("POST", "/v2/bookings", "Bookings", json!([header("Authorization", true)]), true),
        ("GET", "/v2/bookings", "Bookings", json!([header("Authorization", true)]), false),
        ("GET", "/v2/calendars/{calendar}/save", "Calendars", callback(), true),
        ("POST", "/v2/calendars/{calendar}/save", "Calendars", callback(), false),
        ("GET", "/v2/calendars/{calendar}/save", "Calendars", json!([query("state")]), false),
        ("GET", "/v2/organizations/{orgId}/teams/{teamId}/stripe/save", "Orgs / Teams / Stripe", callback(), false),
        ("GET", "/v2/things", "Things", json!([]), false),
    ];
    for (method, path, tag, parameters, public) in table {
        let endpoint = import_one(method, path, tag, parameters);
        assert_eq!(endpoint.public, public, "{endpoint}");
    }
}

#[test]
fn reads_the_version_from_the_default_or_description_of_its_parameter() {
    let parameter = |rest: Value| {
        let mut parameter = header("cal-api-version", true);
        parameter.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        json!([parameter])
    };
    let version = |parameters| import_one("GET", "/v2/things", "Things", parameters).api_version;
    let by_default = parameter(json!({ "schema": { "default": "2024-08-13" }, "description": "Must be 2024-01-01." }));
    let in_words = parameter(json!({ "description": "Must be set to 2024-06-14. If not, it is `1-2`." }));
    assert_eq!(version(by_default).unwrap().as_str(), "2024-08-13");
    assert_eq!(version(in_words).unwrap().as_str(), "2024-06-14");
    assert_eq!(version(json!([])), None);
    for (rest, fault) in [
        (json!({}), "it has a cal-api-version parameter that names no version"),
        (json!({ "schema": { "default": "newest" } }), "its cal-api-version `newest` is not a date"),
    ] {
        let document = document(&[("GET", "/v2/things", "Things", parameter(rest))]);
        assert_eq!(faults(&document), [format!("GET /v2/things: {fault}")]);
    }
}

/// Counts the operations with each list of versions (FACTS §4).
#[test]
fn lists_the_known_versions_of_operations() {
    let with = |versions: &str| {
        let is_listed =
            |e: &&Endpoint| e.api_versions.iter().map(ApiVersion::as_str).collect::<Vec<_>>().join(" ") == versions;
        Catalog::built_in()
            .endpoints()
            .iter()
            .filter(|e| e.is_documented && is_listed(e))
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    let three = "2024-04-15 2024-06-11 2024-06-14";
    assert_eq!(with(&format!("{three} 2024-08-13 2026-02-25")), ["POST /v2/bookings"]);
    assert_eq!(with(&format!("{three} 2024-08-13 2026-05-01")), ["GET /v2/bookings"]);
    let others = ["GET /v2/bookings/{bookingUid}", "POST /v2/bookings/{bookingUid}/cancel"];
    assert_eq!(with(&format!("{three} 2024-08-13")), others);
    assert_eq!(with("2024-08-13").len(), 21 - 4);
    assert_eq!(with(&format!("{three} 2026-06-12")).len(), 5);
    assert_eq!(with(three).len(), 6);
    assert_eq!(with("2024-09-04").len(), 5);
    assert_eq!(with("2024-04-15").len(), 28);
}

#[test]
fn operations_that_cal_com_counts_separately_have_a_sub_limit() {
    let emails = "/verified-resources/emails/verification-code";
    let phones = "/verified-resources/phones/verification-code";
    let (teams, org) = ("/teams/{teamId}", "/organizations/{orgId}/teams/{teamId}");
    let of = |owner: &str, operation: &str, limit| {
        let tag = match owner {
            "" => "Verified Resources",
            "/teams/{teamId}" => "Teams Verified Resources",
            _ => "Organization Team Verified Resources",
        };
        ("POST", format!("/v2{owner}{operation}"), tag, limit)
    };
    let table = [
        of("", &format!("{emails}/request"), Some(5)),
        of("", &format!("{emails}/verify"), Some(3)),
        of("", &format!("{phones}/request"), Some(3)),
        of("", &format!("{phones}/verify"), None),
        of(teams, &format!("{emails}/request"), Some(5)),
        of(teams, &format!("{emails}/verify"), None),
        of(teams, &format!("{phones}/request"), Some(3)),
        of(teams, &format!("{phones}/verify"), Some(3)),
        of(org, &format!("{emails}/request"), Some(3)),
        of(org, &format!("{emails}/verify"), None),
        of(org, &format!("{phones}/request"), Some(3)),
        of(org, &format!("{phones}/verify"), Some(3)),
        ("DELETE", "/v2/bookings/{uid}/attendees/{id}".to_owned(), "Bookings / Attendees", Some(5)),
        ("PATCH", "/v2/bookings/{bookingUid}/location".to_owned(), "Bookings", Some(5)),
        ("POST", "/v2/bookings/{bookingUid}/guests".to_owned(), "Bookings / Guests", Some(5)),
        ("POST", "/v2/bookings/{bookingUid}/attendees".to_owned(), "Bookings / Attendees", Some(5)),
        ("GET", "/v2/bookings/{bookingUid}/attendees".to_owned(), "Bookings / Attendees", None),
    ];
    for (method, path, tag, expected) in table {
        let endpoint = import_one(method, &path, tag, json!([header("Authorization", true)]));
        assert_eq!(endpoint.sub_limit.map(|limit| limit.requests_per_minute), expected, "{endpoint}");
    }
}

#[test]
fn marks_operations_that_show_or_change_credentials() {
    let table = [
        ("POST", "/v2/api-keys/refresh", "Api Keys", true),
        ("GET", "/v2/oauth-clients", "OAuth Clients", true),
        ("DELETE", "/v2/oauth-clients/{clientId}", "OAuth Clients", true),
        ("GET", "/v2/oauth-clients/{clientId}/users", "Deprecated: Platform / Managed Users", false),
        ("POST", "/v2/oauth-clients/{clientId}/users", "Deprecated: Platform / Managed Users", true),
        ("GET", "/v2/organizations/{orgId}/organizations", "Managed Orgs", false),
        ("POST", "/v2/organizations/{orgId}/organizations", "Managed Orgs", true),
    ];
    for (method, path, tag, expected) in table {
        let endpoint = import_one(method, path, tag, json!([header("x-cal-secret-key", true)]));
        assert_eq!(endpoint.credential_operation, expected, "{endpoint}");
    }
}

/// Uses the known document with other names for all parameters.
#[test]
fn annotations_do_not_depend_on_the_names_of_parameters() {
    let whole = import(&known_document().to_string()).unwrap().into_catalog(&[]).unwrap();
    assert_eq!(whole.endpoints(), Catalog::built_in().endpoints());
    let renamed = known_document().to_string().replace('{', "{x_").replace("{x_\"", "{\"").replace("{x_}", "{}");
    let renamed = import(&renamed).unwrap().into_catalog(&[]).unwrap();
    assert_eq!(renamed.endpoints().len(), whole.endpoints().len());
    let documented =
        |catalog: &Catalog| catalog.endpoints().iter().filter(|e| e.is_documented).cloned().collect::<Vec<_>>();
    for (endpoint, other) in documented(&whole).iter().zip(&documented(&renamed)) {
        let facts = |e: &Endpoint| (e.public, e.credential_operation, e.sub_limit, e.accepts);
        assert_eq!(other.to_string(), endpoint.to_string().replace('{', "{x_"));
        assert_eq!(facts(other), facts(endpoint), "{endpoint}");
    }
}

#[test]
fn an_import_fails_if_an_annotated_operation_is_missing() {
    let mut document = known_document();
    let paths = document["paths"].as_object_mut().unwrap();
    let moved = paths.remove("/v2/oauth-clients/{clientId}/users/{userId}/force-refresh").unwrap();
    paths.insert("/v2/oauth-clients/{clientId}/users/{userId}/refresh-by-force".to_owned(), moved);
    paths.remove("/v2/bookings/{bookingUid}/guests");
    paths.remove("/v2/event-types").unwrap();
    let import = |gone: &[&str]| {
        let gone: Vec<_> = gone.iter().map(|&operation| operation.to_owned()).collect();
        let faults = import(&document.to_string()).unwrap().into_catalog(&gone).err().unwrap_or_default();
        faults.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    insta::assert_snapshot!(import(&[]).join("\n"), @r"
    it has no operation like POST /v2/oauth-clients/{clientId}/users/{userId}/force-refresh  (shows or changes credentials: credential_operation = true)
    it has no operation like POST /v2/bookings/{bookingUid}/guests  (Cal.com counts it separately: requests_per_minute = 5)
    it has no operation like GET /v2/event-types  (answers without a credential: public = true)
    ");
    let gone = [
        "POST /v2/oauth-clients/{clientId}/users/{user}/force-refresh",
        "POST /v2/bookings/{bookingUid}/guests",
        "GET /v2/event-types",
    ];
    assert_eq!(import(&gone[1..]), import(&[])[..1]);
    assert_eq!(import(&gone), [""; 0]);
    let too_many = [gone[0], gone[1], gone[2], "GET /v2/me"];
    assert_eq!(import(&too_many), ["`GET /v2/me` is not among the operations that this document lacks"]);
}

#[test]
fn rejects_a_text_that_is_not_an_openapi_document() {
    for (text, word) in [
        ("", "EOF"),
        ("[]", "struct Document"),
        (r#"{"swagger": "2.0", "paths": {}}"#, "openapi"),
        (r#"{"openapi": "2.0.0", "paths": {}}"#, "version is `2.0.0`"),
        (r#"{"openapi": "3.0.0", "paths": {}}"#, "no operations"),
        (r#"{"openapi": "3.0.0", "paths": {"/v2/x": {"summary": "x"}}}"#, "no operations"),
    ] {
        let errors = import(text).unwrap_err();
        assert!(matches!(&*errors, [ImportError::NotADocument(fault)] if fault.contains(word)), "{text}: {errors:?}");
    }
}

#[test]
fn lists_every_operation_that_it_cannot_interpret() {
    let several = json!({
        "openapi": "3.1.0",
        "paths": {
            "/v2/a": { "get": { "tags": [] }, "post": { "tags": ["A", "B"] }, "parameters": [] },
            "/v2/b/{x": { "get": { "tags": ["B"] } },
            "/v2/c": { "get": { "tags": ["Team Things"] }, "put": { "tags": ["C"] }, "delete": { "tags": "C" } },
        }
    });
    insta::assert_snapshot!(faults(&several.to_string()).join("\n"), @r#"
    GET /v2/a: it has no tag, by which plans decide
    POST /v2/a: it has 2 tags, and plans decide by a single one
    GET /v2/b/{x: the path `/v2/b/{x` has a segment `{x` that is neither lower-case text nor `{name}`
    DELETE /v2/c: invalid type: string "C", expected a sequence
    GET /v2/c: the tag `Team Things` looks like one of Orgs, Teams or Platform, but has none of these prefixes
    "#);
}

#[test]
fn rejects_a_duplicate_operation() {
    let twice = document(&[("GET", "/v2/x/{a}", "X", json!([])), ("GET", "/v2/x/{b}", "X", json!([]))]);
    assert_eq!(faults(&twice), ["`GET /v2/x/{b}` and `GET /v2/x/{a}` are the same operation"]);
}

#[test]
fn the_built_in_catalog_equals_the_import_of_the_document() {
    let Some(document) = openapi() else { return };
    let catalog = import(&document).unwrap().into_catalog(&[]).unwrap();
    assert_eq!(file::write(&catalog), include_str!("../../config/catalog.toml"));
}

#[test]
fn the_built_in_catalog_is_complete() {
    let endpoints: Vec<_> = Catalog::built_in().endpoints().iter().filter(|e| e.is_documented).collect();
    let paths: std::collections::BTreeSet<_> = endpoints.iter().map(|e| e.template.as_str()).collect();
    assert_eq!((endpoints.len(), paths.len()), (272, 175));
    let count = |test: &dyn Fn(&Endpoint) -> bool| endpoints.iter().filter(|e| test(e)).count();
    assert_eq!(count(&|e| e.public), 17);
    assert_eq!(count(&|e| e.credential_operation), 10 + 5);
    assert_eq!(count(&|e| e.sub_limit.is_some()), 12);
    assert_eq!(count(&|e| e.accepts == Accepts::Client), 18);
    assert_eq!(count(&|e| e.accepts == Accepts::Either), 92 + 9);
    let public_of_organizations =
        endpoints.iter().filter(|e| e.public && e.template.as_str().starts_with("/v2/organizations"));
    let public_of_organizations: Vec<_> = public_of_organizations.map(ToString::to_string).collect();
    assert_eq!(public_of_organizations, ["GET /v2/organizations/{orgId}/teams/{teamId}/event-types"]);
}

/// Of the eighteen operations that list no credential header, nine are public. Conferencing and Stripe of a team in an
/// organization need a user, and so does reading an OAuth client. Slot reservations accept a bearer, a client id, or nothing
/// (FACTS §1).
#[test]
fn operations_without_credential_headers_are_public_or_accept_every_kind() {
    let any = Catalog::built_in().endpoints().iter().filter(|e| e.is_documented && e.accepts == Accepts::Any);
    let names: Vec<_> = any.clone().map(ToString::to_string).collect();
    let expected = [
        "POST /v2/auth/oauth2/token",
        "GET /v2/calendars/{calendar}/save",
        "GET /v2/conferencing/{app}/oauth/callback",
        "GET /v2/slots",
        "POST /v2/slots/reservations",
        "DELETE /v2/slots/reservations/{uid}",
        "GET /v2/slots/reservations/{uid}",
        "PATCH /v2/slots/reservations/{uid}",
        "GET /v2/stripe/save",
        "GET /v2/teams/{teamId}/event-types",
    ];
    assert_eq!(names, expected);
    assert!(any.clone().all(|e| e.public));
    for name in [
        "GET /v2/auth/oauth2/clients/{clientId}",
        "GET /v2/organizations/{orgId}/teams/{teamId}/conferencing",
        "GET /v2/organizations/{orgId}/teams/{teamId}/conferencing/{app}/oauth/callback",
        "GET /v2/organizations/{orgId}/teams/{teamId}/stripe/check",
        "GET /v2/organizations/{orgId}/teams/{teamId}/stripe/save",
    ] {
        let endpoint = Catalog::built_in().find_by_name(name).unwrap();
        assert_eq!((endpoint.accepts, endpoint.public), (Accepts::Either, false), "{name}");
    }
}
