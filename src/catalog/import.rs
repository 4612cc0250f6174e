//! Turns Cal.com's OpenAPI document into a catalog (`calgate catalog import`).

use std::collections::BTreeMap;
use std::fmt;

use http::Method;
use serde::Deserialize;
use serde_json::Value;

use super::Catalog;
use super::endpoint::{Accepts, Endpoint, EndpointId, Template};
use super::further;
use super::tag::Tag;
use super::version::ApiVersion;
use crate::catalog::annotations::{self, MissingAnnotation};

/// The keys of a path item that are operations (OpenAPI 3.0 §4.7.9); the others describe the path as a whole.
const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

/// Why a document cannot become a catalog.
#[derive(Debug, PartialEq, Eq)]
pub enum ImportError {
    /// It is not JSON, or not of an API document's shape.
    NotADocument(String),
    /// Two of its operations are one: method and template differ in no more than a parameter's name.
    Twice(String),
    /// It lacks an operation of which calgate knows more than a document says.
    Missing(MissingAnnotation),
    /// This is said to be gone, and is not.
    NotGone(String),
    /// One operation in it cannot be understood.
    Operation {
        /// `METHOD /path` as the document has it.
        operation: String,
        /// What is wrong.
        fault: String,
    },
}

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotADocument(fault) => write!(f, "this is not Cal.com's API document (OpenAPI 3 as JSON): {fault}"),
            Self::Twice(fault) => f.write_str(fault),
            Self::Missing(missing) => write!(f, "it has no operation like {missing}"),
            Self::NotGone(operation) => write!(f, "`{operation}` is not among the operations that this document lacks"),
            Self::Operation { operation, fault } => write!(f, "{operation}: {fault}"),
        }
    }
}

impl std::error::Error for ImportError {}

#[derive(Deserialize)]
struct Document {
    openapi: String,
    paths: BTreeMap<String, BTreeMap<String, Value>>,
}

#[derive(Deserialize)]
struct Operation {
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    parameters: Vec<Parameter>,
}

#[derive(Deserialize)]
struct Parameter {
    name: String,
    #[serde(rename = "in")]
    place: String,
    #[serde(default)]
    required: bool,
    #[serde(default)]
    description: String,
    #[serde(default)]
    schema: Schema,
}

#[derive(Deserialize, Default)]
struct Schema {
    #[serde(default)]
    default: Option<Value>,
}

/// What a document comes to.
#[derive(Debug)]
pub struct Imported {
    /// Its operations, and the further ones that it lacks.
    pub catalog: Catalog,
    /// The operations it lacks of which calgate knows more than a document says. One that is only in another place now
    /// is in the catalog as if nothing were known of it: unguarded, for one that shows credentials.
    pub missing: Vec<MissingAnnotation>,
}

impl Imported {
    /// The catalog, if a person has said of all that is lost that it is `gone`.
    ///
    /// # Errors
    /// What is lost and not said to be gone; what is said to be gone and is not.
    pub fn into_catalog(self, gone: &[String]) -> Result<Catalog, Vec<ImportError>> {
        let is_said = |missing: &MissingAnnotation| gone.iter().any(|operation| missing.is(operation));
        let unsaid =
            self.missing.iter().filter(|missing| !is_said(missing)).map(|missing| ImportError::Missing(*missing));
        let wrong = gone.iter().filter(|operation| !self.missing.iter().any(|missing| missing.is(operation)));
        let errors: Vec<_> = unsaid.chain(wrong.cloned().map(ImportError::NotGone)).collect();
        if errors.is_empty() { Ok(self.catalog) } else { Err(errors) }
    }
}

/// Makes the catalog of a document.
///
/// # Errors
/// Every operation that cannot be understood, or the one reason why the whole is not a document.
pub fn import(json: &str) -> Result<Imported, Vec<ImportError>> {
    let not_a_document = |fault: String| vec![ImportError::NotADocument(fault)];
    let document: Document = serde_json::from_str(json).map_err(|e| not_a_document(e.to_string()))?;
    if !document.openapi.starts_with("3.") {
        return Err(not_a_document(format!("it is of OpenAPI version `{}`", document.openapi)));
    }
    let (mut endpoints, mut errors) = (Vec::new(), Vec::new());
    for (path, item) in document.paths {
        for (method, operation) in item.into_iter().filter(|(key, _)| METHODS.contains(&key.as_str())) {
            let method = method.to_uppercase();
            match endpoint(&method, &path, operation) {
                Ok(endpoint) => endpoints.push(endpoint),
                Err(fault) => errors.push(ImportError::Operation { operation: format!("{method} {path}"), fault }),
            }
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    if endpoints.is_empty() {
        return Err(not_a_document("it has no operations".to_owned()));
    }
    further::merge(&mut endpoints);
    let missing = annotations::missing(&endpoints);
    let catalog = Catalog::new(endpoints).map_err(|fault| vec![ImportError::Twice(fault)])?;
    Ok(Imported { catalog, missing })
}

fn endpoint(method: &str, path: &str, operation: Value) -> Result<Endpoint, String> {
    let operation: Operation = serde_json::from_value(operation).map_err(|e| e.to_string())?;
    let template = Template::parse(path)?;
    let tag = match operation.tags.as_slice() {
        [tag] => Tag::from_document(tag, path)?,
        [] => return Err("it has no tag, so no plan can be asked about it".to_owned()),
        several => return Err(format!("it has {} tags, and a plan is decided by one", several.len())),
    };
    let name = format!("{method} {path}");
    let listed = accepts(&operation)?;
    // FACTS §1: an OAuth provider calls back with a code and a state and no credential; but no callback under
    // organizations is public.
    let callback = method == "GET" && listed.is_none() && operation.has_query("code") && operation.has_query("state");
    let public = annotations::is_public(&name) || (callback && !path.starts_with("/v2/organizations/"));
    let api_version = api_version(&operation)?;
    Ok(Endpoint {
        id: EndpointId::default(),
        method: Method::from_bytes(method.as_bytes()).map_err(|e| e.to_string())?,
        accepts: listed.unwrap_or_else(|| annotations::accepts_unlisted(public)),
        public,
        api_versions: annotations::versions(&name, api_version.is_some()),
        api_version,
        sub_limit: annotations::sub_limit(method, path),
        credential_operation: annotations::is_credential_operation(&name),
        echoes_credential: annotations::echoes_credential(&name),
        is_documented: true,
        tag,
        template,
    })
}

/// The credential kinds that the header parameters list (FACTS §1); `None` if they list none.
fn accepts(operation: &Operation) -> Result<Option<Accepts>, String> {
    let bearer = operation.header("Authorization");
    let secret = operation.header("x-cal-secret-key");
    let client_id = operation.header("x-cal-client-id");
    match (bearer, secret, client_id) {
        (Some(bearer), None, None) if bearer.required => Ok(Some(Accepts::Bearer)),
        (None, Some(_), _) => Ok(Some(Accepts::Client)),
        (Some(_), Some(_), _) => Ok(Some(Accepts::Either)),
        // Slot reservations: a bearer or a bare client id, neither of them required.
        (Some(bearer), None, _) if !bearer.required => Ok(Some(Accepts::Any)),
        (None, None, None) => Ok(None),
        _ => Err("its credential headers are of no known combination".to_owned()),
    }
}

/// The version an operation is documented with: the default of its header parameter, or the date in that parameter's
/// description (FACTS §4).
fn api_version(operation: &Operation) -> Result<Option<ApiVersion>, String> {
    let Some(parameter) = operation.header("cal-api-version") else { return Ok(None) };
    let default = parameter.schema.default.as_ref().and_then(Value::as_str);
    let in_words = || parameter.description.split(|c: char| !c.is_ascii_digit() && c != '-').find(|w| w.len() == 10);
    let text = default.or_else(in_words).ok_or("it has a cal-api-version parameter that names no version")?;
    ApiVersion::parse(text).map(Some).ok_or_else(|| format!("its cal-api-version `{text}` is not a date"))
}

impl Operation {
    fn header(&self, name: &str) -> Option<&Parameter> {
        self.parameters.iter().find(|p| p.place == "header" && p.name.eq_ignore_ascii_case(name))
    }

    fn has_query(&self, name: &str) -> bool {
        self.parameters.iter().any(|p| p.place == "query" && p.name == name)
    }
}
