//! Managed users: for whom a caller acts, and whether it may.

use std::fmt;

use http::HeaderMap;

use crate::headers::{MANAGED_USER, single};
use crate::refusal::Refusal;

/// A managed user's id at Cal.com.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(u64);

impl UserId {
    /// Reads an id: decimal digits without a leading zero, so that one user has one name.
    pub fn parse(text: &str) -> Option<Self> {
        let plain = (1..=18).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        (plain && !text.starts_with('0')).then(|| text.parse().ok().map(Self)).flatten()
    }

    /// An id as Cal.com's answers have it.
    pub fn from_number(id: u64) -> Option<Self> {
        (id > 0).then_some(Self(id))
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The managed user that a request names, if it names one.
///
/// # Errors
/// [`Refusal::InvalidHeader`] for one that is no id, or for two of them.
pub fn from_headers(headers: &HeaderMap) -> Result<Option<UserId>, Refusal> {
    let value = single(headers, &MANAGED_USER, "x-calgate-managed-user occurs more than once")
        .map_err(Refusal::InvalidHeader)?;
    let Some(value) = value else { return Ok(None) };
    let user = value.to_str().ok().and_then(UserId::parse);
    user.map(Some).ok_or(Refusal::InvalidHeader("x-calgate-managed-user has to be a managed user's id, a number"))
}
