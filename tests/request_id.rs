//! Tests of request ids: a safe id of the caller, or else a UUIDv7.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use calgate::request_id::{new, of};
use uuid::Uuid;

use crate::given::headers;

#[test]
fn keeps_a_callers_id_that_is_one_safe_token() {
    let at = SystemTime::now();
    assert_eq!(of(&headers([("x-request-id", "abc-1.2_3")]), at), "abc-1.2_3");
    for fields in [
        headers([("x-request-id", "a b")]),
        headers([("x-request-id", "")]),
        headers([("x-request-id", "a\"b")]),
        headers([("x-request-id", "é")]),
        headers([("x-request-id", &"a".repeat(129))]),
        headers([("x-request-id", "a"), ("x-request-id", "a")]),
    ] {
        let id = of(&fields, at);
        assert_eq!(Uuid::try_parse(id.to_str().unwrap()).unwrap().get_version_num(), 7, "{fields:?}");
    }
}

#[test]
fn new_ids_are_unique_and_sorted_by_time() {
    let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_767_225_600_123);
    let ids: BTreeSet<_> = (0..10_000).map(|_| new(at).to_str().unwrap().to_owned()).collect();
    assert_eq!(ids.len(), 10_000);
    let later = new(at + Duration::from_millis(1));
    assert!(ids.iter().all(|id| id.as_str() < later.to_str().unwrap()));
    let (seconds, nanos) = Uuid::try_parse(ids.first().unwrap()).unwrap().get_timestamp().unwrap().to_unix();
    assert_eq!((seconds, nanos / 1_000_000), (1_767_225_600, 123));
}
