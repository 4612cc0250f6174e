//! Restarts of the program under load: Cal.com never answers 429.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use calgate::vault::{SealKey, SealKeys, Sqlite, Vault};
use parking_lot::Mutex;

use crate::cal_sim::Sim;
use crate::cal_sim::options::{DEMO_API_KEY, Limits, Options};
use crate::credential::rig::SEAL_KEY;
use crate::harness::{Gateway, Key, Redis, Setup, eventually, pass};

/// A fixed window and its limit.
const WINDOW: Duration = Duration::from_secs(4);
const LIMIT: u32 = 80;

/// Callers that send their next request at once: several times the limit.
const CALLERS: usize = 12;

const RESTARTS: usize = 6;

fn cal_com(window: Duration) -> Sim {
    let limits = Limits { window, block: window, api_key: vec![("Default".to_owned(), LIMIT)], ..Limits::default() };
    let (latency, jitter) = (Duration::from_millis(10), Duration::from_millis(10));
    Sim::start(Options { latency, jitter, limits, ..Options::default() }).unwrap()
}

fn start(sim: &Sim, key: &Key, store: &str) -> Gateway {
    start_with(sim, key, store, WINDOW)
}

fn start_with(sim: &Sim, key: &Key, store: &str, window: Duration) -> Gateway {
    let config = format!(
        "[budget]\nwindow = \"{}s\"\nmax_wait = \"1s\"\n[tiers.roomy]\nrequests_per_minute = 100000\n\
         [credentials.main]\nkind = \"api-key\"\napi_key = {{ env = \"CAL_KEY\" }}\nplan = \"unrestricted\"\n\
         requests_per_minute = {}\n\
         [consumers.c]\nkeys = [\"{}\"]\ncredential = \"main\"\ntier = \"roomy\"\n{store}",
        window.as_secs(),
        u64::from(LIMIT) * 60 / window.as_secs(),
        key.hash
    );
    Setup::to(&sim.base_url()).with(&config).env("CAL_KEY", DEMO_API_KEY).env("SEAL_KEY", SEAL_KEY).start()
}

/// Returns the status of one request on a connection of its own, if there is a response.
fn ask(address: SocketAddr, key: &Key) -> Option<u16> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    let head = format!("GET /v2/me HTTP/1.1\r\nHost: gateway\r\nX-Api-Key: {}\r\nConnection: close\r\n\r\n", key.text);
    stream.write_all(head.as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    std::str::from_utf8(answer.get(9..12)?).ok()?.parse().ok()
}

/// Restarts the gateway repeatedly under load, by `signal`. Returns the number of served requests.
fn restarted(store: &str, signal: &str) -> usize {
    let (sim, key) = (cal_com(WINDOW), Key::new());
    let mut gateway = start(&sim, &key, store);
    let address = Mutex::new(gateway.address.parse::<SocketAddr>().unwrap());
    let (over, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..CALLERS {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let now = *address.lock();
                    match ask(now, &key) {
                        Some(200) => drop(served.fetch_add(1, Ordering::Relaxed)),
                        // Refused, or no gateway is running.
                        _ => pass(Duration::from_millis(20)),
                    }
                }
            });
        }
        for n in 0..RESTARTS {
            // At another point of the window each time.
            let until = sim.seen_count() + 30 + 17 * n;
            eventually("some load", || (sim.seen_count() >= until).then_some(()));
            gateway.signal(signal);
            gateway.wait_for_exit();
            gateway = start(&sim, &key, store);
            *address.lock() = gateway.address.parse().unwrap();
        }
        let until = sim.seen_count() + 30;
        eventually("some load", || (sim.seen_count() >= until).then_some(()));
        over.store(true, Ordering::Relaxed);
    });
    assert_eq!(sim.rate_limited(), 0, "{signal} with [{store}]");
    served.into_inner()
}

fn token_store(folder: &tempfile::TempDir) -> String {
    let path = folder.path().join("store/tokens.db");
    format!("[token_store]\npath = \"{}\"\nseal_keys = [{{ env = \"SEAL_KEY\" }}]\n", path.display())
}

/// The first request shows a new process that the window is nearly used up, before the burst of the callers is sent.
#[test]
fn without_a_store_a_new_process_awaits_the_first_response() {
    let (sim, key) = (cal_com(Duration::from_secs(600)), Key::new());
    for _ in 0..RESTARTS {
        let mut before = start_with(&sim, &key, "", Duration::from_secs(600));
        let address = before.address.parse().unwrap();
        (0..LIMIT - 2).for_each(|_| assert_eq!(ask(address, &key), Some(200)));
        before.signal("-TERM");
        before.wait_for_exit();
        let after = start_with(&sim, &key, "", Duration::from_secs(600));
        let address = after.address.parse().unwrap();
        let served = std::thread::scope(|scope| {
            let callers: Vec<_> = (0..CALLERS).map(|_| scope.spawn(|| ask(address, &key))).collect();
            callers.into_iter().filter_map(|caller| caller.join().unwrap()).filter(|status| *status == 200).count()
        });
        assert_eq!((served, sim.rate_limited()), (2, 0));
        sim.advance(Duration::from_secs(601));
    }
}

#[test]
fn with_a_token_store_used_windows_outlive_the_process() {
    let folder = tempfile::tempdir().unwrap();
    assert!(restarted(&token_store(&folder), "-TERM") > 100);
}

/// While a process serves, its record leaves no capacity that it could use before the next write. Its last record is exact.
#[test]
fn with_a_token_store_the_last_record_is_exact() {
    let window = Duration::from_secs(600);
    let (sim, key, folder) = (cal_com(window), Key::new(), tempfile::tempdir().unwrap());
    let store = token_store(&folder);
    let mut before = start_with(&sim, &key, &store, window);
    let address = before.address.parse().unwrap();
    (0..LIMIT - 4).for_each(|_| assert_eq!(ask(address, &key), Some(200)));
    eventually("a record that leaves no room", || (recorded(&folder)? == 0).then_some(()));
    before.signal("-TERM");
    before.wait_for_exit();
    let after = start_with(&sim, &key, &store, window);
    let address = after.address.parse().unwrap();
    let served = (0..6).filter(|_| ask(address, &key) == Some(200)).count();
    assert_eq!((served, sim.rate_limited()), (4, 0));
}

/// The next process knows what was recorded before a crash. It does not know what was sent after the last write.
#[test]
fn with_a_token_store_the_record_outlives_a_crash() {
    let window = Duration::from_secs(600);
    for _ in 0..3 {
        let (sim, key, folder) = (cal_com(window), Key::new(), tempfile::tempdir().unwrap());
        let store = token_store(&folder);
        let mut before = start_with(&sim, &key, &store, window);
        let address = before.address.parse().unwrap();
        (0..LIMIT).for_each(|_| assert_eq!(ask(address, &key), Some(200)));
        eventually("a record of all of it", || (recorded(&folder)? == 0).then_some(()));
        before.signal("-KILL");
        before.wait_for_exit();
        let after = start_with(&sim, &key, &store, window);
        assert_eq!(ask(after.address.parse().unwrap(), &key), Some(429));
        assert_eq!((sim.seen_count(), sim.rate_limited()), (LIMIT as usize, 0), "Cal.com is not asked");
    }
}

/// Returns how many requests of the window are left by the record in the store.
fn recorded(folder: &tempfile::TempDir) -> Option<u64> {
    let keys = SealKeys::new(vec![SealKey::parse(SEAL_KEY).unwrap()]).unwrap();
    let vault = Vault::new(Arc::new(Sqlite::new(&folder.path().join("store/tokens.db"))), keys);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let record = runtime.block_on(vault.get("budgets/used")).unwrap()?;
    let record: serde_json::Value = serde_json::from_slice(&record.plain).unwrap();
    record.pointer("/entries/0/remaining")?.as_u64()
}

#[test]
fn with_shared_limits_used_windows_outlive_a_crash() {
    let redis = Redis::start();
    assert!(restarted(&format!("[limit_store]\nredis = \"{}\"\n", redis.url()), "-KILL") > 100);
}

/// The next process knows a window that was used up at once. It sends Cal.com nothing until the window ends.
#[test]
fn a_new_process_sends_nothing_in_a_window_that_is_used_up() {
    let (sim, key, folder) = (cal_com(Duration::from_secs(8)), Key::new(), tempfile::tempdir().unwrap());
    let store = token_store(&folder);
    let mut gateway = start_with(&sim, &key, &store, Duration::from_secs(8));
    for _ in 0..LIMIT {
        assert_eq!(ask(gateway.address.parse().unwrap(), &key), Some(200));
    }
    gateway.signal("-TERM");
    gateway.wait_for_exit();
    let gateway = start_with(&sim, &key, &store, Duration::from_secs(8));
    let own = format!("X-Api-Key: {}", key.text);
    let refused = gateway.ask("GET /v2/me", &[&own, "X-Calgate-Max-Wait: 1ms"]);
    assert_eq!((refused.status, refused.code()), (429, Some("GATEWAY_UPSTREAM_BUDGET")));
    assert_eq!((sim.seen_count(), sim.rate_limited()), (LIMIT as usize, 0));
    eventually("the next window", || {
        (gateway.ask("GET /v2/me", &[&own, "X-Calgate-Max-Wait: 1ms"]).status == 200).then_some(())
    });
    assert_eq!(sim.rate_limited(), 0);
}
