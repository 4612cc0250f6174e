//! `[catalog]`: the operations that the gateway knows.

use std::path::Path;

use super::section::Section;
use crate::catalog::{Catalog, UnknownEndpoints, file};

/// Settings of `[catalog]`.
#[derive(Debug)]
pub struct CatalogConfig {
    /// Catalog of the operator. `None` means the built-in one.
    pub custom: Option<Catalog>,
    /// Handling of requests for operations that the catalog lacks.
    pub unknown: UnknownEndpoints,
}

impl CatalogConfig {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let file = section.string("file");
        let custom = file.and_then(|path| match read_file(Path::new(path.value)) {
            Ok(catalog) => Some(catalog),
            Err(fault) => {
                let help = "make one with `calgate catalog import openapi.json`".to_owned();
                section.error(path.span, format!("the catalog `{}` cannot be used: {fault}", path.value), help);
                None
            }
        });
        let choices = [("refuse", UnknownEndpoints::Refuse), ("forward", UnknownEndpoints::Forward)];
        Self { custom, unknown: section.choice("unknown_endpoints", &choices).unwrap_or_default() }
    }
}

fn read_file(path: &Path) -> Result<Catalog, String> {
    let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
    file::read(&text)
}
