//! Differences between two catalogs.

use calgate::catalog::diff::diff;
use calgate::catalog::{Catalog, file};

fn catalog(rows: &str) -> Catalog {
    file::read(&rows.replace('@', "\n[[endpoint]]\noperation = ")).unwrap()
}

#[test]
fn lists_each_change_once_in_the_order_of_paths() {
    let older = catalog(
        "@'GET /v2/a'\ntag = 'A'\ncredential = 'bearer'\n\
         @'GET /v2/b'\ntag = 'B'\ncredential = 'bearer'\nrequests_per_minute = 7\n\
         @'GET /v2/c'\ntag = 'C'\ncredential = 'bearer'\napi_version = '2024-06-14'\napi_versions = ['2024-04-15', '2024-06-14']\n\
         requests_per_minute = 5\n",
    );
    let newer = catalog(
        "@'GET /v2/a'\ntag = 'A'\ncredential = 'bearer'\n\
         @'POST /v2/a'\ntag = 'Orgs / A'\ncredential = 'bearer'\ncredential_operation = true\n\
         @'GET /v2/c'\ntag = 'Teams / C'\ncredential = 'any'\npublic = true\ncredential_operation = true\n",
    );
    let lines: Vec<_> = diff(&older, &newer).iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(lines.join("\n"), @r"
    added    POST /v2/a  (Orgs / A)  credential_operation: true
    dropped  GET /v2/b  (B)  requests_per_minute: 7
    moved    GET /v2/c  tag: C -> Teams / C  credential: bearer -> any  public: false -> true  api_version: 2024-06-14 -> none  api_versions: 2024-04-15, 2024-06-14 -> unknown  requests_per_minute: 5 -> none  credential_operation: false -> true
    ");
    assert_eq!(diff(&newer, &older).len(), 3);
    assert_eq!(diff(&older, &older), []);
}

#[test]
fn an_operation_with_a_renamed_parameter_counts_as_moved() {
    let older = catalog("@'GET /v2/a/{b}/c'\ntag = 'A'\ncredential = 'bearer'\n");
    let newer = catalog("@'GET /v2/a/{x}/c'\ntag = 'A'\ncredential = 'bearer'\npublic = true\n");
    let lines: Vec<_> = diff(&older, &newer).iter().map(ToString::to_string).collect();
    assert_eq!(lines, ["moved    GET /v2/a/{x}/c  path: /v2/a/{b}/c -> /v2/a/{x}/c  public: false -> true"]);
}
