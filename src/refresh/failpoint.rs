//! Fault injection for tests: death at a named point, and a wrong time of day. A release build has neither.

/// Kills the process with SIGKILL if `CALGATE_FAIL_POINT` names this point.
#[cfg(debug_assertions)]
pub(super) fn fail_point(name: &str) {
    use rustix::process::{Signal, getpid, kill_process};
    if std::env::var("CALGATE_FAIL_POINT").is_ok_and(|point| point == name) {
        let _ = kill_process(getpid(), Signal::KILL);
    }
}

/// Returns the milliseconds to add to the time of day, from the seconds in `CALGATE_CLOCK_OFFSET`.
#[cfg(debug_assertions)]
pub(super) fn clock_offset() -> i64 {
    std::env::var("CALGATE_CLOCK_OFFSET").ok().and_then(|offset| offset.parse::<i64>().ok()).unwrap_or(0) * 1000
}

#[cfg(not(debug_assertions))]
pub(super) fn fail_point(_: &str) {}

#[cfg(not(debug_assertions))]
pub(super) fn clock_offset() -> i64 {
    0
}
