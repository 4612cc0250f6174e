//! What Cal.com's document does not say about its own operations: which answer without a credential, which have a
//! counter of their own, which show or change credentials, which versions each has. Each list names its source in FACTS.

use std::fmt;

use crate::catalog::Catalog;
use crate::catalog::endpoint::{Accepts, Endpoint, SubLimit, shape};
use crate::catalog::path::CanonicalPath;
use crate::catalog::version::ApiVersion;

/// Operations that answer without a credential although the document lists credential headers, or lists none
/// (FACTS §1). OAuth callbacks are recognised by their query parameters instead, see `import`.
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

/// Operations that, through a shared credential, harm everyone who shares it or hand secrets to the caller (FACTS §1).
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
    // They return a managed user's tokens, and the code for them (FACTS §7).
    "POST /v2/oauth/{clientId}/exchange",
    "POST /v2/oauth/{clientId}/authorize",
];

/// Operations that return an address which contains the access token or the API key of the request, as `state` for the page
/// behind it (Cal.com's published source).
const ECHO_OPERATIONS: &[&str] = &[
    "GET /v2/calendars/{calendar}/connect",
    "GET /v2/conferencing/{app}/oauth/auth-url",
    "GET /v2/gcal/oauth/auth-url",
    "GET /v2/organizations/{orgId}/teams/{teamId}/conferencing/{app}/oauth/auth-url",
    "GET /v2/organizations/{orgId}/teams/{teamId}/stripe/connect",
    "GET /v2/stripe/connect",
];

/// Operations with an upstream counter of their own, and its requests a minute (FACTS §2).
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

/// The same for operations that Cal.com's document lacks (FACTS §7): that it lacks them is no news.
const UNDOCUMENTED_SUB_LIMITS: &[(&str, u32)] = &[("DELETE /v2/bookings/{bookingUid}/attendees/{attendeeId}", 5)];

/// Whether `operation` (`METHOD /template`) is listed as public.
pub(super) fn is_public(operation: &str) -> bool {
    contains_operation(PUBLIC, operation)
}

/// Whether `operation` shows or changes credentials.
pub(super) fn is_credential_operation(operation: &str) -> bool {
    contains_operation(CREDENTIAL_OPERATIONS, operation) || echoes_credential(operation)
}

/// Whether what `operation` shows is the credential that it was sent with.
pub(super) fn echoes_credential(operation: &str) -> bool {
    contains_operation(ECHO_OPERATIONS, operation)
}

/// Each listed operation that shows or changes credentials: its method and its template.
fn credential_operations() -> impl Iterator<Item = (&'static str, &'static str)> {
    CREDENTIAL_OPERATIONS.iter().chain(ECHO_OPERATIONS).filter_map(|operation| operation.split_once(' '))
}

fn contains_operation(listed: &[&str], operation: &str) -> bool {
    let operation = shape(operation);
    listed.iter().any(|listed| shape(listed) == operation)
}

/// The counter of its own that an operation has.
pub(super) fn sub_limit(method: &str, template: &str) -> Option<SubLimit> {
    let operation = shape(&format!("{method} {template}"));
    let listed = SUB_LIMITS.iter().chain(UNDOCUMENTED_SUB_LIMITS).find(|(listed, _)| shape(listed) == operation);
    listed.map(|&(_, requests_per_minute)| SubLimit { requests_per_minute })
}

/// Whether a path is that of an operation that shows or changes credentials, be it in a catalog or not. What another method
/// does there is not known, so it counts as well.
pub(super) fn is_known_to_show_credentials(path: &CanonicalPath<'_>) -> bool {
    credential_operations().any(|(_, template)| path.matches(template))
}

/// The operations of a catalog by which a request shows or changes credentials unguarded. Of all that a request fits each
/// has to be allowed, so that a listed operation which is marked guards wider and narrower ones.
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

/// What is listed here of an operation.
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
            Self::SubLimit(limit) => write!(f, "is counted apart by Cal.com: requests_per_minute = {limit}"),
            Self::Public => f.write_str("answers without a credential: public = true"),
        }
    }
}

/// An operation that is listed here and not in a document. Cal.com has dropped it, or has it in another place, where what
/// is known of it would be forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MissingAnnotation {
    method: &'static str,
    template: &'static str,
    annotation: Annotation,
}

impl MissingAnnotation {
    /// Whether it is `operation`, whatever the parameters are called.
    pub(super) fn is(&self, operation: &str) -> bool {
        operation
            .split_once(' ')
            .is_some_and(|(method, template)| method == self.method && shape(template) == shape(self.template))
    }

    fn is_in(&self, endpoint: &Endpoint) -> bool {
        self.is(&endpoint.to_string())
    }
}

impl fmt::Display for MissingAnnotation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}  ({})", self.method, self.template, self.annotation)
    }
}

/// What is listed here and not among `endpoints`; first what shows or changes credentials.
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

/// The credential kinds of an operation for which the document lists no credential header: a public one takes anything.
/// Any other takes every kind, because the application accepts any kind nearly everywhere (FACTS §1).
pub(super) fn accepts_unlisted(public: bool) -> Accepts {
    if public { Accepts::Any } else { Accepts::Either }
}

/// Versions that only users report and that the document does not name (FACTS §4).
const BOOKING_CREATION: &str = "2026-02-25";
const BOOKING_LIST: &str = "2026-05-01";
const EVENT_TYPES: &str = "2026-06-12";

/// The versions of groups of operations (FACTS §4). The first entry that fits an operation counts.
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

/// The operations that share a list of versions.
enum Scope {
    /// One operation.
    Operation(&'static str),
    /// Those under a path for which the document names a version.
    Versioned(&'static str),
    /// Those whose path contains this.
    Containing(&'static str),
}

/// The versions that an operation (`METHOD /template`) is known to have; `named` tells whether the document names one.
pub(super) fn versions(operation: &str, named: bool) -> Box<[ApiVersion]> {
    let operation = shape(operation);
    let path = operation.split_once(' ').map_or("", |(_, path)| path);
    let fits = |scope: &Scope| match scope {
        Scope::Operation(listed) => shape(listed) == operation,
        Scope::Versioned(start) => {
            named && path.strip_prefix(start).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
        Scope::Containing(part) => path.contains(&shape(part)),
    };
    let listed = VERSIONS.iter().find(|(scope, _)| fits(scope)).map_or(&[][..], |(_, versions)| versions);
    listed.iter().filter_map(|version| ApiVersion::parse(version)).collect()
}
