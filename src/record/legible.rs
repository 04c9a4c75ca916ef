//! What a stranger has a part in, for the log and the terminal: names in certificates, types, ids, and what is wrong.
//!
//! Invariant: it is one line, of bounded length, without what a terminal would obey.

use std::fmt::Display;

/// Characters of what a stranger chose that are told.
const LONGEST_TOLD: usize = 256;

/// As text that can be printed: what is no character of a line is written as its escape.
pub(crate) fn legible(text: &(impl Display + ?Sized)) -> String {
    // Quotes stay as they are: they do no harm, and many reasons have some.
    let escaped = |c: char| c.escape_debug().skip(usize::from(matches!(c, '"' | '\'')));
    text.to_string().chars().flat_map(escaped).take(LONGEST_TOLD).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_stranger_chose_is_one_line_of_bounded_length() {
        let told = legible(&format!("\"one\"\nERROR two\u{1b}[2J\u{202e}{}", "x".repeat(60_000)));
        assert!(told.starts_with(r#""one"\nERROR two\u{1b}[2J\u{202e}xx"#), "{told:?}");
        assert_eq!(told.chars().count(), LONGEST_TOLD);
    }
}
