//! What people read: the help, the manual pages, the shipped configuration and white
//! list, held against each other and against a running rfw.

mod configuration;
mod walk;

use crate::host;
use crate::host::{Host, Reply, SOON, Talk, until};
use serde_json::{Deserializer, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::thread;

const RFW: &str = env!("CARGO_BIN_EXE_rfw");
const MANUALS: [&str; 4] = ["etc/man/rfw.8", "etc/man/rfw.conf.5", "etc/man/rfwgen.1", "etc/man/rfwctl.1"];

/// A file of the source tree.
#[track_caller]
pub fn read(path: &str) -> String {
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
fn the_help_the_manual_and_the_completions_of_rfwctl_name_the_same() {
    let manual = read("etc/man/rfwctl.1");
    let help = host::run(&format!("{}/etc/rfwctl/rfwctl", env!("CARGO_MANIFEST_DIR")), &["--help"]).ok();
    let options = flags_of_help(&help);
    let names = |flags: &Flags| -> BTreeMap<String, String> {
        flags.iter().map(|(name, (argument, _))| (name.clone(), argument.clone())).collect()
    };
    assert_eq!(names(&flags_of_manual(&manual)), names(&options));
    assert_eq!(synopsis(&manual), options.keys().cloned().collect());
    let commands: BTreeSet<&str> =
        help.lines().filter_map(|line| line.strip_prefix("  ")?.split([' ', '-']).next()).collect();
    let commands: Vec<&str> = commands.into_iter().filter(|word| !word.is_empty()).collect();
    let told = items(section(&manual, "DESCRIPTION"), "Cm");
    let mut told: Vec<&str> = told.into_iter().filter_map(|(head, _)| head.split(' ').next()).collect();
    told.sort_unstable();
    assert_eq!(told, commands);
    for completion in ["rfwctl", "_rfwctl"] {
        let text = read(&format!("etc/rfwctl/completion/{completion}"));
        let words: Vec<&str> = text
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '-')
            .filter(|word| !word.is_empty())
            .collect();
        let wanted = options.keys().map(String::as_str).filter(|name| *name != "-h");
        for word in wanted.chain(commands.iter().copied()) {
            assert!(words.contains(&word), "{completion} lacks {word}");
        }
    }
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

/// One request for each status. Those that wait do so for the five seconds of the manual
/// at the same time, each on a host of its own.
#[test]
fn the_manual_tells_every_http_status() {
    let statuses: BTreeSet<u16> = thread::scope(|scope| {
        let hosts: [fn() -> Vec<u16>; 5] = [
            statuses_at_once,
            status_of_the_slow,
            status_of_the_locked,
            status_of_the_broken,
            status_of_those_who_guess,
        ];
        let threads = hosts.map(|host| scope.spawn(host));
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let manual = read("etc/man/rfw.8");
    let told =
        items(section(&manual, "HTTP STATUS"), "Li").into_iter().map(|(head, _)| head.parse().unwrap());
    assert_eq!(told.collect::<BTreeSet<u16>>(), statuses);
}

fn statuses_at_once() -> Vec<u16> {
    let host = Host::new();
    let clients = "[client a]\npassword = x";
    let rfw = host.rfw("iptables-legacy").configure(&format!("ipset\nipset.maxelem = 1\n{clients}")).start();
    let raw = |head: &str| Reply::parse(&rfw.raw(head.as_bytes())).status;
    vec![
        rfw.request("GET", "/").status,
        rfw.request("GET", "/list/nope").status,
        rfw.request("GET", "/nope").status,
        rfw.curl(&["-u", "me:wrong", "https://127.0.0.1:7393/"]).status,
        rfw.curl(&["-u", "a:x", "-X", "PUT", "https://127.0.0.1:7393/drop/input/any/1.2.3.4"]).status,
        rfw.request("PATCH", "/").status,
        raw("PUT /drop/input/any HTTP/1.1\r\nHost: localhost\r\nContent-Length: 16777217\r\n\r\n"),
        raw(&format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "x".repeat(9000))),
        raw("PUT /drop/input/any HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n"),
        raw(
            "PUT /drop/input/any HTTP/1.1\r\nHost: localhost\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\n",
        ),
        raw("GET / HTTP/3.0\r\n\r\n"),
        raw("GET / HTTP/1.1\r\nHost: example.org\r\nConnection: close\r\n\r\n"),
        rfw.send("PUT", "/drop/input/any", "1.2.3.4\n1.2.3.5\n").status,
    ]
}

fn status_of_those_who_guess() -> Vec<u16> {
    let host = Host::new();
    let _rfw = host.rfw("iptables-legacy").configure("local.server.authentication").start();
    let wrong = b"GET / HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic bWU6d3Jvbmc=\r\n\r\n";
    let mut talks: Vec<Talk> = (0..12).map(|_| host.connect(7390)).collect();
    let mut first = host.connect(7390);
    for _ in 0..10 {
        first.say(wrong);
        assert_eq!(first.reply().status, 401);
    }
    talks.iter_mut().for_each(|talk| talk.say(wrong));
    until(SOON, "one has an answer", || talks.iter().any(|talk| talk.heard().contains("429")));
    let mut refused = talks.into_iter().filter(|talk| talk.heard().contains("HTTP/1.1 429"));
    vec![refused.next().unwrap().reply().status]
}

fn status_of_the_slow() -> Vec<u16> {
    let host = Host::new();
    let _rfw = host.rfw("iptables-legacy").start();
    let mut slow = host.connect(7390);
    slow.say(b"GET / HTTP/1.1\r\n");
    vec![slow.reply().status]
}

/// Another program holds the lock of the tables.
fn status_of_the_locked() -> Vec<u16> {
    let host = Host::new();
    let rfw = host.rfw("iptables-legacy").start();
    let lock = host.talk("flock", &["/run/xtables.lock", "sh", "-c", "echo held; exec cat"]);
    until(SOON, "the lock is held", || lock.heard().contains("held"));
    vec![rfw.request("PUT", "/drop/input/any/1.2.3.4").status]
}

/// iptables-restore is killed, and is no program any more.
fn status_of_the_broken() -> Vec<u16> {
    let host = Host::new();
    let rfw = host.rfw("iptables-legacy").start();
    rfw.ok("PUT", "/drop/input/any/1.2.3.4");
    for (process, _) in rfw.children() {
        let program = host.run("readlink", &[&format!("/proc/{process}/exe")]).ok();
        host.run("mount", &["--bind", "/dev/null", program.trim()]).ok();
        host::run("kill", &["-s", "KILL", &process.to_string()]).ok();
    }
    vec![rfw.request("PUT", "/drop/input/any/1.2.3.5").status]
}

/// What the manual bounds: its words, a request within and one beyond, and the status
/// of that.
#[test]
fn the_bounds_in_the_manual_hold() {
    let host = Host::new();
    let rfw = host.rfw("iptables").configure("ipset").start();
    let host_of_rules = Host::new();
    let rfw_of_rules = host_of_rules.rfw("iptables").start();
    let headers = |count: usize| {
        let more: String = (1..count).map(|n| format!("X-{n}: y\r\n")).collect();
        format!("GET /list HTTP/1.0\r\nHost: localhost\r\n{more}\r\n")
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
            "more than 3650 days",
            put("input/any/1.2.3.4?expire=3650d"),
            put("input/any/1.2.3.4?expire=3651d"),
            400,
        ),
        ("36500d", put("input/any/1.2.3.4?expire=36500d"), put("input/any/1.2.3.4?expire=36501d"), 400),
    ];
    let manual = read("etc/man/rfw.8").replace('\n', " ");
    for (words, within, beyond, status) in golden {
        assert!(manual.contains(words), "rfw.8 does not say: {words}");
        // Only rules may stay longer than what a set counts.
        let rfw = if words == "36500d" { &rfw_of_rules } else { &rfw };
        let [within, beyond] = [within, beyond].map(|head| Reply::parse(&rfw.raw(head.as_bytes())));
        assert_eq!(within.status, 200, "{words}: {within:#?}");
        assert_eq!(beyond.status, status, "{words}: {beyond:#?}");
    }
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
        "/drop/forward/any/1.2.3.4/any/5.6.7.9?expire=0&list=tor&reason=scanner",
    ] {
        rfw.ok("PUT", path);
    }
    let rules = host.tables("iptables").concat();
    let comments = rules.iter().filter_map(|rule| rule.split("--comment \"").nth(1)?.split('"').next());
    // Moments differ.
    let kind = |comment: &str| comment.split(" 20").next().unwrap().replace(" by me:", " by mietek:");
    let manual = read("etc/man/rfw.8");
    let told = items(section(&manual, "IN THE KERNEL"), "Li").into_iter().map(|(head, _)| kind(head));
    assert_eq!(told.collect::<BTreeSet<_>>(), comments.map(kind).collect());
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
    let [put, deleted, list_put, list_deleted, all_deleted, address_deleted, rows, lists, changes, error] =
        shown.as_slice()
    else {
        panic!("{shown:?}")
    };

    let host = Host::new();
    let rfw = host.rfw("iptables").start();
    let answer = rfw.ok("PUT", "/drop/input/any/66.66.66.66?expire=1h");
    assert_eq!(shape(&answer), shape(put));
    assert_eq!(shape(&rfw.ok("GET", "/list")), shape(rows));
    assert_eq!(shape(&rfw.ok("GET", "/lists")), shape(lists));
    assert_eq!(shape(&rfw.ok("DELETE", "/list?address=66.66.66.66")), shape(address_deleted));
    assert_eq!(shape(&rfw.ok("DELETE", "/list?list=*")), shape(all_deleted));
    assert_eq!(shape(&rfw.ok("DELETE", "/drop/input/any/66.66.66.66")), shape(deleted));
    host.write("feed", 0o644, "66.66.66.66\n0.0.0.0/8\n");
    let url = "https://127.0.0.1:7393/drop/input/any";
    let answer = rfw.curl(&["-u", "me:secret", "-T", "feed", url]).json();
    assert_eq!(shape(&answer), shape(list_put));
    host.write("feed", 0o644, "66.66.66.66\n");
    let answer = rfw.curl(&["-u", "me:secret", "-X", "DELETE", "--data-binary", "@feed", url]).json();
    assert_eq!(shape(&answer), shape(list_deleted));
    let next = rfw.ok("GET", "/changes")["next"].as_str().unwrap().to_owned();
    rfw.ok("PUT", "/drop/input/any/66.66.66.66?list=tor&reason=port%20scan");
    assert_eq!(shape(&rfw.ok("GET", &format!("/changes?since={next}"))), shape(changes));
    let refused = rfw.request("PUT", "/drop/input/any/10.0.0.0/8");
    let (refused, error) = (refused.json(), error);
    assert_eq!((&refused["error"], &refused["code"]), (&error["error"], &error["code"]));
    assert_eq!(shape(&refused), shape(error));
}

/// Each promise, and what an attacker can't do, names tests that are there and run.
#[test]
fn the_tests_of_the_promises_are_there() {
    let this = std::env::current_exe().unwrap();
    let list = |arguments: &[&str]| host::run(this.to_str().unwrap(), arguments).ok();
    let (all, ignored) = (list(&["--list"]), list(&["--list", "--ignored"]));
    let is_in = |list: &str, name: &str| list.lines().any(|line| line == format!("{name}: test"));
    for (page, head, number) in
        [("promises.md", "| promise |", 21), ("security.md", "| an attacker with |", 11)]
    {
        let page = read(&format!("etc/doc/{page}"));
        let table = page.lines().skip_while(|line| !line.starts_with(head)).skip(2);
        let rows: Vec<&str> = table.take_while(|line| line.starts_with("| ")).collect();
        assert_eq!(rows.len(), number, "{head}");
        for row in rows {
            let (_, tests) = row.trim_end_matches(" |").rsplit_once(" | ").unwrap();
            for test in tests.split(", ") {
                let name = test.trim_matches('`');
                assert!(is_in(&all, name) && !is_in(&ignored, name), "no test {name:?}, which holds {row}");
            }
        }
    }
}
