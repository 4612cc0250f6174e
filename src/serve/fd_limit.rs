//! Raises the limit of open files, and lowers the limit of connections to what it allows.
//!
//! Without one, a caller's request cannot go on to Cal.com, and an operator cannot even ask why.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::forward;
use crate::gateway::Gateway;

/// Those that are no caller's: operators' connections, callers that are turned away, files, calls of the gateway's own.
const RESERVE: usize = 200;

/// Those that a worker has of its own: its listener and its runtime.
const PER_WORKER: usize = 6;

/// Part of the free descriptors that idle connections to Cal.com may take, an eighth: a new one costs a few round trips, a
/// descriptor that is missing costs a request.
const IDLE_PART: usize = 8;

/// Takes as many descriptors as this process may have, and has `gateway` take no more connections and requests than they are
/// enough for; tells the operator where the configuration has room for more.
pub(super) fn make_room(gateway: &Gateway, workers: usize) {
    let free = raised().saturating_sub(workers.saturating_mul(PER_WORKER).saturating_add(RESERVE));
    let idle = (free / IDLE_PART / workers.max(1)).min(forward::MAX_IDLE_LIMIT);
    forward::set_max_idle(idle);
    let free = free.saturating_sub(idle.saturating_mul(workers));
    let snapshot = gateway.snapshot();
    let wanted = (snapshot.bounds.connections, snapshot.bounds.in_flight);
    let (connections, in_flight) = shares(free, wanted.0, wanted.1);
    gateway.capacity.set_max(connections, in_flight);
    if (connections, in_flight) != wanted {
        tracing::warn!(
            connections,
            in_flight,
            "limits.connections and limits.in_flight are more than the limit of open files is enough for, and no more than \
             this are taken: raise the hard limit (ulimit -Hn), or lower them"
        );
    }
}

/// Raises the soft limit to the hard one. Answers what it is in the end.
fn raised() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let is_raised = current != maximum && setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok();
    let limit = if is_raised { maximum } else { current };
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

/// How many connections and requests in flight so many descriptors are enough for: each connection needs one, and each
/// request another, towards Cal.com. Each has half of them, and what the other does not need.
fn shares(free: usize, connections: usize, in_flight: usize) -> (usize, usize) {
    let half = (free / 2).max(1);
    let left_by = |other: usize| free.saturating_sub(other.min(half)).max(1);
    (connections.min(left_by(in_flight)), in_flight.min(left_by(connections)))
}
