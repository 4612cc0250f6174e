//! `calgate key`: creates a gateway key and prints it with its hash.

use clap::Subcommand;

use super::{Outcome, print};
use crate::config::section::{NAME_RULE, is_name};
use crate::identify::GatewayKey;

/// Sub-commands of `calgate key`.
#[derive(Subcommand)]
pub(super) enum KeyCommand {
    /// Create a key for a consumer. Prints it once, with its hash for the configuration
    New {
        /// The consumer's name in the configuration
        consumer: String,
    },
}

pub(super) fn run(command: &KeyCommand) -> Outcome {
    let KeyCommand::New { consumer } = command;
    if !is_name(consumer) {
        return Outcome::Misused(format!("calgate: invalid consumer name `{consumer}`; {NAME_RULE}"));
    }
    // An unquoted dot would create a nested table.
    let table = if consumer.contains('.') { format!("\"{consumer}\"") } else { consumer.clone() };
    let key = match GatewayKey::generate() {
        Ok(key) => key,
        Err(fault) => return Outcome::Failed(fault.to_owned()),
    };
    let Some(hash) = GatewayKey::parse(&key).map(|key| key.hash()) else {
        return Outcome::Failed("the created key is invalid".to_owned());
    };
    print(&format!(
        "The key of {consumer}, which is not shown again:\n\n  {key}\n\n\
         Add its hash to [consumers.{table}] in the configuration. An older key can stay in the list:\n\n  \
         keys = [\"{hash}\"]\n"
    ))
}
