//! Tests of response fields: a deny-list keeps the upstream hop and its session from the client.

use calgate::headers::{UpstreamAddress, filter_response};
use http::HeaderMap;

use crate::given::headers;

fn cleaned(mut fields: HeaderMap) -> HeaderMap {
    filter_response(&mut fields, UpstreamAddress { authority: "api.cal.com", base_path: "" });
    fields
}

#[test]
fn removes_fields_of_the_upstream_hop_and_of_cal_coms_origin() {
    let dropped = [
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authentication-info",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "set-cookie",
        "set-cookie2",
        "clear-site-data",
        "alt-svc",
        "strict-transport-security",
        "content-security-policy",
        "nel",
        "report-to",
        "access-control-allow-origin",
        "access-control-allow-credentials",
        "access-control-expose-headers",
        "x-ratelimit-limit-default",
        "x-ratelimit-remaining-default",
        "x-ratelimit-reset-other",
        "ratelimit",
        "ratelimit-policy",
        "x-calgate-code",
        "x-calgate-anything",
    ];
    for name in dropped {
        assert!(cleaned(headers([(name, "x"), (name, "y")])).is_empty(), "{name}");
    }
}

#[test]
fn returns_all_other_fields_unchanged() {
    let kept = headers([
        ("content-type", "application/json"),
        ("content-length", "12"),
        ("content-encoding", "gzip"),
        ("etag", "\"1\""),
        ("cache-control", "no-store"),
        ("vary", "Accept-Encoding"),
        ("vary", "Origin"),
        ("retry-after", "3"),
        ("www-authenticate", "Bearer"),
        ("x-vercel-id", "x"),
        ("location", "https://app.cal.com/x"),
    ]);
    assert_eq!(cleaned(kept.clone()), kept);
}

#[test]
fn removes_the_fields_that_connection_names() {
    let fields = headers([
        ("connection", "close"),
        ("etag", "1"),
        ("x-inner", "2"),
        ("connection", "X-Inner , ETag"),
        ("x-outer", "3"),
    ]);
    assert_eq!(cleaned(fields), headers([("x-outer", "3")]));
}

#[test]
fn rewrites_a_location_on_the_upstream() {
    let here = |location: &str, authority: &str, base: &str| {
        let mut fields = headers([("location", location)]);
        filter_response(&mut fields, UpstreamAddress { authority, base_path: base });
        fields["location"].to_str().unwrap().to_owned()
    };
    let table = [
        ("https://api.cal.com/v2/me?a=b#c", "/v2/me?a=b#c"),
        ("HTTPS://API.Cal.Com/v2/me", "/v2/me"),
        ("http://api.cal.com/v2/me", "/v2/me"),
        ("https://api.cal.com:443/v2/me", "/v2/me"),
        ("https://someone@api.cal.com/v2/me", "/v2/me"),
        ("//api.cal.com/v2/me", "/v2/me"),
        ("https://api.cal.com", "/"),
        ("https://api.cal.com?a", "/?a"),
        ("/v2/me", "/v2/me"),
        ("https://app.cal.com/v2/me", "https://app.cal.com/v2/me"),
        ("https://api.cal.com.example/v2", "https://api.cal.com.example/v2"),
        ("https://api.cal.com:8443/v2", "https://api.cal.com:8443/v2"),
        ("https://api.cal.com@example.com/", "https://api.cal.com@example.com/"),
        ("//example.com/v2", "//example.com/v2"),
        ("me", "me"),
        ("", ""),
    ];
    for (location, expected) in table {
        assert_eq!(here(location, "api.cal.com", ""), expected, "{location}");
    }
    let under_a_base = [
        ("https://proxy:8443/cal/v2/me", "/v2/me"),
        ("https://proxy:8443/cal", "/"),
        ("/cal/v2/me", "/v2/me"),
        ("/cal?a", "/?a"),
        ("/calendar/v2", "/calendar/v2"),
        ("https://proxy/cal/v2", "https://proxy/cal/v2"),
    ];
    for (location, expected) in under_a_base {
        assert_eq!(here(location, "proxy:8443", "/cal"), expected, "{location}");
    }
    assert_eq!(here("https://api.cal.com/v2", "api.cal.com:443", ""), "/v2");
}

#[test]
fn rewrites_content_location_and_each_target_of_a_link() {
    let table = [
        ("content-location", "https://api.cal.com/v2/me", "/v2/me"),
        (
            "link",
            "<https://api.cal.com/v2/bookings?take=2&skip=2>; rel=\"next\"",
            "</v2/bookings?take=2&skip=2>; rel=\"next\"",
        ),
        (
            "link",
            "</v2/a>; rel=prev, <https://API.cal.com:443/v2/b>;rel=next,<https://cal.com/x>; title=\"<https://api.cal.com/c>\"",
            "</v2/a>; rel=prev, </v2/b>;rel=next,<https://cal.com/x>; title=\"<https://api.cal.com/c>\"",
        ),
        (
            "link",
            "<https://api.cal.com/d>; title=\"a \\\" <https://api.cal.com/e>\"",
            "</d>; title=\"a \\\" <https://api.cal.com/e>\"",
        ),
        ("link", "<https://api.cal.com/unfinished", "<https://api.cal.com/unfinished"),
        ("link", "\"\\", "\"\\"),
        ("link", "<>; rel=self", "<>; rel=self"),
    ];
    for (name, given, expected) in table {
        let cleaned = cleaned(headers([(name, given)]));
        assert_eq!(cleaned.get(name).unwrap(), expected, "{name}: {given}");
    }
    let lines = cleaned(headers([("link", "<https://api.cal.com/a>"), ("link", "<https://api.cal.com/b>")]));
    assert_eq!(lines, headers([("link", "</a>"), ("link", "</b>")]));
}
