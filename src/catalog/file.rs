//! Catalog files: the built-in `config/catalog.toml`, and the file of an operator (`[catalog] file`).

use std::fmt::Write as _;

use http::Method;
use serde::Deserialize;

use super::Catalog;
use super::endpoint::{Accepts, Endpoint, EndpointId, SubLimit, Template};
use super::tag::Tag;
use super::version::ApiVersion;
use crate::catalog::annotations;

const HEAD: &str = "\
# Operations of the Cal.com API v2 that calgate knows. `calgate catalog import` makes this file from Cal.com's API document.
#   operation             method and path template
#   tag                   canonical documentation tag, by which plans include or exclude the operation
#   credential            accepted credentials: bearer, client (x-cal-client-id and x-cal-secret-key), either, any
#   public                Cal.com answers it without a credential
#   api_version           the cal-api-version that [upstream] pin_api_version adds if the client sends none
#   api_versions          known versions of the operation, for a hint to clients; calgate refuses no other version
#   requests_per_minute   limit of this operation, which Cal.com counts in addition to the main limit of the credential
#   credential_operation  shows or changes credentials; calgate refuses it unless a consumer is allowed it by name
#   echoes_credential     shows the credential of the request; calgate allows it to passthrough callers
#   undocumented          not in Cal.com's document, but in config/further-operations.toml
";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    endpoint: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "one for each key of an entry")]
struct Entry {
    operation: String,
    tag: String,
    credential: Accepts,
    #[serde(default)]
    public: bool,
    api_version: Option<String>,
    #[serde(default)]
    api_versions: Vec<String>,
    requests_per_minute: Option<u32>,
    #[serde(default)]
    credential_operation: bool,
    #[serde(default)]
    echoes_credential: bool,
    #[serde(default)]
    undocumented: bool,
}

impl Entry {
    fn into_endpoint(self) -> Result<Endpoint, String> {
        let operation = &self.operation;
        let with_name = |fault: String| format!("`{operation}`: {fault}");
        let (method, path) = operation.split_once(' ').ok_or_else(|| with_name("is not `METHOD /path`".to_owned()))?;
        let method = match method {
            "GET" => Method::GET,
            "POST" => Method::POST,
            "PUT" => Method::PUT,
            "PATCH" => Method::PATCH,
            "DELETE" => Method::DELETE,
            other => {
                return Err(with_name(format!("the method `{other}` is not one of GET, POST, PUT, PATCH, DELETE")));
            }
        };
        let version = |key: &str, text: &str| {
            ApiVersion::parse(text).ok_or_else(|| with_name(format!("the {key} `{text}` is not a date")))
        };
        let api_versions =
            self.api_versions.iter().map(|text| version("api_versions entry", text)).collect::<Result<_, _>>();
        if self.echoes_credential && !self.credential_operation {
            return Err(with_name("echoes_credential needs credential_operation = true".to_owned()));
        }
        if self.requests_per_minute == Some(0) {
            return Err(with_name("requests_per_minute must be at least 1".to_owned()));
        }
        Ok(Endpoint {
            id: EndpointId::default(),
            method,
            template: Template::parse(path).map_err(with_name)?,
            tag: Tag::canonical(&self.tag).map_err(with_name)?,
            accepts: self.credential,
            public: self.public,
            api_version: self.api_version.as_deref().map(|text| version("api_version", text)).transpose()?,
            api_versions: api_versions?,
            sub_limit: self.requests_per_minute.map(|requests_per_minute| SubLimit { requests_per_minute }),
            credential_operation: self.credential_operation,
            echoes_credential: self.echoes_credential,
            is_documented: !self.undocumented,
        })
    }
}

/// Reads the built-in catalog.
///
/// # Errors
/// The reason why an entry is invalid.
pub(super) fn read_built_in(text: &str) -> Result<Catalog, String> {
    Catalog::new(entries(text)?)
}

/// Reads the entries of a compiled-in file one at a time, because the parsed form of the whole file would take 1 MB.
///
/// # Errors
/// The reason why an entry is invalid.
pub(super) fn entries(text: &str) -> Result<Vec<Endpoint>, String> {
    let entry = |entry: &str| toml::from_str::<Entry>(entry).map_err(|e| e.to_string())?.into_endpoint();
    text.split("[[endpoint]]").skip(1).map(entry).collect()
}

/// Reads a catalog file.
///
/// # Errors
/// The reason why the file is invalid, with the line or the operation.
pub fn read(text: &str) -> Result<Catalog, String> {
    let file: File = toml::from_str(text).map_err(|e| e.to_string())?;
    let endpoints = file.endpoint.into_iter().map(Entry::into_endpoint).collect::<Result<Vec<_>, _>>()?;
    if endpoints.is_empty() {
        return Err("the catalog has no endpoints".to_owned());
    }
    let catalog = Catalog::new(endpoints)?;
    // A file that is written by hand, or by an older calgate, may lack a mark. Its operation would show credentials to any
    // caller.
    let unguarded: Vec<_> = annotations::unguarded(&catalog).iter().map(|endpoint| format!("`{endpoint}`")).collect();
    if unguarded.is_empty() {
        return Ok(catalog);
    }
    let unguarded = unguarded.join(", ");
    Err(format!("{unguarded}: shows or changes credentials, so it must have `credential_operation = true`"))
}

/// Returns the text of a catalog file, ordered by path and method.
pub fn write(catalog: &Catalog) -> String {
    let mut out = String::from(HEAD);
    for endpoint in catalog.endpoints() {
        write_entry(&mut out, endpoint);
    }
    out
}

fn write_entry(out: &mut String, endpoint: &Endpoint) {
    let mut line = |key: &str, value: &dyn std::fmt::Display| {
        let _ = writeln!(out, "{key} = {value}");
    };
    let quoted = |text: &str| toml::Value::from(text).to_string();
    line("\n[[endpoint]]\noperation", &quoted(&endpoint.to_string()));
    line("tag", &quoted(endpoint.tag.as_str()));
    line("credential", &quoted(endpoint.accepts.name()));
    if endpoint.public {
        line("public", &true);
    }
    if let Some(version) = &endpoint.api_version {
        line("api_version", &quoted(version.as_str()));
    }
    if !endpoint.api_versions.is_empty() {
        let quoted: Vec<_> = endpoint.api_versions.iter().map(|version| quoted(version.as_str())).collect();
        line("api_versions", &format!("[{}]", quoted.join(", ")));
    }
    if let Some(limit) = endpoint.sub_limit {
        line("requests_per_minute", &limit.requests_per_minute);
    }
    let marks = [
        ("credential_operation", endpoint.credential_operation),
        ("echoes_credential", endpoint.echoes_credential),
        ("undocumented", !endpoint.is_documented),
    ];
    for (key, _) in marks.iter().filter(|(_, is_set)| *is_set) {
        line(key, &true);
    }
}
