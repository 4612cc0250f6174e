//! Credential operations, and the permissions of public callers.

use calgate::catalog::{Catalog, UnknownEndpoints, file};
use http::{HeaderMap, Method};

use crate::given::{PEER, caller, code, find, now, snapshot};

const FORBIDDEN: &str = "GATEWAY_CREDENTIAL_OPERATION";

#[test]
fn a_consumer_may_call_only_the_credential_operations_it_is_allowed() {
    let snapshot = snapshot(
        "[consumers.it]\nkeys = [\"{key:it}\"]\ncredential = \"unrestricted\"\n\
                   allow_credential_operations = [\"POST /v2/api-keys/refresh\"]\n\
                   [consumers.other]\nkeys = [\"{key:other}\"]\ncredential = \"unrestricted\"\n\
                   [consumers.poor]\nkeys = [\"{key:poor}\"]\ncredential = \"teams\"\n\
                   allow_credential_operations = [\"GET /v2/oauth-clients\"]",
    );
    let table = [
        ("it", "POST /v2/api-keys/refresh", "ok"),
        ("it", "GET /v2/oauth-clients", FORBIDDEN),
        ("other", "POST /v2/api-keys/refresh", FORBIDDEN),
        ("other", "HEAD /v2/oauth-clients/x", FORBIDDEN),
        ("other", "POST /v2/OAuth-Clients/x/users/", FORBIDDEN),
        ("other", "GET /v2/oauth-clients/x/users", "ok"),
        ("poor", "GET /v2/oauth-clients", "GATEWAY_NOT_ENTITLED"),
    ];
    for (consumer, request, expected) in table {
        let decided = snapshot.entitlements.grant(caller(&snapshot, consumer), find(request).unwrap());
        assert_eq!(code(decided), expected, "{request} for {consumer}");
    }
}

#[test]
fn a_public_caller_may_call_public_operations_only() {
    let snapshot = snapshot("");
    for endpoint in Catalog::built_in().endpoints() {
        let public_caller = snapshot.consumers.identify(&HeaderMap::new(), PEER, now()).unwrap();
        let request = endpoint.to_string().replace(['{', '}'], "");
        let route = find(&request).unwrap();
        let is_public = route.candidates().iter().all(|e| e.public);
        let expected = if is_public { "ok" } else { "GATEWAY_UNAUTHENTICATED" };
        assert_eq!(code(snapshot.entitlements.grant(public_caller, route)), expected, "{request}");
    }
}

#[test]
fn a_credential_operation_protects_overlapping_templates() {
    let row = |path: &str, rest: &str| {
        format!("[[endpoint]]\noperation = \"GET {path}\"\ntag = \"A\"\ncredential = \"any\"\n{rest} = true\n")
    };
    let snapshot = snapshot("[consumers.it]\nkeys = [\"{key:it}\"]\ncredential = \"unrestricted\"");
    for (literal, parameter) in [("public", "credential_operation"), ("credential_operation", "public")] {
        let catalog = file::read(&(row("/v2/a/b", literal) + &row("/v2/a/{x}", parameter))).unwrap();
        let route = || catalog.match_route(&Method::GET, "/v2/a/b", UnknownEndpoints::Refuse).unwrap();
        let public_caller = snapshot.consumers.identify(&HeaderMap::new(), PEER, now()).unwrap();
        assert_eq!(code(snapshot.entitlements.grant(public_caller, route())), "GATEWAY_UNAUTHENTICATED");
        assert_eq!(code(snapshot.entitlements.grant(caller(&snapshot, "it"), route())), FORBIDDEN);
    }
}
