//! Tests of refusals: the public part and the detail for the log.

use std::collections::BTreeSet;
use std::time::Duration;

use calgate::ratelimit::{ThrottleReason, Throttled};
use calgate::refusal::{AuthFailure, Leak, PathError, Refusal, retry_after_secs};

use http::StatusCode;

use crate::given::{caller, find, key, snapshot};

/// Returns one refusal of each kind. The match is exhaustive, so a new refusal does not compile without an entry.
pub(crate) fn every() -> Vec<Refusal> {
    let rule = || {
        let snapshot = snapshot("[consumers.it]\nkeys = [\"{key:it}\"]\ncredential = \"teams\"");
        snapshot
            .entitlements
            .grant(caller(&snapshot, "it"), find("GET /v2/organizations/7/teams").unwrap())
            .unwrap_err()
    };
    let retry_after = Duration::from_millis(1500);
    let mut next = Some(Refusal::InvalidPath(PathError::DotSegment));
    let mut list = Vec::new();
    while let Some(refusal) = next {
        next = match &refusal {
            Refusal::InvalidPath(_) => Some(Refusal::InvalidHeader("Host occurs more than once")),
            Refusal::InvalidHeader(_) => Some(Refusal::InvalidVersion),
            Refusal::InvalidVersion => Some(Refusal::Leak(Leak::KeyInTarget)),
            Refusal::Leak(Leak::KeyInTarget) => Some(Refusal::Leak(Leak::SecretInTarget)),
            Refusal::Leak(Leak::SecretInTarget) => Some(Refusal::Leak(Leak::KeyInHeader)),
            Refusal::Leak(Leak::KeyInHeader) => Some(Refusal::HostNotAllowed { host: "evil.example:8080".into() }),
            Refusal::HostNotAllowed { .. } => Some(Refusal::OriginNotAllowed),
            Refusal::OriginNotAllowed => Some(Refusal::Unauthenticated(AuthFailure::Checksum)),
            Refusal::Unauthenticated(failure) => {
                Some(Refusal::TooManyFailures { failure: Some(failure.clone()), retry_after })
            }
            Refusal::TooManyFailures { .. } => Some(rule()),
            Refusal::NotEntitled(_) => Some(Refusal::CredentialOperation),
            Refusal::CredentialOperation => Some(Refusal::CredentialUnsuitable {
                credential: "main".into(),
                wanted: "a platform client's id and secret",
                remedy: "An operator can give the consumer a credential of kind platform-client.",
            }),
            Refusal::CredentialUnsuitable { .. } => {
                Some(Refusal::CredentialNeedsLogin { credential: "platform/42".into() })
            }
            Refusal::CredentialNeedsLogin { .. } => Some(Refusal::CredentialUnavailable {
                credential: "app".into(),
                why: "connecting failed".into(),
                retry_after,
            }),
            Refusal::CredentialUnavailable { .. } => Some(Refusal::CredentialRefused { renewed: true }),
            Refusal::CredentialRefused { renewed: true } => Some(Refusal::CredentialRefused { renewed: false }),
            Refusal::CredentialRefused { renewed: false } => Some(Refusal::UnknownManagedUser),
            Refusal::UnknownManagedUser => Some(Refusal::ManagedUserNotAllowed),
            Refusal::ManagedUserNotAllowed => Some(Refusal::TokensUnkept),
            Refusal::TokensUnkept => Some(Refusal::UnknownEndpoint {
                path: "/v2/bookins".into(),
                advice: Some("Is /v2/bookings meant?".into()),
            }),
            Refusal::UnknownEndpoint { advice: Some(_), .. } => {
                Some(Refusal::UnknownEndpoint { path: "/v2/x".into(), advice: None })
            }
            Refusal::UnknownEndpoint { .. } => Some(Refusal::ApiV1Gone),
            Refusal::ApiV1Gone => {
                Some(Refusal::MethodNotAllowed { path: "/v2/me".into(), allow: "GET, HEAD, OPTIONS".to_owned() })
            }
            Refusal::MethodNotAllowed { .. } => Some(Refusal::RateLimited { retry_after }),
            Refusal::RateLimited { .. } => {
                Some(Refusal::UpstreamBudget(Throttled { by: ThrottleReason::Requests, wait: retry_after }))
            }
            Refusal::UpstreamBudget(_) => Some(Refusal::LimitStoreUnavailable),
            Refusal::LimitStoreUnavailable => Some(Refusal::Overloaded),
            Refusal::Overloaded => Some(Refusal::TargetTooLong { limit: 8192 }),
            Refusal::TargetTooLong { .. } => Some(Refusal::HeadTooLarge { limit: 32_768 }),
            Refusal::HeadTooLarge { .. } => Some(Refusal::TooManyFields { limit: 100 }),
            Refusal::TooManyFields { .. } => Some(Refusal::BodyTooLarge { limit: 1_048_576, key: "limits.body_bytes" }),
            Refusal::BodyTooLarge { .. } => Some(Refusal::late_head(Duration::from_secs(10))),
            Refusal::RequestTimeout { part: "head", .. } => Some(Refusal::late_body(Duration::from_millis(1500))),
            Refusal::RequestTimeout { .. } => Some(Refusal::BodyBroken),
            Refusal::BodyBroken => {
                Some(Refusal::UpstreamUnreachable { reason: "connection refused".into(), sent: false })
            }
            Refusal::UpstreamUnreachable { sent: false, .. } => {
                Some(Refusal::UpstreamUnreachable { reason: "connection closed".into(), sent: true })
            }
            Refusal::UpstreamUnreachable { .. } => Some(Refusal::UpstreamInvalid),
            Refusal::UpstreamInvalid => {
                Some(Refusal::UpstreamBroken { status: StatusCode::CREATED, reason: "the upstream answer broke off" })
            }
            Refusal::UpstreamBroken { .. } => Some(Refusal::UpstreamTimeout),
            Refusal::UpstreamTimeout => Some(Refusal::Stopping { sent: true }),
            Refusal::Stopping { sent: true } => Some(Refusal::Stopping { sent: false }),
            Refusal::Stopping { sent: false } => Some(Refusal::Loop),
            Refusal::Loop => Some(Refusal::Internal),
            Refusal::Internal => None,
        };
        list.push(refusal);
    }
    list
}

#[test]
fn each_refusal_has_its_code_status_and_message() {
    let row = |refusal: &Refusal| {
        let error = refusal.public_error();
        assert_eq!((error.code, error.status), (refusal.code(), refusal.status()));
        let wait = error.retry_after.map(|seconds| format!(" (Retry-After: {seconds})")).unwrap_or_default();
        let detail = refusal.detail().map(|detail| format!("\n    log: {detail}")).unwrap_or_default();
        format!("{} {}{wait}\n    {}{detail}\n", error.status.as_u16(), error.code, error.message)
    };
    insta::assert_snapshot!(every().iter().map(row).collect::<String>());
}

#[test]
fn the_documentation_lists_exactly_the_codes_with_their_status() {
    let page = std::fs::read_to_string("docs/errors.md").unwrap();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `GATEWAY_"));
    let listed: BTreeSet<_> =
        rows.map(|row| row.split('|').take(2).map(str::trim).collect::<Vec<_>>().join(" ")).collect();
    let row = |refusal: &Refusal| {
        let code = refusal.code().trim_start_matches("GATEWAY_");
        format!("{code}` {}", refusal.status().as_u16())
    };
    assert_eq!(listed, every().iter().map(row).collect());
}

#[test]
fn codes_have_one_form_and_messages_are_short_sentences() {
    for refusal in every() {
        let error = refusal.public_error();
        assert!(error.code.starts_with("GATEWAY_"));
        assert!(error.code.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'));
        assert!(error.message.ends_with('.') && error.message.len() < 300, "{}", error.message);
        assert!(error.status.is_client_error() || error.status.is_server_error());
    }
}

#[test]
fn every_path_error_has_a_message_of_its_own() {
    use PathError::*;
    let all = [NotOriginForm, EmptySegment, DotSegment, InvalidByte, BrokenEscape, AmbiguousEscape, NotUtf8, Rewritten];
    let words: BTreeSet<_> = all.iter().map(ToString::to_string).collect();
    assert_eq!(words.len(), all.len());
}

#[test]
fn no_refusal_repeats_a_secret_or_a_value_that_the_client_sent() {
    let snapshot = snapshot("[consumers.it]\nkeys = [\"{key:it}\"]\ncredential = \"teams\"\ntags = [\"Slots\"]");
    let mut refusals = Vec::new();
    for request in [
        "GET /v2/calgate_marker",
        "GET /v2/CAL_LIVE_marker/x",
        "GET /v2/x/0123456789abcdef0123456789abcdef-marker",
        "GET /v2/x/marker@example.com",
        "GET /v2/bookings/marker/..",
        "PUT /v2/bookings/cal_marker",
        "MARKER /v2/me",
        "GET /v2/%6darker%2f",
        "GET /calgate_marker",
        "GET /v1/marker",
    ] {
        refusals.push(find(request).unwrap_err());
    }
    let matched = find("GET /v2/bookings/marker").unwrap();
    refusals.push(snapshot.entitlements.grant(caller(&snapshot, "it"), matched).unwrap_err());
    refusals.push(calgate::catalog::version::check(Some(&"marker".parse().unwrap())).unwrap_err());
    for refusal in refusals {
        let (error, detail) = (refusal.public_error(), refusal.detail().unwrap_or_default());
        let shown = format!("{error:?} {detail} {refusal:?}").to_lowercase();
        assert!(!shown.contains("marker") && !shown.contains(&key("it")), "{shown}");
    }
}

#[test]
fn retry_after_is_rounded_up_and_never_zero() {
    let table = [(0, 1), (1, 1), (999_999_999, 1), (1_000_000_000, 1), (1_000_000_001, 2), (59_500_000_000, 60)];
    for (nanos, seconds) in table {
        assert_eq!(retry_after_secs(Duration::from_nanos(nanos)), seconds);
    }
}
