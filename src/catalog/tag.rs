//! Documentation tags, made canonical: what Cal.com's plans are decided by (FACTS §3).

use std::fmt;
use std::sync::Arc;

/// Separates the components of a tag.
const SEPARATOR: &str = " / ";

/// How the documents write tags that do not split cleanly, and what they are (FACTS §3). The "Deprecated: " mark is
/// removed before this table is asked.
const SPELLINGS: &[(&str, &str)] = &[
    ("Platform OAuth Clients", "Platform / OAuth Clients"),
    ("OAuth Clients", "Platform / OAuth Clients"),
    ("Managed Orgs", "Orgs / Orgs"),
    ("Organization Team Verified Resources", "Orgs / Teams / Verified Resources"),
    ("Teams Verified Resources", "Teams / Verified Resources"),
    ("Organizations/Teams Stripe", "Orgs / Teams / Stripe"),
    ("Event Types Private Links", "Event Types / Private Links"),
];

/// Words that hint at a prefix without being one: a tag that begins with such a word and is not in [`SPELLINGS`] has a
/// meaning that only a person can settle.
const SUSPECT_WORDS: &[&str] =
    &["org", "orgs", "organization", "organizations", "team", "teams", "platform", "managed"];

/// The first word of a tag, which entitlement goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Prefix {
    /// `Orgs / …`
    Orgs,
    /// `Teams / …`
    Teams,
    /// `Platform / …`
    Platform,
    /// None of the three.
    Unprefixed,
}

impl Prefix {
    /// All four, in the order they are listed to people.
    pub const ALL: [Self; 4] = [Self::Unprefixed, Self::Teams, Self::Orgs, Self::Platform];

    /// The word used in plans, answers and logs.
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

    /// The prefix that a path suggests, given its segments after `/v2`: every operation under organizations is `Orgs`,
    /// and so on (FACTS §3). Used to cross-check tags and to bound what may be forwarded unknown.
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
    /// The prefix that a path outside the catalog counts for: that of its path, and for the paths beside `/v2/oauth` that
    /// serve Platform customers alone, Platform (FACTS §7).
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

/// A canonical documentation tag, such as `Orgs / Teams / Workflows`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(Arc<str>);

impl Tag {
    /// Takes a tag that is canonical already, as the catalog file and a config write it.
    ///
    /// # Errors
    /// What keeps it from being canonical.
    pub fn canonical(text: &str) -> Result<Self, String> {
        let clean = |part: &str| !part.is_empty() && part.trim() == part && !part.contains('/');
        if text.split(SEPARATOR).all(clean) {
            Ok(Self(text.into()))
        } else {
            Err(format!("the tag `{text}` is not words separated by ` / `"))
        }
    }

    /// Makes the tag of a document canonical, cross-checking it with the path it stands on.
    ///
    /// # Errors
    /// Why the tag cannot be classified.
    pub fn from_document(written: &str, template: &str) -> Result<Self, String> {
        let unmarked = written.strip_prefix("Deprecated: ").unwrap_or(written);
        let spelled = SPELLINGS.iter().find(|(from, _)| *from == unmarked).map_or(unmarked, |(_, to)| to);
        let tag = Self::canonical(spelled)?;
        let by_path = Prefix::of_path(template.trim_start_matches("/v2").trim_start_matches('/').split('/'));
        if by_path != Prefix::Unprefixed && by_path != tag.prefix() {
            return Err(format!(
                "the tag `{written}` has the prefix {} but its path is one of {}",
                tag.prefix().name(),
                by_path.name()
            ));
        }
        if tag.prefix() == Prefix::Unprefixed && tag.first_words().any(|w| SUSPECT_WORDS.contains(&w.as_str())) {
            return Err(format!("the tag `{written}` reads like one of Orgs, Teams or Platform but is none of them"));
        }
        Ok(tag)
    }

    fn first_words(&self) -> impl Iterator<Item = String> + '_ {
        self.first_component().split(|c: char| !c.is_alphanumeric()).map(str::to_lowercase)
    }

    fn first_component(&self) -> &str {
        self.0.split(SEPARATOR).next().unwrap_or_default()
    }

    /// Its prefix.
    pub fn prefix(&self) -> Prefix {
        Prefix::of_component(self.first_component())
    }

    /// The tag as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this tag is `outer` or lies under it, by whole components: `Orgs / Teams` is under `Orgs`,
    /// `Orgs / Teamsters` is not under `Orgs / Teams`.
    pub fn is_under(&self, outer: &str) -> bool {
        self.0.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(SEPARATOR))
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
