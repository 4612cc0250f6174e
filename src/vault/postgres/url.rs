//! Connection URL of the PostgreSQL backend: its hosts, its options, and whether to use TLS.

use std::error::Error as _;
use std::net::IpAddr;
use std::str::FromStr;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

/// Options of connection URLs that calgate or other programs know.
const OPTIONS: &str = "channel_binding client_encoding connect_timeout gssencmode hostaddr keepalives keepalives_idle \
    keepalives_interval keepalives_retries load_balance_hosts passfile port replication require_auth service sslcert sslcrl \
    sslkey sslnegotiation sslpassword target_session_attrs tcp_user_timeout";

/// Reads a connection URL. Returns whether to use TLS, too.
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
        let why = "`hostaddr` needs `host` beside it in the address of the PostgreSQL store, to verify the certificate by that name";
        return Err(why.to_owned());
    }
    Ok((config, encrypted))
}

fn parse(text: &str) -> Result<Config, String> {
    if !["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme)) {
        return Err(
            "the address of the PostgreSQL store is not a URL: postgres://USER:PASSWORD@HOST/DATABASE".to_owned()
        );
    }
    let config = Config::from_str(text).map_err(|fault| parse_error(text, &fault))?;
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        return Err("the address of the PostgreSQL store names no host".to_owned());
    }
    match host_mismatch(&config) {
        Some(fault) => Err(format!("the address of the PostgreSQL store {fault}")),
        None => Ok(config),
    }
}

/// Returns what is wrong with the hosts and ports. The library would find it only when it connects.
fn host_mismatch(config: &Config) -> Option<&'static str> {
    let (names, addresses) = (config.get_hosts().len(), config.get_hostaddrs().len());
    let ports = config.get_ports();
    if names.min(addresses) > 0 && names != addresses {
        Some("has different numbers of `host` and `hostaddr` values")
    } else if ports.contains(&0) {
        Some("has a port that is not a number from 1 to 65535")
    } else if ports.len() > 1 && ports.len() != names.max(addresses) {
        Some("has different numbers of ports and hosts")
    } else {
        None
    }
}

/// Names the option that is wrong. An unknown one is named only if it cannot be a part of a password.
fn parse_error(text: &str, fault: &tokio_postgres::Error) -> String {
    let said = fault.source().map(ToString::to_string).unwrap_or_default();
    let option = said.split('`').nth(1).unwrap_or_default();
    match option {
        "sslmode" => {
            "`sslmode` in the address of the PostgreSQL store must be `disable`, `prefer` or `require`. With TLS, calgate \
             always verifies the server's certificate and name, as `verify-full` does elsewhere"
                .to_owned()
        }
        "sslrootcert" => {
            "remove `sslrootcert` from the address of the PostgreSQL store, and name the file in `token_store.ca_file`"
                .to_owned()
        }
        _ if OPTIONS.split(' ').any(|known| known == option) => {
            format!("`{option}` in the address of the PostgreSQL store has a value that cannot be used, or is not supported")
        }
        _ if said.starts_with("unknown option") => {
            let named = if is_public(text, option) { format!("the parameter `{option}`") } else { "a parameter".to_owned() };
            format!(
                "the address of the PostgreSQL store has {named} that calgate does not know. Remove it, and escape `?` and \
                 `&` in a password (%3F, %26)"
            )
        }
        _ => "the address of the PostgreSQL store cannot be read".to_owned(),
    }
}

/// Returns whether `option` is the name of a parameter of this URL. It could also be a part of a password that is not
/// escaped, unless no `@` follows the `?` and no secret parameter comes before it.
fn is_public(text: &str, option: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
    let Some((_, query)) = text.split_once('?').filter(|(_, query)| !query.contains('@')) else { return false };
    let mut before = query.split('&').map_while(|pair| {
        let name = pair.split('=').next().unwrap_or_default();
        (name != option).then_some(name)
    });
    (1..=40).contains(&option.len()) && option.bytes().all(plain) && !before.any(|name| name.contains("pass"))
}

/// Returns whether all hosts of `config` are on this machine. If a host has a name and an address, the connection goes to
/// the address.
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
