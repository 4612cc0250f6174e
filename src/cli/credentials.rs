//! `calgate credentials`: lists states, imports tokens and removes records. It never prints a secret.

use std::fmt::Write as _;
use std::io::Read as _;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use secrecy::zeroize::Zeroizing;
use serde::Serialize;

use super::store::{block_on, open};
use super::{ConfigArgs, Outcome, print};
use crate::config::Config;
use crate::config::diagnostics::known_names;
use crate::credential::Kind;
use crate::credential::managed_user::UserId;
use crate::credential::received_tokens::from_import;
use crate::credential::stored_token::{RecordName, StoredCredential, TokenPair};
use crate::refresh::unix_millis;
use crate::refresh::used::RECORD;
use crate::vault::{Vault, VaultError};

/// Maximum length of an imported pair, 64 KiB.
const MAX_IMPORT_BYTES: u64 = 64 * 1024;

/// Arguments of `calgate credentials`.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct CredentialsArgs {
    #[command(subcommand)]
    command: Option<CredentialsCommand>,
    #[command(flatten)]
    config: ConfigArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum CredentialsCommand {
    /// Store a pair of tokens from standard input. It is JSON: `access_token`, `refresh_token`, `expires_at` (epoch
    /// seconds)
    Import(WhichArgs),
    /// Remove a record from the token store, even if it is damaged or its credential is no longer configured
    Forget(WhichArgs),
}

#[derive(Args)]
struct WhichArgs {
    /// The credential's name in the configuration; `forget` also takes any name that `calgate credentials` lists
    credential: String,
    /// The managed user that the tokens belong to
    #[arg(long, value_name = "ID")]
    managed_user: Option<String>,
    #[command(flatten)]
    config: ConfigArgs,
}

/// One line of the list.
#[derive(Serialize)]
struct Line {
    credential: String,
    state: &'static str,
    expires: Option<String>,
    renewed: Option<String>,
    detail: Option<String>,
}

pub(super) fn run(args: &CredentialsArgs) -> Outcome {
    let done = match &args.command {
        None => list(args),
        Some(CredentialsCommand::Import(which)) => import(which),
        Some(CredentialsCommand::Forget(which)) => forget(which),
    };
    done.unwrap_or_else(|outcome| outcome)
}

fn failed(fault: impl std::fmt::Display) -> Outcome {
    Outcome::Failed(fault.to_string())
}

fn list(args: &CredentialsArgs) -> Result<Outcome, Outcome> {
    let (config, vault) = open(&args.config)?;
    let lines = block_on(read_all(&config, &vault)).map_err(failed)?.map_err(failed)?;
    if args.json {
        let json = serde_json::to_string_pretty(&lines).map_err(failed)?;
        return Ok(print(&format!("{json}\n")));
    }
    let mut out = String::new();
    for line in &lines {
        let none = || "-".to_owned();
        let expires = line.expires.clone().unwrap_or_else(none);
        let renewed = line.renewed.clone().unwrap_or_else(none);
        let detail = line.detail.as_deref().unwrap_or_default();
        let text = format!("{:24} {:12} {expires:20} {renewed:20} {detail}", line.credential, line.state);
        let _ = writeln!(out, "{}", text.trim_end());
    }
    let head = format!("{:24} {:12} {:20} {:20} {}\n", "CREDENTIAL", "STATE", "EXPIRES", "RENEWED", "DETAIL");
    Ok(print(&(head + &out)))
}

/// Returns a line for every record of the token store and for every renewable credential without a record.
async fn read_all(config: &Config, vault: &Vault) -> Result<Vec<Line>, VaultError> {
    let mut names = vault.names().await?;
    names.retain(|name| name != RECORD);
    for (name, credential) in &config.credentials {
        if credential.credential.renewal_method().is_some() && !names.contains(name) {
            names.push(name.clone());
        }
    }
    names.sort();
    let mut lines = Vec::new();
    for name in names {
        let line = match vault.get(&name).await {
            Ok(Some(kept)) => match StoredCredential::from_bytes(&kept.plain) {
                Some(entry) => line_for(config, name, &entry, unix_millis()),
                None => broken(name, "it is of another version of calgate".to_owned()),
            },
            Ok(None) => without_record(config, name),
            Err(VaultError::Damaged { why, .. }) => broken(name, why),
            Err(fault) => return Err(fault),
        };
        lines.push(line);
    }
    Ok(lines)
}

fn line_for(config: &Config, name: String, entry: &StoredCredential, now: u64) -> Line {
    let renewal_method = RecordName::parse(&name).and_then(|record| {
        let credential = config.credentials.get(&*record.credential)?;
        credential.credential.renewal_method_of(record.user)
    });
    match renewal_method {
        Some(renewal_method) if entry.is_of(&renewal_method) => of_entry(name, entry, now),
        Some(_) => without_record(config, name),
        None => {
            let detail = format!("not in the configuration; `calgate credentials forget {name}` removes it");
            Line { state: "unused", detail: Some(detail), ..of_entry(name, entry, now) }
        }
    }
}

fn of_entry(credential: String, entry: &StoredCredential, now: u64) -> Line {
    let current = entry.current.as_ref();
    let expires = current.and_then(|pair| Some(pair.received_at / 1000 + pair.lifetime?.as_secs()));
    Line {
        credential,
        state: entry.state_name(now),
        expires: expires.and_then(format_time),
        renewed: current.and_then(|pair| format_time(pair.received_at / 1000)),
        detail: entry.needs_login.clone().or_else(|| entry.fault.clone()),
    }
}

fn broken(credential: String, why: String) -> Line {
    Line { credential, state: "damaged", expires: None, renewed: None, detail: Some(why) }
}

fn without_record(config: &Config, name: String) -> Line {
    let kind = config.credentials.get(&name).map(|credential| &credential.credential.kind);
    let (state, detail) = match kind {
        Some(Kind::OAuth(_)) => ("needs-login", Some(format!("run `calgate login {name}`"))),
        _ => ("configured", None),
    };
    Line { credential: name, state, expires: None, renewed: None, detail }
}

fn format_time(seconds: u64) -> Option<String> {
    Timestamp::from_second(i64::try_from(seconds).ok()?).ok().map(|timestamp| timestamp.to_string())
}

/// Returns the record that the arguments name.
fn record(which: &WhichArgs, config: &Config) -> Result<RecordName, Outcome> {
    let misused = |what: String| Outcome::Misused(format!("calgate: {what}"));
    let Some(credential) = config.credentials.get(&which.credential) else {
        let help = known_names(&which.credential, config.credentials.keys().map(String::as_str));
        return Err(misused(format!("unknown credential `{}` ({help})", which.credential)));
    };
    match &which.managed_user {
        None if credential.credential.renewal_method().is_some() => Ok(RecordName::of(&which.credential)),
        None => Err(misused(format!("`{}` has no tokens itself; name a --managed-user", which.credential))),
        Some(_) if credential.credential.managed().is_none() => {
            Err(misused(format!("`{}` has no managed users", which.credential)))
        }
        Some(user) => {
            let user = UserId::parse(user).ok_or_else(|| misused("invalid id of a managed user".to_owned()))?;
            Ok(RecordName::of_user(&which.credential, user))
        }
    }
}

fn import(which: &WhichArgs) -> Result<Outcome, Outcome> {
    let (config, vault) = open(&which.config)?;
    let name = record(which, &config)?;
    let is_key =
        config.credentials.get(&which.credential).is_some_and(|c| !matches!(c.credential.kind, Kind::OAuth(_)));
    if is_key && which.managed_user.is_none() {
        let what = format!("the configuration contains the API key of `{}`: change it there", which.credential);
        return Err(Outcome::Misused(format!("calgate: {what}")));
    }
    let mut text = Zeroizing::new(Vec::with_capacity(64 * 1024));
    std::io::stdin().take(MAX_IMPORT_BYTES).read_to_end(&mut text).map_err(failed)?;
    let pair =
        from_import(&text, unix_millis()).map_err(|fault| failed(format!("cannot import the tokens: {fault}")))?;
    block_on(store_pair(&vault, &name, &pair)).map_err(failed)?.map_err(failed)?;
    Ok(print(&format!("stored the tokens of {name}\n")))
}

/// Stores a pair, which replaces an earlier one. Fails if the record is damaged.
pub(super) async fn store_pair(vault: &Vault, name: &RecordName, pair: &TokenPair) -> Result<(), VaultError> {
    let name = name.to_string();
    loop {
        let (mut entry, version) = stored(vault, &name).await?;
        entry.replace(pair.clone());
        // The earlier pair may belong to another grant, so it is not kept as a fallback.
        entry.previous = None;
        if vault.swap(&name, version, &entry.to_bytes()).await? {
            return Ok(());
        }
    }
}

/// Returns the record with that name and its version, or an empty record.
async fn stored(vault: &Vault, name: &str) -> Result<(StoredCredential, Option<u64>), VaultError> {
    let Some(kept) = vault.get(name).await? else { return Ok((StoredCredential::default(), None)) };
    let damaged =
        || VaultError::Damaged { name: name.to_owned(), why: "it is of another version of calgate".to_owned() };
    Ok((StoredCredential::from_bytes(&kept.plain).ok_or_else(damaged)?, Some(kept.version)))
}

/// Checks that [`store_pair`] is likely to succeed, before the user logs in. Taking the lock writes to the token store. A renewal
/// that needs the lock waits until the check is over.
pub(super) async fn check_can_store(vault: &Vault, name: &RecordName) -> Result<(), VaultError> {
    let name = name.to_string();
    stored(vault, &name).await?;
    vault.lock(&name).await.map(drop)
}

fn forget(which: &WhichArgs) -> Result<Outcome, Outcome> {
    let (config, vault) = open(&which.config)?;
    let user = which.managed_user.as_ref().map(|user| format!("/{user}")).unwrap_or_default();
    // The listed name may belong to a credential that the configuration no longer contains.
    let name = format!("{}{user}", which.credential);
    if block_on(vault.forget(&name)).map_err(failed)?.map_err(failed)? {
        return Ok(print(&format!("removed {name}\n")));
    }
    let name = record(which, &config)?;
    Ok(print(&format!("no record of {name}\n")))
}
