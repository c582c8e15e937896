use super::Input;
use crate::api::format::Format;
use crate::api::url::{BodyOptions, Command, Parsed, Put, parse};
use crate::firewall::WhichLists;
use crate::firewall::listing::Filter;
use crate::rule::network::{Family, Network};
use crate::rule::{Chain, Interface, Rule, Scope};
use tiny_http::Method;

/// Input: a byte for the method and whether a GET may change rules; a target.
pub(super) fn holds(data: &[u8]) {
    let mut input = Input::new(data);
    let choice = input.byte();
    let non_restful = choice & 8 != 0;
    let methods = [
        Method::Get,
        Method::Put,
        Method::Delete,
        Method::Head,
        Method::Post,
        Method::Options,
        Method::Patch,
    ];
    let method = &methods[usize::from(choice & 7) % methods.len()];
    let Ok(target) = str::from_utf8(input.rest()) else { return };
    let result = parse(method, target, non_restful);
    if target.starts_with('/') {
        let absolute = format!("HTTPS://user@[::1]:7393{target}");
        assert_eq!(parse(method, &absolute, non_restful), result, "{absolute}");
    }
    if !target.contains('%') && target.starts_with('/') {
        let encoded = encode_all(target);
        assert_eq!(parse(method, &encoded, non_restful).ok(), result.clone().ok(), "{encoded}");
    }
    match result {
        Ok(Parsed { command, is_dry_run }) => {
            let reads = matches!(method, Method::Get | Method::Head) && !non_restful;
            assert!(!reads || command.only_reads());
            assert!(!matches!(method, Method::Options | Method::Patch));
            assert!(!is_dry_run || !command.only_reads());
            check(&command);
        }
        Err(error) => {
            let told = error.to_string();
            assert!(!told.contains(char::is_control), "{told:?}");
            assert!(told.len() < 400 + 12 * target.len(), "{told:?}");
        }
    }
}

/// A command is that of the target that it is printed as.
fn check(command: &Command) {
    let (method, target) = print(command);
    let parsed = Parsed { command: command.clone(), is_dry_run: false };
    assert_eq!(parse(&method, &target, false), Ok(parsed), "{method} {target}");
    if let Command::Insert { rule, .. } | Command::Delete { rule, .. } = command {
        let least = |family| if family == Family::V4 { 9 } else { 16 };
        for network in rule.networks() {
            assert!(network.prefix() >= least(network.family()) && !network.is_unspecified());
            assert_eq!(network.family(), rule.family());
        }
        assert!(rule.networks().count() > 0);
    }
}

fn print(command: &Command) -> (Method, String) {
    let list = |list: &crate::rule::list_name::ListName| {
        list.is_named().then(|| format!("list={}", list.as_str())).into_iter().collect::<Vec<_>>()
    };
    let lists = |lists: &WhichLists| match lists {
        WhichLists::All => "list=*".to_owned(),
        WhichLists::One(list) => format!("list={}", list.word()),
    };
    let (method, path, query) = match command {
        Command::Help | Command::Page => (Method::Get, "/".to_owned(), Vec::new()),
        Command::Health => (Method::Get, "/health".to_owned(), Vec::new()),
        Command::Metrics => (Method::Get, "/metrics".to_owned(), Vec::new()),
        Command::List { filter, format: form } => {
            (Method::Get, filter_path(filter), filter_query(filter).into_iter().chain(format(form)).collect())
        }
        Command::Lists { list, format: form } => {
            let query = list.map(|list| format!("list={}", list.word())).into_iter();
            (Method::Get, "/lists".to_owned(), query.chain(format(form)).collect())
        }
        Command::Changes(since) => (
            Method::Get,
            "/changes".to_owned(),
            since.map(|since| format!("since={since}")).into_iter().collect(),
        ),
        Command::Insert { rule, put } => (Method::Put, rule_path(rule), put_query(put)),
        Command::Delete { rule, list: from } => (Method::Delete, rule_path(rule), list(from)),
        Command::InsertAll { scope, put, body: BodyOptions { replace, reasons, special } } => {
            let options = [(replace, "replace"), (reasons, "reasons"), (special, "special")];
            let options = options.iter().filter(|(given, _)| **given).map(|(_, name)| format!("{name}=true"));
            (Method::Put, scope_path(scope), put_query(put).into_iter().chain(options).collect())
        }
        Command::DeleteAll { scope, list: from } => (Method::Delete, scope_path(scope), list(from)),
        Command::DeleteLists { lists: which, .. } => (Method::Delete, "/list".to_owned(), vec![lists(which)]),
        Command::DeleteAddress { address, lists: which } => {
            (Method::Delete, "/list".to_owned(), vec![lists(which), format!("address={address}")])
        }
    };
    let mark = if query.is_empty() { "" } else { "?" };
    (method, format!("{path}{mark}{}", query.join("&")))
}

fn put_query(Put { list, expire, reason }: &Put) -> Vec<String> {
    let list = list.is_named().then(|| format!("list={}", list.as_str()));
    let expire = expire.map(|expire| format!("expire={expire}"));
    let reason = reason.as_ref().map(|reason| format!("reason={}", encode(reason.as_str())));
    [list, expire, reason].into_iter().flatten().collect()
}

fn filter_path(Filter { chain, interface, .. }: &Filter) -> String {
    let chain = chain.map_or_else(String::new, |chain| format!("/{}", chain.name().to_lowercase()));
    let interface = interface.as_ref().map_or_else(String::new, |i| format!("/{}", name(i.as_ref())));
    format!("/list{chain}{interface}")
}

fn filter_query(Filter { address, list, target, .. }: &Filter) -> Vec<String> {
    let address = address.map(|address| format!("address={address}"));
    let list = list.map(|list| format!("list={}", list.word()));
    let target = target.map(|target| format!("target={}", target.name()));
    [address, list, target].into_iter().flatten().collect()
}

fn format(format: &Option<Format>) -> Option<String> {
    format.map(|format| format!("format={}", format.name()))
}

fn name(interface: Option<&Interface>) -> String {
    interface.map_or_else(|| "any".to_owned(), |interface| interface.pattern().replace('+', ""))
}

/// The path of all rules of a scope, of which one in FORWARD names the input interface only.
fn scope_path(scope: &Scope) -> String {
    let interface = match scope.chain() {
        Chain::Output => scope.output_interface(),
        Chain::Input | Chain::Forward => scope.input_interface(),
    };
    format!("/{}/{}/{}", scope.target().name(), scope.chain().name(), name(interface))
}

fn rule_path(rule: &Rule) -> String {
    let unspecified = if rule.family() == Family::V4 { "0.0.0.0" } else { "::" };
    let side = |network: Option<&Network>| {
        network.map_or_else(
            || unspecified.to_owned(),
            |network| format!("{}/{}", network.addr(), network.prefix()),
        )
    };
    let start = scope_path(rule.scope());
    match rule.scope().chain() {
        Chain::Input => format!("{start}/{}", side(rule.source())),
        Chain::Output => format!("{start}/{}", side(rule.destination())),
        Chain::Forward => {
            let far = name(rule.scope().output_interface());
            format!("{start}/{}/{far}/{}", side(rule.source()), side(rule.destination()))
        }
    }
}

/// A target of which every byte is percent-encoded but those that part it.
fn encode_all(target: &str) -> String {
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let segments: Vec<String> = path.split('/').map(encode).collect();
    let pair = |pair: &str| match pair.split_once('=') {
        Some((name, value)) => format!("{}={}", encode(name), encode(value)),
        None => encode(pair),
    };
    let query = query.map(|query| query.split('&').map(pair).collect::<Vec<_>>().join("&"));
    segments.join("/") + &query.map_or_else(String::new, |query| format!("?{query}"))
}

fn encode(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}
