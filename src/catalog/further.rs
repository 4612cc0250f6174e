//! Further operations: those that Cal.com serves and its document lacks (FACTS §7), from `config/further-operations.toml`.

use super::endpoint::Endpoint;
use super::file;

/// Returns the further operations.
///
/// # Panics
/// Never, because the list is compiled in and a test parses it.
#[expect(clippy::expect_used, reason = "parses a compiled-in file that no input changes; a test parses it, too")]
pub(super) fn operations() -> Vec<Endpoint> {
    let listed = file::entries(include_str!("../../config/further-operations.toml")).expect("the list is valid");
    listed.into_iter().map(|endpoint| Endpoint { is_documented: false, ..endpoint }).collect()
}

/// Adds the further operations to those of a document. If the document has one of them, the document takes precedence, and the
/// list adds only the facts that the document lacks.
pub(super) fn merge(documented: &mut Vec<Endpoint>) {
    for further in operations() {
        match documented.iter_mut().find(|endpoint| endpoint.identity() == further.identity()) {
            Some(endpoint) => {
                endpoint.public |= further.public;
                endpoint.credential_operation |= further.credential_operation;
                endpoint.echoes_credential |= further.echoes_credential;
                endpoint.sub_limit = endpoint.sub_limit.or(further.sub_limit);
                if endpoint.api_versions.is_empty() {
                    endpoint.api_versions = further.api_versions;
                }
            }
            None => documented.push(further),
        }
    }
}
