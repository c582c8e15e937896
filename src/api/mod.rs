//! From a request to its answer: authentication, parsing, execution, and the one place
//! where errors become HTTP status codes.

pub(crate) mod address_list;
mod rows;
pub(crate) mod url;

use crate::api::address_list::{List, ListError};
use crate::api::rows::Rows;
use crate::api::url::{Command, UrlError};
use crate::config::file::{CREDENTIAL_MAX, Config, Credentials};
use crate::firewall::expiry::{BUSY_TIME, SharedFirewall};
use crate::firewall::listing::Filter;
use crate::firewall::{self, FirewallError, ListResult, Outcome};
use crate::http::body::Body;
use crate::http::message::{Answer, Content, HttpError, Request};
use crate::log_limit::LogLimit;
use crate::rule::lease::{Interval, Lease};
use crate::rule::network::Network;
use crate::rule::whitelist::WhiteList;
use crate::rule::{Interface, Rule, Scope};
use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::{Value, json};
use std::fmt;
use std::io::{Read, Write};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};
use subtle::ConstantTimeEq;

/// The REST API: executes requests on the firewall.
pub(crate) struct Service {
    config: Config,
    shared: Arc<SharedFirewall>,
    whitelist: WhiteList,
    unlisted: LogLimit,
}

/// The client of a connection, and what its listener requires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    /// The source address; IPv4-mapped IPv6 is converted to IPv4.
    pub address: IpAddr,
    /// Whether the listener requires HTTP Basic authentication.
    pub authentication: bool,
    /// Whether the listener is the local one, which accepts only host names of this host.
    pub local: bool,
}

impl Service {
    /// A service on a firewall, to which the white list is applied.
    ///
    /// # Errors
    /// The rules can't be changed.
    pub(crate) fn new(
        config: Config,
        shared: Arc<SharedFirewall>,
        whitelist: WhiteList,
    ) -> Result<Service, FirewallError> {
        let service = Service { config, shared, whitelist, unlisted: LogLimit::default() };
        service.apply_whitelist(&service.whitelist)?;
        Ok(service)
    }

    /// Whether the white list admits a client with that address to the HTTPS listener.
    pub(crate) fn admits(&self, address: IpAddr) -> bool {
        self.whitelist.contains(address)
    }

    /// Applies a new white list to the firewall and replaces the old one; on failure the old
    /// one stays.
    ///
    /// # Errors
    /// The rules can't be changed.
    pub(crate) fn replace_whitelist(&mut self, list: WhiteList) -> Result<(), FirewallError> {
        self.apply_whitelist(&list)?;
        self.whitelist = list;
        Ok(())
    }

    /// Updates the guard of the HTTPS port and removes rules that affect white-listed
    /// addresses.
    fn apply_whitelist(&self, list: &WhiteList) -> Result<(), FirewallError> {
        let port = self.config.outward.as_ref().map(|outward| outward.address.port());
        let removed = self.shared.with(|firewall| firewall.guard(port, list, SystemTime::now()))?;
        removed.iter().for_each(|rule| log::warn!("removed, since it touches the white list: {rule}"));
        Ok(())
    }

    /// The configuration.
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// Authenticates and executes a request, logs the outcome and returns the answer.
    pub(crate) fn answer<S: Read + Write>(
        &mut self,
        peer: Peer,
        request: &Request,
        body: &mut Body<'_, S>,
    ) -> Answer {
        if let Some(host) = request.host.as_ref().filter(|host| peer.local && !is_local(host)) {
            let error = ApiError::Misdirected(host.clone());
            self.unlisted.log(Instant::now(), log::Level::Warn, format_args!("{}: {error}", peer.address));
            return error.answer();
        }
        let user = match self.user(peer, request) {
            Ok(user) => user,
            Err(error) => {
                let who = peer.address;
                self.unlisted.log(Instant::now(), log::Level::Warn, format_args!("{who}: {error}"));
                return error.answer();
            }
        };
        let who = format!("{} {}", peer.address, user.escape_debug());
        match self.perform(&who, request, body) {
            Ok(answer) => answer,
            Err(error) => {
                let target = request.target.escape_debug();
                log::log!(error.level(), "{who}: {} {target}: {error}", request.method);
                error.answer()
            }
        }
    }

    /// The authenticated user name, or `-` where no authentication is required.
    fn user(&self, peer: Peer, request: &Request) -> Result<String, ApiError> {
        match &self.config.credentials {
            Some(expected) if peer.authentication => {
                let given = request.authorization.as_deref().and_then(basic_credentials);
                let given = given.ok_or(ApiError::NotLoggedIn)?;
                if same_credentials(&given, expected) {
                    Ok(given.username)
                } else {
                    Err(ApiError::WrongCredentials)
                }
            }
            None if peer.authentication => Err(ApiError::NotLoggedIn),
            _ => Ok("-".to_owned()),
        }
    }

    fn perform<S: Read + Write>(
        &mut self,
        who: &str,
        request: &Request,
        body: &mut Body<'_, S>,
    ) -> Result<Answer, ApiError> {
        let command = url::parse(&request.method, &request.target, self.config.non_restful)?;
        if request.from_web_page && !matches!(command, Command::Help | Command::List(_)) {
            return Err(ApiError::WebPage);
        }
        body.check_length().map_err(ListError::Http)?;
        match command {
            Command::InsertAll { scope, expire } => self.insert_all(who, &scope, expire, body),
            Command::DeleteAll(scope) => self.delete_all(who, &scope, body),
            _ if !body.is_empty() => Err(ApiError::Body),
            Command::Help => Ok(self.help()),
            Command::List(filter) => self.list(&filter),
            Command::Insert { rule, expire } => self.insert(who, &rule, expire),
            Command::Delete(rule) => self.delete(who, &rule),
        }
    }

    fn insert(&mut self, who: &str, rule: &Rule, expire: Option<Interval>) -> Result<Answer, ApiError> {
        if let Some((listed, side)) = self.whitelist.conflict(rule) {
            return Err(ApiError::white_listed(*side, *listed));
        }
        let interval = expire.unwrap_or(self.config.default_expire);
        // The time begins when it is this request's turn.
        let (outcome, lease) = self.shared.change(|firewall| {
            let now = SystemTime::now();
            let lease = interval.from(now);
            Ok((firewall.insert(rule, lease, now)?, lease))
        })?;
        log::info!("{who}: {}: {rule}, {lease}", outcome.name());
        Ok(changed(outcome, rule, lease))
    }

    fn delete(&mut self, who: &str, rule: &Rule) -> Result<Answer, ApiError> {
        let outcome = self.shared.change(|firewall| firewall.delete(rule, SystemTime::now()))?;
        log::info!("{who}: {}: {rule}", outcome.name());
        Ok(changed(outcome, rule, Lease::Permanent))
    }

    fn insert_all<S: Read + Write>(
        &mut self,
        who: &str,
        scope: &Scope,
        expire: Option<Interval>,
        body: &mut Body<'_, S>,
    ) -> Result<Answer, ApiError> {
        let list = List::read(body, |network| {
            let refused = scope.clone().rule(*network).err().map(|error| error.to_string());
            refused.or_else(|| {
                let listed = self.whitelist.overlap(network)?;
                Some(ApiError::white_listed(*network, *listed).to_string())
            })
        })?;
        let interval = expire.unwrap_or(self.config.default_expire);
        let (count, lease) = self.shared.change(|firewall| {
            let now = SystemTime::now();
            let lease = interval.from(now);
            Ok((firewall.insert_all(scope, &list.networks, lease, now)?, lease))
        })?;
        let ListResult { present, absent } = count;
        log::info!(
            "{who}: list: {absent} inserted, {present} refreshed, {} skipped: {scope}, {lease}",
            list.skipped_total
        );
        let expires = lease.end().map(|moment| moment.to_string());
        Ok(listed(&list, json!({ "inserted": absent, "refreshed": present, "expires": expires })))
    }

    fn delete_all<S: Read + Write>(
        &mut self,
        who: &str,
        scope: &Scope,
        body: &mut Body<'_, S>,
    ) -> Result<Answer, ApiError> {
        let list =
            List::read(body, |network| scope.clone().rule(*network).err().map(|error| error.to_string()))?;
        let ListResult { present, absent } =
            self.shared.change(|firewall| firewall.delete_all(scope, &list.networks, SystemTime::now()))?;
        log::info!(
            "{who}: list: {present} deleted, {absent} absent, {} skipped: {scope}",
            list.skipped_total
        );
        Ok(listed(&list, json!({ "deleted": present, "absent": absent })))
    }

    fn list(&self, filter: &Filter) -> Result<Answer, ApiError> {
        let listing = self.shared.read(|firewall| firewall.list(filter, SystemTime::now()))?;
        let rows = Rows::begin(listing)?;
        Ok(Answer { status: 200, body: Content::Stream(Box::new(rows)), header: None })
    }

    fn help(&self) -> Answer {
        let outward = self.config.outward.as_ref().map(|outward| format!("https://{}", outward.address));
        let local = self.config.local.as_ref().map(|local| format!("http://{}", local.address));
        let servers: Vec<String> = outward.into_iter().chain(local).collect();
        let help = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "listening": servers,
            "default.expire": self.config.default_expire.to_string(),
            "grammar": GRAMMAR,
            "parameters": PARAMETERS,
            "examples": EXAMPLES,
        });
        Answer { status: 200, body: Content::Text(format!("{help:#}\n")), header: None }
    }
}

const GRAMMAR: [&str; 6] = [
    "PUT|DELETE /{drop|accept|reject}/{input|output}/{interface|any}/address[/mask][?parameters]",
    "PUT|DELETE /{drop|accept|reject}/forward/{interface|any}/address[/mask][/{interface|any}[/address[/mask]]][?parameters]",
    "PUT|DELETE /{drop|accept|reject}/{input|output|forward}/{interface|any}[?parameters] with a list of addresses as body",
    "GET /list[/chain[/interface]][?address=address[/mask]]",
    "GET /",
    "an interface that does not end in a digit is a prefix: eth is eth+; in forward, 0.0.0.0 or :: on one side is any address",
];

const PARAMETERS: [&str; 4] = [
    "expire=seconds, or a number with s, m, h or d; 0 is permanent; without it default.expire",
    "wait=true: accepted, since every request waits until the kernel has it",
    "address=address[/mask], of a list: only what holds this address",
    "modify=insert|delete: turns a GET into a change, where non.restful is on",
];

const EXAMPLES: [&str; 6] = [
    "PUT /drop/input/eth0/11.22.33.44?expire=10m",
    "DELETE /drop/input/eth0/11.22.33.44",
    "PUT /accept/output/any/192.168.0.0/24",
    "PUT /reject/input/eth/2001:db8::/48",
    "PUT /accept/forward/ppp/1.2.3.0/24/eth0/5.5.5.5",
    "GET /list/input/eth0",
];

fn changed(outcome: Outcome, rule: &Rule, lease: Lease) -> Answer {
    let expires = lease.end().map(|moment| moment.to_string());
    let body = json!({ "result": outcome.name(), "rule": described(rule), "expires": expires });
    succeeded(&body)
}

fn succeeded(body: &Value) -> Answer {
    Answer { status: 200, body: Content::Text(format!("{body}\n")), header: None }
}

/// The answer to an address list: `body` with the skipped lines added.
fn listed(list: &List, mut body: Value) -> Answer {
    let skipped = list.skipped.iter().map(|skipped| {
        json!({ "line": skipped.line, "address": skipped.address.to_string(), "reason": skipped.reason })
    });
    if let Value::Object(object) = &mut body {
        object.insert("skipped".to_owned(), skipped.collect());
        object.insert("skipped_total".to_owned(), json!(list.skipped_total));
    }
    succeeded(&body)
}

/// A rule as a JSON object with the names that iptables uses.
fn described(rule: &Rule) -> Value {
    let scope = rule.scope();
    let interface = |interface: Option<&Interface>| interface.map_or("*".to_owned(), Interface::pattern);
    json!({
        "chain": scope.chain().name(),
        "target": scope.target().name(),
        "inp": interface(scope.input_interface()),
        "out": interface(scope.output_interface()),
        "source": firewall::printed(rule.source(), rule.family()),
        "destination": firewall::printed(rule.destination(), rule.family()),
    })
}

/// Whether a host, with an optional port, is a loopback name. This prevents DNS rebinding,
/// where a web site resolves its own name to 127.0.0.1.
fn is_local(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, port),
        _ => (host, ""),
    };
    let names = ["localhost", "127.0.0.1", "[::1]"];
    port.bytes().all(|byte| byte.is_ascii_digit())
        && names.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// Parses a header value of the scheme `Basic` (RFC 7617).
fn basic_credentials(header: &str) -> Option<Credentials> {
    let (scheme, encoded) = header.split_once(' ')?;
    let decoded =
        BASE64_STANDARD.decode(encoded.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("Basic"))?;
    let text = String::from_utf8(decoded).ok()?;
    let (username, password) = text.split_once(':')?;
    Some(Credentials { username: username.to_owned(), password: password.to_owned() })
}

/// Compares in constant time: it depends neither on the expected credentials nor on the length
/// of a common prefix.
fn same_credentials(given: &Credentials, expected: &Credentials) -> bool {
    let same = |a: &str, b: &str| padded(a).ct_eq(&padded(b));
    (same(&given.username, &expected.username) & same(&given.password, &expected.password)).into()
}

/// A text with its length in front, zero-padded to a fixed size. A text longer than
/// [`CREDENTIAL_MAX`] is truncated, and its length differs from that of any valid credential.
fn padded(text: &str) -> [u8; CREDENTIAL_MAX + 3] {
    let mut padded = [0; CREDENTIAL_MAX + 3];
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes();
    padded.iter_mut().zip(length.iter().chain(text.as_bytes())).for_each(|(to, from)| *to = *from);
    padded
}

/// Error of a request.
#[derive(Debug, thiserror::Error)]
enum ApiError {
    #[error("log in with HTTP Basic authentication")]
    NotLoggedIn,
    #[error("wrong user name or password")]
    WrongCredentials,
    /// A host that is not a loopback name, on the local listener.
    #[error(
        "the local server is not \"{}\": expected the host localhost, 127.0.0.1 or [::1]",
        .0.escape_debug()
    )]
    Misdirected(String),
    #[error(transparent)]
    Url(#[from] UrlError),
    /// Cross-site request forgery: a browser adds stored credentials to requests of any page.
    #[error("a web page may not change rules: expected no header Origin")]
    WebPage,
    #[error("this path takes no body: expected the address in the path")]
    Body,
    #[error(transparent)]
    List(#[from] ListError),
    /// The address is white-listed.
    #[error("{0} is white-listed")]
    WhiteListed(Network),
    /// A network, and the white-listed network that it overlaps.
    #[error("{0} has addresses of {1}, which is white-listed")]
    Overlaps(Network, Network),
    #[error(transparent)]
    Firewall(#[from] FirewallError),
}

impl ApiError {
    fn white_listed(network: Network, listed: Network) -> ApiError {
        if network == listed { ApiError::WhiteListed(network) } else { ApiError::Overlaps(network, listed) }
    }

    fn status(&self) -> u16 {
        match self {
            ApiError::NotLoggedIn | ApiError::WrongCredentials => 401,
            ApiError::Misdirected(_) => 421,
            ApiError::Url(UrlError::Method { .. }) => 405,
            // A broken connection has no status code; the log level follows from 400.
            ApiError::List(ListError::Http(error)) => error.status().unwrap_or(400),
            ApiError::Url(_)
            | ApiError::WebPage
            | ApiError::Body
            | ApiError::List(_)
            | ApiError::WhiteListed(_)
            | ApiError::Overlaps(..) => 400,
            ApiError::Firewall(error) => match error {
                FirewallError::TooLong(_) => 400,
                FirewallError::NoFamily(_) => 501,
                error if error.is_temporary() => 503,
                FirewallError::Full(_) | FirewallError::TooManyRules(_) => 507,
                FirewallError::Program(_)
                | FirewallError::Ipset(_)
                | FirewallError::Set(..)
                | FirewallError::Busy
                | FirewallError::NoSets
                | FirewallError::Random(_)
                | FirewallError::TooManyEntries(..)
                | FirewallError::ForeignSet(_) => 500,
            },
        }
    }

    fn header(&self) -> Option<(&'static str, String)> {
        match self {
            ApiError::NotLoggedIn | ApiError::WrongCredentials => {
                Some(("WWW-Authenticate", "Basic realm=\"rfw\", charset=\"UTF-8\"".to_owned()))
            }
            ApiError::Url(UrlError::Method { allow }) => Some(("Allow", (*allow).to_owned())),
            _ if self.status() == 503 => Some(("Retry-After", BUSY_TIME.as_secs().to_string())),
            _ => None,
        }
    }

    /// Client errors (4xx) are logged as info, server errors (5xx) as errors.
    fn level(&self) -> log::Level {
        match self.status() {
            500.. => log::Level::Error,
            _ => log::Level::Info,
        }
    }

    fn answer(&self) -> Answer {
        Answer { header: self.header(), ..failed(self.status(), self) }
    }
}

/// The answer to a request that can't be read; `None` if the connection is broken.
pub(crate) fn unreadable(error: &HttpError) -> Option<Answer> {
    error.status().map(|status| failed(status, error))
}

fn failed(status: u16, why: &dyn fmt::Display) -> Answer {
    let body = json!({ "error": why.to_string() });
    Answer { status, body: Content::Text(format!("{body}\n")), header: None }
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
            password: password.to_owned(),
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
