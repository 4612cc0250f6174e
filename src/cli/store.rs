//! `calgate store`: manages the token store.

use std::future::Future;

use clap::Subcommand;
use tokio::runtime::Builder;

use super::{ConfigArgs, Outcome, print};
use crate::config::Config;
use crate::gateway::token_store;
use crate::vault::Vault;

/// What to do with the store.
#[derive(Subcommand)]
pub(super) enum StoreCommand {
    /// Seal every record with the first of `token_store.seal_keys`; afterwards the others can be taken away
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
                print(&format!("{} records sealed with the first key, {} were already\n", done.resealed, done.current));
            let failed: Vec<String> = done.failed.iter().map(ToString::to_string).collect();
            if failed.is_empty() { printed } else { Outcome::Failed(failed.join("\n")) }
        }
        Ok(Err(fault)) => Outcome::Failed(fault.to_string()),
        Err(fault) => Outcome::Failed(fault),
    }
}

/// The configuration, and the store it names.
pub(super) fn open(args: &ConfigArgs) -> Result<(Config, Vault), Outcome> {
    let (config, _) = args.read()?;
    let Some(store) = &config.token_store else {
        return Err(Outcome::Misused("calgate: the configuration has no [token_store]".to_owned()));
    };
    let vault = token_store(store).map_err(|fault| Outcome::Misused(format!("calgate: {fault}")))?;
    Ok((config, vault))
}

/// Runs what a command has to wait for.
pub(super) fn block_on<T>(work: impl Future<Output = T>) -> Result<T, String> {
    let runtime = Builder::new_current_thread().enable_all().build().map_err(|fault| fault.to_string())?;
    Ok(runtime.block_on(work))
}
