//! Rules of the code's structure: the order of stages, no module cycles, where each outside crate is used, and file sizes.
//!
//! The tables in this file are the rules. A new stage or crate gets a line in them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Stages in the order of the request path. A stage uses only earlier ones. The last two are one step.
const STAGES: [&[&str]; 8] = [
    &["identify"],
    &["catalog"],
    &["entitle"],
    &["limit"],
    &["credential"],
    &["budget"],
    &["forward"],
    &["respond", "record"],
];

/// The pure core, without I/O, clocks and tasks, and the modules that it uses.
const PURE: (&str, &[&str]) = ("ratelimit", &["headers", "prehashed", "time"]);

/// Places in `src` that may use an outside crate: a module with its submodules, or everywhere.
const ANYWHERE: &[&str] = &[""];
const FENCES: &[(&str, &[&str])] = &[
    ("annotate-snippets", &["config/diagnostics"]),
    ("arc-swap", &["gateway", "credential", "refresh"]),
    ("aws-lc-rs", &["identify", "secret", "vault/seal"]),
    ("axum", &["admin", "cli/login", "forward/upload", "pipeline", "serve", "server"]),
    ("base64", &["credential/received_tokens", "vault/seal"]),
    ("bytes", ANYWHERE),
    ("clap", &["cli"]),
    ("crc32fast", &["credential/registry", "identify/key", "vault/sqlite"]),
    ("dashmap", &["budget/registry", "credential/registry", "limit/proven", "ratelimit/keyed"]),
    ("fastrand", &["ratelimit/limiter", "request_id", "limit_store/circuit_breaker"]),
    ("flate2", &["respond/edge", "respond/scrub"]),
    ("foldhash", &["record/report"]),
    (
        "futures-util",
        &[
            "forward/connect",
            "forward/io",
            "forward/resolve",
            "pipeline",
            "serve",
            "server/connection",
            "server/http2",
            "server/activity",
            "limit_store",
            "vault",
        ],
    ),
    ("governor", &["ratelimit/decision", "ratelimit/quota"]),
    ("h2", &["forward/failure", "server/http2"]),
    ("hex", &["identify/key", "secret"]),
    ("http", ANYWHERE),
    ("http-body", &["forward", "respond", "server"]),
    ("http-body-util", &["forward/client", "forward/proxy", "server/connection", "server/body"]),
    ("httpdate", &["headers/times", "server/http2"]),
    ("hyper", &["forward", "server"]),
    ("hyper-util", &["config/proxy", "forward", "server"]),
    ("ipnet", &["config/listen", "identify/client_address"]),
    ("itoa", &["respond"]),
    ("jiff", &["catalog/version", "cli/credentials", "config/section", "credential/token_response", "time"]),
    ("memchr", &["catalog/path", "identify", "server/framing"]),
    ("mimalloc", &["main"]),
    ("notify", &["serve/reload"]),
    ("oauth2", &["cli/login", "refresh/oauth"]),
    ("parking_lot", ANYWHERE),
    ("percent-encoding", &["forward", "identify/leak"]),
    ("prometheus-client", &["record", "telemetry"]),
    ("redis", &["limit_store/redis"]),
    ("reqwest", &["forward/client"]),
    ("rusqlite", &["vault/sqlite"]),
    ("rustix", &["refresh/failpoint", "secret", "serve/fd_limit"]),
    ("rustls", &["tls"]),
    ("rustls-native-certs", &["tls"]),
    ("rustls-pki-types", &["forward", "tls"]),
    (
        "secrecy",
        &["cli/credentials", "credential/stored_token", "forward/client", "secret", "limit_store/redis", "vault"],
    ),
    ("serde", ANYWHERE),
    ("serde_json", ANYWHERE),
    ("smallvec", ANYWHERE),
    ("socket2", &["forward/connect", "server/listener"]),
    ("strsim", &["catalog/router", "config/diagnostics"]),
    (
        "tokio",
        &[
            "admin",
            "gateway",
            "budget/membership",
            "budget/credential_budget",
            "cli/login",
            "cli/store",
            "credential",
            "forward",
            "refresh",
            "serve",
            "server",
            "limit_store",
            "vault",
        ],
    ),
    ("tokio-postgres", &["vault/postgres"]),
    ("tokio-postgres-rustls", &["vault/postgres"]),
    ("tokio-rustls", &["forward"]),
    ("tokio-util", &["server"]),
    ("toml", &["catalog/file", "config"]),
    ("tower", &["server"]),
    ("tower-http", &["admin"]),
    ("tracing", ANYWHERE),
    ("tracing-subscriber", &["config/log", "telemetry"]),
    ("uuid", &["refresh", "request_id", "limit_store"]),
    ("webpki-roots", &["tls"]),
];

/// One file of `src`. Its name is the path without the extension, such as `catalog/path`.
pub(crate) struct Source {
    pub(crate) name: String,
    text: String,
}

impl Source {
    pub(crate) fn module(&self) -> &str {
        self.name.split('/').next().unwrap_or_default()
    }

    /// Returns the lines without comments.
    pub(crate) fn code(&self) -> impl Iterator<Item = &str> {
        self.text.lines().map(|line| line.split("//").next().unwrap_or_default())
    }

    /// Returns the top-level modules that the file uses.
    pub(crate) fn uses(&self) -> impl Iterator<Item = &str> {
        let paths = self.code().flat_map(|line| line.split("crate::").skip(1));
        paths
            .flat_map(first_segments)
            .map(|path| path.split(|c: char| !c.is_ascii_lowercase() && c != '_').next().unwrap())
    }

    /// Returns whether the file uses an outside crate.
    fn uses_crate(&self, name: &str) -> bool {
        let start = format!("{}::", name.replace('-', "_"));
        let is_path = |before: &str| !before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
        self.code().any(|line| line.match_indices(&start).any(|(at, _)| is_path(&line[..at])))
    }
}

/// Returns the paths after `crate::`: one, or those of a group in braces.
fn first_segments(rest: &str) -> Vec<&str> {
    let Some(group) = rest.strip_prefix('{') else { return vec![rest] };
    let (group, _) = group.split_once('}').expect("a group of modules in one line");
    assert!(!group.contains('{'), "a group within a group: {rest}");
    group.split(',').map(str::trim).collect()
}

pub(crate) fn sources() -> Vec<Source> {
    let source = |path: &PathBuf| Source {
        name: path.with_extension("").strip_prefix("src").unwrap().to_str().unwrap().to_owned(),
        text: fs::read_to_string(path).unwrap(),
    };
    rust_files("src").iter().map(source).collect()
}

fn rust_files(folder: impl AsRef<Path>) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(rust_files(path));
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
    found
}

#[test]
fn a_stage_uses_earlier_stages_and_never_later_ones() {
    for source in sources() {
        let place = |module: &str| STAGES.iter().position(|stages| stages.contains(&module));
        let Some(own) = place(source.module()) else { continue };
        for used in source.uses() {
            let is_later = place(used).is_some_and(|place| place > own);
            assert!(!is_later, "src/{}.rs uses `{used}`, which is a later stage", source.name);
        }
    }
}

#[test]
fn the_top_level_modules_form_no_cycle() {
    let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources() {
        let others = source.uses().filter(|used| *used != source.module()).map(str::to_owned);
        uses.entry(source.module().to_owned()).or_default().extend(others);
    }
    // A module that uses none of the others is in no cycle.
    while let Some(leaf) = uses.iter().find(|(_, used)| used.iter().all(|used| !uses.contains_key(used))) {
        let leaf = leaf.0.clone();
        uses.remove(&leaf);
    }
    assert!(uses.is_empty(), "these modules are in a cycle, or use one that is: {uses:#?}");
}

#[test]
fn the_rate_limiting_core_is_pure() {
    let (core, allowed) = PURE;
    for source in sources().iter().filter(|source| source.module() == core) {
        for used in source.uses() {
            assert!(used == core || allowed.contains(&used), "src/{}.rs uses `{used}`", source.name);
        }
        let impure = [
            "async ",
            "Instant::now",
            "SystemTime::now",
            "DefaultClock",
            "MonotonicClock",
            "SystemClock",
            "std::fs",
            "std::net",
            "std::thread",
            "tracing::",
        ];
        for word in impure {
            assert!(!source.code().any(|line| line.contains(word)), "src/{}.rs has `{word}`", source.name);
        }
    }
}

#[test]
fn each_outside_crate_is_used_only_where_it_may_be() {
    let manifest: toml::Table = fs::read_to_string("Cargo.toml").unwrap().parse().unwrap();
    let dependencies = manifest["dependencies"].as_table().unwrap();
    let known: Vec<&str> = FENCES.iter().map(|(name, _)| *name).collect();
    assert_eq!(known, dependencies.keys().map(String::as_str).collect::<Vec<_>>(), "each crate has a line in FENCES");
    let sources = sources();
    for (name, places) in FENCES {
        let users: Vec<_> = sources.iter().filter(|source| source.uses_crate(name)).collect();
        let is_inside = |source: &Source, place: &str| {
            let rest = source.name.strip_prefix(place);
            rest.is_some_and(|rest| place.is_empty() || rest.is_empty() || rest.starts_with('/'))
        };
        for source in &users {
            assert!(places.iter().any(|place| is_inside(source, place)), "src/{}.rs uses `{name}`", source.name);
        }
        for place in *places {
            assert!(users.iter().any(|source| is_inside(source, place)), "src/{place} does not use `{name}`");
        }
    }
}

/// hyper is a client and a server, and each has one place. reqwest sends the gateway's own requests.
#[test]
fn only_forward_sends_requests_and_only_server_receives_them() {
    let places = [
        ("hyper::client", "forward"),
        ("hyper_util::client::legacy", "forward"),
        ("reqwest::Client", "forward"),
        ("hyper::server", "server"),
    ];
    for source in sources() {
        for (path, place) in places {
            let used = source.code().any(|line| line.contains(path));
            assert!(!used || source.module() == place, "src/{}.rs uses {path}", source.name);
        }
    }
}

#[test]
fn every_file_states_its_purpose_and_is_short() {
    let mut lengths = Vec::new();
    for path in ["src", "tests", "examples", "benches"]
        .into_iter()
        .filter(|folder| Path::new(folder).is_dir())
        .flat_map(rust_files)
    {
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("//! "), "{} does not state its purpose in the first line", path.display());
        let lines = text.lines().count();
        assert!(lines <= 400, "{} has {lines} lines", path.display());
        if path.starts_with("src") {
            lengths.push(lines);
        }
    }
    lengths.sort_unstable();
    assert!(lengths[lengths.len() / 2] <= 130, "half of src is longer than {} lines", lengths[lengths.len() / 2]);
}

/// A fixed sleep is too short on a busy machine, and too long on an idle one.
#[test]
fn tests_wait_for_events_instead_of_sleeping() {
    for path in rust_files("tests").into_iter().filter(|path| !path.starts_with("tests/harness")) {
        let text = fs::read_to_string(&path).unwrap();
        for sleep in [concat!("thread::", "sleep("), concat!("time::", "sleep(")] {
            assert!(!text.contains(sleep), "{}: use `eventually`, or `pass` in a load generator", path.display());
        }
    }
}
