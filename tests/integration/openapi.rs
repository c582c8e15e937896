//! The description of the API for programs, etc/openapi.yaml: it is OpenAPI 3.1, each request that it describes is
//! answered as it says, and so is each error. `tests/openapi/hold.py` does the comparing.

use crate::documents::read;
use crate::host::{Host, Rfw, VARIANTS};
use std::collections::BTreeSet;
use std::thread;

const DESCRIPTION: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/etc/openapi.yaml");
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/openapi");

/// Has the description held against something; what does not hold is printed.
#[track_caller]
fn hold(host: &Host, what: &str, rest: &[&str]) {
    let script = format!("{FOLDER}/hold.py");
    // Debian's own, whose modules are packages; it warns of modules that are to come.
    let arguments = [&["-W", "ignore", &script, what, DESCRIPTION], rest].concat();
    let said = host.run("/usr/bin/python3", &arguments);
    assert_eq!((said.status, said.out.as_str()), (Some(0), ""), "{}", said.err);
}

/// rfw with two lists, and a client without rights.
fn start<'a>(host: &'a Host, lines: &str) -> Rfw<'a> {
    let client = "[client monitor]\npassword = looks\nread = own\n";
    let rfw = host.rfw(VARIANTS[0]).configure(&format!("{lines}\n{client}"));
    rfw.white_list("127.0.0.1\n::1\nnever 5.1.2.3\n").start()
}

#[test]
fn the_description_is_openapi() {
    hold(&Host::new(), "valid", &[&format!("{FOLDER}/openapi-3.1.schema.json")]);
    let changes = read("etc/doc/changes.md");
    let (_, newest) = changes.split_once("\n## ").unwrap();
    let version = format!("\n  version: {}\n", newest.lines().next().unwrap());
    assert!(read("etc/openapi.yaml").contains(&version), "expected{version}");
}

#[test]
fn each_request_is_answered_as_it_is_described() {
    thread::scope(|scope| {
        // An accept comes before a block only with sets.
        for (option, unseen) in [("", &["overridden_by"][..]), ("ipset", &[])] {
            scope.spawn(move || {
                let host = Host::new();
                let _rfw = start(&host, &format!("non.restful\n{option}"));
                hold(&host, "requests", unseen);
            });
        }
    });
}

#[test]
fn each_error_has_the_code_that_is_described() {
    let table = format!("{FOLDER}/errors.txt");
    thread::scope(|scope| {
        scope.spawn(|| {
            let host = Host::new();
            let rfw = start(&host, "ipset\nipset.maxelem = 3\nlists.max = 2");
            rfw.ok("PUT", "/drop/input/any/1.0.0.9?list=one");
            rfw.ok("PUT", "/drop/input/any/1.0.0.9?list=two");
            hold(&host, "errors", &[&table, "sets"]);
        });
        let host = Host::new();
        let _rfw = start(&host, "rules.max = 20");
        hold(&host, "errors", &[&table, "rules"]);
    });
}

/// The words of the manual are those of the description.
#[test]
fn the_manual_has_the_same_codes() {
    let description = read("etc/openapi.yaml");
    let (_, rest) = description.split_once("\n    Error:\n").unwrap();
    let (_, rest) = rest.split_once("enum: [").unwrap();
    let described: BTreeSet<&str> =
        rest.split(']').next().unwrap().split([',', ' ', '\n']).filter(|word| !word.is_empty()).collect();
    let manual = read("etc/man/rfw.8");
    let (_, codes) = manual.split_once("\n.Sh CODES\n").unwrap();
    let codes = codes.split("\n.Sh ").next().unwrap();
    let lines = codes.lines().filter_map(|line| line.strip_prefix(".Li "));
    let told: BTreeSet<&str> =
        lines.flat_map(|line| line.split(" , ")).map(str::trim).filter(|word| *word != "code").collect();
    assert_eq!(told, described);
}
