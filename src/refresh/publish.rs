//! Publishes the state of a credential to the requests that use it or wait for it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::credential::lifecycle::backoff;
use crate::credential::stored_token::StoredCredential;
use crate::credential::token_state::{RenewalError, TokenHandle, TokenState};
use crate::refresh::{RECHECK_INTERVAL, RECOVERY_BACKOFF, TokenRefresher, can_recover, unix_millis};
use crate::refusal::recovery_hint;
use crate::time::{MonoTime, nanoseconds};

impl TokenRefresher {
    /// Returns the state for `entry`. A token that this process already knows keeps its lifetime.
    pub(super) fn token(
        &self,
        handle: &TokenHandle,
        entry: &StoredCredential,
        received: Option<MonoTime>,
    ) -> TokenState {
        let known = handle.current();
        let same = known.has_token_of(entry) && known.bearer.is_some();
        let received = received.or_else(|| same.then_some(known.received));
        let age = entry.age(unix_millis());
        let jitter = self.registry.jitter(&handle.name, entry.generation);
        TokenState::of(entry, received, age, self.registry.now(), jitter)
    }

    pub(super) fn publish(&self, handle: &TokenHandle, entry: &StoredCredential, received: Option<MonoTime>) {
        let mut token = self.token(handle, entry, received);
        if can_recover(handle) {
            // A recovery helps, too, when a request needs the credential.
            token.needs_login = None;
        }
        self.publish_state(handle, token, received.is_some());
    }

    /// Publishes that only a login helps, because Cal.com refused the recovery, if one is allowed.
    pub(super) fn publish_lost(&self, handle: &TokenHandle, entry: &StoredCredential) {
        let mut token = self.token(handle, entry, None);
        if can_recover(handle) {
            let why = RenewalError::Upstream("recovering was refused".to_owned());
            token.error = Some((why, self.after(RECOVERY_BACKOFF)));
        }
        self.publish_state(handle, token, false);
    }

    fn publish_state(&self, handle: &TokenHandle, mut token: TokenState, received: bool) {
        let known = handle.current();
        (token.checks, token.checked_at) = (handle.claimed(), self.registry.now());
        let same = token.generation == known.generation && token.bearer == known.bearer;
        token.by_refusal =
            if same { known.by_refusal } else { known.generation > 0 && handle.refused() >= known.generation };
        // The first token that is read is not a renewal. Requests that wait for a renewal still wait.
        if received || (!same && known.generation > 0) {
            handle.used.store(false, Ordering::Relaxed);
        }
        if let Some(why) = &token.needs_login
            && known.needs_login.is_none()
        {
            tracing::error!(credential = %handle.name, %why, "a credential needs a login");
        }
        handle.publish(token);
    }

    fn after(&self, rest: Duration) -> MonoTime {
        MonoTime(self.registry.now().0.saturating_add(nanoseconds(rest)))
    }

    /// Publishes that a check ended without a change.
    pub(super) fn publish_unchanged(&self, handle: &TokenHandle) {
        let known = handle.current();
        handle.publish(TokenState { checks: handle.claimed(), checked_at: self.registry.now(), ..(*known).clone() });
    }

    pub(super) fn publish_error(&self, handle: &TokenHandle, error: RenewalError) {
        let known = handle.current();
        let failures = known.failures.saturating_add(1);
        let rest = if error == RenewalError::Absent { RECHECK_INTERVAL } else { backoff(failures) };
        if known.error.as_ref().map(|(known, _)| known) != Some(&error) {
            let credential = handle.name.to_string();
            if error == RenewalError::Absent {
                let todo = recovery_hint(&credential);
                tracing::warn!(
                    credential,
                    todo,
                    "no tokens are stored for a credential; the gateway uses them as soon as they are stored"
                );
            } else {
                tracing::warn!(credential, trouble = %error, "cannot renew a credential; its token works until it expires");
            }
        }
        let error = Some((error, self.after(rest)));
        let token = TokenState {
            checks: handle.claimed(),
            checked_at: self.registry.now(),
            failures,
            error,
            ..(*known).clone()
        };
        let remembered = known.bearer.is_some() || matches!(token.error, Some((RenewalError::Upstream(_), _)));
        handle.publish(token);
        if !remembered && handle.name.user.is_some() {
            // Unknown users are not kept, because callers choose their number.
            self.registry.forget(&handle.name);
        }
    }
}
