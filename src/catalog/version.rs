//! API versions: values of `cal-api-version`, and hints about the versions of an operation (FACTS §4).

use http::HeaderValue;

use crate::refusal::Refusal;

/// Version that Cal.com uses if the header is missing or its value is unknown (FACTS §4).
pub const OLDEST_VERSION: &str = "2024-04-15";

/// Value of `cal-api-version`, which is a date.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiVersion(HeaderValue);

impl ApiVersion {
    /// Parses a date of the form `YYYY-MM-DD`.
    pub fn parse(text: &str) -> Option<Self> {
        is_date(text.as_bytes()).then(|| HeaderValue::from_str(text).ok().map(Self)).flatten()
    }

    /// Returns the version as text.
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    /// Returns the version as a header value.
    pub fn value(&self) -> &HeaderValue {
        &self.0
    }
}

/// Checks the `cal-api-version` of a client. Any date passes, because Cal.com adds versions that no catalog knows yet.
///
/// # Errors
/// [`Refusal::InvalidVersion`] for a value that is not a date. Cal.com would use [`OLDEST_VERSION`] without an error.
pub fn check(sent: Option<&HeaderValue>) -> Result<(), Refusal> {
    match sent {
        Some(sent) if !is_date(sent.as_bytes()) => Err(Refusal::InvalidVersion),
        _ => Ok(()),
    }
}

/// Returns whether `text` is a valid date of the form `YYYY-MM-DD`.
fn is_date(text: &[u8]) -> bool {
    let has_form = text.len() == 10
        && text
            .iter()
            .enumerate()
            .all(|(at, byte)| if matches!(at, 4 | 7) { *byte == b'-' } else { byte.is_ascii_digit() });
    has_form && std::str::from_utf8(text).is_ok_and(|text| text.parse::<jiff::civil::Date>().is_ok())
}

/// Returns a hint for a request that Cal.com answered 404. Returns `None` if `versions` contains the version of the request or is
/// empty.
pub(super) fn hint(operation: &str, versions: &[ApiVersion], sent: Option<&HeaderValue>) -> Option<HeaderValue> {
    let used = sent.map_or(OLDEST_VERSION.as_bytes(), HeaderValue::as_bytes);
    if versions.is_empty() || versions.iter().any(|version| version.0.as_bytes() == used) {
        return None;
    }
    let name = |version: &ApiVersion| {
        let or_none = if version.as_str() == OLDEST_VERSION { " (or no header)" } else { "" };
        format!("{}{or_none}", version.as_str())
    };
    let listed: Vec<_> = versions.iter().map(name).collect();
    let used = match sent {
        Some(sent) => format!("{}, which this request sent", sent.to_str().unwrap_or_default()),
        None => format!("{OLDEST_VERSION}, which Cal.com uses without the header"),
    };
    let hint = format!("calgate's catalog lists cal-api-version {} for {operation}, and not {used}", listed.join(", "));
    HeaderValue::from_str(&hint).ok()
}
