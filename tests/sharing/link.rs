//! The ways in which a store can be found, and what is told of one that cannot.

use std::time::Duration;

use super::joined;
use crate::harness::{Fleet, Gateway, Redis, Sentinel, Terms, eventually, free_port};

/// Two gateways that share a consumer's 40 requests.
fn two(store: &str) -> Fleet {
    let terms = Terms {
        gateways: 2,
        limit: 100_000,
        window: Duration::from_secs(60),
        quirk: false,
        config: "[limits]\nupstream_connect = \"500ms\"\nupstream_headers = \"500ms\"".to_owned(),
        per_minute: 40,
    };
    Fleet::start(&terms, |_| format!("on_store_loss = \"closed\"\n{store}"))
}

/// Both gateways let 40 requests through together, and no more.
fn they_share(fleet: &Fleet) {
    joined(fleet);
    let tally = fleet.load(8, Duration::from_millis(5), Duration::from_secs(1), || {});
    // One comes back in 1.5 s. Where the store was late, which here refuses, one may be taken that nobody got.
    assert!((35..=41).contains(&tally.of(200)), "{:?}", tally.answers);
}

#[test]
fn a_cluster_of_three() {
    let node = || {
        let bus = free_port().to_string();
        Redis::start_with(&["--cluster-enabled", "yes", "--cluster-port", &bus])
    };
    let nodes = [node(), node(), node()];
    let addresses = nodes.each_ref().map(|node| format!("127.0.0.1:{}", node.port));
    let mut create = vec!["--cluster", "create"];
    create.extend(addresses.iter().map(String::as_str));
    create.push("--cluster-yes");
    nodes[0].cli(&create);
    eventually("a cluster", || {
        nodes.iter().all(|node| node.cli(&["cluster", "info"]).contains("cluster_state:ok")).then_some(())
    });
    let fleet = two(&format!("redis_kind = \"cluster\"\nredis = \"{},{}\"", nodes[0].url(), nodes[1].url()));
    they_share(&fleet);
}

#[test]
fn a_primary_that_sentinels_name_and_its_replica_after_it() {
    let mut primary = Redis::start();
    let replica = Redis::start_with(&["--replicaof", "127.0.0.1", &primary.port.to_string()]);
    eventually("a replica", || primary.cli(&["info", "replication"]).contains("state=online").then_some(()));
    let sentinel = Sentinel::of(&primary);
    let known = || primary.cli(&["-p", &sentinel.port.to_string(), "sentinel", "replicas", "main"]);
    eventually("a sentinel that knows both", || known().contains(&replica.port.to_string()).then_some(()));
    let url = format!("redis://127.0.0.1:{}", sentinel.port);
    let fleet = two(&format!("redis_kind = \"sentinel\"\nredis_sentinel = \"main\"\nredis = \"{url}\""));
    joined(&fleet);
    primary.kill();
    eventually("the replica takes over", || replica.cli(&["role"]).starts_with("master").then_some(()));
    let shared = |gateway: &Gateway| gateway.log().iter().filter(|line| line.contains("limits are shared")).count();
    eventually("the gateways share again", || fleet.gateways.iter().all(|gateway| shared(gateway) == 2).then_some(()));
    they_share(&fleet);
}

#[test]
fn a_user_and_a_password_come_from_the_environment_and_are_shown_nowhere() {
    let redis = Redis::start_with(&[
        "--user",
        "calgate",
        "on",
        ">s3cret-of-the-store",
        "~calgate:*",
        "+@all",
        "--user",
        "default",
        "off",
    ]);
    let url = format!("redis://calgate:s3cret-of-the-store@127.0.0.1:{}", redis.port);
    let name = "CALGATE_TEST_STORE_URL";
    let fleet = Fleet::start_with_env(
        &Terms {
            gateways: 2,
            limit: 100_000,
            window: Duration::from_secs(60),
            quirk: false,
            config: String::new(),
            per_minute: 40,
        },
        |_| format!("on_store_loss = \"closed\"\nredis = {{ env = \"{name}\" }}"),
        (name, &url),
    );
    they_share(&fleet);
    let log = fleet.gateways[0].log().join("\n");
    assert!(log.contains(&redis.port.to_string()) && !log.contains("s3cret"), "{log}");
}
