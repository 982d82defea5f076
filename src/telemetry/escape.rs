//! Text from anywhere, made safe for a line.

use std::fmt::Write;

/// Whether a character could move the cursor, end the line or reorder what a reader sees.
fn is_unsafe(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Writes a JSON string, with its quotes.
pub(super) fn json_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // All of them are below U+10000, so one escape is enough. Writing to a string cannot fail.
            c if is_unsafe(c) => drop(write!(out, "\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Writes text with its control characters escaped.
pub(super) fn plain(out: &mut String, text: &str) {
    for c in text.chars() {
        if is_unsafe(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
}

/// Writes a field's value: as it is when it is one plain word, else in quotes.
pub(super) fn value(out: &mut String, text: &str) {
    let word = !text.is_empty() && !text.chars().any(|c| c.is_whitespace() || c == '"' || c == '=' || is_unsafe(c));
    if word {
        out.push_str(text);
        return;
    }
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if is_unsafe(c) => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "a\u{1b}[2Jb\nc\r\u{85}\u{2028}\u{202e}\"\\\0";

    #[test]
    fn json_reads_back_as_it_was_and_has_no_control_characters() {
        let mut out = String::new();
        json_string(&mut out, HOSTILE);
        assert!(!out.chars().any(is_unsafe), "{out:?}");
        assert_eq!(serde_json::from_str::<String>(&out).unwrap(), HOSTILE);
    }

    #[test]
    fn text_has_no_control_characters() {
        for write in [plain, value] {
            let mut out = String::new();
            write(&mut out, HOSTILE);
            assert!(!out.chars().any(is_unsafe), "{out:?}");
        }
    }

    #[test]
    fn a_plain_word_has_no_quotes() {
        check("word/1:2", "word/1:2");
        check("two words", "\"two words\"");
        check("", "\"\"");
        check("a=b", "\"a=b\"");
        check("a\\\"", r#""a\\\"""#);
    }

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let mut out = String::new();
        value(&mut out, text);
        assert_eq!(out, expected);
    }
}
