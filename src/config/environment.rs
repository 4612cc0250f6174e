//! A one-app sidecar without a configuration file: `CAL_API_KEY` and a few optional variables.

use std::fmt::Write as _;

use super::Config;
use super::problem::Unusable;

/// The variables that stand for a configuration.
const API_KEY: &str = "CAL_API_KEY";
const PLAN: &str = "CAL_PLAN";
const TIER: &str = "CAL_TIER";
const API_URL: &str = "CAL_API_URL";

/// The plan without `CAL_PLAN`: what a Cal.com team has, and no more.
const DEFAULT_PLAN: &str = "teams";

/// The configuration that the environment stands for: callers without a key are the consumer `app`, which goes upstream
/// with the key in `CAL_API_KEY`. `None` if that is not set.
///
/// # Errors
/// What is wrong with the variables, shown in the configuration they stand for.
pub fn from_environment() -> Option<Result<Config, Box<Unusable>>> {
    std::env::var_os(API_KEY)?;
    Some(Config::parse_own("(environment)", &text(|name| std::env::var(name).ok())))
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
