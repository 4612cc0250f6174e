//! The life of a renewable credential, as a pure machine.
//!
//! ```text
//! fresh → due → renewing → fresh
//!                        → degraded      the old token still serves; renewing is tried again
//!                        → needs-login   only a login, an import or a recovery helps
//! ```
//! [`StoredCredential::begin`] and [`StoredCredential::settle`] are the two writes of a renewal: what stands in the store before Cal.com is
//! asked, and what stands there afterwards. Between them the process may be killed at any point. The caller holds the
//! lock, has just read the record, and writes by compare-and-swap; clocks and fences come in from outside.

use std::time::Duration;

use crate::credential::stored_token::{Pending, Step, StoredCredential, TokenPair};
use crate::secret::Secret;

/// What a kind of credential can do to have a new pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RenewalCapability {
    /// A new pair can be had without a refresh token (force-refresh), and the operator allows it.
    pub recover: bool,
}

/// What Cal.com is to be asked for.
#[derive(Debug, Clone)]
pub enum RenewalCall {
    /// A new pair for this refresh token.
    Refresh(Secret),
    /// A new pair, which ends all others of the user.
    Recover,
}

/// Why a renewal does not begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotStarted {
    /// A later holder of the lock has begun one: this one's lock was lost.
    LockLost,
    /// Nothing is left to ask with.
    NeedsLogin,
}

/// What came of asking.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// A new pair.
    Renewed(TokenPair),
    /// Nothing was asked, or it was surely not carried out; the refresh token is as good as before.
    NotSent(String),
    /// It is not known whether it was carried out; the refresh token may be used up.
    Unknown(String),
    /// The refresh token is no good (or, for a recovery, the user is unknown).
    Refused(String),
    /// A definite refusal that does not say what is no good. It was not carried out.
    Rejected(String),
}

impl Outcome {
    /// The new pair.
    ///
    /// # Errors
    /// Why there is none.
    pub fn into_pair(self) -> Result<TokenPair, String> {
        match self {
            Self::Renewed(pair) => Ok(pair),
            Self::NotSent(why) | Self::Unknown(why) | Self::Refused(why) | Self::Rejected(why) => Err(why),
        }
    }
}

/// Consecutive definite refusals after which the credential needs a login: asking for ever would hide that.
pub const MAX_REJECTIONS: u32 = 5;

/// What to do once the outcome is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    /// Use the new pair.
    Use,
    /// Begin again, under the same lock: another way is left.
    TryOtherWay,
    /// Begin again later.
    TryLater,
    /// Nothing but a login helps.
    NeedsLogin,
    /// Another replica stored a newer pair meanwhile: use that.
    UseStored,
}

impl StoredCredential {
    /// Begins a renewal under the lock with `fence`. The record as it is now has to be stored before the call is made.
    ///
    /// # Errors
    /// Why it does not begin.
    pub fn begin(&mut self, fence: u64, capability: RenewalCapability) -> Result<RenewalCall, NotStarted> {
        if self.pending.is_some_and(|pending| pending.fence > fence) {
            return Err(NotStarted::LockLost);
        }
        let step = match self.pending {
            // Nobody knows what came of it: what was asked is asked once more.
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

    /// Whether anything is left to renew it with.
    pub fn can_begin(&self, capability: RenewalCapability) -> bool {
        self.possible(self.pending.map_or(Step::Refresh, |pending| pending.step), capability).is_some()
    }

    /// The step itself, or the first after it that there is something to do with.
    fn possible(&self, from: Step, capability: RenewalCapability) -> Option<(Step, RenewalCall)> {
        let refresh = |pair: &Option<TokenPair>| pair.as_ref()?.refresh.clone().map(RenewalCall::Refresh);
        let refreshing = self.needs_login.is_none();
        let current = || refresh(&self.current).filter(|_| refreshing && from == Step::Refresh);
        let previous = || refresh(&self.previous).filter(|_| refreshing && from != Step::Recover);
        let step = current().map(|call| (Step::Refresh, call));
        let step = step.or_else(|| previous().map(|call| (Step::RefreshPrevious, call)));
        step.or_else(|| capability.recover.then_some((Step::Recover, RenewalCall::Recover)))
    }

    /// Notes what came of the call that began under `fence`, when the record was of `generation`.
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
            // Also when a later holder of the lock has begun: this pair is the one that exists.
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

    /// Puts a new pair in the place of the current one, which is kept until the new one has worked.
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

    /// Notes that the pair of `generation` has worked. Answers whether that changed anything.
    pub fn confirm(&mut self, generation: u64) -> bool {
        self.generation == generation && self.previous.take().is_some()
    }

    /// How long ago the current pair was received, by a calendar in milliseconds since 1970 that may have been set since:
    /// never less than nothing.
    pub fn age(&self, now: u64) -> Duration {
        let received = self.current.as_ref().map_or(now, |pair| pair.received_at);
        Duration::from_millis(now.saturating_sub(received))
    }

    /// The name of its state, for `calgate credentials`.
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

/// When a token of that lifetime is due for renewal: at 80 % of its life, moved by up to 5 % of it, so that replicas and
/// credentials do not all ask at once. `jitter` is from -1 to 1.
pub fn due_after(lifetime: Duration, jitter: f64) -> Duration {
    lifetime.mul_f64(0.8 + 0.05 * jitter.clamp(-1.0, 1.0))
}

/// When a token of that lifetime is no longer sent: a little before it expires, as a request takes its time to get there.
pub fn used_until(lifetime: Duration) -> Duration {
    lifetime.saturating_sub((lifetime / 20).min(Duration::from_secs(5)))
}

/// How long renewing rests after the `failures`th failure in a row.
pub fn backoff(failures: u32) -> Duration {
    Duration::from_millis(500 << failures.saturating_sub(1).min(6))
}

/// How long after it was had a token may still be unknown to a part of Cal.com (FACTS §1).
pub const SETTLE_PERIOD: Duration = Duration::from_secs(10);

/// How long to wait before such a token is tried again.
pub const SETTLE_WAIT: Duration = Duration::from_millis(500);

/// What to do about a response that refuses calgate's token: 401, 498, or the 403 for a deleted token (FACTS §1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectionAction {
    /// There is a newer token: use that.
    UseNewer,
    /// It was had just now: wait for [`SETTLE_WAIT`] and try it once more.
    SameAgain,
    /// Renew, and use the new one.
    Renew,
    /// Nothing helps.
    Nothing,
}

/// A token that Cal.com refused.
#[derive(Debug, Clone, Copy)]
pub struct TokenUse {
    /// Its generation.
    pub generation: u64,
    /// How long ago it was had.
    pub age: Duration,
    /// Whether it came of a renewal and has not worked yet, or of a renewal for another refusal: what refuses every token
    /// must not have every token renewed.
    pub is_new: bool,
    /// Whether the renewed token was refused for the same request too, so that another renewal does not help.
    pub lasting: bool,
}

/// Decides about a refused token, where `stored` is the generation in the store now, and `renewing` whether a renewal has
/// begun there.
pub fn on_rejection(used: TokenUse, stored: u64, renewing: bool, renewable: bool) -> RejectionAction {
    match () {
        // A lower one is of a record that took the place of the one that was forgotten.
        () if stored != used.generation => RejectionAction::UseNewer,
        () if !renewable => RejectionAction::Nothing,
        // A renewal may end the token before it (FACTS §1).
        () if renewing => RejectionAction::Renew,
        () if used.lasting => RejectionAction::Nothing,
        () if used.is_new && used.age < SETTLE_PERIOD => RejectionAction::SameAgain,
        () => RejectionAction::Renew,
    }
}
