//! Tests of responses that the gateway makes itself.

use std::time::{Duration, SystemTime};

use calgate::catalog::{Catalog, UnknownEndpoints};
use calgate::headers::{Cors, REQUEST_ALLOW_LIST, request_headers};
use calgate::respond::{options_response, refusal_response, reports_rate_limit};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use serde_json::{Value, json};

use crate::given::{code, headers};
use crate::refusal::every;

fn arrival() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(1_767_225_600_123)
}

#[test]
fn formats_a_refusal_as_a_cal_com_error_with_a_gateway_code() {
    for no in every() {
        let answer = refusal_response(&no, "/v2/bookings/{bookingUid}", arrival());
        let body: Value = serde_json::from_slice(answer.body()).unwrap();
        let expected = json!({
            "status": "error",
            "timestamp": "2026-01-01T00:00:00.123Z",
            "path": "/v2/bookings/{bookingUid}",
            "error": { "code": no.code(), "message": no.public_error().message },
        });
        assert_eq!(body, expected);
        assert_eq!(answer.status(), no.status());
        assert_eq!(answer.headers()["x-calgate-code"], no.code());
    }
}

#[test]
fn each_refusal_has_the_headers_of_its_status() {
    let row = |no: &calgate::refusal::Refusal| {
        let answer = refusal_response(no, "", arrival());
        let fields: Vec<_> =
            answer.headers().iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        format!("{}\n    {}\n", answer.status(), fields.join("\n    "))
    };
    insta::assert_snapshot!(every().iter().map(row).collect::<String>());
}

fn preflight(
    target: &str,
    fields: HeaderMap,
    cors: &Cors,
) -> Result<Response<bytes::Bytes>, calgate::refusal::Refusal> {
    let mut request = Request::options(target).body(()).unwrap();
    *request.headers_mut() = fields;
    options_response(Catalog::built_in(), UnknownEndpoints::Refuse, cors, &request.into_parts().0)
}

#[test]
fn answers_options_with_the_methods_of_the_path() {
    let answer = preflight("/v2/Bookings/?a=b", headers([("origin", "https://app.example.com")]), &Cors::default());
    let answer = answer.unwrap();
    assert_eq!(answer.status(), StatusCode::NO_CONTENT);
    assert_eq!(*answer.headers(), headers([("allow", "GET, HEAD, OPTIONS, POST")]), "no CORS unless configured");
    assert!(answer.body().is_empty());
    let refused = |target| code(preflight(target, HeaderMap::new(), &Cors::default()));
    assert_eq!(refused("/v2/nothing"), "GATEWAY_UNKNOWN_ENDPOINT");
    assert_eq!(refused("/v2//me"), "GATEWAY_BAD_REQUEST");
    assert_eq!(refused("*"), "GATEWAY_BAD_REQUEST");
}

#[test]
fn answers_preflights_of_listed_origins_only() {
    let cors = Cors::new(vec!["https://app.example.com".to_owned()], &[]);
    let asked = |origin| preflight("/v2/me", headers([("origin", origin)]), &cors).unwrap().into_parts().0.headers;
    let listed = asked("https://App.example.com");
    assert_eq!(listed["access-control-allow-methods"], "GET, HEAD, OPTIONS, PATCH");
    assert!(!listed.contains_key("access-control-allow-credentials"));
    for other in ["https://app.example.com.evil.example", "http://app.example.com", "null", "*"] {
        assert_eq!(asked(other), headers([("allow", "GET, HEAD, OPTIONS, PATCH")]), "{other}");
    }
}

#[test]
fn lets_a_page_send_every_field_that_is_forwarded_or_read() {
    let extra = HeaderName::from_static("x-team");
    let cors = Cors::new(vec!["https://app.example.com".to_owned()], std::slice::from_ref(&extra));
    let asked = headers([("origin", "https://app.example.com")]);
    let answer = preflight("/v2/me", asked, &cors).unwrap();
    let allowed = answer.headers()["access-control-allow-headers"].to_str().unwrap();
    let mut allowed: Vec<HeaderName> = allowed.split(", ").map(|name| name.parse().unwrap()).collect();
    let sent: HeaderMap = allowed.iter().map(|name| (name.clone(), HeaderValue::from_static("a"))).collect();
    let crossing = request_headers(&sent, &[extra]);
    assert_eq!(crossing.len(), REQUEST_ALLOW_LIST.len() + 1);
    allowed.retain(|name| !crossing.contains_key(name));
    allowed.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
    let here = [
        "authorization",
        "cal-api-version",
        "x-api-key",
        "x-cal-client-id",
        "x-cal-secret-key",
        "x-calgate-managed-user",
        "x-calgate-max-wait",
        "x-request-id",
    ];
    assert_eq!(allowed, here);
}

#[test]
fn only_error_1015_reports_a_rate_limit() {
    for page in [
        "error code: 1015",
        "<title>Access denied</title><span class=\"cf-error-type\">Error</span> <span class=\"cf-error-code\">1015</span>",
        r#"{"status":403,"error_code":1015,"error_name":"rate_limited"}"#,
        "ERROR 1015",
    ] {
        assert!(reports_rate_limit(page.as_bytes()), "{page}");
    }
    for page in [
        "",
        r#"{"status":"error","path":"/v2/me?x=error-1015","error":{"message":"error 1015"}}"#,
        "{\"error_code\":1020}",
        "{error 1015",
        "error code: 1020",
        "error code: 10150",
        "error 21015",
        "Ray ID 1015",
        "1015 error",
        "error: x1015",
    ] {
        assert!(!reports_rate_limit(page.as_bytes()), "{page}");
    }
}
