//! Operations that Cal.com serves and its document lacks (FACTS §7): `config/further-operations.toml`, as data.

use super::endpoint::Endpoint;
use super::file;

/// The maintained list of these operations.
///
/// # Panics
/// Never: the list is part of the program, and a test reads it.
#[expect(clippy::expect_used, reason = "a compile-time constant; a test reads it")]
pub(super) fn operations() -> Vec<Endpoint> {
    let rows = file::rows(include_str!("../../config/further-operations.toml")).expect("the list is valid");
    rows.into_iter().map(|endpoint| Endpoint { is_documented: false, ..endpoint }).collect()
}

/// Adds the further operations to those of a document. An operation that the document has, too, is the document's; what the
/// list knows of it beside the document stays with it.
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
