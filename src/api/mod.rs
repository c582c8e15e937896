//! From a request to its answer: what its head decides ([`Service::begin`]), its body as it
//! comes ([`Pending::take`]), and its execution once it is whole ([`Service::execute`]).

pub(crate) mod address_list;
mod answers;
mod attempts;
pub(crate) mod changes;
mod code;
mod counts;
mod error;
mod execute;
mod exposition;
pub(crate) mod format;
mod health;
mod help;
mod host_name;
mod listing;
mod login;
mod media;
mod metrics;
mod monitor;
mod page;
mod parameters;
mod permit;
mod record;
mod refusal;
mod rows;
mod skipped;
mod status;
pub(crate) mod url;
mod url_error;

use crate::api::address_list::{ListError, ListReader};
use crate::api::attempts::{Attempts, Source, Turn};
use crate::api::changes::Changes;
pub(crate) use crate::api::counts::Refused;
use crate::api::error::ApiError;
pub(crate) use crate::api::host_name::HostName;
pub(crate) use crate::api::listing::Collecting;
use crate::api::listing::Slots;
use crate::api::monitor::Monitor;
pub(crate) use crate::api::monitor::Surroundings;
use crate::api::skipped::forbidden;
use crate::api::url::{Command, Parsed};
use crate::config::clients::{Client, Secret};
use crate::config::file::Config;
use crate::firewall::expiry::SharedFirewall;
use crate::firewall::{FirewallError, Settings};
use crate::http::answer::Answer;
use crate::http::body::Body;
use crate::http::handler::{Place, Refusal, Slowed};
use crate::http::message::{HttpError, Request};
use crate::http::tls::PeerCertificate;
use crate::kernel::guard::Port;
use crate::log_limit::LogLimit;
use crate::logfmt::Line;
use crate::rule::whitelist::WhiteList;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};
use tiny_http::Method;

/// The REST API: executes requests on the firewall.
pub(crate) struct Service {
    host: HostName,
    config: Config,
    shared: Arc<SharedFirewall>,
    whitelist: Rc<WhiteList>,
    slots: Slots,
    /// The limits of log lines about who may not ask, for each code: what programs do that know no password hides
    /// nobody who tries some.
    strangers: BTreeMap<&'static str, LogLimit>,
    attempts: Attempts,
    changes: Changes,
    /// Whether the log has told that the background thread hangs.
    is_stalled: bool,
    monitor: Monitor,
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
    /// The address of the client.
    from: IpAddr,
    /// The client.
    client: Arc<Client>,
    method: Method,
    target: String,
    /// When the request had come whole, or its head where more is to come.
    whole: Instant,
    /// Who answers.
    host: HostName,
    /// Whether it asks what a change would do.
    is_dry_run: bool,
}

/// The client of a connection, and what its listener requires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    /// The source address; IPv4-mapped IPv6 is converted to IPv4.
    pub address: IpAddr,
    /// Whether the listener requires HTTP Basic authentication.
    pub authentication: bool,
    /// Whether the listener is the local one, which accepts only host names of this host.
    pub local: bool,
    /// The certificate that it has shown.
    pub certificate: Option<Rc<PeerCertificate>>,
    /// The header `Authorization` that was right on this connection last. To send it again is no try of a
    /// password, and waits for nobody's.
    pub logged_in: Option<Secret>,
}

impl Peer {
    /// Whether the request logs in with what was right on this connection last.
    fn has_logged_in_with(&self, request: &Request) -> bool {
        let given = request.authorization.as_ref().filter(|_| self.logged_in.is_some());
        given.is_some_and(|text| self.logged_in == Some(Secret::of(text)))
    }
}

impl Service {
    /// A service of a host on its firewall, to which the white list is applied.
    ///
    /// # Errors
    /// The rules can't be changed.
    pub(crate) fn new(
        host: HostName,
        config: Config,
        shared: Arc<SharedFirewall>,
        whitelist: WhiteList,
    ) -> Result<Service, FirewallError> {
        let monitor = Monitor::new(shared.with(|firewall| firewall.variant()), SystemTime::now());
        let service = Service {
            host,
            config,
            shared,
            whitelist: Rc::new(whitelist),
            slots: Slots::default(),
            strangers: BTreeMap::new(),
            attempts: Attempts::default(),
            changes: Changes::new(SystemTime::now()),
            is_stalled: false,
            monitor,
        };
        service.apply_whitelist(&service.config, &service.whitelist)?;
        Ok(service)
    }

    /// Whether a client with that address is admitted to the HTTPS listener: by the white list, or since
    /// one of those with a certificate may come from anywhere.
    pub(crate) fn admits(&self, address: IpAddr) -> bool {
        let from_anywhere = self.config.admits_all() && !self.whitelist.is_never(address);
        from_anywhere || self.whitelist.contains(address)
    }

    /// The answer to a request that can't be read; `None` if the connection is broken.
    pub(crate) fn unreadable(&self, error: &HttpError) -> Option<Answer> {
        refusal::unreadable(error, &self.host)
    }

    /// The white list in force.
    pub(crate) fn whitelist(&self) -> &WhiteList {
        &self.whitelist
    }

    /// Puts a configuration into force, and the white list that it names; on failure the old ones stay.
    /// What of it the firewall keeps to is in `settings`; ports and programs have to be the old ones.
    ///
    /// # Errors
    /// The rules can't be changed.
    pub(crate) fn replace(
        &mut self,
        config: Config,
        settings: Settings,
        list: WhiteList,
    ) -> Result<(), FirewallError> {
        self.apply_whitelist(&config, &list)?;
        self.shared.with(|firewall| firewall.replace_settings(settings));
        self.config = config;
        // Lists that are on their way were compared with one that is the same.
        if *self.whitelist != list {
            self.whitelist = Rc::new(list);
        }
        Ok(())
    }

    /// Updates the guard of the HTTPS port and removes rules that affect white-listed
    /// addresses.
    fn apply_whitelist(&self, config: &Config, list: &WhiteList) -> Result<(), FirewallError> {
        let port = config
            .outward
            .as_ref()
            .map(|outward| Port { number: outward.address.port(), open: config.admits_all() });
        let removed = self.shared.with(|firewall| firewall.guard(port, list, SystemTime::now()))?;
        removed.iter().for_each(|rule| log::warn!("removed, since it touches the white list: {rule}"));
        Ok(())
    }

    /// The configuration.
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// Whether a table had a chain of that name when it was read last.
    pub(crate) fn has_chain(&self, name: &str) -> bool {
        self.shared.with(|firewall| firewall.has_chain(name))
    }

    /// Decides on a request from its head: whether the client may ask, what for, and whether a
    /// body may come. One that waits for its turn comes again with its place in the line.
    ///
    /// # Errors
    /// The answer of a request that is refused, which is logged, or that it has to wait.
    pub(crate) fn begin(
        &mut self,
        peer: &mut Peer,
        request: Request,
        body: &Body,
        place: Option<Place>,
        now: Instant,
    ) -> Result<Pending, Refusal> {
        self.host.renew();
        self.check_host(peer, &request, now)?;
        let is_known = peer.has_logged_in_with(&request);
        let request = if is_known { request } else { self.in_turn(peer, request, place, now)? };
        let client = self.admit(peer, &request, is_known, now)?;
        let parsed = self.command(&client, &request, body);
        let Request { method, target, is_form, .. } = request;
        let is_dry_run = parsed.as_ref().is_ok_and(|parsed| parsed.is_dry_run);
        let origin = Origin {
            from: peer.address,
            client,
            method,
            target,
            whole: now,
            host: self.host.clone(),
            is_dry_run,
        };
        let command =
            parsed.map(|parsed| parsed.command).map_err(|error| Refusal::Answer(origin.refuse(&error)))?;
        let mut list = match &command {
            Command::InsertAll { body, .. } => Some(ListReader::new(body.reasons, body.replace)),
            command => command.has_body().then(ListReader::default),
        };
        list.iter_mut().for_each(|list| list.set_form(is_form));
        Ok(Pending { origin, command, list, whitelist: Rc::clone(&self.whitelist) })
    }

    /// Refuses what is not meant for the local server.
    fn check_host(&mut self, peer: &Peer, request: &Request, now: Instant) -> Result<(), Answer> {
        match request.host.as_ref().filter(|host| peer.local && !login::is_local(host)) {
            None => Ok(()),
            Some(host) => {
                let error = ApiError::Misdirected(host.clone());
                Err(refuse_stranger(&mut self.strangers, peer, &error, &self.host, now))
            }
        }
    }

    /// Gives a request back whose turn it is: one with credentials, from an address that has sent many
    /// wrong passwords in a row, has to wait.
    fn in_turn(
        &mut self,
        peer: &Peer,
        request: Request,
        place: Option<Place>,
        now: Instant,
    ) -> Result<Request, Refusal> {
        if !peer.authentication || request.authorization.is_none() {
            return Ok(request);
        }
        match self.attempts.turn(Source::of(peer), place, now) {
            Turn::Now => Ok(request),
            Turn::Later { until, place } => Err(Refusal::Slowed(Box::new(Slowed { request, place, until }))),
            Turn::Full { waiting, until } => {
                let error = ApiError::TooManyTries(waiting, until.saturating_duration_since(now));
                Err(refuse_stranger(&mut self.strangers, peer, &error, &self.host, now).into())
            }
        }
    }

    /// The client, or the answer to one who may not ask; lines about these are few.
    fn admit(
        &mut self,
        peer: &mut Peer,
        request: &Request,
        is_known: bool,
        now: Instant,
    ) -> Result<Arc<Client>, Answer> {
        let listed = self.whitelist.contains(peer.address);
        match login::client(&self.config.clients, peer, request, listed, SystemTime::now()) {
            Ok(client) => {
                // Who sends again what was right ends no row of others.
                if let Some(text) =
                    request.authorization.as_ref().filter(|_| peer.authentication && !is_known)
                {
                    self.attempts.right(Source::of(peer), &client.name);
                    peer.logged_in = Some(Secret::of(text));
                }
                Ok(client)
            }
            // A client, who is told as one: not at his place.
            Err(error @ ApiError::From(..)) => Err(refuse_place(peer, request, &error, &self.host)),
            Err(error) => {
                peer.logged_in = None;
                let answer = refuse_stranger(&mut self.strangers, peer, &error, &self.host, now);
                if matches!(error, ApiError::WrongCredentials)
                    && let Some(row) = self.attempts.wrong(Source::of(peer), &login::username(request), now)
                {
                    let address = peer.address;
                    log::warn!("{address}: {row} wrong passwords in a row, each further try waits a second");
                }
                Err(answer)
            }
        }
    }

    /// The command of a request that may have this body.
    fn command(&self, client: &Client, request: &Request, body: &Body) -> Result<Parsed, ApiError> {
        let Parsed { command, is_dry_run } =
            url::parse(&request.method, &request.target, self.config.non_restful)?;
        if request.from_other_page && !command.only_reads() {
            return Err(ApiError::WebPage);
        }
        body.check_length().map_err(ListError::Http)?;
        if let Some(coding) = request.content_coding.as_ref().filter(|_| !body.is_empty()) {
            return Err(ApiError::Compressed(coding.clone()));
        }
        let command = match command {
            command if body.is_empty() => command.without_body(),
            command if command.has_body() => command,
            _ => return Err(ApiError::Body),
        };
        permit::check(&client.rights, &command, self.config.default_expire)?;
        let command = command.accepting(&request.accept);
        Ok(Parsed { command, is_dry_run })
    }

    /// Checks what a configuration that was read while the request came may have changed: the rights of the
    /// client, and the time that `default.expire` gives, which they may limit.
    fn check_again(&self, origin: &Origin, command: &Command) -> Result<(), ApiError> {
        let client = &origin.client;
        if !self.config.clients.has(client) {
            return Err(ApiError::RightsChanged(client.name.clone()));
        }
        Ok(permit::check(&client.rights, command, self.config.default_expire)?)
    }

    /// Executes a request that has come whole, and logs and counts the outcome.
    pub(crate) fn execute(&mut self, pending: Pending) -> Outcome {
        let (method, whole) = (pending.origin.method.clone(), pending.origin.whole);
        let outcome = self.carry_out(pending);
        if let Outcome::Answer(answer) = &outcome {
            self.count_answer(Some(&method), answer, whole.elapsed());
        }
        outcome
    }

    /// Executes it, and logs the outcome.
    fn carry_out(&mut self, pending: Pending) -> Outcome {
        let Pending { origin, command, list, whitelist } = pending;
        let list = list.map(ListReader::into_list).unwrap_or_default();
        // What was compared with another white list is not to be believed.
        let current = Rc::ptr_eq(&whitelist, &self.whitelist);
        if let Err(error) = self.check_again(&origin, &command) {
            return Outcome::Answer(origin.refuse(&error));
        }
        let answer = match command {
            Command::List { filter, format } => match self.list(&origin, filter) {
                Ok(listing) => {
                    let format = format.unwrap_or_default();
                    let collecting = Collecting::new(origin, listing, format, &self.slots);
                    return Outcome::Listing(Box::new(collecting));
                }
                Err(error) => Err(error),
            },
            Command::InsertAll { .. } if !current => Err(ApiError::WhiteListChanged),
            Command::InsertAll { scope, put, body } => self.insert_all(&origin, &scope, put, body, list),
            Command::DeleteAll { scope, list: name } => self.delete_all(&origin, &scope, name, &list),
            Command::DeleteLists { lists, scope } => self.delete_lists(&origin, lists, scope.as_ref()),
            Command::DeleteAddress { address, lists } => self.delete_address(&origin, &address, lists),
            Command::Help => Ok(help::help(&self.config, &origin.client, &self.host)),
            Command::Metrics => Ok(self.metrics(SystemTime::now())),
            Command::Page => Ok(page::page()),
            Command::Health => Ok(self.health(&origin, SystemTime::now())),
            Command::Lists { list, format } => self.lists(&origin, list, format.unwrap_or_default()),
            Command::Changes(since) => Ok(self.list_changes(&origin, since)),
            Command::Insert { rule, put } => self.insert(&origin, &rule, put),
            Command::Delete { rule, list } => self.delete(&origin, &rule, list),
        };
        Outcome::Answer(answer.unwrap_or_else(|error| origin.refuse(&error)))
    }
}

impl Pending {
    /// Whether rules are to be listed.
    pub(crate) fn is_listing(&self) -> bool {
        matches!(self.command, Command::List { .. })
    }

    /// Takes the next bytes of the body.
    ///
    /// # Errors
    /// The answer of a request that is refused, which is logged.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<(), Answer> {
        let Pending { origin, command, list: Some(list), whitelist } = self else { return Ok(()) };
        let rights = &origin.client.rights;
        let taken = list.take(bytes, |network| forbidden(rights, command, whitelist, network));
        taken.map_err(|error| origin.refuse(&error.into()))
    }

    /// Sees the end of the body.
    ///
    /// # Errors
    /// As with [`Pending::take`].
    pub(crate) fn end(&mut self, now: Instant) -> Result<(), Answer> {
        self.origin.whole = now;
        let Pending { origin, command, list: Some(list), whitelist } = self else { return Ok(()) };
        let rights = &origin.client.rights;
        let ended = list.end(|network| forbidden(rights, command, whitelist, network));
        ended.map_err(|error| origin.refuse(&error.into()))
    }

    /// Logs that the body can't be read; the answer, unless the connection is broken.
    pub(crate) fn fail(&self, error: &HttpError) -> Option<Answer> {
        log::info!("{}", refusal::unreadable_line(self.origin.line(), error));
        refusal::unreadable(error, &self.origin.host)
    }

    /// Refuses the request, since the server ends.
    pub(crate) fn end_of_service(&self) -> Answer {
        self.origin.refuse(&ApiError::Ending)
    }
}

/// Gives the answer to a client who may not ask, and has the log tell of it now and then.
fn refuse_stranger(
    lines: &mut BTreeMap<&'static str, LogLimit>,
    peer: &Peer,
    error: &ApiError,
    host: &HostName,
    now: Instant,
) -> Answer {
    let lines = lines.entry(code::of(error)).or_default();
    lines.log_pairs(now, log::Level::Warn, error.line(Line::default().with("from", peer.address)));
    error.answer(host)
}

/// Logs that a client asks from where it may not, and gives the answer.
fn refuse_place(peer: &Peer, request: &Request, error: &ApiError, host: &HostName) -> Answer {
    let name = if let ApiError::From(name, _) = error { name } else { "" };
    let line = request_line(name, peer.address, &request.method, &request.target);
    log::log!(error.level(), "{}", error.line(line));
    error.answer(host)
}

/// The line of the log about what comes from that address and is no request.
pub(crate) fn unreadable_line(from: IpAddr, error: &HttpError) -> Line {
    refusal::unreadable_line(Line::default().with("from", from), error)
}

/// What a line of the log about a request begins with.
fn request_line(client: &str, from: IpAddr, method: &Method, target: &str) -> Line {
    let line = Line::default().with("client", client).with("from", from);
    line.with("method", method).with("url", target)
}

impl Origin {
    /// What a line of the log about the request begins with.
    fn line(&self) -> Line {
        request_line(&self.client.name, self.from, &self.method, &self.target)
    }

    /// Logs why a request is refused, and gives the answer.
    fn refuse(&self, error: &ApiError) -> Answer {
        log::log!(error.level(), "{}", error.line(self.line()));
        error.answer_to(&self.client.rights, &self.host)
    }
}
