//! Passthrough callers: accepted credentials, and their keys of buckets.

use calgate::gateway::Snapshot;
use calgate::identify::{Identity, PassthroughHeaders};
use http::HeaderMap;

use super::{BAD, NOBODY, identified};
use crate::given::{PEER, headers, key, now, snapshot};

const BOTH: &str = "[passthrough]\nenabled = true\nplan = \"teams\"\n";
const JWT: &str = "Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiI3In0.c2lnbmF0dXJl-_";

#[test]
fn validates_the_form_and_can_refuse_each_mode_of_api_key() {
    let all = snapshot(BOTH);
    let no_test = snapshot(&format!("{BOTH}test_keys = false"));
    let no_live = snapshot(&format!("{BOTH}live_keys = false"));
    let off = snapshot("[passthrough]\nenabled = false\nplan = \"teams\"");
    let (yes, no) = ("(passthrough)", "(public)");
    let id = ("x-cal-client-id", "client-id");
    let secret = ("x-cal-secret-key", "secret-key");
    let bearer = |value: &str| headers([("authorization", value)]);
    let table = [
        (bearer("Bearer cal_0123456789"), [yes, no, yes, no]),
        (bearer("bearer  cal_live_0123456789"), [yes, yes, no, no]),
        (bearer("Bearer cal_live0123456789"), [yes, no, yes, no]),
        (bearer("cal_0123456789"), [yes, no, yes, no]),
        (bearer("cal_live_0123456789"), [yes, yes, no, no]),
        (bearer(JWT), [yes, yes, yes, no]),
        (bearer(JWT.trim_start_matches("Bearer ")), [yes, yes, yes, no]),
        (headers([id, secret]), [yes, yes, yes, no]),
        (headers([secret]), [yes, yes, yes, no]),
        (headers([("authorization", JWT), id]), [yes, yes, yes, no]),
        (headers([("authorization", JWT), id, id]), [yes, yes, yes, no]),
        (headers([("authorization", JWT), ("x-cal-client-id", "no id")]), [yes, yes, yes, no]),
        (headers([("authorization", JWT), ("x-cal-secret-key", "")]), [yes, yes, yes, no]),
        (headers([("authorization", ""), id, secret]), [yes, yes, yes, no]),
        (bearer("Bearer cal_x"), [no; 4]),
        (bearer("Bearer cal_0123 456789"), [no; 4]),
        (bearer("Bearer cal_0123,456789"), [no; 4]),
        (bearer("Basic cal_0123456789"), [no; 4]),
        (bearer("Bearer something-else"), [no; 4]),
        (bearer("Bearer two.parts"), [no; 4]),
        (bearer("Bearer a.b.c.dddddd"), [no; 4]),
        (bearer("Bearer aaaa..bbbbbb"), [no; 4]),
        (bearer(&format!("Bearer cal_{}", "x".repeat(4093))), [no; 4]),
        (headers([id]), [no; 4]),
        (headers([id, id]), [no; 4]),
        (headers([("x-cal-client-id", "short"), secret]), [no; 4]),
        (headers([("x-api-key", "cal_live_0123456789")]), [no; 4]),
    ];
    for (fields, expected) in table {
        let answers = [&all, &no_test, &no_live, &off].map(|snapshot| identified(snapshot, &fields));
        assert_eq!(answers, expected, "{fields:?}");
    }
}

#[test]
fn refuses_a_bearer_token_together_with_a_client_secret() {
    let snapshot = snapshot(BOTH);
    let (id, secret) = (("x-cal-client-id", "client-id"), ("x-cal-secret-key", "secret-key"));
    for fields in [
        headers([("authorization", JWT), id, secret]),
        headers([("authorization", JWT), secret]),
        headers([("authorization", "cal_0123456789"), secret]),
        headers([id, id, secret]),
        headers([id, secret, secret]),
    ] {
        assert_eq!(identified(&snapshot, &fields), BAD, "{fields:?}");
    }
}

#[test]
fn a_valid_form_takes_precedence_over_the_anonymous_consumer() {
    let anonymous = "[consumers.it]\nkeys = [\"{key:it}\"]\ncredential = \"teams\"\n[anonymous]\nconsumer = \"it\"\n";
    let snapshot = snapshot(&format!("{anonymous}{BOTH}live_keys = false"));
    let table = [
        (headers([]), "it"),
        (headers([("authorization", "Bearer placeholder")]), "it"),
        (headers([("x-cal-client-id", "client-id")]), "it"),
        (headers([("authorization", JWT)]), "(passthrough)"),
        (headers([("authorization", "Bearer cal_0123456789")]), "(passthrough)"),
        (headers([("x-cal-secret-key", "secret-key")]), "(passthrough)"),
        (headers([("authorization", "Bearer cal_live_0123456789")]), "(public)"),
        (headers([("authorization", &*key("unknown"))]), NOBODY),
    ];
    for (fields, expected) in table {
        assert_eq!(identified(&snapshot, &fields), expected, "{fields:?}");
    }
}

#[test]
fn a_gateway_key_takes_precedence_over_a_credential() {
    let snapshot = snapshot(&format!("{BOTH}[consumers.it]\nkeys = [\"{{key:it}}\"]\ncredential = \"teams\""));
    assert_eq!(identified(&snapshot, &headers([("authorization", JWT), ("x-api-key", &*key("it"))])), "it");
    assert_eq!(identified(&snapshot, &headers([("authorization", JWT), ("x-api-key", &*key("unknown"))])), NOBODY);
    assert_eq!(identified(&snapshot, &HeaderMap::new()), "(public)");
}

fn bucket_key(snapshot: &Snapshot, fields: &HeaderMap) -> u128 {
    let caller = snapshot.consumers.identify(fields, PEER, now()).unwrap();
    let Identity::Passthrough(credential) = caller.identity() else { panic!("{caller:?}") };
    credential.key
}

#[test]
fn forwards_the_credential_and_counts_by_its_hash() {
    let snapshot = snapshot(BOTH);
    let fields = headers([("authorization", "BEARER   cal_0123456789 ")]);
    let caller = snapshot.consumers.identify(&fields, PEER, now()).unwrap();
    let Identity::Passthrough(credential) = caller.identity() else { panic!("{caller:?}") };
    assert!(!format!("{caller:?}").contains("0123456789"));
    let PassthroughHeaders::Bearer { authorization, client_id: None } = &credential.headers else { panic!() };
    assert_eq!(authorization, "Bearer cal_0123456789");
    assert!(authorization.is_sensitive());
    let client = |id: &str, secret: &str| headers([("x-cal-client-id", id), ("x-cal-secret-key", secret)]);
    let keys = [
        bucket_key(&snapshot, &fields),
        bucket_key(&snapshot, &headers([("authorization", "Bearer cal_0123456780")])),
        bucket_key(&snapshot, &client("client-id-a", "b-secret")),
        bucket_key(&snapshot, &client("client-id-", "ab-secret")),
        bucket_key(&snapshot, &client("client-id-a", "c-secret")),
    ];
    let different: std::collections::BTreeSet<_> = keys.iter().collect();
    assert_eq!(different.len(), keys.len());
    assert_eq!(keys[0], bucket_key(&snapshot, &headers([("authorization", "Bearer cal_0123456789")])));
    assert_eq!(
        keys[0],
        bucket_key(&snapshot, &headers([("authorization", "cal_0123456789"), ("x-cal-client-id", "client-id")]))
    );
    let one_secret = bucket_key(&snapshot, &headers([("x-cal-secret-key", "b-secret")]));
    assert_eq!(keys[2], one_secret, "another client id does not give the caller another bucket");
}
