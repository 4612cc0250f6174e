//! Tests of credentials: which headers calgate injects for an operation.

mod crash;
mod keys;
mod leaks;
mod left;
mod lifecycle;
mod managed_user;
mod oauth;
mod odd;
mod pooler;
mod refused;
pub mod rig;
mod stored_token;
mod token_state;
mod trouble;

use std::sync::Arc;

use calgate::catalog::Accepts;
use calgate::credential::{ApiKey, AuthHeaders, Credential, CredentialSource, Credentials, Kind, PlatformClient};
use calgate::secret::Secret;

use crate::given::{self, PEER, find, headers, now, snapshot};

fn injected(choice: CredentialSource) -> String {
    let CredentialSource::Ready(injection) = choice else { panic!("a renewable credential: {choice:?}") };
    match injection {
        AuthHeaders::Nothing => "nothing".to_owned(),
        AuthHeaders::Bearer(value) => value.to_str().unwrap().to_owned(),
        AuthHeaders::Client { id, secret } => format!("{} {}", id.to_str().unwrap(), secret.to_str().unwrap()),
    }
}

#[test]
fn an_operation_gets_the_part_of_the_credential_that_it_accepts() {
    let secret = |text: &str| Secret::new(text).unwrap();
    let key = || ApiKey::new(&secret("cal_live_1"));
    let client = |api_key, headers_anywhere| {
        let (id, secret) = ("id".parse().unwrap(), secret("s").header(""));
        Kind::PlatformClient(PlatformClient { id, secret, api_key, managed: None, headers_anywhere })
    };
    let (key_only, client_only, both) = (Kind::ApiKey(key()), client(None, false), client(Some(key()), false));
    let (client_anywhere, both_anywhere) = (client(None, true), client(Some(key()), true));
    let (bearer, pair, no) = ("Bearer cal_live_1", "id s", "GATEWAY_CREDENTIAL_UNSUITABLE");
    let table = [
        (Accepts::Bearer, [bearer, no, bearer, pair, bearer]),
        (Accepts::Client, [no, pair, pair, pair, pair]),
        (Accepts::Either, [bearer, pair, bearer, pair, bearer]),
        (Accepts::Any, [bearer, pair, bearer, pair, bearer]),
    ];
    let credentials = [key_only, client_only, both, client_anywhere, both_anywhere].map(|kind| Credential {
        name: "main".into(),
        kind,
        reveal_tokens: false,
        stored: false,
    });
    let all = Credentials { consumers: Vec::new(), managed_users: Vec::new(), registry: Arc::default() };
    for (accepts, expected) in table {
        for (credential, expected) in credentials.iter().zip(expected) {
            let got = credential.select_for(accepts).map(|selected| all.source(selected));
            assert_eq!(got.map_or_else(|no| no.code().to_owned(), injected), expected, "{accepts:?} {credential:?}");
        }
    }
    assert!(!format!("{credentials:?}").contains("cal_live_1"));
}

#[test]
fn the_credential_depends_on_the_caller() {
    let snapshot = snapshot(
        "[consumers.it]\nkeys = [\"{key:it}\"]\ncredential = \"unrestricted\"\n\
                   [passthrough]\nenabled = true\nplan = \"unrestricted\"",
    );
    let gateway_key = given::key("it");
    let own = "Bearer cal_live_my_own_key";
    let bearer = "Bearer calgate";
    let pair = "client-of-unrestricted calgate";
    let table = [
        (headers([]), "GET /v2/slots", "nothing"),
        (headers([("x-api-key", &*gateway_key)]), "GET /v2/me", bearer),
        (headers([("x-api-key", &*gateway_key)]), "GET /v2/slots", bearer),
        (headers([("x-api-key", &*gateway_key)]), "GET /v2/oauth-clients/x/webhooks", pair),
        (headers([("x-api-key", &*gateway_key), ("authorization", own)]), "GET /v2/me", bearer),
        (headers([("authorization", own)]), "GET /v2/me", own),
        (headers([("authorization", own)]), "GET /v2/oauth-clients/x/webhooks", "GATEWAY_CREDENTIAL_UNSUITABLE"),
        (
            headers([("x-cal-client-id", "client-id"), ("x-cal-secret-key", "secret-key")]),
            "GET /v2/oauth-clients/x/webhooks",
            "x secret-key",
        ),
        (headers([("x-cal-secret-key", "secret-key")]), "GET /v2/oauth-clients/x/webhooks", "x secret-key"),
        (headers([("x-cal-secret-key", "secret-key")]), "GET /v2/organizations/1/webhooks", "GATEWAY_UNAUTHENTICATED"),
        (headers([("x-cal-secret-key", "secret-key")]), "GET /v2/slots", "nothing"),
        (headers([("x-cal-client-id", "client-id"), ("authorization", own)]), "GET /v2/me", own),
        (headers([("x-cal-client-id", "client-id")]), "GET /v2/slots", "nothing"),
        (
            headers([("x-cal-client-id", "client-id"), ("x-cal-secret-key", "secret-key")]),
            "GET /v2/teams/1/event-types",
            "client-id secret-key",
        ),
        (
            headers([("x-cal-client-id", "client-id"), ("x-cal-secret-key", "secret-key")]),
            "GET /v2/me",
            "client-id secret-key",
        ),
    ];
    for (fields, request, expected) in table {
        let caller = snapshot.consumers.identify(&fields, PEER, now()).unwrap();
        let grant = snapshot.entitlements.grant(caller, find(request).unwrap()).unwrap();
        let got = snapshot.credentials.select(&grant, &fields).map(|selected| snapshot.credentials.source(selected));
        assert_eq!(got.map_or_else(|no| no.code().to_owned(), injected), expected, "{request} by {fields:?}");
    }
}
