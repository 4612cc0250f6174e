//! Plans: rules by whole components, precedence of deny, plans of the operator, and the rule in a refusal.

use calgate::catalog::Tag;
use calgate::entitle::TagRule;

use crate::given::{PLANS, SECRET, caller, code, config, find, snapshot};

#[test]
fn a_rule_covers_a_tag_and_all_tags_below_it() {
    let table = [
        ("Orgs", "Orgs / Teams", true),
        ("Orgs / Teams", "Orgs / Teams", true),
        ("Orgs / Te", "Orgs / Teams", false),
        ("Org", "Orgs", false),
        ("Teams", "Orgs / Teams", false),
        ("Platform", "Platform / Webhooks", true),
        ("(unprefixed)", "Bookings / Guests", true),
        ("(unprefixed)", "Teams / Invite", false),
        ("(unprefixed)", "Teams", false),
        ("(unprefixed)", "Teamsters", true),
        ("Event Types", "Event Types / Webhooks", true),
        ("Event", "Event Types", false),
    ];
    for (rule, tag, expected) in table {
        assert_eq!(TagRule::new(rule).covers(&Tag::canonical(tag).unwrap()), expected, "{rule:?} and {tag:?}");
    }
}

#[test]
fn has_the_plans_of_cal_com() {
    let mut expected = PLANS;
    expected.sort_unstable();
    let plans = config("").plans;
    assert!(plans.keys().eq(expected), "{:?}", plans.keys());
}

/// Checks the decisions for a consumer whose credential has the plan `plan`.
fn check_decisions(configuration: &str, plan: &str, requests: &[(&str, &str)]) {
    let snapshot = snapshot(&format!(
        "{configuration}\n[credentials.its-own]\nkind = \"api-key\"\napi_key = {SECRET}\n\
         plan = \"{plan}\"\n[consumers.it]\nkeys = [\"{{key:it}}\"]\ncredential = \"its-own\"\n"
    ));
    for (request, expected) in requests {
        let decided = snapshot.entitlements.grant(caller(&snapshot, "it"), find(request).unwrap());
        assert_eq!(code(decided), *expected, "{request}");
    }
}

const REFUSED: &str = "GATEWAY_NOT_ENTITLED";

#[test]
fn an_operator_can_add_a_plan() {
    let plan = "[plans.few]\nallow = [\"Bookings\", \"Orgs / Teams\"]\ndeny = [\"Bookings / Guests\"]";
    let requests = [
        ("GET /v2/bookings", "ok"),
        ("POST /v2/bookings/x/guests", REFUSED),
        ("GET /v2/bookings/x/attendees", "ok"),
        ("GET /v2/organizations/1/teams", "ok"),
        ("GET /v2/organizations/1/teams/1/workflows", "ok"),
        ("GET /v2/organizations/1/bookings", REFUSED),
        ("GET /v2/slots", REFUSED),
    ];
    check_decisions(plan, "few", &requests);
}

#[test]
fn an_operator_can_change_a_built_in_plan_list_by_list() {
    let requests = [
        ("GET /v2/me", "ok"),
        ("GET /v2/teams", "ok"),
        ("GET /v2/slots", REFUSED),
        ("GET /v2/organizations/1/teams", REFUSED),
    ];
    check_decisions("[plans.teams]\ndeny = [\"Slots\"]", "teams", &requests);
}

#[test]
fn a_plan_must_allow_the_tags_of_all_overlapping_templates() {
    let teams_me = [("GET /v2/organizations/1/teams/me", REFUSED), ("GET /v2/organizations/1/teams/7", REFUSED)];
    check_decisions("[plans.few]\nallow = [\"(unprefixed)\"]", "few", &teams_me);
    let default = [("GET /v2/organizations/1/teams/1/event-types", "ok")];
    check_decisions("[plans.few]\nallow = [\"Orgs / Teams\"]", "few", &default);
    let denied = [("GET /v2/organizations/1/teams/event-types", REFUSED), ("GET /v2/organizations/1/teams/7", "ok")];
    check_decisions("[plans.few]\nallow = [\"Orgs\"]\ndeny = [\"Orgs / Teams / Event Types\"]", "few", &denied);
    let denied = [("GET /v2/organizations/1/teams/event-types", REFUSED), ("GET /v2/organizations/1/teams/7", REFUSED)];
    check_decisions("[plans.few]\nallow = [\"Orgs / Teams / Event Types\"]", "few", &denied);
}

#[test]
fn a_refusal_names_the_plan_and_the_rule() {
    let snapshot = snapshot(
        "[consumers.it]\nkeys = [\"{key:it}\"]\ncredential = \"teams\"\n\
                   [consumers.few]\nkeys = [\"{key:few}\"]\ncredential = \"platform-essentials\"",
    );
    let table = [
        ("it", "GET /v2/organizations/1/teams", "plan \"teams\" denies \"Orgs\" (the tag is \"Orgs / Teams\")"),
        (
            "few",
            "GET /v2/organizations/1/attributes",
            "plan \"platform-essentials\" denies \"Orgs / Attributes\" (the tag is \"Orgs / Attributes\")",
        ),
    ];
    for (consumer, request, rule) in table {
        let refusal = snapshot.entitlements.grant(caller(&snapshot, consumer), find(request).unwrap()).unwrap_err();
        assert_eq!(refusal.detail().as_deref(), Some(rule));
        assert!(refusal.public_error().message.contains(rule));
    }
}
