//! Limit of open files: raises it, and caps connections and requests to fit it.
//!
//! Without a free file descriptor, the gateway can neither forward a request nor accept an operator's connection.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::forward;
use crate::gateway::Gateway;

/// File descriptors for other purposes than clients, 200: the admin listener, 503 replies, files and the gateway's own requests.
const RESERVE: usize = 200;

/// File descriptors of a worker for its listening socket and its runtime, 6.
const PER_WORKER: usize = 6;

/// Fraction of the free descriptors for idle connections to Cal.com, 1/8. A new connection costs a few round trips, but a missing
/// descriptor costs a request.
const IDLE_PART: usize = 8;

/// Raises the limit of open files, and caps the connections and requests of `gateway` to fit it. Logs a warning if the configured
/// limits are higher.
pub(super) fn fit_limits(gateway: &Gateway, workers: usize) {
    let free = raise_soft_limit().saturating_sub(workers.saturating_mul(PER_WORKER).saturating_add(RESERVE));
    let idle = (free / IDLE_PART / workers.max(1)).min(forward::MAX_IDLE_LIMIT);
    forward::set_max_idle(idle);
    let free = free.saturating_sub(idle.saturating_mul(workers));
    let snapshot = gateway.snapshot();
    let wanted = (snapshot.bounds.connections, snapshot.bounds.in_flight);
    let (connections, in_flight) = split(free, wanted.0, wanted.1);
    gateway.capacity.set_max(connections, in_flight);
    if (connections, in_flight) != wanted {
        tracing::warn!(
            connections,
            in_flight,
            "the limit of open files is too low for limits.connections and limits.in_flight, which are reduced to these values: \
             raise the hard limit (ulimit -Hn) or lower the two keys"
        );
    }
}

/// Raises the soft limit to the hard limit. Returns the resulting limit.
fn raise_soft_limit() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let is_raised = current != maximum && setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok();
    let limit = if is_raised { maximum } else { current };
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

/// Splits `free` descriptors between connections and requests in flight. A connection needs one, and a request needs another for
/// its connection to Cal.com. Each side receives half, and the part that the other side does not need.
fn split(free: usize, connections: usize, in_flight: usize) -> (usize, usize) {
    let half = (free / 2).max(1);
    let left_by = |other: usize| free.saturating_sub(other.min(half)).max(1);
    (connections.min(left_by(in_flight)), in_flight.min(left_by(connections)))
}
