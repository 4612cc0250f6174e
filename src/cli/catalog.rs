//! `calgate catalog`: imports, compares and lists the operations of Cal.com.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::json;

use super::{Outcome, print};
use crate::catalog::diff::diff;
use crate::catalog::import::{ImportError, Imported, import};
use crate::catalog::{Catalog, Endpoint, file};

/// Sub-commands of `calgate catalog`.
#[derive(Subcommand)]
pub(super) enum CatalogCommand {
    /// Build a catalog from Cal.com's API document (OpenAPI 3, JSON)
    Import {
        /// The document
        document: PathBuf,
        /// The file to write; standard output if omitted
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// An operation that Cal.com has removed (`METHOD /path`, as a failed import names it)
        #[arg(long, value_name = "OPERATION")]
        gone: Vec<String>,
    },
    /// Show the changes that a newer document makes to the catalog; exits with 3 if there are any
    Diff {
        /// The newer document
        document: PathBuf,
        /// The catalog to compare with; the built-in one if omitted
        #[arg(long, value_name = "FILE")]
        catalog: Option<PathBuf>,
    },
    /// Print the catalog
    List {
        /// The catalog to print; the built-in one if omitted
        #[arg(long, value_name = "FILE")]
        catalog: Option<PathBuf>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Remedy that follows the list of missing operations.
const MISSING_HELP: &str = "
No catalog was written, because it would lose what calgate knows about these operations. For each operation that
Cal.com has removed, add --gone \"METHOD /path\". For each operation that Cal.com has moved, add it, too, and write the
line that is named above at the new place in the new catalog before you use it.";

pub(super) fn run(command: &CatalogCommand) -> Outcome {
    let done = match command {
        CatalogCommand::Import { document, out, gone } => run_import(document, out.as_deref(), gone),
        CatalogCommand::Diff { document, catalog } => run_diff(document, catalog.as_deref()),
        CatalogCommand::List { catalog, json } => run_list(catalog.as_deref(), *json),
    };
    done.unwrap_or_else(Outcome::Failed)
}

fn run_import(document: &Path, out: Option<&Path>, gone: &[String]) -> Result<Outcome, String> {
    let imported = read_document(document)?.into_catalog(gone).map_err(|faults| {
        let is_missing = faults.iter().any(|fault| matches!(fault, ImportError::Missing(_)));
        in_document(document, &faults) + if is_missing { MISSING_HELP } else { "" }
    })?;
    let text = file::write(&imported);
    match out {
        Some(out) => std::fs::write(out, text).map_err(|e| format!("{}: {e}", out.display()))?,
        None => return Ok(print(&text)),
    }
    Ok(Outcome::Done)
}

fn run_diff(document: &Path, catalog: Option<&Path>) -> Result<Outcome, String> {
    let newer = read_document(document)?.catalog;
    let custom = catalog.map(read_catalog).transpose()?;
    let older = custom.as_ref().unwrap_or_else(|| Catalog::built_in());
    let changes = diff(older, &newer);
    let mut text = String::new();
    for change in &changes {
        let _ = writeln!(text, "{change}");
    }
    let (before, after) = (older.endpoints().len(), newer.endpoints().len());
    let _ = writeln!(text, "{} changes; {before} operations before, {after} after", changes.len());
    Ok(match print(&text) {
        Outcome::Done if !changes.is_empty() => Outcome::Changed,
        printed => printed,
    })
}

fn run_list(catalog: Option<&Path>, json: bool) -> Result<Outcome, String> {
    let custom = catalog.map(read_catalog).transpose()?;
    let catalog = custom.as_ref().unwrap_or_else(|| Catalog::built_in());
    if json {
        let list: Vec<_> = catalog.endpoints().iter().map(as_json).collect();
        return Ok(print(&(serde_json::to_string_pretty(&list).map_err(|e| e.to_string())? + "\n")));
    }
    let mut text = String::new();
    for endpoint in catalog.endpoints() {
        let (method, template, tag) = (&endpoint.method, &endpoint.template, &endpoint.tag);
        let public = if endpoint.public { ", public" } else { "" };
        let further = if endpoint.is_documented { "" } else { ", undocumented" };
        let _ = writeln!(text, "{method:6} {template}  ({tag}; {}{public}{further})", endpoint.accepts.name());
    }
    Ok(print(&text))
}

fn as_json(endpoint: &Endpoint) -> serde_json::Value {
    json!({
        "method": endpoint.method.as_str(),
        "path": endpoint.template.as_str(),
        "tag": endpoint.tag.as_str(),
        "prefix": endpoint.tag.prefix().name(),
        "credential": endpoint.accepts.name(),
        "public": endpoint.public,
        "api_version": endpoint.api_version.as_ref().map(crate::catalog::ApiVersion::as_str),
        "api_versions": endpoint.api_versions.iter().map(crate::catalog::ApiVersion::as_str).collect::<Vec<_>>(),
        "requests_per_minute": endpoint.sub_limit.map(|limit| limit.requests_per_minute),
        "credential_operation": endpoint.credential_operation,
        "echoes_credential": endpoint.echoes_credential,
        "documented": endpoint.is_documented,
    })
}

fn read_document(path: &Path) -> Result<Imported, String> {
    import(&read(path)?).map_err(|faults| in_document(path, &faults))
}

fn in_document(path: &Path, faults: &[ImportError]) -> String {
    let lines: Vec<String> = faults.iter().map(|fault| format!("{}: {fault}", path.display())).collect();
    lines.join("\n")
}

fn read_catalog(path: &Path) -> Result<Catalog, String> {
    file::read(&read(path)?).map_err(|fault| format!("{}: {fault}", path.display()))
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
}
