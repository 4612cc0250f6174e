//! `calgate login`: the authorization-code flow (RFC 6749 §4.1) with state, and with PKCE as the credential says.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use oauth2::basic::BasicClient;
use oauth2::url::Url;
use oauth2::{AuthUrl, ClientId, CsrfToken, PkceCodeChallenge, RedirectUrl};

use super::credentials::{can_put, put};
use super::store::{block_on, open};
use super::{ConfigArgs, Outcome, print};
use crate::config::Config;
use crate::config::diagnostics::known_names;
use crate::credential::entry::RecordName;
use crate::credential::{Kind, OAuthClient};
use crate::foreign::cleaned;
use crate::forward::Upstream;
use crate::keeper::endpoint::CalCom;
use crate::keeper::oauth::{Authorized, exchange_code};
use crate::store::Vault;

/// For which credential, and how the browser is heard.
#[derive(Args)]
pub(super) struct LoginArgs {
    /// The credential's name in the configuration
    credential: String,
    /// The port of the address that Cal.com sends the browser back to: <http://127.0.0.1:PORT/callback>, which the OAuth
    /// client has to list as a redirect address
    #[arg(long, default_value_t = 8976)]
    port: u16,
    /// Read the code, or the whole address that the browser was sent to, from standard input: for a machine without a
    /// browser
    #[arg(long)]
    code: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

/// A request line of the browser at most.
const MOST_LINE: u64 = 16 * 1024;

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
    block_on(can_put(&vault, &name)).map_err(failed)?.map_err(failed)?;
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
    let (address, state) = request.url();
    print(&format!("Open this address in a browser and grant access:\n\n  {address}\n\n"));
    let code = match &listener {
        Some(listener) => hear(listener, &state)?,
        None => ask_for_code(&state)?,
    };
    finish(&config, &vault, &client, &name, Authorized { code, verifier, redirect })
}

fn finish(
    config: &Config,
    vault: &Vault,
    client: &OAuthClient,
    name: &RecordName,
    authorized: Authorized,
) -> Result<Outcome, Outcome> {
    let upstream = Arc::new(Upstream::new(&config.upstream, &config.limits).map_err(failed)?);
    let cal_com = CalCom { upstream, budgets: None };
    let stored = block_on(async {
        match exchange_code(&cal_com, client, authorized).await {
            Ok(pair) => put(vault, name, &pair).await.map_err(|fault| fault.to_string()),
            Err(why) => Err(format!("the code could not be exchanged for tokens: {why}")),
        }
    });
    stored.map_err(failed)?.map_err(failed)?;
    Ok(print(&format!("logged in: the tokens of {name} are stored\n")))
}

fn client(config: &Config, name: &str) -> Result<OAuthClient, Outcome> {
    match config.credentials.get(name).map(|credential| &credential.credential.kind) {
        Some(Kind::OAuth(client)) => Ok(client.clone()),
        Some(_) => Err(Outcome::Misused(format!("calgate: the credential `{name}` is not of kind \"oauth\""))),
        None => {
            let help = known_names(name, config.credentials.keys().map(String::as_str));
            Err(Outcome::Misused(format!("calgate: there is no credential `{name}` ({help})")))
        }
    }
}

fn listen(port: u16) -> Result<TcpListener, Outcome> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(|fault| {
        failed(format!("127.0.0.1:{port} cannot be listened on: {fault}; choose another --port, or use --code"))
    })
}

/// What a request of a browser is to a login.
enum Heard {
    /// The answer to it: the code, or why there is none.
    Answer(Result<String, String>),
    /// The answer to another one: of an older page, or of a stranger's.
    OtherLogin,
    /// None at all.
    Nothing,
}

/// Waits until the browser comes back with the answer to this login.
fn hear(listener: &TcpListener, state: &CsrfToken) -> Result<String, Outcome> {
    loop {
        let (stream, _) = listener.accept().map_err(failed)?;
        let Some(target) = target(&stream) else { continue };
        match heard(&format!("http://127.0.0.1{target}"), state) {
            Heard::Nothing => answer(&stream, "404 Not Found", "This is not the page you are looking for."),
            Heard::OtherLogin => answer(&stream, "400 Bad Request", "This is of another login; calgate still waits."),
            Heard::Answer(Ok(code)) => {
                answer(&stream, "200 OK", "calgate has what it needs. You can close this page.");
                return Ok(code);
            }
            Heard::Answer(Err(why)) => {
                answer(&stream, "400 Bad Request", "calgate was not granted access. See its output.");
                return Err(failed(why));
            }
        }
    }
}

/// The target of the browser's request.
fn target(stream: &TcpStream) -> Option<String> {
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let mut line = String::new();
    BufReader::new(stream.take(MOST_LINE)).read_line(&mut line).ok()?;
    let target = line.strip_prefix("GET ")?.split(' ').next()?;
    Some(target.to_owned())
}

fn answer(mut stream: &TcpStream, status: &str, text: &str) {
    let length = text.len();
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n");
    let _ = stream.write_all(format!("{head}Connection: close\r\n\r\n{text}").as_bytes());
}

fn ask_for_code(state: &CsrfToken) -> Result<String, Outcome> {
    print("Then paste the address the browser was sent to (or the code in it) here, and press Enter:\n");
    let mut line = String::new();
    std::io::stdin().lock().take(MOST_LINE).read_line(&mut line).map_err(failed)?;
    let text = line.trim();
    if text.is_empty() {
        return Err(failed("no code was given"));
    }
    if !text.contains("://") {
        return Ok(text.to_owned());
    }
    match heard(text, state) {
        Heard::Answer(code) => code.map_err(failed),
        Heard::OtherLogin => Err(failed("the answer is not to this login (its state is another one)")),
        Heard::Nothing => Err(failed("this is not the address of an answer")),
    }
}

/// What the address says that the browser was sent back to.
fn heard(address: &str, state: &CsrfToken) -> Heard {
    let Some(address) = Url::parse(address).ok().filter(|address| address.path() == "/callback") else {
        return Heard::Nothing;
    };
    let value = |name: &str| address.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
    if value("state").as_deref() != Some(state.secret()) {
        return Heard::OtherLogin;
    }
    if let Some(error) = value("error") {
        let known = error.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        let error = if known { &*error } else { "unknown error" };
        let said = value("error_description").map(cleaned).filter(|said| !said.is_empty());
        let said = said.map(|said| format!(": \"{said}\"")).unwrap_or_default();
        return Heard::Answer(Err(format!("access was not granted ({error}){said}")));
    }
    value("code").map_or(Heard::Nothing, |code| Heard::Answer(Ok(code)))
}
