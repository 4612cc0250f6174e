//! Operations with a limit of their own (FACTS §2). The list is independent of the catalog of calgate, which may be wrong.

use calgate::catalog::Endpoint;

/// The limit of one operation. It has a name of its own, its own counter and its own block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperationLimit {
    /// `METHOD /template`.
    pub operation: String,
    /// What the headers end in.
    pub name: String,
    /// Requests per window.
    pub limit: u32,
}

impl OperationLimit {
    /// The limit `name` of the operation `METHOD /template`.
    pub fn new(operation: &str, name: &str, limit: u32) -> Self {
        Self { operation: operation.to_owned(), name: name.to_owned(), limit }
    }

    /// Whether it is the limit of `endpoint`, whatever the parameters are called.
    pub(super) fn is_of(&self, endpoint: &Endpoint) -> bool {
        shape(&self.operation) == shape(&endpoint.to_string())
    }
}

/// The limits that Cal.com has.
pub(super) fn usual() -> Vec<OperationLimit> {
    let (teams, org) = ("/teams/{teamId}", "/organizations/{orgId}/teams/{teamId}");
    let verified = |owner: &str, operation: &str, name: &str, limit| {
        let operation = format!("POST /v2{owner}/verified-resources/{operation}");
        OperationLimit::new(&operation, &format!("{name}_verified_resources_{}", counted(&operation)), limit)
    };
    vec![
        verified("", "emails/verification-code/request", "Users", 5),
        verified("", "emails/verification-code/verify", "Users", 3),
        verified("", "phones/verification-code/request", "Users", 3),
        verified(teams, "emails/verification-code/request", "Teams", 5),
        verified(teams, "phones/verification-code/request", "Teams", 3),
        verified(teams, "phones/verification-code/verify", "Teams", 3),
        verified(org, "emails/verification-code/request", "Org_teams", 3),
        verified(org, "phones/verification-code/request", "Org_teams", 3),
        verified(org, "phones/verification-code/verify", "Org_teams", 3),
        OperationLimit::new("PATCH /v2/bookings/{bookingUid}/location", "Booking_location_requests", 5),
        OperationLimit::new("POST /v2/bookings/{bookingUid}/guests", "Booking_guests_requests", 5),
        OperationLimit::new("POST /v2/bookings/{bookingUid}/attendees", "Booking_attendees_requests", 5),
        OperationLimit::new("DELETE /v2/bookings/{bookingUid}/attendees/{id}", "Booking_attendee_removals", 5),
    ]
}

/// What a verification operation counts: `emails_requests`, `phones_verify`.
fn counted(operation: &str) -> String {
    let mut parts = operation.rsplit('/');
    let what = if parts.next() == Some("request") { "requests" } else { "verify" };
    format!("{}_{what}", parts.nth(1).unwrap_or_default())
}

fn shape(operation: &str) -> String {
    let parts: Vec<_> = operation.split('/').map(|part| if part.starts_with('{') { "{}" } else { part }).collect();
    parts.join("/")
}
