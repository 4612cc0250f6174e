//! Memory of rejected requests for which a renewed token does not help.
//!
//! A 401 is not always about the token: Cal.com answers `GET /v2/oauth-clients` with 401 `Organization ID not found`
//! (FACTS §1). A renewal for such a refusal is wasted. It also ends the pair of a managed user elsewhere. This module
//! remembers, for one credential, which requests were refused with the renewed token too.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::request;
use parking_lot::{Mutex, MutexGuard};

use crate::time::MonoTime;

/// Maximum number of remembered requests. Beyond it, the oldest one is forgotten.
const CAPACITY: usize = 64;

/// Time for which a request is remembered. After it, one more renewal shows whether the refusal is still about the resource.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// Minimum time between two renewals for refusals after two that did not help. It doubles with each further one, because a
/// client may name a new resource in every request.
const FIRST_PAUSE: Duration = Duration::from_secs(20);

/// Upper bound of that time: a token that is revoked meanwhile is renewed after it.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Rejected requests of one credential.
#[derive(Debug, Default)]
pub struct Rejections {
    /// Whether `state` holds anything. Every response reads it, and takes the lock only if it does.
    in_use: AtomicBool,
    state: Mutex<State>,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct State {
    /// Requests that a renewed token did not help, oldest first, and when each is forgotten.
    lasting: VecDeque<(RequestId, MonoTime)>,
    /// The request that caused the last renewal, and the generation of the token it was refused with.
    cause: Option<(RequestId, u64)>,
    /// Consecutive renewals that did not help.
    wasted: u32,
    /// The generation that the last of them brought, and when its refusal came.
    last_wasted: (u64, MonoTime),
}

/// Hash of a request's method and target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestId(u64);

impl Rejections {
    /// Returns the identity of a request.
    pub fn request(&self, head: &request::Parts) -> RequestId {
        let target = head.uri.path_and_query().map(http::uri::PathAndQuery::as_str);
        RequestId(self.hasher.hash_one((&head.method, target)))
    }

    /// Returns whether a renewal does not help this request, which was refused with the token of `generation`.
    /// `settled` says that all of Cal.com knows that token by now.
    pub fn is_lasting(&self, request: RequestId, generation: u64, settled: bool, now: MonoTime) -> bool {
        if !self.in_use.load(Ordering::Relaxed) {
            return false;
        }
        let mut state = self.state();
        state.lasting.retain(|(_, until)| now < *until);
        if state.lasting.iter().any(|(known, _)| *known == request) {
            return true;
        }
        let renewed_for_it = state.cause.is_some_and(|(cause, refused)| cause == request && refused < generation);
        if settled && renewed_for_it {
            state.cause = None;
            state.lasting.push_back((request, now.after(REMEMBERED)));
            if state.lasting.len() > CAPACITY {
                state.lasting.pop_front();
            }
            return true;
        }
        settled && now.since(state.last_wasted.1) < pause_after(state.wasted)
    }

    /// Records that the token of `generation` is renewed because this request was refused.
    pub fn note_renewal(&self, request: RequestId, generation: u64) {
        self.state().cause = Some((request, generation));
        self.in_use.store(true, Ordering::Relaxed);
    }

    /// Records the outcome of the second try, with the token of `generation`.
    pub fn note_retry(&self, request: RequestId, generation: u64, refused: bool, now: MonoTime) {
        if !refused {
            return self.note_accepted(request, true);
        }
        let mut state = self.state();
        let renewed_for_it = state.cause.is_some_and(|(cause, refused)| cause == request && refused < generation);
        if renewed_for_it && state.last_wasted.0 != generation {
            let is_recent = now.since(state.last_wasted.1) < REMEMBERED;
            state.wasted = if is_recent { state.wasted.saturating_add(1) } else { 1 };
            state.last_wasted = (generation, now);
        }
    }

    /// Records that a request was not refused. `renewed` says that a renewal for it came before.
    pub fn note_accepted(&self, request: RequestId, renewed: bool) {
        let mut state = self.state();
        state.lasting.retain(|(known, _)| *known != request);
        if state.cause.is_some_and(|(cause, _)| cause == request) {
            state.cause = None;
            state.wasted = if renewed { 0 } else { state.wasted };
        }
        let in_use = !state.lasting.is_empty() || state.cause.is_some() || state.wasted > 0;
        self.in_use.store(in_use, Ordering::Relaxed);
    }

    /// Returns whether anything is remembered, without a lock.
    pub fn is_in_use(&self) -> bool {
        self.in_use.load(Ordering::Relaxed)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

/// Returns the minimum time to the next renewal after `wasted` consecutive wasted ones. The first wasted renewal causes no
/// pause, because the next rejection may be about the token.
fn pause_after(wasted: u32) -> Duration {
    wasted.checked_sub(2).map_or(Duration::ZERO, |more| (FIRST_PAUSE * (1 << more.min(8))).min(LONGEST_PAUSE))
}
