//! The name of a list: one source's own addresses, apart from those of others.

use std::fmt;
use std::str::FromStr;

/// The longest name in bytes.
const NAME_MAX: usize = 16;

/// The name of a list: 1 to 16 bytes of `a-z 0-9 . _ -`, the first a letter or digit; or that of the
/// unnamed list, which requests without `list=` are about.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(crate) struct ListName {
    /// Filled up with zeros; the unnamed list has nothing else.
    bytes: [u8; NAME_MAX],
}

impl ListName {
    /// The unnamed list.
    pub(crate) const UNNAMED: ListName = ListName { bytes: [0; NAME_MAX] };

    /// Whether it is not the unnamed list.
    pub(crate) fn is_named(self) -> bool {
        self != ListName::UNNAMED
    }

    /// The name; empty for the unnamed list.
    pub(crate) fn as_str(&self) -> &str {
        let name = self.bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        // Only bytes of ASCII get in.
        str::from_utf8(name).unwrap_or_default()
    }

    /// The name as one word: `-` is the unnamed list, which no other name begins with.
    pub(crate) fn word(&self) -> &str {
        if self.is_named() { self.as_str() } else { "-" }
    }

    /// Parses exactly what [`ListName::word`] gives.
    pub(crate) fn from_word(word: &str) -> Option<ListName> {
        if word == "-" { Some(ListName::UNNAMED) } else { word.parse().ok() }
    }
}

impl FromStr for ListName {
    type Err = ListNameError;

    /// Parses the name of a named list.
    fn from_str(text: &str) -> Result<ListName, ListNameError> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let first = text.bytes().next().is_some_and(plain);
        let others = text.bytes().all(|byte| plain(byte) || b"._-".contains(&byte));
        let mut bytes = [0; NAME_MAX];
        match bytes.get_mut(..text.len()).filter(|_| first && others) {
            Some(start) => start.copy_from_slice(text.as_bytes()),
            None => return Err(ListNameError(text.to_owned())),
        }
        Ok(ListName { bytes })
    }
}

impl fmt::Display for ListName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for ListName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A string that is not the name of a list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{}\" is not the name of a list: expected 1 to {NAME_MAX} of a-z, 0-9, dot, _ and -, a letter or digit first",
    .0.escape_debug()
)]
pub(crate) struct ListNameError(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_plain() {
        for name in ["tor", "0", "fail2ban.sshd", "a-b_c.d", "abcdefghijklmnop"] {
            let list: ListName = name.parse().unwrap();
            assert_eq!((list.as_str(), list.word(), list.is_named()), (name, name, true));
            assert_eq!(ListName::from_word(name), Some(list));
        }
        for name in ["", "-", "-a", ".a", "Tor", "a b", "a\0", "\0", "ä", "abcdefghijklmnopq", "a/b", "*"] {
            assert_eq!(name.parse::<ListName>(), Err(ListNameError(name.to_owned())));
        }
        assert_eq!((ListName::UNNAMED.as_str(), ListName::UNNAMED.word()), ("", "-"));
        assert_eq!(ListName::from_word("-"), Some(ListName::UNNAMED));
        assert_eq!(ListName::from_word(""), None);
    }
}
