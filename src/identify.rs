//! Who asks? Gateway keys, callers without one, and callers that bring a credential of their own.
//!
//! First stage: [`Consumers::identify`] reads the head of a request and answers with a [`Caller`], or refuses. Whether
//! the caller may have what it asks for is not decided here.

mod address;
mod key;
mod own;

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::net::IpAddr;
use std::time::SystemTime;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderName};

pub use address::{AddressKey, TrustedProxies};
pub use key::{GatewayKey, KeyHash};
pub use own::{OwnCredential, OwnHeaders, Passthrough, credential_key};

use crate::headers::{self, API_KEY};
use crate::refusal::Refusal;

/// A consumer's index in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConsumerId(u32);

impl ConsumerId {
    pub(crate) fn at(index: usize) -> Self {
        Self(u32::try_from(index).unwrap_or(u32::MAX))
    }

    /// The index into tables by consumer.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// An internal service that calls through the gateway.
#[derive(Debug)]
pub struct Consumer {
    /// Its place in the tables of the later stages.
    pub id: ConsumerId,
    /// Its name in the config, logs and metrics.
    pub name: Box<str>,
}

/// Who a request comes from.
#[derive(Debug)]
pub enum Who<'a> {
    /// A consumer, by its key or by `[anonymous] consumer`.
    Consumer(&'a Consumer),
    /// Anyone: no key was sent, and no consumer stands for such callers.
    Public(AddressKey),
    /// A caller with a Cal.com credential of its own.
    Passthrough(Box<OwnCredential>),
}

/// The caller of one request.
#[derive(Debug)]
pub struct Caller<'a> {
    who: Who<'a>,
}

impl<'a> Caller<'a> {
    /// Who it is.
    pub fn who(&self) -> &Who<'a> {
        &self.who
    }

    /// A consumer by name, for `explain`, which has no key to go by.
    pub(crate) fn named(consumer: &'a Consumer) -> Self {
        Self { who: Who::Consumer(consumer) }
    }

    /// The name in logs and metrics.
    pub fn name(&self) -> &'a str {
        match &self.who {
            Who::Consumer(consumer) => &consumer.name,
            Who::Public(_) => "(public)",
            Who::Passthrough(_) => "(passthrough)",
        }
    }
}

/// One key of a consumer, as configured.
#[derive(Debug, Clone)]
pub struct KnownKey {
    /// Its SHA-256.
    pub hash: KeyHash,
    /// Whose it is.
    pub consumer: ConsumerId,
    /// From when on it is refused.
    pub expires: Option<SystemTime>,
}

/// What the table of keys tells of one.
#[derive(Debug)]
struct Owner {
    consumer: ConsumerId,
    expires: Option<SystemTime>,
}

/// Everyone the gateway knows.
#[derive(Debug)]
pub struct Consumers {
    list: Vec<Consumer>,
    keys: HashMap<KeyHash, Owner, BuildHasherDefault<HashPrefix>>,
    anonymous: Option<ConsumerId>,
    passthrough: Option<Passthrough>,
}

impl Consumers {
    /// Builds the tables. `names` are in the order of [`ConsumerId`].
    pub fn new(
        names: Vec<Box<str>>,
        keys: Vec<KnownKey>,
        anonymous: Option<ConsumerId>,
        passthrough: Option<Passthrough>,
    ) -> Self {
        let list = names.into_iter().enumerate().map(|(i, name)| Consumer { id: ConsumerId::at(i), name }).collect();
        let keys =
            keys.into_iter().map(|KnownKey { hash, consumer, expires }| (hash, Owner { consumer, expires })).collect();
        Self { list, keys, anonymous, passthrough }
    }

    /// The consumer of that name.
    pub fn named(&self, name: &str) -> Option<&Consumer> {
        self.list.iter().find(|c| &*c.name == name)
    }

    /// All consumers, in the order of [`ConsumerId`].
    pub fn list(&self) -> &[Consumer] {
        &self.list
    }

    /// Reads who asks from a request's headers.
    ///
    /// # Errors
    /// [`Refusal::Unauthenticated`] for a key or credential that is not good, whatever the reason;
    /// [`Refusal::BadHeader`] where the headers name two callers.
    pub fn identify(&self, headers: &HeaderMap, peer: IpAddr, now: SystemTime) -> Result<Caller<'_>, Refusal> {
        match presented(headers)? {
            Presented::Key(text) => self.by_key(text, now).ok_or(Refusal::Unauthenticated),
            Presented::Other => self.by_own_credential(headers),
            Presented::Nothing => Ok(match self.anonymous.and_then(|id| self.list.get(id.index())) {
                Some(consumer) => Caller { who: Who::Consumer(consumer) },
                None => Caller { who: Who::Public(AddressKey::of(peer)) },
            }),
        }
    }

    fn by_key(&self, text: &str, now: SystemTime) -> Option<Caller<'_>> {
        let hash = GatewayKey::parse(text)?.hash();
        let (known, owner) = self.keys.get_key_value(&hash)?;
        // The table finds the entry by the first bytes of a hash, which tells a prober nothing about a key; that the
        // whole of it agrees is compared in constant time.
        let same = verify_slices_are_equal(known.as_bytes(), hash.as_bytes()).is_ok();
        let live = owner.expires.is_none_or(|expires| now < expires);
        let consumer = self.list.get(owner.consumer.index())?;
        (same && live).then_some(Caller { who: Who::Consumer(consumer) })
    }

    fn by_own_credential(&self, headers: &HeaderMap) -> Result<Caller<'_>, Refusal> {
        let passthrough = self.passthrough.ok_or(Refusal::Unauthenticated)?;
        let own = passthrough.read(headers)?;
        Ok(Caller { who: Who::Passthrough(Box::new(own)) })
    }
}

/// What a request shows of its caller.
enum Presented<'a> {
    /// A gateway key.
    Key(&'a str),
    /// Something else in one of the headers that carry credentials.
    Other,
    /// None of those headers.
    Nothing,
}

/// Finds the gateway key. A header that occurs twice, or two different keys, would leave it open who asks.
fn presented(headers: &HeaderMap) -> Result<Presented<'_>, Refusal> {
    let authorization = single(headers, &AUTHORIZATION, "Authorization occurs more than once")?;
    let api_key = single(headers, &API_KEY, "X-Api-Key occurs more than once")?;
    let bearer = authorization.and_then(bearer_token);
    let keys = [bearer, api_key].map(|text| text.filter(|t| t.starts_with(key::PREFIX)));
    match keys {
        [Some(a), Some(b)] if a != b => {
            Err(Refusal::BadHeader("Authorization and X-Api-Key carry two different gateway keys"))
        }
        [Some(key), _] | [None, Some(key)] => Ok(Presented::Key(key)),
        [None, None] => {
            let own = own::HEADERS.iter().any(|name| headers.contains_key(name));
            Ok(if own || api_key.is_some() { Presented::Other } else { Presented::Nothing })
        }
    }
}

/// The value of a header that may occur once. One that is not visible ASCII reads as empty: present, and no key.
fn single<'h>(headers: &'h HeaderMap, name: &HeaderName, twice: &'static str) -> Result<Option<&'h str>, Refusal> {
    let value = headers::single(headers, name, twice)?;
    Ok(value.map(|value| value.to_str().unwrap_or_default()))
}

/// The token of an `Authorization: Bearer` value; the scheme is compared without case (RFC 9110 §11.1).
fn bearer_token(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case("Bearer ").then(|| token.trim_matches(' '))
}

/// Hashes a [`KeyHash`] by its first bytes: it is SHA-256 already.
#[derive(Default)]
pub struct HashPrefix(u64);

impl Hasher for HashPrefix {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.first_chunk().map_or(0, |first| u64::from_le_bytes(*first));
    }
}
