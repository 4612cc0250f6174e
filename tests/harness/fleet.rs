//! Several gateways on one credential and one store, in front of a simulated Cal.com, and callers of all of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use super::{Gateway, Key, Response, Setup, client_builder};
use crate::cal_sim::Sim;
use crate::cal_sim::options::{DEMO_API_KEY, Options};
use crate::ratelimit::table::random::Random;

/// What a fleet is told at its start.
pub struct Terms {
    /// Gateways.
    pub gateways: usize,
    /// Requests a window of Cal.com's, and how long that is.
    pub limit: u32,
    pub window: Duration,
    /// Whether Cal.com prolongs windows now and then.
    pub quirk: bool,
    /// Requests a minute of another program on the credential.
    pub others: u32,
    /// Pieces of configuration.
    pub config: String,
    /// The consumer's requests a minute.
    pub per_minute: u32,
}

/// Gateways in front of one Cal.com.
pub struct Fleet {
    pub sim: Sim,
    pub gateways: Vec<Gateway>,
    key: Key,
    _alone: Option<MutexGuard<'static, ()>>,
}

/// One large fleet at a time: two of them take each other's processors, and then it is the machine that is measured.
static ALONE: Mutex<()> = Mutex::new(());

/// What came of requests.
#[derive(Debug, Default)]
pub struct Tally {
    /// How often each status came, and the gateway's code with it.
    pub answers: BTreeMap<(u16, String), usize>,
    /// How long answers of 200 took.
    pub took: Vec<Duration>,
}

impl Fleet {
    /// Starts `terms.gateways`; each finds the store where `store` says.
    pub fn start(terms: &Terms, store: impl Fn(usize) -> String) -> Self {
        Self::start_with_env(terms, store, |_| Vec::new())
    }

    /// The same, with variables in each gateway's environment.
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

    /// Asks one gateway once: the status, and the gateway's code with it.
    pub fn ask(&self, gateway: usize) -> (u16, String) {
        let answer = self.answer(gateway);
        (answer.status, answer.code().unwrap_or_default().to_owned())
    }

    /// The same: the whole answer.
    pub fn answer(&self, gateway: usize) -> Response {
        self.gateways[gateway].ask("GET /v2/me", &[&format!("x-api-key: {}", self.key.text)])
    }

    /// What time it is for one gateway, in seconds since 1970, by the name that it gives a request.
    pub fn time_of(&self, gateway: usize) -> i64 {
        let answer = self.answer(gateway);
        let id = uuid::Uuid::parse_str(answer.header("x-request-id").unwrap()).unwrap();
        i64::try_from(id.get_timestamp().unwrap().to_unix().0).unwrap()
    }

    /// Keeps `callers` busy for at least `length` and until `meanwhile` returns. Each asks the gateways by turns, waits for each
    /// answer and leaves `pause` between its requests.
    pub fn load(&self, callers: usize, pause: Duration, length: Duration, meanwhile: impl FnOnce()) -> Tally {
        let (line, start, over) = (self.line(), Instant::now(), Arc::new(AtomicBool::new(false)));
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

    /// `per_second` requests come at random moments (Poisson), whatever becomes of those before; each goes to the next gateway.
    pub fn random_load(&self, per_second: f64, length: Duration, meanwhile: impl FnOnce()) -> Tally {
        let (line, start, mut random) = (self.line(), tokio::time::Instant::now(), Random::new(7));
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

    /// How often gateways have given the store up, all together.
    pub fn losses(&self) -> u64 {
        self.gateways.iter().map(|gateway| gateway.metric("calgate_sharing_losses_total", "")).sum()
    }

    fn line(&self) -> Line {
        let urls = self.gateways.iter().map(|gateway| format!("http://{}/v2/me", gateway.address)).collect();
        Line { urls, client: client_builder().build().unwrap(), key: self.key.text.clone() }
    }
}

/// One answer's status and the gateway's code, and how long it took.
type Timed = (Duration, (u16, String));

/// A way to all gateways.
#[derive(Clone)]
struct Line {
    urls: Vec<String>,
    client: reqwest::Client,
    key: String,
}

impl Line {
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

/// Runs all callers on a thread of their own, and `meanwhile` here.
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
    /// The time that one answer of 200 in a hundred exceeded.
    pub fn p99(&self) -> Duration {
        let mut took = self.took.clone();
        took.sort_unstable();
        took[took.len() * 99 / 100]
    }

    /// How often a status came.
    pub fn of(&self, status: u16) -> usize {
        self.answers.iter().filter(|((known, _), _)| *known == status).map(|(_, count)| count).sum()
    }
}
