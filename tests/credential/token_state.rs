//! State of a token in a process: its remaining life by the clocks of the process, and its use by a request.

use std::sync::Arc;
use std::time::Duration;

use calgate::credential::received_tokens::{ReceivedAt, from_api_key, from_import, from_managed_user, from_oauth};
use calgate::credential::stored_token::{RecordName, StoredCredential, TokenPair};
use calgate::credential::token_state::{Readiness, RenewalError, TokenState};
use calgate::credential::{RenewalMethod, TokenRegistry};
use calgate::secret::Secret;
use calgate::time::MonoTime;
use http::HeaderMap;

fn at(seconds: u64) -> MonoTime {
    MonoTime(seconds * 1_000_000_000)
}

fn entry(lifetime: u64) -> StoredCredential {
    let mut entry = StoredCredential::default();
    entry.replace(TokenPair {
        access: Secret::new("token").unwrap(),
        refresh: None,
        received_at: 50_000_000,
        lifetime: Some(Duration::from_secs(lifetime)),
    });
    entry
}

#[test]
fn a_lifetime_starts_at_receipt_whatever_the_wall_clock_says() {
    let entry = entry(1000);
    // This process received the token at 500, so it ignores the wall clock.
    let token = TokenState::of(&entry, Some(at(500)), Duration::from_secs(999_999), at(501), 0.0);
    assert_eq!((token.due, token.until), (Some(at(1300)), Some(at(1495))));
    // The process reads the token from the store at 500. By the wall clock, the token is 300 s old.
    let token = TokenState::of(&entry, None, Duration::from_secs(300), at(500), 0.0);
    assert_eq!((token.due, token.until), (Some(at(1000)), Some(at(1195))));
    // The token is older than the clock of this process.
    let token = TokenState::of(&entry, None, Duration::from_secs(300), at(5), 0.0);
    assert_eq!((token.due, token.until), (Some(at(505)), Some(at(700))));
    // A wall clock that is behind makes a token look new, and one that is ahead makes it look old. Neither extends the
    // life of the token.
    assert_eq!(entry.age(40_000_000), Duration::ZERO);
    let token = TokenState::of(&entry, None, entry.age(900_000_000), at(500), 0.0);
    assert!(!token.is_good(at(500)));
}

#[test]
fn a_record_that_replaced_another_one_is_recognised() {
    let token = |entry: &StoredCredential| TokenState::of(entry, None, Duration::ZERO, at(0), 0.0);
    let pair = |access: &str| TokenPair {
        access: Secret::new(access).unwrap(),
        refresh: None,
        received_at: 0,
        lifetime: Some(Duration::from_secs(10)),
    };
    let (mut known, mut new) = (entry(1000), StoredCredential::default());
    known.replace(pair("second"));
    new.replace(pair("new"));
    let (of_known, of_none) = (token(&known), TokenState::default());
    assert!(of_known.is_replaced_by(&new) && of_known.is_replaced_by(&StoredCredential::default()));
    assert!(!of_known.is_replaced_by(&known) && !of_none.is_replaced_by(&known));
    assert!(!of_none.is_replaced_by(&StoredCredential::default()));
    // The generations are equal, and the tokens differ.
    new.replace(pair("newer"));
    assert!(of_known.is_replaced_by(&new) && !of_known.has_token_of(&new) && of_known.has_token_of(&known));
    // A renewal does not replace the record.
    known.replace(pair("third"));
    assert!(!of_known.is_replaced_by(&known));
}

#[test]
fn a_request_waits_only_without_a_valid_token() {
    let token = TokenState::of(&entry(1000), Some(at(0)), Duration::ZERO, at(0), 0.0);
    let troubled = TokenState { error: Some((RenewalError::Upstream("gone".to_owned()), at(2000))), ..token.clone() };
    let lost = TokenState { needs_login: Some("x".into()), ..token.clone() };
    let table = [
        (&token, 799, Readiness::Use),
        (&token, 800, Readiness::UseAndRenew),
        (&token, 994, Readiness::UseAndRenew),
        (&token, 995, Readiness::Wait),
        (&troubled, 900, Readiness::Use),
        (&troubled, 1500, Readiness::Unavailable(Duration::from_secs(500))),
        (&troubled, 2000, Readiness::Wait),
        (&lost, 900, Readiness::Use),
        (&lost, 995, Readiness::NeedsLogin),
        (&TokenState::default(), 0, Readiness::Wait),
    ];
    for (token, second, expected) in table {
        assert_eq!(token.readiness(at(second)), expected, "{second}");
    }
}

/// Returns a token with these claims.
fn jwt(claims: &str) -> String {
    use base64::Engine as _;
    format!("x.{}.y", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(claims))
}

#[test]
fn a_lifetime_comes_from_the_response_or_from_the_token() {
    let mut headers = HeaderMap::new();
    headers.insert("date", "Thu, 01 Jan 1970 02:46:40 GMT".parse().unwrap());
    let receipt = ReceivedAt::of(&headers, 7);
    assert_eq!((receipt.here, receipt.there), (7, Some(10_000)));
    let life = |access: &str, expires_in: Option<u64>| {
        let expires_in = expires_in.map(|seconds| format!(",\"expires_in\":{seconds}")).unwrap_or_default();
        let body = format!("{{\"access_token\":\"{access}\"{expires_in}}}");
        let pair = from_oauth(body.as_bytes(), None, receipt).unwrap();
        assert_eq!(pair.received_at, 7);
        pair.lifetime.unwrap().as_secs()
    };
    assert_eq!(life("opaque", Some(1800)), 1800);
    assert_eq!(life(&jwt("{\"iat\":500,\"exp\":2300}"), None), 1800);
    assert_eq!(life(&jwt("{\"exp\":10900}"), None), 900);
    assert_eq!(life("opaque", None), 1800);
    assert!(from_oauth(b"{\"access_token\":\"not a token\"}", None, receipt).is_none());
    assert!(from_oauth(b"{\"access_token\":", None, receipt).is_none());

    let managed = |token: &str, rest: &str| {
        let body = format!("{{\"data\":{{\"accessToken\":\"{token}\",\"refreshToken\":\"r\"{rest}}}}}");
        from_managed_user(body.as_bytes(), receipt)
            .map(|(pair, user)| (pair.lifetime.unwrap().as_secs(), user.map(|user| user.to_string())))
    };
    assert_eq!(managed("a", ",\"accessTokenExpiresAt\":13600000"), Some((3600, None)));
    let own = jwt("{\"iat\":11000,\"ownerId\":42}");
    assert_eq!(managed(&own, ",\"accessTokenExpiresAt\":13600000"), Some((2600, Some("42".to_owned()))));
    assert_eq!(managed("a", ",\"user\":{\"id\":9}"), Some((1800, Some("9".to_owned()))));
    assert_eq!(managed("two words", ""), None);
    assert!(from_api_key(b"{\"data\":{\"apiKey\":\"cal_live_1\"}}", receipt).unwrap().lifetime.is_none());
    assert!(from_api_key(b"{\"status\":\"success\"}", receipt).is_none());
    assert_eq!(
        from_import(b"{\"access_token\":\"a\",\"expires_at\":100}", 40_500).unwrap().lifetime.unwrap().as_secs(),
        60
    );
}

#[test]
fn each_record_has_one_name() {
    for name in ["app", "platform/42", "a.b-c_d/1"] {
        assert_eq!(RecordName::parse(name).unwrap().to_string(), name);
    }
    for none in ["platform/", "platform/042", "platform/x", "platform/1/2", "platform/-1"] {
        assert!(RecordName::parse(none).is_none(), "{none}");
    }
}

#[test]
fn a_credential_has_one_handle() {
    let (registry, name) = (TokenRegistry::default(), RecordName::of("main"));
    let renewal_method = |configured: &str| RenewalMethod::Key { configured: configured.to_owned() };
    let first = registry.get_or_insert(name.clone(), || renewal_method("a"));
    let second = registry.get_or_insert(name.clone(), || panic!("it is held already"));
    assert!(Arc::ptr_eq(&first, &second) && Arc::ptr_eq(&first, &registry.get(&name).unwrap()));
    registry.forget(&name);
    assert!(!Arc::ptr_eq(&first, &registry.get_or_insert(name, || renewal_method("b"))));
}
