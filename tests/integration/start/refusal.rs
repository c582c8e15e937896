//! What is refused at the start, and how it is said.

use super::{IPTABLES, RFW, add_foreign_rules, is_refused, kernel, sh, try_start, wrap_tools};
use crate::golden::cases;
use crate::host::{Host, SOON, VARIANTS, until};

#[test]
fn a_wrong_line_of_the_configuration_ends_the_start() {
    let span = "is not a time span: expected seconds, or a number with s, m, h or d, up to 36500d";
    let host = Host::new();
    add_foreign_rules(&host);
    for (at, [line, message]) in cases("start-config.txt") {
        let rfw = host.rfw(IPTABLES).configure(&line);
        is_refused(&rfw, &at, 78, &format!("rfw.conf:12: {message}"));
    }
    // A line of the file is replaced.
    let log_in = "not set: expected a value, since clients have to log in";
    let golden = [
        (
            "[config]\n",
            "\n",
            "2: \"outward.server\": expected a section before all options, [config] once or [client NAME]"
                .to_owned(),
        ),
        ("= ::\n", "= eth0\n", "3: outward.server.ip: \"eth0\": expected an IPv4 or IPv6 address".to_owned()),
        ("= 1h", "= soon", format!("9: default.expire: \"soon\" {span}")),
        ("= 1h", "= -1", format!("9: default.expire: \"-1\" {span}")),
        ("= 1h", "= 40000d", format!("9: default.expire: \"40000d\" {span}")),
        ("auth.username = me", "auth.username =", format!("7: auth.username: {log_in}")),
        ("auth.password = secret", "# auth.password =", format!(" auth.password: {log_in}")),
        (
            "auth.username = me",
            "auth.username = m:e",
            "7: auth.username: \"m:e\": expected a name without a colon".to_owned(),
        ),
    ];
    for (from, to, message) in golden {
        let rfw = host.rfw(IPTABLES).reconfigure(from, to);
        is_refused(&rfw, to, 78, &format!("rfw.conf:{message}"));
    }
    let rfw = host.rfw(IPTABLES).reconfigure("outward.server\n", "\n").reconfigure("local.server\n", "\n");
    is_refused(&rfw, "no server", 78, "rfw.conf: neither outward.server nor local.server is on");
}

#[test]
fn files_that_are_missing_or_wrong_end_the_start() {
    let host = Host::new();
    add_foreign_rules(&host);
    for (at, [script, message]) in cases("start-files.txt") {
        is_refused_after(&host, &at, &script, &message);
    }
}

#[test]
fn a_white_list_that_cannot_be_read_is_an_error_of_the_line_that_names_it() {
    let golden = [
        ("rm white.list", "No such file or directory (os error 2)"),
        ("rm white.list; mkdir white.list", "not a regular file"),
        ("rm white.list; mkfifo white.list", "not a regular file"),
        ("chmod 664 white.list", "mode 0664 lets others write it: expected 0644 (chmod 644)"),
        ("chmod 666 white.list", "mode 0666 lets others write it: expected 0644 (chmod 644)"),
        ("printf '\\377' >>white.list", "stream did not contain valid UTF-8"),
    ];
    let host = Host::new();
    for (script, why) in golden {
        is_refused_after(&host, script, script, &format!("rfw.conf:10: whitelist.file: white.list: {why}"));
    }
}

#[test]
fn files_below_a_folder_that_others_may_change_are_not_trusted() {
    let host = Host::new();
    for mode in ["0777", "0770", "0707"] {
        let script =
            format!("mkdir -p open/in; mv white.list open/in; ln -s open/in/white.list; chmod {mode} open");
        let message = format!(
            "rfw.conf:10: whitelist.file: white.list: mode {mode} of the folder open lets others replace it: \
             expected 0755 (chmod go-w open)"
        );
        is_refused_after(&host, mode, &script, &message);
        sh(&host, "rm -r open");
    }
    // A link on the way leads out of a folder that is safe and back into it.
    let script = "mkdir safe open; mv white.list safe; ln -s ../safe open/way; ln -s open/way/white.list; chmod 777 open";
    let message = "rfw.conf:10: whitelist.file: white.list: mode 0777 of the folder open lets others replace it: \
                   expected 0755 (chmod go-w open)";
    is_refused_after(&host, "a link", script, message);
    // With the sticky bit only the owner may replace a file.
    let mut rfw = host.rfw(IPTABLES);
    sh(&host, "mkdir sticky; mv white.list sticky; ln -s sticky/white.list; chmod 1777 sticky");
    rfw.spawn();
    rfw.stop();
}

#[test]
fn a_fifo_in_place_of_a_file_stops_neither_a_check_nor_a_reload_nor_a_log() {
    let host = Host::new();
    let mut rfw = host.rfw(IPTABLES).start();
    sh(&host, "mkfifo fifo; rm white.list; ln -s fifo white.list");
    rfw.signal("HUP");
    until(SOON, "it is refused", || rfw.log().contains("the old configuration stays"));
    rfw.ok("PUT", "/drop/input/any/1.2.3.4");
    let error = rfw.call(&["--check"]).fails_with(78);
    assert!(error.contains("white.list: not a regular file"), "{error}");
    rfw.stop();
    let arguments = ["-f", "rfw.conf", "--logfile", "fifo"];
    let error = host.run(RFW, &arguments).fails_with(1);
    assert!(error.starts_with("rfw: the log fifo: "), "{error}");
    // Not even one that somebody reads.
    let reader = host.talk("cat", &["fifo"]);
    let error =
        host.run("sh", &["-c", &format!("exec 3<>fifo; exec timeout 10 {RFW} -f rfw.conf --logfile fifo")]);
    assert_eq!(error.fails_with(1), "rfw: the log fifo: not a regular file\n");
    drop(reader);
}

/// Has it refuse its configuration after a script has spoilt its files.
#[track_caller]
fn is_refused_after(host: &Host, case: &str, script: &str, message: &str) {
    let rfw = host.rfw(IPTABLES);
    sh(host, &format!("umask 077; ({script}) 2>err || {{ cat err >&2; exit 1; }}"));
    is_refused(&rfw, case, 78, message);
    // The next one writes all of them, which a FIFO would not take.
    sh(host, "rm -rf rfw.conf white.list server.crt server.key");
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let host = Host::new();
    let kinds = [
        "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256",
        "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048",
        "genpkey -algorithm ED25519",
    ];
    for kind in kinds {
        let rfw = host.rfw(IPTABLES);
        sh(&host, &format!("umask 077; openssl {kind} -out server.key 2>/dev/null"));
        let before = kernel(&host);
        let err = try_start(&rfw, &[]).fails_with(78);
        let dir = host.dir.display();
        let start = format!(
            "rfw: rfw.conf:5: outward.server.keyfile: {dir}/server.key: does not fit the certificate {dir}/server.crt\n"
        );
        assert_eq!(err, start, "{kind}");
        assert_eq!(kernel(&host), before);
    }
}

#[test]
fn a_file_of_another_user_is_refused() {
    let host = Host::new();
    let golden = [
        ("rfw.conf", "rfw.conf: belongs to user"),
        ("server.key", "rfw.conf:5: outward.server.keyfile: server.key: belongs to user"),
    ];
    for (file, message) in golden {
        let rfw = host.rfw(IPTABLES);
        // Without root's right over the machine's users there is no other user.
        if host.run("chown", &["1", file]).status != Some(0) {
            return;
        }
        let err = try_start(&rfw, &[]).fails_with(78).replace(&format!("{}/", host.dir.display()), "");
        assert!(err.contains(&format!("{message} 1: expected root (chown root)\n")), "{file}: {err}");
        assert!(err.starts_with("rfw: ") && err.lines().count() == 1, "{err}");
        sh(&host, &format!("rm {file}"));
    }
}

#[test]
fn iptables_that_is_not_there_ends_the_start() {
    let host = Host::new();
    add_foreign_rules(&host);
    let script = "mkdir tools; cd tools; for name in iptables iptables-save half; do
        printf '#!/bin/sh\\nexit 0\\n' >$name; chmod 755 $name; done; touch plain; cp half half-iptables";
    sh(&host, script);
    let missing = |name: &str| format!("rfw.conf:11: iptables.path: no executable program \"{name}\"");
    let golden = [
        ("iptables-none", "", missing("iptables-none")),
        ("/no/such/iptables", "", missing("/no/such/iptables")),
        ("tools/plain", "ip6tables.path = ip6tables-nft", missing("tools/plain")),
        ("tools", "ip6tables.path = ip6tables-nft", missing("tools")),
        ("tools/half", "ip6tables.path = ip6tables-nft", missing("tools/half-save")),
        ("tools/iptables", "", missing("tools/iptables-restore")),
        (
            "nft",
            "",
            "rfw.conf:11: iptables.path: \"nft\" has no \"iptables\" in its name: expected ip6tables.path to be set too"
                .to_owned(),
        ),
        (
            "iptables-nft",
            "ip6tables.path = /no/such/ip6tables",
            "rfw.conf:12: ip6tables.path: no executable program \"/no/such/ip6tables\"".to_owned(),
        ),
        (
            "iptables-nft",
            "ip6tables.path = tools/iptables",
            "rfw.conf:12: ip6tables.path: no executable program \"tools/iptables-restore\"".to_owned(),
        ),
    ];
    for (path, more, message) in golden {
        let rfw = host.rfw(path).configure(more);
        is_refused(&rfw, path, 78, &message);
    }
}

#[test]
fn iptables_that_may_not_do_its_work_ends_the_start() {
    for iptables in VARIANTS {
        let host = Host::new();
        add_foreign_rules(&host);
        let rfw = host.rfw(iptables);
        let before = kernel(&host);
        let drop = ["setpriv", "--bounding-set=-net_admin,-net_raw", "--inh-caps=-net_admin,-net_raw"];
        let said = try_start(&rfw, &drop);
        let err = said.fails_with(78);
        assert!(err.starts_with("rfw: rfw.conf:11: iptables.path: "), "{err}");
        assert!(err.contains("Permission denied") || err.contains("not permitted"), "{err}");
        assert_eq!(err.lines().count(), 1, "{err}");
        assert_eq!(kernel(&host), before);
    }
}

#[test]
fn iptables_that_fails_is_quoted() {
    let host = Host::new();
    wrap_tools(&host, "case $0 in *-save) echo 'it is' >&2; echo 'broken' >&2; exit 3;; esac");
    let rfw = host.rfw("tools/iptables");
    let before = kernel(&host);
    let err = try_start(&rfw, &[]).fails_with(78);
    assert!(
        err.starts_with("rfw: rfw.conf:11: iptables.path: ") && err.ends_with(": it is; broken\n"),
        "{err}"
    );
    assert_eq!(kernel(&host), before);
}

#[test]
fn a_port_that_is_in_use_ends_the_start_and_touches_no_rule() {
    let host = Host::new();
    add_foreign_rules(&host);
    let golden = [
        (7393, "[::]:7393", "= ::\n"),
        (7393, "0.0.0.0:7393", "= 0.0.0.0\n"),
        (7390, "127.0.0.1:7390", "= ::\n"),
    ];
    for (port, address, ip) in golden {
        let rfw = host.rfw(IPTABLES).reconfigure("= ::\n", ip);
        let arguments =
            ["s_server", "-accept", &port.to_string(), "-cert", "server.crt", "-key", "server.key"];
        let other = host.talk("openssl", &arguments);
        until(SOON, "the port is taken", || sh(&host, "ss -Htln").contains(&format!(":{port} ")));
        let message = format!("can't listen on {address}: Address already in use (os error 98)");
        is_refused(&rfw, address, 1, &message);
        drop(other);
        until(SOON, "the port is free", || !sh(&host, "ss -Htln").contains(&format!(":{port} ")));
    }
    let rfw = host.rfw(IPTABLES).reconfigure("= ::\n", "= 203.0.113.7\n");
    let message = "can't listen on 203.0.113.7:7393: Cannot assign requested address (os error 99)";
    is_refused(&rfw, "an address of another host", 1, message);
}

#[test]
fn two_servers_on_one_port_are_refused_before_a_rule_is_touched() {
    let host = Host::new();
    add_foreign_rules(&host);
    for ip in ["= ::\n", "= 0.0.0.0\n", "= 127.0.0.1\n"] {
        let rfw = host.rfw(IPTABLES).reconfigure("= ::\n", ip).configure("local.server.port = 7393");
        let before = kernel(&host);
        let said = try_start(&rfw, &[]);
        assert!(said.status == Some(78) || said.status == Some(1), "{said:#?}");
        assert_eq!(said.err.lines().count(), 1, "{said:#?}");
        assert_eq!(kernel(&host), before, "{ip}");
    }
}

#[test]
fn a_second_rfw_ends_and_leaves_the_first_as_it_is() {
    let host = Host::new();
    let rfw = host.rfw(IPTABLES).start();
    rfw.ok("PUT", "/drop/input/any/1.2.3.4");
    let before = kernel(&host);
    let arguments = ["10", RFW, "-f", "rfw.conf", "--logfile", "second.log"];
    let err = host.run("timeout", &arguments).fails_with(1);
    assert_eq!(err, "rfw: another rfw is running: stop it first\n");
    assert_eq!(kernel(&host), before);
    // On other ports, with another program of the family, it would fight over the same rules.
    host.run("sh", &["-c", "sed 's/^local.server$//; s/^outward.server$/&\\noutward.server.port = 7399/' rfw.conf >b.conf; chmod 600 b.conf"]).ok();
    let err = host.run("timeout", &["10", RFW, "-f", "b.conf", "--logfile", "second.log"]).fails_with(1);
    assert!(err.contains("another rfw is running"), "{err}");
    assert_eq!(kernel(&host), before);
    assert_eq!(rfw.ok("GET", "/list").as_array().map(Vec::len), Some(1));
}
