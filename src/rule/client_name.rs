//! The name of a client that has a section in `rfw.conf`, and that a certificate can have.

/// The longest name in bytes: that of a common name (RFC 5280, A.1, ub-common-name).
const NAME_MAX: usize = 64;

/// Whether a text is such a name: 1 to 64 letters, digits, `.`, `_` and `-`, a letter or digit first.
pub(crate) fn is_client_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    text.len() <= NAME_MAX
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_of_plain_characters_and_not_too_long() {
        for name in ["a", "9", "Honeypot-1", "fw.example.org", "a_b", &"x".repeat(NAME_MAX)] {
            assert!(is_client_name(name), "{name}");
        }
        for other in
            ["", ".a", "-a", "_a", "a b", "a*", "*.example.org", "ä", "a:b", &"x".repeat(NAME_MAX + 1)]
        {
            assert!(!is_client_name(other), "{other}");
        }
    }
}
