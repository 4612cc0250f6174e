//! Configuration of a sidecar for one app from environment variables: `CAL_API_KEY` and a few optional ones.

use std::fmt::Write as _;

use super::Config;
use super::diagnostics::ConfigError;

// Environment variables that replace a configuration file.
const API_KEY: &str = "CAL_API_KEY";
const PLAN: &str = "CAL_PLAN";
const TIER: &str = "CAL_TIER";
const API_URL: &str = "CAL_API_URL";

/// Plan without `CAL_PLAN`.
const DEFAULT_PLAN: &str = "teams";

/// Builds the configuration from the environment. Callers without a key act as the consumer `app`, and calgate injects the key in
/// `CAL_API_KEY` into their requests. Returns `None` if that variable is not set.
///
/// # Errors
/// All mistakes in the variables, shown in the generated configuration.
pub fn from_environment() -> Option<Result<Config, Box<ConfigError>>> {
    std::env::var_os(API_KEY)?;
    Some(Config::parse_generated("(environment)", &text(|name| std::env::var(name).ok())))
}

fn text(variable: impl Fn(&str) -> Option<String>) -> String {
    let quoted = |text: &str| toml::Value::from(text).to_string();
    let mut out = String::new();
    if let Some(url) = variable(API_URL) {
        let _ = writeln!(out, "[upstream]\nbase_url = {}  # {API_URL}\n", quoted(&url));
    }
    let plan = quoted(&variable(PLAN).unwrap_or_else(|| DEFAULT_PLAN.to_owned()));
    let _ = writeln!(
        out,
        "[credentials.main]\nkind = \"api-key\"\napi_key = {{ env = \"{API_KEY}\" }}\nplan = {plan}  # {PLAN}\n\n\
         [consumers.app]\ncredential = \"main\""
    );
    if let Some(tier) = variable(TIER) {
        let _ = writeln!(out, "tier = {}  # {TIER}", quoted(&tier));
    }
    out.push_str("\n[anonymous]\nconsumer = \"app\"\n");
    out
}
