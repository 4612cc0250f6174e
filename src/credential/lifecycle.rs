//! Lifecycle of a renewable credential, as a pure state machine.
//!
//! ```text
//! fresh → due → renewing → fresh
//!                        → degraded      the old token is still valid; the renewal is repeated
//!                        → needs-login   only a login, an import or a recovery helps
//! ```
//! A renewal writes the record twice: [`StoredCredential::begin`] before the call to Cal.com, and
//! [`StoredCredential::settle`] after it. The process may be killed at any point between them. The caller holds the lock, has
//! just read the record, and writes by compare-and-swap. Times and fences are arguments.

use std::time::Duration;

use crate::credential::stored_token::{Pending, Step, StoredCredential, TokenPair};
use crate::secret::Secret;

/// Renewal methods that a credential supports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RenewalCapability {
    /// Whether force-refresh, which needs no refresh token, is possible and allowed by the operator.
    pub recover: bool,
}

/// Call to Cal.com that a renewal makes.
#[derive(Debug, Clone)]
pub enum RenewalCall {
    /// Exchanges this refresh token for a new pair.
    Refresh(Secret),
    /// Forces a new pair, which ends all other pairs of the user.
    Recover,
}

/// Reason why a renewal does not start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotStarted {
    /// A later owner of the lock has started a renewal. This owner has lost the lock.
    LockLost,
    /// No refresh token is left, and no recovery is allowed.
    NeedsLogin,
}

/// Outcome of a renewal call.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// Cal.com returned a new pair.
    Renewed(TokenPair),
    /// Cal.com did not carry the call out, so that the refresh token is still valid.
    NotSent(String),
    /// It is unknown whether Cal.com carried the call out. The refresh token may be used up.
    Unknown(String),
    /// Cal.com refused the refresh token or, for a recovery, does not know the user.
    Refused(String),
    /// Cal.com refused the call without a reason that calgate knows. It did not carry the call out.
    Rejected(String),
}

impl Outcome {
    /// Returns the new pair.
    ///
    /// # Errors
    /// The reason why there is no new pair.
    pub fn into_pair(self) -> Result<TokenPair, String> {
        match self {
            Self::Renewed(pair) => Ok(pair),
            Self::NotSent(why) | Self::Unknown(why) | Self::Refused(why) | Self::Rejected(why) => Err(why),
        }
    }
}

/// Consecutive rejections after which the credential needs a login, 5. Endless repetition would hide the problem.
pub const MAX_REJECTIONS: u32 = 5;

/// Next step after the outcome is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    /// Use the new pair.
    Use,
    /// Start again under the same lock, because another method is left.
    TryOtherWay,
    /// Start again later.
    TryLater,
    /// Only a login helps.
    NeedsLogin,
    /// Use the newer pair that another replica has stored.
    UseStored,
}

impl StoredCredential {
    /// Starts a renewal under the lock with `fence`. The caller stores the record before it makes the call.
    ///
    /// # Errors
    /// The reason why the renewal does not start.
    pub fn begin(&mut self, fence: u64, capability: RenewalCapability) -> Result<RenewalCall, NotStarted> {
        if self.pending.is_some_and(|pending| pending.fence > fence) {
            return Err(NotStarted::LockLost);
        }
        let step = match self.pending {
            // Its outcome is unknown, so the same call is made again.
            Some(pending) => self.possible(pending.step, capability),
            None => self.possible(Step::Refresh, capability),
        };
        let Some((step, call)) = step else {
            self.pending = None;
            self.needs_login.get_or_insert_with(|| "no refresh token is left".to_owned());
            return Err(NotStarted::NeedsLogin);
        };
        let in_doubt = self.pending.is_some_and(|pending| pending.fence != fence || pending.in_doubt);
        self.pending = Some(Pending { fence, step, in_doubt });
        Ok(call)
    }

    /// Returns whether any renewal method is left.
    pub fn can_begin(&self, capability: RenewalCapability) -> bool {
        self.possible(self.pending.map_or(Step::Refresh, |pending| pending.step), capability).is_some()
    }

    /// Returns the first possible step from `from` on, and its call.
    fn possible(&self, from: Step, capability: RenewalCapability) -> Option<(Step, RenewalCall)> {
        let refresh = |pair: &Option<TokenPair>| pair.as_ref()?.refresh.clone().map(RenewalCall::Refresh);
        let refreshing = self.needs_login.is_none();
        let current = || refresh(&self.current).filter(|_| refreshing && from == Step::Refresh);
        let previous = || refresh(&self.previous).filter(|_| refreshing && from != Step::Recover);
        let step = current().map(|call| (Step::Refresh, call));
        let step = step.or_else(|| previous().map(|call| (Step::RefreshPrevious, call)));
        step.or_else(|| capability.recover.then_some((Step::Recover, RenewalCall::Recover)))
    }

    /// Records the outcome of the call that started under `fence`, when the record had `generation`.
    pub fn settle(
        &mut self,
        fence: u64,
        generation: u64,
        capability: RenewalCapability,
        outcome: Outcome,
    ) -> Transition {
        if self.generation != generation {
            return Transition::UseStored;
        }
        let own = self.pending.filter(|pending| pending.fence == fence);
        match outcome {
            // Even if a later owner of the lock has started a renewal, because this pair is the one that exists.
            Outcome::Renewed(pair) => {
                self.replace(pair);
                Transition::Use
            }
            Outcome::NotSent(why) => self.not_carried_out(own, why),
            Outcome::Unknown(why) => {
                self.fault = Some(why);
                Transition::TryLater
            }
            Outcome::Refused(why) => self.refused(own, capability, why),
            Outcome::Rejected(why) => self.rejected(own, capability, why),
        }
    }

    fn not_carried_out(&mut self, own: Option<Pending>, why: String) -> Transition {
        if own.is_some_and(|pending| !pending.in_doubt && pending.step == Step::Refresh) {
            self.pending = None;
        }
        self.fault = Some(why);
        Transition::TryLater
    }

    fn rejected(&mut self, own: Option<Pending>, capability: RenewalCapability, why: String) -> Transition {
        if own.is_none() {
            return Transition::UseStored;
        }
        self.rejections = self.rejections.saturating_add(1);
        if self.rejections < MAX_REJECTIONS {
            return self.not_carried_out(own, why);
        }
        self.rejections = 0;
        self.refused(own, capability, format!("{why}, {MAX_REJECTIONS} times in a row"))
    }

    fn refused(&mut self, own: Option<Pending>, capability: RenewalCapability, why: String) -> Transition {
        let Some(pending) = own else { return Transition::UseStored };
        let after = match pending.step {
            Step::Refresh => Some(Step::RefreshPrevious),
            Step::RefreshPrevious => Some(Step::Recover),
            Step::Recover => None,
        };
        if let Some((step, _)) = after.and_then(|step| self.possible(step, capability)) {
            self.pending = Some(Pending { step, ..pending });
            return Transition::TryOtherWay;
        }
        self.pending = None;
        self.needs_login = Some(why);
        Transition::NeedsLogin
    }

    /// Replaces the current pair, which is kept until the new one is confirmed.
    pub fn replace(&mut self, pair: TokenPair) {
        self.generation += 1;
        self.previous = self.current.take();
        self.current = Some(pair);
        self.pending = None;
        self.needs_login = None;
        self.fault = None;
        self.replaces = None;
        self.rejections = 0;
    }

    /// Records that Cal.com accepted the pair of `generation`. Returns whether the record changed.
    pub fn confirm(&mut self, generation: u64) -> bool {
        self.generation == generation && self.previous.take().is_some()
    }

    /// Returns the time since the current pair was received. `now` is in milliseconds since 1970. The wall clock may have
    /// been set since, so the result is at least zero.
    pub fn age(&self, now: u64) -> Duration {
        let received = self.current.as_ref().map_or(now, |pair| pair.received_at);
        Duration::from_millis(now.saturating_sub(received))
    }

    /// Returns the name of the state, for `calgate credentials`.
    pub fn state_name(&self, now: u64) -> &'static str {
        let lifetime = self.current.as_ref().and_then(|pair| pair.lifetime);
        let expired = self.current.is_none() || lifetime.is_some_and(|lifetime| self.age(now) >= lifetime);
        let due = lifetime.is_some_and(|lifetime| self.age(now) >= due_after(lifetime, 0.0));
        match () {
            () if self.needs_login.is_some() => "needs-login",
            () if expired => "expired",
            () if self.fault.is_some() => "degraded",
            () if self.pending.is_some() => "renewing",
            () if due => "due",
            () => "fresh",
        }
    }
}

/// Returns the age at which a token is due for renewal: 80 % of its lifetime, plus or minus up to 5 %. `jitter`, from -1 to
/// 1, keeps replicas and credentials from renewing at the same time.
pub fn due_after(lifetime: Duration, jitter: f64) -> Duration {
    lifetime.mul_f64(0.8 + 0.05 * jitter.clamp(-1.0, 1.0))
}

/// Returns the age from which a token is no longer sent. It is a little less than the lifetime, because a request takes time
/// to arrive.
pub fn used_until(lifetime: Duration) -> Duration {
    lifetime.saturating_sub((lifetime / 20).min(Duration::from_secs(5)))
}

/// Returns the back-off after that many consecutive failures: 500 ms, doubled with each failure, at most 32 s.
pub fn backoff(failures: u32) -> Duration {
    Duration::from_millis(500 << failures.saturating_sub(1).min(6))
}

/// Time for which a part of Cal.com may not know a new token yet, 10 s (FACTS §1).
pub const SETTLE_PERIOD: Duration = Duration::from_secs(10);

/// Wait before such a token is sent again, 500 ms.
pub const SETTLE_WAIT: Duration = Duration::from_millis(500);

/// Action after Cal.com rejected a token with 401, with 498, or with the 403 for a deleted token (FACTS §1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectionAction {
    /// Use the newer token.
    UseNewer,
    /// Send the same token again after [`SETTLE_WAIT`], because it is new.
    SameAgain,
    /// Renew the token and use the new one.
    Renew,
    /// Return Cal.com's response.
    Nothing,
}

/// Token that Cal.com rejected.
#[derive(Debug, Clone, Copy)]
pub struct TokenUse {
    /// Generation of its pair.
    pub generation: u64,
    /// Time since it was received.
    pub age: Duration,
    /// Whether it is the result of a renewal and is not confirmed yet, or the result of a renewal after another rejection.
    /// An upstream that rejects every token must not cause a renewal each time.
    pub is_new: bool,
    /// Whether Cal.com also rejected the renewed token for the same request, so that another renewal does not help.
    pub lasting: bool,
}

/// Returns the action for a rejected token. `stored` is the generation in the store. `renewing` says whether a renewal has
/// started there.
pub fn on_rejection(used: TokenUse, stored: u64, renewing: bool, renewable: bool) -> RejectionAction {
    match () {
        // A lower generation belongs to a new record under the same name.
        () if stored != used.generation => RejectionAction::UseNewer,
        () if !renewable => RejectionAction::Nothing,
        // A renewal may invalidate the previous token (FACTS §1).
        () if renewing => RejectionAction::Renew,
        () if used.lasting => RejectionAction::Nothing,
        () if used.is_new && used.age < SETTLE_PERIOD => RejectionAction::SameAgain,
        () => RejectionAction::Renew,
    }
}
