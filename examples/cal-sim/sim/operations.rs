//! Operations with a limit of their own (FACTS §2). The list is independent of the catalog of calgate, which may be wrong.

use calgate::catalog::Endpoint;

/// Limit of an operation, with a separate name, counter and block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperationLimit {
    /// Method and template: `METHOD /template`.
    pub operation: String,
    /// Name, with which the headers end.
    pub name: String,
    /// Requests per window.
    pub limit: u32,
}

impl OperationLimit {
    /// Creates the limit `name` of the operation `METHOD /template`.
    pub fn new(operation: &str, name: &str, limit: u32) -> Self {
        Self { operation: operation.to_owned(), name: name.to_owned(), limit }
    }

    /// Returns whether it is the limit of `endpoint`. The names of parameters do not matter.
    pub(super) fn is_of(&self, endpoint: &Endpoint) -> bool {
        shape(&self.operation) == shape(&endpoint.to_string())
    }
}

/// Returns the limits of Cal.com.
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

/// Returns the name of the limit of a verification operation, such as `emails_requests` or `phones_verify`.
fn counted(operation: &str) -> String {
    let mut parts = operation.rsplit('/');
    let what = if parts.next() == Some("request") { "requests" } else { "verify" };
    format!("{}_{what}", parts.nth(1).unwrap_or_default())
}

fn shape(operation: &str) -> String {
    let parts: Vec<_> = operation.split('/').map(|part| if part.starts_with('{') { "{}" } else { part }).collect();
    parts.join("/")
}
