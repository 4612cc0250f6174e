//! Canonical documentation tags, by which the plans of Cal.com include operations (FACTS §3).

use std::fmt;
use std::sync::Arc;

/// Separator between the components of a tag.
const SEPARATOR: &str = " / ";

/// Irregular tags of Cal.com's documents, each with its canonical form (FACTS §3). The mark "Deprecated: " is removed before.
const SPELLINGS: &[(&str, &str)] = &[
    ("Platform OAuth Clients", "Platform / OAuth Clients"),
    ("OAuth Clients", "Platform / OAuth Clients"),
    ("Managed Orgs", "Orgs / Orgs"),
    ("Organization Team Verified Resources", "Orgs / Teams / Verified Resources"),
    ("Teams Verified Resources", "Teams / Verified Resources"),
    ("Organizations/Teams Stripe", "Orgs / Teams / Stripe"),
    ("Event Types Private Links", "Event Types / Private Links"),
];

/// Words that suggest a prefix. A tag that starts with one of them, has no prefix and is not in [`SPELLINGS`] is ambiguous, so a
/// person has to decide.
const SUSPECT_WORDS: &[&str] =
    &["org", "orgs", "organization", "organizations", "team", "teams", "platform", "managed"];

/// Prefix of a tag: its first component, if it is one of three known ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Prefix {
    /// `Orgs / …`, operations of organizations.
    Orgs,
    /// `Teams / …`, operations of teams.
    Teams,
    /// `Platform / …`, operations of platform customers.
    Platform,
    /// Any other tag.
    Unprefixed,
}

impl Prefix {
    /// All prefixes, in the order of help texts.
    pub const ALL: [Self; 4] = [Self::Unprefixed, Self::Teams, Self::Orgs, Self::Platform];

    /// Returns the name in plans, responses and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Orgs => "Orgs",
            Self::Teams => "Teams",
            Self::Platform => "Platform",
            Self::Unprefixed => "(unprefixed)",
        }
    }

    fn of_component(first: &str) -> Self {
        match first {
            "Orgs" => Self::Orgs,
            "Teams" => Self::Teams,
            "Platform" => Self::Platform,
            _ => Self::Unprefixed,
        }
    }

    /// Returns the prefix for a path, given its segments after `/v2` (FACTS §3). For example, all operations under organizations
    /// are `Orgs`. Imports check tags against it, and plans decide by it about paths outside the catalog.
    pub fn of_path<'a>(mut after_v2: impl Iterator<Item = &'a str>) -> Self {
        match after_v2.next().map(str::to_ascii_lowercase).as_deref() {
            Some("organizations") => Self::Orgs,
            Some("teams") => Self::Teams,
            Some("oauth" | "oauth-clients") => Self::Platform,
            _ => Self::Unprefixed,
        }
    }
}

impl Prefix {
    /// Returns the prefix for a path outside the catalog. It is that of [`Self::of_path`], or Platform for the other paths that
    /// serve only platform customers (FACTS §7).
    pub fn of_unknown_path<'a>(after_v2: impl Iterator<Item = &'a str> + Clone) -> Self {
        let mut segments = after_v2.clone();
        match segments.next().map(str::to_ascii_lowercase).as_deref() {
            Some("atoms") => match Self::of_path(segments) {
                Self::Unprefixed => Self::Platform,
                other => other,
            },
            Some("provider" | "billing") => Self::Platform,
            _ => Self::of_path(after_v2),
        }
    }
}

/// Canonical documentation tag, such as `Orgs / Teams / Workflows`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(Arc<str>);

impl Tag {
    /// Takes a tag that is already canonical, as in a catalog file or a configuration.
    ///
    /// # Errors
    /// The reason why the tag is not canonical.
    pub fn canonical(text: &str) -> Result<Self, String> {
        let is_component = |part: &str| !part.is_empty() && part.trim() == part && !part.contains('/');
        if text.split(SEPARATOR).all(is_component) {
            Ok(Self(text.into()))
        } else {
            Err(format!("the tag `{text}` is not words separated by ` / `"))
        }
    }

    /// Converts a tag of a document into canonical form, and checks it against the path of the operation.
    ///
    /// # Errors
    /// The reason why the tag is ambiguous.
    pub fn from_document(written: &str, template: &str) -> Result<Self, String> {
        let unmarked = written.strip_prefix("Deprecated: ").unwrap_or(written);
        let spelled = SPELLINGS.iter().find(|(from, _)| *from == unmarked).map_or(unmarked, |(_, to)| to);
        let tag = Self::canonical(spelled)?;
        let by_path = Prefix::of_path(template.trim_start_matches("/v2").trim_start_matches('/').split('/'));
        if by_path != Prefix::Unprefixed && by_path != tag.prefix() {
            return Err(format!(
                "the tag `{written}` has the prefix {}, but its path belongs to {}",
                tag.prefix().name(),
                by_path.name()
            ));
        }
        if tag.prefix() == Prefix::Unprefixed && tag.first_words().any(|w| SUSPECT_WORDS.contains(&w.as_str())) {
            return Err(format!(
                "the tag `{written}` looks like one of Orgs, Teams or Platform, but has none of these prefixes"
            ));
        }
        Ok(tag)
    }

    fn first_words(&self) -> impl Iterator<Item = String> + '_ {
        self.first_component().split(|c: char| !c.is_alphanumeric()).map(str::to_lowercase)
    }

    fn first_component(&self) -> &str {
        self.0.split(SEPARATOR).next().unwrap_or_default()
    }

    /// Returns the prefix.
    pub fn prefix(&self) -> Prefix {
        Prefix::of_component(self.first_component())
    }

    /// Returns the tag as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether this tag is `outer` or below it. Only whole components count: `Orgs / Teams` is below `Orgs`, but
    /// `Orgs / Teamsters` is not below `Orgs / Teams`.
    pub fn is_under(&self, outer: &str) -> bool {
        self.0.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(SEPARATOR))
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
