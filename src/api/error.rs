//! Errors of requests, and the one place where they become HTTP status codes.

use crate::api::address_list::ListError;
use crate::api::url::UrlError;
use crate::config::clients::Unnamed;
use crate::firewall::FirewallError;
use crate::firewall::expiry::BUSY_TIME;
use crate::rule::network::Network;
use crate::rule::rights::MissingRight;
use crate::rule::whitelist::Listed;
use std::net::IpAddr;
use std::time::Duration;

/// Error of a request.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    /// No credentials, or none that can be read.
    #[error("log in with HTTP Basic authentication")]
    NotLoggedIn,
    /// Not those of the configuration.
    #[error("wrong user name or password")]
    WrongCredentials,
    /// The certificate of a client that is none, or several.
    #[error(transparent)]
    Certificate(#[from] Unnamed),
    /// A client may not come from this address.
    #[error("no right to be {name} from {1} (from)", name = .0.escape_debug())]
    From(String, IpAddr),
    /// The client lacks a right.
    #[error(transparent)]
    Right(#[from] MissingRight),
    /// The client, or its rights, were changed after the request came.
    #[error("the rights of {} have changed while the request came: send it again", .0.escape_debug())]
    RightsChanged(String),
    /// The certificate of the client has ended since its handshake.
    #[error("your certificate has expired: expected one that is still good")]
    CertificateEnded,
    /// So many other tries of the address wait already, and when there is room.
    #[error("wrong passwords before, and {0} tries of this address wait already: try again in {seconds} s", seconds = whole_seconds(*.1))]
    TooManyTries(u32, Duration),
    /// A host that is not a loopback name, on the local listener.
    #[error(
        "the local server is not \"{}\": expected the host localhost, 127.0.0.1 or [::1]",
        .0.escape_debug()
    )]
    Misdirected(String),
    /// The method, the path or a parameter is wrong.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// Cross-site request forgery: a browser adds stored credentials to requests of any page.
    #[error(
        "a web page may not change rules, but for rfw's own at the host that it asks: expected no header Origin"
    )]
    WebPage,
    /// A body where none is expected.
    #[error("this path takes no body: expected the address in the path")]
    Body,
    /// A body with a content coding (RFC 9110, 8.4).
    #[error("the body is encoded as \"{}\": expected one that is not compressed", .0.escape_debug())]
    Compressed(String),
    /// The body is not a list, or can't be read.
    #[error(transparent)]
    List(#[from] ListError),
    /// The address is white-listed.
    #[error("{0} is white-listed")]
    WhiteListed(Network),
    /// A network, and the white-listed network that it overlaps.
    #[error("{0} has addresses of {1}, which is white-listed")]
    Overlaps(Network, Network),
    /// The address is behind `never` in the white list.
    #[error("{0} is never to be blocked or allowed (white list)")]
    Never(Network),
    /// A network, and the one behind `never` that it overlaps.
    #[error("{0} has addresses of {1}, which is never to be blocked or allowed (white list)")]
    OverlapsNever(Network, Network),
    /// The white list was replaced after the addresses of the body were compared with it.
    #[error("the white list has changed while the list came: send it again")]
    WhiteListChanged,
    /// Other long listings are on their way.
    #[error("{0} long lists of rules are on their way to others: try again in 2 seconds")]
    Listings(usize),
    /// The server is about to end.
    #[error("rfw is ending")]
    Ending,
    /// The kernel can't be read or changed.
    #[error(transparent)]
    Firewall(#[from] FirewallError),
}

impl ApiError {
    /// The error of an address that touches the white list.
    pub(super) fn white_listed(network: Network, listed: Listed) -> ApiError {
        match listed {
            Listed::Client(listed) if network == listed => ApiError::WhiteListed(network),
            Listed::Client(listed) => ApiError::Overlaps(network, listed),
            Listed::Never(listed) if network == listed => ApiError::Never(network),
            Listed::Never(listed) => ApiError::OverlapsNever(network, listed),
        }
    }

    /// The status code (RFC 9110, 15).
    pub(super) fn status(&self) -> u16 {
        match self {
            ApiError::NotLoggedIn | ApiError::WrongCredentials | ApiError::CertificateEnded => 401,
            ApiError::Certificate(_) | ApiError::From(..) | ApiError::Right(_) => 403,
            ApiError::Misdirected(_) => 421,
            ApiError::TooManyTries(..) => 429,
            ApiError::WhiteListChanged
            | ApiError::RightsChanged(_)
            | ApiError::Listings(_)
            | ApiError::Ending => 503,
            ApiError::Url(UrlError::Method { .. } | UrlError::NonRestful { .. }) => 405,
            ApiError::Url(UrlError::Action(_)) => 404,
            ApiError::Compressed(_) => 415,
            // A broken connection has no status code; the log level follows from 400.
            ApiError::List(ListError::Right(..)) => 403,
            ApiError::List(ListError::Http(error)) => error.status().unwrap_or(400),
            ApiError::Url(_)
            | ApiError::WebPage
            | ApiError::Body
            | ApiError::List(_)
            | ApiError::WhiteListed(_)
            | ApiError::Overlaps(..)
            | ApiError::Never(_)
            | ApiError::OverlapsNever(..) => 400,
            ApiError::Firewall(error) => status_of_firewall(error),
        }
    }

    /// The header that the status calls for.
    pub(super) fn header(&self) -> Option<(&'static str, String)> {
        let retry_after = |time: Duration| Some(("Retry-After", whole_seconds(time).to_string()));
        match self {
            ApiError::NotLoggedIn | ApiError::WrongCredentials | ApiError::CertificateEnded => {
                Some(("WWW-Authenticate", "Basic realm=\"rfw\", charset=\"UTF-8\"".to_owned()))
            }
            ApiError::Url(UrlError::Method { allow } | UrlError::NonRestful { allow }) => {
                Some(("Allow", (*allow).to_owned()))
            }
            ApiError::Compressed(_) => Some(("Accept-Encoding", "identity".to_owned())),
            ApiError::TooManyTries(_, time) => retry_after(*time),
            _ if self.status() == 503 => retry_after(BUSY_TIME),
            _ => None,
        }
    }

    /// Client errors (4xx) are logged as info, server errors (5xx) as errors, but for what is
    /// in order.
    pub(super) fn level(&self) -> log::Level {
        match self.status() {
            500.. if !self.is_in_order() => log::Level::Error,
            _ => log::Level::Info,
        }
    }

    /// Whether rfw works as it should, though the client has to come again.
    fn is_in_order(&self) -> bool {
        matches!(
            self,
            ApiError::Listings(_)
                | ApiError::Ending
                | ApiError::WhiteListChanged
                | ApiError::RightsChanged(_)
        )
    }
}

/// The status code of what the packet filter does not do.
fn status_of_firewall(error: &FirewallError) -> u16 {
    match error {
        FirewallError::TooLong(_) | FirewallError::TooManyLists(_) => 400,
        FirewallError::Right(_) => 403,
        FirewallError::NoFamily(_) => 501,
        error if error.is_temporary() => 503,
        FirewallError::Full(_) | FirewallError::TooManyRules(_) => 507,
        FirewallError::Program(_)
        | FirewallError::Ipset(_)
        | FirewallError::Set(..)
        | FirewallError::Emptied(_)
        | FirewallError::Counters(_)
        | FirewallError::Busy
        | FirewallError::NoSets
        | FirewallError::Random(_)
        | FirewallError::TooManyEntries(..)
        | FirewallError::ForeignSet(_) => 500,
    }
}

/// A time in seconds, rounded up: at least one.
fn whole_seconds(time: Duration) -> u64 {
    time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0)).max(1)
}
