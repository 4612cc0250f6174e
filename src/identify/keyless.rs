//! Checks of requests that act as the `[anonymous]` consumer without a key.
//!
//! Such a request needs nothing but a connection. A web page could therefore make a browser on this machine or network use the
//! credential of the consumer. `Host` reveals such a request (DNS rebinding), or `Sec-Fetch-Site` and `Origin` (cross-site
//! requests).

use http::header::{HeaderValue, ORIGIN};
use http::request;

use super::host::{ConnectionEnds, Hosts, authorities};
use super::{Caller, Identity};
use crate::refusal::Refusal;

/// Header in which a browser describes the source of a request (Fetch Metadata, W3C). A page cannot change it.
const SEC_FETCH_SITE: &str = "sec-fetch-site";

/// Hosts and origins from which requests without a key are allowed.
#[derive(Debug, Default)]
pub struct KeylessAccess {
    hosts: Hosts,
    /// Origins of `[listen] cors_origins`, in lower case.
    origins: Vec<String>,
}

impl KeylessAccess {
    /// Takes `[listen] hosts` and `[listen] cors_origins`.
    pub fn new(hosts: Hosts, origins: Vec<String>) -> Self {
        Self { hosts, origins }
    }

    /// Returns the hosts of `[listen] hosts`.
    pub fn hosts(&self) -> &Hosts {
        &self.hosts
    }

    /// Checks that no foreign web page sends a request without a key. Other requests pass: a page does not know a key, and public
    /// callers have no permissions that a page could misuse.
    ///
    /// # Errors
    /// [`Refusal::HostNotAllowed`] or [`Refusal::OriginNotAllowed`].
    pub fn check(&self, caller: &Caller<'_>, head: &request::Parts, ends: ConnectionEnds) -> Result<(), Refusal> {
        if !matches!(caller.identity, Identity::Consumer(_)) || caller.no_key.is_none() {
            return Ok(());
        }
        self.hosts.check(head, ends.local).map_err(|host| Refusal::HostNotAllowed { host })?;
        if self.is_cross_site(head) { Err(Refusal::OriginNotAllowed) } else { Ok(()) }
    }

    /// Returns whether a page of another origin sends the request. Clients other than browsers send neither header.
    fn is_cross_site(&self, head: &request::Parts) -> bool {
        let origins = head.headers.get_all(ORIGIN);
        if origins.iter().next().is_some() && origins.iter().all(|origin| self.is_listed(origin)) {
            return false;
        }
        let mut sites = head.headers.get_all(SEC_FETCH_SITE).iter().peekable();
        if sites.peek().is_some() {
            return !sites.all(|site| site == "same-origin" || site == "none");
        }
        !origins.iter().all(|origin| is_same_origin(origin, head))
    }

    fn is_listed(&self, origin: &HeaderValue) -> bool {
        origin.to_str().is_ok_and(|origin| self.origins.iter().any(|listed| listed.eq_ignore_ascii_case(origin)))
    }
}

/// Returns whether the origin has the host of the request itself. The scheme is ignored, because a proxy may terminate TLS.
fn is_same_origin(origin: &HeaderValue, head: &request::Parts) -> bool {
    let Some((_, authority)) = origin.to_str().ok().and_then(|origin| origin.split_once("://")) else { return false };
    authorities(head).any(|own| own.eq_ignore_ascii_case(authority))
}
