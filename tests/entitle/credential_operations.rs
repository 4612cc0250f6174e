//! Operations that show or change credentials, and what callers without a key get.

use calgate::catalog::{Catalog, UnknownEndpoints, file};
use http::{HeaderMap, Method};

use crate::given::{PEER, caller, code, find, now, snapshot};

const CLOSED: &str = "GATEWAY_CREDENTIAL_OPERATION";

#[test]
fn credential_operations_are_open_only_to_who_is_named_and_only_those_named() {
    let snapshot = snapshot(
        "[consumers.it]\nkeys = [\"{key:it}\"]\ncredential = \"unrestricted\"\n\
                   allow_credential_operations = [\"POST /v2/api-keys/refresh\"]\n\
                   [consumers.other]\nkeys = [\"{key:other}\"]\ncredential = \"unrestricted\"\n\
                   [consumers.poor]\nkeys = [\"{key:poor}\"]\ncredential = \"teams\"\n\
                   allow_credential_operations = [\"GET /v2/oauth-clients\"]",
    );
    let table = [
        ("it", "POST /v2/api-keys/refresh", "ok"),
        ("it", "GET /v2/oauth-clients", CLOSED),
        ("other", "POST /v2/api-keys/refresh", CLOSED),
        ("other", "HEAD /v2/oauth-clients/x", CLOSED),
        ("other", "POST /v2/OAuth-Clients/x/users/", CLOSED),
        ("other", "GET /v2/oauth-clients/x/users", "ok"),
        ("poor", "GET /v2/oauth-clients", "GATEWAY_NOT_ENTITLED"),
    ];
    for (consumer, request, expected) in table {
        let decided = snapshot.entitlements.grant(caller(&snapshot, consumer), find(request).unwrap());
        assert_eq!(code(decided), expected, "{request} for {consumer}");
    }
}

#[test]
fn callers_without_a_key_get_what_is_public_and_no_more() {
    let snapshot = snapshot("");
    for endpoint in Catalog::built_in().endpoints() {
        let nobody = snapshot.consumers.identify(&HeaderMap::new(), PEER, now()).unwrap();
        let request = endpoint.to_string().replace(['{', '}'], "");
        let matched = find(&request).unwrap();
        let public = matched.candidates().iter().all(|e| e.public);
        let expected = if public { "ok" } else { "GATEWAY_UNAUTHENTICATED" };
        assert_eq!(code(snapshot.entitlements.grant(nobody, matched)), expected, "{request}");
    }
}

#[test]
fn where_templates_overlap_one_that_is_closed_closes_the_path() {
    let row = |path: &str, rest: &str| {
        format!("[[endpoint]]\noperation = \"GET {path}\"\ntag = \"A\"\ncredential = \"any\"\n{rest} = true\n")
    };
    let snapshot = snapshot("[consumers.it]\nkeys = [\"{key:it}\"]\ncredential = \"unrestricted\"");
    for (literal, parameter) in [("public", "credential_operation"), ("credential_operation", "public")] {
        let catalog = file::read(&(row("/v2/a/b", literal) + &row("/v2/a/{x}", parameter))).unwrap();
        let matched = || catalog.match_route(&Method::GET, "/v2/a/b", UnknownEndpoints::Refuse).unwrap();
        let nobody = snapshot.consumers.identify(&HeaderMap::new(), PEER, now()).unwrap();
        assert_eq!(code(snapshot.entitlements.grant(nobody, matched())), "GATEWAY_UNAUTHENTICATED");
        assert_eq!(code(snapshot.entitlements.grant(caller(&snapshot, "it"), matched())), CLOSED);
    }
}
