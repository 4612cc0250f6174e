//! File descriptors: as many as the system gives, and no more connections at once than they are enough for.
//!
//! Without one, a caller's request cannot go on to Cal.com, and an operator cannot even ask why.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::app::Gateway;

/// Those that are no caller's: operators' connections, callers that are turned away, files, calls of the gateway's own.
const RESERVE: u64 = 200;

/// Those that a worker has of its own: its listener and its runtime.
const PER_WORKER: u64 = 6;

/// Takes as many descriptors as this process may have, and has `gateway` take no more connections than that.
pub(super) fn make_room(gateway: &Gateway, workers: usize) {
    gateway.set_room(room(raised(), workers));
    warn_where_short(gateway);
}

/// Raises the soft limit to the hard one. Answers what it is in the end.
fn raised() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum && setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok() {
        return maximum.unwrap_or(u64::MAX);
    }
    current.unwrap_or(u64::MAX)
}

/// For how many callers so many are enough: each may need a connection to Cal.com beside its own.
fn room(descriptors: u64, workers: usize) -> usize {
    let reserve = (workers as u64).saturating_mul(PER_WORKER).saturating_add(RESERVE);
    usize::try_from(descriptors.saturating_sub(reserve) / 2).unwrap_or(usize::MAX).max(1)
}

/// Tells the operator where the configuration has room for more than the system has.
pub(super) fn warn_where_short(gateway: &Gateway) {
    let (room, app) = (gateway.room(), gateway.app());
    if room < app.limits.connections.max(app.limits.in_flight) {
        tracing::warn!(
            at_once = room,
            "limits.connections and limits.in_flight are more than the limit of open files is enough for, and no more than \
             this are taken: raise the hard limit (ulimit -Hn), or lower them"
        );
    }
}
