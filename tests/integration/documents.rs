//! What people read: the help, the manual pages, the shipped configuration and white
//! list, held against each other, against the source and against a running rfw.

use crate::host::{self, Host, Rfw};
use serde_json::{Deserializer, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

const RFW: &str = env!("CARGO_BIN_EXE_rfw");
const MANUALS: [&str; 3] = ["etc/man/rfw.8", "etc/man/rfw.conf.5", "etc/man/rfwgen.1"];

/// A file of the source tree.
#[track_caller]
fn read(path: &str) -> String {
    let whole = format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(&whole).unwrap_or_else(|error| panic!("{whole}: {error}"))
}

/// A file of the source without its tests.
#[track_caller]
fn source(path: &str) -> String {
    let text = read(path);
    text.split("#[cfg(test)]").next().unwrap().to_owned()
}

/// What stands between two texts.
#[track_caller]
fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let (_, rest) = text.split_once(start).unwrap_or_else(|| panic!("no {start:?}"));
    rest.split_once(end).unwrap_or_else(|| panic!("no {end:?} behind {start:?}")).0
}

/// A section of a manual page in mdoc.
#[track_caller]
fn section<'a>(manual: &'a str, title: &str) -> &'a str {
    let (_, rest) = manual.split_once(&format!("\n.Sh {title}\n")).unwrap_or_else(|| panic!("no {title}"));
    rest.split("\n.Sh ").next().unwrap()
}

/// The items of lists in mdoc, each with its text. Items that follow one another at
/// once share the text of the last.
fn items<'a>(text: &'a str, kind: &str) -> Vec<(&'a str, &'a str)> {
    let mut items: Vec<(&str, &str)> = Vec::new();
    for part in text.split("\n.It ").skip(1) {
        let (head, rest) = part.split_once('\n').unwrap_or((part, ""));
        items.push((head, rest.split("\n.El").next().unwrap()));
    }
    for at in (1..items.len()).rev() {
        if items[at - 1].1.is_empty() {
            items[at - 1].1 = items[at].1;
        }
    }
    items.retain_mut(|(head, _)| match head.strip_prefix(kind) {
        Some(rest) => {
            *head = rest.trim();
            true
        }
        None => false,
    });
    items
}

/// The word that follows "The default is" in mdoc.
fn default_in(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("The default is")?;
    let word = rest.split_whitespace().find(|word| !matches!(*word, ".Pa" | ".Li" | ".Cm"))?;
    Some(word.trim_end_matches(['.', ',']).to_owned())
}

/// An option of a command line: its name and its argument as the help shows them,
/// and its default.
type Flags = BTreeMap<String, (String, Option<String>)>;

/// The options of a help text. The description of each begins behind two blanks, or
/// in the next line.
fn flags_of_help(help: &str) -> Flags {
    let mut flags = Flags::new();
    let lines: Vec<&str> = help.lines().collect();
    for (at, line) in lines.iter().enumerate().filter(|(_, line)| line.trim_start().starts_with('-')) {
        let more = lines[at + 1..].iter().take_while(|line| !line.trim_start().starts_with('-'));
        let text = more.fold((*line).to_owned(), |text, line| text + " " + line.trim());
        let default =
            text.split_once("(default ").map(|(_, rest)| rest.split(')').next().unwrap().to_owned());
        let head = line.trim_start().split("  ").next().unwrap();
        let (names, arguments): (Vec<&str>, Vec<&str>) =
            head.split([' ', ',']).filter(|word| !word.is_empty()).partition(|word| word.starts_with('-'));
        for name in names {
            flags.insert(name.to_owned(), (arguments.join(" "), default.clone()));
        }
    }
    flags
}

/// The options that a line of mdoc names: `Fl` begins options, `Ar` an argument.
fn flags_of_line(line: &str) -> (Vec<String>, String) {
    let (mut names, mut argument, mut macros) = (Vec::new(), String::new(), Vec::new());
    for word in line.split_whitespace() {
        match word.trim_start_matches('.') {
            "Fl" | "Ar" | "Op" => macros.push(word.trim_start_matches('.')),
            "," | "|" | "..." => {}
            _ if macros.last() == Some(&"Fl") => names.push(format!("-{word}")),
            _ if macros.ends_with(&["Op", "Ar"]) && !names.is_empty() => argument = format!("[{word}]"),
            _ if macros.last() == Some(&"Ar") => word.clone_into(&mut argument),
            _ => {}
        }
    }
    (names, argument)
}

/// The options that a manual page explains.
fn flags_of_manual(manual: &str) -> Flags {
    let mut flags = Flags::new();
    for (head, text) in items(section(manual, "DESCRIPTION"), "Fl") {
        let (names, argument) = flags_of_line(&format!("Fl {head}"));
        for name in names {
            flags.insert(name, (argument.clone(), default_in(text)));
        }
    }
    flags
}

/// The options in the synopsis of a manual page.
fn synopsis(manual: &str) -> BTreeSet<String> {
    section(manual, "SYNOPSIS").lines().flat_map(|line| flags_of_line(line).0).collect()
}

#[test]
fn mandoc_has_nothing_to_say_against_the_manual_pages() {
    for manual in MANUALS {
        let path = format!("{}/{manual}", env!("CARGO_MANIFEST_DIR"));
        let said = host::run("mandoc", &["-T", "lint", "-W", "warning", &path]);
        assert_eq!((said.status, said.out.as_str(), said.err.as_str()), (Some(0), "", ""), "{manual}");
    }
}

#[test]
fn the_help_and_the_manual_name_the_same_options_and_defaults() {
    let manual = read("etc/man/rfw.8");
    let help = flags_of_help(&host::run(RFW, &["--help"]).ok());
    assert_eq!(help["-f"], ("FILE".to_owned(), Some("/etc/rfw/rfw.conf".to_owned())));
    assert_eq!(flags_of_manual(&manual), help);
    assert_eq!(synopsis(&manual), help.keys().cloned().collect());
}

#[test]
fn the_help_and_the_manual_of_rfwgen_name_the_same_options_and_numbers() {
    let (manual, script) = (read("etc/man/rfwgen.1"), read("etc/deploy/rfwgen"));
    let said = host::run(&format!("{}/etc/deploy/rfwgen", env!("CARGO_MANIFEST_DIR")), &["--help"]).ok();
    let names = |flags: Flags| -> BTreeMap<String, String> {
        flags.into_iter().map(|(name, (argument, _))| (name, argument)).collect()
    };
    assert_eq!(names(flags_of_manual(&manual)), names(flags_of_help(&said)));
    assert_eq!(synopsis(&manual), flags_of_help(&said).into_keys().collect());
    for number in ["ca_days", "default_days", "max_days"] {
        let value = between(&script, &format!("\n{number}="), "\n");
        assert!(section(&manual, "DESCRIPTION").contains(value), "{number}={value}");
    }
    let line = between(&said, "Exit status: ", "\n");
    let statuses = line.split([' ', ',']).filter(|word| word.parse::<u8>().is_ok());
    let manual = items(section(&manual, "EXIT STATUS"), "").into_iter().map(|(head, _)| head);
    assert_eq!(manual.collect::<Vec<_>>(), statuses.collect::<Vec<_>>());
}

#[test]
fn the_manual_tells_every_exit_status() {
    let start = source("src/start.rs");
    let arms = between(&start, "ExitCode::from(match self {", "})");
    let mut statuses: BTreeSet<&str> = arms
        .lines()
        .filter_map(|line| line.split_once("=> "))
        .map(|(_, rest)| rest.trim_end_matches(','))
        .collect();
    statuses.insert("0");
    let manual = read("etc/man/rfw.8");
    let told: BTreeSet<&str> =
        items(section(&manual, "EXIT STATUS"), "").into_iter().map(|(n, _)| n).collect();
    assert_eq!(told, statuses);
    assert_eq!(told.len(), 4);
}

#[test]
fn the_manual_tells_every_http_status() {
    let mut statuses = BTreeSet::new();
    for file in ["src/http.rs", "src/api.rs"] {
        let text = source(file);
        for before in ["Some(", "=> ", "status: "] {
            statuses.extend(text.split(before).skip(1).filter_map(|rest| {
                let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
                digits.parse::<u16>().ok().filter(|status| (200..600).contains(status))
            }));
        }
    }
    let manual = read("etc/man/rfw.8");
    let told =
        items(section(&manual, "HTTP STATUS"), "Li").into_iter().map(|(head, _)| head.parse().unwrap());
    assert_eq!(told.collect::<BTreeSet<u16>>(), statuses);
    assert!(statuses.len() > 10, "{statuses:?}");
}

/// Numbers and words of the source that the manual gives: the file, its line, the
/// words in a manual page.
#[test]
fn limits_and_names_in_the_manual_are_those_of_the_source() {
    let golden = [
        ("src/body.rs", "BODY_MAX: u64 = 16 << 20;", "may have 16 MiB"),
        ("src/body.rs", "STEP_TIME: Duration = Duration::from_secs(5);", "no pause longer than 5 seconds"),
        ("src/body.rs", "WHOLE_TIME: Duration = Duration::from_secs(60);", "within 60."),
        ("src/http.rs", "HEAD_MAX: usize = 8 << 10;", "headers together 8 KiB"),
        ("src/http.rs", "HEADERS_MAX: usize = 64;", "more than 64 headers"),
        ("src/server.rs", "REQUEST_TIME: Duration = Duration::from_secs(5);", "there within 5 seconds"),
        ("src/server.rs", "IDLE_TIME: Duration = Duration::from_secs(300);", "at most 300 seconds"),
        ("src/sweeper.rs", "LOOK_TIME: Duration = Duration::from_secs(60);", "put back within a minute"),
        ("src/list.rs", "SKIPPED_MAX: usize = 100;", "holds the first hundred"),
        ("src/lease.rs", "LONGEST: u64 = 36_500 * 86_400;", "36500d"),
        ("src/ipset.rs", "TIMEOUT_MAX: u64 = 2_147_483;", "more than 2147483 seconds"),
        ("src/ipset.rs", "format!(\"rfw-work-{process}\")", ".Li rfw-work- ,"),
        ("src/rule.rs", "INTERFACE_MAX: usize = 15;", "1 to 15 letters"),
        ("src/rule.rs", "Family::V4 => 9,", "9 to 32 for IPv4"),
        ("src/rule.rs", "Family::V6 => 16,", "16 to 128 for IPv6"),
        ("src/config.rs", "CREDENTIAL_MAX: usize = 255;", "At most 255 bytes each"),
        ("src/tls.rs", "ENDS_SOON: Duration = Duration::from_secs(30 * 86_400);", "ends within 30 days"),
        ("src/iptables.rs", "GUARD: &str = \"rfw guard\";", ".It Li rfw guard"),
        ("src/iptables.rs", "SET: &str = \"rfw set\";", ".It Li rfw set"),
        ("src/lease.rs", "\"rfw until {moment}\"", ".It Li rfw until 2026-"),
        ("src/lease.rs", "\"rfw permanent\"", ".It Li rfw permanent"),
    ];
    let manual = (read("etc/man/rfw.8") + &read("etc/man/rfw.conf.5")).replace('\n', " ");
    for (file, line, words) in golden {
        assert!(source(file).contains(line), "{file} has no {line}");
        assert!(manual.contains(words), "no manual page says: {words}");
    }
}

/// The options that the source knows, flags with no value.
fn options_of_source() -> BTreeMap<String, bool> {
    let config = source("src/config.rs");
    let mut options = BTreeMap::new();
    for (name, is_flag) in [("FLAGS", true), ("VALUES", false)] {
        let list = between(&config, &format!("const {name}: "), "];");
        let quoted = list.split('"').skip(1).step_by(2);
        options.extend(quoted.map(|option| (option.to_owned(), is_flag)));
    }
    options
}

/// The options that the manual explains, with their defaults; flags have none.
fn options_of_manual() -> BTreeMap<String, (bool, Option<String>)> {
    let manual = read("etc/man/rfw.conf.5");
    let options = items(section(&manual, "DESCRIPTION"), "Ic").into_iter().map(|(head, text)| {
        let (name, value) = head.split_once(' ').unwrap_or((head, ""));
        let is_flag = value.is_empty();
        assert_eq!(is_flag, text.starts_with("A flag: "), "{name}");
        assert_eq!(is_flag, text.replace('\n', " ").contains("Off by default"), "{name}");
        assert!(is_flag || value.starts_with("No = Ar "), "{head}");
        (name.to_owned(), (is_flag, default_in(text)))
    });
    options.collect()
}

/// An option as the shipped file has it.
#[derive(Debug, PartialEq, Eq)]
struct Shipped {
    on: bool,
    value: Option<String>,
}

/// The options of the shipped file. A comment has a blank behind its `#`; what has
/// none is an option that is off.
fn shipped_options() -> BTreeMap<String, Shipped> {
    let mut options = BTreeMap::new();
    for line in read("etc/rfw.conf").lines() {
        let text = line.strip_prefix('#').unwrap_or(line);
        if text.is_empty() || text.starts_with([' ', '[']) {
            continue;
        }
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name.trim(), Some(value.trim().to_owned())),
            None => (text, None),
        };
        let option = Shipped { on: !line.starts_with('#'), value };
        assert_eq!(options.insert(name.to_owned(), option), None, "{name} is there twice");
    }
    options
}

#[test]
fn the_manual_and_the_shipped_configuration_name_every_option() {
    let source = options_of_source();
    assert!(source.len() > 15, "{source:?}");
    let manual: BTreeMap<String, bool> =
        options_of_manual().into_iter().map(|(name, (is_flag, _))| (name, is_flag)).collect();
    assert_eq!(manual, source);
    let shipped: BTreeMap<String, bool> =
        shipped_options().into_iter().map(|(name, option)| (name, option.value.is_none())).collect();
    assert_eq!(shipped, source);
}

#[test]
fn every_option_has_one_default() {
    let in_source = [
        ("outward.server.port", "7393", "options.port(\"outward.server.port\", 7393)"),
        ("outward.server.ip", "0.0.0.0", "self.read(name, Ipv4Addr::UNSPECIFIED.into(),"),
        ("outward.server.certfile", "/etc/rfw/ssl/server.crt", ""),
        ("outward.server.keyfile", "/etc/rfw/ssl/server.key", ""),
        ("local.server.port", "7390", "options.port(\"local.server.port\", 7390)"),
        ("default.expire", "24h", "Interval::parse(\"24h\")"),
        ("whitelist.file", "/etc/rfw/white.list", ""),
        ("iptables.path", "iptables", ""),
        ("ip6tables.path", "ip6tables", "format!(\"{before}ip6tables{after}\")"),
        ("ipset.path", "ipset", ""),
        ("ipset.maxelem", "1048576", "self.read(name, 1 << 20,"),
    ];
    let (source, manual, shipped) = (source("src/config.rs"), options_of_manual(), shipped_options());
    for (name, default, code) in in_source {
        let path = format!("options.path(\"{name}\", \"{default}\")");
        let code = if code.is_empty() { &path } else { code };
        assert!(source.contains(code), "{name}: no {code} in src/config.rs");
        assert_eq!(manual[name].1.as_deref(), Some(default), "{name} in rfw.conf(5)");
        assert_eq!(shipped[name].value.as_deref(), Some(default), "{name} in etc/rfw.conf");
    }
    let without: Vec<&String> =
        manual.iter().filter(|(_, (flag, value))| !flag && value.is_none()).map(|(n, _)| n).collect();
    assert_eq!(without, ["auth.password", "auth.username"]);
    assert_eq!(manual.values().filter(|(flag, _)| !flag).count(), in_source.len() + without.len());
}

#[test]
fn the_shipped_configuration_is_safe() {
    let shipped = shipped_options();
    for (name, on) in [
        ("outward.server", true),
        ("local.server", false),
        ("local.server.authentication", false),
        ("non.restful", false),
        ("ipset", false),
    ] {
        assert_eq!(shipped[name], Shipped { on, value: None }, "{name}");
    }
    for name in ["auth.username", "auth.password"] {
        assert_eq!(shipped[name], Shipped { on: true, value: Some(String::new()) }, "{name}");
    }
}

/// The shipped files, but for the folder that they are to be in.
fn shipped(host: &Host) -> Rfw<'_> {
    let rfw = host.rfw("iptables");
    let folder = host.dir.display().to_string();
    let conf = read("etc/rfw.conf").replace("/etc/rfw/ssl", &folder).replace("/etc/rfw", &folder);
    host.write("rfw.conf", 0o600, &conf);
    rfw.white_list(&read("etc/white.list"))
}

#[test]
fn the_shipped_configuration_starts_when_it_is_filled_in_and_not_before() {
    let host = Host::new();
    let rfw = shipped(&host);
    let line = |option: &str| {
        let conf = read("etc/rfw.conf");
        conf.lines().position(|line| line.starts_with(option)).unwrap() + 1
    };
    let said = rfw.call(&["--check"]).fails_with(78);
    assert!(
        said.starts_with(&format!("rfw: rfw.conf:{}: auth.username: not set", line("auth.username"))),
        "{said}"
    );
    let rfw = rfw.reconfigure("auth.username =", "auth.username = me");
    let said = rfw.call(&["--check"]).fails_with(78);
    assert!(
        said.starts_with(&format!("rfw: rfw.conf:{}: auth.password: not set", line("auth.password"))),
        "{said}"
    );
    let rfw = rfw.reconfigure("auth.password =", "auth.password = secret");
    let said = rfw.call(&["--check"]).fails_with(78);
    assert!(said.contains("white.list: no entry"), "{said}");
    let list = read("etc/white.list") + "127.0.0.1  # the laptop\n";
    let rfw = rfw.white_list(&list);
    assert_eq!(rfw.call(&["--check"]).ok(), "rfw.conf: ok, 1 network in the white list\n");

    let rfw = rfw.start();
    let help = rfw.ok("GET", "/");
    assert_eq!(help["listening"], serde_json::json!(["https://0.0.0.0:7393"]));
    assert_eq!(help["default.expire"], "86400s");
}

#[test]
fn every_option_that_is_off_can_be_turned_on_by_its_line() {
    let host = Host::new();
    let rfw = shipped(&host).white_list("127.0.0.1\n");
    let conf = fs::read_to_string(host.dir.join("rfw.conf")).unwrap();
    let lines = conf.lines().map(|line| match line.strip_prefix('#') {
        Some(option) if option.starts_with(|c: char| c.is_ascii_alphabetic()) => option,
        _ => line,
    });
    let all = lines.collect::<Vec<_>>().join("\n") + "\n";
    assert_ne!(all, conf);
    host.write("rfw.conf", 0o600, &all);
    let rfw = rfw
        .reconfigure("auth.username =", "auth.username = me")
        .reconfigure("auth.password =", "auth.password = secret");
    rfw.call(&["--check"]).ok();
}

#[test]
fn every_example_of_the_white_list_is_one() {
    let host = Host::new();
    let rfw = host.rfw("iptables");
    let shipped = read("etc/white.list");
    let (_, examples) = shipped.split_once("# Examples").unwrap();
    let entries: Vec<&str> = examples.lines().skip(1).filter_map(|line| line.strip_prefix("# ")).collect();
    assert!(entries.len() > 4, "{entries:?}");
    let manual = read("etc/man/rfw.conf.5");
    let (_, after) = section(&manual, "EXAMPLES").split_once("A white list:\n").unwrap();
    let more: Vec<&str> = between(after, ".Bd -literal -offset indent\n", ".Ed").lines().collect();
    for entry in entries.iter().chain(&more) {
        rfw.host.write("white.list", 0o644, &format!("{entry}\n"));
        rfw.call(&["--check"]).ok();
    }
}

#[test]
fn the_least_configuration_in_the_manual_is_one() {
    let host = Host::new();
    let rfw = host.rfw("iptables");
    let manual = read("etc/man/rfw.conf.5");
    let least = between(section(&manual, "EXAMPLES"), ".Bd -literal -offset indent\n", ".Ed");
    host.write("rfw.conf", 0o600, least);
    let folder = host.dir.display();
    let files = format!(
        "whitelist.file = {folder}/white.list\noutward.server.certfile = {folder}/server.crt\n\
         outward.server.keyfile = {folder}/server.key"
    );
    rfw.configure(&files).call(&["--check"]).ok();
}

/// The rules of all chains without their comments.
fn rules(host: &Host, command: &str) -> Vec<String> {
    let all = ["INPUT", "FORWARD", "OUTPUT"].into_iter().flat_map(|chain| host.rules(command, chain));
    let bare = all.map(|rule| match rule.split_once(" -m comment --comment \"") {
        Some((before, rest)) => before.to_owned() + rest.split_once('"').unwrap().1,
        None => rule,
    });
    bare.collect()
}

#[test]
fn the_requests_in_the_manual_make_the_rules_that_it_says() {
    let host = Host::new();
    let rfw = host.rfw("iptables").start();
    let manual = read("etc/man/rfw.8");
    let table = between(section(&manual, "REQUESTS"), "\n.Bd -literal\n", ".Ed");
    let lines: Vec<&str> = table.lines().collect();
    let mut count = 0;
    for pair in lines.chunks(2) {
        let [request, meaning] = pair else { panic!("{pair:?}") };
        let (method, path) = request.split_once(' ').unwrap();
        if method == "DELETE" {
            continue;
        }
        assert_eq!(rfw.ok(method, path)["result"], "inserted", "{request}");
        let (words, _) = meaning.split_once(", ").unwrap_or((meaning, ""));
        let words: Vec<&str> = words.split_whitespace().collect();
        let made = rules(&host, words[0]);
        assert_eq!(made.len(), 1, "{request}");
        let bare = path.split('?').next().unwrap();
        assert_eq!(rfw.ok("DELETE", bare)["result"], "deleted", "{request}");
        host.run(words[0], &words[1..]).ok();
        assert_eq!(rules(&host, words[0]), made, "{request}");
        let delete: Vec<&str> =
            words[1..].iter().map(|word| if *word == "-I" { "-D" } else { word }).collect();
        host.run(words[0], &delete).ok();
        count += 1;
    }
    assert_eq!(count, 5);
}

/// A value with nothing but the names of its parts.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(object) => object.iter().map(|(key, value)| (key.clone(), shape(value))).collect(),
        Value::Array(array) => array.first().map(shape).into_iter().collect(),
        Value::Number(_) => Value::from("number"),
        _ => Value::from("text"),
    }
}

#[test]
fn answers_have_the_shape_that_the_manual_shows() {
    let manual = read("etc/man/rfw.8");
    let blocks = section(&manual, "ANSWERS").split("\n.Bd -literal\n").skip(1);
    let text: String = blocks.map(|block| block.split(".Ed").next().unwrap()).collect();
    let shown: Vec<Value> = Deserializer::from_str(&text).into_iter::<Value>().map(Result::unwrap).collect();
    let [change, list_put, list_deleted, rows, error] = shown.as_slice() else { panic!("{shown:?}") };

    let host = Host::new();
    let rfw = host.rfw("iptables").start();
    let answer = rfw.ok("PUT", "/drop/input/any/66.66.66.66?expire=1h");
    assert_eq!(shape(&answer), shape(change));
    assert_eq!(shape(&rfw.ok("GET", "/list")), shape(rows));
    host.write("feed", 0o644, "66.66.66.66\n0.0.0.0/8\n");
    let url = "https://127.0.0.1:7393/drop/input/any";
    let put = rfw.curl(&["-u", "me:secret", "-T", "feed", url]).json();
    assert_eq!(shape(&put), shape(list_put));
    host.write("feed", 0o644, "66.66.66.66\n");
    let deleted = rfw.curl(&["-u", "me:secret", "-X", "DELETE", "--data-binary", "@feed", url]).json();
    assert_eq!(shape(&deleted), shape(list_deleted));
    let refused = rfw.request("PUT", "/drop/input/any/10.0.0.0/8");
    assert_eq!(refused.json(), *error);
}
