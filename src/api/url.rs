//! The URL grammar: parses a method and a request target into a [`Command`]. An error quotes
//! the invalid part and names what is expected.
//!
//! ```text
//! /target/chain/interface/address[/mask]                               input, output
//! /target/forward/interface/address[/mask][/interface[/address[/mask]]]
//! /target/chain/interface                                              address list as body
//! /list[/chain[/interface]]                                            GET, with list=, address=, target=, format=
//! /list                                                                DELETE, with list= or address=
//! /lists                                                               GET, with list=, format=
//! /health                                                              GET
//! /changes                                                             GET, with since=
//! /metrics                                                             GET
//! /
//! ```
//!
//! Each segment is percent-decoded (RFC 3986, 2.1) after the path is split. Unknown and
//! repeated parameters and surplus segments are errors. Words are taken in any case. A change has the parameters `expire`,
//! `wait`, `list`, `reason` and `dry`, and `modify` with a GET; the PUT of an address list also
//! `replace`, `reasons` and `special`.

use crate::api::changes::Since;
use crate::api::format::Format;
use crate::api::page;
use crate::api::parameters::{Parameters, percent_decode};
pub(crate) use crate::api::url_error::UrlError;
use crate::firewall::WhichLists;
use crate::firewall::listing::Filter;
use crate::rule::lease::Interval;
use crate::rule::list_name::ListName;
use crate::rule::network::{self, Network};
use crate::rule::note::Reason;
use crate::rule::{Chain, Interface, Rule, RuleError, Scope, Target};
use tiny_http::Method;

/// A parsed request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parsed {
    /// What is asked for.
    pub command: Command,
    /// Whether a change is not to be made: the answer tells what it would do.
    pub is_dry_run: bool,
}

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    /// Describe the API.
    Help,
    /// The page for a browser, in the place of the description.
    Page,
    /// Tell whether all is well.
    Health,
    /// Tell what is counted and measured.
    Metrics,
    /// List the rules that a filter matches.
    List {
        /// The filter.
        filter: Filter,
        /// The form that the request names.
        format: Option<Format>,
    },
    /// Tell what a list, or each, holds.
    Lists {
        /// The list.
        list: Option<ListName>,
        /// The form that the request names: JSON or CSV.
        format: Option<Format>,
    },
    /// Tell what clients have changed, from there on.
    Changes(Option<Since>),
    /// Insert a rule, or renew the lease of an existing one.
    Insert {
        /// The rule.
        rule: Rule,
        /// How it goes in.
        put: Put,
    },
    /// Delete a rule.
    Delete {
        /// The rule.
        rule: Rule,
        /// The list that it is taken out of.
        list: ListName,
    },
    /// Insert or renew a rule for each address of the body.
    InsertAll {
        /// Target, chain and interfaces of the rules.
        scope: Scope,
        /// How they go in.
        put: Put,
        /// What is asked of the body.
        body: BodyOptions,
    },
    /// Delete the rule of each address of the body.
    DeleteAll {
        /// Target, chain and interfaces of the rules.
        scope: Scope,
        /// The list that they are taken out of.
        list: ListName,
    },
    /// Delete all that lists hold, in one scope or in every.
    DeleteLists {
        /// The lists.
        lists: WhichLists,
        /// The scope, if it is one.
        scope: Option<Scope>,
    },
    /// Delete exactly this address or network, in every scope.
    DeleteAddress {
        /// The address.
        address: Network,
        /// The lists that it is taken out of.
        lists: WhichLists,
    },
}

/// How an address goes in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Put {
    /// The list.
    pub list: ListName,
    /// The lifetime; `None` is the configured default.
    pub expire: Option<Interval>,
    /// Why.
    pub reason: Option<Reason>,
}

/// What is asked of the body of a PUT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BodyOptions {
    /// Whether the list is to hold nothing else in that scope afterwards.
    pub replace: bool,
    /// Whether the comment of a line is the reason of its address.
    pub reasons: bool,
    /// Whether addresses go in that are not globally reachable.
    pub special: bool,
}

impl Command {
    /// Whether it changes nothing.
    pub(crate) fn only_reads(&self) -> bool {
        matches!(
            self,
            Command::Help
                | Command::Page
                | Command::Health
                | Command::Metrics
                | Command::Changes(_)
                | Command::List { .. }
                | Command::Lists { .. }
        )
    }

    /// Whether its addresses are those of a body.
    pub(crate) fn has_body(&self) -> bool {
        matches!(self, Command::InsertAll { .. } | Command::DeleteAll { .. })
    }

    /// The command of a request with that header `Accept`: it decides where the request names no form.
    pub(crate) fn accepting(self, accept: &str) -> Command {
        match self {
            Command::List { filter, format: None } => {
                Command::List { filter, format: Some(Format::accepted(accept, Format::OF_ROWS)) }
            }
            Command::Lists { list, format: None } => {
                Command::Lists { list, format: Some(Format::accepted(accept, Format::OF_LISTS)) }
            }
            Command::Help if page::is_preferred(accept) => Command::Page,
            command => command,
        }
    }

    /// The command of a request without a body: a DELETE of no addresses of a named list is one of all.
    pub(crate) fn without_body(self) -> Command {
        match self {
            Command::DeleteAll { scope, list } if list.is_named() => {
                Command::DeleteLists { lists: WhichLists::One(list), scope: Some(scope) }
            }
            command => command,
        }
    }
}

/// Parses a method and a request target in origin or absolute form (RFC 9112, 3.2).
/// `non_restful` permits a GET to change rules with the parameter `modify`.
///
/// # Errors
/// See [`UrlError`].
pub(crate) fn parse(method: &Method, target: &str, non_restful: bool) -> Result<Parsed, UrlError> {
    let (path, query) = match origin_form(target).split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (origin_form(target), None),
    };
    let verb = Verb::of(method);
    let mut segments = match Segments::of(path) {
        // `OPTIONS *` and `CONNECT host:port` have no path (RFC 9112, 3.2.3 and 3.2.4).
        Err(UrlError::Path(_)) if verb == Verb::Unknown => {
            return Err(UrlError::Method { allow: "GET, HEAD, PUT, POST, DELETE" });
        }
        segments => segments?,
    };
    let parameters = Parameters::of(query)?;
    let Some(action) = segments.next() else { return help(verb, &parameters) };
    let command = match action.to_ascii_lowercase().as_str() {
        "list" => list(verb, segments, &parameters),
        "lists" => lists(verb, segments, &parameters),
        "health" => bare(Command::Health, verb, segments, &parameters),
        "metrics" => bare(Command::Metrics, verb, segments, &parameters),
        "changes" => changes(verb, segments, &parameters),
        _ => match Target::parse(&action) {
            Some(target) => change(verb, target, segments, &parameters, non_restful),
            None => Err(UrlError::Action(action)),
        },
    }?;
    // Only changes have the parameter.
    Ok(Parsed { command, is_dry_run: parameters.is_true("dry")? })
}

fn help(verb: Verb, parameters: &Parameters) -> Result<Parsed, UrlError> {
    verb.only_read()?;
    parameters.only(&[])?;
    Ok(Parsed { command: Command::Help, is_dry_run: false })
}

/// A command that takes nothing with it.
fn bare(
    command: Command,
    verb: Verb,
    segments: Segments,
    parameters: &Parameters,
) -> Result<Command, UrlError> {
    verb.only_read()?;
    parameters.only(&[])?;
    segments.end()?;
    Ok(command)
}

fn list(verb: Verb, mut segments: Segments, parameters: &Parameters) -> Result<Command, UrlError> {
    match verb {
        Verb::Read => {}
        Verb::Remove => return delete_lists(segments, parameters),
        Verb::Write | Verb::Unknown => return Err(UrlError::Method { allow: "GET, HEAD, DELETE" }),
    }
    parameters.only(&["address", "list", "target", "format"])?;
    let (address, list) = (parameters.address()?, parameters.list_or_unnamed()?);
    let (target, format) = (parameters.target()?, parameters.format(Format::OF_ROWS)?);
    let chain = segments.next().map(|text| chain(&text)).transpose()?;
    let interface = segments.next().map(|text| interface(&text)).transpose()?;
    segments.end()?;
    let filter = Filter { chain, interface, target, address, list, visible: None };
    Ok(Command::List { filter, format })
}

fn delete_lists(segments: Segments, parameters: &Parameters) -> Result<Command, UrlError> {
    parameters.only(&["list", "address", "dry"])?;
    let (lists, address) = (parameters.lists()?, parameters.address()?);
    segments.end()?;
    match (lists, address) {
        (None, None) => Err(UrlError::Nothing),
        (Some(lists), None) => Ok(Command::DeleteLists { lists, scope: None }),
        (lists, Some(address)) => {
            Ok(Command::DeleteAddress { address, lists: lists.unwrap_or(WhichLists::All) })
        }
    }
}

fn lists(verb: Verb, segments: Segments, parameters: &Parameters) -> Result<Command, UrlError> {
    verb.only_read()?;
    parameters.only(&["list", "format"])?;
    segments.end()?;
    Ok(Command::Lists { list: parameters.list_or_unnamed()?, format: parameters.format(Format::OF_LISTS)? })
}

fn changes(verb: Verb, segments: Segments, parameters: &Parameters) -> Result<Command, UrlError> {
    verb.only_read()?;
    parameters.only(&["since"])?;
    segments.end()?;
    Ok(Command::Changes(parameters.since()?))
}

fn change(
    verb: Verb,
    target: Target,
    mut segments: Segments,
    parameters: &Parameters,
    non_restful: bool,
) -> Result<Command, UrlError> {
    let verb = verb.or_modify(parameters, non_restful)?;
    let known = CHANGE.split_last().map_or(CHANGE, |(_, known)| known);
    parameters.only(if non_restful { CHANGE } else { known })?;
    parameters.wait()?;
    let put = Put { list: parameters.list()?, expire: parameters.expire()?, reason: parameters.reason()? };
    let chain = chain(&segments.wanted("a chain: input, output or forward")?)?;
    let near = interface(&segments.wanted("an interface or \"any\"")?)?;
    let Some(address) = segments.next() else {
        return change_all(verb, scope(target, chain, near), put, parameters);
    };
    let network = network(&address, &mut segments)?;
    let rule = match chain {
        Chain::Input | Chain::Output => scope(target, chain, near).rule(network)?,
        Chain::Forward => forward(target, near, network, &mut segments)?,
    };
    segments.end()?;
    no_body_options(parameters)?;
    Ok(match verb {
        Verb::Remove => Command::Delete { rule, list: put.list },
        Verb::Write | Verb::Read | Verb::Unknown => Command::Insert { rule, put },
    })
}

/// The parameters of a change; the last one only where a GET may change rules.
const CHANGE: &[&str] =
    &["expire", "wait", "list", "reason", "dry", "replace", "reasons", "special", "modify"];

/// The change of all addresses of a body.
fn change_all(verb: Verb, scope: Scope, put: Put, parameters: &Parameters) -> Result<Command, UrlError> {
    if verb == Verb::Remove {
        no_body_options(parameters)?;
        return Ok(Command::DeleteAll { scope, list: put.list });
    }
    let body = BodyOptions {
        replace: parameters.is_true("replace")?,
        reasons: parameters.is_true("reasons")?,
        special: parameters.is_true("special")?,
    };
    Ok(Command::InsertAll { scope, put, body })
}

/// Checks that nothing is asked of a body where none is put in.
fn no_body_options(parameters: &Parameters) -> Result<(), UrlError> {
    let misplaced = ["replace", "reasons", "special"].into_iter();
    let misplaced = misplaced.filter(|name| parameters.value(name).is_some());
    misplaced.map(UrlError::Misplaced).next().map_or(Ok(()), Err)
}

/// The scope of a rule that names one interface, which is the input interface in forward.
fn scope(target: Target, chain: Chain, near: Option<Interface>) -> Scope {
    match chain {
        Chain::Input => Scope::input(target, near),
        Chain::Output => Scope::output(target, near),
        Chain::Forward => Scope::forward(target, near, None),
    }
}

/// Parses what follows the source of a forward rule: output interface and destination.
fn forward(
    target: Target,
    near: Option<Interface>,
    source: Network,
    segments: &mut Segments,
) -> Result<Rule, UrlError> {
    let far = segments.next().map(|text| interface(&text)).transpose()?.flatten();
    let destination = segments.next().map(|text| network(&text, segments)).transpose()?;
    if let Some(destination) = destination.filter(|network| network.family() != source.family()) {
        return Err(RuleError::Families(source, destination).into());
    }
    let specified = |network: &Network| !network.is_unspecified();
    let (source, destination) = (Some(source).filter(specified), destination.filter(specified));
    Ok(Rule::new(Scope::forward(target, near, far), source, destination)?)
}

fn chain(text: &str) -> Result<Chain, UrlError> {
    Chain::parse(text).ok_or_else(|| UrlError::Chain(text.to_owned()))
}

/// Parses an interface; `None` is `any`, in any case.
fn interface(text: &str) -> Result<Option<Interface>, UrlError> {
    match text.eq_ignore_ascii_case("any") {
        true => Ok(None),
        false => Ok(Some(text.parse()?)),
    }
}

/// Parses an address and the mask in the segment after it, if that is a number.
fn network(address: &str, segments: &mut Segments) -> Result<Network, UrlError> {
    Ok(network::parse(address, segments.next_number().as_deref())?)
}

/// A method by its effect: GET and HEAD read, PUT and POST write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Read,
    Write,
    Remove,
    Unknown,
}

impl Verb {
    fn of(method: &Method) -> Verb {
        match method {
            Method::Get | Method::Head => Verb::Read,
            Method::Put | Method::Post => Verb::Write,
            Method::Delete => Verb::Remove,
            _ => Verb::Unknown,
        }
    }

    fn only_read(self) -> Result<(), UrlError> {
        match self {
            Verb::Read => Ok(()),
            Verb::Write | Verb::Remove | Verb::Unknown => Err(UrlError::Method { allow: "GET, HEAD" }),
        }
    }

    /// The verb of a request for a rule: with `non_restful`, `modify` decides that of a GET.
    fn or_modify(self, parameters: &Parameters, non_restful: bool) -> Result<Verb, UrlError> {
        match (self, parameters.value("modify").map(str::to_ascii_lowercase).as_deref()) {
            (Verb::Unknown, _) if non_restful => {
                Err(UrlError::Method { allow: "GET, HEAD, PUT, POST, DELETE" })
            }
            (Verb::Read, Some(_)) if !non_restful => Err(UrlError::NonRestful { allow: "PUT, POST, DELETE" }),
            (Verb::Unknown | Verb::Read, _) if !non_restful => {
                Err(UrlError::Method { allow: "PUT, POST, DELETE" })
            }
            (Verb::Read, Some("insert")) => Ok(Verb::Write),
            (Verb::Read, Some("delete")) => Ok(Verb::Remove),
            (Verb::Read, _) => {
                let value = parameters.value("modify").unwrap_or_default().to_owned();
                Err(UrlError::Value("modify", value, "insert or delete"))
            }
            (_, Some(_)) if non_restful => Err(UrlError::ModifyWithoutGet),
            (verb, _) => Ok(verb),
        }
    }
}

/// Path and query of a target; strips scheme and authority of the absolute form.
fn origin_form(target: &str) -> &str {
    let after = |scheme: &str| {
        let (start, rest) = target.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    };
    let rest = ["http://", "https://"].into_iter().find_map(after);
    match rest {
        Some(rest) => rest.find(['/', '?']).and_then(|at| rest.get(at..)).unwrap_or("/"),
        None => target,
    }
}

/// The remaining percent-decoded segments of a path.
struct Segments {
    path: String,
    rest: std::iter::Peekable<std::vec::IntoIter<String>>,
}

impl Segments {
    /// Splits a path; one trailing slash is ignored.
    fn of(path: &str) -> Result<Segments, UrlError> {
        let inner = path.strip_prefix('/').or(path.is_empty().then_some(""));
        let inner = inner.ok_or_else(|| UrlError::Path(path.to_owned()))?;
        let inner = inner.strip_suffix('/').unwrap_or(inner);
        let decoded = match inner {
            "" => Vec::new(),
            _ => inner.split('/').map(percent_decode).collect::<Result<Vec<String>, _>>()?,
        };
        if path == "//" || decoded.iter().any(String::is_empty) {
            return Err(UrlError::EmptySegment(path.to_owned()));
        }
        Ok(Segments { path: path.to_owned(), rest: decoded.into_iter().peekable() })
    }

    fn next(&mut self) -> Option<String> {
        self.rest.next()
    }

    /// The next segment if it consists of digits.
    fn next_number(&mut self) -> Option<String> {
        self.rest.next_if(|text| text.bytes().all(|b| b.is_ascii_digit()))
    }

    fn wanted(&mut self, what: &'static str) -> Result<String, UrlError> {
        self.next().ok_or_else(|| UrlError::Missing(self.path.clone(), what))
    }

    fn end(mut self) -> Result<(), UrlError> {
        self.next().map_or(Ok(()), |text| Err(UrlError::TooMuch(text)))
    }
}

#[cfg(test)]
mod tests;
