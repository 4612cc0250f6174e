//! Stored form of a credential: it is read as it was written, and reading copies no token.

use std::time::Duration;

use calgate::credential::stored_token::{RecordForm, StoredCredential, TokenPair};
use calgate::secret::Secret;

fn pair(access: &str, refresh: &str) -> TokenPair {
    let secret = |text: &str| Secret::new(text).unwrap();
    let (access, refresh) = (secret(access), Some(secret(refresh)));
    TokenPair { access, refresh, received_at: 7, lifetime: Some(Duration::from_secs(60)) }
}

fn texts(pair: &TokenPair) -> [String; 2] {
    [&pair.access, pair.refresh.as_ref().unwrap()].map(|secret| secret.expose(str::to_owned))
}

#[test]
fn tokens_are_read_without_a_copy() {
    let mut entry = StoredCredential::default();
    entry.replace(pair("eyJ.access", "eyJ.refresh"));
    let bytes = entry.to_bytes();
    let form: RecordForm<'_> = serde_json::from_slice(&bytes).unwrap();
    let current = form.current.unwrap();
    assert!(current.access.is_borrowed() && current.refresh.unwrap().is_borrowed());
}

#[test]
fn a_record_round_trips_with_any_tokens() {
    let mut entry = StoredCredential::default();
    entry.replace(pair("a", "b"));
    // JSON escapes these characters, so reading them needs a copy.
    entry.replace(pair("\"quoted\\\"", "back\\slash"));
    let read = StoredCredential::from_bytes(&entry.to_bytes()).unwrap();
    assert_eq!(read.generation, 2);
    assert_eq!(texts(&read.current.unwrap()), ["\"quoted\\\"", "back\\slash"]);
    assert_eq!(texts(&read.previous.unwrap()), ["a", "b"]);
}
