//! Resolver of the upstream's name: shares lookups, limits their time and falls back on the last good addresses.
//!
//! It uses the system's resolver, because containers rely on `/etc/hosts`, search domains and `nsswitch.conf`. The system's
//! resolver repeats a lost packet only after 5 s (resolv.conf(5)). A second lookup that starts earlier makes up for that.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::time::{Clock, OncePerSecond};

/// Time limits of lookups and of their results.
#[derive(Debug, Clone, Copy)]
pub struct LookupTimes {
    /// Time for which addresses are used without another lookup. A failed lookup is not repeated for the same time if older
    /// addresses are known.
    pub fresh: Duration,
    /// Maximum wait for a lookup if older addresses are known. They are used after it.
    pub late: Duration,
    /// Delays after which a second and a third lookup start beside one without a result.
    pub repeat: [Duration; 2],
}

impl Default for LookupTimes {
    /// Returns 5 s, 500 ms, and repeats after 1 s and 2 s more. The system's own repeat would come after 5 s.
    fn default() -> Self {
        let repeat = [Duration::from_secs(1), Duration::from_secs(2)];
        Self { fresh: Duration::from_secs(5), late: Duration::from_millis(500), repeat }
    }
}

/// Lookup in progress.
type Lookup = BoxFuture<'static, io::Result<Vec<SocketAddr>>>;

/// Addresses, or the reason why there are none.
type LookupResult = Result<Arc<[SocketAddr]>, Arc<str>>;

/// Resolver of one host name.
pub struct Resolver {
    /// Address of a host that is configured as an address.
    literal: Option<Arc<[SocketAddr]>>,
    lookup: Box<dyn Fn() -> Lookup + Send + Sync>,
    times: LookupTimes,
    state: Mutex<State>,
    clock: Clock,
    /// Limits warnings about failed lookups to one per second.
    warning_gate: OncePerSecond,
}

#[derive(Default)]
struct State {
    /// Addresses of the last successful lookup.
    last_good: Option<Arc<[SocketAddr]>>,
    /// Time until which they are used without another lookup.
    fresh_until: Option<Instant>,
    /// Lookup in progress.
    running: Option<watch::Receiver<Option<LookupResult>>>,
}

impl Resolver {
    /// Creates a resolver of `host` that uses the system's resolver.
    pub(super) fn system(host: &str, port: u16) -> Arc<Self> {
        let host = host.to_owned();
        let literal = host.parse::<IpAddr>().ok().map(|address| Arc::from([SocketAddr::from((address, port))]));
        let lookup = move || -> Lookup {
            let host = host.clone();
            Box::pin(async move { Ok(tokio::net::lookup_host((host.as_str(), port)).await?.collect()) })
        };
        Arc::new(Self { literal, ..Self::of(lookup, LookupTimes::default()) })
    }

    /// Creates a resolver that uses `lookup`.
    pub fn new(lookup: impl Fn() -> Lookup + Send + Sync + 'static, times: LookupTimes) -> Arc<Self> {
        Arc::new(Self::of(lookup, times))
    }

    fn of(lookup: impl Fn() -> Lookup + Send + Sync + 'static, times: LookupTimes) -> Self {
        Self {
            literal: None,
            lookup: Box::new(lookup),
            times,
            state: Mutex::default(),
            clock: Clock::start(),
            warning_gate: OncePerSecond::default(),
        }
    }

    /// Returns the addresses of the host. Without fresh ones, it waits up to `within` for a lookup.
    ///
    /// # Errors
    /// The reason why there are no addresses.
    pub async fn addresses(self: &Arc<Self>, within: Duration) -> Result<Arc<[SocketAddr]>, String> {
        if let Some(literal) = &self.literal {
            return Ok(literal.clone());
        }
        let (known, mut answer) = {
            let mut state = self.state();
            let is_fresh = state.fresh_until.is_some_and(|until| Instant::now() < until);
            if let Some(last_good) = state.last_good.as_ref().filter(|_| is_fresh) {
                return Ok(last_good.clone());
            }
            // The worker that ran the last lookup may have ended before it.
            let running = state.running.take().filter(|running| running.has_changed().is_ok());
            let running = running.unwrap_or_else(|| self.start_lookup());
            state.running = Some(running.clone());
            (state.last_good.clone(), running)
        };
        // If older addresses are known, the shorter of both times applies.
        let (wait, limit) = match &known {
            Some(_) if self.times.late < within => (self.times.late, "the wait where older addresses are known"),
            _ => (within, "limits.upstream_lookup"),
        };
        let answer = timeout(wait, answer.wait_for(Option::is_some)).await;
        let why = match answer {
            Ok(Ok(answer)) => match answer.as_ref() {
                Some(Ok(found)) => return Ok(found.clone()),
                Some(Err(why)) => why.to_string(),
                None => String::new(),
            },
            Ok(Err(_)) => "the lookup was given up".to_owned(),
            Err(_) => format!("no answer within {} ms ({limit})", wait.as_millis()),
        };
        let Some(known) = known else { return Err(format!("the name cannot be looked up: {why}")) };
        let mut state = self.state();
        // The next requests need not wait for a lookup too.
        state.fresh_until = Instant::now().checked_add(self.times.fresh);
        drop(state);
        if self.warning_gate.try_start(self.clock.now()) {
            tracing::warn!(why, "upstream name lookup failed; its last known addresses are used");
        }
        Ok(known)
    }

    /// Makes the next connection look the name up again, because its addresses may have changed.
    pub fn expire(&self) {
        self.state().fresh_until = None;
    }

    /// Starts a lookup, which continues even if no request waits for it any more.
    #[expect(clippy::disallowed_methods, reason = "a lookup outlives its request and ends by its time limit")]
    fn start_lookup(self: &Arc<Self>) -> watch::Receiver<Option<LookupResult>> {
        let (tell, answer) = watch::channel(None);
        let resolver = self.clone();
        tokio::spawn(async move {
            let found = resolver.look_up().await;
            let mut state = resolver.state();
            if let Ok(addresses) = &found {
                state.last_good = Some(addresses.clone());
                state.fresh_until = Instant::now().checked_add(resolver.times.fresh);
            }
            state.running = None;
            drop(state);
            tell.send_replace(Some(found));
        });
        answer
    }

    /// Looks the name up, and starts further lookups beside it while there is no result. The first success counts.
    async fn look_up(&self) -> LookupResult {
        let mut lookups = FuturesUnordered::from_iter([(self.lookup)()]);
        let mut repeats = self.times.repeat.into_iter();
        let mut next = repeats.next();
        loop {
            let answer = tokio::select! {
                answer = lookups.next() => answer,
                () = sleep(next.unwrap_or_default()), if next.is_some() => {
                    lookups.push((self.lookup)());
                    next = repeats.next();
                    continue;
                }
            };
            match answer {
                Some(Ok(found)) if !found.is_empty() => return Ok(found.into()),
                Some(Err(fault)) if lookups.is_empty() => return Err(fault.to_string().into()),
                None | Some(Ok(_)) if lookups.is_empty() => return Err("it has no address".into()),
                _ => {}
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}
