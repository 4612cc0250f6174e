//! Sanitising of text from outside of calgate, such as the error message of a database, for a log or a terminal.
//!
//! Such a text can be long, can contain control characters, and can repeat a secret that calgate sent or received. If an error
//! code or kind is enough, log that instead.

use std::fmt::{Display, Write};

/// Maximum length of a sanitised text, 256 characters, which is enough for an error message.
const MAX_CHARACTERS: usize = 256;

/// Shortest word with a digit that counts as a secret, 32 characters. Keys and tokens are longer than names.
const SECRET_LENGTH: usize = 32;

/// Starts of Cal.com API keys, gateway keys and JSON Web Tokens.
const SECRET_STARTS: [&str; 3] = ["cal_", "calgate_", "eyJ"];

/// Replacement for a word that may be a secret.
const MASK: &str = "(hidden)";

/// Returns a text of at most 256 characters, without control characters and without words that may be secrets.
pub fn sanitize(text: impl Display) -> String {
    let mut bounded = Bounded { text: String::new(), left: MAX_CHARACTERS };
    // An error means that the text is longer.
    let is_whole = write!(bounded, "{text}").is_ok();
    let mut out = String::with_capacity(bounded.text.len());
    let mut left = bounded.text.len();
    for piece in bounded.text.split_inclusive(|c: char| !is_word(c)) {
        left -= piece.len();
        let word = piece.trim_end_matches(|c: char| !is_word(c));
        // A truncated word may be the start of a longer one.
        let is_truncated = left == 0 && !is_whole && !word.is_empty();
        out.push_str(if is_truncated || is_secret(word) { MASK } else { word });
        out.push_str(piece.get(word.len()..).unwrap_or_default());
    }
    if !is_whole {
        out.push('…');
    }
    out
}

/// Returns whether the character occurs in words, keys, Base64 or tokens.
fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '+' | '/' | '.' | '~' | '%')
}

fn is_secret(word: &str) -> bool {
    let has_digit = word.bytes().any(|byte| byte.is_ascii_digit());
    // Paths and host names are also long, but their parts are short.
    let longest = word.split(['.', '/']).map(str::len).max().unwrap_or_default();
    word.split(['.', '/'])
        .any(|part| SECRET_STARTS.iter().any(|start| part.starts_with(start) && part.len() > start.len()))
        || has_digit && longest >= SECRET_LENGTH
        || word.split('.').any(is_base64_secret)
}

/// Returns whether the text looks like a secret in Base64, whose alphabet includes `/` (RFC 4648 §4). Such a text is long and has
/// capitals, small letters and digits. Paths rarely have all three.
fn is_base64_secret(text: &str) -> bool {
    let has = |is_such: fn(&u8) -> bool| text.as_bytes().iter().any(is_such);
    text.len() >= SECRET_LENGTH && has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase) && has(u8::is_ascii_digit)
}

/// Text of limited length, with spaces in place of control and formatting characters.
struct Bounded {
    text: String,
    left: usize,
}

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for character in text.chars() {
            self.left = self.left.checked_sub(1).ok_or(std::fmt::Error)?;
            self.text.push(if is_printable(character) { character } else { ' ' });
        }
        Ok(())
    }
}

/// Returns whether a terminal only displays the character. Marks of the writing direction would reorder a line.
fn is_printable(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}
