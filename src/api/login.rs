//! Who may ask: host names of the local server, and credentials of HTTP Basic authentication.

use crate::api::Peer;
use crate::api::error::ApiError;
use crate::config::clients::{Client, Clients};
use crate::http::message::Request;
use base64::prelude::{BASE64_STANDARD, Engine};
use std::sync::Arc;
use std::time::SystemTime;
use zeroize::Zeroizing;

/// What a client logs in with.
pub(super) struct Credentials {
    username: String,
    /// It is wiped when it is dropped.
    password: Zeroizing<String>,
}

/// The client that a request comes from: the one that its certificate names, or that of its name and
/// password, which have to be the same where there are both. `listed` tells whether its address is in
/// the white list.
///
/// # Errors
/// It is none, or may not come from that address.
pub(super) fn client(
    clients: &Clients,
    peer: &Peer,
    request: &Request,
    listed: bool,
    now: SystemTime,
) -> Result<Arc<Client>, ApiError> {
    let client = match peer.authentication {
        true => logged_in(clients, peer, request, now)?,
        false => clients.local(),
    };
    match client.may_come_from(peer.address, listed || peer.local) {
        true => Ok(Arc::clone(client)),
        false => Err(ApiError::From(client.name.clone(), peer.address)),
    }
}

/// The client that a certificate names, or name and password.
fn logged_in<'a>(
    clients: &'a Clients,
    peer: &Peer,
    request: &Request,
    now: SystemTime,
) -> Result<&'a Arc<Client>, ApiError> {
    let credentials = request.authorization.as_ref().map(|text| basic_credentials(text));
    // What can't be read is no password.
    let by_password = match credentials {
        None => None,
        Some(None) => return Err(ApiError::NotLoggedIn),
        Some(Some(given)) => {
            let client = clients.by_password(&given.username, &given.password);
            Some(client.ok_or(ApiError::WrongCredentials)?)
        }
    };
    let certificate = peer.certificate.as_ref();
    if certificate.is_some_and(|certificate| certificate.has_ended(now)) {
        return Err(ApiError::CertificateEnded);
    }
    let by_certificate = certificate.map(|certificate| clients.by_names(&certificate.names)).transpose()?;
    match (by_certificate, by_password) {
        (Some(named), Some(client)) if named != client => Err(ApiError::WrongCredentials),
        (Some(client), _) | (None, Some(client)) => Ok(client),
        (None, None) => Err(ApiError::NotLoggedIn),
    }
}

/// The name that a request logs in with, whether or not it is that of a client; empty where there is none.
pub(super) fn username(request: &Request) -> String {
    let credentials = request.authorization.as_ref().and_then(|text| basic_credentials(text));
    credentials.map(|credentials| credentials.username).unwrap_or_default()
}

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
}
