//! Secrets: available as a header, redacted in debug output and errors.

use calgate::secret::Secret;

#[test]
fn debug_output_and_errors_contain_no_secret() {
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
