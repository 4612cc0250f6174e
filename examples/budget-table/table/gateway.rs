//! The three limiters under comparison, behind one interface for the simulation.

use std::collections::BTreeMap;
use std::time::Duration;

use calgate::limit_store::RequestOutcome;
use calgate::ratelimit::Settings;
use calgate::ratelimit::fair_queue::{Flow, Priority, Ticket};
use calgate::ratelimit::limiter::{BudgetLimiter, BudgetStatus, Decision, InFlight, Wakeup};
use calgate::ratelimit::usage_headers::{LimitReading, LimitReadings, UpstreamOutcome, name_hash};
use calgate::time::MonoTime;

use super::cell::{Cell, WINDOW};
use super::limiter;
use super::shared::Shared;

/// Maximum wait of a request.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Limiter under comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Budget of calgate.
    Budget,
    /// Token bucket of size N that refills N tokens per minute. Refuses requests if it is empty.
    Bucket,
    /// Spacer that sends one request every 60 s / (N − 1). Other requests wait up to the maximum wait.
    Spacer,
}

/// Gateway of the simulation.
pub enum Gateway {
    /// Budget of calgate with its waiting requests.
    Budget(Box<BudgetLimiter>, BTreeMap<Ticket, usize>),
    /// Budget of calgate on a store that all gateways share.
    Shared(Box<Shared>),
    /// Time at which the bucket is full.
    Bucket(MonoTime),
    /// Earliest time of the next request.
    Spacer(MonoTime),
}

/// Decision of a gateway about a request.
pub enum Said {
    /// The request is sent at once. calgate needs a report of its end.
    Go(Option<InFlight>),
    /// The request is sent at this time.
    Later(MonoTime),
    /// The request waits.
    Wait(Ticket),
    /// The request is refused.
    Refused,
}

impl Gateway {
    /// Creates a gateway of `cell`.
    pub fn new(cell: &Cell, policy: Policy, index: u32) -> Self {
        let settings = Settings { limit: cell.limit, window: WINDOW, replicas: cell.gateways, learn_limit: false };
        match policy {
            Policy::Budget => {
                Self::Budget(Box::new(BudgetLimiter::new(settings, u64::from(index) + 1)), BTreeMap::new())
            }
            Policy::Bucket => Self::Bucket(MonoTime(0)),
            Policy::Spacer => Self::Spacer(MonoTime(0)),
        }
    }

    /// Decides about a new request of `consumer`.
    pub fn ask(&mut self, cell: &Cell, request: usize, consumer: usize, now: MonoTime) -> Said {
        match self {
            Self::Budget(limiter, waiting) => {
                limiter.record_arrival(&flow(consumer), now);
                match limiter.admit(&flow(consumer), PATIENCE, now) {
                    Decision::Admit(flight) => Said::Go(Some(flight)),
                    Decision::Queue(ticket, _) => {
                        waiting.insert(ticket, request);
                        Said::Wait(ticket)
                    }
                    Decision::Reject(_) => Said::Refused,
                }
            }
            Self::Shared(shared) => shared.ask(request, &flow(consumer), now),
            Self::Bucket(full) => {
                let next = (*full).max(now).after(WINDOW / cell.limit);
                if next > now.after(WINDOW) {
                    return Said::Refused;
                }
                *full = next;
                Said::Go(None)
            }
            Self::Spacer(free) => {
                let at = (*free).max(now);
                if at > now.after(PATIENCE) {
                    return Said::Refused;
                }
                *free = at.after(WINDOW / (cell.limit - 1));
                Said::Later(at)
            }
        }
    }

    /// Returns the next waiting request that may be sent, or the time of the next poll.
    pub fn next(&mut self, now: MonoTime) -> Option<Result<(usize, InFlight), MonoTime>> {
        let (limiter, waiting) = match self {
            Self::Budget(limiter, waiting) => (limiter, waiting),
            Self::Shared(shared) => return shared.next(now),
            Self::Bucket(_) | Self::Spacer(_) => return None,
        };
        match limiter.poll_next(now) {
            Wakeup::Admit(ticket, flight) => Some(Ok((waiting.remove(&ticket)?, flight))),
            Wakeup::At(at) => Some(Err(at)),
            Wakeup::Idle => None,
        }
    }

    /// Ends the wait of a request. Returns whether it was still waiting.
    pub fn leave(&mut self, ticket: Ticket, consumer: usize) -> bool {
        let (limiter, waiting) = match self {
            Self::Budget(limiter, waiting) => (limiter, waiting),
            Self::Shared(shared) => return shared.leave(ticket, &flow(consumer)),
            Self::Bucket(_) | Self::Spacer(_) => return false,
        };
        waiting.remove(&ticket);
        limiter.cancel(ticket, &flow(consumer))
    }

    /// Records the response to a request.
    pub fn answered(&mut self, request: usize, flight: &InFlight, verdict: &limiter::Verdict, now: MonoTime) {
        let seen = |standing: &limiter::Standing| LimitReading {
            name: name_hash(&standing.name),
            limit: Some(standing.limit),
            remaining: standing.remaining,
            reset: Duration::from_secs(standing.reset_seconds),
        };
        let told = LimitReadings { limits: verdict.standings.iter().map(seen).collect(), has_implausible: false };
        let refused = UpstreamOutcome::Refused { retry_after: None };
        let verdict = if verdict.refused { refused } else { UpstreamOutcome::Passed };
        if let Self::Shared(shared) = self {
            shared.settle(request, RequestOutcome::answered(now.since(flight.sent()), verdict, told.clone()), now);
        }
        if let Some(limiter) = self.limiter() {
            limiter.record_response(flight, verdict, &told, now);
        }
    }

    /// Returns the status of the budget.
    pub fn standing(&mut self, now: MonoTime) -> Option<BudgetStatus> {
        self.limiter().map(|limiter| limiter.status(now))
    }

    fn limiter(&mut self) -> Option<&mut BudgetLimiter> {
        match self {
            Self::Budget(limiter, _) => Some(limiter),
            Self::Shared(shared) => Some(shared.limiter()),
            Self::Bucket(_) | Self::Spacer(_) => None,
        }
    }
}

fn flow(consumer: usize) -> Flow {
    Flow { key: consumer as u64, weight: 120, priority: Priority::Default }
}
