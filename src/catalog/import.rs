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

/// Keys of a path item that are operations (OpenAPI 3.0 §4.7.9). Others describe the path as a whole.
const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

/// Reason why a document cannot become a catalog.
#[derive(Debug, PartialEq, Eq)]
pub enum ImportError {
    /// Text that is not JSON, or not an OpenAPI document.
    NotADocument(String),
    /// Two operations that differ at most in the names of parameters.
    Duplicate(String),
    /// Annotation whose operation the document lacks.
    Missing(MissingAnnotation),
    /// Operation that the operator calls gone, although nothing is missing there.
    NotGone(String),
    /// Operation that calgate cannot interpret.
    Operation {
        /// Method and path in the document.
        operation: String,
        /// Reason.
        fault: String,
    },
}

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotADocument(fault) => write!(f, "this is not Cal.com's API document (OpenAPI 3 as JSON): {fault}"),
            Self::Duplicate(fault) => f.write_str(fault),
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
    location: String,
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

/// Result of an import.
#[derive(Debug)]
pub struct Imported {
    /// Operations of the document, and the further operations.
    pub catalog: Catalog,
    /// Annotations whose operations the document lacks. If Cal.com only moved an operation, the catalog has it without its
    /// annotation. An operation that shows credentials is then unprotected.
    pub missing: Vec<MissingAnnotation>,
}

impl Imported {
    /// Returns the catalog if `gone` lists all missing operations. By this list, a person confirms that Cal.com has removed them.
    ///
    /// # Errors
    /// The missing operations that `gone` lacks, and the entries of `gone` that are not missing.
    pub fn into_catalog(self, gone: &[String]) -> Result<Catalog, Vec<ImportError>> {
        let is_confirmed = |missing: &MissingAnnotation| gone.iter().any(|operation| missing.belongs_to(operation));
        let unconfirmed =
            self.missing.iter().filter(|missing| !is_confirmed(missing)).map(|missing| ImportError::Missing(*missing));
        let wrong = gone.iter().filter(|operation| !self.missing.iter().any(|missing| missing.belongs_to(operation)));
        let errors: Vec<_> = unconfirmed.chain(wrong.cloned().map(ImportError::NotGone)).collect();
        if errors.is_empty() { Ok(self.catalog) } else { Err(errors) }
    }
}

/// Converts an OpenAPI document into a catalog.
///
/// # Errors
/// All operations that calgate cannot interpret, or the reason why the text is not an OpenAPI document.
pub fn import(json: &str) -> Result<Imported, Vec<ImportError>> {
    let not_a_document = |fault: String| vec![ImportError::NotADocument(fault)];
    let document: Document = serde_json::from_str(json).map_err(|e| not_a_document(e.to_string()))?;
    if !document.openapi.starts_with("3.") {
        return Err(not_a_document(format!("its OpenAPI version is `{}`", document.openapi)));
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
    let catalog = Catalog::new(endpoints).map_err(|fault| vec![ImportError::Duplicate(fault)])?;
    Ok(Imported { catalog, missing })
}

fn endpoint(method: &str, path: &str, operation: Value) -> Result<Endpoint, String> {
    let operation: Operation = serde_json::from_value(operation).map_err(|e| e.to_string())?;
    let template = Template::parse(path)?;
    let tag = match operation.tags.as_slice() {
        [tag] => Tag::from_document(tag, path)?,
        [] => return Err("it has no tag, by which plans decide".to_owned()),
        several => return Err(format!("it has {} tags, and plans decide by a single one", several.len())),
    };
    let name = format!("{method} {path}");
    let listed = accepts(&operation)?;
    // An OAuth provider calls back with a code and a state and without a credential. No callback under organizations is public
    // (FACTS §1).
    let is_callback =
        method == "GET" && listed.is_none() && operation.has_query("code") && operation.has_query("state");
    let public = annotations::is_public(&name) || (is_callback && !path.starts_with("/v2/organizations/"));
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

/// Returns the credential kinds that the header parameters list (FACTS §1), or `None` if they list none.
fn accepts(operation: &Operation) -> Result<Option<Accepts>, String> {
    let bearer = operation.header("Authorization");
    let secret = operation.header("x-cal-secret-key");
    let client_id = operation.header("x-cal-client-id");
    match (bearer, secret, client_id) {
        (Some(bearer), None, None) if bearer.required => Ok(Some(Accepts::Bearer)),
        (None, Some(_), _) => Ok(Some(Accepts::Client)),
        (Some(_), Some(_), _) => Ok(Some(Accepts::Either)),
        // Slot reservations accept a bearer or a client id alone, and require neither.
        (Some(bearer), None, _) if !bearer.required => Ok(Some(Accepts::Any)),
        (None, None, None) => Ok(None),
        _ => Err("the combination of its credential headers is unknown".to_owned()),
    }
}

/// Returns the documented version of an operation: the default of the header parameter, or the date in its description (FACTS
/// §4).
fn api_version(operation: &Operation) -> Result<Option<ApiVersion>, String> {
    let Some(parameter) = operation.header("cal-api-version") else { return Ok(None) };
    let default = parameter.schema.default.as_ref().and_then(Value::as_str);
    let in_description =
        || parameter.description.split(|c: char| !c.is_ascii_digit() && c != '-').find(|w| w.len() == 10);
    let text = default.or_else(in_description).ok_or("it has a cal-api-version parameter that names no version")?;
    ApiVersion::parse(text).map(Some).ok_or_else(|| format!("its cal-api-version `{text}` is not a date"))
}

impl Operation {
    fn header(&self, name: &str) -> Option<&Parameter> {
        self.parameters.iter().find(|p| p.location == "header" && p.name.eq_ignore_ascii_case(name))
    }

    fn has_query(&self, name: &str) -> bool {
        self.parameters.iter().any(|p| p.location == "query" && p.name == name)
    }
}
