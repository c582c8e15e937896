//! README, tutorial and deployment, done as they are written: each machine that they name is a network
//! and mount namespace, with folders of the system and an rfw of its own. A command stands behind the
//! name of its machine in a block `console`, above what it prints; a block whose language is followed by
//! a place is a file there.

mod stage;

use super::{RFW, read};
use crate::host::{Host, node_name};
use stage::{Machine, Stage};

/// A file or a command of a document, in the order in which they stand there.
enum Step {
    Lines { place: String, text: String },
    Command { prompt: String, command: String, shown: String },
}

/// What a document has its readers do, by its blocks of code.
fn steps(document: &str) -> Vec<Vec<Step>> {
    let mut blocks = Vec::new();
    for part in document.split("\n```").skip(1).step_by(2) {
        let (info, text) = part.split_once('\n').expect("a block");
        match info.split_once(' ') {
            Some((_, place)) => {
                blocks.push(vec![Step::Lines { place: place.to_owned(), text: text.to_owned() + "\n" }]);
            }
            None if info == "console" => blocks.push(commands(text)),
            None => {}
        }
    }
    blocks
}

/// The commands of a block, with what the document shows behind each.
fn commands(text: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    for line in text.lines() {
        let words = line.split_once("# ").or_else(|| line.split_once("$ "));
        let prompt = words.filter(|(name, _)| name.bytes().all(|byte| byte.is_ascii_lowercase()));
        match (prompt, steps.last_mut()) {
            (Some((name, command)), _) => steps.push(Step::Command {
                prompt: name.to_owned(),
                command: command.to_owned(),
                shown: String::new(),
            }),
            (None, Some(Step::Command { shown, .. })) => *shown += &format!("{line}\n"),
            _ => panic!("no command before {line:?}"),
        }
    }
    steps
}

/// A text with moments, names of hosts in answers, numbers of protocols and widths of columns that are the
/// same everywhere.
fn plain(text: &str) -> String {
    let is_moment = |word: &str| {
        word.len() >= 20
            && word.as_bytes()[4] == b'-'
            && word.bytes().all(|byte| byte.is_ascii_digit() || b"-T:.Z".contains(&byte))
    };
    let mut plain = Vec::new();
    for line in text.lines() {
        let words = line.split_inclusive([' ', '"']).map(|word| {
            let bare = word.trim_end_matches([' ', '"', ';']);
            if is_moment(bare) { word.replace(bare, "MOMENT") } else { word.to_owned() }
        });
        let line: String = words.collect();
        let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
        let line = line.replace(" 0 -- ", " all -- ").replace(" 6 -- ", " tcp -- ");
        let hosts = [node_name(), "toronto".to_owned(), "berlin".to_owned()];
        let named = |host: &String| format!("\"host\":\"{host}\"");
        plain.push(hosts.iter().map(named).fold(line, |line, named| line.replace(&named, "\"host\":HOST")));
    }
    plain.join("\n")
}

/// Whether a command has printed what a document shows, in which `…` is anything.
fn is_as_shown(shown: &str, printed: &str) -> bool {
    let (shown, printed) = (plain(shown), plain(printed));
    let parts: Vec<&str> = shown.split('…').collect();
    let (first, last) = (parts[0], parts[parts.len() - 1]);
    if parts.len() == 1 {
        return shown == printed;
    }
    let Some(mut rest) = printed.strip_prefix(first) else { return false };
    for part in &parts[1..parts.len() - 1] {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// The machines that a prompt or a place names.
fn named<'a>(stage: &'a Stage<'_>, name: &str) -> Vec<&'a Machine> {
    let names = if name == "both" { vec!["toronto", "berlin"] } else { vec![name] };
    names.into_iter().map(|name| stage.machine(name)).collect()
}

fn follow(stage: &Stage<'_>, blocks: &[Vec<Step>]) {
    for step in blocks.iter().flatten() {
        match step {
            Step::Lines { place, text } => {
                let (name, path) = place.split_once(':').expect("a machine and a path");
                named(stage, name).into_iter().for_each(|machine| stage.write(machine, path, text));
            }
            Step::Command { prompt, command, shown } => {
                for machine in named(stage, prompt) {
                    let said = stage.run(machine, command);
                    let printed = said.out.clone() + &said.err;
                    assert_eq!(said.status == Some(0), !shown.contains("curl: ("), "{prompt}: {said:#?}");
                    let is_right = shown.is_empty() || is_as_shown(shown, &printed);
                    assert!(is_right, "{prompt}: {command}\nshown:\n{shown}\nprinted:\n{printed}");
                }
            }
        }
    }
}

/// The ten lines first, and then what the first screen shows, where only the reputation server
/// is in the white list.
#[test]
fn the_readme_is_right_from_nothing_to_the_first_block() {
    let host = Host::new();
    let machines = [
        ("build", "5.5.5.5"),
        ("server", "11.11.11.11"),
        ("reputation", "33.33.33.33"),
        ("laptop", "44.44.44.44"),
    ];
    let stage = Stage::new(&host, &machines);
    let [first_screen, ten_lines] = &steps(&read("README.md"))[..] else { panic!("two blocks of commands") };
    assert_eq!(ten_lines.len(), 10);
    follow(&stage, std::slice::from_ref(ten_lines));
    let server = stage.machine("server");
    let rules = stage.run(server, "iptables -S INPUT").ok();
    assert!(rules.contains("-s 66.66.66.66/32 ") && rules.contains("-s 44.44.44.44/32 -p tcp"), "{rules}");

    stage.run(stage.machine("laptop"), "scp client/ca.crt root@33.33.33.33:/root/").ok();
    let script =
        "echo 33.33.33.33 >/etc/rfw/white.list; systemctl stop rfw && rfw --flush && systemctl restart rfw";
    stage.run(server, script).ok();
    follow(&stage, std::slice::from_ref(first_screen));
}

#[test]
fn the_tutorial_and_deployment_are_right_as_they_are_written() {
    let host = Host::new();
    let machines = [
        ("build", "5.5.5.5"),
        ("toronto", "11.11.11.11"),
        ("berlin", "22.22.22.22"),
        ("reputation", "33.33.33.33"),
        ("laptop", "44.44.44.44"),
    ];
    let stage = Stage::new(&host, &machines);
    let tutorial = read("etc/doc/tutorial.md");
    follow(&stage, &steps(&tutorial));
    let ca_key = stage.run(stage.machine("toronto"), "find /etc/rfw /root -name 'ca.key'").ok();
    assert_eq!(ca_key, "", "the key of the CA is on a server");
    follow(&stage, &steps(&read("etc/doc/deployment.md")));

    // Where one of the servers is away, cron's mail, which is standard error, tells which.
    let cron = stage.run(stage.machine("reputation"), "cat /etc/cron.d/rfw-feed").ok();
    let (_, command) = cron.trim_end().split_once("  root  ").expect("the line of cron");
    let feed = || stage.run(stage.machine("reputation"), command);
    stage.run(stage.machine("berlin"), "systemctl stop rfw").ok();
    let said = feed();
    let (why, names) = said.err.split_once('\n').unwrap();
    assert!(why.starts_with("berlin: "), "{said:#?}");
    assert_eq!((said.status, names), (Some(1), "rfwctl: failed on 1 of 2 servers: berlin\n"));
    let log = stage.run(stage.machine("reputation"), "cat /var/log/rfw-feed.log").ok();
    assert!(log.starts_with("toronto: firehol: 0 inserted, 4576 refreshed, "), "{log}");

    // An error page in place of the list, and one that is too short.
    let site = "rfwctl: https://iplists.firehol.org/files/firehol_level1.netset";
    stage.write_shared("firehol", "<html>sorry</html>\n");
    let said = feed();
    assert_eq!((said.status, said.err), (Some(3), format!("{site}: is a web page, not a list: not sent\n")));
    stage.write_shared("firehol", "45.0.0.0/24\n");
    let said = feed();
    let why = "has 1 addresses, fewer than --min 1000: not sent";
    assert_eq!((said.status, said.err), (Some(3), format!("{site} {why}\n")));
}

#[test]
fn what_is_shown_is_compared_but_for_moments_and_ellipses() {
    for (shown, printed, expected) in [
        ("a b\n", "a   b\n", true),
        ("a\n", "b\n", false),
        ("at 2026-11-22T10:15:00Z */", "at 2031-01-01T00:00:00.5Z */", true),
        ("{\"expires\":\"2026-11-22T10:15:00Z\"}", "{\"expires\":null}", false),
        ("{\"host\":\"toronto\"}", &format!("{{\"host\":\"{}\"}}", node_name()), true),
        ("{\"a\":1,…,\"c\":3}", "{\"a\":1,\"b\":2,\"c\":3}", true),
        ("{\"a\":1,…,\"c\":3}", "{\"a\":1,\"b\":2,\"c\":4}", false),
        ("a\n…\nd\n", "a\nb\nc\nd\n", true),
    ] {
        assert_eq!(is_as_shown(shown, printed), expected, "{shown:?}, {printed:?}");
    }
}

/// Links within the documents lead somewhere, in the tree.
#[test]
fn links_of_the_documents_lead_somewhere() {
    let pages = [
        "tutorial",
        "deployment",
        "from-the-original",
        "security",
        "design",
        "structure",
        "contributing",
        "neighbours",
        "promises",
        "changes",
    ];
    let pages = pages.map(|name| format!("etc/doc/{name}.md"));
    for page in pages.iter().map(String::as_str).chain(["README.md", "etc/deploy/README.md"]) {
        let text = read(page);
        let folder = std::path::Path::new(page).parent().unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = folder.join(file);
            let target = if file.is_empty() { page } else { target.to_str().unwrap() };
            if target.ends_with(".png") {
                assert!(
                    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(target).is_file(),
                    "{page}: {link}"
                );
                continue;
            }
            let anchors: Vec<String> = read(target).lines().filter_map(anchor).collect();
            assert!(heading.is_empty() || anchors.iter().any(|anchor| anchor == heading), "{page}: {link}");
        }
    }
}

/// The name by which a heading is linked.
fn anchor(line: &str) -> Option<String> {
    let words = line.strip_prefix("##")?.trim_start_matches('#').trim().to_lowercase();
    let kept = words.chars().filter(|char| char.is_alphanumeric() || " -".contains(*char));
    Some(kept.map(|char| if char == ' ' { '-' } else { char }).collect())
}
