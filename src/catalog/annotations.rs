//! Hand-kept annotations of operations, with facts that Cal.com's API document lacks.
//!
//! They cover public operations, separate limits, operations that show or change credentials, and API versions. Each list names
//! its source in FACTS.

use std::fmt;

use crate::catalog::Catalog;
use crate::catalog::endpoint::{Accepts, Endpoint, SubLimit, shape};
use crate::catalog::path::CanonicalPath;
use crate::catalog::version::ApiVersion;

/// Public operations: Cal.com answers them without a credential, although the document may list credential headers (FACTS §1).
/// `import` recognises OAuth callbacks by their query parameters instead.
const PUBLIC: &[&str] = &[
    "GET /v2/slots",
    "POST /v2/slots/reservations",
    "GET /v2/slots/reservations/{uid}",
    "PATCH /v2/slots/reservations/{uid}",
    "DELETE /v2/slots/reservations/{uid}",
    "POST /v2/auth/oauth2/token",
    "GET /v2/teams/{teamId}/event-types",
    "GET /v2/organizations/{orgId}/teams/{teamId}/event-types",
    "POST /v2/bookings",
    "GET /v2/bookings/{bookingUid}",
    "GET /v2/bookings/by-seat/{seatUid}",
    "POST /v2/bookings/{bookingUid}/cancel",
    "POST /v2/bookings/{bookingUid}/reschedule",
    "GET /v2/event-types",
];

/// Operations that show or change credentials (FACTS §1). With a shared credential, they reveal secrets to the caller or affect
/// all consumers of the credential.
const CREDENTIAL_OPERATIONS: &[&str] = &[
    "POST /v2/api-keys/refresh",
    "GET /v2/oauth-clients",
    "POST /v2/oauth-clients",
    "GET /v2/oauth-clients/{clientId}",
    "PATCH /v2/oauth-clients/{clientId}",
    "DELETE /v2/oauth-clients/{clientId}",
    "POST /v2/oauth-clients/{clientId}/users",
    "POST /v2/oauth-clients/{clientId}/users/{userId}/force-refresh",
    "POST /v2/oauth/{clientId}/refresh",
    "POST /v2/organizations/{orgId}/organizations",
    // These return the tokens of a managed user, and the code to get them (FACTS §7).
    "POST /v2/oauth/{clientId}/exchange",
    "POST /v2/oauth/{clientId}/authorize",
];

/// Operations whose response contains the access token or API key of the request, as the `state` in a URL (published source of
/// Cal.com).
const ECHO_OPERATIONS: &[&str] = &[
    "GET /v2/calendars/{calendar}/connect",
    "GET /v2/conferencing/{app}/oauth/auth-url",
    "GET /v2/gcal/oauth/auth-url",
    "GET /v2/organizations/{orgId}/teams/{teamId}/conferencing/{app}/oauth/auth-url",
    "GET /v2/organizations/{orgId}/teams/{teamId}/stripe/connect",
    "GET /v2/stripe/connect",
];

/// Operations that Cal.com counts separately, each with its requests per minute (FACTS §2).
const SUB_LIMITS: &[(&str, u32)] = &[
    ("POST /v2/verified-resources/emails/verification-code/request", 5),
    ("POST /v2/verified-resources/emails/verification-code/verify", 3),
    ("POST /v2/verified-resources/phones/verification-code/request", 3),
    ("POST /v2/teams/{teamId}/verified-resources/emails/verification-code/request", 5),
    ("POST /v2/teams/{teamId}/verified-resources/phones/verification-code/request", 3),
    ("POST /v2/teams/{teamId}/verified-resources/phones/verification-code/verify", 3),
    ("POST /v2/organizations/{orgId}/teams/{teamId}/verified-resources/emails/verification-code/request", 3),
    ("POST /v2/organizations/{orgId}/teams/{teamId}/verified-resources/phones/verification-code/request", 3),
    ("POST /v2/organizations/{orgId}/teams/{teamId}/verified-resources/phones/verification-code/verify", 3),
    ("PATCH /v2/bookings/{bookingUid}/location", 5),
    ("POST /v2/bookings/{bookingUid}/guests", 5),
    ("POST /v2/bookings/{bookingUid}/attendees", 5),
];

/// Like [`SUB_LIMITS`], for operations that Cal.com's document lacks (FACTS §7). `import` does not report these as missing.
const UNDOCUMENTED_SUB_LIMITS: &[(&str, u32)] = &[("DELETE /v2/bookings/{bookingUid}/attendees/{attendeeId}", 5)];

/// Returns whether `operation` (`METHOD /template`) is listed as public.
pub(super) fn is_public(operation: &str) -> bool {
    contains_operation(PUBLIC, operation)
}

/// Returns whether `operation` shows or changes credentials.
pub(super) fn is_credential_operation(operation: &str) -> bool {
    contains_operation(CREDENTIAL_OPERATIONS, operation) || echoes_credential(operation)
}

/// Returns whether the credential that `operation` shows is that of the request.
pub(super) fn echoes_credential(operation: &str) -> bool {
    contains_operation(ECHO_OPERATIONS, operation)
}

/// Returns the method and template of each operation that shows or changes credentials.
fn credential_operations() -> impl Iterator<Item = (&'static str, &'static str)> {
    CREDENTIAL_OPERATIONS.iter().chain(ECHO_OPERATIONS).filter_map(|operation| operation.split_once(' '))
}

fn contains_operation(listed: &[&str], operation: &str) -> bool {
    let operation = shape(operation);
    listed.iter().any(|listed| shape(listed) == operation)
}

/// Returns the separate limit of an operation.
pub(super) fn sub_limit(method: &str, template: &str) -> Option<SubLimit> {
    let operation = shape(&format!("{method} {template}"));
    let listed = SUB_LIMITS.iter().chain(UNDOCUMENTED_SUB_LIMITS).find(|(listed, _)| shape(listed) == operation);
    listed.map(|&(_, requests_per_minute)| SubLimit { requests_per_minute })
}

/// Returns whether any operation on the path is known to show or change credentials, whether a catalog has it or not. Other
/// methods on such a path count as well, because their effect is unknown.
pub(super) fn is_known_to_show_credentials(path: &CanonicalPath<'_>) -> bool {
    credential_operations().any(|(_, template)| path.matches(template))
}

/// Returns the operations of a catalog that can show or change credentials and lack the mark `credential_operation`.
///
/// A caller needs permission for each endpoint that matches its request. A listed operation with the mark therefore also protects
/// endpoints with a wider or narrower template.
pub(super) fn unguarded(catalog: &Catalog) -> Vec<&Endpoint> {
    let mut unguarded: Vec<_> = credential_operations()
        .flat_map(|(method, template)| {
            let meant = |e: &&Endpoint| e.method.as_str() == method && e.template.overlaps(template);
            let meant: Vec<_> = catalog.endpoints().iter().filter(meant).collect();
            let (marked, unmarked): (Vec<_>, Vec<_>) = meant.into_iter().partition(|e| e.credential_operation);
            if marked.iter().any(|e| e.template.shape() == shape(template)) { Vec::new() } else { unmarked }
        })
        .collect();
    unguarded.sort_by_key(|endpoint| endpoint.id);
    unguarded.dedup();
    unguarded
}

/// Annotation of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Annotation {
    CredentialOperation,
    SubLimit(u32),
    Public,
}

impl fmt::Display for Annotation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CredentialOperation => f.write_str("shows or changes credentials: credential_operation = true"),
            Self::SubLimit(limit) => write!(f, "Cal.com counts it separately: requests_per_minute = {limit}"),
            Self::Public => f.write_str("answers without a credential: public = true"),
        }
    }
}

/// Annotation of an operation that a document lacks. Cal.com has removed the operation, or moved it to a path where the
/// annotation would be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MissingAnnotation {
    method: &'static str,
    template: &'static str,
    annotation: Annotation,
}

impl MissingAnnotation {
    /// Returns whether it is an annotation of `operation`. The names of parameters do not matter.
    pub(super) fn belongs_to(&self, operation: &str) -> bool {
        operation
            .split_once(' ')
            .is_some_and(|(method, template)| method == self.method && shape(template) == shape(self.template))
    }

    fn is_in(&self, endpoint: &Endpoint) -> bool {
        self.belongs_to(&endpoint.to_string())
    }
}

impl fmt::Display for MissingAnnotation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}  ({})", self.method, self.template, self.annotation)
    }
}

/// Returns the annotations of operations that are not among `endpoints`. Those of credential operations come first.
pub(super) fn missing(endpoints: &[Endpoint]) -> Vec<MissingAnnotation> {
    let whole = |listed: &'static [&'static str], annotation| {
        let parts = listed.iter().filter_map(|operation| operation.split_once(' '));
        parts.map(move |(method, template)| MissingAnnotation { method, template, annotation })
    };
    let shown = credential_operations();
    let shown = shown.map(|(method, template)| MissingAnnotation {
        method,
        template,
        annotation: Annotation::CredentialOperation,
    });
    let apart = SUB_LIMITS.iter().filter_map(|&(operation, limit)| Some((operation.split_once(' ')?, limit)));
    let apart = apart.map(|((method, template), limit)| (method, template, Annotation::SubLimit(limit)));
    shown
        .chain(apart.map(|(method, template, annotation)| MissingAnnotation { method, template, annotation }))
        .chain(whole(PUBLIC, Annotation::Public))
        .filter(|missing| !endpoints.iter().any(|endpoint| missing.is_in(endpoint)))
        .collect()
}

/// Returns the credential kinds of an operation for which the document lists no credential header. A public operation accepts
/// anything. Others accept every kind, because Cal.com does so nearly everywhere (FACTS §1).
pub(super) fn accepts_unlisted(public: bool) -> Accepts {
    if public { Accepts::Any } else { Accepts::Either }
}

/// Version of `POST /v2/bookings` that only users report and the document does not name (FACTS §4).
const BOOKING_CREATION: &str = "2026-02-25";
/// Version of `GET /v2/bookings` of the same source.
const BOOKING_LIST: &str = "2026-05-01";
/// Version of the event type operations of the same source.
const EVENT_TYPES: &str = "2026-06-12";

/// API versions of groups of operations (FACTS §4). The first entry that covers an operation applies.
const VERSIONS: &[(Scope, &[&str])] = &[
    (Scope::Operation("GET /v2/bookings"), &["2024-04-15", "2024-06-11", "2024-06-14", "2024-08-13", BOOKING_LIST]),
    (
        Scope::Operation("POST /v2/bookings"),
        &["2024-04-15", "2024-06-11", "2024-06-14", "2024-08-13", BOOKING_CREATION],
    ),
    (Scope::Operation("GET /v2/bookings/{bookingUid}"), &["2024-04-15", "2024-06-11", "2024-06-14", "2024-08-13"]),
    (
        Scope::Operation("POST /v2/bookings/{bookingUid}/cancel"),
        &["2024-04-15", "2024-06-11", "2024-06-14", "2024-08-13"],
    ),
    (Scope::Versioned("/v2/bookings"), &["2024-08-13"]),
    (Scope::Versioned("/v2/event-types"), &["2024-04-15", "2024-06-11", "2024-06-14", EVENT_TYPES]),
    (Scope::Versioned("/v2/schedules"), &["2024-04-15", "2024-06-11", "2024-06-14"]),
    (Scope::Versioned("/v2/slots"), &["2024-09-04"]),
    (Scope::Containing("/verified-resources/"), &["2024-04-15"]),
    (Scope::Containing("/v2/event-types/{eventTypeId}/private-links"), &["2024-04-15"]),
];

/// Group of operations with the same versions.
enum Scope {
    /// Single operation.
    Operation(&'static str),
    /// Operations under a path for which the document names a version.
    Versioned(&'static str),
    /// Operations whose path contains this text.
    Containing(&'static str),
}

/// Returns the known versions of an operation (`METHOD /template`). `has_documented` says whether the document names one.
pub(super) fn versions(operation: &str, has_documented: bool) -> Box<[ApiVersion]> {
    let operation = shape(operation);
    let path = operation.split_once(' ').map_or("", |(_, path)| path);
    let covers = |scope: &Scope| match scope {
        Scope::Operation(listed) => shape(listed) == operation,
        Scope::Versioned(start) => {
            has_documented && path.strip_prefix(start).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
        Scope::Containing(part) => path.contains(&shape(part)),
    };
    let listed = VERSIONS.iter().find(|(scope, _)| covers(scope)).map_or(&[][..], |(_, versions)| versions);
    listed.iter().filter_map(|version| ApiVersion::parse(version)).collect()
}
