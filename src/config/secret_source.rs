//! Source of a secret: a file or an environment variable, never the configuration itself.

use std::fs;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use toml::de::DeValue;

use super::section::Section;
use crate::secret::Secret;

/// Reads `key = { file = "…" }` or `key = { env = "…" }`.
pub(super) fn read(section: &Section<'_>, key: &'static str) -> Option<Secret> {
    let (value, span) = section.raw(key)?;
    read_value(section, key, value, span)
}

/// Reads `{ file = "…" }` or `{ env = "…" }`, which is the value of `key` or an entry of its list.
pub(super) fn read_value<'a>(
    section: &Section<'a>,
    key: &'static str,
    value: &'a DeValue<'a>,
    span: Range<usize>,
) -> Option<Secret> {
    let DeValue::Table(table) = value else {
        let help = format!("write {key} = {{ file = \"/run/secrets/…\" }} or {key} = {{ env = \"NAME\" }}");
        section.hide(span.clone());
        section.error(span, format!("`{}.{key}` must not be written in the configuration", section.path), help);
        return None;
    };
    let source = section.subsection(key, table, span.clone());
    let (file, env) = (source.secret_string("file"), source.secret_string("env"));
    for (text, is_name) in [(&file, is_path as fn(&str) -> bool), (&env, is_variable)] {
        if let Some(text) = text.as_ref().filter(|text| is_name(text.value)) {
            source.show(&text.span);
        }
    }
    let found = match (file, env) {
        (Some(_), None) | (None, Some(_)) if section.has_placeholders() => Some(Ok(placeholder(key, &source.path))),
        (Some(file), None) if source.raw("env").is_none() => Some(from_file(Path::new(file.value))),
        (None, Some(env)) if source.raw("file").is_none() => Some(from_env(env.value)),
        (None, None) if source.raw("file").or(source.raw("env")).is_some() => None,
        _ => Some(Err("set either `file` or `env`".to_owned())),
    };
    let path = source.path.clone();
    source.reject_unknown();
    match found?.and_then(|text| Secret::new(&text).map_err(str::to_owned)) {
        Ok(secret) => Some(secret),
        Err(fault) => {
            section.error(span, format!("`{path}` cannot be used: {fault}"), None);
            None
        }
    }
}

/// Returns the path in `key = { file = "…" }`.
pub(super) fn file_of(section: &Section<'_>, key: &'static str) -> Option<PathBuf> {
    let (value, _) = section.raw(key)?;
    value.as_table()?.get("file")?.get_ref().as_str().map(PathBuf::from)
}

/// Returns a placeholder of the form that `key` takes. Each credential gets a different one, because credentials with the same
/// secret share a budget.
fn placeholder(key: &str, path: &str) -> String {
    match key {
        "seal_keys" => "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".to_owned(),
        "postgres" => "postgres://calgate@localhost/calgate".to_owned(),
        "redis" => "rediss://localhost:6379".to_owned(),
        "proxy" => "http://localhost:3128".to_owned(),
        _ => format!("placeholder-of-{path}"),
    }
}

/// Longest run of letters and digits in a name, 24. Keys have longer ones.
const MAX_WORD: usize = 24;

/// Returns whether `text` looks like a secret in place of a name. `CAL_API_KEY` in capitals is the name of a variable.
pub(super) fn may_be_secret(text: &str) -> bool {
    let start = text.to_ascii_lowercase();
    let is_key = ["cal_", "calgate_"].iter().any(|prefix| start.starts_with(prefix));
    let is_word = |c: char| c.is_ascii_alphanumeric();
    is_key && text.contains(|c: char| c.is_ascii_lowercase())
        || text.split(|c| !is_word(c)).any(|word| word.len() > MAX_WORD)
}

/// Returns whether `text` is a valid name of an environment variable and does not look like a secret.
fn is_variable(text: &str) -> bool {
    !text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !may_be_secret(text)
}

/// Returns whether `text` is the path of a file and does not look like a secret.
fn is_path(text: &str) -> bool {
    let is_plain = || text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'/'));
    Path::new(text).exists() || (text.contains('/') && is_plain() && !may_be_secret(text))
}

fn from_env(name: &str) -> Result<String, String> {
    let public = if is_variable(name) { name } else { "that it names" };
    std::env::var(name).map_err(|_| format!("the environment variable {public} is not set"))
}

fn from_file(path: &Path) -> Result<String, String> {
    let named = path.to_str().filter(|text| is_path(text)).unwrap_or("that it names");
    let cannot = |e: std::io::Error| format!("the file {named} cannot be read: {e}");
    let metadata = fs::metadata(path).map_err(cannot)?;
    if !metadata.is_file() {
        return Err(format!("{named} is not a file"));
    }
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o007 != 0 {
        return Err(format!(
            "every user has access to the file {named} (mode {mode:04o}); run `chmod 600 FILE`, or in Kubernetes set \
             defaultMode: 0440 and fsGroup"
        ));
    }
    fs::read_to_string(path).map_err(cannot)
}
