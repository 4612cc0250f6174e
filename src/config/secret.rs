//! Where secrets come from: a file or the environment, never the configuration itself.

use std::fs;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use toml::de::DeValue;

use super::reader::Section;
use crate::secret::Secret;

/// Reads `key = { file = "…" }` or `key = { env = "…" }`.
pub(super) fn read(section: &Section<'_>, key: &'static str) -> Option<Secret> {
    let (value, span) = section.raw(key)?;
    read_value(section, key, value, span)
}

/// Reads `{ file = "…" }` or `{ env = "…" }`, the value of `key` or one of its list.
pub(super) fn read_value<'a>(
    section: &Section<'a>,
    key: &'static str,
    value: &'a DeValue<'a>,
    span: Range<usize>,
) -> Option<Secret> {
    let DeValue::Table(table) = value else {
        let help = format!("write {key} = {{ file = \"/run/secrets/…\" }} or {key} = {{ env = \"NAME\" }}");
        section.hide(span.clone());
        section.wrong(span, format!("`{}.{key}` must not be written in the configuration", section.path), help);
        return None;
    };
    let source = section.inline(key, table, span.clone());
    let (file, env) = (source.string("file"), source.string("env"));
    let found = match (file, env) {
        (Some(file), None) => from_file(Path::new(file.value)),
        (None, Some(env)) => from_env(env.value),
        _ => Err("it takes exactly one of `file` and `env`".to_owned()),
    };
    let path = source.path.clone();
    source.finish();
    match found.and_then(|text| Secret::new(&text).map_err(str::to_owned)) {
        Ok(secret) => Some(secret),
        Err(fault) => {
            section.wrong(span, format!("`{path}` cannot be used: {fault}"), None);
            None
        }
    }
}

fn from_env(name: &str) -> Result<String, String> {
    std::env::var(name).map_err(|_| format!("the environment variable {name} is not set"))
}

fn from_file(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let cannot = |e: std::io::Error| format!("the file {shown} cannot be read: {e}");
    let metadata = fs::metadata(path).map_err(cannot)?;
    if !metadata.is_file() {
        return Err(format!("{shown} is not a file"));
    }
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o007 != 0 {
        return Err(format!("the file {shown} is open to every user (mode {mode:03o}); chmod o= it"));
    }
    fs::read_to_string(path).map_err(cannot)
}
