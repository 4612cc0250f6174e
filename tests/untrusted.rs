//! Sanitised text from outside of calgate: bounded, printable, without secrets.

use calgate::untrusted::sanitize;
use proptest::prelude::*;

#[test]
fn keeps_an_ordinary_message() {
    for text in [
        "FATAL: password authentication failed for user \"calgate\" (28P01)",
        "connecting failed: Connection refused (os error 111)",
        "invalid peer certificate: certificate not valid for name \"db-primary.internal.example-company.com:5432\"",
        "/var/lib/calgate/tokens-of-the-production-environment.db: disk I/O error",
        "/usr/lib/postgresql/16/bin/../share/postgresql/16/extension: no such folder",
        "",
    ] {
        assert_eq!(sanitize(text), text);
    }
}

#[test]
fn hides_a_word_that_may_be_a_secret() {
    let jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiI3In0.c2ln";
    for (text, expected) in [
        ("token=cal_live_1 is bad".to_owned(), "token=(hidden) is bad"),
        ("the key cal_live_1 is bad".to_owned(), "the key (hidden) is bad"),
        ("key:calgate_abc".to_owned(), "key:(hidden)"),
        ("key q9Zr/4Tb+c1/0xYw8Lm/Kd3s/Pv7Gh2Jn/5e=".to_owned(), "key (hidden)="),
        ("/q9Zr4Tbc10xYw8/LmKd3sPv7Gh2Jn5eUo is bad".to_owned(), "(hidden) is bad"),
        (format!("no client for \"{jwt}\""), "no client for \"(hidden)\""),
        ("id 0123456789abcdef0123456789abcdef!".to_owned(), "id (hidden)!"),
    ] {
        assert_eq!(sanitize(&text), expected, "{text}");
    }
}

proptest! {
    #[test]
    fn the_result_is_always_short_and_printable(text in "\\PC{0,400}|(.|\n){0,400}") {
        let sanitised = sanitize(&text);
        prop_assert!(sanitised.chars().count() <= 8 * 256, "a hidden word is shorter than a mask for each character");
        prop_assert!(!sanitised.chars().any(char::is_control));
    }
}
