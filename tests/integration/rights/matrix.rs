//! Clients with every right but one, for each right, over every request of the API: 403 that names the
//! right, nothing changed, nothing shown; and with the right a 200 that the kernel has.

use super::{Ask, ask_all, ask_in_one, section, start};
use crate::golden::cases;
use crate::host::{Host, Reply, Rfw, VARIANTS};
use crate::named_lists::kernel::{Held, assert_same, held};
use serde_json::Value;
use std::collections::BTreeSet;
use std::thread;

/// The client that has all that the requests of the table need.
const FULL: &str = "full";

/// The clients that lack one right: the name of its option, and what stands there instead.
const LACKING: [(&str, &str, &str); 16] = [
    ("nothing", "allow", ""),
    ("target", "allow", "accept,reject * *"),
    ("input", "allow", "* output,forward *"),
    ("output", "allow", "* input,forward *"),
    ("forward", "allow", "* input,output *"),
    ("interface", "allow", "* * any,eth1"),
    ("far", "allow", "* * any,eth0"),
    ("any", "allow", "* * eth0,eth1"),
    ("lists", "lists", "others,-"),
    ("unnamed", "lists", "mine,pre-*"),
    ("expire", "expire.max", "5m"),
    ("mask4", "mask.min", "25 64"),
    ("mask6", "mask.min", "24 65"),
    ("entries", "entries.max", "19"),
    ("none", "read", "none"),
    // The list that all clients but the admin lack.
    (FULL, "lists", "mine,pre-*,-"),
];

/// What is there before: a request of the admin, and its body.
const SEEDS: [(&str, &str); 8] = [
    (
        "PUT /drop/input/eth0?list=mine&expire=2h",
        "21.0.0.1\n21.0.0.2\n21.0.0.3\n21.0.0.4\n21.0.0.5\n21.0.0.6\n21.0.0.7\n21.0.1.0/24\n21.0.2.0/24\n21.0.3.0/24\n\
         2a00:21::1\n2a00:21:2::/64\n2a00:21:3::/64\n2a00:21:4::/64\n",
    ),
    ("PUT /drop/input/any?expire=2h", "22.0.0.1\n22.0.0.2\n"),
    ("PUT /drop/output/any?list=mine&expire=2h", "23.0.0.1\n"),
    ("PUT /drop/forward/eth0/24.0.0.1/eth1/25.0.0.1?list=mine&expire=2h", ""),
    ("PUT /drop/input/eth0?list=pre-a&expire=2h", "26.0.0.1\n"),
    (
        "PUT /drop/input/eth0?list=hidden&expire=2h&reason=hush",
        "66.66.0.1\n66.66.0.0/24\n2a00:66::1\n21.0.0.1\n",
    ),
    ("PUT /drop/forward/eth0/66.66.1.1?list=hidden&expire=2h&reason=hush", ""),
    ("PUT /accept/input/any/66.66.0.0/16?list=hidden&expire=2h&reason=hush", ""),
];

/// A request of the table.
struct Case {
    at: String,
    grammar: usize,
    line: String,
    body: String,
    lacking: BTreeSet<String>,
    effects: Vec<String>,
}

impl Case {
    /// The request as a client sends it.
    fn of<'a>(&'a self, client: &'a str) -> Ask<'a> {
        Ask::new(client, &self.line, &self.body)
    }

    fn is_refused_to(&self, client: &str) -> bool {
        self.lacking.contains(client) || self.is_of_admin()
    }

    fn is_of_admin(&self) -> bool {
        self.lacking.contains("*")
    }

    fn reads(&self) -> bool {
        self.grammar >= 6
    }
}

fn table() -> Vec<Case> {
    let set = |words: &str| words.split_whitespace().map(str::to_owned).collect();
    cases("rights-matrix.txt")
        .into_iter()
        .map(|(at, [grammar, line, body, lacking, effects])| Case {
            grammar: grammar.parse().unwrap(),
            lacking: set(&lacking),
            effects: effects.split_whitespace().map(|effect| effect.replace('_', " ")).collect(),
            at,
            line,
            body,
        })
        .collect()
}

/// The sections of all clients.
fn sections() -> String {
    let options = |option: &str, value: &str| {
        let mut options = vec![("allow", "* * *"), ("lists", "mine,pre-*,-"), ("read", "own")];
        options.retain(|(name, _)| *name != option);
        options.push((option, value));
        let lines = options.into_iter().filter(|(_, value)| !value.is_empty());
        lines.map(|(name, value)| format!("{name} = {value}\n")).collect::<String>()
    };
    LACKING.iter().map(|(client, option, value)| section(client, &options(option, value))).collect()
}

/// All that the kernel says, with what comments tell and when entries end.
type State = ((Vec<String>, Vec<String>, Vec<String>), BTreeSet<String>, Held);

fn state(host: &Host, iptables: &str) -> State {
    let comments =
        host.entries().into_iter().map(|entry| format!("{} {}: {}", entry.set, entry.element, entry.comment));
    (host.everything(iptables), comments.collect(), held(host, iptables))
}

#[track_caller]
fn assert_unchanged(host: &Host, iptables: &str, before: &State, what: &str) {
    let now = state(host, iptables);
    assert_eq!((&now.0, &now.1), (&before.0, &before.1), "{what}");
    assert_same(&now.2, &before.2, what);
}

/// Checks that an answer tells nothing of the list that the client may not see.
#[track_caller]
fn assert_silent(case: &Case, client: &str, reply: &Reply) {
    for word in ["hidden", "66.66.", "2a00:66:", "hush"] {
        let is_told = reply.body.contains(word) || reply.head.contains(word);
        assert!(!is_told || case.line.contains(word), "{}: {client}: {word}: {reply:?}", case.at);
    }
}

/// Checks that an answer refuses a request for the right that the client lacks.
#[track_caller]
fn assert_refused(case: &Case, client: &str, right: &str, reply: &Reply) {
    assert_eq!(reply.status, 403, "{}: {client}: {reply:?}", case.at);
    assert_silent(case, client, reply);
    if case.line.starts_with("HEAD ") {
        return;
    }
    let answer = reply.json();
    let keys: Vec<&String> = answer.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["code", "error", "host"], "{}: {client}", case.at);
    assert_eq!(answer["code"], "no_right", "{}: {client}", case.at);
    let error = answer["error"].as_str().unwrap();
    let right = if right == "lists" && case.reads() { "read" } else { right };
    let is_named = |right: &str| error.contains(&format!("({right})"));
    // Of two rights that are missing either is named.
    let other = if case.reads() { "read" } else { "lists" };
    assert!(is_named(right) || case.is_of_admin() && is_named(other), "{}: {client}: {error}", case.at);
}

/// Checks that each refusal has a line with the client's address and name, the request and the right.
#[track_caller]
fn assert_logged<'a>(log: &str, client: &str, cases: impl Iterator<Item = &'a Case>) {
    let start = format!("client={client} from=127.0.0.1 ");
    let mut lines: Vec<&str> =
        log.lines().filter_map(|line| line.split_once(&start)).map(|(_, rest)| rest).collect();
    for case in cases {
        let (method, target) = case.line.split_once(' ').unwrap();
        let target = if target.contains(['?', '%']) { format!("\"{target}\"") } else { target.to_owned() };
        let start = format!("method={method} url={target} status=403 code=no_right error=");
        let is_it = |line: &&str| line.starts_with(&start) && line.contains("no right to ");
        let at = lines.iter().position(is_it);
        lines.remove(at.unwrap_or_else(|| panic!("{}: {client}: not in {lines:#?}", case.at)));
    }
    assert_eq!(lines.iter().filter(|line| line.contains("no right")).count(), 0, "{client}: {lines:#?}");
}

/// What a client lacks is refused, and all that it does not lack is granted where nothing is changed.
fn refuse(rfw: &Rfw<'_>, iptables: &str, table: &[Case], before: &State) {
    let host = rfw.host;
    for (client, right, _) in LACKING {
        let cases: Vec<&Case> =
            table.iter().filter(|case| case.is_refused_to(client) || case.reads()).collect();
        let asks: Vec<Ask<'_>> = cases.iter().map(|case| case.of(client)).collect();
        for (case, reply) in cases.iter().zip(ask_all(host, &asks)) {
            match case.is_refused_to(client) {
                true => assert_refused(case, client, right, &reply),
                false => {
                    assert_eq!(reply.status, 200, "{}: {client}: {reply:?}", case.at);
                    assert_silent(case, client, &reply);
                }
            }
        }
        assert_unchanged(host, iptables, before, client);
        assert_logged(&rfw.log(), client, cases.iter().filter(|case| case.is_refused_to(client)).copied());
    }
}

/// What a client has the right to is done, and then nobody else is refused who does not lack it.
fn grant(host: &Host, iptables: &str, table: &[Case]) {
    let mut before = held(host, iptables);
    for case in table.iter().filter(|case| !case.reads() && !case.is_of_admin()) {
        // The others ask for the same once more, which is to be as good.
        let others = LACKING.iter().map(|(client, ..)| *client).filter(|client| *client != FULL);
        let clients: Vec<&str> =
            [FULL].into_iter().chain(others).filter(|client| !case.is_refused_to(client)).collect();
        let asks: Vec<Ask<'_>> = clients.iter().map(|client| case.of(client)).collect();
        for (client, reply) in clients.iter().zip(ask_in_one(host, &asks)) {
            assert_eq!(reply.status, 200, "{}: {client}: {reply:?}", case.at);
            assert_silent(case, client, &reply);
        }
        let after = held(host, iptables);
        for effect in &case.effects {
            let (sign, key) = effect.split_at(1);
            let there = (before.contains_key(key), after.contains_key(key));
            assert_eq!(there, (sign == "-", sign == "+"), "{}: {effect}: {after:#?}", case.at);
        }
        before = after;
    }
}

#[test]
fn a_client_with_every_right_but_one_is_refused_each_request_that_needs_it() {
    let ways = VARIANTS.iter().flat_map(|iptables| ["", "ipset"].map(|option| (*iptables, option)));
    let ways: Vec<(&str, &str)> = ways.chain([(VARIANTS[0], "ipset = auto")]).collect();
    thread::scope(|scope| {
        let threads = ways.iter().map(|way| (way, scope.spawn(|| run(way.0, way.1))));
        for (way, thread) in threads.collect::<Vec<_>>() {
            assert!(thread.join().is_ok(), "with {way:?}");
        }
    });
}

fn run(iptables: &str, option: &str) {
    let (host, table) = (Host::new(), table());
    let sections = sections().replace("entries.max = 19", &format!("entries.max = {}", 19 + more(option)));
    let rfw = start(&host, iptables, &format!("non.restful\n{option}"), &sections);
    let many: String = (0..more(option)).map(|number| format!("27.0.0.{number}\n")).collect();
    let seeds = SEEDS.iter().copied();
    let more = [("PUT /drop/input/eth0?list=mine&expire=2h", many.as_str())];
    for (line, body) in seeds.chain(more.into_iter().filter(|(_, body)| !body.is_empty())) {
        super::ok(&host, "me", line, body);
    }
    let before = state(&host, iptables);
    assert_eq!(host.sets().is_empty(), option.is_empty());
    refuse(&rfw, iptables, &table, &before);
    let hidden =
        |held: &Held| held.keys().filter(|key| key.starts_with("hidden ")).cloned().collect::<Vec<_>>();
    assert_eq!(hidden(&before.2).len(), 6, "{before:?}");
    grant(&host, iptables, &table);
    assert_eq!(hidden(&held(&host, iptables)), hidden(&before.2));
    // The admin may do what is refused to all others.
    let cases: Vec<&Case> = table.iter().filter(|case| case.is_of_admin()).collect();
    let asks: Vec<Ask<'_>> = cases.iter().map(|case| case.of("me")).collect();
    for (case, reply) in cases.iter().zip(ask_in_one(&host, &asks)) {
        assert_eq!(reply.status, 200, "{}: {reply:?}", case.at);
    }
    assert_eq!(held(&host, iptables), Held::new());
}

/// So many more addresses of `mine` that `ipset = auto` makes a set of them.
fn more(option: &str) -> usize {
    if option.contains("auto") { 120 } else { 0 }
}

/// A new line of the grammar, method or parameter has to be in the table.
#[test]
fn every_request_of_the_grammar_is_in_the_table() {
    let host = Host::new();
    let rfw = host.rfw(VARIANTS[0]).start();
    let help = rfw.ok("GET", "/");
    let lines =
        |key: &str| help[key].as_array().unwrap().iter().map(|line| line.as_str().unwrap().to_owned());
    let table = table();
    let mut wanted = BTreeSet::new();
    for (number, line) in (1..).zip(lines("grammar")) {
        let (methods, rest) = line.split_once(' ').unwrap();
        if rest.starts_with('/') {
            wanted.extend(methods.split('|').map(|method| (number, method.to_owned())));
        }
    }
    assert!(wanted.len() >= 11, "{wanted:?}");
    let there: BTreeSet<(usize, String)> =
        table.iter().map(|case| (case.grammar, case.line.split(' ').next().unwrap().to_owned())).collect();
    let missing: Vec<_> = wanted.difference(&there).collect();
    assert!(missing.is_empty(), "not in rights-matrix.txt: {missing:?}");
    let known: BTreeSet<usize> = wanted.iter().map(|(number, _)| *number).collect();
    assert!(there.iter().all(|(number, _)| known.contains(number)), "{there:?}");
    for parameter in lines("parameters") {
        let name = parameter.split('=').next().unwrap();
        let is_used = |case: &Case| {
            case.line.contains(&format!("?{name}=")) || case.line.contains(&format!("&{name}="))
        };
        assert!(table.iter().any(is_used), "{name} is not in rights-matrix.txt");
    }
    let clients: BTreeSet<&str> = LACKING.iter().map(|(client, ..)| *client).chain(["*"]).collect();
    let named: BTreeSet<&str> =
        table.iter().flat_map(|case| case.lacking.iter().map(String::as_str)).collect();
    let unknown: Vec<_> = named.difference(&clients).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    let unused: Vec<_> = clients.difference(&named).filter(|client| **client != FULL).collect();
    assert!(unused.is_empty(), "{unused:?}");
    // Each client is told its rights.
    assert_eq!(help["rights"]["lists"], Value::from("*"));
}
