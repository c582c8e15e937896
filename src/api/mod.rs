//! From a request to its answer: what its head decides ([`Service::begin`]), its body as it
//! comes ([`Pending::take`]), and its execution once it is whole ([`Service::execute`]).

pub(crate) mod address_list;
mod error;
mod listing;
mod login;
mod rows;
pub(crate) mod url;

use crate::api::address_list::{List, ListError, ListReader};
use crate::api::error::ApiError;
pub(crate) use crate::api::error::unreadable;
pub(crate) use crate::api::listing::Collecting;
use crate::api::listing::Slots;
use crate::api::url::Command;
use crate::config::file::Config;
use crate::firewall::expiry::SharedFirewall;
use crate::firewall::listing::{Filter, Listing};
use crate::firewall::{self, FirewallError, ListResult, Terms};
use crate::http::answer::{Answer, Content};
use crate::http::body::Body;
use crate::http::message::{HttpError, Request};
use crate::log_limit::LogLimit;
use crate::rule::label::Label;
use crate::rule::lease::{Interval, Lease};
use crate::rule::list_name::ListName;
use crate::rule::network::Network;
use crate::rule::whitelist::WhiteList;
use crate::rule::{Interface, Rule, Scope};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};
use tiny_http::Method;

/// The REST API: executes requests on the firewall.
pub(crate) struct Service {
    config: Config,
    shared: Arc<SharedFirewall>,
    whitelist: Rc<WhiteList>,
    slots: Slots,
    strangers: LogLimit,
    misdirected: LogLimit,
}

/// What comes of a request that has been executed.
pub(crate) enum Outcome {
    /// Its answer.
    Answer(Answer),
    /// Rules that are yet to be read, piece by piece.
    Listing(Box<Collecting>),
}

/// A request whose head is accepted, and what has come of its body.
pub(crate) struct Pending {
    origin: Origin,
    command: Command,
    list: Option<ListReader>,
    /// The white list that the addresses of the body are compared with.
    whitelist: Rc<WhiteList>,
}

/// Whose request it is and what it was, for the log.
struct Origin {
    who: String,
    method: Method,
    target: String,
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
        let service = Service {
            config,
            shared,
            whitelist: Rc::new(whitelist),
            slots: Slots::default(),
            strangers: LogLimit::default(),
            misdirected: LogLimit::default(),
        };
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
        self.whitelist = Rc::new(list);
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

    /// Decides on a request from its head: whether the client may ask, what for, and whether a
    /// body may come.
    ///
    /// # Errors
    /// The answer of a request that is refused, which is logged.
    pub(crate) fn begin(&mut self, peer: Peer, request: Request, body: &Body) -> Result<Pending, Answer> {
        let user = self.admit(peer, &request)?;
        let who = format!("{} {}", peer.address, user.escape_debug());
        let command = self.command(&request, body);
        let Request { method, target, .. } = request;
        let origin = Origin { who, method, target };
        let command = command.map_err(|error| origin.refuse(&error))?;
        let list = matches!(command, Command::InsertAll { .. } | Command::DeleteAll(_));
        let list = list.then(ListReader::default);
        Ok(Pending { origin, command, list, whitelist: Rc::clone(&self.whitelist) })
    }

    /// The user name, or the answer to a client who may not ask; lines about these are few.
    fn admit(&mut self, peer: Peer, request: &Request) -> Result<String, Answer> {
        let misdirected = request.host.as_ref().filter(|host| peer.local && !login::is_local(host));
        let (error, lines) = match misdirected {
            Some(host) => (ApiError::Misdirected(host.clone()), &mut self.misdirected),
            None => match self.user(peer, request) {
                Ok(user) => return Ok(user),
                Err(error) => (error, &mut self.strangers),
            },
        };
        lines.log(Instant::now(), log::Level::Warn, format_args!("{}: {error}", peer.address));
        Err(error.answer())
    }

    /// The authenticated user name, or `-` where no authentication is required.
    fn user(&self, peer: Peer, request: &Request) -> Result<String, ApiError> {
        match &self.config.credentials {
            Some(expected) if peer.authentication => {
                let given = request.authorization.as_deref().and_then(login::basic_credentials);
                let given = given.ok_or(ApiError::NotLoggedIn)?;
                if login::same_credentials(&given, expected) {
                    Ok(given.username)
                } else {
                    Err(ApiError::WrongCredentials)
                }
            }
            None if peer.authentication => Err(ApiError::NotLoggedIn),
            _ => Ok("-".to_owned()),
        }
    }

    /// The command of a request that may have this body.
    fn command(&self, request: &Request, body: &Body) -> Result<Command, ApiError> {
        let command = url::parse(&request.method, &request.target, self.config.non_restful)?;
        if request.from_web_page && !matches!(command, Command::Help | Command::List(_)) {
            return Err(ApiError::WebPage);
        }
        body.check_length().map_err(ListError::Http)?;
        match command {
            Command::InsertAll { .. } | Command::DeleteAll(_) => Ok(command),
            _ if !body.is_empty() => Err(ApiError::Body),
            command => Ok(command),
        }
    }

    /// Executes a request that has come whole, and logs the outcome.
    pub(crate) fn execute(&mut self, pending: Pending) -> Outcome {
        let Pending { origin, command, list, whitelist } = pending;
        let list = list.map(ListReader::into_list).unwrap_or_default();
        // What was compared with another white list is not to be believed.
        let current = Rc::ptr_eq(&whitelist, &self.whitelist);
        let answer = match command {
            Command::List(filter) => match self.list(&filter) {
                Ok(listing) => {
                    return Outcome::Listing(Box::new(Collecting::new(origin, listing, &self.slots)));
                }
                Err(error) => Err(error),
            },
            Command::InsertAll { .. } if !current => Err(ApiError::WhiteListChanged),
            Command::InsertAll { scope, expire } => self.insert_all(&origin.who, &scope, expire, &list),
            Command::DeleteAll(scope) => self.delete_all(&origin.who, &scope, &list),
            Command::Help => Ok(self.help()),
            Command::Insert { rule, expire } => self.insert(&origin.who, &rule, expire),
            Command::Delete(rule) => self.delete(&origin.who, &rule),
        };
        Outcome::Answer(answer.unwrap_or_else(|error| origin.refuse(&error)))
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
            Ok((firewall.insert(rule, &Label::new(lease, ListName::UNNAMED), now)?.outcome, lease))
        })?;
        log::info!("{who}: {}: {rule}, {lease}", outcome.name());
        Ok(changed(outcome, rule, lease))
    }

    fn delete(&mut self, who: &str, rule: &Rule) -> Result<Answer, ApiError> {
        let outcome = self
            .shared
            .change(|firewall| firewall.delete(rule, ListName::UNNAMED, SystemTime::now()))?
            .outcome;
        log::info!("{who}: {}: {rule}", outcome.name());
        Ok(changed(outcome, rule, Lease::Permanent))
    }

    fn insert_all(
        &mut self,
        who: &str,
        scope: &Scope,
        expire: Option<Interval>,
        list: &List,
    ) -> Result<Answer, ApiError> {
        let interval = expire.unwrap_or(self.config.default_expire);
        let (count, lease) = self.shared.change(|firewall| {
            let now = SystemTime::now();
            let lease = interval.from(now);
            let terms =
                Terms { list: ListName::UNNAMED, lease, note: None, notes: HashMap::new(), replace: false };
            Ok((firewall.insert_all(scope, &list.networks, &terms, now)?, lease))
        })?;
        let ListResult { present, absent, .. } = count;
        log::info!(
            "{who}: list: {absent} inserted, {present} refreshed, {} skipped: {scope}, {lease}",
            list.skipped_total
        );
        let expires = lease.end().map(|moment| moment.to_string());
        Ok(listed(list, json!({ "inserted": absent, "refreshed": present, "expires": expires })))
    }

    fn delete_all(&mut self, who: &str, scope: &Scope, list: &List) -> Result<Answer, ApiError> {
        let ListResult { present, absent, .. } = self.shared.change(|firewall| {
            firewall.delete_all(scope, &list.networks, ListName::UNNAMED, SystemTime::now())
        })?;
        log::info!(
            "{who}: list: {present} deleted, {absent} absent, {} skipped: {scope}",
            list.skipped_total
        );
        Ok(listed(list, json!({ "deleted": present, "absent": absent })))
    }

    fn list(&self, filter: &Filter) -> Result<Listing, ApiError> {
        self.slots.check(filter)?;
        Ok(self.shared.read(|firewall| firewall.list(filter, SystemTime::now()))?)
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

impl Pending {
    /// Whether rules are to be listed.
    pub(crate) fn is_listing(&self) -> bool {
        matches!(self.command, Command::List(_))
    }

    /// Takes the next bytes of the body.
    ///
    /// # Errors
    /// The answer of a request that is refused, which is logged.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<(), Answer> {
        let Pending { origin, command, list: Some(list), whitelist } = self else { return Ok(()) };
        let taken = list.take(bytes, |network| forbidden(command, whitelist, network));
        taken.map_err(|error| origin.refuse(&error.into()))
    }

    /// Sees the end of the body.
    ///
    /// # Errors
    /// As with [`Pending::take`].
    pub(crate) fn end(&mut self) -> Result<(), Answer> {
        let Pending { origin, command, list: Some(list), whitelist } = self else { return Ok(()) };
        let ended = list.end(|network| forbidden(command, whitelist, network));
        ended.map_err(|error| origin.refuse(&error.into()))
    }

    /// Logs that the body can't be read; the answer, unless the connection is broken.
    pub(crate) fn fail(&self, error: &HttpError) -> Option<Answer> {
        let target = self.origin.target.escape_debug();
        log::info!("{}: {} {target}: {error}", self.origin.who, self.origin.method);
        unreadable(error)
    }

    /// Refuses the request, since the server ends.
    pub(crate) fn end_of_service(&self) -> Answer {
        self.origin.refuse(&ApiError::Ending)
    }
}

/// Why an address of a list is to be skipped.
fn forbidden(command: &Command, whitelist: &WhiteList, network: &Network) -> Option<String> {
    let (Command::InsertAll { scope, .. } | Command::DeleteAll(scope)) = command else { return None };
    if let Err(error) = scope.clone().rule(*network) {
        return Some(error.to_string());
    }
    let inserts = matches!(command, Command::InsertAll { .. });
    let listed = whitelist.overlap(network).filter(|_| inserts)?;
    Some(ApiError::white_listed(*network, *listed).to_string())
}

impl Origin {
    /// Logs why a request is refused, and gives the answer.
    fn refuse(&self, error: &ApiError) -> Answer {
        let target = self.target.escape_debug();
        log::log!(error.level(), "{}: {} {target}: {error}", self.who, self.method);
        error.answer()
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

fn changed(outcome: firewall::Outcome, rule: &Rule, lease: Lease) -> Answer {
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
