//! Benchmark of the deciding stages, each alone and all together: time and allocations (`cargo bench --bench stages`).
//!
//! With `-- --test`, each benchmark runs once, as a test.

#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "a benchmark that cannot be set up has to say so")]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use calgate::catalog::{RouteMatch, UnknownEndpoints};
use calgate::config::Config;
use calgate::credential::CredentialSource;
use calgate::gateway::{Gateway, Snapshot};
use calgate::headers::{self, UpstreamAddress};
use calgate::identify::{Caller, GatewayKey};
use calgate::refusal::Refusal;
use calgate::request_id;
use calgate::time::MonoTime;
use divan::{AllocProfiler, Bencher};
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, DATE};
use http::{HeaderMap, HeaderValue, Method};

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

const CONSUMERS: usize = 10_000;
const PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const SHORT: &str = "/v2/slots";
const LONG: &str = "/v2/organizations/12/teams/34/users/56/schedules";

/// Returns a time that advances by 0.1 s per call. All measurements share it, because they share buckets, which must not be
/// charged at a later time first.
fn tick() -> MonoTime {
    static NOW: AtomicU64 = AtomicU64::new(0);
    MonoTime(NOW.fetch_add(100_000_000, Ordering::Relaxed))
}

fn main() {
    divan::Divan::from_args().sample_size(50).sample_count(400).main();
}

/// Gateway with many consumers, and the request headers of each.
struct Scene {
    gateway: Arc<Gateway>,
    requests: Vec<HeaderMap>,
}

static SCENE: LazyLock<Scene> = LazyLock::new(|| {
    let keys: Vec<String> = (0..CONSUMERS).map(|_| GatewayKey::generate().expect("randomness")).collect();
    let mut text = String::from(
        "[tiers.endless]\nrequests_per_minute = 1000000\n[credentials.main]\nkind = 'api-key'\n\
         api_key = { env = 'PATH' }\nplan = 'unrestricted'\n",
    );
    for (index, key) in keys.iter().enumerate() {
        let hash = GatewayKey::parse(key).expect("a key").hash();
        let consumer = format!("[consumers.c{index}]\nkeys = ['{hash}']\ncredential = 'main'\ntier = 'endless'\n");
        text.push_str(&consumer);
    }
    let config = Config::parse("bench", &text).unwrap_or_else(|error| panic!("{:?}", error.diagnostics));
    let gateway = Gateway::new(config, None).expect("a gateway");
    Scene { gateway, requests: keys.iter().map(|key| request_headers(key)).collect() }
});

fn request_headers(key: &str) -> HeaderMap {
    let fields = [
        ("host", "calgate.internal:8080"),
        ("authorization", &format!("Bearer {key}")),
        ("accept", "application/json"),
        ("accept-encoding", "gzip, br"),
        ("user-agent", "billing/4.2"),
        ("content-type", "application/json"),
        ("cal-api-version", "2024-08-13"),
    ];
    fields.iter().map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value"))).collect()
}

impl Scene {
    /// Returns the headers of the next consumer at each call. They are fresh, like those of a new request, while the data of the
    /// consumer may be anywhere in memory.
    fn walk(&'static self) -> impl FnMut() -> HeaderMap {
        let mut index = 0;
        move || {
            index = (index + 7_919) % self.requests.len();
            self.requests[index].clone()
        }
    }
}

fn identify<'a>(snapshot: &'a Snapshot, headers: &HeaderMap) -> Caller<'a> {
    snapshot.consumers.identify(headers, PEER, SystemTime::UNIX_EPOCH).expect("a known key")
}

fn find<'a>(snapshot: &'a Snapshot, target: &'a str) -> RouteMatch<'a> {
    snapshot.catalog().match_route(&Method::GET, target, UnknownEndpoints::Refuse).expect("a known path")
}

/// Runs the stages from `identify` to `limit` like the pipeline, and selects the credential.
fn decide(snapshot: &Snapshot, headers: &HeaderMap, target: &str, now: MonoTime) -> Result<CredentialSource, Refusal> {
    let caller = snapshot.consumers.identify(headers, PEER, SystemTime::UNIX_EPOCH)?;
    let matched = snapshot.catalog().match_route(&Method::GET, target, UnknownEndpoints::Refuse)?;
    calgate::catalog::version::check(headers::api_version(headers).map_err(Refusal::InvalidHeader)?)?;
    let grant = snapshot.entitlements.grant(caller, matched)?;
    let selected = snapshot.credentials.select(&grant, headers)?;
    snapshot.credentials.capture(&grant)?;
    headers::max_wait(headers).map_err(Refusal::InvalidHeader)?;
    let (_, permit) = snapshot.rate_limits.charge(grant, now);
    permit?;
    Ok(snapshot.credentials.source(selected))
}

#[divan::bench(args = [SHORT, LONG])]
fn whole_decision(bencher: Bencher, target: &str) {
    let snapshot = SCENE.gateway.snapshot();
    let mut next = SCENE.walk();
    let inputs = || (next(), tick());
    bencher.with_inputs(inputs).bench_local_refs(|(headers, now)| {
        decide(&snapshot, headers, black_box(target), *now).expect("a permitted request")
    });
}

#[divan::bench]
fn identify_consumer(bencher: Bencher) {
    let snapshot = SCENE.gateway.snapshot();
    let mut next = SCENE.walk();
    bencher.with_inputs(&mut next).bench_local_refs(|headers| black_box(identify(&snapshot, headers).name().len()));
}

#[divan::bench(args = [SHORT, LONG])]
fn find_endpoint(bencher: Bencher, target: &str) {
    let snapshot = SCENE.gateway.snapshot();
    bencher.bench_local(|| black_box(find(&snapshot, black_box(target)).candidates().len()));
}

#[divan::bench]
fn grant(bencher: Bencher) {
    let snapshot = SCENE.gateway.snapshot();
    let mut next = SCENE.walk();
    let inputs = || (identify(&snapshot, &next()), find(&snapshot, LONG));
    bencher.with_inputs(inputs).bench_local_values(|(caller, matched)| snapshot.entitlements.grant(caller, matched));
}

#[divan::bench]
fn take(bencher: Bencher) {
    let snapshot = SCENE.gateway.snapshot();
    let mut next = SCENE.walk();
    let inputs = || {
        let grant = snapshot.entitlements.grant(identify(&snapshot, &next()), find(&snapshot, LONG));
        (grant.expect("an entitled consumer"), tick())
    };
    bencher.with_inputs(inputs).bench_local_values(|(grant, now)| snapshot.rate_limits.charge(grant, now));
}

#[divan::bench]
fn headers_out(bencher: Bencher) {
    bencher.with_inputs(SCENE.walk()).bench_local_refs(|headers| headers::request_headers(headers, &[]));
}

const ADDRESS: UpstreamAddress<'static> = UpstreamAddress { authority: "api.cal.com", base_path: "" };

#[divan::bench]
fn headers_back(bencher: Bencher) {
    let mut answer = HeaderMap::new();
    answer.insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    answer.insert(CONTENT_LENGTH, HeaderValue::from_static("1024"));
    answer.insert(DATE, HeaderValue::from_static("Wed, 21 Oct 2026 07:28:00 GMT"));
    answer.insert(CONNECTION, HeaderValue::from_static("keep-alive"));
    answer.insert("x-ratelimit-limit-default", HeaderValue::from_static("120"));
    bencher.with_inputs(|| answer.clone()).bench_local_refs(|h| headers::filter_response(h, ADDRESS));
}

#[divan::bench]
fn new_request_id() -> HeaderValue {
    request_id::new(SystemTime::UNIX_EPOCH)
}
