//! Rewrites references to the upstream in a response: `Location`, `Content-Location` and `Link`.

use http::header::{self, HeaderMap, HeaderValue};

/// Address of the upstream, as responses may name it.
#[derive(Debug, Clone, Copy)]
pub struct UpstreamAddress<'a> {
    /// Host and port.
    pub authority: &'a str,
    /// Path before `/v2`, either empty or with a leading `/`.
    pub base_path: &'a str,
}

/// Rewrites each reference to `upstream`. References to other hosts stay unchanged.
pub(super) fn rewrite(headers: &mut HeaderMap, upstream: UpstreamAddress<'_>) {
    for name in [header::LOCATION, header::CONTENT_LOCATION] {
        if let Some(reference) = headers.get(&name)
            && let Some(local) = reference.to_str().ok().and_then(|text| upstream.local(text))
            && let Ok(local) = HeaderValue::from_str(&local)
        {
            headers.insert(name, local);
        }
    }
    if let header::Entry::Occupied(mut links) = headers.entry(header::LINK) {
        for line in links.iter_mut() {
            if let Some(local) = line.to_str().ok().and_then(|text| upstream.local_link(text))
                && let Ok(local) = HeaderValue::from_str(&local)
            {
                *line = local;
            }
        }
    }
}

impl UpstreamAddress<'_> {
    /// Converts a reference to the upstream to a path at calgate. Returns `None` for any other reference.
    fn local(self, reference: &str) -> Option<String> {
        let path = match ["https://", "http://", "//"].iter().find_map(|start| strip_start(reference, start)) {
            Some(rest) => {
                let (host, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
                let host = host.rsplit('@').next().unwrap_or_default();
                let is_upstream = without_default_port(host).eq_ignore_ascii_case(without_default_port(self.authority));
                is_upstream.then_some(path)?
            }
            None if reference.starts_with('/') => reference,
            None => return None,
        };
        let is_under_base = |rest: &&str| rest.is_empty() || rest.starts_with(['/', '?', '#']);
        let path = path.strip_prefix(self.base_path).filter(is_under_base).unwrap_or(path);
        let slash = if path.starts_with('/') { "" } else { "/" };
        Some(format!("{slash}{path}"))
    }

    /// Rewrites the targets of a `Link` line (RFC 8288 §3). Returns `None` if none refers to the upstream. Text in
    /// quotation marks is a parameter, not a target.
    fn local_link(self, line: &str) -> Option<String> {
        let (mut out, mut rest) = (String::with_capacity(line.len()), line);
        let (mut is_quoted, mut is_rewritten) = (false, false);
        while let Some(at) = rest.find(['<', '"', '\\']) {
            let (before, special) = rest.split_at(at);
            out.push_str(before);
            match (special.as_bytes().first(), is_quoted) {
                (Some(b'<'), false) => {
                    let (target, after) = special.get(1..)?.split_once('>')?;
                    let local = self.local(target);
                    is_rewritten |= local.as_deref().is_some_and(|local| local != target);
                    out.push('<');
                    out.push_str(local.as_deref().unwrap_or(target));
                    out.push('>');
                    rest = after;
                    continue;
                }
                (Some(b'"'), _) => is_quoted = !is_quoted,
                // A backslash quotes the next character (RFC 9110 §5.6.4).
                (Some(b'\\'), true) => {
                    let quoted = special.char_indices().nth(2).map_or(special.len(), |(end, _)| end);
                    out.push_str(special.get(..quoted)?);
                    rest = special.get(quoted..)?;
                    continue;
                }
                _ => {}
            }
            out.push_str(special.get(..1)?);
            rest = special.get(1..)?;
        }
        out.push_str(rest);
        is_rewritten.then_some(out)
    }
}

/// Strips a prefix without regard to case.
fn strip_start<'a>(text: &'a str, start: &str) -> Option<&'a str> {
    let (head, rest) = text.split_at_checked(start.len())?;
    head.eq_ignore_ascii_case(start).then_some(rest)
}

fn without_default_port(authority: &str) -> &str {
    [":443", ":80"].iter().find_map(|port| authority.strip_suffix(port)).unwrap_or(authority)
}
