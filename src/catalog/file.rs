//! The catalog as a data file: `config/catalog.toml`, or an operator's own (`[catalog] file`).

use std::fmt::Write as _;

use http::Method;
use serde::Deserialize;

use super::Catalog;
use super::endpoint::{Accepts, Endpoint, EndpointId, SubLimit, Template};
use super::tag::Tag;
use super::version::ApiVersion;
use crate::catalog::annotations;

const HEAD: &str = "\
# The operations of the Cal.com API v2 that calgate knows, made by `calgate catalog import` from Cal.com's API document.
#   operation             method and path template
#   tag                   canonical documentation tag; its first word (Orgs, Teams, Platform) is what plans go by
#   credential            what it takes: bearer, client (x-cal-client-id and x-cal-secret-key), either, any
#   public                answers without a credential
#   api_version           the cal-api-version that [upstream] pin_api_version adds where the client sends none
#   api_versions          the versions that the operation has, where that is known: they make a hint, never a refusal
#   requests_per_minute   Cal.com counts it apart from the credential's main limit
#   credential_operation  shows or changes credentials: refused unless a consumer is allowed it by name
#   echoes_credential     shows the credential that it was sent with: not refused to a client that brings its own
#   undocumented          not in the document, but in config/further-operations.toml
";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    endpoint: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "one for each key of a row")]
struct Row {
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

impl Row {
    fn into_endpoint(self) -> Result<Endpoint, String> {
        let operation = &self.operation;
        let in_this = |fault: String| format!("`{operation}`: {fault}");
        let (method, path) = operation.split_once(' ').ok_or_else(|| in_this("is not `METHOD /path`".to_owned()))?;
        let method = match method {
            "GET" => Method::GET,
            "POST" => Method::POST,
            "PUT" => Method::PUT,
            "PATCH" => Method::PATCH,
            "DELETE" => Method::DELETE,
            other => return Err(in_this(format!("the method `{other}` is none of GET, POST, PUT, PATCH, DELETE"))),
        };
        let version = |key: &str, text: &str| {
            ApiVersion::parse(text).ok_or_else(|| in_this(format!("the {key} `{text}` is not a date")))
        };
        let api_versions =
            self.api_versions.iter().map(|text| version("api_versions entry", text)).collect::<Result<_, _>>();
        if self.echoes_credential && !self.credential_operation {
            return Err(in_this("echoes_credential is for a credential_operation".to_owned()));
        }
        if self.requests_per_minute == Some(0) {
            return Err(in_this("requests_per_minute has to be at least 1".to_owned()));
        }
        Ok(Endpoint {
            id: EndpointId::default(),
            method,
            template: Template::parse(path).map_err(in_this)?,
            tag: Tag::canonical(&self.tag).map_err(in_this)?,
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

/// Reads the catalog that is compiled in, one row at a time: all at once, they would take 1 MB for the while.
///
/// # Errors
/// What is wrong with a row.
pub(super) fn read_built_in(text: &str) -> Result<Catalog, String> {
    Catalog::new(rows(text)?)
}

/// Reads the rows of a file that is compiled in, one at a time.
///
/// # Errors
/// What is wrong with a row.
pub(super) fn rows(text: &str) -> Result<Vec<Endpoint>, String> {
    let row = |row: &str| toml::from_str::<Row>(row).map_err(|e| e.to_string())?.into_endpoint();
    text.split("[[endpoint]]").skip(1).map(row).collect()
}

/// Reads a catalog file.
///
/// # Errors
/// What is wrong, with the line or the operation.
pub fn read(text: &str) -> Result<Catalog, String> {
    let file: File = toml::from_str(text).map_err(|e| e.to_string())?;
    let endpoints = file.endpoint.into_iter().map(Row::into_endpoint).collect::<Result<Vec<_>, _>>()?;
    if endpoints.is_empty() {
        return Err("the catalog has no endpoints".to_owned());
    }
    let catalog = Catalog::new(endpoints)?;
    // Made by hand, or by a calgate that knew less: whoever may call such an operation is given credentials by it.
    let unguarded: Vec<_> = annotations::unguarded(&catalog).iter().map(|endpoint| format!("`{endpoint}`")).collect();
    if unguarded.is_empty() {
        return Ok(catalog);
    }
    let unguarded = unguarded.join(", ");
    Err(format!("{unguarded}: shows or changes credentials, so it has to have `credential_operation = true`"))
}

/// Writes a catalog file, ordered by path and method.
pub fn write(catalog: &Catalog) -> String {
    let mut out = String::from(HEAD);
    for endpoint in catalog.endpoints() {
        write_row(&mut out, endpoint);
    }
    out
}

fn write_row(out: &mut String, endpoint: &Endpoint) {
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
