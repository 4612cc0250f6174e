//! `[credentials.NAME]`: the Cal.com credentials, each with the plan of its customer.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::Uri;

use super::diagnostics::known_names;
use super::section::Section;
use super::tiers::MAX_PER_MINUTE;
use super::upstream::BaseUrl;
use super::{plans::PlanLists, secret_source, warnings};
use crate::budget::OAUTH_PER_MINUTE;
use crate::credential::{ApiKey, Credential, Kind, ManagedUsers, OAuthClient, PlatformClient};
use crate::secret::Secret;

/// Settings of a credential.
#[derive(Debug, Clone)]
pub struct CredentialConfig {
    /// Credential that the gateway injects.
    pub credential: Arc<Credential>,
    /// Plan of the customer that the credential belongs to.
    pub plan: String,
    /// Requests per minute that Cal.com grants the credential, if configured.
    pub requests_per_minute: Option<u32>,
    /// Whether a higher limit in Cal.com's responses raises this.
    pub learn_limit: bool,
}

#[derive(Clone, Copy)]
enum KindName {
    ApiKey,
    OAuth,
    PlatformClient,
}

const KINDS: [(&str, KindName); 3] =
    [("api-key", KindName::ApiKey), ("oauth", KindName::OAuth), ("platform-client", KindName::PlatformClient)];

/// Page where a Cal.com user grants access (FACTS §1).
const AUTHORIZE_URL: &str = "https://app.cal.com/auth/oauth2/authorize";

/// Reads all credentials by name. An invalid one is reported and has the value `None`.
pub(super) fn read(
    section: Option<&Section<'_>>,
    plans: &BTreeMap<String, PlanLists>,
    has_store: bool,
) -> BTreeMap<String, Option<CredentialConfig>> {
    let mut credentials = BTreeMap::new();
    for (name, credential) in section.map(Section::named_sections).unwrap_or_default() {
        let kind = read_kind(&credential);
        let makes_tokens = !matches!(kind, Some(Kind::OAuth(_)));
        let reveal_tokens = makes_tokens && credential.boolean("reveal_tokens").unwrap_or(false);
        let plan = plan_name(&credential, plans);
        let requests_per_minute = credential.integer("requests_per_minute", 1..=MAX_PER_MINUTE);
        let learn_limit = credential.boolean("learn_limit").unwrap_or(false);
        if let Some(needs) = kind.as_ref().and_then(needs_store).filter(|_| !has_store) {
            let help = "add [token_store] with `path` (or `postgres`) and `seal_keys`".to_owned();
            credential.error(name.span.clone(), format!("`{}`: {needs} needs a token store", credential.path), help);
        }
        let read = kind.zip(plan).map(|(kind, plan)| CredentialConfig {
            credential: Arc::new(Credential { name: name.value.into(), kind, reveal_tokens, stored: has_store }),
            plan,
            requests_per_minute,
            learn_limit,
        });
        credentials.insert(name.value.to_owned(), read);
        credential.reject_unknown();
    }
    credentials
}

/// Adapts the credentials to the token store of the running gateway, because a changed `[token_store]` needs a restart.
///
/// # Errors
/// A credential needs a token store, and the gateway has none.
pub(super) fn require_store(
    credentials: &mut BTreeMap<String, CredentialConfig>,
    has_store: bool,
) -> Result<(), String> {
    for (name, config) in credentials.iter_mut().filter(|(_, config)| config.credential.stored != has_store) {
        if let Some(needs) = needs_store(&config.credential.kind).filter(|_| !has_store) {
            return Err(format!(
                "`credentials.{name}`: {needs} needs a token store, and a new [token_store] takes effect only after a restart"
            ));
        }
        config.credential = Arc::new(Credential { stored: has_store, ..(*config.credential).clone() });
    }
    Ok(())
}

fn needs_store(kind: &Kind) -> Option<&'static str> {
    match kind {
        Kind::OAuth(_) => Some("an OAuth grant"),
        Kind::PlatformClient(PlatformClient { managed: Some(_), .. }) => Some("managed_users"),
        Kind::ApiKey(_) | Kind::PlatformClient(_) => None,
    }
}

fn read_kind(section: &Section<'_>) -> Option<Kind> {
    if section.raw("kind").is_none() {
        section.missing("kind", "one of: api-key, oauth, platform-client");
    }
    let Some(kind) = section.choice("kind", &KINDS) else {
        // Without a kind, the allowed keys are unknown. None of these keys is reported as a further mistake.
        for key in ["api_key", "client_id", "client_secret"] {
            section.raw(key);
        }
        return None;
    };
    match kind {
        KindName::ApiKey => {
            if section.raw("api_key").is_none() {
                section.missing("api_key", "write api_key = { file = \"…\" } or { env = \"…\" }");
            }
            Some(Kind::ApiKey(ApiKey::new(&read_secret(section, "api_key")?)))
        }
        KindName::OAuth => {
            let client_secret = section.raw("client_secret").map(|_| read_secret(section, "client_secret"));
            let authorize_url = authorize_url(section);
            let client_id = client_id(section);
            let client_secret = match client_secret {
                Some(given) => Some(given?),
                None => None,
            };
            let pkce = pkce(section, client_secret.is_some());
            Some(Kind::OAuth(OAuthClient { client_id: client_id?, client_secret, authorize_url: authorize_url?, pkce }))
        }
        KindName::PlatformClient => read_platform_client(section).map(Kind::PlatformClient),
    }
}

/// Reads a secret of Cal.com, and warns if it does not look like one.
fn read_secret(section: &Section<'_>, key: &'static str) -> Option<Secret> {
    let secret = secret_source::read(section, key)?;
    warnings::check_secret(section, key, &secret);
    Some(secret)
}

fn read_platform_client(section: &Section<'_>) -> Option<PlatformClient> {
    let id = client_id(section);
    if section.raw("client_secret").is_none() {
        section.missing("client_secret", "write client_secret = { file = \"…\" } or { env = \"…\" }");
    }
    let api_key = read_secret(section, "api_key").map(|key| ApiKey::new(&key));
    let secret = read_secret(section, "client_secret");
    let headers_anywhere = section.choice("client_headers", &[("documented", false), ("anywhere", true)]);
    let managed = section.boolean("managed_users").unwrap_or(false);
    let recover = section.choice("recover", &[("off", false), ("force-refresh", true)]);
    if recover == Some(true) && !managed {
        let help = "add managed_users = true, or remove `recover`".to_owned();
        section.error(section.span.clone(), format!("`{}.recover` is for managed users", section.path), help);
    }
    let per_user = section.integer("managed_user_requests_per_minute", 1..=MAX_PER_MINUTE);
    if per_user.is_some() && !managed {
        let help = "add managed_users = true, or remove `managed_user_requests_per_minute`".to_owned();
        let what = format!("`{}.managed_user_requests_per_minute` is for managed users", section.path);
        section.error(section.span.clone(), what, help);
    }
    let (client_id, secret) = (id?, secret?.header(""));
    let managed = managed.then(|| ManagedUsers {
        client_id: client_id.clone(),
        secret: secret.clone(),
        recover: recover.unwrap_or(false),
        requests_per_minute: per_user.unwrap_or(OAUTH_PER_MINUTE),
    });
    let headers_anywhere = headers_anywhere.unwrap_or(false);
    Some(PlatformClient { id: client_id.parse().ok()?, secret, api_key, managed, headers_anywhere })
}

/// Reads `pkce`. Cal.com rejects a `code_verifier` from a client with a secret, and requires one from a client without (FACTS §1).
fn pkce(section: &Section<'_>, has_secret: bool) -> bool {
    let chosen = section.choice("pkce", &[("auto", None), ("always", Some(true)), ("never", Some(false))]);
    if chosen == Some(Some(false)) && !has_secret {
        let help = "remove `pkce`, or add `client_secret`".to_owned();
        section.error(section.span.clone(), format!("`{}`: a client without a secret needs PKCE", section.path), help);
    }
    chosen.flatten().unwrap_or(!has_secret)
}

/// Reads `authorize_url`, where a person logs in. The rules of `upstream.base_url` apply, except that any path and query is allowed.
fn authorize_url(section: &Section<'_>) -> Option<String> {
    let Some(url) = section.string("authorize_url") else { return Some(AUTHORIZE_URL.to_owned()) };
    let origin = |uri: Uri| Some(format!("{}://{}", uri.scheme_str()?, uri.authority()?));
    let fault = match url.value.parse().ok().and_then(origin) {
        Some(_) if url.value.contains('#') => "it must not have a fragment",
        Some(origin) if origin.contains('@') => "it must not have a user",
        Some(origin) => match BaseUrl::parse(&origin) {
            Ok(_) => return Some(url.value.to_owned()),
            Err(fault) => fault,
        },
        None => "it must begin with https://",
    };
    if url.value.contains('@') {
        section.hide(url.span.clone());
    }
    section.error(url.span, format!("`{}.authorize_url` cannot be used: {fault}", section.path), None);
    None
}

/// Reads `client_id`, which appears in headers, forms and paths.
fn client_id(section: &Section<'_>) -> Option<String> {
    let Some(id) = section.string("client_id") else {
        if section.raw("client_id").is_none() {
            section.missing("client_id", "the client's id, as Cal.com shows it");
        }
        return None;
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if id.value.is_empty() || !id.value.bytes().all(plain) {
        section.error(id.span, format!("`{}.client_id` is not the id of a Cal.com client", section.path), None);
        return None;
    }
    Some(id.value.to_owned())
}

/// Reads `plan`, which is required and has to be a known plan.
pub(super) fn plan_name(section: &Section<'_>, plans: &BTreeMap<String, PlanLists>) -> Option<String> {
    let known = || known_names("", plans.keys().map(String::as_str));
    let Some(plan) = section.string("plan") else {
        if section.raw("plan").is_none() {
            section.missing("plan", &known());
        }
        return None;
    };
    if !plans.contains_key(plan.value) {
        let help = known_names(plan.value, plans.keys().map(String::as_str));
        section.error(plan.span, format!("unknown plan `{}`", plan.value), help);
        return None;
    }
    Some(plan.value.to_owned())
}
