//! `[credentials.NAME]`: the Cal.com credentials, and the plan each comes with.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::problem::known_names;
use super::reader::Section;
use super::tiers::MOST_PER_MINUTE;
use super::{plans::PlanLists, secret};
use crate::credential::{Credential, Kind};

/// A configured credential.
#[derive(Debug, Clone)]
pub struct CredentialConfig {
    /// What is injected.
    pub credential: Arc<Credential>,
    /// The plan of the customer whose it is.
    pub plan: String,
    /// What Cal.com grants it, where that is said.
    pub requests_per_minute: Option<u32>,
    /// Whether Cal.com's answers may raise that.
    pub learn_limit: bool,
}

#[derive(Clone, Copy)]
enum KindName {
    ApiKey,
    PlatformClient,
}

const KINDS: [(&str, KindName); 2] = [("api-key", KindName::ApiKey), ("platform-client", KindName::PlatformClient)];

/// All credentials by name. One that cannot be used is noted and left out.
pub(super) fn read(
    section: Option<&Section<'_>>,
    plans: &BTreeMap<String, PlanLists>,
) -> BTreeMap<String, Option<CredentialConfig>> {
    let mut credentials = BTreeMap::new();
    for (name, credential) in section.map(Section::named_sections).unwrap_or_default() {
        let kind = read_kind(&credential);
        let plan = plan_name(&credential, plans);
        let requests_per_minute = credential.integer("requests_per_minute", 1..=MOST_PER_MINUTE);
        let learn_limit = credential.boolean("learn_limit").unwrap_or(false);
        let read = kind.zip(plan).map(|(kind, plan)| CredentialConfig {
            credential: Arc::new(Credential { name: name.value.into(), kind }),
            plan,
            requests_per_minute,
            learn_limit,
        });
        credentials.insert(name.value.to_owned(), read);
        credential.finish();
    }
    credentials
}

fn read_kind(section: &Section<'_>) -> Option<Kind> {
    if section.raw("kind").is_none() {
        section.missing("kind", "one of: api-key, platform-client");
    }
    let Some(kind) = section.choice("kind", &KINDS) else {
        // Which keys belong here is not known: none of them is a mistake of its own.
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
            let key = secret::read(section, "api_key")?;
            Some(Kind::ApiKey { authorization: key.header("Bearer ") })
        }
        KindName::PlatformClient => {
            let id = section.string("client_id");
            if id.is_none() && section.raw("client_id").is_none() {
                section.missing("client_id", "the client's id, as Cal.com shows it");
            }
            if section.raw("client_secret").is_none() {
                section.missing("client_secret", "write client_secret = { file = \"…\" } or { env = \"…\" }");
            }
            let authorization = secret::read(section, "api_key").map(|key| key.header("Bearer "));
            let secret = secret::read(section, "client_secret")?;
            let id = id?;
            let Ok(id_header) = id.value.parse() else {
                section.wrong(
                    id.span,
                    format!("`{}.client_id` has characters no header can carry", section.path),
                    None,
                );
                return None;
            };
            Some(Kind::PlatformClient { id: id_header, secret: secret.header(""), authorization })
        }
    }
}

/// Reads `plan`, which has to be there and known.
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
        section.wrong(plan.span, format!("unknown plan `{}`", plan.value), help);
        return None;
    }
    Some(plan.value.to_owned())
}
