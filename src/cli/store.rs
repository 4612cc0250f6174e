//! `calgate store`: maintains the token store.

use std::future::Future;

use clap::Subcommand;
use tokio::runtime::Builder;

use super::{ConfigArgs, Outcome, print};
use crate::config::Config;
use crate::gateway::token_store;
use crate::vault::Vault;

/// Sub-commands of `calgate store`.
#[derive(Subcommand)]
pub(super) enum StoreCommand {
    /// Seal every record with the first of `token_store.seal_keys`, so that you can remove the others
    Rekey(ConfigArgs),
}

pub(super) fn run(command: &StoreCommand) -> Outcome {
    let StoreCommand::Rekey(args) = command;
    let (_, vault) = match open(args) {
        Ok(opened) => opened,
        Err(outcome) => return outcome,
    };
    match block_on(vault.rekey()) {
        Ok(Ok(done)) => {
            let printed =
                print(&format!("sealed {} records with the first key; {} already were\n", done.resealed, done.current));
            let failed: Vec<String> = done.failed.iter().map(ToString::to_string).collect();
            if failed.is_empty() { printed } else { Outcome::Failed(failed.join("\n")) }
        }
        Ok(Err(fault)) => Outcome::Failed(fault.to_string()),
        Err(fault) => Outcome::Failed(fault),
    }
}

/// Returns the configuration and the token store that it names.
pub(super) fn open(args: &ConfigArgs) -> Result<(Config, Vault), Outcome> {
    let (config, _) = args.read()?;
    let Some(store) = &config.token_store else {
        return Err(Outcome::Misused("calgate: the configuration has no [token_store]".to_owned()));
    };
    let vault = token_store(store).map_err(|fault| Outcome::Misused(format!("calgate: {fault}")))?;
    Ok((config, vault))
}

/// Runs asynchronous work of a command.
pub(super) fn block_on<T>(work: impl Future<Output = T>) -> Result<T, String> {
    let runtime = Builder::new_current_thread().enable_all().build().map_err(|fault| fault.to_string())?;
    Ok(runtime.block_on(work))
}
