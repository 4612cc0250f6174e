//! Settings that all property tests share.

use proptest::test_runner::{Config, FileFailurePersistence};

/// A property test that runs `cases` random cases, or as many as `PROPTEST_CASES` says (`make test-long`). The seed of a case that fails
/// goes into `proptest-regressions/`, which is committed: from then on that case runs first.
pub fn cases(cases: u32) -> Config {
    let from_environment = std::env::var_os("PROPTEST_CASES").is_some();
    let standard = Config::default();
    Config {
        cases: if from_environment { standard.cases } else { cases },
        failure_persistence: Some(Box::new(FileFailurePersistence::SourceParallel("proptest-regressions"))),
        ..standard
    }
}
