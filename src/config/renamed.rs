//! The section `[store]`, which is split into `[token_store]` and `[limit_store]`: each old key is an error that names the new
//! one.

use std::ops::Range;

use toml::de::DeValue;

use super::problem::Problems;
use super::reader::is_name;
use super::secret::may_be_secret;

/// Name of the section that no longer exists.
pub(super) const OLD_SECTION: &str = "store";

/// Each key of the old section, with its new section and its name there.
const KEYS: [(&str, &str, &str); 10] = [
    ("path", "token_store", "path"),
    ("postgres", "token_store", "postgres"),
    ("ca_file", "token_store", "ca_file"),
    ("seal_keys", "token_store", "seal_keys"),
    ("redis", "limit_store", "redis"),
    ("redis_kind", "limit_store", "kind"),
    ("redis_sentinel", "limit_store", "sentinel"),
    ("redis_ca_file", "limit_store", "ca_file"),
    ("redis_timeout", "limit_store", "timeout"),
    ("on_store_loss", "limit_store", "on_loss"),
];

/// Returns the keys of the old section.
pub(super) fn old_keys() -> impl Iterator<Item = &'static str> {
    KEYS.iter().map(|(old, _, _)| *old)
}

/// Notes a mistake for each key of the old section, or one for a section without keys. `span` is where its name stands. The
/// caller hides all values.
pub(super) fn note(span: Range<usize>, section: &DeValue<'_>, problems: &Problems) {
    let split = "`path`, `postgres`, `ca_file` and `seal_keys` belong to [token_store], all others to [limit_store]";
    let table = section.as_table().filter(|table| !table.is_empty());
    let Some(table) = table else {
        let message = "[store] no longer exists: it is split into [token_store] and [limit_store]";
        problems.note(span, message, split.to_owned());
        return;
    };
    for (key, _) in table {
        let name: &str = key.get_ref();
        if let Some((_, section, new)) = KEYS.iter().find(|(old, _, _)| *old == name) {
            let message = format!("`{OLD_SECTION}.{name}` is now `{section}.{new}`");
            problems.note(key.span(), message, format!("write it as `{new}` in [{section}]"));
        } else if !is_name(name) || may_be_secret(name) {
            problems.hide(key.span());
            problems.note(
                key.span(),
                format!("unknown key in `{OLD_SECTION}`, which no longer exists"),
                split.to_owned(),
            );
        } else {
            problems.note(key.span(), format!("unknown key `{OLD_SECTION}.{name}`"), split.to_owned());
        }
    }
}
