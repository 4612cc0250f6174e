//! Scope of the limits in a response: the credential, or one operation.

use std::time::Duration;

use calgate::ratelimit::scope::{LimitNames, NameSightings, Scope};
use calgate::ratelimit::usage_headers::{LimitReading, name_hash};

/// Limit of the credential in a window.
const GRANTED: u32 = 120;

fn told(limits: &[(&str, u32)]) -> Vec<LimitReading> {
    let seen = |&(name, limit): &(&str, u32)| LimitReading {
        name: name_hash(name),
        limit: Some(limit),
        remaining: 1,
        reset: Duration::from_secs(60),
    };
    limits.iter().map(seen).collect()
}

fn scope(usual: &[(&str, u32)], limits: &[(&str, u32)], here: bool, elsewhere: bool) -> Scope {
    let mut names = LimitNames::default();
    if !usual.is_empty() {
        names.note(&told(usual));
    }
    names.scope(&told(limits), GRANTED, NameSightings { here, elsewhere })
}

#[test]
fn default_and_several_names_belong_to_the_credential() {
    let own = [("burst", 10), ("day", 1000)];
    for usual in [&[][..], &[("default", 120)], &own] {
        for limits in [&[("Default", 3)][..], &[("", 3)], &own] {
            assert_eq!(scope(usual, limits, false, false), Scope::Credential, "{usual:?} {limits:?}");
        }
    }
}

#[test]
fn an_unusual_name_belongs_to_the_operation() {
    let operation = [("Org_teams_verified_resources_emails_requests", 3)];
    assert_eq!(scope(&[("default", 120)], &operation, false, false), Scope::Operation);
    assert_eq!(scope(&[("default", 120)], &operation, false, true), Scope::Operation, "two operations share it");
    assert_eq!(scope(&[("burst", 120)], &operation, false, false), Scope::Operation);
    assert_eq!(scope(&[], &operation, false, false), Scope::Operation, "the first answer of all");
    assert_eq!(scope(&[], &operation, true, false), Scope::Operation, "the catalog knows it");
}

#[test]
fn a_key_with_a_limit_name_of_its_own_is_recognised() {
    let (wide, narrow) = ([("team", 60)], [("team", 59)]);
    assert_eq!(scope(&[], &wide, false, false), Scope::Credential);
    assert_eq!(scope(&[], &narrow, false, false), Scope::Operation, "until another operation has it");
    assert_eq!(scope(&[], &narrow, false, true), Scope::Credential);
    assert_eq!(scope(&narrow, &narrow, true, false), Scope::Credential);
}

#[test]
fn a_change_of_the_limits_of_a_key_is_recognised() {
    let wide = [("raised", 800)];
    assert_eq!(scope(&[("default", 120)], &wide, false, false), Scope::Operation);
    assert_eq!(scope(&[("default", 120)], &wide, false, true), Scope::Credential);
    assert_eq!(scope(&[("default", 120)], &wide, true, true), Scope::Credential);
}
