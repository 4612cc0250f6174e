//! What for? The Cal.com operations calgate knows, and the one a request asks for.
//!
//! Second stage of the request path: [`Catalog::match_route`] turns a method and a raw request target into a [`RouteMatch`]
//! endpoint, or refuses. Nothing that is not in the catalog is forwarded unless the operator says so
//! (`[catalog] unknown_endpoints = "forward"`).

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

/// The operations of one Cal.com API document, ready for look-up.
#[derive(Debug)]
pub struct Catalog {
    endpoints: Vec<Endpoint>,
    router: PathRouter,
}

/// What a request asks for, in canonical form: the proof that its path and method are known (or that the operator chose
/// to forward unknown ones).
#[derive(Debug)]
pub struct RouteMatch<'a> {
    /// Every endpoint of the method that fits, the most literal first; empty for a forwarded unknown endpoint.
    candidates: Candidates<'a>,
    /// For a forwarded unknown endpoint: those of other methods that fit its path.
    other_methods: Candidates<'a>,
    path: CanonicalPath<'a>,
}

impl<'a> RouteMatch<'a> {
    /// The endpoint that names the request in limits, logs and metrics: the most literal that fits.
    pub fn endpoint(&self) -> Option<&'a Endpoint> {
        self.candidates.first().copied()
    }

    /// Every endpoint that fits. Upstream picks by its order of registration, which we cannot see, so every one of them
    /// has to be allowed (FACTS §5).
    pub fn candidates(&self) -> &[&'a Endpoint] {
        &self.candidates
    }

    /// The endpoints of other methods on the path of a forwarded unknown endpoint. Whoever may not have one of them may not
    /// have an unknown one beside it.
    pub fn other_methods(&self) -> &[&'a Endpoint] {
        &self.other_methods
    }

    /// Returns whether Cal.com answers the request without a credential, whichever of the endpoints it picks.
    pub fn is_public(&self) -> bool {
        !self.candidates.is_empty() && self.candidates.iter().all(|endpoint| endpoint.public)
    }

    /// The canonical path as the caller meant it.
    pub fn path(&self) -> &CanonicalPath<'a> {
        &self.path
    }

    /// Whether the path that goes upstream is what the caller wrote, to the letter.
    pub fn is_canonical(&self) -> bool {
        self.path.is_unchanged() && self.endpoint().is_none_or(|endpoint| endpoint.template.matches_exactly(&self.path))
    }

    /// The path that goes upstream: the template's literals and the validated parameters.
    pub fn write_upstream_path(&self, out: &mut String) {
        match self.endpoint() {
            Some(endpoint) => endpoint.template.write_path(&self.path, out),
            None => self.path.write(out),
        }
    }
}

/// Whether a path or a method that the catalog does not hold may go upstream (`[catalog] unknown_endpoints`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnknownEndpoints {
    /// Unknown paths are 404, unknown methods 405.
    #[default]
    Refuse,
    /// Unknown paths under `/v2`, and unknown methods on known paths, are forwarded, within the bounds that `entitle` sets.
    Forward,
}

/// The methods of a path that the catalog does not hold, and of methods that no path takes, for an `Allow` header.
pub const ALL_METHODS: &str = "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT";

impl Catalog {
    /// The catalog that is compiled in, made from Cal.com's own document.
    ///
    /// # Panics
    /// Never: the catalog is part of the program, and a test reads it.
    pub fn built_in() -> &'static Catalog {
        static BUILT_IN: OnceLock<Catalog> = OnceLock::new();
        BUILT_IN.get_or_init(|| {
            #[expect(clippy::expect_used, reason = "a compile-time constant; a test reads it")]
            file::read_built_in(include_str!("../config/catalog.toml")).expect("the built-in catalog is valid")
        })
    }

    /// Builds a catalog from its endpoints. They are numbered in the order given; that number is their [`EndpointId`].
    ///
    /// # Errors
    /// The method and template of an endpoint that occurs twice; more endpoints than can be numbered.
    pub fn new(mut endpoints: Vec<Endpoint>) -> Result<Self, String> {
        endpoints.sort_by(|a, b| a.sort_key().cmp(&b.sort_key()));
        for (index, endpoint) in endpoints.iter_mut().enumerate() {
            endpoint.id = EndpointId::from_index(index)?;
        }
        let router = PathRouter::build(&endpoints)?;
        Ok(Self { endpoints, router })
    }

    /// All endpoints, ordered by path and method.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// The endpoint written as `METHOD /path/{template}`, if the catalog has it.
    pub fn find_by_name(&self, name: &str) -> Option<&Endpoint> {
        let (method, template) = name.split_once(' ')?;
        let same = |e: &&Endpoint| e.method.as_str() == method && e.template.as_str() == template.trim_start();
        self.endpoints.iter().find(same)
    }

    /// Finds what `method` and `target` ask for. `target` is the path of an origin-form request target as it came,
    /// without the query. `HEAD` is served by the `GET` of a path (FACTS §5).
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
        if unknown == UnknownEndpoints::Forward && is_plain_method(method) && may_be_forwarded(&path, &other_methods) {
            return Ok(RouteMatch { candidates, other_methods, path });
        }
        if other_methods.is_empty() {
            return Err(unknown::refuse(&path, &self.router));
        }
        Err(Refusal::MethodNotAllowed { path: path.redacted().into(), allow: PathRouter::allow_header(&other_methods) })
    }

    /// The methods of a path for an `Allow` header: those that [`Self::match_route`] does not refuse.
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

/// Whether a method that the catalog does not hold may go upstream on a path: under `/v2`, not by an alias, and not where any
/// operation shows credentials. A catalog that lacks such an operation does not make it harmless.
fn may_be_forwarded(path: &CanonicalPath<'_>, other_methods: &[&Endpoint]) -> bool {
    path.is_forwardable()
        && !other_methods.iter().any(|endpoint| endpoint.credential_operation)
        && !annotations::is_known_to_show_credentials(path)
}

/// The methods an unknown endpoint may be called with.
fn is_plain_method(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::POST | Method::PUT | Method::PATCH | Method::DELETE)
}
