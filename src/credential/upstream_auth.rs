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

/// Status of Cal.com's response to an expired access token (FACTS §1).
const TOKEN_EXPIRED: u16 = 498;

/// Maximum number of waits of a request without a valid token, 3.
const MAX_WAITS: usize = 3;

/// Maximum wait of a request with a configured API key for the first load of the record, 1 s. The record may hold a newer
/// key. If the store does not answer, the configured key is sent, and Cal.com rejects it if it is out of date.
const FIRST_LOAD_TIMEOUT: Duration = Duration::from_secs(1);

/// Longest renewal back-off that a request waits for, 1 s.
const MAX_BACKOFF_WAIT: Duration = Duration::from_secs(1);

/// Source of a request's authentication headers.
#[derive(Debug)]
pub enum CredentialSource {
    /// The headers themselves.
    Ready(AuthHeaders),
    /// Renewable credential. The headers of a configured API key apply if the store holds no newer one.
    Held(Arc<TokenHandle>, Option<AuthHeaders>),
}

/// Authentication headers of one request, and the state of the token in them.
#[derive(Debug, Clone)]
pub struct UpstreamAuth {
    auth_headers: AuthHeaders,
    token: Option<(Arc<TokenHandle>, Arc<TokenState>)>,
}

impl CredentialSource {
    /// Returns the headers. Waits only for a token that has expired or is not loaded yet.
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
                && let Ok(checked) = timeout(FIRST_LOAD_TIMEOUT, Box::pin(handle.wait_refreshed())).await
            {
                token = checked;
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

/// Waits for a valid token while one may come soon: for a renewal, and for a short back-off after a failure.
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

/// Waits for a token of another generation in the same way. The generation may be lower if the record was replaced.
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
    /// Returns the headers.
    pub fn auth_headers(&self) -> &AuthHeaders {
        &self.auth_headers
    }

    /// Returns the name of the credential and the managed user, if the token is a managed user's.
    pub fn managed_user(&self) -> Option<(&str, UserId)> {
        let (handle, _) = self.token.as_ref()?;
        Some((&handle.name.credential, handle.name.user?))
    }

    /// Returns the hash of the API key that replaced the configured one, if this request uses it.
    pub fn replacing_key(&self) -> Option<u128> {
        let (_, token) = self.token.as_ref()?;
        token
            .replacing
            .filter(|_| matches!(&self.auth_headers, AuthHeaders::Bearer(key) if token.bearer.as_ref() == Some(key)))
    }

    /// Returns whether there may be a replacement if Cal.com rejects this token, so that the request body is worth buffering.
    pub fn is_replaceable(&self) -> bool {
        self.token.is_some()
    }

    /// Records Cal.com's response to a request with this token. `refused` says that Cal.com rejected the token.
    pub fn note_answered(&self, head: &request::Parts, status: StatusCode, refused: bool) {
        let Some((handle, token)) = self.token.as_ref().filter(|_| !refused) else { return };
        handle.confirm(token);
        if handle.rejections.is_in_use() && status.is_success() {
            handle.rejections.note_accepted(handle.rejections.request(head), false);
        }
    }

    /// Records Cal.com's response to the second try of a rejected request.
    pub fn note_retried(&self, head: &request::Parts, status: StatusCode, refused: bool, registry: &TokenRegistry) {
        self.note_answered(head, status, refused);
        if let Some((handle, token)) = &self.token {
            handle.rejections.note_retry(handle.rejections.request(head), token.generation, refused, registry.now());
        }
    }

    /// Returns the authentication for one more try of a rejected request: a newer token, or the same one if a part of Cal.com
    /// may not know it yet. `None` if no token helps, so that the caller gets Cal.com's response. `status` is the status of
    /// the rejection.
    ///
    /// # Errors
    /// Those of [`CredentialSource::obtain`], if a newer token is needed and not available.
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
        let request = handle.rejections.request(head);
        let is_new = used.unproven || used.by_refusal;
        let settled = !is_new || age >= SETTLE_PERIOD;
        // 498 is about the token, whatever was refused before.
        let lasting = !is_token_expired(status) && handle.rejections.is_lasting(request, used.generation, settled, now);
        let refused = TokenUse { generation: used.generation, age, is_new, lasting };
        match on_rejection(refused, token.generation, token.renewing, handle.is_renewable()) {
            RejectionAction::UseNewer => {}
            RejectionAction::SameAgain => {
                sleep(SETTLE_WAIT).await;
                token = handle.wait_refreshed().await;
            }
            RejectionAction::Renew => {
                handle.rejections.note_renewal(request, used.generation);
                handle.reject(used.generation);
                token = wait_newer(handle, used.generation, registry).await?;
            }
            RejectionAction::Nothing => return Ok(None),
        }
        if token.unproven {
            // Only one more try is left, and a part of Cal.com may not know the new token yet.
            sleep(SETTLE_WAIT.saturating_sub(token.age(registry.now()))).await;
        }
        let now = registry.now();
        let good = token.bearer.clone().filter(|_| token.is_good(now));
        let auth_headers = good.map(AuthHeaders::Bearer).ok_or_else(|| handle.refusal(&token, now))?;
        Ok(Some(Self { auth_headers, token: Some((handle.clone(), token)) }))
    }
}

/// Returns whether a status says that Cal.com rejected the credential.
pub fn is_token_refused(status: StatusCode) -> bool {
    status == StatusCode::UNAUTHORIZED || is_token_expired(status)
}

/// Returns whether a status is Cal.com's status for expired access tokens, which callers of the gateway never see.
pub fn is_token_expired(status: StatusCode) -> bool {
    status.as_u16() == TOKEN_EXPIRED
}
