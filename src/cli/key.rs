//! `calgate key`: makes a gateway key and prints its hash.

use clap::Subcommand;

use super::{Outcome, print};
use crate::config::section::{NAME_RULE, is_name};
use crate::identify::GatewayKey;

/// What to do with keys.
#[derive(Subcommand)]
pub(super) enum KeyCommand {
    /// Make a key for a consumer: it is printed once, and its hash for the configuration
    New {
        /// The consumer's name in the configuration
        consumer: String,
    },
}

pub(super) fn run(command: &KeyCommand) -> Outcome {
    let KeyCommand::New { consumer } = command;
    if !is_name(consumer) {
        return Outcome::Misused(format!("calgate: no consumer can be named `{consumer}`; {NAME_RULE}"));
    }
    // A dot outside of quotes would make a table in a table.
    let table = if consumer.contains('.') { format!("\"{consumer}\"") } else { consumer.clone() };
    let key = match GatewayKey::generate() {
        Ok(key) => key,
        Err(fault) => return Outcome::Failed(fault.to_owned()),
    };
    let Some(hash) = GatewayKey::parse(&key).map(|key| key.hash()) else {
        return Outcome::Failed("the key that was made is not one".to_owned());
    };
    print(&format!(
        "The key of {consumer}; it is shown this once:\n\n  {key}\n\n\
         For the configuration, in [consumers.{table}]; a key that is there already may stay beside it:\n\n  \
         keys = [\"{hash}\"]\n"
    ))
}
