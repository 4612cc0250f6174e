//! The address of a PostgreSQL store: what is connected to, and whether TLS is spoken there.

use std::error::Error as _;
use std::net::IpAddr;
use std::str::FromStr;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

/// Options of such addresses that calgate or other programs know.
const OPTIONS: &str = "channel_binding client_encoding connect_timeout gssencmode hostaddr keepalives keepalives_idle \
    keepalives_interval keepalives_retries load_balance_hosts passfile port replication require_auth service sslcert sslcrl \
    sslkey sslnegotiation sslpassword target_session_attrs tcp_user_timeout";

/// What a connection URL says, and whether TLS is spoken there.
pub(super) fn read(text: &str) -> Result<(Config, bool), String> {
    let config = parse(text)?;
    let encrypted = match config.get_ssl_mode() {
        SslMode::Disable => false,
        SslMode::Prefer => !is_local(&config),
        _ => true,
    };
    let hosts = config.get_hosts();
    let named = !hosts.is_empty() && hosts.iter().all(|host| matches!(host, Host::Tcp(_)));
    if encrypted && !named && !config.get_hostaddrs().is_empty() {
        let why = "`hostaddr` needs `host` beside it in the address of the PostgreSQL store, by which its certificate is verified";
        return Err(why.to_owned());
    }
    Ok((config, encrypted))
}

fn parse(text: &str) -> Result<Config, String> {
    if !["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme)) {
        return Err("the address of the PostgreSQL store is no URL: postgres://USER:PASSWORD@HOST/DATABASE".to_owned());
    }
    let config = Config::from_str(text).map_err(|fault| not_understood(text, &fault))?;
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        return Err("the address of the PostgreSQL store names no host".to_owned());
    }
    match counted(&config) {
        Some(fault) => Err(format!("the address of the PostgreSQL store {fault}")),
        None => Ok(config),
    }
}

/// What would be found only when a connection is made.
fn counted(config: &Config) -> Option<&'static str> {
    let (names, addresses) = (config.get_hosts().len(), config.get_hostaddrs().len());
    let ports = config.get_ports();
    if names.min(addresses) > 0 && names != addresses {
        Some("has not as many values of `host` as of `hostaddr`")
    } else if ports.contains(&0) {
        Some("has a port that is no number from 1 to 65535")
    } else if ports.len() > 1 && ports.len() != names.max(addresses) {
        Some("has not as many ports as hosts")
    } else {
        None
    }
}

/// Names the option that is wrong. One that is not known is named only if it cannot be a part of a password.
fn not_understood(text: &str, fault: &tokio_postgres::Error) -> String {
    let said = fault.source().map(ToString::to_string).unwrap_or_default();
    let option = said.split('`').nth(1).unwrap_or_default();
    match option {
        "sslmode" => {
            "`sslmode` in the address of the PostgreSQL store is `disable`, `prefer` or `require`: where TLS is spoken, the \
             server's certificate and name are always verified, as elsewhere by `verify-full`"
                .to_owned()
        }
        "sslrootcert" => {
            "`sslrootcert` has to be left out of the address of the PostgreSQL store: `token_store.ca_file` names that file"
                .to_owned()
        }
        _ if OPTIONS.split(' ').any(|known| known == option) => {
            format!("`{option}` in the address of the PostgreSQL store has a value that cannot be used, or is not supported")
        }
        _ if said.starts_with("unknown option") => {
            let named = if is_public(text, option) { format!("the parameter `{option}`") } else { "a parameter".to_owned() };
            format!(
                "the address of the PostgreSQL store has {named} that calgate does not know: leave it out, and escape `?` and \
                 `&` in a password (%3F, %26)"
            )
        }
        _ => "the address of the PostgreSQL store is not one".to_owned(),
    }
}

/// Returns whether `option` is the name of a parameter of this URL, and no part of a password that is not escaped: no `@`
/// follows the `?`, and no secret parameter comes before it.
fn is_public(text: &str, option: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
    let Some((_, query)) = text.split_once('?').filter(|(_, query)| !query.contains('@')) else { return false };
    let mut before = query.split('&').map_while(|pair| {
        let name = pair.split('=').next().unwrap_or_default();
        (name != option).then_some(name)
    });
    (1..=40).contains(&option.len()) && option.bytes().all(plain) && !before.any(|name| name.contains("pass"))
}

/// Whether all that `config` may connect to is on this machine. Where an address is given beside a name, it is the address
/// that is connected to.
fn is_local(config: &Config) -> bool {
    let (hosts, addresses) = (config.get_hosts(), config.get_hostaddrs());
    let is_local = |host: &Host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()),
    };
    !(hosts.is_empty() && addresses.is_empty())
        && hosts.iter().all(is_local)
        && addresses.iter().all(IpAddr::is_loopback)
}
