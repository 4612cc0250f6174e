//! Passthrough: which credentials of their own callers may bring.

use calgate::gateway::Snapshot;
use calgate::identify::{Identity, PassthroughHeaders};
use http::HeaderMap;

use super::{BAD, NOBODY, who};
use crate::given::{PEER, headers, key, now, snapshot};

const BOTH: &str = "[passthrough]\nenabled = true\nplan = \"teams\"\n";
const JWT: &str = "Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiI3In0.c2lnbmF0dXJl-_";

#[test]
fn the_form_is_validated_and_each_mode_of_key_can_be_refused() {
    let all = snapshot(BOTH);
    let no_test = snapshot(&format!("{BOTH}test_keys = false"));
    let no_live = snapshot(&format!("{BOTH}live_keys = false"));
    let off = snapshot("[passthrough]\nenabled = false\nplan = \"teams\"");
    let (own, no) = ("(passthrough)", "(public)");
    let id = ("x-cal-client-id", "client-id");
    let secret = ("x-cal-secret-key", "secret-key");
    let bearer = |value: &str| headers([("authorization", value)]);
    let table = [
        (bearer("Bearer cal_0123456789"), [own, no, own, no]),
        (bearer("bearer  cal_live_0123456789"), [own, own, no, no]),
        (bearer("Bearer cal_live0123456789"), [own, no, own, no]),
        (bearer("cal_0123456789"), [own, no, own, no]),
        (bearer("cal_live_0123456789"), [own, own, no, no]),
        (bearer(JWT), [own, own, own, no]),
        (bearer(JWT.trim_start_matches("Bearer ")), [own, own, own, no]),
        (headers([id, secret]), [own, own, own, no]),
        (headers([secret]), [own, own, own, no]),
        (headers([("authorization", JWT), id]), [own, own, own, no]),
        (headers([("authorization", JWT), id, id]), [own, own, own, no]),
        (headers([("authorization", JWT), ("x-cal-client-id", "no id")]), [own, own, own, no]),
        (headers([("authorization", JWT), ("x-cal-secret-key", "")]), [own, own, own, no]),
        (headers([("authorization", ""), id, secret]), [own, own, own, no]),
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
        let answers = [&all, &no_test, &no_live, &off].map(|snapshot| who(snapshot, &fields));
        assert_eq!(answers, expected, "{fields:?}");
    }
}

#[test]
fn a_bearer_and_a_clients_secret_at_once_are_refused() {
    let snapshot = snapshot(BOTH);
    let (id, secret) = (("x-cal-client-id", "client-id"), ("x-cal-secret-key", "secret-key"));
    for fields in [
        headers([("authorization", JWT), id, secret]),
        headers([("authorization", JWT), secret]),
        headers([("authorization", "cal_0123456789"), secret]),
        headers([id, id, secret]),
        headers([id, secret, secret]),
    ] {
        assert_eq!(who(&snapshot, &fields), BAD, "{fields:?}");
    }
}

#[test]
fn beside_an_anonymous_consumer_what_has_the_form_of_a_credential_is_the_callers_own() {
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
        assert_eq!(who(&snapshot, &fields), expected, "{fields:?}");
    }
}

#[test]
fn a_gateway_key_comes_before_a_credential_of_ones_own() {
    let snapshot = snapshot(&format!("{BOTH}[consumers.it]\nkeys = [\"{{key:it}}\"]\ncredential = \"teams\""));
    assert_eq!(who(&snapshot, &headers([("authorization", JWT), ("x-api-key", &*key("it"))])), "it");
    assert_eq!(who(&snapshot, &headers([("authorization", JWT), ("x-api-key", &*key("unknown"))])), NOBODY);
    assert_eq!(who(&snapshot, &HeaderMap::new()), "(public)");
}

fn own_key(snapshot: &Snapshot, fields: &HeaderMap) -> u128 {
    let caller = snapshot.consumers.identify(fields, PEER, now()).unwrap();
    let Identity::Passthrough(own) = caller.identity() else { panic!("{caller:?}") };
    own.key
}

#[test]
fn what_goes_upstream_is_the_credential_and_what_is_counted_its_hash() {
    let snapshot = snapshot(BOTH);
    let fields = headers([("authorization", "BEARER   cal_0123456789 ")]);
    let caller = snapshot.consumers.identify(&fields, PEER, now()).unwrap();
    let Identity::Passthrough(own) = caller.identity() else { panic!("{caller:?}") };
    assert!(!format!("{caller:?}").contains("0123456789"));
    let PassthroughHeaders::Bearer { authorization, client_id: None } = &own.headers else { panic!() };
    assert_eq!(authorization, "Bearer cal_0123456789");
    assert!(authorization.is_sensitive());
    let client = |id: &str, secret: &str| headers([("x-cal-client-id", id), ("x-cal-secret-key", secret)]);
    let keys = [
        own_key(&snapshot, &fields),
        own_key(&snapshot, &headers([("authorization", "Bearer cal_0123456780")])),
        own_key(&snapshot, &client("client-id-a", "b-secret")),
        own_key(&snapshot, &client("client-id-", "ab-secret")),
        own_key(&snapshot, &client("client-id-a", "c-secret")),
    ];
    let different: std::collections::BTreeSet<_> = keys.iter().collect();
    assert_eq!(different.len(), keys.len());
    assert_eq!(keys[0], own_key(&snapshot, &headers([("authorization", "Bearer cal_0123456789")])));
    assert_eq!(
        keys[0],
        own_key(&snapshot, &headers([("authorization", "cal_0123456789"), ("x-cal-client-id", "client-id")]))
    );
    let one_secret = own_key(&snapshot, &headers([("x-cal-secret-key", "b-secret")]));
    assert_eq!(keys[2], one_secret, "the caller cannot have another bucket by another client id");
}
