//! Operation of the Cal.com API: its method, its path template, and the facts by which later stages decide.

use std::fmt;

use http::{HeaderValue, Method};
use serde::{Deserialize, Serialize};

use super::path::CanonicalPath;
use super::tag::Tag;
use super::version::{self, ApiVersion};

/// Index of an endpoint in its catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct EndpointId(u16);

impl EndpointId {
    /// Creates the id of the endpoint at `index`.
    ///
    /// # Errors
    /// The index is larger than `u16::MAX`.
    pub(super) fn from_index(index: usize) -> Result<Self, String> {
        u16::try_from(index)
            .map(Self)
            .map_err(|_| format!("a catalog has at most {} endpoints", u32::from(u16::MAX) + 1))
    }

    /// Returns the index into [`super::Catalog::endpoints`].
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// Credential kinds that an operation accepts (FACTS §1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Accepts {
    /// API key or access token in `Authorization`.
    Bearer,
    /// Client headers (`x-cal-client-id` and `x-cal-secret-key`).
    Client,
    /// Bearer or client headers.
    Either,
    /// Any kind, or no credential.
    Any,
}

impl Accepts {
    /// Returns the name in the catalog file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bearer => "bearer",
            Self::Client => "client",
            Self::Either => "either",
            Self::Any => "any",
        }
    }
}

/// Limit of a single operation, which Cal.com counts in addition to the main limit of the credential (FACTS §2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubLimit {
    /// Requests per 60 s window.
    pub requests_per_minute: u32,
}

/// Segment of a path template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// Lower-case text. A path matches it in any letter case.
    Literal(Box<str>),
    /// `{name}`, which matches any segment.
    Parameter(Box<str>),
}

/// Returns a template or operation without the names of its parameters, such as `/v2/bookings/{}/cancel`. Cal.com renames
/// parameters between documents, and an operation keeps its shape.
pub(super) fn shape(written: &str) -> String {
    let parts: Vec<_> = written.split('/').map(|part| if part.starts_with('{') { "{}" } else { part }).collect();
    parts.join("/")
}

/// Path template such as `/v2/bookings/{bookingUid}/cancel`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    text: Box<str>,
    segments: Box<[Segment]>,
}

impl Template {
    /// Parses a template. It must be absolute and have no empty segment. `{name}` must be a whole segment.
    ///
    /// # Errors
    /// The reason why the template is invalid.
    pub fn parse(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix('/').ok_or_else(|| format!("the path `{text}` does not begin with `/`"))?;
        let segments = rest.split('/').map(|part| Self::segment(part, text)).collect::<Result<_, _>>()?;
        Ok(Self { text: text.into(), segments })
    }

    fn segment(part: &str, text: &str) -> Result<Segment, String> {
        let name = part.strip_prefix('{').and_then(|p| p.strip_suffix('}'));
        if let Some(name) = name
            && !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        {
            return Ok(Segment::Parameter(name.into()));
        }
        let is_literal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.');
        if part.is_empty() || part == "." || part == ".." || !part.bytes().all(is_literal) {
            return Err(format!(
                "the path `{text}` has a segment `{part}` that is neither lower-case text nor `{{name}}`"
            ));
        }
        Ok(Segment::Literal(part.into()))
    }

    /// Returns the template without the names of its parameters.
    pub(super) fn shape(&self) -> String {
        shape(&self.text)
    }

    /// Returns whether some path matches both this template and the text of `template`.
    pub(super) fn overlaps(&self, template: &str) -> bool {
        let mut parts = template.split('/').skip(1);
        let overlaps = |segment: &Segment, part: &str| match segment {
            Segment::Literal(text) => part.starts_with('{') || **text == *part,
            Segment::Parameter(_) => true,
        };
        self.segments.iter().all(|own| parts.next().is_some_and(|part| overlaps(own, part))) && parts.next().is_none()
    }

    /// Returns the template as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the segments in order.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Returns whether `path`, which matches, also has the same letter case in all literals.
    pub(super) fn matches_exactly(&self, path: &CanonicalPath<'_>) -> bool {
        let pairs = self.segments.iter().zip(path.segments());
        pairs.into_iter().all(|(segment, given)| match segment {
            Segment::Literal(text) => **text == *given,
            Segment::Parameter(_) => true,
        })
    }

    /// Writes the literals of the template with the parameters of `path`, which matches.
    pub(super) fn write_path(&self, path: &CanonicalPath<'_>, out: &mut String) {
        for (segment, given) in self.segments.iter().zip(path.segments()) {
            out.push('/');
            out.push_str(match segment {
                Segment::Literal(text) => text,
                Segment::Parameter(_) => given,
            });
        }
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Operation of the Cal.com API.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts")]
pub struct Endpoint {
    /// Index in the catalog.
    pub id: EndpointId,
    /// Method. `GET` includes `HEAD`.
    pub method: Method,
    /// Path template.
    pub template: Template,
    /// Canonical documentation tag (FACTS §3).
    pub tag: Tag,
    /// Credential kinds that it accepts.
    pub accepts: Accepts,
    /// Whether Cal.com answers it without a credential.
    pub public: bool,
    /// Value of `cal-api-version` that `[upstream] pin_api_version` adds if the client sends none.
    pub api_version: Option<ApiVersion>,
    /// Known versions of the operation (FACTS §4). Empty if none is known. calgate gives a hint by them and never refuses a
    /// request.
    pub api_versions: Box<[ApiVersion]>,
    /// Separate limit at Cal.com, if it has one.
    pub sub_limit: Option<SubLimit>,
    /// Whether it shows or changes credentials (FACTS §1).
    pub credential_operation: bool,
    /// Whether the credential that it shows is that of the request. A passthrough caller knows that credential already.
    pub echoes_credential: bool,
    /// Whether Cal.com's document has it. If not, it is a further operation (FACTS §7).
    pub is_documented: bool,
}

impl Endpoint {
    /// Returns the shape and method, which stay the same from one document to the next.
    pub(super) fn identity(&self) -> (String, &str) {
        (self.template.shape(), self.method.as_str())
    }

    /// Returns a hint for a request that Cal.com answered 404, if the operation is not known to have the version of the request.
    /// That is the version that the client `sent`, or else the oldest one.
    pub fn version_hint(&self, sent: Option<&HeaderValue>) -> Option<HeaderValue> {
        version::hint(&self.to_string(), &self.api_versions, sent)
    }

    pub(super) fn sort_key(&self) -> (&str, &str) {
        (self.template.as_str(), self.method.as_str())
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.template)
    }
}
