//! Tests of request fields: an allow-list keeps a client from identifying itself to Cal.com or redirecting a request.

use calgate::headers::{api_version, is_never_forwarded, request_headers};
use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::given::headers;
use crate::properties::cases;

/// Fields that are never forwarded, even if an operator adds them.
const NEVER: [&str; 46] = [
    "authorization",
    "x-api-key",
    "x-cal-client-id",
    "x-cal-secret-key",
    "cookie",
    "proxy-authorization",
    "proxy-connection",
    "proxy-anything",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-anything",
    "cf-connecting-ip",
    "cf-ray",
    "x-real-ip",
    "true-client-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-url",
    "x-original-host",
    "x-rewrite-url",
    "host",
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
    "expect",
    "via",
    "x-request-id",
    "x-calgate-code",
    "cal-api-version",
    "sec-fetch-mode",
    "sec-websocket-key",
    "x_api_key",
    "x_cal_client_id",
    "x-cal_secret-key",
    "x_forwarded_for",
    "cf_connecting_ip",
    "x_http_method_override",
];

const CROSSING: [&str; 19] = [
    "accept",
    "accept-language",
    "cache-control",
    "content-encoding",
    "content-language",
    "content-length",
    "content-type",
    "idempotency-key",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "pragma",
    "range",
    "traceparent",
    "tracestate",
    "user-agent",
    "x-cal-platform-embed",
];

fn name(text: &str) -> HeaderName {
    text.parse().unwrap()
}

#[test]
fn forwards_the_allowed_fields_unchanged() {
    for crossing in CROSSING {
        // `If-Range` is forwarded only with `Range`.
        let range = if crossing == "if-range" { "range" } else { "x-none" };
        let out = request_headers(&headers([(range, "bytes=0-1"), (crossing, "one"), (crossing, "two")]), &[]);
        let expected: &[&str] = if crossing == "content-length" { &["two"] } else { &["one", "two"] };
        assert_eq!(out.get_all(crossing).iter().collect::<Vec<_>>(), expected, "{crossing}");
    }
}

#[test]
fn never_forwards_fields_that_identify_a_caller_or_steer_a_request() {
    for never in NEVER {
        assert!(request_headers(&headers([(never, "x")]), &[]).is_empty(), "{never}");
        assert!(is_never_forwarded(&name(never)), "{never} could be added by an operator");
    }
}

#[test]
fn requests_only_codings_that_calgate_can_decode() {
    for (taken, asked) in [
        ("gzip, deflate, br, zstd", "gzip"),
        ("br;q=1.0, gzip;q=0.8", "gzip"),
        ("*", "gzip"),
        ("GZIP", "gzip"),
        ("x-gzip;q=0.5", "gzip"),
        ("gzip ; Q=0.3", "gzip"),
        ("br", "identity"),
        ("gzip;q=0", "identity"),
        ("gzip; q=0.0, br", "identity"),
        ("gzip;q=nothing", "identity"),
        ("", "identity"),
        ("identity", "identity"),
        ("Identity;q=1, *;q=0", "identity"),
        ("gzip;q=0, *", "identity"),
        ("*, gzip;q=0", "identity"),
        ("identity, gzip;q=0.2", "identity, gzip;q=0.5"),
        ("identity;q=0.2, gzip", "gzip"),
        ("*;q=0, gzip", "gzip, *;q=0"),
        ("gzip, identity;q=0", "gzip, *;q=0"),
        ("*;q=0", "*;q=0"),
        ("br, identity;q=0", "*;q=0"),
    ] {
        let out = request_headers(&headers([("accept-encoding", taken)]), &[]);
        assert_eq!(out.get("accept-encoding").unwrap(), asked, "{taken}");
    }
    assert!(
        request_headers(&headers([]), &[]).is_empty(),
        "a client that names no coding leaves the choice to the server"
    );
    let lines = headers([("accept-encoding", "gzip;q=0"), ("accept-encoding", "*")]);
    assert_eq!(request_headers(&lines, &[]), headers([("accept-encoding", "identity")]));
    let named = headers([("accept-encoding", "gzip"), ("connection", "accept-encoding")]);
    assert!(request_headers(&named, &[]).is_empty());
}

#[test]
fn forwards_a_range_only_together_with_its_condition() {
    let (range, condition) = (("range", "bytes=0-9"), ("if-range", "\"v1\""));
    assert_eq!(request_headers(&headers([range, condition]), &[]), headers([range, condition]));
    assert_eq!(request_headers(&headers([range]), &[]), headers([range]));
    assert!(request_headers(&headers([condition]), &[]).is_empty());
    for named in ["range", "if-range", "If-Range, range"] {
        assert!(request_headers(&headers([range, condition, ("connection", named)]), &[]).is_empty(), "{named}");
    }
}

#[test]
fn forwards_an_unknown_field_only_if_the_operator_adds_it() {
    let incoming = headers([("x-tenant", "7"), ("x-other", "8")]);
    assert!(request_headers(&incoming, &[]).is_empty());
    assert!(!is_never_forwarded(&name("x-tenant")));
    let out = request_headers(&incoming, &[name("x-tenant")]);
    assert_eq!(out, headers([("x-tenant", "7")]));
}

#[test]
fn drops_the_fields_that_connection_names() {
    let incoming = headers([
        ("connection", "close, X-Tenant"),
        ("accept", "a"),
        ("range", "b"),
        ("x-tenant", "c"),
        ("pragma", "d"),
        ("connection", "keep-alive ,RANGE\t"),
        ("connection", "authorization"),
    ]);
    assert_eq!(request_headers(&incoming, &[name("x-tenant")]), headers([("accept", "a"), ("pragma", "d")]));
}

#[test]
fn accepts_one_version_only() {
    let version = |fields: HeaderMap| api_version(&fields).map(Option::<&HeaderValue>::cloned);
    assert_eq!(version(headers([])).unwrap(), None);
    assert_eq!(version(headers([("cal-api-version", "2024-08-13")])).unwrap().unwrap(), "2024-08-13");
    let twice = headers([("cal-api-version", "2024-08-13"), ("Cal-Api-Version", "2024-08-13")]);
    assert_eq!(version(twice), Err("cal-api-version occurs more than once"));
}

/// Generates names near the important ones: other letter cases, underscores for hyphens, a prefix or a suffix.
fn header_name() -> impl Strategy<Value = HeaderName> {
    let known = || (0..NEVER.len() + CROSSING.len()).prop_map(|at| NEVER.iter().chain(&CROSSING).nth(at).unwrap());
    prop_oneof![
        known().prop_map(ToString::to_string),
        known().prop_map(|text| text.to_uppercase()),
        (known(), any::<u8>()).prop_map(|(text, n)| text.replacen('-', "_", usize::from(n % 4))),
        (known(), "[a-z_-]{0,2}", "[a-z_-]{0,2}").prop_map(|(text, before, behind)| before + text + &behind),
        "[a-zA-Z0-9!#$%&'*+.^_`|~-]{1,20}",
    ]
    .prop_map(|text| text.parse().unwrap())
}

proptest! {
    #![proptest_config(cases(256))]

    /// For any fields and any additions of an operator: each forwarded field is in the list or an addition, none is
    /// forbidden, and `Connection` names none.
    #[test]
    fn nothing_that_identifies_a_caller_crosses(
        fields in vec((header_name(), "[ -~]{0,12}"), 0..20),
        named in vec(header_name(), 0..4),
        added in vec(header_name(), 0..4),
    ) {
        let added: Vec<_> = added.into_iter().filter(|name| !is_never_forwarded(name)).collect();
        let mut incoming = HeaderMap::new();
        for (name, value) in &fields {
            incoming.append(name, HeaderValue::from_str(value).unwrap());
        }
        for name in &named {
            incoming.append("connection", HeaderValue::from_str(&format!("close, {name}")).unwrap());
        }
        let out = request_headers(&incoming, &added);
        for name in out.keys() {
            let spelled = name.as_str().replace('_', "-");
            prop_assert!(CROSSING.contains(&name.as_str()) || added.contains(name), "{}", name);
            prop_assert!(!NEVER.contains(&&*spelled), "{}", name);
            for family in ["proxy-", "x-forwarded", "cf-", "x-calgate-", "x-original-", "sec-"] {
                prop_assert!(!spelled.starts_with(family), "{}", name);
            }
            prop_assert!(!named.contains(name), "{}", name);
        }
        let is_conditional_range = incoming.contains_key("if-range");
        let crosses_alone = |name: &&HeaderName| !(is_conditional_range && matches!(name.as_str(), "range" | "if-range"));
        for name in incoming.keys().filter(crosses_alone).filter(|name| CROSSING.contains(&name.as_str()) && !named.contains(name)) {
            let connection = incoming.get_all("connection").iter();
            let tokens: Vec<_> = connection.flat_map(|line| line.to_str().unwrap().split(',')).collect();
            if !tokens.iter().any(|token| token.trim().eq_ignore_ascii_case(name.as_str())) {
                // A body has one length.
                let once = usize::from(name == "content-length") * (incoming.get_all(name).iter().count() - 1);
                prop_assert!(out.get_all(name).iter().eq(incoming.get_all(name).iter().skip(once)), "{} did not cross whole", name);
            }
        }
    }
}
