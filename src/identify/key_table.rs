//! Gateway keys of the consumers: finds the consumer of a key, or the reason to refuse the key.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::constant_time::verify_slices_are_equal;

use super::key::GatewayKey;
use super::presented::PresentedCredentials;
use super::{Consumer, ConsumerId};
use crate::prehashed::PrefixHasher;
use crate::refusal::{AuthFailure, Refusal};
use crate::secret::KeyHash;

/// Key of a consumer, as configured.
#[derive(Debug, Clone)]
pub struct KnownKey {
    /// SHA-256 of the key.
    pub hash: KeyHash,
    /// Consumer that the key identifies.
    pub consumer: ConsumerId,
    /// Time from which calgate refuses the key.
    pub expires: Option<SystemTime>,
}

/// Value of an entry in the table of keys.
#[derive(Debug)]
struct Owner {
    consumer: ConsumerId,
    expires: Option<SystemTime>,
}

/// Maximum number of removed keys that are remembered, 10,000, as many as a large configuration has. Each takes about 60 bytes.
const MAX_REVOKED: usize = 10_000;

/// Table of all keys, by their hashes.
#[derive(Debug)]
pub(super) struct KeyTable {
    keys: HashMap<KeyHash, Owner, BuildHasherDefault<PrefixHasher>>,
    /// Keys that reloads removed, each with the name of its consumer.
    revoked: HashMap<KeyHash, Arc<str>, BuildHasherDefault<PrefixHasher>>,
}

impl KeyTable {
    pub(super) fn new(keys: Vec<KnownKey>) -> Self {
        let keys = keys.into_iter().map(|KnownKey { hash, consumer, expires }| (hash, Owner { consumer, expires }));
        Self { keys: keys.collect(), revoked: HashMap::default() }
    }

    /// Remembers the keys that are in `previous` and no longer here. The latest ones take precedence. `consumers` are those of
    /// `previous`.
    pub(super) fn remember_revoked(&mut self, previous: &Self, consumers: &[Consumer]) {
        let owner_of = |owner: &Owner| consumers.get(owner.consumer.index());
        let removed = previous.keys.iter().filter_map(|(hash, owner)| Some((*hash, (*owner_of(owner)?.name).into())));
        let earlier = previous.revoked.iter().map(|(hash, consumer)| (*hash, consumer.clone()));
        let gone = removed.chain(earlier).filter(|(hash, _)| !self.keys.contains_key(hash));
        self.revoked = gone.take(MAX_REVOKED).collect();
    }

    /// Returns the consumer whose key the request carries, or `None` if the request carries no gateway key.
    ///
    /// # Errors
    /// [`Refusal::Unauthenticated`] for an invalid or misplaced key, [`Refusal::InvalidHeader`] for two different ones.
    pub(super) fn authenticate<'c>(
        &self,
        presented: &PresentedCredentials<'_>,
        consumers: &'c [Consumer],
        now: SystemTime,
    ) -> Result<Option<&'c Consumer>, Refusal> {
        match presented.gateway_key()? {
            Some(key) => self.consumer_of(key, consumers, now).map(Some).map_err(Refusal::Unauthenticated),
            None if presented.has_misplaced_key() => Err(Refusal::Unauthenticated(AuthFailure::Misplaced)),
            None => Ok(None),
        }
    }

    fn consumer_of<'c>(
        &self,
        key: &str,
        consumers: &'c [Consumer],
        now: SystemTime,
    ) -> Result<&'c Consumer, AuthFailure> {
        let hash = GatewayKey::check(key)?.hash();
        let Some((known, owner)) = self.keys.get_key_value(&hash) else {
            let revoked =
                self.revoked.get(&hash).map(|consumer| AuthFailure::Revoked { hash, consumer: consumer.clone() });
            return Err(revoked.unwrap_or(AuthFailure::Unknown(hash)));
        };
        // The time of the lookup depends on the first bytes of a hash only, which say nothing about a key. The comparison of the
        // whole hash takes constant time.
        let is_same = verify_slices_are_equal(known.as_bytes(), hash.as_bytes()).is_ok();
        let consumer = consumers.get(owner.consumer.index()).filter(|_| is_same).ok_or(AuthFailure::Unknown(hash))?;
        if owner.expires.is_some_and(|expires| expires <= now) {
            return Err(AuthFailure::Expired { hash, consumer: (*consumer.name).into() });
        }
        Ok(consumer)
    }
}
