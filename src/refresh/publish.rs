//! Makes the state of a credential known to the requests that use it or wait for it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::credential::lifecycle::rest_after;
use crate::credential::stored_token::Entry;
use crate::credential::token_state::{Holder, Live, Trouble};
use crate::refresh::{Keeper, LOOK_AGAIN, RECOVER_AGAIN, can_recover, wall};
use crate::refusal::recovery_hint;
use crate::time::{MonoTime, nanoseconds};

impl Keeper {
    /// What `entry` means for this process. A token that is known already keeps the life it was first given.
    pub(super) fn live(&self, holder: &Holder, entry: &Entry, received: Option<MonoTime>) -> Live {
        let known = holder.live();
        let same = known.has_token_of(entry) && known.bearer.is_some();
        let received = received.or_else(|| same.then_some(known.received));
        let age = entry.age(wall());
        let jitter = self.holders.jitter(&holder.name, entry.generation);
        Live::of(entry, received, age, self.holders.now(), jitter)
    }

    pub(super) fn publish(&self, holder: &Holder, entry: &Entry, received: Option<MonoTime>) {
        let mut live = self.live(holder, entry, received);
        if can_recover(holder) {
            // More than a login helps, once somebody needs it.
            live.needs_login = None;
        }
        self.publish_live(holder, live, received.is_some());
    }

    /// Makes known that nothing but a login helps: a recovery, where one is allowed, was refused.
    pub(super) fn publish_lost(&self, holder: &Holder, entry: &Entry) {
        let mut live = self.live(holder, entry, None);
        if can_recover(holder) {
            let why = Trouble::Upstream("recovering was refused".to_owned());
            live.trouble = Some((why, self.after(RECOVER_AGAIN)));
        }
        self.publish_live(holder, live, false);
    }

    fn publish_live(&self, holder: &Holder, mut live: Live, received: bool) {
        let known = holder.live();
        (live.looks, live.looked) = (holder.taken(), self.holders.now());
        let same = live.generation == known.generation && live.bearer == known.bearer;
        live.by_refusal =
            if same { known.by_refusal } else { known.generation > 0 && holder.refused() >= known.generation };
        // The first that is read is no renewal: who waits for it has yet to see it renewed.
        if received || (!same && known.generation > 0) {
            holder.used.store(false, Ordering::Relaxed);
        }
        if let Some(why) = &live.needs_login
            && known.needs_login.is_none()
        {
            tracing::error!(credential = %holder.name, %why, "a credential needs a login");
        }
        holder.publish(live);
    }

    fn after(&self, rest: Duration) -> MonoTime {
        MonoTime(self.holders.now().0.saturating_add(nanoseconds(rest)))
    }

    /// Makes known that it was looked at, and that nothing is different.
    pub(super) fn publish_again(&self, holder: &Holder) {
        let known = holder.live();
        holder.publish(Live { looks: holder.taken(), looked: self.holders.now(), ..(*known).clone() });
    }

    pub(super) fn publish_trouble(&self, holder: &Holder, trouble: Trouble) {
        let known = holder.live();
        let failures = known.failures.saturating_add(1);
        let rest = if trouble == Trouble::Absent { LOOK_AGAIN } else { rest_after(failures) };
        if known.trouble.as_ref().map(|(known, _)| known) != Some(&trouble) {
            let credential = holder.name.to_string();
            if trouble == Trouble::Absent {
                let todo = recovery_hint(&credential);
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
