//! Time limits of tests. All of them grow with one factor, because a busy machine is slower than an idle one.

use std::time::{Duration, Instant};

/// Environment variable with the factor, a number above 0. An idle machine needs 1.
const VARIABLE: &str = "CALGATE_TEST_PATIENCE";

/// Factor without the variable: enough for a machine that runs builds at the same time.
const USUAL: f64 = 4.0;

/// Returns how long a test waits for an event before it fails. Only a failing test waits this long.
pub fn patience() -> Duration {
    scaled(Duration::from_secs(20))
}

/// Returns a time limit that suits an idle machine, multiplied by the factor.
pub fn scaled(limit: Duration) -> Duration {
    limit.mul_f64(factor())
}

/// Returns the same for a configuration: `time_limit(150)` is `600ms` with the factor 4.
pub fn time_limit(milliseconds: u64) -> String {
    format!("{}ms", scaled(Duration::from_millis(milliseconds)).as_millis())
}

fn factor() -> f64 {
    let Ok(text) = std::env::var(VARIABLE) else { return USUAL };
    let factor = text.parse().ok().filter(|factor| (0.1..=1000.0).contains(factor));
    factor.unwrap_or_else(|| panic!("{VARIABLE}={text}: set it to a number from 0.1 to 1000"))
}

/// Sleeps: the pause of a load generator, or the length of a measurement. A test that waits for an event uses [`eventually`].
pub fn pass(time: Duration) {
    std::thread::sleep(time);
}

/// Waits until `ready` returns a value.
pub fn eventually<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let (start, patience) = (Instant::now(), patience());
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(start.elapsed() < patience, "{what} did not happen within {patience:?} ({VARIABLE} scales this)");
        std::thread::sleep(Duration::from_millis(5));
    }
}
