//! What Cal.com's document does not say about its own operations: which answer without a credential, which have a
//! counter of their own, which show or change credentials. Each list names its source in FACTS.

use super::endpoint::{Accepts, SubLimit};

/// Operations that answer without a credential although the document lists credential headers, or lists none
/// (FACTS §1). OAuth callbacks are recognised by their query parameters instead, see `import`.
const PUBLIC: &[&str] = &[
    "GET /v2/slots",
    "POST /v2/slots/reservations",
    "GET /v2/slots/reservations/{uid}",
    "PATCH /v2/slots/reservations/{uid}",
    "DELETE /v2/slots/reservations/{uid}",
    "GET /v2/auth/oauth2/clients/{clientId}",
    "POST /v2/auth/oauth2/token",
    "GET /v2/teams/{teamId}/event-types",
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
];

/// Ends of operations with an upstream counter of their own, and its requests a minute (FACTS §2).
const SUB_LIMITS: &[(&str, &str, u32)] = &[
    ("POST", "/verified-resources/emails/verification-code/request", 5),
    ("POST", "/verified-resources/phones/verification-code/request", 3),
    ("POST", "/verified-resources/phones/verification-code/verify", 3),
    ("PATCH", "/v2/bookings/{bookingUid}/location", 5),
    ("POST", "/v2/bookings/{bookingUid}/guests", 5),
    ("POST", "/v2/bookings/{bookingUid}/attendees", 5),
];

/// Whether `operation` (`METHOD /template`) is listed as public.
pub(super) fn is_public(operation: &str) -> bool {
    PUBLIC.contains(&operation)
}

/// Whether `operation` shows or changes credentials.
pub(super) fn is_credential_operation(operation: &str) -> bool {
    CREDENTIAL_OPERATIONS.contains(&operation)
}

/// The counter of its own that an operation has.
pub(super) fn sub_limit(method: &str, template: &str) -> Option<SubLimit> {
    SUB_LIMITS
        .iter()
        .find(|(m, end, _)| *m == method && template.ends_with(end))
        .map(|&(_, _, requests_per_minute)| SubLimit { requests_per_minute })
}

/// What an operation takes for which the document lists no credential header: a public one anything, any other the
/// credential of a user (FACTS §1: team conferencing and `stripe/check`).
pub(super) fn accepts_unlisted(public: bool) -> Accepts {
    if public { Accepts::Any } else { Accepts::Bearer }
}
