//! Obtains the credential that was selected, and handles its rejection by Cal.com.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{StatusCode, request};
use tokio::time::{sleep, timeout};

use crate::credential::lifecycle::{Remedy, SETTLE_WAIT, SETTLING, Used, remedy};
use crate::credential::managed_user::UserId;
use crate::credential::token_state::{Holder, Live, Readiness};
use crate::credential::{Holders, Injection};
use crate::refusal::Refusal;

/// How Cal.com answers an access token that has expired (FACTS §1).
const TOKEN_EXPIRED: u16 = 498;

/// How often a request without a good token waits for one.
const TRIES: usize = 3;

/// How long a configured API key waits to hear whether the store holds a newer one. A store that hangs is no reason to hold
/// up a key that may well be good; if it is not, that is found out by its being refused.
const FIRST_LOOK: Duration = Duration::from_secs(1);

/// A rest of the keeper's that a request waits out.
const SHORT_REST: Duration = Duration::from_secs(1);

/// Whose headers a request goes upstream with.
#[derive(Debug)]
pub enum Choice {
    /// They are here.
    Ready(Injection),
    /// A renewable credential's; a configured API key stands where the store holds no newer one.
    Held(Arc<Holder>, Option<Injection>),
}

/// The headers to inject, and what they are of.
#[derive(Debug, Clone)]
pub struct Access {
    injection: Injection,
    held: Option<(Arc<Holder>, Arc<Live>)>,
}

impl Choice {
    /// Has the headers. This waits only where a token has run out or was never read.
    ///
    /// # Errors
    /// [`Refusal::CredentialNeedsLogin`], [`Refusal::CredentialUnavailable`], [`Refusal::UnknownManagedUser`].
    pub async fn access(self, holders: &Holders) -> Result<Access, Refusal> {
        let (holder, configured) = match self {
            Self::Ready(injection) => return Ok(Access { injection, held: None }),
            Self::Held(holder, configured) => (holder, configured),
        };
        holder.used.store(true, Ordering::Relaxed);
        let mut live = holder.live();
        if configured.is_some() {
            if live.looks == 0
                && let Ok(looked) = timeout(FIRST_LOOK, Box::pin(holder.attended())).await
            {
                live = looked;
            }
        } else {
            live = Box::pin(ready(&holder, live, holders)).await?;
        }
        let now = holders.now();
        let token = live.bearer.clone().filter(|_| live.is_good(now)).map(Injection::Bearer);
        let injection = token.or(configured).ok_or_else(|| holder.refusal(&live, now))?;
        Ok(Access { injection, held: Some((holder, live)) })
    }
}

/// Waits for a good token as long as one may be had soon: for the keeper, and for a short rest of its after a failure.
async fn ready(holder: &Arc<Holder>, mut live: Arc<Live>, holders: &Holders) -> Result<Arc<Live>, Refusal> {
    for _ in 0..TRIES {
        match live.readiness(holders.now()) {
            Readiness::Use if live.needs_login.is_some() && holder.refused() >= live.generation => {
                return Err(holder.refusal(&live, holders.now()));
            }
            Readiness::UseAndRenew => {
                holder.ask();
                break;
            }
            Readiness::Wait => live = holder.attended().await,
            Readiness::Unavailable(rest) if rest <= SHORT_REST => {
                sleep(rest).await;
                live = holder.attended().await;
            }
            Readiness::Use | Readiness::NeedsLogin | Readiness::Unavailable(_) => break,
        }
    }
    Ok(live)
}

/// Waits for a token of another generation, likewise. It may be a lower one, of another record.
async fn newer(holder: &Arc<Holder>, than: u64, holders: &Holders) -> Result<Arc<Live>, Refusal> {
    let mut live = holder.attended().await;
    for _ in 1..TRIES {
        let rest = live.rest(holders.now());
        if live.generation != than || live.needs_login.is_some() || rest > SHORT_REST {
            break;
        }
        sleep(rest).await;
        live = holder.attended().await;
    }
    if live.generation == than { Err(holder.refusal(&live, holders.now())) } else { Ok(live) }
}

impl Access {
    /// The headers.
    pub fn injection(&self) -> &Injection {
        &self.injection
    }

    /// The managed user whose token it is, and the credential's name, if it is one's.
    pub fn managed_user(&self) -> Option<(&str, UserId)> {
        let (holder, _) = self.held.as_ref()?;
        Some((&holder.name.credential, holder.name.user?))
    }

    /// What the API key is known by that took the place of the configured one, if it is used.
    pub fn replacing_key(&self) -> Option<u128> {
        let (_, live) = self.held.as_ref()?;
        live.replacing
            .filter(|_| matches!(&self.injection, Injection::Bearer(key) if live.bearer.as_ref() == Some(key)))
    }

    /// Whether another access may be had if Cal.com refuses this one, so that the request is worth keeping.
    pub fn is_replaceable(&self) -> bool {
        self.held.is_some()
    }

    /// Records how Cal.com answered a request with this access. `refused` says that it refused the token.
    pub fn note_answered(&self, head: &request::Parts, status: StatusCode, refused: bool) {
        let Some((holder, live)) = self.held.as_ref().filter(|_| !refused) else { return };
        holder.note_worked(live);
        if holder.refusals.is_in_use() && status.is_success() {
            holder.refusals.note_accepted(holder.refusals.request(head), false);
        }
    }

    /// Records how Cal.com answered the second try of a refused request.
    pub fn note_retried(&self, head: &request::Parts, status: StatusCode, refused: bool, holders: &Holders) {
        self.note_answered(head, status, refused);
        if let Some((holder, live)) = &self.held {
            holder.refusals.note_retry(holder.refusals.request(head), live.generation, refused, holders.now());
        }
    }

    /// The access to try a refused request with, once: a newer token, or the same one where it may not be known
    /// everywhere yet. `None` where nothing helps, and Cal.com's answer is the answer. `status` is that of the refusal.
    ///
    /// # Errors
    /// As of [`Choice::access`], where a newer token was called for and could not be had.
    pub async fn instead(
        &self,
        holders: &Holders,
        head: &request::Parts,
        status: StatusCode,
    ) -> Result<Option<Access>, Refusal> {
        let Some((holder, used)) = &self.held else { return Ok(None) };
        let now = holders.now();
        let age = used.age(now);
        let mut live = holder.live();
        if live.generation == used.generation {
            live = holder.attended().await;
        }
        let request = holder.refusals.request(head);
        let is_new = used.unproven || used.by_refusal;
        let settled = !is_new || age >= SETTLING;
        // 498 is about the token, whatever was refused before.
        let lasting = !is_token_expired(status) && holder.refusals.is_lasting(request, used.generation, settled, now);
        let refused = Used { generation: used.generation, age, is_new, lasting };
        match remedy(refused, live.generation, live.renewing, holder.is_renewable()) {
            Remedy::UseNewer => {}
            Remedy::SameAgain => {
                sleep(SETTLE_WAIT).await;
                live = holder.attended().await;
            }
            Remedy::Renew => {
                holder.refusals.note_renewal(request, used.generation);
                holder.note_refused(used.generation);
                live = newer(holder, used.generation, holders).await?;
            }
            Remedy::Nothing => return Ok(None),
        }
        if live.unproven {
            // There is one more try, and a token that was had just now may not be known everywhere yet.
            sleep(SETTLE_WAIT.saturating_sub(live.age(holders.now()))).await;
        }
        let now = holders.now();
        let token = live.bearer.clone().filter(|_| live.is_good(now));
        let injection = token.map(Injection::Bearer).ok_or_else(|| holder.refusal(&live, now))?;
        Ok(Some(Self { injection, held: Some((holder.clone(), live)) }))
    }
}

/// Whether a status says that the credential is no good, whatever the reason.
pub fn is_token_refused(status: StatusCode) -> bool {
    status == StatusCode::UNAUTHORIZED || is_token_expired(status)
}

/// Whether a status is the one for expired access tokens, which no caller of the gateway ever sees.
pub fn is_token_expired(status: StatusCode) -> bool {
    status.as_u16() == TOKEN_EXPIRED
}
