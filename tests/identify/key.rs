//! Form of gateway keys and of their hashes.

use calgate::identify::GatewayKey;
use calgate::secret::KeyHash;
use proptest::prelude::*;

use crate::properties::cases;

/// Key and its hash, which `printf %s KEY | sha256sum` prints.
const KEY: &str = "calgate_5cb1d8ffb2e993708d9d2801d8f77fa8e5024aa4a77d920c";
const HASH: &str = "sha256:4132cc7711020e605336e5d5bbebb03fe665c93dcd671aea502540737505f708";

#[test]
fn a_generated_key_has_a_prefix_random_digits_and_a_checksum() {
    assert_eq!(GatewayKey::parse(KEY).unwrap().hash().to_string(), HASH);
    assert_eq!(KeyHash::parse(HASH), KeyHash::parse(&HASH.to_uppercase().replace("SHA", "sha")));
    let made: Vec<String> = (0..100).map(|_| GatewayKey::generate().unwrap()).collect();
    for key in &made {
        assert!(GatewayKey::parse(key).is_some(), "{key}");
        assert_eq!(key.len(), "calgate_".len() + 40 + 8);
    }
    let different: std::collections::BTreeSet<_> = made.iter().map(|key| &key[8..24]).collect();
    assert_eq!(different.len(), made.len());
}

#[test]
fn rejects_malformed_keys() {
    let cases = [
        "",
        "calgate_",
        &KEY[1..],
        &KEY[..KEY.len() - 1],
        &format!("{KEY}0"),
        &KEY.to_uppercase(),
        &KEY.replace("calgate_5c", "calgate_5C"),
        &KEY.replace("calgate_", "calgate-"),
        &KEY.replace('5', "é"),
        &KEY.replacen("ff", "g0", 1),
    ];
    for case in cases {
        assert!(GatewayKey::parse(case).is_none(), "{case}");
    }
}

#[test]
fn rejects_malformed_hashes() {
    for case in [
        "",
        "sha256:",
        &HASH[7..],
        &HASH[..70],
        &format!("{HASH}0"),
        &HASH.replace("sha", "md"),
        &HASH.replace('4', "g"),
        KEY,
    ] {
        assert!(KeyHash::parse(case).is_none(), "{case}");
    }
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn the_checksum_detects_any_wrong_digit(at in 8..KEY.len(), digit in "[0-9a-f]") {
        let mut key = KEY.to_owned();
        key.replace_range(at..=at, &digit);
        prop_assert_eq!(GatewayKey::parse(&key).is_some(), key == KEY);
    }

    #[test]
    fn parsing_never_panics_and_a_hash_round_trips(text in any::<String>(), digits in "[0-9a-f]{64}") {
        let _ = GatewayKey::parse(&text);
        let _ = GatewayKey::parse(&format!("calgate_{text}"));
        let _ = KeyHash::parse(&format!("sha256:{text}"));
        let hash = format!("sha256:{digits}");
        prop_assert_eq!(KeyHash::parse(&hash).unwrap().to_string(), hash);
    }
}
