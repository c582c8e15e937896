//! Who may ask: host names of the local server, and credentials of HTTP Basic authentication.

use crate::config::file::{CREDENTIAL_MAX, Credentials};
use base64::prelude::{BASE64_STANDARD, Engine};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Whether a host, with an optional port, is a loopback name. This prevents DNS rebinding,
/// where a web site resolves its own name to 127.0.0.1.
pub(super) fn is_local(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, port),
        _ => (host, ""),
    };
    let names = ["localhost", "127.0.0.1", "[::1]"];
    port.bytes().all(|byte| byte.is_ascii_digit())
        && names.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// Parses a header value of the scheme `Basic` (RFC 7617).
pub(super) fn basic_credentials(header: &str) -> Option<Credentials> {
    let (scheme, encoded) = header.split_once(' ')?;
    let encoded = encoded.trim_matches([' ', '\t']);
    let decoded = BASE64_STANDARD.decode(encoded).ok().filter(|_| scheme.eq_ignore_ascii_case("Basic"))?;
    let decoded = Zeroizing::new(decoded);
    let (username, password) = str::from_utf8(&decoded).ok()?.split_once(':')?;
    Some(Credentials { username: username.to_owned(), password: password.to_owned().into() })
}

/// Compares in constant time: it depends neither on the expected credentials nor on the length
/// of a common prefix.
pub(super) fn same_credentials(given: &Credentials, expected: &Credentials) -> bool {
    let same = |a: &str, b: &str| padded(a).ct_eq(&*padded(b));
    (same(&given.username, &expected.username) & same(&given.password, &expected.password)).into()
}

/// A text with its length in front, zero-padded to a fixed size. A text longer than
/// [`CREDENTIAL_MAX`] is truncated, and its length differs from that of any valid credential.
fn padded(text: &str) -> Zeroizing<[u8; CREDENTIAL_MAX + 3]> {
    let mut padded = Zeroizing::new([0; CREDENTIAL_MAX + 3]);
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes();
    padded.iter_mut().zip(length.iter().chain(text.as_bytes())).for_each(|(to, from)| *to = *from);
    padded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_credentials_are_read() {
        let golden = [
            ("Basic bWU6c2VjcmV0", Some(("me", "secret"))),
            ("basic bWU6c2VjcmV0", Some(("me", "secret"))),
            ("Basic bWU6YTpi", Some(("me", "a:b"))),
            ("Basic  bWU6c2VjcmV0 ", Some(("me", "secret"))),
            ("Basic\u{20}\u{a0}bWU6c2VjcmV0", None),
            ("Basic bWU6c2VjcmV0\u{2003}", None),
            ("Basic bWU=", None),
            ("Basic !!!!", None),
            ("Basic /w==", None),
            ("Bearer bWU6c2VjcmV0", None),
            ("Basic", None),
            ("", None),
        ];
        for (header, expected) in golden {
            let read = basic_credentials(header);
            let read = read.as_ref().map(|c| (c.username.as_str(), c.password.as_str()));
            assert_eq!(read, expected, "{header}");
        }
    }

    #[test]
    fn the_local_server_has_the_names_of_this_host() {
        for host in ["localhost", "LocalHost:7390", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:7390"] {
            assert!(is_local(host), "{host}");
        }
        for host in [
            "",
            ":7390",
            "example.org",
            "localhost.example.org",
            "127.0.0.1.example.org",
            "127.0.0.2",
            "::1",
            "localhost:x",
            "localhost:7390:1",
            "user@localhost",
            "[::1",
            "[::2]:7390",
            "localhost.",
        ] {
            assert!(!is_local(host), "{host}");
        }
    }

    #[test]
    fn credentials_are_the_same_only_as_a_whole() {
        let credentials = |username: &str, password: &str| Credentials {
            username: username.to_owned(),
            password: password.to_owned().into(),
        };
        let expected = credentials("me", "secret");
        let long = "x".repeat(70_000);
        let golden = [
            ("me", "secret", true),
            ("me", "secre", false),
            ("me", "secret\0", false),
            ("me", "", false),
            ("Me", "secret", false),
            ("", "secret", false),
            ("me", long.as_str(), false),
        ];
        for (username, password, same) in golden {
            assert_eq!(same_credentials(&credentials(username, password), &expected), same);
        }
    }
}
