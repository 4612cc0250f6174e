//! `calgate serve` runs the gateway; `calgate check` checks its configuration.

use super::{CheckArgs, ConfigArgs, Outcome, print};
use crate::config::startup::StartupConfig;
use crate::gateway::{Gateway, Snapshot, check_token_store, token_store};
use crate::telemetry::{self, AccessLog};
use crate::{memory, serve};

pub(super) fn serve(args: &ConfigArgs) -> Outcome {
    let (config, source) = match args.read() {
        Ok(read) => read,
        Err(outcome) => return outcome,
    };
    telemetry::start_log(&config.log.level, config.log.json);
    serve::log_warnings(&config);
    let startup = StartupConfig::of(&config);
    let access_log = match AccessLog::start() {
        Ok(log) => log,
        Err(fault) => return Outcome::Failed(format!("cannot write the access log: {fault}")),
    };
    let gateway = match Gateway::new(config, Some(access_log)) {
        Ok(gateway) => gateway,
        Err(fault) => return Outcome::Misused(format!("calgate: {fault}")),
    };
    memory::release_to_os();
    match serve::run(&gateway, &startup, source) {
        Ok(()) => Outcome::Done,
        Err(fault) => Outcome::Failed(fault),
    }
}

pub(super) fn check(args: &CheckArgs) -> Outcome {
    let (config, _) = match args.config.read_with(args.secrets()) {
        Ok(read) => read,
        Err(outcome) => return outcome,
    };
    for warning in &config.warnings {
        eprintln!("warning: {warning}");
    }
    let (consumers, credentials) = (config.consumers.len(), config.credentials.len());
    // The checks with which `serve` starts. None of them opens a connection or a file of the token store.
    let store = config.token_store.as_ref().map(token_store).transpose();
    let access = config.token_store.as_ref().map(check_token_store).transpose();
    match store.and(access).and_then(|_| Snapshot::build(config, None)) {
        Ok(snapshot) => {
            let endpoints = snapshot.catalog().endpoints().len();
            print(&format!(
                "the configuration is valid: {consumers} consumers, {credentials} credentials, {endpoints} endpoints\n"
            ))
        }
        Err(fault) => Outcome::Misused(format!("calgate: {fault}")),
    }
}
