//! Text that a guest wrote, made fit to be shown: bounded, and without control characters.

/// How much of a guest's text is kept in reasons and reports.
pub const MESSAGE_BYTES: usize = 1024;

/// The text in at most `most` bytes: control characters escaped as Rust writes them, whole characters, `…` where it was cut.
pub fn shown(text: &str, most: usize) -> String {
    let mut out = String::with_capacity(text.len().min(most));
    for character in text.chars() {
        let before = out.len();
        match character {
            // Of all that a terminal, a log or a page could take for an instruction, nothing passes.
            c if c.is_control()
                || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') =>
            {
                out.extend(c.escape_default());
            }
            c => out.push(c),
        }
        if out.len() > most.saturating_sub('…'.len_utf8()) {
            out.truncate(before);
            out.push('…');
            break;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped_and_length_is_bounded() {
        assert_eq!(shown("a\u{1b}[31mb\nc\u{202e}", 100), "a\\u{1b}[31mb\\nc\\u{202e}");
        assert_eq!(shown("äöü", 100), "äöü");
        let cut = shown(&"ä".repeat(2_000), 1024);
        assert!(cut.len() <= 1024 && cut.ends_with('…'), "{}", cut.len());
        assert_eq!(shown("", 10), "");
    }
}
