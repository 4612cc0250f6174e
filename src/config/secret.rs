//! Where secrets come from: a file or the environment, never the configuration itself.

use std::fs;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

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
    let (file, env) = (source.unshown("file"), source.unshown("env"));
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
        _ => Some(Err("it takes exactly one of `file` and `env`".to_owned())),
    };
    let path = source.path.clone();
    source.finish();
    match found?.and_then(|text| Secret::new(&text).map_err(str::to_owned)) {
        Ok(secret) => Some(secret),
        Err(fault) => {
            section.wrong(span, format!("`{path}` cannot be used: {fault}"), None);
            None
        }
    }
}

/// The file that `key = { file = "…" }` names.
pub(super) fn file_of(section: &Section<'_>, key: &'static str) -> Option<PathBuf> {
    let (value, _) = section.raw(key)?;
    value.as_table()?.get("file")?.get_ref().as_str().map(PathBuf::from)
}

/// What stands for a secret that is not read: a text of the form that `key` takes. Credentials with the same secret share a
/// budget, so each has another one.
fn placeholder(key: &str, path: &str) -> String {
    match key {
        "seal_keys" => "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".to_owned(),
        "postgres" => "postgres://calgate@localhost/calgate".to_owned(),
        "redis" => "rediss://localhost:6379".to_owned(),
        "proxy" => "http://localhost:3128".to_owned(),
        _ => format!("placeholder-of-{path}"),
    }
}

/// Letters and digits in one piece: names have no more, and keys have.
const LONGEST_WORD: usize = 24;

/// Whether `text` looks like a secret that stands where a name belongs. In capitals, `CAL_API_KEY` is a variable's name.
pub(super) fn may_be_secret(text: &str) -> bool {
    let start = text.to_ascii_lowercase();
    let is_key = ["cal_", "calgate_"].iter().any(|prefix| start.starts_with(prefix));
    let is_word = |c: char| c.is_ascii_alphanumeric();
    is_key && text.contains(|c: char| c.is_ascii_lowercase())
        || text.split(|c| !is_word(c)).any(|word| word.len() > LONGEST_WORD)
}

/// Whether an environment variable can be named so, and no secret looks so.
fn is_variable(text: &str) -> bool {
    !text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !may_be_secret(text)
}

/// Whether it is a file's path and no secret that stands in its place.
fn is_path(text: &str) -> bool {
    let is_plain = || text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'/'));
    Path::new(text).exists() || (text.contains('/') && is_plain() && !may_be_secret(text))
}

fn from_env(name: &str) -> Result<String, String> {
    let shown = if is_variable(name) { name } else { "that it names" };
    std::env::var(name).map_err(|_| format!("the environment variable {shown} is not set"))
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
        return Err(format!("the file {named} is open to every user (mode {mode:03o}); chmod o= it"));
    }
    fs::read_to_string(path).map_err(cannot)
}
