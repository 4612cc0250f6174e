//! Tests of header rules in both directions.

mod answers;
mod requests;
mod times;

use calgate::headers::is_safe_token;

#[test]
fn accepts_a_safe_token_in_a_header_and_a_log() {
    let longest = "a".repeat(128);
    for good in ["a", "0193e8a1-7b3c-7def-8000-0123456789ab", "A_b.c-9", &longest] {
        assert!(is_safe_token(good), "{good}");
    }
    let too_long = "a".repeat(129);
    for bad in ["", "a b", "a\"b", "a\nb", "a,b", "{a}", "é", "a/b", "a:b", &too_long] {
        assert!(!is_safe_token(bad), "{bad}");
    }
}
