//! The grammar by its golden tables.

use super::*;
use proptest::prelude::*;

use crate::golden::cases;

fn read(method: Method, target: &str, non_restful: bool) -> String {
    match parse(&method, target, non_restful) {
        Ok(Parsed { command, is_dry_run: false }) => printed(&command),
        Ok(Parsed { command, is_dry_run: true }) => format!("dry run: {}", printed(&command)),
        Err(error) => format!("error: {error}"),
    }
}

fn in_format(format: Option<Format>) -> String {
    format.map(|format| format!(" as {}", format.name())).unwrap_or_default()
}

fn printed(command: &Command) -> String {
    let within = |list: &ListName| if list.is_named() { format!(" in {list}") } else { String::new() };
    let put = |Put { list, expire, reason }: &Put| {
        let expire = expire.map(|expire| format!(" for {expire}")).unwrap_or_default();
        let reason = reason.as_ref().map(|reason| format!(" because {}", reason.as_str()));
        format!("{}{expire}{}", within(list), reason.unwrap_or_default())
    };
    match command {
        Command::Help => "help".to_owned(),
        Command::Page => "page".to_owned(),
        Command::Health => "health".to_owned(),
        Command::Metrics => "metrics".to_owned(),
        Command::List { filter: Filter { chain, interface, target, address, list, .. }, format } => {
            let list = list.map(|list| format!(" in {}", list.word())).unwrap_or_default();
            let target = target.map(|target| format!(" to {}", target.name())).unwrap_or_default();
            let address = address.map(|address| address.to_string());
            format!("list {chain:?} {interface:?} {address:?}{list}{target}{}", in_format(*format))
        }
        Command::Lists { list, format } => format!("lists {list:?}{}", in_format(*format)),
        Command::Changes(since) => {
            let since = since.map(|since| format!(" since {since}")).unwrap_or_default();
            format!("changes{since}")
        }
        Command::Insert { rule, put: how } => format!("insert {rule}{}", put(how)),
        Command::Delete { rule, list } => format!("delete {rule}{}", within(list)),
        Command::InsertAll { scope, put: how, body: BodyOptions { replace, reasons, special } } => {
            let options = [(replace, "replace"), (reasons, "reasons"), (special, "special")];
            let options =
                options.into_iter().filter(|(given, _)| **given).map(|(_, name)| format!(" {name}"));
            format!("insert all at {scope}{}{}", put(how), options.collect::<String>())
        }
        Command::DeleteAll { scope, list } => format!("delete all at {scope}{}", within(list)),
        Command::DeleteLists { lists, scope: None } => format!("delete lists {lists:?}"),
        Command::DeleteLists { lists, scope: Some(scope) } => format!("delete lists {lists:?} at {scope}"),
        Command::DeleteAddress { address, lists } => format!("delete {address} from {lists:?}"),
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
        ("/list", true, "GET, HEAD, DELETE"),
        ("/lists", true, "GET, HEAD"),
        ("/health", true, "GET, HEAD"),
        ("/changes", true, "GET, HEAD"),
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
fn a_request_names_its_list() {
    for (at, [method, target, expected]) in cases("url-lists.txt") {
        let method = method.parse().unwrap();
        assert_eq!(read(method, &target, false), expected, "{at}");
    }
}

#[test]
fn a_get_that_may_change_takes_what_a_put_takes() {
    for (at, [method, target, expected]) in cases("url-lists.txt") {
        let (modify, is_change) = match method.as_str() {
            "PUT" => ("insert", !expected.starts_with("error: this path takes")),
            "DELETE" => ("delete", !target.starts_with("/list")),
            _ => continue,
        };
        if is_change && !expected.contains("unknown parameter") {
            let target = format!("{target}{}modify={modify}", if target.contains('?') { "&" } else { "?" });
            assert_eq!(read(Method::Get, &target, true), expected, "{at}");
        }
    }
}

#[test]
fn without_a_body_all_of_a_named_list_is_deleted() {
    let golden = [
        ("/drop/input/any?list=tor", "delete lists One(tor) at INPUT -j DROP"),
        ("/drop/input/any", "delete all at INPUT -j DROP"),
        ("/drop/input/any/1.2.3.4?list=tor", "delete INPUT -s 1.2.3.4 -j DROP in tor"),
    ];
    for (target, expected) in golden {
        let command = parse(&Method::Delete, target, false).unwrap().command.without_body();
        assert_eq!(printed(&command), expected, "{target}");
    }
    let put = parse(&Method::Put, "/drop/input/any?list=tor", false).unwrap().command.without_body();
    assert_eq!(printed(&put), "insert all at INPUT -j DROP in tor");
}

#[test]
fn a_filter_admits_what_was_put_there() {
    for (at, [list, put, expected]) in cases("filter.txt") {
        let command = |method, target: &str| parse(&method, target, false).unwrap().command;
        let Command::List { filter, .. } = command(Method::Get, &list) else { panic!("{at}") };
        let Command::Insert { rule, .. } = command(Method::Put, &put) else { panic!("{at}") };
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
