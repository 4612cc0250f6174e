//! Further operations, which Cal.com's document lacks: the list, and its role in an import and a diff.

use std::collections::BTreeSet;

use calgate::catalog::diff::diff;
use calgate::catalog::import::import;
use calgate::catalog::{Accepts, Catalog, Endpoint, Prefix, UnknownEndpoints};
use serde_json::{Value, json};

use crate::given::known_document;

fn further() -> impl Iterator<Item = &'static Endpoint> {
    Catalog::built_in().endpoints().iter().filter(|endpoint| !endpoint.is_documented)
}

fn endpoint_named(name: &str) -> &'static Endpoint {
    Catalog::built_in().find_by_name(name).unwrap_or_else(|| panic!("{name} is not in the catalog"))
}

#[test]
fn the_built_in_catalog_contains_the_whole_list() {
    let list: toml::Table = include_str!("../../config/further-operations.toml").parse().unwrap();
    let rows = list["endpoint"].as_array().unwrap();
    let listed: BTreeSet<_> = rows.iter().map(|row| row["operation"].as_str().unwrap().to_owned()).collect();
    assert_eq!(listed, further().map(ToString::to_string).collect());
    assert_eq!(listed.len(), 68);
    for row in rows {
        let endpoint = endpoint_named(row["operation"].as_str().unwrap());
        assert_eq!(row["tag"].as_str(), Some(endpoint.tag.as_str()), "{endpoint}");
        assert_eq!(row.get("public").is_some(), endpoint.public, "{endpoint}");
        assert_eq!(row.get("credential_operation").is_some(), endpoint.credential_operation, "{endpoint}");
    }
}

/// Operations that Cal.com's clients call, and those that its application has (FACTS §7).
#[test]
fn contains_the_operations_that_clients_call() {
    for name in [
        "GET /v2/event-types/{id}/crm-sync-errors",
        "GET /v2/event-types/{id}/scheduling-config",
        "GET /v2/event-types/{id}/history",
        "GET /v2/event-types/{id}/booking-fields",
        "GET /v2/bookings/{uid}/routing-trace",
        "GET /v2/organizations/{o}/attributes/assignments/{u}/history",
        "PATCH /v2/organizations/{o}/attributes/options/{u}/{a}",
        "GET /v2/timezones",
        "GET /v2/selected-calendars",
        "POST /v2/bookings/recurring",
        "POST /v2/bookings/instant",
        "GET /v2/slots/available",
        "POST /v2/slots/reserve",
        "DELETE /v2/slots/selected-slot",
        "GET /v2/provider/{clientId}",
        "GET /v2/provider/{clientId}/access-token",
        "POST /v2/atoms/schedules/{id}/duplicate",
        "POST /v2/notifications/subscriptions/app-push",
        "DELETE /v2/notifications/subscriptions/app-push",
        "GET /v2/oauth-clients/{c}/managed-users",
        "POST /v2/oauth/{c}/authorize",
        "POST /v2/oauth/{c}/exchange",
        "POST /v2/router/forms/{id}/submit",
        "POST /v2/bookings/{uid}/mark-no-show",
        "GET /v2/bookings/{uid}/reschedule",
        "GET /v2/event-types/{u}/{s}/public",
        "DELETE /v2/bookings/{uid}/attendees/{id}",
    ] {
        let (method, path) = name.split_once(' ').unwrap();
        let path = path.replace(['{', '}'], "");
        let found = Catalog::built_in().match_route(&method.parse().unwrap(), &path, UnknownEndpoints::Refuse);
        assert!(found.is_ok_and(|found| !found.endpoint().unwrap().is_documented), "{name}");
    }
    let under = |start: &str| further().filter(|e| e.template.as_str().starts_with(start)).count();
    assert_eq!([under("/v2/calendars/connections"), under("/v2/gcal"), under("/v2/billing")], [7, 3, 4]);
    assert!(under("/v2/atoms/") > 20);
}

#[test]
fn operations_with_tokens_in_responses_are_credential_operations() {
    let marked: Vec<_> = further().filter(|endpoint| endpoint.credential_operation).map(ToString::to_string).collect();
    let expected =
        ["GET /v2/gcal/oauth/auth-url", "POST /v2/oauth/{clientId}/authorize", "POST /v2/oauth/{clientId}/exchange"];
    assert_eq!(marked, expected);
    let echoes: Vec<_> = Catalog::built_in().endpoints().iter().filter(|e| e.echoes_credential).collect();
    assert_eq!(echoes.len(), 6);
    assert!(echoes.iter().all(|endpoint| endpoint.credential_operation));
}

/// The tag of a further operation must not move its path out of the prefix that the path has while it is unknown.
#[test]
fn each_tag_has_the_prefix_of_its_path() {
    for endpoint in further() {
        let after_v2: Vec<_> = endpoint.template.as_str().split('/').skip(2).collect();
        let by_path = Prefix::of_unknown_path(after_v2.into_iter());
        assert_eq!(endpoint.tag.prefix(), by_path, "{endpoint}");
    }
}

/// Returns the known document with one more operation.
fn document_with(operation: &str, tag: &str, parameters: &Value) -> String {
    let (method, path) = operation.split_once(' ').unwrap();
    let mut document = known_document();
    document["paths"][path][method.to_lowercase()] = json!({ "tags": [tag], "parameters": parameters });
    document.to_string()
}

#[test]
fn the_document_takes_precedence_and_keeps_the_annotations() {
    let bearer = json!([{ "in": "header", "name": "Authorization", "required": true }]);
    let import = |document: &str| import(document).unwrap().into_catalog(&[]).unwrap();
    let catalog = import(&document_with("POST /v2/oauth/{id}/exchange", "Platform / Tokens", &bearer));
    assert_eq!(catalog.endpoints().len(), Catalog::built_in().endpoints().len());
    let exchange = catalog.find_by_name("POST /v2/oauth/{id}/exchange").unwrap();
    assert!(exchange.credential_operation && exchange.is_documented);
    assert_eq!((exchange.tag.as_str(), exchange.accepts), ("Platform / Tokens", Accepts::Bearer));

    let slots = import(&document_with("GET /v2/slots/available", "Slots", &json!([])));
    let available = slots.find_by_name("GET /v2/slots/available").unwrap();
    assert!(available.public && available.api_versions.len() == 4 && available.is_documented);
    let attendees = "DELETE /v2/bookings/{uid}/attendees/{id}";
    let deleted = import(&document_with(attendees, "Bookings / Attendees", &bearer));
    assert_eq!(deleted.find_by_name(attendees).unwrap().sub_limit.map(|limit| limit.requests_per_minute), Some(5));
}

#[test]
fn a_diff_reports_newly_documented_operations() {
    let bearer = json!([{ "in": "header", "name": "Authorization", "required": true }]);
    let newer = import(&document_with("GET /v2/timezones", "Time Zones", &bearer)).unwrap().catalog;
    let lines: Vec<_> = diff(Catalog::built_in(), &newer).iter().map(ToString::to_string).collect();
    assert_eq!(lines, ["documented GET /v2/timezones  tag: Timezones -> Time Zones  credential: any -> bearer"]);
    assert_eq!(diff(Catalog::built_in(), &import(&known_document().to_string()).unwrap().catalog), []);
}
