//! All renewable credentials of this process. They outlive reloads, as the tokens they hold do.

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

/// The renewable credentials by name, and the way to the keeper that looks after them.
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
            // It is no secret: it spreads the renewals of replicas. The source of keys would take 20 ms to be ready for it.
            seed: random::seed(),
        }
    }
}

impl TokenRegistry {
    /// The holder of that name, made if need be; `renewal_method` is how it is renewed then.
    pub fn get_or_insert(&self, name: RecordName, renewal_method: impl FnOnce() -> RenewalMethod) -> Arc<TokenHandle> {
        // Every request comes here: one that is held already is not worth a lock of its own.
        if let Some(held) = self.get(&name) {
            return held;
        }
        let entry = self.map.entry(name);
        let name = entry.key().clone();
        entry.or_insert_with(|| TokenHandle::new(name, renewal_method(), self.jobs.clone())).clone()
    }

    /// The holder of that name, if there is one.
    pub fn get(&self, name: &RecordName) -> Option<Arc<TokenHandle>> {
        self.map.get(name).map(|handle| handle.clone())
    }

    /// All holders.
    pub fn all(&self) -> Vec<Arc<TokenHandle>> {
        self.map.iter().map(|handle| handle.clone()).collect()
    }

    /// Forgets the holder of that name: the next who asks for it begins anew.
    pub fn forget(&self, name: &RecordName) {
        self.map.remove(name);
    }

    /// Takes over a configuration: its credentials are held from now on, renewed as it says; others are forgotten.
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

    /// How managed users of that credential are renewed, if it has any.
    pub fn renewal_method_of_users(&self, credential: &str) -> Option<RenewalMethod> {
        self.managed.load().get(credential).cloned().map(RenewalMethod::Managed)
    }

    /// What the keeper is asked to do; there is one keeper, so the first who asks has it.
    pub fn take_jobs(&self) -> Option<mpsc::UnboundedReceiver<Job>> {
        self.job_queue.lock().take()
    }

    /// Now, by the clock that tokens' lives are counted on.
    pub fn now(&self) -> MonoTime {
        self.clock.now()
    }

    /// From -1 to 1, another for each process, credential and generation.
    pub fn jitter(&self, name: &RecordName, generation: u64) -> f64 {
        let text = format!("{}\0{name}\0{generation}", self.seed);
        f64::from(crc32fast::hash(text.as_bytes())) / f64::from(u32::MAX) * 2.0 - 1.0
    }

    /// How every credential is, sorted by name.
    pub fn states(&self) -> Vec<(String, &'static str)> {
        let now = self.now();
        let all = self.all();
        let mut list: Vec<_> = all.iter().map(|handle| (handle.name.to_string(), handle.state_name(now))).collect();
        list.sort();
        list
    }

    /// Every credential that is not as it should be, and how it is: for `/readyz`.
    pub fn unhealthy(&self) -> Vec<(String, &'static str)> {
        let mut list = self.states();
        list.retain(|(_, state)| !matches!(*state, "fresh" | "due"));
        list
    }
}
