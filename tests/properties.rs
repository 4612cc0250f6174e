//! Settings that all property tests share.

use proptest::test_runner::{Config, FileFailurePersistence};

/// Returns the configuration of a property test of `cases` random cases, or of as many as `PROPTEST_CASES` says (`make
/// test-long`). The seed of a failed case goes into `proptest-regressions/`, which is committed: from then on that case runs
/// first.
pub fn cases(cases: u32) -> Config {
    let from_environment = std::env::var_os("PROPTEST_CASES").is_some();
    let standard = Config::default();
    Config {
        cases: if from_environment { standard.cases } else { cases },
        failure_persistence: Some(Box::new(FileFailurePersistence::SourceParallel("proptest-regressions"))),
        ..standard
    }
}
