//! The command line: help, --check, --flush and the log.

use super::{IPTABLES, RFW, add_foreign_rules, kernel, sh, try_start};
use crate::host::{Host, VARIANTS};
use std::fs;
use std::os::unix::fs::PermissionsExt;

#[test]
fn help_and_version_are_printed_whatever_else_is_there() {
    let host = Host::new();
    for (arguments, part) in [(["-h"], "--logfile FILE"), (["--help"], "--flush")] {
        let said = host.run(RFW, &arguments);
        assert!(said.err.is_empty(), "{said:#?}");
        assert!(said.ok().contains(part), "{part}");
    }
    let version = host.run(RFW, &["--version"]).ok();
    assert_eq!(version, format!("rfw {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(kernel(&host), "");
}

#[test]
fn a_wrong_command_line_ends_with_2() {
    let host = Host::new();
    let rfw = host.rfw(IPTABLES);
    let golden = [
        (vec!["--chek"], "Unrecognized option: 'chek'"),
        (vec!["-x"], "Unrecognized option: 'x'"),
        (vec!["start"], "unexpected argument \"start\""),
        (vec!["\u{1b}[31m"], "unexpected argument \"\\u{1b}[31m\""),
        (vec!["--loglevel"], "Argument to option 'loglevel' missing"),
        (
            vec!["--loglevel", "info"],
            "--loglevel: \"info\": expected DEBUG, INFO, WARNING, ERROR or CRITICAL",
        ),
        (vec!["-f", "a"], "Option 'f' given more than once"),
        (vec!["--check", "--flush"], "--check and --flush do not go together"),
    ];
    for (arguments, message) in golden {
        let err = rfw.call(&arguments).fails_with(2);
        assert_eq!(err, format!("rfw: {message} (see rfw --help)\n"), "{arguments:?}");
    }
    assert_eq!(kernel(&host), "");
    assert!(!host.dir.join("rfw.log").exists());
}

#[test]
fn a_check_says_ok_and_touches_nothing_while_rfw_runs_too() {
    let host = Host::new();
    let rfw = host.rfw(IPTABLES);
    let ok = "rfw.conf: ok, 2 networks in the white list, 2 clients, 0 warnings\n";
    let said = rfw.call(&["--check"]);
    assert!(said.err.is_empty() && said.ok().starts_with(ok));
    assert_eq!(kernel(&host), "");
    assert!(!host.dir.join("rfw.log").exists(), "a check needs no log");
    let rfw = rfw.start();
    rfw.ok("PUT", "/drop/input/any/1.2.3.4");
    let (before, log) = (kernel(&host), rfw.log());
    assert!(rfw.call(&["--check"]).ok().starts_with(ok));
    let rfw = rfw.configure("nonsense");
    let err = rfw.call(&["--check"]).fails_with(78);
    assert_eq!(err, "rfw: rfw.conf:12: unknown option \"nonsense\"\n");
    assert_eq!((kernel(&host), rfw.log()), (before, log));
    rfw.ok("GET", "/list");
}

#[test]
fn a_flush_removes_all_that_rfw_made_and_nothing_else() {
    for iptables in VARIANTS {
        let host = Host::new();
        add_foreign_rules(&host);
        host.run(iptables, &["-w", "-A", "INPUT", "-s", "1.2.3.4", "-j", "DROP"]).ok();
        let before = kernel(&host);
        let mut rfw = host.rfw(iptables).start();
        for path in [
            "/drop/input/any/1.2.3.4",
            "/accept/forward/eth/::/ppp/2001:db8::1",
            "/reject/output/eth0/9.9.9.9",
        ] {
            rfw.ok("PUT", path);
        }
        rfw.stop();
        assert_ne!(kernel(&host), before);
        // Two networks, two chains, and DROP for others in both families.
        assert_eq!(rfw.call(&["--flush"]).ok(), "11 rules removed\n", "{iptables}");
        let without_empty_tables = |text: &str| {
            let lines = text.lines().filter(|line| line.starts_with("-A"));
            lines.map(str::to_owned).collect::<Vec<String>>()
        };
        assert_eq!(without_empty_tables(&kernel(&host)), without_empty_tables(&before), "{iptables}");
        assert_eq!(rfw.call(&["--flush"]).ok(), "0 rules removed\n", "{iptables}");
    }
}

#[test]
fn a_flush_needs_neither_keys_nor_a_white_list() {
    let host = Host::new();
    let mut rfw = host.rfw(IPTABLES).start();
    rfw.stop();
    sh(&host, "rm white.list server.key server.crt");
    assert_eq!(rfw.call(&["--flush"]).ok(), "8 rules removed\n");
}

#[test]
fn a_log_that_cannot_be_opened_ends_the_start() {
    let host = Host::new();
    let _rfw = host.rfw(IPTABLES);
    let golden = [
        ("no/such/folder/rfw.log", "No such file or directory (os error 2)"),
        (".", "Is a directory (os error 21)"),
    ];
    for (path, why) in golden {
        let arguments = ["10", RFW, "-f", "rfw.conf", "--logfile", path];
        let err = host.run("timeout", &arguments).fails_with(1);
        assert_eq!(err, format!("rfw: the log {path}: {why}\n"));
    }
    assert_eq!(kernel(&host), "");
}

#[test]
fn the_log_is_appended_to_and_closed_to_others() {
    let host = Host::new();
    let mut rfw = host.rfw(IPTABLES).start();
    let mode = fs::metadata(host.dir.join("rfw.log")).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode & 0o007, 0, "{mode:o}");
    rfw.stop();
    fs::copy(host.dir.join("rfw.log"), host.dir.join("kept.log")).unwrap();
    let first = fs::read_to_string(host.dir.join("kept.log")).unwrap();
    sh(&host, "echo nonsense >>rfw.conf");
    try_start(&rfw, &[]).fails_with(78);
    let both = fs::read_to_string(host.dir.join("rfw.log")).unwrap();
    assert!(both.starts_with(&first) && both.lines().count() == first.lines().count() + 1, "{both}");
}

#[test]
fn the_level_decides_what_is_logged() {
    let golden = [
        ("DEBUG", true, true, true),
        ("INFO", false, true, true),
        ("WARNING", false, false, true),
        ("ERROR", false, false, false),
        ("CRITICAL", false, false, false),
    ];
    let host = Host::new();
    let mut rfw = host.rfw(IPTABLES);
    for (level, debug, info, warn) in golden {
        rfw.spawn_with(&["--loglevel", level, "-v"]);
        rfw.ok("PUT", "/drop/input/any/1.2.3.4");
        rfw.curl(&["https://127.0.0.1:7393/"]);
        rfw.stop();
        let log = rfw.log();
        assert_eq!(log.contains("[DEBUG]"), debug, "{level}: {log}");
        assert_eq!(log.contains("[INFO]"), info, "{level}: {log}");
        assert_eq!(log.contains("[WARN]"), warn, "{level}: {log}");
    }
}

#[test]
fn with_v_each_transaction_of_the_kernel_shows_on_the_terminal() {
    let host = Host::new();
    let mut rfw = host.rfw(IPTABLES);
    rfw.spawn_with(&["-v"]);
    rfw.ok("PUT", "/drop/input/any/1.2.3.4?expire=0");
    rfw.ok("PUT", "/drop/input/any/1.2.3.4?expire=1h");
    rfw.ok("DELETE", "/drop/input/any/1.2.3.4");
    rfw.stop();
    let terminal = rfw.terminal();
    let transactions: Vec<&str> =
        terminal.lines().filter(|line| line.contains("-restore: *filter; ")).collect();
    // The guards of both families and the three changes.
    assert_eq!(transactions.len(), 5, "{terminal}");
    let permanent = "INPUT -s 1.2.3.4 -m comment --comment \"rfw permanent\" -j DROP; ";
    assert!(transactions[2].contains(&format!("*filter; -I {permanent}COMMIT")), "{}", transactions[2]);
    let refresh = format!("*filter; -D {permanent}-I INPUT -s 1.2.3.4 -m comment --comment \"rfw until 20");
    assert!(transactions[3].contains(&refresh), "{}", transactions[3]);
    assert!(transactions[4].contains("*filter; -D INPUT -s 1.2.3.4 "), "{}", transactions[4]);
    assert!(terminal.contains("client=me ") && terminal.contains(" outcome=refreshed\n"), "{terminal}");
    assert!(!rfw.log().contains("*filter"), "INFO is the default of the log: {}", rfw.log());
}
