//! Decision of every built-in plan about every operation, compared with a table.
//!
//! The code under test does not create the table. The rule below does, from the paths and tags of Cal.com's own document, if it
//! is available. To update the table for a newer document, run this test with `CALGATE_WRITE_DECISIONS=1`.

use calgate::catalog::Catalog;
use calgate::refusal::Refusal;
use serde_json::Value;

use crate::given::{self, PLANS, openapi, snapshot};

const TABLE: &str = include_str!("../data/decisions.tsv");

/// Decision of a plan about an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    Allow,
    /// 403 `GATEWAY_NOT_ENTITLED`.
    DenyPlan,
    /// 403 `GATEWAY_CREDENTIAL_OPERATION`.
    DenyCredential,
}

const WORDS: [(&str, Decision); 3] =
    [("allow", Decision::Allow), ("deny-plan", Decision::DenyPlan), ("deny-credential", Decision::DenyCredential)];

/// Line of the table: an operation (`METHOD /template`) and the decision of each plan.
pub(crate) struct Row {
    pub(crate) operation: &'static str,
    pub(crate) decisions: Vec<(&'static str, Decision)>,
}

/// Returns the whole table.
pub(crate) fn table() -> Vec<Row> {
    let mut lines = TABLE.lines().filter(|line| !line.starts_with('#'));
    let plans: Vec<_> = lines.next().unwrap().split('\t').skip(1).collect();
    let decision = |word: &str| WORDS.iter().find(|(name, _)| *name == word).unwrap().1;
    let row = |line: &'static str| {
        let (operation, words) = line.split_once('\t').unwrap();
        let decisions = plans.iter().copied().zip(words.split('\t').map(decision)).collect();
        Row { operation, decisions }
    };
    lines.map(row).collect()
}

/// Class of operations that plans treat alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Plain,
    Team,
    Platform,
    Organization,
    /// Organizations within an organization, for platform customers only.
    ManagedOrganization,
    /// Attributes and routing form responses, which platform customers lack.
    OrganizationOnly,
}

fn class_by_path(path: &str) -> Class {
    let path =
        path.strip_prefix("/v2/atoms/organizations").map_or(path.to_owned(), |rest| format!("/v2/organizations{rest}"));
    let part = |n: usize| path.split('/').nth(n).unwrap_or_default();
    match (part(2), part(4), part(6), part(8)) {
        ("organizations", "organizations", _, _) => Class::ManagedOrganization,
        ("organizations", "attributes", _, _) | ("organizations", "teams", "routing-forms", "responses") => {
            Class::OrganizationOnly
        }
        ("organizations", ..) => Class::Organization,
        ("teams", ..) => Class::Team,
        ("oauth" | "oauth-clients" | "provider" | "billing" | "atoms", ..) => Class::Platform,
        _ => Class::Plain,
    }
}

fn class_by_tag(tag: &str) -> Class {
    match tag {
        "Managed Orgs" => Class::ManagedOrganization,
        "Orgs / Attributes" | "Orgs / Attributes / Options" | "Orgs / Teams / Routing forms / Responses" => {
            Class::OrganizationOnly
        }
        "Organization Team Verified Resources" => Class::Organization,
        "Teams Verified Resources" | "Teams" => Class::Team,
        _ if tag.starts_with("Orgs / ") => Class::Organization,
        _ if tag.starts_with("Teams / ") => Class::Team,
        _ if tag.starts_with("Deprecated: Platform") => Class::Platform,
        _ => Class::Plain,
    }
}

fn shows_credentials(method: &str, path: &str) -> bool {
    let echoes_credential = path.ends_with("/oauth/auth-url")
        || ["/v2/calendars/{calendar}/connect", "/v2/stripe/connect"].contains(&path)
        || path.ends_with("/{teamId}/stripe/connect");
    echoes_credential
        || path.ends_with("/exchange")
        || path.ends_with("/authorize")
        || path.ends_with("/refresh")
        || path.ends_with("/force-refresh")
        || ["/v2/oauth-clients", "/v2/oauth-clients/{clientId}"].contains(&path)
        || (method == "post" && (path.ends_with("/{clientId}/users") || path.ends_with("/{orgId}/organizations")))
}

fn rule(method: &str, path: &str, plan: &str) -> Decision {
    use Class::*;
    let has: &[Class] = match plan {
        "teams" => &[Plain, Team],
        "organizations" => &[Plain, Platform, Organization, OrganizationOnly],
        "platform-free" | "platform-starter" => &[Plain, Platform],
        "platform-essentials" | "platform-scale" | "platform-per-active-user" | "platform-enterprise" => {
            &[Plain, Platform, Organization, ManagedOrganization]
        }
        "unrestricted" => &[Plain, Team, Platform, Organization, ManagedOrganization, OrganizationOnly],
        other => panic!("{other} is not a built-in plan"),
    };
    if shows_credentials(method, path) {
        Decision::DenyCredential
    } else if has.contains(&class_by_path(path)) {
        Decision::Allow
    } else {
        Decision::DenyPlan
    }
}

/// Creates the table from a document by the rule.
fn make(document: &str) -> String {
    let document: Value = serde_json::from_str(document).unwrap();
    let mut rows = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let tag = operation["tags"][0].as_str().unwrap();
            assert_eq!(class_by_path(path), class_by_tag(tag), "{method} {path} has the tag {tag}");
            let words = PLANS.map(|plan| {
                let decision = rule(method, path, plan);
                WORDS.iter().find(|(_, known)| *known == decision).unwrap().0
            });
            rows.push(((path.clone(), method.to_uppercase()), words.join("\t")));
        }
    }
    let further: toml::Table = include_str!("../../config/further-operations.toml").parse().unwrap();
    for row in further["endpoint"].as_array().unwrap() {
        let (method, path) = row["operation"].as_str().unwrap().split_once(' ').unwrap();
        let words = PLANS.map(|plan| {
            let decision = rule(&method.to_lowercase(), path, plan);
            WORDS.iter().find(|(_, known)| *known == decision).unwrap().0
        });
        rows.push(((path.to_owned(), method.to_owned()), words.join("\t")));
    }
    rows.sort();
    let head = "# Decisions of the built-in plans about each operation: allow, deny-plan (403 GATEWAY_NOT_ENTITLED) or \
                deny-credential (403 GATEWAY_CREDENTIAL_OPERATION). Tabs separate the columns, which the next line names.\n";
    let rows = rows.into_iter().map(|((path, method), words)| format!("{method} {path}\t{words}\n"));
    format!("{head}operation\t{}\n", PLANS.join("\t")) + &rows.collect::<String>()
}

#[test]
fn the_table_agrees_with_the_document() {
    let Some(document) = openapi() else { return };
    let made = make(&document);
    if std::env::var_os("CALGATE_WRITE_DECISIONS").is_some() {
        std::fs::write("tests/data/decisions.tsv", &made).unwrap();
    }
    assert!(made == TABLE, "the table is out of date; see the head of this file");
}

#[test]
fn each_plan_decides_as_the_table_says() {
    let consumers =
        PLANS.map(|plan| format!("[consumers.{plan}]\nkeys = [\"{{key:{plan}}}\"]\ncredential = \"{plan}\"\n"));
    let snapshot = snapshot(&consumers.concat());
    let rows = table();
    assert_eq!(rows.len(), Catalog::built_in().endpoints().len());
    for row in rows {
        assert_eq!(row.decisions.iter().map(|(plan, _)| *plan).collect::<Vec<_>>(), PLANS);
        let request = row.operation.replace(['{', '}'], "");
        for (plan, expected) in row.decisions {
            let route = given::find(&request).unwrap();
            let decided = match snapshot.entitlements.grant(given::caller(&snapshot, plan), route) {
                Ok(_) => Decision::Allow,
                Err(Refusal::NotEntitled(_)) => Decision::DenyPlan,
                Err(Refusal::CredentialOperation) => Decision::DenyCredential,
                Err(other) => panic!("{}: {other:?}", row.operation),
            };
            assert_eq!(decided, expected, "{} for {plan}", row.operation);
        }
    }
}
