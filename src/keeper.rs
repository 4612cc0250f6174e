//! Keeps renewable credentials good: reads them from the store, renews them in time, stores what it gets.
//!
//! Beside the request path, on a thread of its own: a renewal goes on when the caller that needed it has left. For one
//! credential one thing happens at a time here (its `turn`), and among replicas (the store's lock).

pub mod endpoint;
mod probe;
mod renew;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::credential::entry::{Entry, Pair, RecordName};
use crate::credential::lifecycle::rest_after;
use crate::credential::live::{Holder, Job, Live, Trouble};
use crate::credential::{Holders, Means};
use crate::limit::Tick;
use crate::refusal::way_back;
use crate::store::{StoreFault, Vault};
use endpoint::CalCom;
use probe::fail_point;

/// How often it looks for what is due.
const ROUND: Duration = Duration::from_millis(500);

/// The longest rest between tries to store a pair that is nowhere else.
const STORE_REST: Duration = Duration::from_secs(2);

/// How long a credential rests that a login or an import would mend: another replica may have had it.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// How long a recovery that was refused rests: the client's secret may be mended.
const RECOVER_AGAIN: Duration = Duration::from_secs(60);

/// The keeper of all renewable credentials.
#[derive(Debug)]
pub struct Keeper {
    vault: Vault,
    holders: Arc<Holders>,
    cal_com: ArcSwap<CalCom>,
    busy: AtomicUsize,
}

/// A record as it was read.
struct Read {
    entry: Entry,
    version: Option<u64>,
}

impl Keeper {
    /// A keeper of `holders` that asks `cal_com`.
    pub fn new(vault: Vault, holders: Arc<Holders>, cal_com: CalCom) -> Arc<Self> {
        Arc::new(Self { vault, holders, cal_com: ArcSwap::from_pointee(cal_com), busy: AtomicUsize::new(0) })
    }

    /// Asks in another way from now on.
    pub fn ask_by(&self, cal_com: CalCom) {
        self.cal_com.store(Arc::new(cal_com));
    }

    /// Whether it is in the middle of something that must not be left.
    pub fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Acquire) > 0
    }

    /// Works until the process ends.
    pub async fn work(self: Arc<Self>) {
        let Some(mut inbox) = self.holders.take_inbox() else { return };
        let mut round = interval(ROUND);
        round.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.clone().look_at_all();
        loop {
            tokio::select! {
                Some(job) = inbox.recv() => self.clone().start(job),
                _ = round.tick() => self.clone().look_for_due(),
            }
        }
    }

    /// Looks after every credential once, and after every managed user that the store knows, so that what needs a login
    /// is known before a request needs it.
    fn look_at_all(self: Arc<Self>) {
        for holder in self.holders.all() {
            holder.ask();
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
                if let Some(means) = self.holders.means_of_users(&name.credential) {
                    self.holders.hold(name, || means).ask();
                }
            }
        });
    }

    /// Asks for what is due, and looks again at what a login, an import or another replica may have changed.
    fn look_for_due(self: Arc<Self>) {
        let now = self.holders.now();
        for holder in self.holders.all() {
            let live = holder.live();
            // A managed user whom nobody acts for is renewed when somebody does; there may be many.
            let user = holder.name.user.is_some();
            let due = live.is_due(now) && live.needs_login.is_none() && !live.is_resting(now);
            let stale = now.0.saturating_sub(live.looked.0) > nanos(LOOK_AGAIN);
            let watched = !user || live.trouble.is_some() || live.needs_login.is_some();
            if (due || (stale && watched)) && (!user || holder.used.load(Ordering::Relaxed)) {
                holder.ask();
            }
        }
    }

    fn start(self: Arc<Self>, job: Job) {
        self.busy.fetch_add(1, Ordering::AcqRel);
        tokio::spawn(async move {
            match job {
                Job::Attend(holder) => self.attend(&holder).await,
                Job::Capture(holder, pair, stored) => self.capture(&holder, pair, stored).await,
            }
            self.busy.fetch_sub(1, Ordering::AcqRel);
        });
    }

    /// Reads a credential's record again, and renews it if that is due or its token was refused.
    async fn attend(&self, holder: &Holder) {
        let _turn = holder.turn.lock().await;
        holder.take_up();
        let looked = match self.read(holder).await {
            Ok(read) => self.look(holder, read).await,
            Err(fault) => Err(fault.into()),
        };
        if let Err(trouble) = looked {
            self.publish_trouble(holder, trouble);
        }
    }

    async fn look(&self, holder: &Holder, mut read: Read) -> Result<(), Trouble> {
        if read.entry.worked(holder.worked()) {
            self.swap(holder, &mut read).await?;
        }
        let known = holder.live();
        if read.entry.current.is_none() && read.entry.pending.is_none() && !can_recover(holder) {
            if holder.is_renewable() {
                return Err(Trouble::Absent);
            }
            self.publish(holder, &read.entry, None);
            return Ok(());
        }
        let live = self.live(holder, &read.entry, None);
        let refused = live.generation > 0 && holder.refused() >= live.generation;
        let due = live.bearer.is_none() || live.is_due(self.holders.now());
        let wanted = due || refused || live.renewing;
        let possible = live.needs_login.is_none() || can_recover(holder);
        // What is resting is left alone, unless another replica has mended it.
        let resting = known.is_resting(self.holders.now()) && known.generation == live.generation;
        if resting && wanted {
            self.publish_again(holder);
            return Ok(());
        }
        if wanted && possible && holder.is_renewable() {
            return self.renew(holder, live.generation).await;
        }
        self.publish(holder, &read.entry, None);
        Ok(())
    }

    /// Stores a pair that an answer held. It is in use at once: the one before it is no good any more.
    async fn capture(&self, holder: &Holder, pair: Pair, stored: oneshot::Sender<bool>) {
        let _turn = holder.turn.lock().await;
        holder.take_up();
        let received = self.holders.now();
        let generation = holder.live().generation + 1;
        let mut rest = Duration::from_millis(100);
        let mut stored = Some(stored);
        loop {
            let done = match self.read(holder).await {
                Ok(mut read) => {
                    read.entry.replace(pair.clone());
                    if let Means::Key { configured } = &**holder.means.load() {
                        read.entry.replaces = Some(configured.clone());
                    }
                    let swapped = self.swap(holder, &mut read).await;
                    swapped.map(|swapped| swapped.then(|| self.publish(holder, &read.entry, Some(received))))
                }
                Err(fault) => Err(fault),
            };
            match done {
                Ok(Some(())) => {
                    let _ = stored.take().map(|stored| stored.send(true));
                    return;
                }
                Ok(None) => {}
                Err(fault) => {
                    tracing::error!(credential = %holder.name, %fault, "new tokens are not stored yet");
                    let entry = Entry { generation, current: Some(pair.clone()), ..Entry::default() };
                    self.publish(holder, &entry, Some(received));
                    let _ = stored.take().map(|stored| stored.send(false));
                    sleep(rest).await;
                    rest = (rest * 2).min(STORE_REST);
                }
            }
        }
    }

    /// The record of a credential. Of one that is of something else only the generation counts.
    async fn read(&self, holder: &Holder) -> Result<Read, StoreFault> {
        let name = holder.name.to_string();
        let Some(kept) = self.vault.get(&name).await? else {
            return Ok(Read { entry: Entry::default(), version: None });
        };
        let damaged =
            || StoreFault::Damaged { name: name.clone(), why: "it is of another version of calgate".to_owned() };
        let mut entry = Entry::from_bytes(&kept.plain).ok_or_else(damaged)?;
        if !entry.is_of(&holder.means.load()) {
            entry = Entry { generation: entry.generation, ..Entry::default() };
        }
        Ok(Read { entry, version: Some(kept.version) })
    }

    /// Stores the record, unless it changed since it was read.
    async fn swap(&self, holder: &Holder, read: &mut Read) -> Result<bool, StoreFault> {
        let swapped = self.vault.swap(&holder.name.to_string(), read.version, &read.entry.to_bytes()).await?;
        if swapped {
            read.version = Some(read.version.unwrap_or(0) + 1);
        }
        Ok(swapped)
    }

    /// What `entry` means for this process. A token that is known already keeps the life it was first given.
    fn live(&self, holder: &Holder, entry: &Entry, received: Option<Tick>) -> Live {
        let known = holder.live();
        let same = known.generation == entry.generation && known.bearer.is_some();
        let received = received.or_else(|| same.then_some(known.received));
        let age = entry.age(wall());
        let jitter = self.holders.jitter(&holder.name, entry.generation);
        Live::of(entry, received, age, self.holders.now(), jitter)
    }

    fn publish(&self, holder: &Holder, entry: &Entry, received: Option<Tick>) {
        let known = holder.live();
        let mut live = self.live(holder, entry, received);
        (live.looks, live.looked) = (holder.taken(), self.holders.now());
        let same = live.generation == known.generation;
        live.by_refusal =
            if same { known.by_refusal } else { known.generation > 0 && holder.refused() >= known.generation };
        if live.needs_login.is_some() && can_recover(holder) {
            let why = Trouble::Upstream("recovering was refused".to_owned());
            live.trouble = Some((why, self.after(RECOVER_AGAIN)));
        }
        if live.generation != known.generation {
            holder.used.store(false, Ordering::Relaxed);
        }
        if let Some(why) = &live.needs_login
            && known.needs_login.is_none()
        {
            tracing::error!(credential = %holder.name, %why, "a credential needs a login");
        }
        holder.publish(live);
    }

    fn after(&self, rest: Duration) -> Tick {
        Tick(self.holders.now().0.saturating_add(nanos(rest)))
    }

    /// Makes known that it was looked at, and that nothing is different.
    fn publish_again(&self, holder: &Holder) {
        let known = holder.live();
        holder.publish(Live { looks: holder.taken(), looked: self.holders.now(), ..(*known).clone() });
    }

    fn publish_trouble(&self, holder: &Holder, trouble: Trouble) {
        let known = holder.live();
        let failures = known.failures.saturating_add(1);
        let rest = if trouble == Trouble::Absent { LOOK_AGAIN } else { rest_after(failures) };
        if known.trouble.as_ref().map(|(known, _)| known) != Some(&trouble) {
            let credential = holder.name.to_string();
            if trouble == Trouble::Absent {
                let todo = way_back(&credential);
                tracing::warn!(
                    credential,
                    todo,
                    "nothing is stored for a credential; what is stored later is taken up by itself"
                );
            } else {
                tracing::warn!(credential, %trouble, "a credential cannot be renewed; its token serves while it lasts");
            }
        }
        let trouble = Some((trouble, self.after(rest)));
        let live = Live { looks: holder.taken(), looked: self.holders.now(), failures, trouble, ..(*known).clone() };
        let remembered = known.bearer.is_some() || matches!(live.trouble, Some((Trouble::Upstream(_), _)));
        holder.publish(live);
        if !remembered && holder.name.user.is_some() {
            // Users nobody knows are not remembered: their number is the callers' to choose.
            self.holders.forget(&holder.name);
        }
    }
}

impl From<StoreFault> for Trouble {
    fn from(fault: StoreFault) -> Self {
        Self::Store(fault.to_string())
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn can_recover(holder: &Holder) -> bool {
    matches!(&**holder.means.load(), Means::Managed(managed) if managed.recover)
}

/// Milliseconds since 1970 by this machine's calendar, which may be wrong.
pub fn wall() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    u64::try_from(now).unwrap_or(u64::MAX).saturating_add_signed(probe::clock_offset())
}
