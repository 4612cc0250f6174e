//! Credentials of a request, as Cal.com reads them.

use http::HeaderMap;
use http::header::AUTHORIZATION;

/// Credentials that the request carries, not checked yet.
#[derive(Debug, Default, Clone)]
pub(super) struct Presented {
    pub(super) bearer: Option<String>,
    pub(super) client_id: Option<String>,
    pub(super) client_secret: Option<String>,
}

impl Presented {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let bearer = text(AUTHORIZATION.as_str()).and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
        });
        Self {
            bearer: bearer.filter(|token| !token.is_empty()),
            client_id: text("x-cal-client-id"),
            client_secret: text("x-cal-secret-key"),
        }
    }
}
