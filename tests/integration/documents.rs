//! What people read: the help, the manual pages, the shipped configuration and white
//! list, held against each other and against a running rfw.

use crate::host::{self, Host, Reply, Rfw, SOON, until};
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
    let host = Host::new();
    let rfw = host.rfw("iptables");
    let statuses = [
        rfw.call(&["--check"]),
        host.run(RFW, &["-f", "rfw.conf", "--logfile", "no/such/folder/rfw.log"]),
        rfw.call(&["--chek"]),
        host.run(RFW, &["-f", "no.conf", "--check"]),
    ];
    let statuses = statuses.map(|said| said.status.unwrap().to_string());
    let manual = read("etc/man/rfw.8");
    let told: Vec<&str> = items(section(&manual, "EXIT STATUS"), "").into_iter().map(|(n, _)| n).collect();
    assert_eq!(told, statuses);
}

/// One request for each status: those that are answered at once, then the slow ones.
#[test]
fn the_manual_tells_every_http_status() {
    let host = Host::new();
    let rfw = host.rfw("iptables-legacy").configure("ipset\nipset.maxelem = 1").start();
    let raw = |head: &str| Reply::parse(&rfw.raw(head.as_bytes())).status;
    let mut statuses = BTreeSet::from([
        rfw.request("GET", "/").status,
        rfw.request("GET", "/nope").status,
        rfw.curl(&["-u", "me:wrong", "https://127.0.0.1:7393/"]).status,
        rfw.request("PATCH", "/").status,
        raw("PUT /drop/input/any HTTP/1.1\r\nHost: x\r\nContent-Length: 16777217\r\n\r\n"),
        raw(&format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(9000))),
        raw("PUT /drop/input/any HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n"),
        raw("GET / HTTP/3.0\r\n\r\n"),
        rfw.send("PUT", "/drop/input/any", "1.2.3.4\n1.2.3.5\n").status,
    ]);
    let mut slow = host.connect(7390);
    slow.say(b"GET / HTTP/1.1\r\n");
    statuses.insert(slow.reply().status);
    let lock = host.talk("flock", &["/run/xtables.lock", "sh", "-c", "echo held; exec cat"]);
    until(SOON, "the lock is held", || lock.heard().contains("held"));
    statuses.insert(rfw.request("PUT", "/drop/forward/any/1.2.3.4/any/5.6.7.8").status);
    drop(lock);
    let path = host.run("sh", &["-c", "PATH=$PATH:/usr/sbin:/sbin; command -v ipset"]).ok();
    host.run("mount", &["--bind", "/dev/null", path.trim()]).ok();
    for (process, _) in rfw.children() {
        host::run("kill", &["-s", "KILL", &process.to_string()]).ok();
    }
    statuses.insert(rfw.request("PUT", "/drop/input/any/1.2.3.4").status);

    let manual = read("etc/man/rfw.8");
    let told =
        items(section(&manual, "HTTP STATUS"), "Li").into_iter().map(|(head, _)| head.parse().unwrap());
    assert_eq!(told.collect::<BTreeSet<u16>>(), statuses);
}

/// What the manual bounds: its words, a request within and one beyond, and the status
/// of that.
#[test]
fn the_bounds_in_the_manual_hold() {
    let host = Host::new();
    let rfw = host.rfw("iptables").configure("ipset").start();
    let headers = |count: usize| {
        let more: String = (1..count).map(|n| format!("X-{n}: y\r\n")).collect();
        format!("GET /list HTTP/1.0\r\nHost: x\r\n{more}\r\n")
    };
    let bytes = |count: usize| {
        let empty = "GET /list HTTP/1.0\r\nX: \r\n\r\n";
        empty.replace("X: ", &format!("X: {}", "y".repeat(count - empty.len())))
    };
    let put = |path: &str| format!("PUT /drop/{path} HTTP/1.0\r\n\r\n");
    let golden = [
        ("more than 64 headers", headers(64), headers(65), 431),
        ("together 8 KiB", bytes(8 << 10), bytes((8 << 10) + 1), 431),
        ("9 to 32 for IPv4", put("input/any/1.2.3.4/9"), put("input/any/1.2.3.4/8"), 400),
        ("16 to 128 for IPv6", put("input/any/2001:db8::/16"), put("input/any/2001:db8::/15"), 400),
        (
            "a name of 1 to 15 letters",
            put("input/abcdefghijklmn0/1.2.3.4"),
            put("input/abcdefghijklmno0/1.2.3.4"),
            400,
        ),
        (
            "more than 2147483 seconds",
            put("input/any/1.2.3.4?expire=2147483"),
            put("input/any/1.2.3.4?expire=2147484"),
            400,
        ),
        (
            "36500d",
            put("forward/any/1.2.3.4/any/5.6.7.8?expire=36500d"),
            put("forward/any/1.2.3.4/any/5.6.7.8?expire=36501d"),
            400,
        ),
    ];
    let manual = read("etc/man/rfw.8").replace('\n', " ");
    for (words, within, beyond, status) in golden {
        assert!(manual.contains(words), "rfw.8 does not say: {words}");
        let [within, beyond] = [within, beyond].map(|head| Reply::parse(&rfw.raw(head.as_bytes())));
        assert_eq!(within.status, 200, "{words}: {within:#?}");
        assert_eq!(beyond.status, status, "{words}: {beyond:#?}");
    }
}

#[test]
fn a_name_or_a_password_has_at_most_255_bytes_as_the_manual_says() {
    let host = Host::new();
    let rfw = host.rfw("iptables").reconfigure("= secret", &format!("= {}", "x".repeat(255)));
    assert!(read("etc/man/rfw.conf.5").contains("At most 255 bytes each"));
    rfw.call(&["--check"]).ok();
    let said = rfw.reconfigure("= x", "= xx").call(&["--check"]).fails_with(78);
    assert!(said.contains("auth.password") && said.contains("255"), "{said}");
}

/// Each comment in the kernel is one that the manual explains.
#[test]
fn the_manual_explains_every_comment_of_a_rule() {
    let host = Host::new();
    let rfw = host.rfw("iptables").configure("ipset").start();
    for path in [
        "/drop/input/any/1.2.3.4",
        "/drop/forward/any/1.2.3.4/any/5.6.7.8?expire=0",
        "/drop/forward/any/1.2.3.4/any/5.6.7.9?expire=1h",
    ] {
        rfw.ok("PUT", path);
    }
    let rules = host.tables("iptables").concat();
    let comments = rules.iter().filter_map(|rule| rule.split("--comment \"").nth(1)?.split('"').next());
    // Moments differ.
    let kind = |comment: &str| comment.split(" 20").next().unwrap().to_owned();
    let manual = read("etc/man/rfw.8");
    let told = items(section(&manual, "IN THE KERNEL"), "Li").into_iter().map(|(head, _)| kind(head));
    assert_eq!(told.collect::<BTreeSet<_>>(), comments.map(kind).collect());
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
fn the_manual_and_the_shipped_configuration_name_the_same_options() {
    let manual: BTreeMap<String, bool> =
        options_of_manual().into_iter().map(|(name, (is_flag, _))| (name, is_flag)).collect();
    assert!(manual.len() > 15, "{manual:?}");
    let shipped: BTreeMap<String, bool> =
        shipped_options().into_iter().map(|(name, option)| (name, option.value.is_none())).collect();
    assert_eq!(shipped, manual);
}

/// An option that rfw does not know is refused by name.
#[test]
fn every_option_in_the_manual_is_known_as_a_flag_or_with_a_value() {
    let host = Host::new();
    for (name, (is_flag, _)) in options_of_manual() {
        let (line, why) = match is_flag {
            true => (format!("{name} = yes"), "takes no value"),
            false => (name.clone(), "has no value"),
        };
        host.rfw("iptables");
        host.write("rfw.conf", 0o600, &format!("[config]\n{line}\n"));
        let said = host.run(RFW, &["-f", "rfw.conf", "--check"]).fails_with(78);
        assert!(said.starts_with(&format!("rfw: rfw.conf:2: {name}: {why}")), "{said}");
    }
    host.write("rfw.conf", 0o600, "[config]\nlocal.sever\n");
    let said = host.run(RFW, &["-f", "rfw.conf", "--check"]).fails_with(78);
    assert_eq!(said, "rfw: rfw.conf:2: unknown option \"local.sever\"\n");
}

#[test]
fn every_option_has_one_default() {
    let (manual, shipped) = (options_of_manual(), shipped_options());
    let mut without = Vec::new();
    for (name, (is_flag, default)) in &manual {
        match default {
            Some(default) => assert_eq!(shipped[name].value.as_ref(), Some(default), "{name}"),
            None if *is_flag => {}
            None => without.push(name),
        }
    }
    assert_eq!(without, ["auth.password", "auth.username"]);
}

/// The defaults of what shows from outside.
#[test]
fn what_is_not_configured_is_as_the_manual_says() {
    let host = Host::new();
    let rfw = host
        .rfw("iptables")
        .reconfigure("outward.server.ip = ::\n", "")
        .reconfigure("default.expire = 1h\n", "")
        .reconfigure("iptables.path = iptables\n", "");
    let manual = options_of_manual();
    let default = |name: &str| manual[name].1.clone().unwrap();
    let rfw = rfw.start();
    let help = rfw.ok("GET", "/");
    let outward = format!("https://{}:{}", default("outward.server.ip"), default("outward.server.port"));
    let local = format!("http://127.0.0.1:{}", default("local.server.port"));
    assert_eq!(help["listening"], serde_json::json!([outward, local]));
    let expires = rfw.ok("PUT", &format!("/drop/input/any/1.2.3.4?expire={}", default("default.expire")));
    let same = rfw.ok("PUT", "/drop/input/any/1.2.3.5");
    let minute = |answer: &Value| answer["expires"].as_str().unwrap()[..14].to_owned();
    assert_eq!(minute(&same), minute(&expires));
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
