//! State of one renewable credential in this process: the token in use, and its remaining life.
//!
//! The request path reads it and never waits while a token is good; the keeper writes it. Life is counted on the
//! monotonic clock from when the token was received, so a calendar clock that is set does not end it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::HeaderValue;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::credential::RenewalMethod;
use crate::credential::lifecycle::{due_after, used_until};
use crate::credential::rejections::Rejections;
use crate::credential::stored_token::{RecordName, StoredCredential, TokenPair};
use crate::refusal::Refusal;
use crate::time::{MonoTime, nanoseconds};

/// How long a request waits for a renewal at most: a renewal's own deadlines end before that.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(45);

/// Why a credential cannot be had or renewed at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RenewalError {
    /// The store holds nothing under its name.
    Absent,
    /// The store, or its record there, cannot be used.
    Store(String),
    /// Cal.com could not be asked, or did not answer with a new pair.
    Upstream(String),
}

impl std::fmt::Display for RenewalError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Absent => f.write_str("nothing is stored for it"),
            Self::Store(why) | Self::Upstream(why) => f.write_str(why),
        }
    }
}

/// A credential as this process knows it.
#[derive(Debug, Clone, Default)]
pub struct TokenState {
    /// Counts the pairs; 0 while there is none.
    pub generation: u64,
    /// What is injected.
    pub bearer: Option<HeaderValue>,
    /// For an API key that took the place of the configured one: what it is known by. Cal.com counts it by itself.
    pub replacing: Option<u128>,
    /// When the token was received.
    pub received: MonoTime,
    /// From when on it is renewed.
    pub due: Option<MonoTime>,
    /// Until when it is sent.
    pub until: Option<MonoTime>,
    /// Whether a renewal has begun of which no end is known.
    pub renewing: bool,
    /// Whether the pair before is still kept, as this one has not worked yet.
    pub unproven: bool,
    /// Whether it was renewed because the one before was refused.
    pub by_refusal: bool,
    /// Why nothing but a login helps.
    pub needs_login: Option<Arc<str>>,
    /// What is wrong at the moment, and when it is looked at again.
    pub error: Option<(RenewalError, MonoTime)>,
    /// Failures in a row.
    pub failures: u32,
    /// The last time that the keeper was asked to look after it and did; 0: it has not looked yet.
    pub checks: u64,
    /// When it did last.
    pub checked_at: MonoTime,
}

/// What a request can do with a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// Use the token.
    Use,
    /// Use the token, and have it renewed.
    UseAndRenew,
    /// Have it loaded or renewed, and wait for that.
    Wait,
    /// Nothing but a login helps.
    NeedsLogin,
    /// There is no token, and none to be had before this much time is over.
    Unavailable(Duration),
}

impl TokenState {
    /// What `entry` means here and now. `received` is when this process received the current pair, if it did; otherwise
    /// the calendar has to tell its age, `age`. `jitter` is from -1 to 1.
    pub fn of(entry: &StoredCredential, received: Option<MonoTime>, age: Duration, now: MonoTime, jitter: f64) -> Self {
        let lifetime = entry.current.as_ref().and_then(|pair| pair.lifetime);
        // A token is never older than the life it had, however the calendar was set.
        let age = lifetime.map_or(age, |lifetime| age.min(lifetime));
        let received = received.unwrap_or(MonoTime(now.0.saturating_sub(nanoseconds(age))));
        // An age from before this process' clock began leaves that much less of the life.
        let spent = if received.0 == 0 { age.saturating_sub(Duration::from_nanos(now.0)) } else { Duration::ZERO };
        let after = |life: Duration| MonoTime(received.0.saturating_add(nanoseconds(life.saturating_sub(spent))));
        Self {
            generation: entry.generation,
            bearer: entry.current.as_ref().map(|pair: &TokenPair| pair.access.header("Bearer ")),
            replacing: entry.replacing_key(),
            received,
            due: lifetime.map(|lifetime| after(due_after(lifetime, jitter))),
            until: lifetime.map(|lifetime| after(used_until(lifetime))),
            renewing: entry.pending.is_some(),
            unproven: entry.previous.is_some(),
            needs_login: entry.needs_login.as_deref().map(Arc::from),
            ..Self::default()
        }
    }

    /// Whether `entry` is of another record than this: its generations begin anew when what was stored is forgotten.
    pub fn is_replaced_by(&self, entry: &StoredCredential) -> bool {
        self.generation > entry.generation || (self.generation == entry.generation && !self.has_token_of(entry))
    }

    /// Whether the token is that of `entry`.
    pub fn has_token_of(&self, entry: &StoredCredential) -> bool {
        let stored = entry.current.as_ref().map(|pair| pair.access.header("Bearer "));
        self.generation == entry.generation && self.bearer == stored
    }

    /// How long ago the token was received.
    pub fn age(&self, now: MonoTime) -> Duration {
        Duration::from_nanos(now.0.saturating_sub(self.received.0))
    }

    /// Whether the token may be sent.
    pub fn is_good(&self, now: MonoTime) -> bool {
        self.bearer.is_some() && self.until.is_none_or(|until| now < until)
    }

    /// Whether renewing it is due.
    pub fn is_due(&self, now: MonoTime) -> bool {
        self.due.is_some_and(|due| now >= due)
    }

    /// How long it is left alone, as it failed just now.
    pub fn backoff(&self, now: MonoTime) -> Duration {
        let until = self.error.as_ref().map_or(0, |(_, until)| until.0);
        Duration::from_nanos(until.saturating_sub(now.0))
    }

    /// Whether it failed so recently that it is left alone.
    pub fn is_backing_off(&self, now: MonoTime) -> bool {
        !self.backoff(now).is_zero()
    }

    /// What a request can do with it.
    pub fn readiness(&self, now: MonoTime) -> Readiness {
        if self.is_good(now) {
            let renew = self.is_due(now) && !self.is_backing_off(now) && self.needs_login.is_none();
            return if renew { Readiness::UseAndRenew } else { Readiness::Use };
        }
        match self.backoff(now) {
            _ if self.needs_login.is_some() => Readiness::NeedsLogin,
            Duration::ZERO => Readiness::Wait,
            rest => Readiness::Unavailable(rest),
        }
    }

    /// The name of its state, for metrics and `/readyz`.
    pub fn state_name(&self, now: MonoTime) -> &'static str {
        match () {
            () if self.needs_login.is_some() => "needs-login",
            () if self.checks == 0 => "loading",
            () if matches!(self.error, Some((RenewalError::Absent, _))) => "needs-login",
            () if self.is_good(now) && self.error.is_some() => "degraded",
            () if self.error.is_some() => "unavailable",
            () if !self.is_good(now) => "expired",
            () if self.is_due(now) => "due",
            () => "fresh",
        }
    }
}

/// What the keeper is asked to do.
#[derive(Debug)]
pub enum Job {
    /// Look after a credential: read its record again, and renew it if that is due.
    Refresh(Arc<TokenHandle>),
    /// Store a pair that an answer of Cal.com's held, and tell whether it is stored.
    Store(Arc<TokenHandle>, TokenPair, oneshot::Sender<bool>),
}

/// One renewable credential of this process, shared by all workers and kept over reloads.
#[derive(Debug)]
pub struct TokenHandle {
    /// Its record's name.
    pub name: RecordName,
    /// How it is renewed; a reload may change that.
    pub renewal_method: ArcSwap<RenewalMethod>,
    /// Held by the keeper while it looks after it: one renewal at a time.
    pub renewal_lock: tokio::sync::Mutex<()>,
    /// Whether it has been used since it was last renewed.
    pub used: AtomicBool,
    /// The requests for which a renewed token does not help.
    pub refusals: Rejections,
    current: watch::Sender<Arc<TokenState>>,
    /// How often the keeper was asked to look after it; up to which of these it has taken up; whether it is told.
    requested: AtomicU64,
    claimed: AtomicU64,
    is_queued: AtomicBool,
    refused: AtomicU64,
    worked: AtomicU64,
    jobs: mpsc::UnboundedSender<Job>,
}

impl TokenHandle {
    pub(super) fn new(name: RecordName, renewal_method: RenewalMethod, jobs: mpsc::UnboundedSender<Job>) -> Arc<Self> {
        Arc::new(Self {
            name,
            renewal_method: ArcSwap::from_pointee(renewal_method),
            renewal_lock: tokio::sync::Mutex::default(),
            used: AtomicBool::new(false),
            refusals: Rejections::default(),
            current: watch::Sender::new(Arc::default()),
            requested: AtomicU64::new(0),
            claimed: AtomicU64::new(0),
            is_queued: AtomicBool::new(false),
            refused: AtomicU64::new(0),
            worked: AtomicU64::new(0),
            jobs,
        })
    }

    /// What is known now.
    pub fn current(&self) -> Arc<TokenState> {
        self.current.borrow().clone()
    }

    /// Makes `token` known, and wakes who waits for it.
    pub fn publish(&self, token: TokenState) {
        self.current.send_replace(Arc::new(token));
    }

    /// Asks the keeper to look after it. Answers which time that is.
    pub fn request_refresh(self: &Arc<Self>) -> u64 {
        let time = self.requested.fetch_add(1, Ordering::AcqRel) + 1;
        if !self.is_queued.swap(true, Ordering::AcqRel) {
            let _ = self.jobs.send(Job::Refresh(self.clone()));
        }
        time
    }

    /// Notes that the keeper takes up what was asked so far.
    pub fn claim(&self) {
        self.is_queued.swap(false, Ordering::AcqRel);
        self.claimed.store(self.requested.load(Ordering::Acquire), Ordering::Release);
    }

    /// The last time that was asked and that the keeper has taken up.
    pub fn claimed(&self) -> u64 {
        self.claimed.load(Ordering::Acquire)
    }

    /// The latest generation whose token Cal.com refused.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Acquire)
    }

    /// The latest generation whose token has worked.
    pub fn worked(&self) -> u64 {
        self.worked.load(Ordering::Acquire)
    }

    /// Forgets which tokens were refused and which have worked: they were of another record, whose generations are not
    /// those of this one.
    pub fn reset(&self) {
        self.refused.store(0, Ordering::Release);
        self.worked.store(0, Ordering::Release);
    }

    /// Notes that Cal.com refused the token of `generation`, so that it is renewed although it is not due.
    pub(super) fn reject(&self, generation: u64) {
        self.refused.fetch_max(generation, Ordering::AcqRel);
    }

    /// Notes that the token of `token` has worked.
    pub(super) fn confirm(self: &Arc<Self>, token: &TokenState) {
        if token.unproven && self.worked.fetch_max(token.generation, Ordering::AcqRel) < token.generation {
            let _ = self.request_refresh();
        }
    }

    /// Has the keeper look after it, and waits until it has: until a look that began after this was asked is over.
    pub(super) async fn wait_refreshed(self: &Arc<Self>) -> Arc<TokenState> {
        self.used.store(true, Ordering::Relaxed);
        let mut news = self.current.subscribe();
        let time = self.request_refresh();
        match timeout(REFRESH_TIMEOUT, news.wait_for(|token| token.checks >= time)).await {
            Ok(Ok(token)) => token.clone(),
            _ => self.current(),
        }
    }

    /// Hands a pair that an answer held to the keeper. Answers whether it is stored.
    pub(super) async fn capture(self: &Arc<Self>, pair: TokenPair) -> bool {
        let (stored, answer) = oneshot::channel();
        let sent = self.jobs.send(Job::Store(self.clone(), pair, stored));
        sent.is_ok() && matches!(timeout(REFRESH_TIMEOUT, answer).await, Ok(Ok(true)))
    }

    /// The refusal where there is no token.
    pub(super) fn refusal(&self, token: &TokenState, now: MonoTime) -> Refusal {
        let credential: Arc<str> = self.name.to_string().into();
        match &token.error {
            _ if token.needs_login.is_some() => Refusal::CredentialNeedsLogin { credential },
            Some((RenewalError::Absent, _)) if self.name.user.is_some() => Refusal::UnknownManagedUser,
            Some((RenewalError::Absent, _)) => Refusal::CredentialNeedsLogin { credential },
            Some((error, _)) => {
                let retry_after = token.backoff(now);
                Refusal::CredentialUnavailable { credential, why: error.to_string().into(), retry_after }
            }
            None => {
                let why = "its renewal has not ended".into();
                Refusal::CredentialUnavailable { credential, why, retry_after: Duration::from_secs(1) }
            }
        }
    }

    /// Whether it is to be renewed when that is due. A managed user whom nobody acts for is renewed when somebody does;
    /// there may be many.
    pub fn is_wanted(&self) -> bool {
        self.name.user.is_none() || self.used.load(Ordering::Relaxed)
    }

    /// Whether the keeper can have a new pair for it.
    pub fn is_renewable(&self) -> bool {
        !matches!(**self.renewal_method.load(), RenewalMethod::Key { .. })
    }

    /// The name of its state. An API key that the store holds no newer one of serves as configured. A managed user whom
    /// nobody acts for is in no trouble when its token runs out: it is renewed for who does.
    pub fn state_name(&self, now: MonoTime) -> &'static str {
        let token = self.current();
        match token.state_name(now) {
            "expired" if !self.is_wanted() => "due",
            state if self.is_renewable() => state,
            _ if token.error.is_some() => "degraded",
            _ => "fresh",
        }
    }
}
