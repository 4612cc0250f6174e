//! Path router: finds all templates that a canonical path matches.

use std::fmt::Write as _;

use http::Method;
use smallvec::SmallVec;

use crate::catalog::endpoint::{Endpoint, EndpointId, Segment};
use crate::catalog::path::{self, CanonicalPath};

/// Endpoints that match, the most literal one first. At most two templates of Cal.com match the same path.
pub(super) type Candidates<'a> = SmallVec<[&'a Endpoint; 2]>;

/// Maximum edit distance between a segment and the suggested literal, 2. It is also at most a third of the length of the segment.
const MAX_EDITS: usize = 2;

/// Longest segment that is compared with literals, 40 bytes, which bounds the work for a request.
const MAX_COMPARED: usize = 40;

/// Tree of path segments.
#[derive(Debug)]
pub(super) struct PathRouter {
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    literals: Vec<(Box<str>, usize)>,
    parameter: Option<usize>,
    endpoints: Vec<EndpointId>,
}

impl PathRouter {
    pub(super) fn build(endpoints: &[Endpoint]) -> Result<Self, String> {
        let mut router = Self { nodes: vec![Node::default()] };
        for endpoint in endpoints {
            let at = endpoint.template.segments().iter().fold(0, |at, segment| router.child(at, segment));
            let Some(node) = router.nodes.get_mut(at) else { continue };
            let twin = node.endpoints.iter().filter_map(|id| endpoints.get(id.index()));
            if let Some(twin) = twin.into_iter().find(|twin| twin.method == endpoint.method) {
                return Err(format!("`{endpoint}` and `{twin}` are the same operation"));
            }
            node.endpoints.push(endpoint.id);
        }
        Ok(router)
    }

    /// Returns the child of node `at` for `segment`, and adds it if it is missing.
    fn child(&mut self, at: usize, segment: &Segment) -> usize {
        let next = self.nodes.len();
        let Some(node) = self.nodes.get_mut(at) else { return at };
        let child = match segment {
            Segment::Literal(text) => {
                let known = node.literals.iter().find(|(known, _)| known == text).map(|(_, child)| *child);
                known.unwrap_or_else(|| {
                    node.literals.push((text.clone(), next));
                    next
                })
            }
            Segment::Parameter(_) => *node.parameter.get_or_insert(next),
        };
        if child == next {
            self.nodes.push(Node::default());
        }
        child
    }

    /// Returns the endpoints of `method` whose template matches `path`.
    pub(super) fn find<'a>(&self, path: &CanonicalPath<'_>, method: &Method, all: &'a [Endpoint]) -> Candidates<'a> {
        let mut found = Candidates::new();
        self.visit_leaves(0, 0, path, &mut |id| {
            if let Some(endpoint) = all.get(id.index()).filter(|e| e.method == *method) {
                found.push(endpoint);
            }
        });
        found
    }

    /// Returns the endpoints of any method whose template matches `path`.
    pub(super) fn find_all_methods<'a>(&self, path: &CanonicalPath<'_>, all: &'a [Endpoint]) -> Candidates<'a> {
        let mut found = Candidates::new();
        self.visit_leaves(0, 0, path, &mut |id| found.extend(all.get(id.index())));
        found
    }

    /// Suggests the start of a known path for an unknown `path`: up to its first unknown segment, which is replaced by the most
    /// similar literal. Returns `None` if no literal is similar.
    pub(super) fn suggest(&self, path: &CanonicalPath<'_>) -> Option<String> {
        let (mut at, mut text) = (0, String::new());
        for segment in path.segments() {
            let node = self.nodes.get(at)?;
            text.push('/');
            let literal = node.literals.iter().find(|(text, _)| text.eq_ignore_ascii_case(segment));
            if let Some((literal, child)) = literal {
                text.push_str(literal);
                at = *child;
            } else if let Some(child) = node.parameter {
                text.push_str(if path::is_loggable(segment) { segment } else { "(...)" });
                at = child;
            } else {
                let given = segment.to_ascii_lowercase();
                let distance = |literal: &str| strsim::damerau_levenshtein(literal, &given);
                let similar = node.literals.iter().filter(|_| given.len() <= MAX_COMPARED);
                let (edits, literal) = similar.map(|(literal, _)| (distance(literal), literal)).min()?;
                text.push_str(literal);
                return (edits <= MAX_EDITS && edits * 3 <= given.len()).then_some(text);
            }
        }
        None
    }

    /// Returns the methods of `endpoints` as the value of `Allow`. Empty if there are none.
    pub(super) fn allow_header(endpoints: &[&Endpoint]) -> String {
        let mut methods: Vec<&str> = endpoints.iter().map(|endpoint| endpoint.method.as_str()).collect();
        if methods.is_empty() {
            return String::new();
        }
        if methods.contains(&"GET") {
            methods.push("HEAD");
        }
        methods.push("OPTIONS");
        methods.sort_unstable();
        methods.dedup();
        methods.iter().fold(String::new(), |mut list, method| {
            let separator = if list.is_empty() { "" } else { ", " };
            let _ = write!(list, "{separator}{method}");
            list
        })
    }

    /// Calls `visit` for each endpoint whose template matches, literals before parameters.
    fn visit_leaves(&self, at: usize, depth: usize, path: &CanonicalPath<'_>, visit: &mut impl FnMut(EndpointId)) {
        let Some(node) = self.nodes.get(at) else { return };
        let Some(segment) = path.segment(depth) else {
            node.endpoints.iter().copied().for_each(visit);
            return;
        };
        let literal = node.literals.iter().find(|(text, _)| text.eq_ignore_ascii_case(segment));
        for child in literal.map(|(_, child)| *child).into_iter().chain(node.parameter) {
            self.visit_leaves(child, depth + 1, path, visit);
        }
    }
}
