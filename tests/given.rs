//! Test fixtures without a process: gateway state from a few lines of configuration, gateway keys and request heads.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use calgate::catalog::{Accepts, Catalog, RouteMatch, UnknownEndpoints};
use calgate::config::Config;
use calgate::gateway::Snapshot;
use calgate::identify::{Caller, GatewayKey};
use calgate::refusal::Refusal;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use parking_lot::Mutex;
use serde_json::{Value, json};

/// Source of a secret in tests: cargo sets this variable to `calgate` for each test.
pub(crate) const SECRET: &str = "{ env = \"CARGO_PKG_NAME\" }";

/// Time at which tests evaluate expiry dates: 2026-01-01T00:00:00Z.
pub(crate) fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600)
}

/// Client address of tests in which it does not matter.
pub(crate) const PEER: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

/// Returns the gateway key of `name`. It is the same within one run of the tests.
pub(crate) fn key(name: &str) -> String {
    static KEYS: LazyLock<Mutex<HashMap<String, String>>> = LazyLock::new(Mutex::default);
    KEYS.lock().entry(name.to_owned()).or_insert_with(|| GatewayKey::generate().unwrap()).clone()
}

/// Returns the hash of a key, as it stands in a configuration.
pub(crate) fn hash(key: &str) -> String {
    GatewayKey::parse(key).unwrap().hash().to_string()
}

/// Builds the state of a configuration. Adds a credential for each of [`PLANS`], with the name of the plan, and replaces
/// `{key:NAME}` by the hash of [`key`]`(NAME)`.
pub(crate) fn snapshot(text: &str) -> Snapshot {
    Snapshot::build(config(text), None).unwrap()
}

/// Returns the configuration from which [`snapshot`] builds.
pub(crate) fn config(text: &str) -> Config {
    Config::parse("test.toml", &whole(text)).unwrap_or_else(|unusable| panic!("{unusable}"))
}

fn whole(text: &str) -> String {
    let mut pieces = text.split("{key:");
    let mut out = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (name, rest) = piece.split_once('}').unwrap();
        out += &hash(&key(name));
        out += rest;
    }
    for plan in PLANS {
        out += &format!(
            "\n[credentials.{plan}]\nkind = \"platform-client\"\nclient_id = \"client-of-{plan}\"\nplan = \"{plan}\"\n\
             client_secret = {SECRET}\napi_key = {SECRET}\n"
        );
    }
    out
}

/// The built-in plans.
pub(crate) const PLANS: [&str; 9] = [
    "teams",
    "organizations",
    "platform-free",
    "platform-starter",
    "platform-essentials",
    "platform-scale",
    "platform-per-active-user",
    "platform-enterprise",
    "unrestricted",
];

/// Returns a map of header fields, in order.
pub(crate) fn headers<const N: usize>(fields: [(&str, &str); N]) -> HeaderMap {
    let field = |(name, value): (&str, &str)| {
        (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap())
    };
    let mut map = HeaderMap::new();
    for (name, value) in fields.map(field) {
        map.append(name, value);
    }
    map
}

/// Returns the caller that sends [`key`]`(name)`.
pub(crate) fn caller<'a>(snapshot: &'a Snapshot, name: &str) -> Caller<'a> {
    let key = key(name);
    snapshot.consumers.identify(&headers([("x-api-key", &key)]), PEER, now()).unwrap()
}

/// Looks up `METHOD /path` in the built-in catalog.
pub(crate) fn find(request: &str) -> Result<RouteMatch<'_>, Refusal> {
    let (method, path) = request.split_once(' ').unwrap();
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    Catalog::built_in().match_route(&method, path, UnknownEndpoints::Refuse)
}

/// Returns the API document of Cal.com, which is not part of this project. Prints a message if there is none.
pub(crate) fn openapi() -> Option<String> {
    let Some(path) = std::env::var_os("CALGATE_OPENAPI") else {
        println!("skipped: CALGATE_OPENAPI is not set to the path of Cal.com's API document");
        return None;
    };
    Some(std::fs::read_to_string(&path).expect("CALGATE_OPENAPI names a file that can be read"))
}

/// Returns an API document with the documented operations of the catalog, in the form of Cal.com's document.
pub(crate) fn known_document() -> Value {
    let parameter =
        |place: &str, name: &str, required: bool| json!({ "in": place, "name": name, "required": required });
    let mut paths = json!({});
    for endpoint in Catalog::built_in().endpoints().iter().filter(|endpoint| endpoint.is_documented) {
        let mut parameters = match endpoint.accepts {
            Accepts::Bearer => vec![parameter("header", "Authorization", true)],
            Accepts::Client => vec![parameter("header", "x-cal-secret-key", true)],
            Accepts::Either => {
                ["Authorization", "x-cal-secret-key"].map(|name| parameter("header", name, false)).into()
            }
            Accepts::Any => ["code", "state"].map(|name| parameter("query", name, true)).into(),
        };
        parameters.extend(endpoint.api_version.as_ref().map(
            |version| json!({ "in": "header", "name": "cal-api-version", "schema": { "default": version.as_str() } }),
        ));
        paths[endpoint.template.as_str()][endpoint.method.as_str().to_lowercase()] =
            json!({ "tags": [endpoint.tag.as_str()], "parameters": parameters });
    }
    json!({ "openapi": "3.0.0", "paths": paths })
}

/// Returns the code of a refusal, or `ok`.
pub(crate) fn code<T>(result: Result<T, Refusal>) -> &'static str {
    result.map_or_else(|refusal| refusal.code(), |_| "ok")
}
