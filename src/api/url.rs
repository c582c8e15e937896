//! The URL grammar: parses a method and a request target into a [`Command`]. An error quotes
//! the invalid part and names what is expected.
//!
//! ```text
//! /target/chain/interface/address[/mask]                               input, output
//! /target/forward/interface/address[/mask][/interface[/address[/mask]]]
//! /target/chain/interface                                              address list as body
//! /list[/chain[/interface]]
//! /
//! ```
//!
//! Each segment is percent-decoded (RFC 3986, 2.1) after the path is split. Unknown and
//! repeated parameters and surplus segments are errors.

use crate::firewall::listing::Filter;
use crate::rule::lease::{Interval, IntervalError};
use crate::rule::network::{self, Network, NetworkError};
use crate::rule::{Chain, Interface, Rule, RuleError, Scope, Target};
use tiny_http::Method;

/// A parsed request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    /// Describe the API.
    Help,
    /// List the rules that match a filter.
    List(Filter),
    /// Insert a rule, or renew the lease of an existing one.
    Insert {
        /// The rule.
        rule: Rule,
        /// The lifetime; `None` is the configured default.
        expire: Option<Interval>,
    },
    /// Delete a rule.
    Delete(Rule),
    /// Insert or renew a rule for each address of the body.
    InsertAll {
        /// Target, chain and interfaces of the rules.
        scope: Scope,
        /// The lifetime; `None` is the configured default.
        expire: Option<Interval>,
    },
    /// Delete the rule of each address of the body.
    DeleteAll(Scope),
}

/// Parses a method and a request target in origin or absolute form (RFC 9112, 3.2).
/// `non_restful` permits a GET to change rules with the parameter `modify`.
///
/// # Errors
/// See [`UrlError`].
pub(crate) fn parse(method: &Method, target: &str, non_restful: bool) -> Result<Command, UrlError> {
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
    match segments.next().as_deref() {
        None => help(verb, &parameters),
        Some("list") => list(verb, segments, &parameters),
        Some(text) => match Target::parse(text) {
            Some(target) => change(verb, target, segments, &parameters, non_restful),
            None => Err(UrlError::Action(text.to_owned())),
        },
    }
}

fn help(verb: Verb, parameters: &Parameters) -> Result<Command, UrlError> {
    verb.only_read()?;
    parameters.only(&[])?;
    Ok(Command::Help)
}

fn list(verb: Verb, mut segments: Segments, parameters: &Parameters) -> Result<Command, UrlError> {
    verb.only_read()?;
    parameters.only(&["address"])?;
    let address = parameters.value("address").map(str::parse::<Network>).transpose()?;
    let chain = segments.next().map(|text| chain(&text)).transpose()?;
    let interface = segments.next().map(|text| interface(&text)).transpose()?;
    segments.end()?;
    Ok(Command::List(Filter { chain, interface, address, list: None }))
}

fn change(
    verb: Verb,
    target: Target,
    mut segments: Segments,
    parameters: &Parameters,
    non_restful: bool,
) -> Result<Command, UrlError> {
    let verb = verb.or_modify(parameters, non_restful)?;
    parameters.only(if non_restful { &["expire", "wait", "modify"] } else { &["expire", "wait"] })?;
    let expire = parameters.expire()?;
    parameters.wait()?;
    let chain = chain(&segments.wanted("a chain: input, output or forward")?)?;
    let near = interface(&segments.wanted("an interface or \"any\"")?)?;
    let Some(address) = segments.next() else {
        let scope = scope(target, chain, near);
        return Ok(match verb {
            Verb::Remove => Command::DeleteAll(scope),
            Verb::Write | Verb::Read | Verb::Unknown => Command::InsertAll { scope, expire },
        });
    };
    let network = network(&address, &mut segments)?;
    let rule = match chain {
        Chain::Input | Chain::Output => scope(target, chain, near).rule(network)?,
        Chain::Forward => forward(target, near, network, &mut segments)?,
    };
    segments.end()?;
    Ok(match verb {
        Verb::Remove => Command::Delete(rule),
        Verb::Write | Verb::Read | Verb::Unknown => Command::Insert { rule, expire },
    })
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

/// Parses an interface; `None` is `any`.
fn interface(text: &str) -> Result<Option<Interface>, UrlError> {
    match text {
        "any" => Ok(None),
        _ => Ok(Some(text.parse()?)),
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
        match (self, parameters.value("modify")) {
            (Verb::Unknown, _) if non_restful => {
                Err(UrlError::Method { allow: "GET, HEAD, PUT, POST, DELETE" })
            }
            (Verb::Unknown | Verb::Read, _) if !non_restful => {
                Err(UrlError::Method { allow: "PUT, POST, DELETE" })
            }
            (Verb::Read, Some("insert")) => Ok(Verb::Write),
            (Verb::Read, Some("delete")) => Ok(Verb::Remove),
            (Verb::Read, value) => {
                Err(UrlError::Value("modify", value.unwrap_or_default().to_owned(), "insert or delete"))
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

/// The percent-decoded parameters of a query, each at most once.
struct Parameters(Vec<(String, String)>);

impl Parameters {
    fn of(query: Option<&str>) -> Result<Parameters, UrlError> {
        let mut all: Vec<(String, String)> = Vec::new();
        for pair in query.filter(|query| !query.is_empty()).iter().flat_map(|query| query.split('&')) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (percent_decode(name)?, percent_decode(value)?);
            if all.iter().any(|(known, _)| *known == name) {
                return Err(UrlError::Repeated(name));
            }
            all.push((name, value));
        }
        Ok(Parameters(all))
    }

    fn only(&self, known: &'static [&'static str]) -> Result<(), UrlError> {
        let unknown = self.0.iter().find(|(name, _)| !known.contains(&name.as_str()));
        unknown.map_or(Ok(()), |(name, _)| Err(UrlError::Parameter(name.clone(), known)))
    }

    fn value(&self, wanted: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str())
    }

    fn expire(&self) -> Result<Option<Interval>, UrlError> {
        self.value("expire").map(Interval::parse).transpose().map_err(UrlError::Expire)
    }

    /// Accepts `wait=true` only: a request is answered after the kernel has the change.
    fn wait(&self) -> Result<(), UrlError> {
        match self.value("wait") {
            None => Ok(()),
            Some(value) if value.eq_ignore_ascii_case("true") => Ok(()),
            Some(value) => Err(UrlError::Value("wait", value.to_owned(), "true")),
        }
    }
}

/// Decodes percent-encoded octets (RFC 3986, 2.1); the result has to be UTF-8.
fn percent_decode(text: &str) -> Result<String, UrlError> {
    let error = || UrlError::Encoding(text.to_owned());
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let mut digit = || rest.next().and_then(|b| char::from(b).to_digit(16));
                let (high, low) = (digit().ok_or_else(error)?, digit().ok_or_else(error)?);
                decoded.push(u8::try_from(high * 16 + low).map_err(|_| error())?);
            }
            _ => decoded.push(byte),
        }
    }
    String::from_utf8(decoded).map_err(|_| error())
}

/// Error in a method or a request target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UrlError {
    /// The method is not allowed for this path.
    #[error("this path takes {allow} only")]
    Method {
        /// The allowed methods, as a value of `Allow` (RFC 9110, 10.2.1).
        allow: &'static str,
    },
    /// A path that does not begin with a slash.
    #[error("the path \"{}\" does not begin with /", .0.escape_debug())]
    Path(String),
    /// The path has an empty segment.
    #[error("the path \"{}\" has an empty part", .0.escape_debug())]
    EmptySegment(String),
    /// Invalid percent-encoding, or octets that are not UTF-8.
    #[error("\"{}\" is not percent-encoded UTF-8", .0.escape_debug())]
    Encoding(String),
    /// The first segment is neither a target nor `list`.
    #[error("\"{}\" is not an action: expected drop, accept, reject or list", .0.escape_debug())]
    Action(String),
    /// Not a chain.
    #[error("\"{}\" is not a chain: expected input, output or forward", .0.escape_debug())]
    Chain(String),
    /// Not an address or a mask.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// An interface or an address that is not valid in a rule.
    #[error(transparent)]
    Rule(#[from] RuleError),
    /// A segment is missing: the path, and what is expected.
    #[error("the path \"{path}\" ends too early: expected {1}", path = .0.escape_debug())]
    Missing(String, &'static str),
    /// A surplus segment.
    #[error("\"{}\" is too much: expected the end of the path", .0.escape_debug())]
    TooMuch(String),
    /// An unknown parameter, and the known ones.
    #[error("unknown parameter \"{}\": expected {}", .0.escape_debug(), listed(.1))]
    Parameter(String, &'static [&'static str]),
    /// A repeated parameter.
    #[error("the parameter \"{}\" is given twice", .0.escape_debug())]
    Repeated(String),
    /// A parameter, its invalid value, and what is expected.
    #[error("{0}: \"{value}\" is wrong: expected {2}", value = .1.escape_debug())]
    Value(&'static str, String, &'static str),
    /// An invalid `expire`.
    #[error("expire: {0}")]
    Expire(IntervalError),
    /// The parameter `modify` with a method other than GET or HEAD.
    #[error("the parameter \"modify\" goes with GET only")]
    ModifyWithoutGet,
}

/// Parameter names for an error message.
fn listed(names: &[&str]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    use crate::golden::cases;

    fn read(method: Method, target: &str, non_restful: bool) -> String {
        match parse(&method, target, non_restful) {
            Ok(Command::Help) => "help".to_owned(),
            Ok(Command::List(filter)) => {
                format!(
                    "list {:?} {:?} {:?}",
                    filter.chain,
                    filter.interface,
                    filter.address.map(|a| a.to_string())
                )
            }
            Ok(Command::Insert { rule, expire: None }) => format!("insert {rule}"),
            Ok(Command::Insert { rule, expire: Some(expire) }) => format!("insert {rule} for {expire}"),
            Ok(Command::Delete(rule)) => format!("delete {rule}"),
            Ok(Command::InsertAll { scope, expire }) => format!("insert all at {scope:?} for {expire:?}"),
            Ok(Command::DeleteAll(scope)) => format!("delete all at {scope:?}"),
            Err(error) => format!("error: {error}"),
        }
    }

    #[test]
    fn a_put_is_an_insert() {
        for (at, [target, expected]) in cases("url-insert.txt") {
            assert_eq!(read(Method::Put, &target, false), expected, "{at}");
            assert_eq!(read(Method::Post, &target, true), expected, "{at}");
        }
    }

    #[test]
    fn a_wrong_part_is_quoted() {
        for (at, [target, message]) in cases("url-refused.txt") {
            assert_eq!(read(Method::Put, &target, false), format!("error: {message}"), "{at}");
        }
    }

    #[test]
    fn a_get_reads_unless_it_may_change() {
        for (at, [target, non_restful, expected]) in cases("url-get.txt") {
            let non_restful = non_restful == "on";
            assert_eq!(read(Method::Get, &target, non_restful), expected, "{at}");
            assert_eq!(read(Method::Head, &target, non_restful), expected, "{at}");
        }
    }

    #[test]
    fn other_methods_are_named_what_is_allowed() {
        let golden = [
            ("/drop/input/any/1.2.3.4", false, "PUT, POST, DELETE"),
            ("/drop/input/any/1.2.3.4", true, "GET, HEAD, PUT, POST, DELETE"),
            ("/drop/input/any", false, "PUT, POST, DELETE"),
            ("/list", true, "GET, HEAD"),
            ("/", false, "GET, HEAD"),
        ];
        for method in [Method::Patch, Method::Options, Method::Trace, Method::Connect] {
            for (target, non_restful, allow) in golden {
                let error = parse(&method, target, non_restful).unwrap_err();
                assert_eq!(error, UrlError::Method { allow }, "{method} {target}");
            }
        }
        assert_eq!(read(Method::Delete, "/drop/input/any/1.2.3.4", false), "delete INPUT -s 1.2.3.4 -j DROP");
        assert_eq!(
            read(Method::Delete, "/drop/input/any/1.2.3.4?modify=insert", true),
            "error: the parameter \"modify\" goes with GET only"
        );
    }

    #[test]
    fn a_path_without_an_address_is_for_a_list() {
        let scope = |text: &str| {
            format!("insert all at {:?} for None", Scope::input(Target::Drop, text.parse().ok()))
        };
        let golden = [
            ("/drop/input/eth0", scope("eth0")),
            ("/drop/input/any/", scope("any")),
            (
                "/drop/output/any?expire=5m",
                format!("insert all at {:?} for Some(Interval(300))", Scope::output(Target::Drop, None)),
            ),
            (
                "/accept/forward/any",
                format!("insert all at {:?} for None", Scope::forward(Target::Accept, None, None)),
            ),
        ];
        for (target, expected) in golden {
            assert_eq!(read(Method::Put, target, false), expected, "{target}");
        }
        assert!(read(Method::Delete, "/drop/input/any", false).starts_with("delete all"));
    }

    #[test]
    fn a_filter_admits_what_was_put_there() {
        for (at, [list, put, expected]) in cases("filter.txt") {
            let Ok(Command::List(filter)) = parse(&Method::Get, &list, false) else { panic!("{at}") };
            let Ok(Command::Insert { rule, .. }) = parse(&Method::Put, &put, false) else { panic!("{at}") };
            assert_eq!(filter.admits(&rule), expected == "yes", "{at}");
        }
    }

    proptest! {
        #[test]
        fn no_target_panics(target in "\\PC*", tail in "(/[a-z0-9.:%]{0,6}){0,9}(\\?[a-z=&%0-9]*)?") {
            for text in [target.as_str(), tail.as_str(), &format!("/drop/forward{tail}")] {
                let _ = parse(&Method::Put, text, true);
                let _ = parse(&Method::Get, text, true);
            }
        }
    }
}
