//! Managed users: the `x-calgate-managed-user` header and the ids in it.

use std::fmt;

use http::HeaderMap;

use crate::headers::{MANAGED_USER, single};
use crate::refusal::Refusal;

/// Id of a managed user at Cal.com.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(u64);

impl UserId {
    /// Parses an id: decimal digits without a leading zero, so that each user has one name.
    pub fn parse(text: &str) -> Option<Self> {
        let plain = (1..=18).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        (plain && !text.starts_with('0')).then(|| text.parse().ok().map(Self)).flatten()
    }

    /// Converts the number in a response of Cal.com.
    pub fn from_number(id: u64) -> Option<Self> {
        (id > 0).then_some(Self(id))
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Reads the managed user that a request names.
///
/// # Errors
/// [`Refusal::InvalidHeader`] for a value that is not an id, and for several values.
pub fn from_headers(headers: &HeaderMap) -> Result<Option<UserId>, Refusal> {
    let value = single(headers, &MANAGED_USER, "x-calgate-managed-user occurs more than once")
        .map_err(Refusal::InvalidHeader)?;
    let Some(value) = value else { return Ok(None) };
    let user = value.to_str().ok().and_then(UserId::parse);
    user.map(Some).ok_or(Refusal::InvalidHeader("x-calgate-managed-user has to be a managed user's id, a number"))
}
