//! Token refresher: reads credentials from the token store, renews them in time, and stores the new pairs.
//!
//! It runs on its own thread, apart from the request path. A renewal continues after its caller has disconnected. The
//! `renewal_lock` of a credential serializes its renewals in this process, and the lock of the token store among replicas.

#![expect(
    clippy::disallowed_methods,
    reason = "this module owns the tasks of the refresher thread, and compares the time of day with stored times"
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
use crate::vault::{Vault, VaultError};
use failpoint::fail_point;
use token_endpoint::CalClient;

/// Interval between searches for credentials that are due.
const TICK: Duration = Duration::from_millis(500);

/// Longest back-off between attempts to store a new pair, which exists nowhere else.
const MAX_STORE_BACKOFF: Duration = Duration::from_secs(2);

/// Interval between checks of a credential that needs a login or an import. Another replica may have received it.
const RECHECK_INTERVAL: Duration = Duration::from_secs(5);

/// Back-off after a refused recovery. Cal.com may know the user later.
const RECOVERY_BACKOFF: Duration = Duration::from_secs(60);

/// Background task that keeps all renewable credentials valid.
#[derive(Debug)]
pub struct TokenRefresher {
    vault: Vault,
    registry: Arc<TokenRegistry>,
    cal_client: ArcSwap<CalClient>,
    /// Permits of operations that must finish before the process exits. Cal.com may already have invalidated the stored pair.
    critical: Semaphore,
    draining: AtomicBool,
    /// Mark of this process in the record of used windows.
    process: u64,
    /// The writer of that record holds the permit. It is closed when the last write begins, so that none follows.
    recording: Semaphore,
}

/// Record as it was read, with its version.
struct StoredRecord {
    entry: StoredCredential,
    version: Option<u64>,
}

impl TokenRefresher {
    /// Creates a refresher of `registry`, which gets tokens by `cal_client`.
    pub fn new(vault: Vault, registry: Arc<TokenRegistry>, cal_client: CalClient) -> Arc<Self> {
        let critical = Semaphore::new(Semaphore::MAX_PERMITS);
        let cal_client = ArcSwap::from_pointee(cal_client);
        let (draining, process) = (AtomicBool::new(false), uuid::Uuid::new_v4().as_u64_pair().0);
        Arc::new(Self { vault, registry, cal_client, critical, draining, process, recording: Semaphore::new(1) })
    }

    /// Replaces the client for the calls that follow.
    pub fn set_client(&self, cal_client: CalClient) {
        self.cal_client.store(Arc::new(cal_client));
    }

    /// From now on renews only credentials that requests wait for.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// From now on starts no operation that must finish before the process exits.
    pub fn end(&self) {
        self.critical.close();
    }

    /// Returns whether an operation is running that must finish before the process exits: a call for a new pair, or the
    /// storing of its result.
    pub fn is_busy(&self) -> bool {
        self.critical.available_permits() < Semaphore::MAX_PERMITS
    }

    /// Runs until the process ends.
    pub async fn run(self: Arc<Self>) {
        let Some(mut job_queue) = self.registry.take_jobs() else { return };
        let mut round = interval(TICK);
        round.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.clone().check_all();
        let recorder = self.clone();
        tokio::spawn(async move { recorder.record_used().await });
        loop {
            tokio::select! {
                Some(job) = job_queue.recv() => self.clone().start(job),
                _ = round.tick() => self.request_due_checks(),
            }
        }
    }

    /// Requests a check of every credential, and of every managed user in the store. This finds credentials that need a login
    /// before a request uses them.
    fn check_all(self: Arc<Self>) {
        for handle in self.registry.all() {
            handle.request_refresh();
        }
        tokio::spawn(async move {
            let names = loop {
                match self.vault.names().await {
                    Ok(names) => break names,
                    Err(fault) => tracing::warn!(%fault, "cannot read the stored credentials; only static ones work"),
                }
                sleep(RECHECK_INTERVAL).await;
            };
            let users = names.iter().filter_map(|name| RecordName::parse(name)).filter(|name| name.user.is_some());
            for name in users {
                if let Some(renewal_method) = self.registry.renewal_method_of_users(&name.credential) {
                    self.registry.get_or_insert(name, || renewal_method).request_refresh();
                }
            }
        });
    }

    /// Requests a check of credentials that are due, and of credentials that a login, an import or another replica may have
    /// changed.
    fn request_due_checks(&self) {
        if self.draining.load(Ordering::Relaxed) {
            return;
        }
        let now = self.registry.now();
        for handle in self.registry.all() {
            let token = handle.current();
            let user = handle.name.user.is_some();
            let due = token.is_due(now) && token.needs_login.is_none() && !token.is_backing_off(now);
            let stale = now.0.saturating_sub(token.checked_at.0) > nanoseconds(RECHECK_INTERVAL);
            let watched = !user || token.error.is_some() || token.needs_login.is_some();
            if (due && handle.is_wanted()) || (stale && watched) {
                handle.request_refresh();
            }
        }
    }

    fn start(self: Arc<Self>, job: Job) {
        tokio::spawn(async move {
            match job {
                Job::Refresh(handle) => self.refresh(&handle).await,
                Job::Store(handle, pair, stored) => self.capture(&handle, pair, stored).await,
            }
        });
    }

    /// Reads a credential's record again, and renews it if that is due or its token was refused.
    async fn refresh(&self, handle: &TokenHandle) {
        let _turn = handle.renewal_lock.lock().await;
        handle.claim();
        let result = match self.read(handle).await {
            Ok(read) => self.check(handle, read).await,
            Err(fault) => Err(fault.into()),
        };
        if let Err(error) = result {
            self.publish_error(handle, error);
        }
    }

    async fn check(&self, handle: &TokenHandle, mut read: StoredRecord) -> Result<(), RenewalError> {
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
        // Whether a renewal is possible at all shows without a call to Cal.com, so it may be found early.
        let asked_for = handle.is_wanted() || !read.entry.can_begin(capability);
        // During a back-off nothing happens, unless another replica has stored another token.
        let resting = known.is_backing_off(self.registry.now()) && known.has_token_of(&read.entry);
        if resting && wanted {
            self.publish_unchanged(handle);
            return Ok(());
        }
        if wanted && possible && asked_for && handle.is_renewable() {
            return self.renew(handle, token.generation).await;
        }
        self.publish(handle, &read.entry, None);
        Ok(())
    }

    /// Reads the record of a credential. If the record belongs to another renewal method, only its generation is kept.
    async fn read(&self, handle: &TokenHandle) -> Result<StoredRecord, VaultError> {
        let name = handle.name.to_string();
        let Some(kept) = self.vault.get(&name).await? else {
            return Ok(StoredRecord { entry: StoredCredential::default(), version: None });
        };
        let damaged =
            || VaultError::Damaged { name: name.clone(), why: "it is of another version of calgate".to_owned() };
        let mut entry = StoredCredential::from_bytes(&kept.plain).ok_or_else(damaged)?;
        if !entry.is_of(&handle.renewal_method.load()) {
            entry = StoredCredential { generation: entry.generation, ..StoredCredential::default() };
        }
        Ok(StoredRecord { entry, version: Some(kept.version) })
    }

    /// Stores the record, unless it changed since it was read.
    async fn swap(&self, handle: &TokenHandle, read: &mut StoredRecord) -> Result<bool, VaultError> {
        let swapped = self.vault.swap(&handle.name.to_string(), read.version, &read.entry.to_bytes()).await?;
        if swapped {
            read.version = Some(read.version.unwrap_or(0) + 1);
        }
        Ok(swapped)
    }
}

impl From<VaultError> for RenewalError {
    fn from(fault: VaultError) -> Self {
        Self::Store(fault.to_string())
    }
}

fn can_recover(handle: &TokenHandle) -> bool {
    matches!(&**handle.renewal_method.load(), RenewalMethod::Managed(managed) if managed.recover)
}

/// Returns milliseconds since 1970 by the time of day of this machine, which may be wrong.
pub fn unix_millis() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    u64::try_from(now).unwrap_or(u64::MAX).saturating_add_signed(failpoint::clock_offset())
}
