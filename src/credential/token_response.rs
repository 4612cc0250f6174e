//! Lenient parser of token responses. A pair is issued only once, so an unexpected field beside it must not lose it.
//!
//! Cal.com's endpoints differ in names and envelope (FACTS §1): `{"access_token": …}` and `{"data": {"accessToken": …}}`.
//! The parser accepts both from every endpoint. A field of an unexpected type counts as missing.

use std::borrow::Cow;
use std::fmt;

use jiff::Timestamp;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::credential::managed_user::UserId;
use crate::credential::stored_token::WipedStr;

/// Epoch times in this range are seconds (the years 2001 to 5138); all others are milliseconds, as FACTS §1 has them.
const SECONDS: std::ops::Range<f64> = 1e9..1e11;

/// Fields of a token response.
#[derive(Default)]
pub(super) struct TokenFields<'a> {
    pub(super) access: Option<WipedStr<'a>>,
    pub(super) refresh: Option<WipedStr<'a>>,
    pub(super) api_key: Option<WipedStr<'a>>,
    /// Lifetime of the access token, in seconds.
    pub(super) expires_in: Option<f64>,
    /// End of the access token, in seconds since 1970.
    pub(super) expires_at: Option<f64>,
    /// User that the tokens belong to.
    pub(super) user: Option<UserId>,
    /// `id` of the object itself. It is a user id only inside `user`.
    id: Option<UserId>,
}

impl<'a> TokenFields<'a> {
    /// Parses a body. `None` if it is not a JSON object.
    pub(super) fn read(body: &'a [u8]) -> Option<Self> {
        match serde_json::from_slice::<AnyValue<'a>>(body).ok()? {
            AnyValue::Object(tokens) => Some(*tokens),
            AnyValue::Text(_) | AnyValue::Number(_) | AnyValue::Other => None,
        }
    }

    fn set(&mut self, name: &str, value: AnyValue<'a>) {
        match name {
            "access_token" | "accessToken" => self.access = value.text().or(self.access.take()),
            "refresh_token" | "refreshToken" => self.refresh = value.text().or(self.refresh.take()),
            "api_key" | "apiKey" => self.api_key = value.text().or(self.api_key.take()),
            "expires_in" | "expiresIn" => self.expires_in = value.number().or(self.expires_in),
            "expires_at" | "expiresAt" | "access_token_expires_at" | "accessTokenExpiresAt" => {
                self.expires_at = value.moment().or(self.expires_at);
            }
            "user" | "user_id" | "userId" => self.user = value.user().or(self.user),
            "id" => self.id = value.user(),
            "data" => self.take(value),
            _ => {}
        }
    }

    /// Merges the fields of an envelope.
    fn take(&mut self, value: AnyValue<'a>) {
        let AnyValue::Object(inner) = value else { return };
        let TokenFields { access, refresh, api_key, expires_in, expires_at, user, id: _ } = *inner;
        self.access = access.or(self.access.take());
        self.refresh = refresh.or(self.refresh.take());
        self.api_key = api_key.or(self.api_key.take());
        self.expires_in = expires_in.or(self.expires_in);
        self.expires_at = expires_at.or(self.expires_at);
        self.user = user.or(self.user);
    }
}

/// Number that may be written as text.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct LenientNumber(pub(super) Option<f64>);

impl<'de> Deserialize<'de> for LenientNumber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        AnyValue::deserialize(deserializer).map(|value| Self(value.number()))
    }
}

/// JSON value.
enum AnyValue<'a> {
    Text(WipedStr<'a>),
    Number(f64),
    Object(Box<TokenFields<'a>>),
    Other,
}

impl<'a> AnyValue<'a> {
    fn text(self) -> Option<WipedStr<'a>> {
        match self {
            Self::Text(text) if !text.as_str().is_empty() => Some(text),
            Self::Text(_) | Self::Number(_) | Self::Object(_) | Self::Other => None,
        }
    }

    fn number(&self) -> Option<f64> {
        let number = match self {
            Self::Number(number) => Some(*number),
            Self::Text(text) => text.as_str().trim().parse().ok(),
            Self::Object(_) | Self::Other => None,
        };
        number.filter(|number: &f64| number.is_finite() && *number >= 0.0)
    }

    /// Returns seconds since 1970, from seconds, milliseconds or a date.
    fn moment(&self) -> Option<f64> {
        let seconds = |number: f64| if SECONDS.contains(&number) { number } else { number / 1000.0 };
        let date = || match self {
            Self::Text(text) => {
                text.as_str().trim().parse::<Timestamp>().ok().map(|date| date.as_duration().as_secs_f64())
            }
            Self::Number(_) | Self::Object(_) | Self::Other => None,
        };
        self.number().map(seconds).or_else(date)
    }

    fn user(&self) -> Option<UserId> {
        match self {
            Self::Text(text) => UserId::parse(text.as_str().trim()),
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "it is checked to be a whole number"
            )]
            Self::Number(number) if number.fract() == 0.0 && (1.0..=9e15).contains(number) => {
                UserId::from_number(*number as u64)
            }
            Self::Object(user) => user.id.or(user.user),
            Self::Number(_) | Self::Other => None,
        }
    }
}

impl<'de> Deserialize<'de> for AnyValue<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyVisitor)
    }
}

struct AnyVisitor;

impl<'de> Visitor<'de> for AnyVisitor {
    type Value = AnyValue<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<AnyValue<'de>, E> {
        Ok(AnyValue::Text(WipedStr::new(Cow::Borrowed(text))))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<AnyValue<'de>, E> {
        Ok(AnyValue::Text(WipedStr::new(Cow::Owned(text.to_owned()))))
    }

    #[expect(clippy::cast_precision_loss, reason = "times and ids are far below 2^53")]
    fn visit_u64<E: Error>(self, number: u64) -> Result<AnyValue<'de>, E> {
        Ok(AnyValue::Number(number as f64))
    }

    #[expect(clippy::cast_precision_loss, reason = "times and ids are far below 2^53")]
    fn visit_i64<E: Error>(self, number: i64) -> Result<AnyValue<'de>, E> {
        Ok(AnyValue::Number(number as f64))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<AnyValue<'de>, E> {
        Ok(AnyValue::Number(number))
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<AnyValue<'de>, E> {
        Ok(AnyValue::Other)
    }

    fn visit_unit<E: Error>(self) -> Result<AnyValue<'de>, E> {
        Ok(AnyValue::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<AnyValue<'de>, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(AnyValue::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<AnyValue<'de>, A::Error> {
        let mut tokens = Box::new(TokenFields::default());
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            let value = map.next_value()?;
            tokens.set(&name, value);
        }
        Ok(AnyValue::Object(tokens))
    }
}
