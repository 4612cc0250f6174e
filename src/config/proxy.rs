//! `[upstream] proxy`, `HTTPS_PROXY` and `NO_PROXY`: the HTTP proxy between calgate and Cal.com.

use http::{HeaderValue, Uri};
use hyper_util::client::proxy::matcher::Matcher;

use super::redact::has_no_password;
use super::secret_source;
use super::section::Section;
use super::upstream::BaseUrl;

/// HTTP proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    host: String,
    port: u16,
    /// Value of `Proxy-Authorization`, marked sensitive.
    authorization: Option<HeaderValue>,
}

impl Proxy {
    /// Parses `http://HOST:PORT` or `http://USER:PASSWORD@HOST:PORT`.
    ///
    /// # Errors
    /// The reason why the URL is invalid, without its text.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let address = text.trim();
        // `HTTPS_PROXY` is also written without a scheme.
        if address.contains("://") && !address.to_ascii_lowercase().starts_with("http://") {
            return Err("only http:// proxies are supported");
        }
        let any = Uri::from_static("https://upstream");
        let read = Matcher::builder().https(address).build().intercept(&any).ok_or("it is not a proxy URL")?;
        let host = read.uri().host().ok_or("it has no host")?.trim_matches(['[', ']']);
        let authorization = read.basic_auth().cloned().map(|mut value| {
            value.set_sensitive(true);
            value
        });
        Ok(Self { host: host.to_owned(), port: read.uri().port_u16().unwrap_or(80), authorization })
    }

    /// Returns the name or address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns `host:port`, without user and password.
    pub fn address(&self) -> String {
        let bracketed = self.host.contains(':');
        if bracketed { format!("[{}]:{}", self.host, self.port) } else { format!("{}:{}", self.host, self.port) }
    }

    /// Returns the value of `Proxy-Authorization`.
    pub fn authorization(&self) -> Option<&HeaderValue> {
        self.authorization.as_ref()
    }
}

/// Value of `[upstream] proxy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProxyChoice {
    /// Not set. The environment decides.
    Environment,
    /// No proxy.
    Direct,
    /// Proxy in the configuration.
    Through(Proxy),
}

impl ProxyChoice {
    /// Reads `[upstream] proxy`: `"none"`, a URL, or `{ file = "…" }` or `{ env = "…" }` for a URL with a password.
    pub(super) fn read(section: &Section<'_>) -> Self {
        let Some((value, span)) = section.raw("proxy") else { return Self::Environment };
        let parsed = match value.as_str() {
            Some(url) if !url.contains('@') => {
                if has_no_password(url) {
                    section.show(&span);
                }
                if url == "none" {
                    return Self::Direct;
                }
                Proxy::parse(url)
            }
            _ => match secret_source::read(section, "proxy") {
                Some(url) => url.expose(Proxy::parse),
                None => return Self::Direct,
            },
        };
        match parsed {
            Ok(proxy) => Self::Through(proxy),
            Err(fault) => {
                let help = "write \"http://HOST:PORT\", { env = \"NAME\" } for one with user and password, or \"none\"";
                section.error(span, format!("`upstream.proxy` cannot be used: {fault}"), help.to_owned());
                Self::Direct
            }
        }
    }

    /// Returns the proxy for connections to `upstream`. Connections to a loopback address use none.
    ///
    /// # Errors
    /// The reason why a variable of the environment is invalid.
    pub fn for_upstream(&self, upstream: &BaseUrl) -> Result<Option<Proxy>, String> {
        if upstream.is_loopback() {
            return Ok(None);
        }
        match self {
            Self::Direct => Ok(None),
            Self::Through(proxy) => Ok(Some(proxy.clone())),
            Self::Environment => from_environment(upstream, |name| std::env::var(name).ok()),
        }
    }
}

/// Returns the proxy in `HTTPS_PROXY`, unless `NO_PROXY` exempts `upstream`. Variables in capitals take precedence.
///
/// # Errors
/// The reason why the variable is invalid.
pub fn from_environment(
    upstream: &BaseUrl,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<Proxy>, String> {
    let first = |names: [&'static str; 2]| {
        names.into_iter().find_map(|name| Some((name, variable(name).filter(|text| !text.trim().is_empty())?)))
    };
    let Some((name, url)) = first(["HTTPS_PROXY", "https_proxy"]) else { return Ok(None) };
    let (_, exempt) = first(["NO_PROXY", "no_proxy"]).unwrap_or_default();
    if is_exempt(&exempt, upstream) {
        return Ok(None);
    }
    let proxy = Proxy::parse(&url).map_err(|fault| {
        format!(
            "the environment variable {name} cannot be used: {fault}. Write {name}=http://HOST:PORT, or upstream.proxy = \
             \"none\""
        )
    })?;
    Ok(Some(proxy))
}

/// Returns whether `NO_PROXY` lists the upstream: its name, a parent domain, its address, or its network.
fn is_exempt(no_proxy: &str, upstream: &BaseUrl) -> bool {
    let matcher = Matcher::builder().https("http://proxy").no(no_proxy).build();
    let url = format!("https://{}", upstream.authority).parse::<Uri>();
    url.is_ok_and(|url| matcher.intercept(&url).is_none())
}
