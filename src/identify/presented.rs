//! Credentials that a request carries, read from its headers and not verified.

use http::HeaderMap;
use http::header::AUTHORIZATION;
use memchr::memmem;

use super::key::PREFIX;
use crate::headers::{API_KEY, CLIENT_ID, SECRET_KEY};
use crate::refusal::Refusal;

/// Prefixes of Cal.com's own API keys (FACTS §1). Some clients refuse to send a key without one of them.
const CAL_COM_PREFIXES: [&[u8]; 2] = [b"cal_live_", b"cal_"];

/// Values of the headers that carry credentials. An empty value counts as absent.
#[derive(Default)]
pub(super) struct PresentedCredentials<'a> {
    authorization: Option<&'a [u8]>,
    api_key: Option<&'a [u8]>,
    secret: Option<&'a [u8]>,
    client_id: Option<&'a [u8]>,
    has_two_client_ids: bool,
}

impl<'a> PresentedCredentials<'a> {
    /// Reads all of them in one pass over the headers.
    ///
    /// # Errors
    /// [`Refusal::InvalidHeader`] if a header that may hold a key occurs twice, because it is ambiguous which one counts.
    pub(super) fn of(headers: &'a HeaderMap) -> Result<Self, Refusal> {
        let mut read = Self::default();
        for (name, value) in headers {
            let value = value.as_bytes().trim_ascii();
            let (field, twice) = if *name == AUTHORIZATION {
                (&mut read.authorization, "Authorization occurs more than once")
            } else if *name == API_KEY {
                (&mut read.api_key, "X-Api-Key occurs more than once")
            } else if *name == SECRET_KEY {
                (&mut read.secret, "x-cal-secret-key occurs more than once")
            } else {
                if *name == CLIENT_ID {
                    // An id alone identifies nobody, so two ids matter only if there is a secret.
                    read.has_two_client_ids |= read.client_id.replace(value).is_some();
                }
                continue;
            };
            if field.replace(value).is_some() {
                return Err(Refusal::InvalidHeader(twice));
            }
        }
        read.authorization = read.authorization.map(without_scheme);
        Ok(read)
    }

    /// Returns the non-empty values that may be a key.
    fn candidates(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        [self.authorization, self.api_key, self.secret].into_iter().flatten().filter(|value| !value.is_empty())
    }

    /// Returns the gateway key, which starts with `calgate_`.
    ///
    /// # Errors
    /// [`Refusal::InvalidHeader`] if two headers hold different keys.
    pub(super) fn gateway_key(&self) -> Result<Option<&'a str>, Refusal> {
        let mut keys = self.candidates().filter_map(find_key);
        let Some(key) = keys.next() else { return Ok(None) };
        if keys.all(|other| other == key) {
            return Ok(Some(as_text(key)));
        }
        Err(Refusal::InvalidHeader("Authorization, X-Api-Key and x-cal-secret-key carry different gateway keys"))
    }

    /// Returns whether `calgate_` occurs where calgate reads no key: after a scheme other than `Bearer`, or in the client id.
    pub(super) fn has_misplaced_key(&self) -> bool {
        let names_key = |value: &[u8]| memmem::find(&value.to_ascii_lowercase(), PREFIX.as_bytes()).is_some();
        self.candidates().chain(self.client_id).any(names_key)
    }

    /// Returns whether there is no credential. A client id alone is not one.
    pub(super) fn is_empty(&self) -> bool {
        self.candidates().next().is_none()
    }

    /// Returns the value of `Authorization`, without the scheme `Bearer`.
    pub(super) fn authorization(&self) -> Option<&'a str> {
        non_empty(self.authorization)
    }

    /// Returns the value of `X-Api-Key`.
    pub(super) fn api_key(&self) -> Option<&'a str> {
        non_empty(self.api_key)
    }

    /// Returns the value of `x-cal-secret-key`.
    pub(super) fn secret(&self) -> Option<&'a str> {
        non_empty(self.secret)
    }

    /// Returns the value of `x-cal-client-id`.
    ///
    /// # Errors
    /// [`Refusal::InvalidHeader`] if the header occurs twice.
    pub(super) fn client_id(&self) -> Result<Option<&'a str>, Refusal> {
        if self.has_two_client_ids {
            return Err(Refusal::InvalidHeader("x-cal-client-id occurs more than once"));
        }
        Ok(non_empty(self.client_id))
    }
}

fn non_empty(value: Option<&[u8]>) -> Option<&str> {
    value.filter(|value| !value.is_empty()).map(as_text)
}

/// Returns a value as text. A value that is not ASCII becomes a question mark, which is not a credential.
fn as_text(value: &[u8]) -> &str {
    std::str::from_utf8(value).ok().filter(|text| text.is_ascii()).unwrap_or("?")
}

/// Returns the token of an `Authorization` value. The scheme is case-insensitive (RFC 9110 §11.1). It may be absent, because
/// Cal.com also accepts a bare token (FACTS §1).
fn without_scheme(value: &[u8]) -> &[u8] {
    match value.split_at_checked("Bearer".len()) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"Bearer") && matches!(token, [] | [b' ', ..]) => {
            token.trim_ascii()
        }
        _ => value,
    }
}

/// Returns the gateway key in a value, without `Bearer` and a prefix of Cal.com. A key in capitals counts as a mistyped key.
fn find_key(value: &[u8]) -> Option<&[u8]> {
    let is_key =
        |text: &&[u8]| text.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX.as_bytes()));
    let token = without_scheme(value);
    let mut inner = CAL_COM_PREFIXES.iter().filter_map(|prefix| token.strip_prefix(*prefix));
    Some(token).filter(is_key).or_else(|| inner.find(is_key))
}
