//! Why an address is in a list, in a client's words, and whose words those are.

use std::fmt;

/// The longest reason in bytes.
const REASON_MAX: usize = 120;

/// The longest name of a client that is kept, in bytes: with it, the longest reason and a list, a
/// comment of the kernel stays below its 255 bytes.
const AUTHOR_MAX: usize = 64;

/// A reason with its author. Both fit into a comment of the kernel as they are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Note {
    by: String,
    reason: Reason,
}

/// A reason: 1 to 120 bytes of UTF-8 without control characters and without `"`, which iptables and
/// ipset(8) can't have in a comment, and without white space at its ends.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Reason(String);

impl Reason {
    /// Parses the words of a request; `None` if there are none.
    ///
    /// # Errors
    /// They are too long, or have a character that a comment can't have.
    pub(crate) fn parse(text: &str) -> Result<Option<Reason>, ReasonError> {
        if text.len() > REASON_MAX {
            return Err(ReasonError::Long(text.len()));
        }
        if let Some(c) = text.chars().find(|c| !is_plain(*c)) {
            return Err(ReasonError::Character(c));
        }
        let text = text.trim();
        Ok((!text.is_empty()).then(|| Reason(text.to_owned())))
    }

    /// Makes a reason of what somebody has written for other eyes, as behind the `#` of a list's line:
    /// what a comment can't have becomes blanks and `'`, and what is too long is cut off.
    pub(crate) fn cut(text: &str) -> Option<Reason> {
        let plain: String = text.chars().map(|c| if is_plain(c) { c } else { replaced(c) }).collect();
        let cut = start(plain.trim(), REASON_MAX).trim_end();
        (!cut.is_empty()).then(|| Reason(cut.to_owned()))
    }

    /// The words.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Note {
    /// A reason of that client, whose name is cut to 64 bytes.
    pub(crate) fn new(client: &str, reason: Reason) -> Note {
        let plain: String = client.chars().map(|c| if is_plain(c) && c != ':' { c } else { '_' }).collect();
        Note { by: start(&plain, AUTHOR_MAX).to_owned(), reason }
    }

    /// The name of the client.
    pub(crate) fn by(&self) -> &str {
        &self.by
    }

    /// The reason.
    pub(crate) fn reason(&self) -> &str {
        self.reason.as_str()
    }

    /// Parses exactly what `Display` prints.
    pub(crate) fn from_comment(text: &str) -> Option<Note> {
        let (by, reason) = text.strip_prefix("by ")?.split_once(": ")?;
        let note = Note::new(by, Reason::parse(reason).ok()??);
        (note.by == by && note.reason() == reason).then_some(note)
    }
}

impl fmt::Display for Note {
    /// As it stands in a comment of the kernel: `by mietek: scanner`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "by {}: {}", self.by, self.reason())
    }
}

fn is_plain(c: char) -> bool {
    !c.is_control() && c != '"'
}

fn replaced(c: char) -> char {
    if c == '"' { '\'' } else { ' ' }
}

/// The first characters of a text, as many as fit into so many bytes.
pub(crate) fn start(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    end.and_then(|end| text.get(..end)).unwrap_or_default()
}

/// Why words are no reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReasonError {
    /// The number of bytes, too many.
    #[error("{0} bytes are too long: expected at most {REASON_MAX}")]
    Long(usize),
    /// A character that a comment can't have.
    #[error("the character {} can't be kept: expected no control character and no \"", .0.escape_debug())]
    Character(char),
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_reason_is_what_a_comment_can_hold() {
        let parsed = |text: &str| Reason::parse(text).map(|reason| reason.map(|reason| reason.0));
        assert_eq!(parsed(" ssh, 5 tries: käse \\ "), Ok(Some("ssh, 5 tries: käse \\".to_owned())));
        assert_eq!((parsed(""), parsed("  ")), (Ok(None), Ok(None)));
        assert_eq!(parsed(&"x".repeat(120)), Ok(Some("x".repeat(120))));
        assert_eq!(parsed(&"ä".repeat(61)), Err(ReasonError::Long(122)));
        for c in ['"', '\n', '\0', '\u{85}', '\x7f'] {
            assert_eq!(parsed(&format!("a{c}b")), Err(ReasonError::Character(c)));
        }
    }

    #[test]
    fn words_of_others_are_made_to_fit() {
        let golden = [
            (" do not delete: \"lfd\"\tTue ", Some("do not delete: 'lfd' Tue".to_owned())),
            ("", None),
            (" \t", None),
        ];
        for (text, reason) in golden {
            assert_eq!(Reason::cut(text).map(|reason| reason.0), reason);
        }
        assert_eq!(Reason::cut(&"ä".repeat(100)).unwrap().as_str(), "ä".repeat(60));
    }

    #[test]
    fn a_long_name_is_cut_between_characters() {
        assert_eq!(start(&"ä".repeat(40), 64), "ä".repeat(32));
        assert_eq!(start(&format!("x{}", "ä".repeat(40)), 64).len(), 63);
        assert_eq!(start("me", 64), "me");
    }

    #[test]
    fn a_note_names_its_author() {
        let note = |by: &str| Note::new(by, Reason::parse("a: b").unwrap().unwrap()).to_string();
        assert_eq!(note("mietek"), "by mietek: a: b");
        assert_eq!(note("a\"b:c\n"), "by a_b_c_: a: b");
        assert_eq!(note(&"x".repeat(70)), format!("by {}: a: b", "x".repeat(64)));
        for foreign in ["", "by ", "by x", "by x: ", "scanner", "by x:  y", "by a\"b: c"] {
            assert_eq!(Note::from_comment(foreign), None, "{foreign}");
        }
    }

    proptest! {
        #[test]
        fn a_note_printed_and_read_again_is_itself(by in "\\PC{0,40}", reason in "\\PC*") {
            if let Some(reason) = Reason::cut(&reason) {
                prop_assert!(reason.as_str().len() <= REASON_MAX);
                prop_assert_eq!(Reason::parse(reason.as_str()), Ok(Some(reason.clone())));
                let note = Note::new(&by, reason);
                prop_assert_eq!(Note::from_comment(&note.to_string()), Some(note));
            }
        }
    }
}
