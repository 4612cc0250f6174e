//! Registry of the renewable credentials of this process. It outlives reloads, because the tokens do.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use dashmap::DashMap;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::credential::stored_token::RecordName;
use crate::credential::token_state::{Job, TokenHandle};
use crate::credential::{Credential, ManagedUsers, RenewalMethod};
use crate::random;
use crate::time::{Clock, MonoTime};

/// Renewable credentials by name, and the job queue of the task that renews them.
pub struct TokenRegistry {
    map: DashMap<RecordName, Arc<TokenHandle>>,
    jobs: mpsc::UnboundedSender<Job>,
    managed: ArcSwap<BTreeMap<Arc<str>, ManagedUsers>>,
    job_queue: Mutex<Option<mpsc::UnboundedReceiver<Job>>>,
    clock: Clock,
    seed: u64,
}

impl fmt::Debug for TokenRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenRegistry").field("credentials", &self.map.len()).finish_non_exhaustive()
    }
}

impl Default for TokenRegistry {
    fn default() -> Self {
        let (jobs, job_queue) = mpsc::unbounded_channel();
        Self {
            map: DashMap::new(),
            jobs,
            managed: ArcSwap::default(),
            job_queue: Mutex::new(Some(job_queue)),
            clock: Clock::start(),
            // The seed is not a secret: it spreads the renewals of replicas. The random source of aws-lc-rs would take 20 ms
            // to start.
            seed: random::seed(),
        }
    }
}

impl TokenRegistry {
    /// Returns the handle of that name. A new handle gets the result of `renewal_method`.
    pub fn get_or_insert(&self, name: RecordName, renewal_method: impl FnOnce() -> RenewalMethod) -> Arc<TokenHandle> {
        // Every request comes here, so an existing handle is found without the lock for writing.
        if let Some(held) = self.get(&name) {
            return held;
        }
        let entry = self.map.entry(name);
        let name = entry.key().clone();
        entry.or_insert_with(|| TokenHandle::new(name, renewal_method(), self.jobs.clone())).clone()
    }

    /// Returns the handle of that name, if there is one.
    pub fn get(&self, name: &RecordName) -> Option<Arc<TokenHandle>> {
        self.map.get(name).map(|handle| handle.clone())
    }

    /// Returns all handles.
    pub fn all(&self) -> Vec<Arc<TokenHandle>> {
        self.map.iter().map(|handle| handle.clone()).collect()
    }

    /// Removes the handle of that name. The next request for it creates a new one.
    pub fn forget(&self, name: &RecordName) {
        self.map.remove(name);
    }

    /// Applies a configuration: adds its credentials, updates their renewal methods and removes all others.
    pub(super) fn configure(&self, credentials: &[Arc<Credential>]) {
        let find = |name: &str| credentials.iter().find(|credential| *credential.name == *name);
        for credential in credentials {
            if let Some(renewal_method) = credential.renewal_method() {
                let name = RecordName { credential: credential.name.clone(), user: None };
                let anew = || TokenHandle::new(name.clone(), renewal_method.clone(), self.jobs.clone());
                let changed = |handle: &mut Arc<TokenHandle>| {
                    if !handle.renewal_method.load().is_equivalent(&renewal_method) {
                        *handle = anew();
                    }
                };
                self.map
                    .entry(name.clone())
                    .and_modify(changed)
                    .or_insert_with(anew)
                    .renewal_method
                    .store(Arc::new(renewal_method.clone()));
            }
        }
        self.map.retain(|name, handle| {
            let credential = find(&name.credential);
            let renewal_method = credential.and_then(|credential| credential.renewal_method_of(name.user));
            let kept = renewal_method.is_some();
            handle.renewal_method.store(renewal_method.map_or_else(|| handle.renewal_method.load_full(), Arc::new));
            kept
        });
        let managed = credentials.iter().filter_map(|c| Some((c.name.clone(), c.managed()?.clone())));
        self.managed.store(Arc::new(managed.collect()));
    }

    /// Returns the renewal method of that credential's managed users, if callers may act for them.
    pub fn renewal_method_of_users(&self, credential: &str) -> Option<RenewalMethod> {
        self.managed.load().get(credential).cloned().map(RenewalMethod::Managed)
    }

    /// Returns the job queue to the first caller: one task renews all credentials.
    pub fn take_jobs(&self) -> Option<mpsc::UnboundedReceiver<Job>> {
        self.job_queue.lock().take()
    }

    /// Returns the current time of the clock that measures the lifetimes of tokens.
    pub fn now(&self) -> MonoTime {
        self.clock.now()
    }

    /// Returns a number from -1 to 1, which differs between processes, credentials and generations.
    pub fn jitter(&self, name: &RecordName, generation: u64) -> f64 {
        let text = format!("{}\0{name}\0{generation}", self.seed);
        f64::from(crc32fast::hash(text.as_bytes())) / f64::from(u32::MAX) * 2.0 - 1.0
    }

    /// Returns the state of every credential, sorted by name.
    pub fn states(&self) -> Vec<(String, &'static str)> {
        let now = self.now();
        let all = self.all();
        let mut list: Vec<_> = all.iter().map(|handle| (handle.name.to_string(), handle.state_name(now))).collect();
        list.sort();
        list
    }

    /// Returns every credential that is not healthy, and its state, for `/readyz`.
    pub fn unhealthy(&self) -> Vec<(String, &'static str)> {
        let mut list = self.states();
        list.retain(|(_, state)| !matches!(*state, "fresh" | "due"));
        list
    }
}
