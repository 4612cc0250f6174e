//! Renews credentials: reads them from the token store, renews them in time, and stores the new pairs.
//!
//! Beside the request path, on a thread of its own: a renewal goes on when the caller that needed it has left. For one
//! credential one thing happens at a time here (its `renewal_lock`), and among replicas (the store's lock).

#![expect(
    clippy::disallowed_methods,
    reason = "this module owns the tasks of the keeper thread, and compares the time of day with stored times"
)]

mod failpoint;
pub mod oauth;
mod publish;
mod renew;
mod store_captured;
pub mod token_endpoint;
pub mod used;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::credential::lifecycle::RenewalCapability;
use crate::credential::stored_token::{RecordName, StoredCredential};
use crate::credential::token_state::{Job, RenewalError, TokenHandle};
use crate::credential::{RenewalMethod, TokenRegistry};
use crate::time::nanoseconds;
use crate::vault::{StoreFault, Vault};
use failpoint::fail_point;
use token_endpoint::CalCom;

/// How often it looks for what is due.
const ROUND: Duration = Duration::from_millis(500);

/// The longest rest between tries to store a pair that is nowhere else.
const STORE_REST: Duration = Duration::from_secs(2);

/// How long a credential rests that a login or an import would mend: another replica may have had it.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// How long a recovery that was refused rests: Cal.com may come to know the user.
const RECOVER_AGAIN: Duration = Duration::from_secs(60);

/// The keeper of all renewable credentials.
#[derive(Debug)]
pub struct Keeper {
    vault: Vault,
    registry: Arc<TokenRegistry>,
    cal_com: ArcSwap<CalCom>,
    /// A permit is held by what must not be left: it may have ended the pair that is stored.
    unfinished: Semaphore,
    draining: AtomicBool,
    /// What the process's entries in the record of used windows are marked with.
    process: u64,
    /// The writer of that record holds the permit. It is closed when the last write begins, so that none follows.
    recording: Semaphore,
}

/// A record as it was read.
struct Read {
    entry: StoredCredential,
    version: Option<u64>,
}

impl Keeper {
    /// A keeper of `registry` that asks `cal_com`.
    pub fn new(vault: Vault, registry: Arc<TokenRegistry>, cal_com: CalCom) -> Arc<Self> {
        let unfinished = Semaphore::new(Semaphore::MAX_PERMITS);
        let cal_com = ArcSwap::from_pointee(cal_com);
        let (draining, process) = (AtomicBool::new(false), uuid::Uuid::new_v4().as_u64_pair().0);
        Arc::new(Self { vault, registry, cal_com, unfinished, draining, process, recording: Semaphore::new(1) })
    }

    /// Asks in another way from now on.
    pub fn ask_by(&self, cal_com: CalCom) {
        self.cal_com.store(Arc::new(cal_com));
    }

    /// Looks from now on only after what requests ask for.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Begins nothing from now on that must not be left.
    pub fn end(&self) {
        self.unfinished.close();
    }

    /// Whether it is in the middle of something that must not be left: Cal.com was asked for a pair, or has answered with
    /// one, and what came of it is not stored yet.
    pub fn is_busy(&self) -> bool {
        self.unfinished.available_permits() < Semaphore::MAX_PERMITS
    }

    /// Works until the process ends.
    pub async fn work(self: Arc<Self>) {
        let Some(mut job_queue) = self.registry.take_jobs() else { return };
        let mut round = interval(ROUND);
        round.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.clone().look_at_all();
        let recorder = self.clone();
        tokio::spawn(async move { recorder.record_used().await });
        loop {
            tokio::select! {
                Some(job) = job_queue.recv() => self.clone().start(job),
                _ = round.tick() => self.look_for_due(),
            }
        }
    }

    /// Looks after every credential once, and at every managed user that the store knows, so that what needs a login is
    /// known before a request needs it.
    fn look_at_all(self: Arc<Self>) {
        for handle in self.registry.all() {
            handle.request_refresh();
        }
        tokio::spawn(async move {
            let names = loop {
                match self.vault.names().await {
                    Ok(names) => break names,
                    Err(fault) => tracing::warn!(%fault, "credentials cannot be read; static ones are served"),
                }
                sleep(LOOK_AGAIN).await;
            };
            let users = names.iter().filter_map(|name| RecordName::parse(name)).filter(|name| name.user.is_some());
            for name in users {
                if let Some(renewal_method) = self.registry.renewal_method_of_users(&name.credential) {
                    self.registry.get_or_insert(name, || renewal_method).request_refresh();
                }
            }
        });
    }

    /// Asks for what is due, and looks again at what a login, an import or another replica may have changed.
    fn look_for_due(&self) {
        if self.draining.load(Ordering::Relaxed) {
            return;
        }
        let now = self.registry.now();
        for handle in self.registry.all() {
            let token = handle.current();
            let user = handle.name.user.is_some();
            let due = token.is_due(now) && token.needs_login.is_none() && !token.is_backing_off(now);
            let stale = now.0.saturating_sub(token.checked_at.0) > nanoseconds(LOOK_AGAIN);
            let watched = !user || token.error.is_some() || token.needs_login.is_some();
            if (due && handle.is_wanted()) || (stale && watched) {
                handle.request_refresh();
            }
        }
    }

    fn start(self: Arc<Self>, job: Job) {
        tokio::spawn(async move {
            match job {
                Job::Refresh(handle) => self.attend(&handle).await,
                Job::Store(handle, pair, stored) => self.capture(&handle, pair, stored).await,
            }
        });
    }

    /// Reads a credential's record again, and renews it if that is due or its token was refused.
    async fn attend(&self, handle: &TokenHandle) {
        let _turn = handle.renewal_lock.lock().await;
        handle.claim();
        let checked_at = match self.read(handle).await {
            Ok(read) => self.look(handle, read).await,
            Err(fault) => Err(fault.into()),
        };
        if let Err(error) = checked_at {
            self.publish_trouble(handle, error);
        }
    }

    async fn look(&self, handle: &TokenHandle, mut read: Read) -> Result<(), RenewalError> {
        let known = handle.current();
        // A request that was under way when its record was replaced may speak of the old one's generations later still.
        let heard_of = handle.refused().max(handle.worked());
        if known.is_replaced_by(&read.entry) || heard_of > read.entry.generation {
            handle.reset();
        }
        if read.entry.confirm(handle.worked()) {
            self.swap(handle, &mut read).await?;
        }
        if read.entry.current.is_none() && read.entry.pending.is_none() && !can_recover(handle) {
            if handle.is_renewable() {
                return Err(RenewalError::Absent);
            }
            self.publish(handle, &read.entry, None);
            return Ok(());
        }
        let token = self.token(handle, &read.entry, None);
        let refused = token.generation > 0 && handle.refused() >= token.generation;
        let due = token.bearer.is_none() || token.is_due(self.registry.now());
        let wanted = due || refused || token.renewing;
        let capability = RenewalCapability { recover: can_recover(handle) };
        let possible = token.needs_login.is_none() || capability.recover;
        // That nothing is left to renew it with is found out without asking Cal.com, and may be known early.
        let asked_for = handle.is_wanted() || !read.entry.can_begin(capability);
        // What is resting is left alone, unless another replica has mended it.
        let resting = known.is_backing_off(self.registry.now()) && known.has_token_of(&read.entry);
        if resting && wanted {
            self.publish_again(handle);
            return Ok(());
        }
        if wanted && possible && asked_for && handle.is_renewable() {
            return self.renew(handle, token.generation).await;
        }
        self.publish(handle, &read.entry, None);
        Ok(())
    }

    /// The record of a credential. Of one that is of something else only the generation counts.
    async fn read(&self, handle: &TokenHandle) -> Result<Read, StoreFault> {
        let name = handle.name.to_string();
        let Some(kept) = self.vault.get(&name).await? else {
            return Ok(Read { entry: StoredCredential::default(), version: None });
        };
        let damaged =
            || StoreFault::Damaged { name: name.clone(), why: "it is of another version of calgate".to_owned() };
        let mut entry = StoredCredential::from_bytes(&kept.plain).ok_or_else(damaged)?;
        if !entry.is_of(&handle.renewal_method.load()) {
            entry = StoredCredential { generation: entry.generation, ..StoredCredential::default() };
        }
        Ok(Read { entry, version: Some(kept.version) })
    }

    /// Stores the record, unless it changed since it was read.
    async fn swap(&self, handle: &TokenHandle, read: &mut Read) -> Result<bool, StoreFault> {
        let swapped = self.vault.swap(&handle.name.to_string(), read.version, &read.entry.to_bytes()).await?;
        if swapped {
            read.version = Some(read.version.unwrap_or(0) + 1);
        }
        Ok(swapped)
    }
}

impl From<StoreFault> for RenewalError {
    fn from(fault: StoreFault) -> Self {
        Self::Store(fault.to_string())
    }
}

fn can_recover(handle: &TokenHandle) -> bool {
    matches!(&**handle.renewal_method.load(), RenewalMethod::Managed(managed) if managed.recover)
}

/// Milliseconds since 1970 by this machine's calendar, which may be wrong.
pub fn wall() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    u64::try_from(now).unwrap_or(u64::MAX).saturating_add_signed(failpoint::clock_offset())
}
