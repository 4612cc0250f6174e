//! Fleet: several gateways on one credential and one store, in front of a simulated Cal.com, and their clients.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use super::{Gateway, Key, Response, Setup, client_builder};
use crate::cal_sim::Sim;
use crate::cal_sim::options::{DEMO_API_KEY, Options};
use crate::ratelimit::table::random::Random;

/// Settings of a fleet.
pub struct Terms {
    /// Number of gateways.
    pub gateways: usize,
    /// Requests that Cal.com grants in a window, and the window.
    pub limit: u32,
    pub window: Duration,
    /// Whether Cal.com prolongs windows now and then.
    pub quirk: bool,
    /// Requests per minute of another client of the credential.
    pub others: u32,
    /// Further lines of configuration.
    pub config: String,
    /// Requests per minute of the consumer's tier.
    pub per_minute: u32,
}

/// Gateways in front of one Cal.com.
pub struct Fleet {
    pub sim: Sim,
    pub gateways: Vec<Gateway>,
    key: Key,
    _alone: Option<MutexGuard<'static, ()>>,
}

/// One large fleet at a time, because two of them would measure the machine.
static ALONE: Mutex<()> = Mutex::new(());

/// Results of requests.
#[derive(Debug, Default)]
pub struct Tally {
    /// Number of responses by status and code of the gateway.
    pub answers: BTreeMap<(u16, String), usize>,
    /// Durations of the responses with status 200.
    pub took: Vec<Duration>,
}

impl Fleet {
    /// Starts the gateways. `store` returns the lines of `[limit_store]` for each of them.
    pub fn start(terms: &Terms, store: impl Fn(usize) -> String) -> Self {
        Self::start_with_env(terms, store, |_| Vec::new())
    }

    /// Starts the gateways with variables in the environment of each.
    pub fn start_with_env(
        terms: &Terms,
        store: impl Fn(usize) -> String,
        environment: impl Fn(usize) -> Vec<(&'static str, String)>,
    ) -> Self {
        let alone = (terms.gateways > 2).then(|| ALONE.lock());
        let mut options =
            Options { latency: Duration::from_millis(10), jitter: Duration::from_millis(20), ..Options::default() };
        options.limits.window = terms.window;
        options.limits.block = terms.window;
        options.limits.quirk = terms.quirk;
        options.limits.foreign_per_minute = terms.others;
        options.limits.api_key = vec![("Default".to_owned(), terms.limit)];
        let (sim, key) = (Sim::start(options).unwrap(), Key::new());
        let per_minute = u128::from(terms.limit) * 60_000 / terms.window.as_millis();
        let gateway = |index| {
            let setup = Setup::to(&sim.base_url()).workers(1).env("CAL_TEST_KEY", DEMO_API_KEY);
            let set = |setup: Setup, (name, value): (&str, String)| setup.env(name, &value);
            environment(index)
                .into_iter()
                .fold(setup, set)
                .with(&format!(
                    "[credentials.main]\nkind = \"api-key\"\napi_key = {{ env = \"CAL_TEST_KEY\" }}\n\
                     plan = \"unrestricted\"\nrequests_per_minute = {per_minute}\n\
                     [tiers.roomy]\nrequests_per_minute = {}\n\
                     [consumers.billing]\nkeys = [\"{}\"]\ncredential = \"main\"\ntier = \"roomy\"\n\
                     [budget]\nwindow = \"{}ms\"\n{}\n[limit_store]\n{}\n",
                    terms.per_minute,
                    key.hash,
                    terms.window.as_millis(),
                    terms.config,
                    store(index),
                ))
                .start()
        };
        Self { gateways: (0..terms.gateways).map(gateway).collect(), sim, key, _alone: alone }
    }

    /// Sends one request to a gateway. Returns the status and the code of the gateway.
    pub fn ask(&self, gateway: usize) -> (u16, String) {
        let answer = self.answer(gateway);
        (answer.status, answer.code().unwrap_or_default().to_owned())
    }

    /// Sends one request to a gateway. Returns the whole response.
    pub fn answer(&self, gateway: usize) -> Response {
        self.gateways[gateway].ask("GET /v2/me", &[&format!("x-api-key: {}", self.key.text)])
    }

    /// Returns the time of day of one gateway, in seconds since 1970. It is in the id of each request.
    pub fn time_of(&self, gateway: usize) -> i64 {
        let answer = self.answer(gateway);
        let id = uuid::Uuid::parse_str(answer.header("x-request-id").unwrap()).unwrap();
        i64::try_from(id.get_timestamp().unwrap().to_unix().0).unwrap()
    }

    /// Keeps `callers` busy for at least `length` and until `meanwhile` returns. Each asks the gateways in turn, waits for each
    /// response and pauses between its requests.
    pub fn load(&self, callers: usize, pause: Duration, length: Duration, meanwhile: impl FnOnce()) -> Tally {
        let (line, start, over) = (self.client(), Instant::now(), Arc::new(AtomicBool::new(false)));
        let caller = |number: usize| {
            let (line, over) = (line.clone(), over.clone());
            async move {
                let mut answers = Vec::new();
                let mut turn = number;
                while start.elapsed() < length || !over.load(Ordering::Relaxed) {
                    answers.push(line.ask(turn).await);
                    turn += 1;
                    tokio::time::sleep(pause).await;
                }
                answers
            }
        };
        tally((0..callers).map(caller).collect(), || {
            meanwhile();
            over.store(true, Ordering::Relaxed);
        })
    }

    /// Sends `per_second` requests at random moments (a Poisson process). Each goes to the next gateway.
    pub fn random_load(&self, per_second: f64, length: Duration, meanwhile: impl FnOnce()) -> Tally {
        let (line, start, mut random) = (self.client(), tokio::time::Instant::now(), Random::new(7));
        let mut at = Duration::ZERO;
        let gaps = std::iter::from_fn(|| {
            at += random.exponential(Duration::from_secs_f64(1.0 / per_second));
            (at < length).then_some(at)
        });
        let request = |(number, at)| {
            let line = line.clone();
            async move {
                tokio::time::sleep_until(start + at).await;
                vec![line.ask(number).await]
            }
        };
        tally(gaps.enumerate().map(request).collect(), meanwhile)
    }

    /// Returns how often all gateways together marked the store unavailable.
    pub fn losses(&self) -> u64 {
        self.gateways.iter().map(|gateway| gateway.metric("calgate_sharing_losses_total", "")).sum()
    }

    fn client(&self) -> FleetClient {
        let urls = self.gateways.iter().map(|gateway| format!("http://{}/v2/me", gateway.address)).collect();
        FleetClient { urls, client: client_builder().build().unwrap(), key: self.key.text.clone() }
    }
}

/// Duration of one request, its status and the code of the gateway.
type Timed = (Duration, (u16, String));

/// Client of all gateways.
#[derive(Clone)]
struct FleetClient {
    urls: Vec<String>,
    client: reqwest::Client,
    key: String,
}

impl FleetClient {
    async fn ask(&self, turn: usize) -> Timed {
        let asked = Instant::now();
        let url = &self.urls[turn % self.urls.len()];
        let answer = self.client.get(url).header("x-api-key", &self.key).send().await.map(|answer| {
            let code = answer.headers().get("x-calgate-code").map(|code| code.to_str().unwrap().to_owned());
            (answer.status().as_u16(), code.unwrap_or_default())
        });
        (asked.elapsed(), answer.unwrap_or_else(|fault| (0, fault.to_string())))
    }
}

/// Runs all callers on another thread, and `meanwhile` on this one.
fn tally<C>(callers: Vec<C>, meanwhile: impl FnOnce()) -> Tally
where
    C: Future<Output = Vec<Timed>> + Send + 'static,
{
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut answers = Vec::new();
            for caller in callers.into_iter().map(tokio::spawn).collect::<Vec<_>>() {
                answers.extend(caller.await.unwrap());
            }
            answers
        })
    });
    meanwhile();
    let mut tally = Tally::default();
    for (took, answer) in thread.join().unwrap() {
        if answer.0 == 200 {
            tally.took.push(took);
        }
        *tally.answers.entry(answer).or_default() += 1;
    }
    tally
}

impl Tally {
    /// Returns the 99th percentile of the durations.
    pub fn p99(&self) -> Duration {
        let mut took = self.took.clone();
        took.sort_unstable();
        took[took.len() * 99 / 100]
    }

    /// Returns the number of responses with that status.
    pub fn of(&self, status: u16) -> usize {
        self.answers.iter().filter(|((known, _), _)| *known == status).map(|(_, count)| count).sum()
    }
}
