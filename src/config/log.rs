//! `[log]`: the level and format of the log, and the access log.

use super::section::Section;

/// Settings of `[log]`.
#[derive(Debug, Clone)]
pub struct Log {
    /// Filter of the log on standard error: a level, or filter directives.
    pub level: String,
    /// Whether the log on standard error is JSON instead of text.
    pub json: bool,
    /// Whether calgate writes an access log line per request to standard output.
    pub access: bool,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".to_owned(), json: true, access: true }
    }
}

const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

/// Checks a filter. `EnvFilter` takes any word for the name of a module, so a misspelt level would silence the log.
fn check_level(text: &str) -> Result<(), String> {
    text.parse::<tracing_subscriber::filter::EnvFilter>().map_err(|fault| fault.to_string())?;
    let is_level = |part: &str| LEVELS.iter().any(|level| part.eq_ignore_ascii_case(level));
    match text.split(',').find(|part| !is_level(part) && !is_directive(part)) {
        Some(part) if part.trim() != part => Err(format!("`{part}` has spaces around it")),
        Some(part) if part.contains([':', '=', '[']) => Err(format!("`{part}` is not a directive")),
        Some(part) => Err(format!("`{part}` is not a level")),
        None => Ok(()),
    }
}

/// Returns whether the text is a directive: a module path such as `a::b`, or one word with a level or span after it.
fn is_directive(part: &str) -> bool {
    let (path, rest) = part.split_at(part.find(['=', '[']).unwrap_or(part.len()));
    let is_name =
        |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
    let is_path = path.split("::").all(is_name);
    match rest.chars().next() {
        None => is_path && path.contains("::"),
        Some('=') => is_path && rest.len() > 1,
        Some(_) => is_path || path.is_empty(),
    }
}

impl Log {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let default = Self::default();
        let level = section.string("level");
        if let Some(level) = &level
            && let Err(fault) = check_level(level.value)
        {
            let help =
                format!("write one of {}, or directives such as \"info,calgate::refresh=debug\"", LEVELS.join(", "));
            section.error(level.span.clone(), format!("`log.level` cannot be `{}`: {fault}", level.value), help);
        }
        Self {
            level: level.map_or(default.level, |level| level.value.to_owned()),
            json: section.choice("format", &[("json", true), ("text", false)]).unwrap_or(default.json),
            access: section.boolean("access").unwrap_or(default.access),
        }
    }
}
