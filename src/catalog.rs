//! Catalog stage: finds the Cal.com operation that a request means.
//!
//! [`Catalog::match_route`] turns a method and a raw request target into a [`RouteMatch`], or refuses the request. An operation
//! outside the catalog is forwarded only if the operator enables it with `[catalog] unknown_endpoints = "forward"`.

mod annotations;
pub mod diff;
pub mod endpoint;
pub mod file;
mod further;
pub mod import;
pub mod path;
mod router;
pub mod tag;
mod unknown;
pub mod version;

use std::sync::OnceLock;

use http::Method;

pub use endpoint::{Accepts, Endpoint, EndpointId, SubLimit};
pub use path::CanonicalPath;
pub use tag::{Prefix, Tag};
pub use version::ApiVersion;

use crate::refusal::Refusal;
use router::{Candidates, PathRouter};

/// Operations of one Cal.com API document, indexed by path.
#[derive(Debug)]
pub struct Catalog {
    endpoints: Vec<Endpoint>,
    router: PathRouter,
}

/// Proof that the catalog has the path and method of a request, or that the operator allows unknown ones.
#[derive(Debug)]
pub struct RouteMatch<'a> {
    /// Endpoints that match the request, the most literal one first. Empty for an unknown endpoint.
    candidates: Candidates<'a>,
    /// For an unknown endpoint: endpoints of other methods that match its path.
    other_methods: Candidates<'a>,
    path: CanonicalPath<'a>,
}

impl<'a> RouteMatch<'a> {
    /// Returns the most literal endpoint that matches. Limits, logs and metrics name the request by it.
    pub fn endpoint(&self) -> Option<&'a Endpoint> {
        self.candidates.first().copied()
    }

    /// Returns all endpoints that match. A caller needs permission for each, because Cal.com chooses by its order of
    /// registration, which calgate cannot see (FACTS §5).
    pub fn candidates(&self) -> &[&'a Endpoint] {
        &self.candidates
    }

    /// Returns the endpoints of other methods on the path of an unknown endpoint. A caller needs permission for each of them.
    pub fn other_methods(&self) -> &[&'a Endpoint] {
        &self.other_methods
    }

    /// Returns whether Cal.com answers the request without a credential, whichever endpoint it chooses.
    pub fn is_public(&self) -> bool {
        !self.candidates.is_empty() && self.candidates.iter().all(|endpoint| endpoint.public)
    }

    /// Returns the canonical path of the request.
    pub fn path(&self) -> &CanonicalPath<'a> {
        &self.path
    }

    /// Returns whether the path sent to Cal.com is byte for byte the one that the caller sent.
    pub fn is_canonical(&self) -> bool {
        self.path.is_unchanged() && self.endpoint().is_none_or(|endpoint| endpoint.template.matches_exactly(&self.path))
    }

    /// Writes the path to send to Cal.com: the literals of the template and the parameters of the request.
    pub fn write_upstream_path(&self, out: &mut String) {
        match self.endpoint() {
            Some(endpoint) => endpoint.template.write_path(&self.path, out),
            None => self.path.write(out),
        }
    }
}

/// Handling of paths and methods outside the catalog (`[catalog] unknown_endpoints`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnknownEndpoints {
    /// Answer an unknown path with 404, and an unknown method with 405.
    #[default]
    Refuse,
    /// Forward unknown paths under `/v2`, and unknown methods on known paths, if `entitle` allows them.
    Forward,
}

/// Value of `Allow` for paths outside the catalog, and for methods that calgate does not support on any path.
pub const ALL_METHODS: &str = "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT";

impl Catalog {
    /// Returns the built-in catalog, which is made from Cal.com's API document.
    ///
    /// # Panics
    /// Never, because the catalog is compiled in and a test parses it.
    pub fn built_in() -> &'static Catalog {
        static BUILT_IN: OnceLock<Catalog> = OnceLock::new();
        BUILT_IN.get_or_init(|| {
            #[expect(
                clippy::expect_used,
                reason = "parses a compiled-in file that no input changes; a test parses it, too"
            )]
            file::read_built_in(include_str!("../config/catalog.toml")).expect("the built-in catalog is valid")
        })
    }

    /// Builds a catalog. Sorts the endpoints by path and method, and numbers them by [`EndpointId`].
    ///
    /// # Errors
    /// An endpoint occurs twice, or there are more than 65,536 endpoints.
    pub fn new(mut endpoints: Vec<Endpoint>) -> Result<Self, String> {
        endpoints.sort_by(|a, b| a.sort_key().cmp(&b.sort_key()));
        for (index, endpoint) in endpoints.iter_mut().enumerate() {
            endpoint.id = EndpointId::from_index(index)?;
        }
        let router = PathRouter::build(&endpoints)?;
        Ok(Self { endpoints, router })
    }

    /// Returns all endpoints, ordered by path and method.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// Returns the endpoint with the name `METHOD /path/{template}`.
    pub fn find_by_name(&self, name: &str) -> Option<&Endpoint> {
        let (method, template) = name.split_once(' ')?;
        let is_same = |e: &&Endpoint| e.method.as_str() == method && e.template.as_str() == template.trim_start();
        self.endpoints.iter().find(is_same)
    }

    /// Finds the endpoints that a request means. `target` is the unchanged path of its origin-form target, without the query. A
    /// `HEAD` request means the `GET` endpoint of its path (FACTS §5).
    ///
    /// # Errors
    /// [`Refusal::InvalidPath`] for a path that has no canonical form, [`Refusal::UnknownEndpoint`],
    /// [`Refusal::ApiV1Gone`] and [`Refusal::MethodNotAllowed`] for one that the catalog does not hold.
    pub fn match_route<'a>(
        &'a self,
        method: &Method,
        target: &'a str,
        unknown: UnknownEndpoints,
    ) -> Result<RouteMatch<'a>, Refusal> {
        let path = CanonicalPath::parse(target).map_err(Refusal::InvalidPath)?;
        let wanted = if method == Method::HEAD { &Method::GET } else { method };
        let candidates = self.router.find(&path, wanted, &self.endpoints);
        if !candidates.is_empty() {
            return Ok(RouteMatch { candidates, other_methods: Candidates::new(), path });
        }
        let other_methods = self.router.find_all_methods(&path, &self.endpoints);
        if unknown == UnknownEndpoints::Forward && is_common_method(method) && may_be_forwarded(&path, &other_methods) {
            return Ok(RouteMatch { candidates, other_methods, path });
        }
        if other_methods.is_empty() {
            return Err(unknown::refuse(&path, &self.router));
        }
        Err(Refusal::MethodNotAllowed { path: path.redacted().into(), allow: PathRouter::allow_header(&other_methods) })
    }

    /// Returns the value of `Allow` for a path: the methods that [`Self::match_route`] accepts.
    ///
    /// # Errors
    /// [`Refusal::InvalidPath`] for a path that has no canonical form, [`Refusal::UnknownEndpoint`] for one that the catalog
    /// does not hold and that is not forwarded.
    pub fn allow(&self, target: &str, unknown: UnknownEndpoints) -> Result<String, Refusal> {
        let path = CanonicalPath::parse(target).map_err(Refusal::InvalidPath)?;
        let endpoints = self.router.find_all_methods(&path, &self.endpoints);
        if unknown == UnknownEndpoints::Forward && may_be_forwarded(&path, &endpoints) {
            return Ok(ALL_METHODS.to_owned());
        }
        if endpoints.is_empty() {
            Err(unknown::refuse(&path, &self.router))
        } else {
            Ok(PathRouter::allow_header(&endpoints))
        }
    }
}

/// Returns whether calgate may forward an unknown method on the path. The path must be under `/v2`, must not use an alias, and
/// must have no operation that shows credentials, whether the catalog has that operation or not.
fn may_be_forwarded(path: &CanonicalPath<'_>, other_methods: &[&Endpoint]) -> bool {
    path.is_forwardable()
        && !other_methods.iter().any(|endpoint| endpoint.credential_operation)
        && !annotations::is_known_to_show_credentials(path)
}

/// Returns whether calgate forwards the method to an unknown endpoint.
fn is_common_method(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::POST | Method::PUT | Method::PATCH | Method::DELETE)
}
