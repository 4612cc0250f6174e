//! One Cal.com operation: method, path template and the facts the later stages decide by.

use std::fmt;

use http::{HeaderValue, Method};
use serde::{Deserialize, Serialize};

use super::path::CanonicalPath;
use super::tag::Tag;
use super::version::{self, ApiVersion};

/// An endpoint's index in its catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct EndpointId(u16);

impl EndpointId {
    /// The id of the endpoint at `index`; there are no more than `u16` can count.
    pub(super) fn from_index(index: usize) -> Result<Self, String> {
        u16::try_from(index)
            .map(Self)
            .map_err(|_| format!("a catalog has at most {} endpoints", u32::from(u16::MAX) + 1))
    }

    /// The index into [`super::Catalog::endpoints`].
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// Which credential kinds an operation takes (FACTS §1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Accepts {
    /// An API key or an access token in `Authorization`.
    Bearer,
    /// `x-cal-client-id` and `x-cal-secret-key` only.
    Client,
    /// A bearer or the client headers.
    Either,
    /// Needs none and takes any.
    Any,
}

impl Accepts {
    /// The name in the catalog file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bearer => "bearer",
            Self::Client => "client",
            Self::Either => "either",
            Self::Any => "any",
        }
    }
}

/// A counter of its own that Cal.com keeps for an operation, beside the credential's main one (FACTS §2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubLimit {
    /// Requests per 60 s window.
    pub requests_per_minute: u32,
}

/// One segment of a path template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// Lower-case text that has to be there.
    Literal(Box<str>),
    /// `{name}`: any one segment.
    Parameter(Box<str>),
}

/// A template, or an operation, whatever its parameters are called: `/v2/bookings/{}/cancel`. From one of Cal.com's
/// documents to the next an operation keeps its shape, and not the names.
pub(super) fn shape(written: &str) -> String {
    let parts: Vec<_> = written.split('/').map(|part| if part.starts_with('{') { "{}" } else { part }).collect();
    parts.join("/")
}

/// A path template such as `/v2/bookings/{bookingUid}/cancel`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    text: Box<str>,
    segments: Box<[Segment]>,
}

impl Template {
    /// Reads a template: absolute, no empty segment, `{name}` only as a whole segment.
    ///
    /// # Errors
    /// What is wrong with it.
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
        let literal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.');
        if part.is_empty() || part == "." || part == ".." || !part.bytes().all(literal) {
            return Err(format!(
                "the path `{text}` has a segment `{part}` that is neither lower-case text nor `{{name}}`"
            ));
        }
        Ok(Segment::Literal(part.into()))
    }

    /// The template whatever its parameters are called.
    pub(super) fn shape(&self) -> String {
        shape(&self.text)
    }

    /// Whether a path may fit both this one and `template`, as a document writes it.
    pub(super) fn overlaps(&self, template: &str) -> bool {
        let mut parts = template.split('/').skip(1);
        let meets = |segment: &Segment, part: &str| match segment {
            Segment::Literal(text) => part.starts_with('{') || **text == *part,
            Segment::Parameter(_) => true,
        };
        self.segments.iter().all(|own| parts.next().is_some_and(|part| meets(own, part))) && parts.next().is_none()
    }

    /// The template as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Its segments, in order.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Whether `path`, which fits, has the literals as they are here, in lower case.
    pub(super) fn matches_exactly(&self, path: &CanonicalPath<'_>) -> bool {
        let pairs = self.segments.iter().zip(path.segments());
        pairs.into_iter().all(|(segment, given)| match segment {
            Segment::Literal(text) => **text == *given,
            Segment::Parameter(_) => true,
        })
    }

    /// Writes the path that `path` means under this template: the template's literals, the path's parameters.
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

/// One operation of the Cal.com API.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "marks that do not depend on each other")]
pub struct Endpoint {
    /// Its place in the catalog.
    pub id: EndpointId,
    /// Its method; `HEAD` is served by `GET`.
    pub method: Method,
    /// Its path.
    pub template: Template,
    /// Its canonical documentation tag (FACTS §3).
    pub tag: Tag,
    /// The credential kinds it takes.
    pub accepts: Accepts,
    /// Whether it answers without any credential.
    pub public: bool,
    /// The `cal-api-version` that `[upstream] pin_api_version` adds where the client sends none.
    pub api_version: Option<ApiVersion>,
    /// The versions that the operation is known to have (FACTS §4); none where nothing is known. They make a hint, and
    /// never a refusal.
    pub api_versions: Box<[ApiVersion]>,
    /// Its own upstream counter, where it has one.
    pub sub_limit: Option<SubLimit>,
    /// Whether it shows or changes credentials (FACTS §1).
    pub credential_operation: bool,
    /// Whether what it shows is the credential that it was sent with. A client that brings its own knows that already.
    pub echoes_credential: bool,
    /// Whether Cal.com's document has it; else it is a further operation (FACTS §7).
    pub is_documented: bool,
}

impl Endpoint {
    /// What it is, from one document to the next.
    pub(super) fn identity(&self) -> (String, &str) {
        (self.template.shape(), self.method.as_str())
    }

    /// The hint for a request that Cal.com answered 404, where the operation is not known to have the version that the
    /// request used: the one it `sent`, or Cal.com's oldest.
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
