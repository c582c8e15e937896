//! The shipped configuration and white list, and the manual page of their options.

use super::{RFW, between, default_in, items, read, section};
use crate::host::{Host, Rfw};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

#[test]
fn a_name_or_a_password_has_at_most_255_bytes_as_the_manual_says() {
    let host = Host::new();
    let rfw = host.rfw("iptables").reconfigure("= secret", &format!("= {}", "x".repeat(255)));
    assert!(read("etc/man/rfw.conf.5").contains("At most 255 bytes each"));
    rfw.call(&["--check"]).ok();
    let said = rfw.reconfigure("= x", "= xx").call(&["--check"]).fails_with(78);
    assert!(said.contains("auth.password") && said.contains("255"), "{said}");
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
            // Its bare name is a value of it.
            false if name == "ipset" => {
                (format!("{name} = yes\nlocal.server"), "\"yes\": expected auto, on or off")
            }
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
            // The shipped file turns it on where it helps; a file of the original has no line for it.
            Some(default) if name == "ipset" => {
                assert_eq!((default.as_str(), shipped[name].value.as_deref()), ("off", Some("auto")));
            }
            Some(default) => assert_eq!(shipped[name].value.as_ref(), Some(default), "{name}"),
            None if *is_flag => {}
            None => without.push(name),
        }
    }
    let needed = ["outward.server.clientca", "outward.server.clientcrl"];
    assert_eq!(without, [&["auth.password", "auth.username"][..], &needed].concat());
}

/// What a section of the manual or of the shipped file is for a client, and what is wrong with it.
fn checked(host: &Host, sections: &str) -> Result<String, String> {
    let said = host.rfw("iptables").configure(sections).call(&["--check"]);
    if said.status == Some(0) { Ok(said.out) } else { Err(said.err) }
}

#[test]
fn the_options_of_clients_in_the_manual_are_those_of_their_sections() {
    let (host, manual) = (Host::new(), read("etc/man/rfw.conf.5"));
    let told: BTreeSet<&str> = items(section(&manual, "CLIENTS"), "Ic")
        .into_iter()
        .map(|(head, _)| head.split_once(" No = ").expect("a value").0)
        .collect();
    for name in &told {
        let error = checked(&host, &format!("[client a]\n{name}")).unwrap_err();
        assert!(error.contains(&format!("{name}: has no value")), "{error}");
    }
    // The shipped file has an example of each, which lacks nothing but passwords.
    let shipped = read("etc/rfw.conf");
    let (_, example) = shipped.split_once("\n# [client ").expect("an example");
    let example: String =
        format!("# [client {example}").lines().map(|line| line[1..].trim_start().to_owned() + "\n").collect();
    let options: BTreeSet<&str> = example.lines().filter_map(|line| Some(line.split_once(" =")?.0)).collect();
    assert_eq!(options, told);
    let error = checked(&host, &example).unwrap_err();
    assert!(error.contains("client honeypot: password: has no value"), "{error}");
    let filled = example
        .replace("password =", "password = x")
        .replace(".sha256 =", &format!(".sha256 = {}", "0".repeat(64)));
    checked(&host, &filled).unwrap();
}

#[test]
fn every_example_of_clients_is_one() {
    let host = Host::new();
    let manual = read("etc/man/rfw.conf.5");
    let (_, rest) = section(&manual, "EXAMPLES").split_once("A honeypot").unwrap();
    let of_manual = between(rest, ".Bd -literal -offset indent\n", ".Ed").to_owned();
    let readme = read("README.md");
    let of_readme = between(&readme, "```ini\n", "```").to_owned();
    for example in [of_manual, of_readme] {
        assert_eq!(example.matches("[client ").count(), 2, "{example}");
        checked(&host, &example).unwrap();
    }
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
    let first = "rfw.conf: ok, 1 network in the white list, 1 client, 0 warnings\n";
    assert!(rfw.call(&["--check"]).ok().starts_with(first));

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
    assert!(entries.len() > 6, "{entries:?}");
    let manual = read("etc/man/rfw.conf.5");
    let (_, after) = section(&manual, "EXAMPLES").split_once("A white list:\n").unwrap();
    let more: Vec<&str> = between(after, ".Bd -literal -offset indent\n", ".Ed").lines().collect();
    for entry in entries.iter().chain(&more) {
        // One behind `never` is no client.
        rfw.host.write("white.list", 0o644, &format!("192.0.2.1\n{entry}\n"));
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
