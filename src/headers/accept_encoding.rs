//! `Accept-Encoding` towards Cal.com: the codings that the client accepts and calgate can decode.
//!
//! calgate searches error responses for secrets, so it requests no coding that it cannot decode.

use http::HeaderValue;

/// Codings that a client accepts (RFC 9110 §12.5.3).
#[derive(Debug, Default)]
pub(super) struct AcceptedCodings {
    /// Whether the client sent the field. Without it, calgate sends none.
    is_present: bool,
    gzip: Option<f32>,
    identity: Option<f32>,
    others: Option<f32>,
}

impl AcceptedCodings {
    /// Reads one line of the field. The lowest of several weights for one coding counts.
    pub(super) fn read(&mut self, line: &HeaderValue) {
        self.is_present = true;
        for member in line.to_str().unwrap_or_default().split(',') {
            let (coding, parameters) = member.split_once(';').unwrap_or((member, ""));
            let weight = weight(parameters);
            let known = match coding.trim() {
                name if is_gzip(name) => &mut self.gzip,
                name if name.eq_ignore_ascii_case("identity") => &mut self.identity,
                "*" => &mut self.others,
                _ => continue,
            };
            *known = Some(known.map_or(weight, |before| before.min(weight)));
        }
    }

    /// Returns the value of the field for Cal.com.
    pub(super) fn for_upstream(&self) -> Option<HeaderValue> {
        let gzip = self.gzip.or(self.others).unwrap_or(0.0);
        // Only a weight of 0 rejects the identity coding. If the client does not list it, gzip is preferred.
        let identity = self.identity.or(self.others.filter(|weight| *weight <= 0.0)).unwrap_or(f32::MIN_POSITIVE);
        let value = match (gzip > 0.0, identity > 0.0) {
            (true, true) if identity > gzip => "identity, gzip;q=0.5",
            (true, true) => "gzip",
            (true, false) => "gzip, *;q=0",
            (false, true) => "identity",
            (false, false) => "*;q=0",
        };
        self.is_present.then(|| HeaderValue::from_static(value))
    }
}

/// Returns whether the name of a coding means gzip (RFC 9110 §8.4.1.3 has two names).
pub fn is_gzip(coding: &str) -> bool {
    coding.eq_ignore_ascii_case("gzip") || coding.eq_ignore_ascii_case("x-gzip")
}

/// Returns the weight among the parameters of a coding: 1 without one, and 0 for one that is not a number.
fn weight(parameters: &str) -> f32 {
    let mut weights = parameters.split(';').filter_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("q").then(|| value.trim().parse::<f32>().unwrap_or(0.0))
    });
    weights.next().unwrap_or(1.0)
}
