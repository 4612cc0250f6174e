//! Errors for the keys of the old section `[store]`, which is split into `[token_store]` and `[limit_store]`.

use std::ops::Range;

use toml::de::DeValue;

use super::diagnostics::Diagnostics;
use super::secret_source::may_be_secret;
use super::section::is_name;

/// Name of the section that no longer exists.
pub(super) const OLD_SECTION: &str = "store";

/// Keys of the old section, each with its new section and its name there.
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

/// Reports each key of the old section, or the section itself if it has no keys. `span` is the place of its name. The caller hides
/// all values.
pub(super) fn report(span: Range<usize>, section: &DeValue<'_>, diagnostics: &Diagnostics) {
    let split = "`path`, `postgres`, `ca_file` and `seal_keys` belong to [token_store], all others to [limit_store]";
    let table = section.as_table().filter(|table| !table.is_empty());
    let Some(table) = table else {
        let message = "[store] no longer exists: it is split into [token_store] and [limit_store]";
        diagnostics.error(span, message, split.to_owned());
        return;
    };
    for (key, _) in table {
        let name: &str = key.get_ref();
        if let Some((_, section, new)) = KEYS.iter().find(|(old, _, _)| *old == name) {
            let message = format!("`{OLD_SECTION}.{name}` is now `{section}.{new}`");
            diagnostics.error(key.span(), message, format!("write it as `{new}` in [{section}]"));
        } else if !is_name(name) || may_be_secret(name) {
            diagnostics.hide(key.span());
            diagnostics.error(
                key.span(),
                format!("unknown key in `{OLD_SECTION}`, which no longer exists"),
                split.to_owned(),
            );
        } else {
            diagnostics.error(key.span(), format!("unknown key `{OLD_SECTION}.{name}`"), split.to_owned());
        }
    }
}
