//! `[log]`: what is written where.

use super::reader::Section;

/// What is written where.
#[derive(Debug, Clone)]
pub struct Log {
    /// The gateway's own log, on standard error: a level, or filter directives.
    pub level: String,
    /// Whether that is JSON instead of text.
    pub json: bool,
    /// Whether each request is written to the access log, on standard output.
    pub access: bool,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".to_owned(), json: true, access: true }
    }
}

impl Log {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let default = Self::default();
        let level = section.string("level");
        if let Some(level) = &level
            && let Err(fault) = level.value.parse::<tracing_subscriber::filter::EnvFilter>()
        {
            let help = "write one of error, warn, info, debug, trace".to_owned();
            section.wrong(level.span.clone(), format!("`log.level` cannot be `{}`: {fault}", level.value), help);
        }
        Self {
            level: level.map_or(default.level, |level| level.value.to_owned()),
            json: section.choice("format", &[("json", true), ("text", false)]).unwrap_or(default.json),
            access: section.boolean("access").unwrap_or(default.access),
        }
    }
}
