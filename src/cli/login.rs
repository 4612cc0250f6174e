//! `calgate login`: the authorization code grant (RFC 6749 §4.1) with a state, and with PKCE if the credential has `pkce`.

mod callback;

use std::io::{BufRead as _, Read as _};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;

use clap::Args;
use oauth2::basic::BasicClient;
use oauth2::{AuthUrl, ClientId, CsrfToken, PkceCodeChallenge, RedirectUrl};

use self::callback::{Callback, parse_callback, wait_for_code};
use super::credentials::{check_can_store, store_pair};
use super::store::{block_on, open};
use super::{ConfigArgs, Outcome, print};
use crate::config::Config;
use crate::config::diagnostics::known_names;
use crate::credential::stored_token::RecordName;
use crate::credential::{Kind, OAuthClient};
use crate::forward::Upstream;
use crate::refresh::oauth::{Authorized, exchange_code};
use crate::refresh::token_endpoint::CalClient;
use crate::vault::Vault;

/// Arguments of `calgate login`.
#[derive(Args)]
pub(super) struct LoginArgs {
    /// The credential's name in the configuration
    credential: String,
    /// The port of the redirect URI, <http://127.0.0.1:PORT/callback>. The OAuth client must have it as a redirect URI
    #[arg(long, default_value_t = 8976)]
    port: u16,
    /// Read the code, or the whole URL of the redirect, from standard input: for a machine without a browser
    #[arg(long)]
    code: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

/// Maximum length of a pasted line, 16 KiB.
const MAX_LINE_BYTES: u64 = 16 * 1024;

pub(super) fn run(args: &LoginArgs) -> Outcome {
    login(args).unwrap_or_else(|outcome| outcome)
}

fn failed(fault: impl std::fmt::Display) -> Outcome {
    Outcome::Failed(fault.to_string())
}

fn login(args: &LoginArgs) -> Result<Outcome, Outcome> {
    let (config, vault) = open(&args.config)?;
    let client = client(&config, &args.credential)?;
    let name = RecordName::of(&args.credential);
    block_on(check_can_store(&vault, &name)).map_err(failed)?.map_err(failed)?;
    let listener = if args.code { None } else { Some(listen(args.port)?) };
    let port = match &listener {
        Some(listener) => listener.local_addr().map_err(failed)?.port(),
        None => args.port,
    };
    let redirect = RedirectUrl::new(format!("http://127.0.0.1:{port}/callback")).map_err(failed)?;
    let page = AuthUrl::new(client.authorize_url.clone())
        .map_err(|_| Outcome::Misused("calgate: authorize_url is not a URL".to_owned()))?;
    let (challenge, verifier) = client.pkce.then(PkceCodeChallenge::new_random_sha256).unzip();
    let oauth =
        BasicClient::new(ClientId::new(client.client_id.clone())).set_auth_uri(page).set_redirect_uri(redirect.clone());
    let request = oauth.authorize_url(CsrfToken::new_random);
    let request = match challenge {
        Some(challenge) => request.set_pkce_challenge(challenge),
        None => request,
    };
    let (url, state) = request.url();
    print(&format!("Open this URL in a browser and grant access:\n\n  {url}\n\n"));
    let code = match listener {
        Some(listener) => block_on(wait_for_code(listener, &state)).map_err(failed)?.map_err(failed)?,
        None => ask_for_code(&state)?,
    };
    store_tokens(&config, &vault, &client, &name, Authorized { code, verifier, redirect })
}

fn store_tokens(
    config: &Config,
    vault: &Vault,
    client: &OAuthClient,
    name: &RecordName,
    authorized: Authorized,
) -> Result<Outcome, Outcome> {
    let upstream = Arc::new(Upstream::new(&config.upstream, &config.limits, None).map_err(failed)?);
    let cal_client = CalClient { upstream, budgets: None };
    let stored = block_on(async {
        match exchange_code(&cal_client, client, authorized).await {
            Ok(pair) => store_pair(vault, name, &pair).await.map_err(|fault| fault.to_string()),
            Err(why) => Err(format!("cannot exchange the code for tokens: {why}")),
        }
    });
    stored.map_err(failed)?.map_err(failed)?;
    Ok(print(&format!("logged in; stored the tokens of {name}\n")))
}

fn client(config: &Config, name: &str) -> Result<OAuthClient, Outcome> {
    match config.credentials.get(name).map(|credential| &credential.credential.kind) {
        Some(Kind::OAuth(client)) => Ok(client.clone()),
        Some(_) => Err(Outcome::Misused(format!("calgate: the credential `{name}` is not of kind \"oauth\""))),
        None => {
            let help = known_names(name, config.credentials.keys().map(String::as_str));
            Err(Outcome::Misused(format!("calgate: unknown credential `{name}` ({help})")))
        }
    }
}

fn listen(port: u16) -> Result<TcpListener, Outcome> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(|fault| {
        failed(format!("cannot listen on 127.0.0.1:{port}: {fault}; choose another --port or use --code"))
    })?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

fn ask_for_code(state: &CsrfToken) -> Result<String, Outcome> {
    print("Then paste the URL of the redirect, or its code, and press Enter:\n");
    let mut line = String::new();
    std::io::stdin().lock().take(MAX_LINE_BYTES).read_line(&mut line).map_err(failed)?;
    let text = line.trim();
    if text.is_empty() {
        return Err(failed("no code"));
    }
    if !text.contains("://") {
        return Ok(text.to_owned());
    }
    match parse_callback(text, state) {
        Callback::Result(code) => code.map_err(failed),
        Callback::AnotherLogin => Err(failed("the redirect belongs to another login: its state differs")),
        Callback::Unrelated => Err(failed("this is not the URL of a redirect")),
    }
}
