//! What for? The Cal.com operations calgate knows, and the one a request asks for.
//!
//! Second stage of the request path: [`Catalog::find`] turns a method and a raw request target into a [`Matched`]
//! endpoint, or refuses. Nothing that is not in the catalog is forwarded unless the operator says so
//! (`[catalog] unknown_endpoints = "forward"`).

pub mod diff;
pub mod endpoint;
mod facts;
pub mod file;
pub mod import;
pub mod path;
pub mod tag;
mod trie;
pub mod version;

use std::sync::OnceLock;

use http::Method;

pub use endpoint::{Accepts, Endpoint, EndpointId, SubLimit};
pub use path::CanonicalPath;
pub use tag::{Prefix, Tag};
pub use version::ApiVersion;

use crate::refusal::Refusal;
use trie::{Found, Trie};

/// The operations of one Cal.com API document, ready for look-up.
#[derive(Debug)]
pub struct Catalog {
    endpoints: Vec<Endpoint>,
    trie: Trie,
}

/// What a request asks for, in canonical form: the proof that its path and method are known (or that the operator chose
/// to forward unknown ones).
#[derive(Debug)]
pub struct Matched<'a> {
    /// Every endpoint of the method that fits, the most literal first; empty for a forwarded unknown endpoint.
    fitting: Found<'a>,
    path: CanonicalPath<'a>,
}

impl<'a> Matched<'a> {
    /// The endpoint that names the request in limits, logs and metrics: the most literal that fits.
    pub fn endpoint(&self) -> Option<&'a Endpoint> {
        self.fitting.first().copied()
    }

    /// Every endpoint that fits. Upstream picks by its order of registration, which we cannot see, so every one of them
    /// has to be allowed (FACTS §5).
    pub fn fitting(&self) -> &[&'a Endpoint] {
        &self.fitting
    }

    /// The canonical path as the caller meant it.
    pub fn path(&self) -> &CanonicalPath<'a> {
        &self.path
    }

    /// Whether the path that goes upstream is what the caller wrote, to the letter.
    pub fn is_as_written(&self) -> bool {
        self.path.is_as_written() && self.endpoint().is_none_or(|endpoint| endpoint.template.is_spelled_by(&self.path))
    }

    /// The path that goes upstream: the template's literals and the validated parameters.
    pub fn write_upstream_path(&self, out: &mut String) {
        match self.endpoint() {
            Some(endpoint) => endpoint.template.write_with(&self.path, out),
            None => self.path.write(out),
        }
    }
}

/// Whether a path that the catalog does not hold may go upstream (`[catalog] unknown_endpoints`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnknownEndpoints {
    /// Unknown paths are 404.
    #[default]
    Refuse,
    /// Unknown paths under `/v2` are forwarded, within the bounds that `entitle` sets.
    Forward,
}

impl Catalog {
    /// The catalog that is compiled in, made from Cal.com's own document.
    ///
    /// # Panics
    /// Never: the catalog is part of the program, and a test reads it.
    pub fn built_in() -> &'static Catalog {
        static BUILT_IN: OnceLock<Catalog> = OnceLock::new();
        BUILT_IN.get_or_init(|| {
            #[expect(clippy::expect_used, reason = "a compile-time constant; a test reads it")]
            file::read_own(include_str!("../config/catalog.toml")).expect("the built-in catalog is valid")
        })
    }

    /// Builds a catalog from its endpoints. They are numbered in the order given; that number is their [`EndpointId`].
    ///
    /// # Errors
    /// The method and template of an endpoint that occurs twice; more endpoints than can be numbered.
    pub fn new(mut endpoints: Vec<Endpoint>) -> Result<Self, String> {
        endpoints.sort_by(|a, b| a.sort_key().cmp(&b.sort_key()));
        for (index, endpoint) in endpoints.iter_mut().enumerate() {
            endpoint.id = EndpointId::at(index)?;
        }
        let trie = Trie::build(&endpoints)?;
        Ok(Self { endpoints, trie })
    }

    /// All endpoints, ordered by path and method.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// The endpoint written as `METHOD /path/{template}`, if the catalog has it.
    pub fn named(&self, name: &str) -> Option<&Endpoint> {
        let (method, template) = name.split_once(' ')?;
        let same = |e: &&Endpoint| e.method.as_str() == method && e.template.as_str() == template.trim_start();
        self.endpoints.iter().find(same)
    }

    /// Finds what `method` and `target` ask for. `target` is the path of an origin-form request target as it came,
    /// without the query. `HEAD` is served by the `GET` of a path (FACTS §5).
    ///
    /// # Errors
    /// [`Refusal::BadTarget`] for a path that has no canonical form, [`Refusal::UnknownEndpoint`] and
    /// [`Refusal::MethodNotAllowed`] for one that the catalog does not hold.
    pub fn find<'a>(
        &'a self,
        method: &Method,
        target: &'a str,
        unknown: UnknownEndpoints,
    ) -> Result<Matched<'a>, Refusal> {
        let path = CanonicalPath::parse(target).map_err(Refusal::BadTarget)?;
        let wanted = if method == Method::HEAD { &Method::GET } else { method };
        let fitting = self.trie.find(&path, wanted, &self.endpoints);
        if !fitting.is_empty() {
            return Ok(Matched { fitting, path });
        }
        let allow = self.trie.methods(&path, &self.endpoints);
        if !allow.is_empty() {
            return Err(Refusal::MethodNotAllowed { allow });
        }
        // A catalog that lacks an operation does not make it harmless.
        let harmless = || path.may_be_forwarded_unknown() && !facts::is_known_to_show_credentials(wanted, &path);
        if unknown == UnknownEndpoints::Forward && is_plain_method(method) && harmless() {
            return Ok(Matched { fitting, path });
        }
        Err(Refusal::UnknownEndpoint)
    }

    /// The methods of a path for an `Allow` header, `None` if the catalog does not hold the path.
    ///
    /// # Errors
    /// [`Refusal::BadTarget`] for a path that has no canonical form.
    pub fn allow(&self, target: &str) -> Result<Option<String>, Refusal> {
        let path = CanonicalPath::parse(target).map_err(Refusal::BadTarget)?;
        let allow = self.trie.methods(&path, &self.endpoints);
        Ok((!allow.is_empty()).then_some(allow))
    }
}

/// The methods an unknown endpoint may be called with.
fn is_plain_method(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::POST | Method::PUT | Method::PATCH | Method::DELETE)
}
