//! Lines of the log as `key=value` pairs with a blank between them (logfmt), for programs and for people.
//! A value that is not plain stands in quotes, escaped, so that nothing from outside ends a line, or makes
//! up a pair.

use std::fmt::{self, Write};

/// A value as it stands behind a key: as it is where it has letters and digits of ASCII and `.:/_+*-` alone,
/// else in quotes. There `"` and `\` have a `\` before them; control characters and what looks like nothing
/// are `\n`, `\t`, `\u{7f}` and the like, as in Rust.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Value<'a>(pub &'a str);

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".:/_+*-".contains(&byte);
        if !self.0.is_empty() && self.0.bytes().all(plain) {
            return f.write_str(self.0);
        }
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '\'' => f.write_char(c)?,
                _ => write!(f, "{}", c.escape_debug())?,
            }
        }
        f.write_char('"')
    }
}

/// A line that grows by pairs.
#[derive(Debug, Default)]
pub(crate) struct Line(String);

impl Line {
    /// The line with one more pair.
    pub(crate) fn with(mut self, key: &str, value: impl fmt::Display) -> Line {
        let blank = if self.0.is_empty() { "" } else { " " };
        // Writing to a string never fails.
        let _ = write!(self.0, "{blank}{key}={}", Value(&value.to_string()));
        self
    }

    /// The same, where there is a value.
    pub(crate) fn with_some(self, key: &str, value: Option<impl fmt::Display>) -> Line {
        match value {
            Some(value) => self.with(key, value),
            None => self,
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_quoted_unless_it_is_plain() {
        let golden = [
            ("2001:db8::/48", "2001:db8::/48"),
            ("2026-11-27T10:00:00Z", "2026-11-27T10:00:00Z"),
            ("*", "*"),
            ("", r#""""#),
            ("port scan", r#""port scan""#),
            ("it's", r#""it's""#),
            ("a=b", r#""a=b""#),
            ("käse", r#""käse""#),
            (r#"a"b\c"#, r#""a\"b\\c""#),
            ("a\nb\tc\u{7f}\u{202e}", r#""a\nb\tc\u{7f}\u{202e}""#),
        ];
        for (value, expected) in golden {
            assert_eq!(Value(value).to_string(), expected);
        }
    }

    #[test]
    fn a_line_has_the_pairs_that_there_are() {
        let line = Line::default().with("op", "insert").with_some("until", None::<&str>);
        assert_eq!(
            line.with_some("reason", Some("port scan")).to_string(),
            r#"op=insert reason="port scan""#
        );
    }
}
