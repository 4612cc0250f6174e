//! Keyless requests: those that are the `[anonymous]` consumer's because they could connect, and for no other reason.
//!
//! Whoever makes a browser on this machine or in this network send a request could use the consumer's credential. Such a
//! request shows itself by its `Host` (DNS rebinding), or by `Sec-Fetch-Site` and `Origin` (cross-site requests).

use http::header::{HeaderValue, ORIGIN};
use http::request;

use super::host::{ConnectionEnds, Hosts, authorities};
use super::{Caller, Identity};
use crate::refusal::Refusal;

/// What browsers say of how a request came about (Fetch Metadata, W3C). No page can change it.
const SEC_FETCH_SITE: &str = "sec-fetch-site";

/// Which keyless requests are served.
#[derive(Debug, Default)]
pub struct KeylessAccess {
    hosts: Hosts,
    /// `[listen] cors_origins`, in lower case.
    origins: Vec<String>,
}

impl KeylessAccess {
    /// From `[listen] hosts` and `[listen] cors_origins`.
    pub fn new(hosts: Hosts, origins: Vec<String>) -> Self {
        Self { hosts, origins }
    }

    /// The hosts by which the gateway is known.
    pub fn hosts(&self) -> &Hosts {
        &self.hosts
    }

    /// Checks that a keyless request is not sent by a foreign web page. Requests with a key, and those that use nothing but
    /// public operations, are nobody's authority but their own.
    ///
    /// # Errors
    /// [`Refusal::HostNotAllowed`] and [`Refusal::OriginNotAllowed`].
    pub fn check(&self, caller: &Caller<'_>, head: &request::Parts, ends: ConnectionEnds) -> Result<(), Refusal> {
        if !matches!(caller.identity, Identity::Consumer(_)) || caller.no_key.is_none() {
            return Ok(());
        }
        self.hosts.check(head, ends.local).map_err(|host| Refusal::HostNotAllowed { host })?;
        if self.is_foreign(head) { Err(Refusal::OriginNotAllowed) } else { Ok(()) }
    }

    /// Returns whether a page of another origin sends the request. What is not from a browser has neither header.
    fn is_foreign(&self, head: &request::Parts) -> bool {
        let origins = head.headers.get_all(ORIGIN);
        if origins.iter().next().is_some() && origins.iter().all(|origin| self.lists(origin)) {
            return false;
        }
        let mut sites = head.headers.get_all(SEC_FETCH_SITE).iter().peekable();
        if sites.peek().is_some() {
            return !sites.all(|site| site == "same-origin" || site == "none");
        }
        !origins.iter().all(|origin| is_own(origin, head))
    }

    fn lists(&self, origin: &HeaderValue) -> bool {
        origin.to_str().is_ok_and(|origin| self.origins.iter().any(|listed| listed.eq_ignore_ascii_case(origin)))
    }
}

/// Returns whether an origin is that of the request's own target. Its scheme says nothing: TLS may end before calgate.
fn is_own(origin: &HeaderValue, head: &request::Parts) -> bool {
    let Some((_, authority)) = origin.to_str().ok().and_then(|origin| origin.split_once("://")) else { return false };
    authorities(head).any(|own| own.eq_ignore_ascii_case(authority))
}
