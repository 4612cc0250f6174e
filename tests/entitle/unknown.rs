//! Paths outside the catalog, if the operator forwards them.

use calgate::catalog::{Catalog, UnknownEndpoints};
use http::{HeaderMap, Method};

use crate::given::{PEER, caller, code, now, snapshot};

const REFUSED: &str = "GATEWAY_NOT_ENTITLED";

#[test]
fn a_plan_must_allow_the_whole_prefix_of_an_unknown_path() {
    let consumer = |name, plan, lines| {
        format!("[consumers.{name}]\nkeys = [\"{{key:{name}}}\"]\ncredential = \"{plan}\"\n{lines}\n")
    };
    let snapshot = snapshot(
        &[
            consumer("teams", "teams", ""),
            consumer("org", "organizations", ""),
            consumer("free", "platform-free", ""),
            consumer("essentials", "platform-essentials", ""),
            consumer("all", "unrestricted", ""),
            consumer("restricted", "unrestricted", "methods = [\"GET\"]"),
        ]
        .concat(),
    );
    let [plain, team, org, oauth, client] = [
        "/v2/new",
        "/v2/Teams/1/new",
        "/v2/%6frganizations/1/new",
        "/v2/OAuth/new/thing",
        "/v2/oauth-clients/a/b/c/new",
    ];
    let table = [
        ("teams", [(plain, "ok"), (team, "ok"), (org, REFUSED), (oauth, REFUSED), (client, REFUSED)]),
        ("org", [(plain, "ok"), (team, REFUSED), (org, REFUSED), (oauth, "ok"), (client, "ok")]),
        ("free", [(plain, "ok"), (team, REFUSED), (org, REFUSED), (oauth, "ok"), (client, "ok")]),
        ("essentials", [(plain, "ok"), (team, REFUSED), (org, REFUSED), (oauth, "ok"), (client, "ok")]),
        ("all", [(plain, "ok"), (team, "ok"), (org, "ok"), (oauth, "ok"), (client, "ok")]),
        ("restricted", [(plain, REFUSED), (team, REFUSED), (org, REFUSED), (oauth, REFUSED), (client, REFUSED)]),
    ];
    for (consumer, requests) in table {
        for (path, expected) in requests {
            let route = Catalog::built_in().match_route(&Method::GET, path, UnknownEndpoints::Forward).unwrap();
            let decided = snapshot.entitlements.grant(caller(&snapshot, consumer), route);
            assert_eq!(code(decided), expected, "{path} for {consumer}");
        }
    }
    let public_caller = snapshot.consumers.identify(&HeaderMap::new(), PEER, now()).unwrap();
    let route = Catalog::built_in().match_route(&Method::GET, plain, UnknownEndpoints::Forward).unwrap();
    assert_eq!(code(snapshot.entitlements.grant(public_caller, route)), "GATEWAY_UNAUTHENTICATED");
}

#[test]
fn a_plan_that_denies_part_of_a_prefix_denies_unknown_paths() {
    let snapshot = snapshot(
        "[plans.teams]\ndeny = [\"Slots\", \"Teams / Invite\"]\n\
                   [consumers.it]\nkeys = [\"{key:it}\"]\ncredential = \"teams\"",
    );
    for path in ["/v2/new", "/v2/teams/1/new"] {
        let route = Catalog::built_in().match_route(&Method::GET, path, UnknownEndpoints::Forward).unwrap();
        assert_eq!(code(snapshot.entitlements.grant(caller(&snapshot, "it"), route)), REFUSED, "{path}");
    }
}
