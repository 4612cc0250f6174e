//! Reload: a new configuration takes effect without a restart.

use std::net::Ipv4Addr;

use calgate::config::Config;
use calgate::config::startup::StartupConfig;

use crate::cal_sim::certificates::issue;
use crate::harness::{Gateway, Key, Setup, Upstream, eventually};

fn bearer(key: &Key) -> String {
    format!("Authorization: Bearer {}", key.text)
}

fn start(upstream: &Upstream, key: &Key) -> Gateway {
    Setup::to(&upstream.base_url()).billing("teams", key).start()
}

#[test]
fn a_revoked_key_is_refused_on_the_next_request_of_an_open_connection() {
    let (upstream, old, new) = (Upstream::start(), Key::new(), Key::new());
    let gateway = start(&upstream, &old);
    let mut connection = gateway.connect();
    assert_eq!(connection.ask("GET /v2/me", &[&bearer(&old)]).status, 200);
    gateway.reload(|text| text.replace(&old.hash, &new.hash));
    assert_eq!(connection.ask("GET /v2/me", &[&bearer(&old)]).status, 401);
    assert_eq!(connection.ask("GET /v2/me", &[&bearer(&new)]).status, 200);
}

#[test]
fn a_bad_file_keeps_the_old_configuration_says_why_and_is_counted() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let gateway = start(&upstream, &key);
    gateway.reload(|text| text.replace("plan = \"teams\"", "plan = \"team\""));
    assert_eq!(gateway.metric("calgate_config_reloads_total", "rejected"), 1);
    assert!(gateway.wait_for_log("the old one stays in force").contains("unknown plan `team`"));
    assert_eq!(gateway.ask("GET /v2/me", &[&bearer(&key)]).status, 200);
    gateway.reload(|text| text.replace("plan = \"team\"", "plan = \"platform-free\""));
    assert_eq!(gateway.metric("calgate_config_reloads_total", "applied"), 1);
    assert_eq!(gateway.ask("GET /v2/teams", &[&bearer(&key)]).status, 403);
}

#[test]
fn a_file_that_is_empty_for_a_while_is_a_bad_one() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let gateway = start(&upstream, &key);
    gateway.reload(|_| String::new());
    assert!(gateway.wait_for_log("the old one stays in force").contains("the configuration file is empty"));
    assert_eq!(gateway.ask("GET /v2/me", &[&bearer(&key)]).status, 200);
}

#[test]
fn a_change_of_the_file_that_a_link_leads_to_is_seen() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let gateway = Setup::to(&upstream.base_url()).billing("teams", &key).linked().start();
    gateway.reload(|text| text.replace("plan = \"teams\"", "plan = \"platform-free\""));
    assert_eq!(gateway.ask("GET /v2/teams", &[&bearer(&key)]).status, 403);
}

#[test]
fn hangup_reloads_what_the_environment_of_a_file_changed() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("key");
    let write = |text: &str| {
        std::fs::write(&secret, text).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&secret, mode).unwrap();
    };
    write("cal_test_first000000");
    let gateway = Setup::to(&upstream.base_url())
        .with(&format!(
            "[credentials.main]\nkind = \"api-key\"\napi_key = {{ file = \"{}\" }}\nplan = \"teams\"",
            secret.display()
        ))
        .with(&format!("[consumers.billing]\nkeys = [\"{}\"]\ncredential = \"main\"", key.hash))
        .start();
    assert_eq!(gateway.ask("GET /v2/me", &[&bearer(&key)]).status, 200);
    write("cal_test_second00000");
    gateway.signal("-HUP");
    eventually("a reload", || (gateway.metric("calgate_config_reloads_total", "applied") == 1).then_some(()));
    assert_eq!(gateway.ask("GET /v2/me", &[&bearer(&key)]).status, 200);
    let sent: Vec<_> = upstream.requests().iter().map(|a| a.headers("authorization").join("|")).collect();
    assert_eq!(sent, ["Bearer cal_test_first000000", "Bearer cal_test_second00000"]);
}

#[test]
fn a_new_tier_is_in_force_at_once_and_neither_fills_nor_empties_a_bucket() {
    let (upstream, key) = (Upstream::start(), Key::new());
    // The refill is so slow that the bucket regains no token during the test.
    let tier = "[tiers.slow]\nrequests_per_minute = 1\nburst = 10";
    let gateway = Setup::to(&upstream.base_url()).with(tier).billing("teams", &key).start();
    gateway.reload(|text| text.replace("tier = \"roomy\"", "tier = \"slow\""));
    let remaining = || {
        let answer = gateway.ask("GET /v2/me", &[&bearer(&key)]);
        (answer.status, answer.header("x-ratelimit-remaining-default").unwrap().to_owned())
    };
    for left in (0..10).rev() {
        assert_eq!(remaining(), (200, left.to_string()));
    }
    assert_eq!(remaining().0, 429);
    gateway.reload(|text| text.replace("burst = 10", "burst = 12"));
    assert_eq!(
        remaining(),
        (200, "1".to_owned()),
        "two more fit into the larger bucket, and no more came from nowhere"
    );
    gateway.reload(|text| text.replace("burst = 12", "burst = 10"));
    assert_eq!(remaining().0, 429, "a smaller bucket was not refilled");
}

#[test]
fn no_request_is_lost_while_configurations_change_under_load() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let gateway = start(&upstream, &key);
    let (own, stop) = (bearer(&key), std::sync::atomic::AtomicBool::new(false));
    let answered: usize = std::thread::scope(|scope| {
        let caller = || {
            let (mut connection, mut answered) = (gateway.connect(), 0);
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                assert_eq!(connection.ask("GET /v2/me", &[&own]).status, 200);
                answered += 1;
            }
            answered
        };
        let callers: Vec<_> = (0..4).map(|_| scope.spawn(caller)).collect();
        for n in 0..10 {
            gateway.reload(|text| format!("{text}\n# change {n}"));
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        callers.into_iter().map(|caller| caller.join().unwrap()).sum()
    });
    assert_eq!(answered, upstream.requests().len());
    assert_eq!(gateway.metric("calgate_config_reloads_total", "applied"), 10);
}

#[test]
fn what_needs_a_restart_says_so() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let gateway = start(&upstream, &key);
    gateway.reload(|text| text.replace("workers = 2", "workers = 1"));
    gateway.wait_for_log("restart required");
    assert_eq!(gateway.ask("GET /v2/me", &[&bearer(&key)]).status, 200);
}

#[test]
fn what_the_connection_to_shared_limits_goes_by_is_known_to_need_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("authority.pem");
    let authority = || std::fs::write(&file, issue(Ipv4Addr::LOCALHOST.into()).unwrap().2).unwrap();
    let config = |limits: &str| {
        let store = format!("[limit_store]\nredis = \"rediss://127.0.0.1\"\nca_file = \"{}\"\n", file.display());
        Config::parse("calgate.toml", &format!("[limits]\n{limits}\n{store}")).unwrap()
    };
    authority();
    let startup = StartupConfig::of(&config(""));
    assert_eq!(startup.changed_in(&config("")), [""; 0]);
    assert_eq!(startup.changed_in(&config("upstream_connect = \"7s\"")), ["limits.upstream_connect for limit_store"]);
    let lookup = "upstream_lookup = \"7s\"\n";
    assert_eq!(startup.changed_in(&config(lookup)), ["limits.upstream_lookup for limit_store"]);
    // An address needs no lookup, and a proxy's name does.
    let address = "[upstream]\nbase_url = \"https://192.0.2.1\"\nproxy = ";
    let direct = config(&format!("{address}\"none\""));
    let upstream = ["upstream.base_url or upstream.proxy for limit_store"];
    assert_eq!(startup.changed_in(&direct), upstream);
    assert_eq!(startup.changed_in(&config(&format!("{address}\"http://proxy.example:3128\""))), [""; 0]);
    let fixed_to_address = StartupConfig::of(&direct);
    assert_eq!(fixed_to_address.changed_in(&config("")), upstream);
    assert_eq!(fixed_to_address.changed_in(&config(&format!("{lookup}{address}\"none\""))), [""; 0], "it is not used");
    authority();
    assert_eq!(startup.changed_in(&config("")), ["limit_store"], "another authority in the same file");
}

#[test]
fn a_store_that_a_reload_adds_or_takes_away_is_as_it_was_until_a_restart() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let folder = tempfile::tempdir().unwrap();
    let seal_key = folder.path().join("seal-key");
    std::fs::write(&seal_key, crate::credential::rig::SEAL_KEY).unwrap();
    std::fs::set_permissions(&seal_key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let (tokens, seal_key) = (folder.path().join("tokens.db"), seal_key.display().to_string());
    let store =
        format!("\n[token_store]\npath = \"{}\"\nseal_keys = [{{ file = \"{seal_key}\" }}]\n", tokens.display());
    let gateway = start(&upstream, &key);
    gateway.reload(|text| format!("{text}{store}"));
    gateway.wait_for_log("restart required");
    // The gateway does not open the new store, so the request does not wait for it.
    assert_eq!(gateway.ask("GET /v2/me", &[&bearer(&key)]).status, 200);
    let app = "[credentials.app]\nkind = \"oauth\"\nclient_id = \"app\"\nplan = \"teams\"\n";
    gateway.reload(|text| format!("{text}{app}"));
    let refused = gateway.wait_for_log("the old one stays in force");
    assert!(refused.contains("`credentials.app`: an OAuth grant needs a token store"), "{refused}");

    let gateway = Setup::to(&upstream.base_url()).with(&store).billing("teams", &key).start();
    assert_eq!(gateway.ask("GET /v2/me", &[&bearer(&key)]).status, 200);
    assert_eq!(gateway.metric("calgate_credentials", "credential=\"main\""), 1, "its key is one that is kept");
    gateway.reload(|text| text.replace(&store, ""));
    gateway.wait_for_log("restart required");
    assert_eq!(gateway.metric("calgate_credentials", "credential=\"main\""), 1, "and still is");
    assert_eq!(gateway.ask("GET /v2/me", &[&bearer(&key)]).status, 200);
}

#[test]
fn other_files_in_the_folder_are_no_reason_to_read_the_configuration_again() {
    const PADDING: usize = 1024 * 1024;
    let (upstream, key) = (Upstream::start(), Key::new());
    let padding = format!("# {}\n", "x".repeat(PADDING));
    let gateway = Setup::to(&upstream.base_url()).billing("teams", &key).with(&padding).start();
    // The kernel counts the bytes that the process reads. Only root can read this counter for the gateway.
    let read = || {
        let counters = std::fs::read_to_string(format!("/proc/{}/io", gateway.pid())).ok()?;
        counters.lines().find_map(|line| line.strip_prefix("rchar: "))?.parse::<usize>().ok()
    };
    let Some(before) = read() else {
        println!("skipped: the counters of another process can be read by root only");
        return;
    };
    let folder = gateway.file.parent().unwrap().to_owned();
    for number in 0..200 {
        std::fs::write(folder.join(format!("other-{number}")), "x").unwrap();
    }
    // Events arrive in order, so the gateway has handled all earlier events after this reload.
    gateway.reload(|text| text.replace("plan = \"teams\"", "plan = \"platform-free\""));
    let times = (read().unwrap() - before) / PADDING;
    assert!(times < 10, "the file was read {times} times");
}
