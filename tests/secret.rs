//! Secrets: sent upstream, shown to nobody.

use calgate::secret::Secret;

#[test]
fn a_secret_shows_itself_to_nobody() {
    let secret = Secret::new("  cal_live_0123456789\n").unwrap();
    let header = secret.header("Bearer ");
    assert_eq!(header.to_str().unwrap(), "Bearer cal_live_0123456789");
    assert!(header.is_sensitive());
    assert!(!format!("{secret:?} {header:?}").contains("0123456789"));
    for bad in ["", " \n", "two words", "caf\u{e9}", "nul\0"] {
        let fault = Secret::new(bad).unwrap_err();
        assert!(bad.trim().is_empty() || !fault.contains(bad), "{fault}");
    }
}
