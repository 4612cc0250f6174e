//! Obtains the credential that was selected, and handles its rejection by Cal.com.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{StatusCode, request};
use tokio::time::{sleep, timeout};

use crate::credential::lifecycle::{RejectionAction, SETTLE_PERIOD, SETTLE_WAIT, TokenUse, on_rejection};
use crate::credential::managed_user::UserId;
use crate::credential::token_state::{Readiness, TokenHandle, TokenState};
use crate::credential::{AuthHeaders, TokenRegistry};
use crate::refusal::Refusal;

/// How Cal.com answers an access token that has expired (FACTS §1).
const TOKEN_EXPIRED: u16 = 498;

/// How often a request without a good token waits for one.
const MAX_WAITS: usize = 3;

/// How long a configured API key waits to hear whether the store holds a newer one. A store that hangs is no reason to hold
/// up a key that may well be good; if it is not, that is found out by its being refused.
const FIRST_LOAD_TIMEOUT: Duration = Duration::from_secs(1);

/// A rest of the keeper's that a request waits out.
const MAX_BACKOFF_WAIT: Duration = Duration::from_secs(1);

/// Whose headers a request goes upstream with.
#[derive(Debug)]
pub enum CredentialSource {
    /// They are here.
    Ready(AuthHeaders),
    /// A renewable credential's; a configured API key stands where the store holds no newer one.
    Held(Arc<TokenHandle>, Option<AuthHeaders>),
}

/// The headers to inject, and what they are of.
#[derive(Debug, Clone)]
pub struct UpstreamAuth {
    auth_headers: AuthHeaders,
    token: Option<(Arc<TokenHandle>, Arc<TokenState>)>,
}

impl CredentialSource {
    /// Has the headers. This waits only where a token has run out or was never read.
    ///
    /// # Errors
    /// [`Refusal::CredentialNeedsLogin`], [`Refusal::CredentialUnavailable`], [`Refusal::UnknownManagedUser`].
    pub async fn obtain(self, registry: &TokenRegistry) -> Result<UpstreamAuth, Refusal> {
        let (handle, configured) = match self {
            Self::Ready(auth_headers) => return Ok(UpstreamAuth { auth_headers, token: None }),
            Self::Held(handle, configured) => (handle, configured),
        };
        handle.used.store(true, Ordering::Relaxed);
        let mut token = handle.current();
        if configured.is_some() {
            if token.checks == 0
                && let Ok(checked_at) = timeout(FIRST_LOAD_TIMEOUT, Box::pin(handle.wait_refreshed())).await
            {
                token = checked_at;
            }
        } else {
            token = Box::pin(wait_ready(&handle, token, registry)).await?;
        }
        let now = registry.now();
        let good = token.bearer.clone().filter(|_| token.is_good(now)).map(AuthHeaders::Bearer);
        let auth_headers = good.or(configured).ok_or_else(|| handle.refusal(&token, now))?;
        Ok(UpstreamAuth { auth_headers, token: Some((handle, token)) })
    }
}

/// Waits for a good token as long as one may be had soon: for the keeper, and for a short rest of its after a failure.
async fn wait_ready(
    handle: &Arc<TokenHandle>,
    mut token: Arc<TokenState>,
    registry: &TokenRegistry,
) -> Result<Arc<TokenState>, Refusal> {
    for _ in 0..MAX_WAITS {
        match token.readiness(registry.now()) {
            Readiness::Use if token.needs_login.is_some() && handle.refused() >= token.generation => {
                return Err(handle.refusal(&token, registry.now()));
            }
            Readiness::UseAndRenew => {
                handle.request_refresh();
                break;
            }
            Readiness::Wait => token = handle.wait_refreshed().await,
            Readiness::Unavailable(rest) if rest <= MAX_BACKOFF_WAIT => {
                sleep(rest).await;
                token = handle.wait_refreshed().await;
            }
            Readiness::Use | Readiness::NeedsLogin | Readiness::Unavailable(_) => break,
        }
    }
    Ok(token)
}

/// Waits for a token of another generation, likewise. It may be a lower one, of another record.
async fn wait_newer(
    handle: &Arc<TokenHandle>,
    than: u64,
    registry: &TokenRegistry,
) -> Result<Arc<TokenState>, Refusal> {
    let mut token = handle.wait_refreshed().await;
    for _ in 1..MAX_WAITS {
        let rest = token.backoff(registry.now());
        if token.generation != than || token.needs_login.is_some() || rest > MAX_BACKOFF_WAIT {
            break;
        }
        sleep(rest).await;
        token = handle.wait_refreshed().await;
    }
    if token.generation == than { Err(handle.refusal(&token, registry.now())) } else { Ok(token) }
}

impl UpstreamAuth {
    /// The headers.
    pub fn auth_headers(&self) -> &AuthHeaders {
        &self.auth_headers
    }

    /// The managed user whose token it is, and the credential's name, if it is one's.
    pub fn managed_user(&self) -> Option<(&str, UserId)> {
        let (handle, _) = self.token.as_ref()?;
        Some((&handle.name.credential, handle.name.user?))
    }

    /// What the API key is known by that took the place of the configured one, if it is used.
    pub fn replacing_key(&self) -> Option<u128> {
        let (_, token) = self.token.as_ref()?;
        token
            .replacing
            .filter(|_| matches!(&self.auth_headers, AuthHeaders::Bearer(key) if token.bearer.as_ref() == Some(key)))
    }

    /// Whether another access may be had if Cal.com refuses this one, so that the request is worth keeping.
    pub fn is_replaceable(&self) -> bool {
        self.token.is_some()
    }

    /// Records how Cal.com answered a request with this access. `refused` says that it refused the token.
    pub fn note_answered(&self, head: &request::Parts, status: StatusCode, refused: bool) {
        let Some((handle, token)) = self.token.as_ref().filter(|_| !refused) else { return };
        handle.confirm(token);
        if handle.refusals.is_in_use() && status.is_success() {
            handle.refusals.note_accepted(handle.refusals.request(head), false);
        }
    }

    /// Records how Cal.com answered the second try of a refused request.
    pub fn note_retried(&self, head: &request::Parts, status: StatusCode, refused: bool, registry: &TokenRegistry) {
        self.note_answered(head, status, refused);
        if let Some((handle, token)) = &self.token {
            handle.refusals.note_retry(handle.refusals.request(head), token.generation, refused, registry.now());
        }
    }

    /// The access to try a refused request with, once: a newer token, or the same one where it may not be known
    /// everywhere yet. `None` where nothing helps, and Cal.com's answer is the answer. `status` is that of the refusal.
    ///
    /// # Errors
    /// As of [`CredentialSource::obtain`], where a newer token was called for and could not be had.
    pub async fn replacement(
        &self,
        registry: &TokenRegistry,
        head: &request::Parts,
        status: StatusCode,
    ) -> Result<Option<UpstreamAuth>, Refusal> {
        let Some((handle, used)) = &self.token else { return Ok(None) };
        let now = registry.now();
        let age = used.age(now);
        let mut token = handle.current();
        if token.generation == used.generation {
            token = handle.wait_refreshed().await;
        }
        let request = handle.refusals.request(head);
        let is_new = used.unproven || used.by_refusal;
        let settled = !is_new || age >= SETTLE_PERIOD;
        // 498 is about the token, whatever was refused before.
        let lasting = !is_token_expired(status) && handle.refusals.is_lasting(request, used.generation, settled, now);
        let refused = TokenUse { generation: used.generation, age, is_new, lasting };
        match on_rejection(refused, token.generation, token.renewing, handle.is_renewable()) {
            RejectionAction::UseNewer => {}
            RejectionAction::SameAgain => {
                sleep(SETTLE_WAIT).await;
                token = handle.wait_refreshed().await;
            }
            RejectionAction::Renew => {
                handle.refusals.note_renewal(request, used.generation);
                handle.reject(used.generation);
                token = wait_newer(handle, used.generation, registry).await?;
            }
            RejectionAction::Nothing => return Ok(None),
        }
        if token.unproven {
            // There is one more try, and a token that was had just now may not be known everywhere yet.
            sleep(SETTLE_WAIT.saturating_sub(token.age(registry.now()))).await;
        }
        let now = registry.now();
        let good = token.bearer.clone().filter(|_| token.is_good(now));
        let auth_headers = good.map(AuthHeaders::Bearer).ok_or_else(|| handle.refusal(&token, now))?;
        Ok(Some(Self { auth_headers, token: Some((handle.clone(), token)) }))
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
