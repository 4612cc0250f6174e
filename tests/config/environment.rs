//! Configuration from environment variables, checked through the program.

use std::process::Command;

/// Runs `calgate check` with these variables and no file. Returns the exit code and both outputs.
fn check(variables: &[(&str, &str)]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_calgate"));
    command.arg("check").env_clear().envs(variables.iter().copied());
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), text)
}

#[test]
fn an_api_key_is_a_configuration() {
    let key = ("CAL_API_KEY", "cal_live_0123456789");
    assert_eq!(check(&[key]).0, 0);
    let more = [key, ("CAL_PLAN", "organizations"), ("CAL_TIER", "premium"), ("CAL_API_URL", "http://127.0.0.1:3000")];
    assert_eq!(check(&more).0, 0);
}

#[test]
fn a_mistake_is_shown_in_the_generated_configuration() {
    let key = ("CAL_API_KEY", "cal_live_0123456789");
    let table = [
        (("CAL_PLAN", "gold"), "plan = \"gold\"  # CAL_PLAN"),
        (("CAL_TIER", "gold\"]"), "# CAL_TIER"),
        (("CAL_API_URL", "http://api.cal.com"), "base_url = \"http://api.cal.com\"  # CAL_API_URL"),
        (("CAL_API_KEY", "two words"), "api_key = { env = \"CAL_API_KEY\" }"),
    ];
    for (variable, expected) in table {
        let (exit, text) = check(&[key, variable]);
        assert_eq!(exit, 2);
        assert!(text.contains(expected) && text.contains("(environment): 1 problem"), "{text}");
        assert!(!text.contains("0123456789") && !text.contains("two words"), "{text}");
    }
}

#[test]
fn without_any_variable_the_error_says_what_to_do() {
    let (exit, text) = check(&[]);
    assert_eq!(exit, 2);
    assert!(text.contains("--config") && text.contains("CAL_API_KEY"), "{text}");
}
