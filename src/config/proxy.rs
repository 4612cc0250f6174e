//! `[upstream] proxy`, `HTTPS_PROXY` and `NO_PROXY`: the HTTP proxy that leads to Cal.com.

use http::{HeaderValue, Uri};
use hyper_util::client::proxy::matcher::Matcher;

use super::hiding::is_plain;
use super::reader::Section;
use super::secret;
use super::upstream::BaseUrl;

/// An HTTP proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    host: String,
    port: u16,
    /// `Proxy-Authorization`, marked sensitive.
    authorization: Option<HeaderValue>,
}

impl Proxy {
    /// Reads `http://HOST:PORT` or `http://USER:PASSWORD@HOST:PORT`.
    ///
    /// # Errors
    /// What is wrong with it; never its text.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let address = text.trim();
        // `HTTPS_PROXY` is also written without a scheme.
        if address.contains("://") && !address.to_ascii_lowercase().starts_with("http://") {
            return Err("only http:// proxies are supported");
        }
        let any = Uri::from_static("https://upstream");
        let read = Matcher::builder().https(address).build().intercept(&any).ok_or("it is not the URL of a proxy")?;
        let host = read.uri().host().ok_or("it names no host")?.trim_matches(['[', ']']);
        let authorization = read.basic_auth().cloned().map(|mut value| {
            value.set_sensitive(true);
            value
        });
        Ok(Self { host: host.to_owned(), port: read.uri().port_u16().unwrap_or(80), authorization })
    }

    /// Name or address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `host:port`, without user and password.
    pub fn address(&self) -> String {
        let bracketed = self.host.contains(':');
        if bracketed { format!("[{}]:{}", self.host, self.port) } else { format!("{}:{}", self.host, self.port) }
    }

    /// The value of `Proxy-Authorization`.
    pub fn authorization(&self) -> Option<&HeaderValue> {
        self.authorization.as_ref()
    }
}

/// What the configuration says of a proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProxyChoice {
    /// Nothing: the environment decides.
    Environment,
    /// There is none.
    Direct,
    /// This one.
    Through(Proxy),
}

impl ProxyChoice {
    /// Reads `[upstream] proxy`: `"none"`, a URL, or `{ file = "…" }` or `{ env = "…" }` for a URL with a password.
    pub(super) fn read(section: &Section<'_>) -> Self {
        let Some((value, span)) = section.raw("proxy") else { return Self::Environment };
        let parsed = match value.as_str() {
            Some(url) if !url.contains('@') => {
                if is_plain(url) {
                    section.show(&span);
                }
                if url == "none" {
                    return Self::Direct;
                }
                Proxy::parse(url)
            }
            _ => match secret::read(section, "proxy") {
                Some(url) => url.with_text(Proxy::parse),
                None => return Self::Direct,
            },
        };
        match parsed {
            Ok(proxy) => Self::Through(proxy),
            Err(fault) => {
                let help = "write \"http://HOST:PORT\", { env = \"NAME\" } for one with user and password, or \"none\"";
                section.wrong(span, format!("`upstream.proxy` cannot be used: {fault}"), help.to_owned());
                Self::Direct
            }
        }
    }

    /// The proxy that leads to `upstream`. None leads to a loopback address.
    ///
    /// # Errors
    /// What is wrong with the environment.
    pub fn on_the_way_to(&self, upstream: &BaseUrl) -> Result<Option<Proxy>, String> {
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

/// The proxy that `HTTPS_PROXY` names, unless `NO_PROXY` exempts `upstream`. Names in capitals go first.
///
/// # Errors
/// What is wrong with the variable.
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

/// Whether `NO_PROXY` lists the upstream: by its name, a domain above it, its address, or a network.
fn is_exempt(no_proxy: &str, upstream: &BaseUrl) -> bool {
    let matcher = Matcher::builder().https("http://proxy").no(no_proxy).build();
    let url = format!("https://{}", upstream.authority).parse::<Uri>();
    url.is_ok_and(|url| matcher.intercept(&url).is_none())
}
