//! Starts and ends: what is refused and how it is said, the command line, signals,
//! machines that lack something, and files of the original rfw.

use crate::host::{self, Host, Rfw, SOON, Said, VARIANTS, until};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

const IPTABLES: &str = "iptables-nft";
const RFW: &str = env!("CARGO_BIN_EXE_rfw");

/// The filter tables of both variants and families, without times and counters, and
/// without what an untouched table has. (Which other tables there are, only root may
/// ask.)
fn kernel(host: &Host) -> String {
    let saves = ["iptables-nft-save", "ip6tables-nft-save", "iptables-legacy-save", "ip6tables-legacy-save"];
    let untouched = ["*filter", ":INPUT ACCEPT", ":FORWARD ACCEPT", ":OUTPUT ACCEPT", "COMMIT"];
    let saved = |save: &&str| {
        let all = host.run(save, &["-t", "filter"]).ok();
        let plain = all.lines().filter(|line| !line.starts_with('#'));
        let plain = plain.map(|line| line.split(" [").next().unwrap());
        plain
            .filter(|line| !untouched.contains(line))
            .map(|line| format!("{save}: {line}\n"))
            .collect::<String>()
    };
    saves.iter().map(saved).collect()
}

/// Rules of somebody else in both families, so that there is something to disturb.
fn add_foreign_rules(host: &Host) {
    for command in ["iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy"] {
        host.run(command, &["-w", "-A", "INPUT", "-i", "dummy0", "-j", "DROP"]).ok();
    }
}

/// Starts rfw, which has to end by itself. `through` are words in front of it.
fn try_start(rfw: &Rfw<'_>, through: &[&str]) -> Said {
    let own = [RFW, "-f", "rfw.conf", "--logfile", "rfw.log"];
    rfw.host.run("timeout", &[&["10"], through, &own[..]].concat())
}

/// Has it refuse to start with that status and one line, with nothing touched.
#[track_caller]
fn is_refused(rfw: &Rfw<'_>, case: &str, status: i32, message: &str) {
    let before = kernel(rfw.host);
    let err = try_start(rfw, &[]).fails_with(status);
    let dir = format!("{}/", rfw.host.dir.display());
    assert_eq!(err.replace(&dir, ""), format!("rfw: {message}\n"), "{case}");
    assert_eq!(kernel(rfw.host), before, "{case}");
    let log = fs::read_to_string(rfw.host.dir.join("rfw.log")).unwrap_or_default();
    let last = log.lines().last().unwrap_or_default().replace(&dir, "");
    assert!(last.contains("[ERROR]") && last.ends_with(message), "{case}: {last:?}");
    let check = rfw.call(&["--check"]);
    if status == 78 {
        assert_eq!(check.status, Some(78), "{case}: {check:#?}");
        assert_eq!(check.err.replace(&dir, ""), format!("rfw: {message}\n"), "{case}");
    }
}

/// Has openssl or another program prepare files in the host's folder.
#[track_caller]
fn sh(host: &Host, script: &str) -> String {
    host.run("sh", &["-c", script]).ok()
}

// ---- what is refused ----

#[test]
fn a_wrong_line_of_the_configuration_ends_the_start() {
    let span = "is not a time span: expected seconds, or a number with s, m, h or d, up to 36500d";
    let port = "expected a port from 1 to 65535";
    let flag = "takes no value: expected the bare name for on, or a # before it for off";
    // The line is added as the twelfth.
    let golden = [
        ("outward.server.port = 0", format!("outward.server.port: \"0\": {port}")),
        ("outward.server.port = 65536", format!("outward.server.port: \"65536\": {port}")),
        ("outward.server.port = https", format!("outward.server.port: \"https\": {port}")),
        ("outward.server.port = -1", format!("outward.server.port: \"-1\": {port}")),
        ("outward.server.port =", format!("outward.server.port: \"\": {port}")),
        ("local.server.port = 7390 7391", format!("local.server.port: \"7390 7391\": {port}")),
        ("outward.server.ip = ::1", "outward.server.ip: already set in line 3".to_owned()),
        ("default.expire = 1h", "default.expire: already set in line 9".to_owned()),
        ("Local.Server", "local.server: already set in line 6".to_owned()),
        ("outward.sever.port = 1", "unknown option \"outward.sever.port\"".to_owned()),
        ("whitelist = x", "unknown option \"whitelist\"".to_owned()),
        ("evil\u{1b}[31m = x", "unknown option \"evil\\u{1b}[31m\"".to_owned()),
        ("non.restful = yes", format!("non.restful: {flag}")),
        ("local.server.authentication = 0", format!("local.server.authentication: {flag}")),
        (
            "local.server.port",
            "local.server.port: has no value: expected local.server.port = value".to_owned(),
        ),
        ("ip6tables.path =", "ip6tables.path: has no value: expected ip6tables.path = value".to_owned()),
        ("[config]", "\"[config]\": expected one section, [config], before all options".to_owned()),
        ("[other]", "\"[other]\": expected one section, [config], before all options".to_owned()),
    ];
    let host = Host::new();
    add_foreign_rules(&host);
    for (line, message) in golden {
        let rfw = host.rfw(IPTABLES).configure(line);
        is_refused(&rfw, line, 78, &format!("rfw.conf:12: {message}"));
    }
    // A line of the file is replaced.
    let log_in = "not set: expected a value, since clients have to log in";
    let golden = [
        (
            "[config]\n",
            "\n",
            "2: \"outward.server\": expected one section, [config], before all options".to_owned(),
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
    let one_key = "server.key: expected one private key in PEM, not encrypted";
    let certificates = "server.crt: expected certificates in PEM";
    let golden = [
        ("rm rfw.conf", "rfw.conf: No such file or directory (os error 2)"),
        ("rm rfw.conf; mkdir rfw.conf; chmod 700 rfw.conf", "rfw.conf: not a file"),
        ("chmod 640 rfw.conf", "rfw.conf: mode 0640 lets others read it: expected 0600 (chmod 600)"),
        ("chmod 604 rfw.conf", "rfw.conf: mode 0604 lets others read it: expected 0600 (chmod 600)"),
        ("chmod 602 rfw.conf", "rfw.conf: mode 0602 lets others read it: expected 0600 (chmod 600)"),
        ("printf '\\377\\376' >>rfw.conf", "rfw.conf: stream did not contain valid UTF-8"),
        ("head -c 5000000 /dev/zero >rfw.conf", "rfw.conf: 5000000 bytes: expected at most 4194304"),
        (">white.list", "white.list: no entry: expected at least one address, network or range"),
        (
            "printf '# none\\n\\n' >white.list",
            "white.list: no entry: expected at least one address, network or range",
        ),
        (
            "echo 1.2.3.4/33 >>white.list",
            "white.list:3: \"33\" is not a mask of IPv4: expected a number up to 32",
        ),
        ("echo example.com >>white.list", "white.list:3: \"example.com\" is not an IPv4 or IPv6 address"),
        (
            "printf '\\n1.2.3.9-1.2.3.4\\n' >>white.list",
            "white.list:4: \"1.2.3.9-1.2.3.4\" is not a range: expected two addresses of one family, the lower first",
        ),
        (
            "echo 0.0.0.0/0 >white.list",
            "white.list:1: \"0.0.0.0/0\" means any address: expected the addresses of clients",
        ),
        (
            "rm server.crt",
            "rfw.conf:4: outward.server.certfile: server.crt: No such file or directory (os error 2)",
        ),
        (
            "chmod 666 server.crt",
            "rfw.conf:4: outward.server.certfile: server.crt: mode 0666 lets others write it: expected 0644 (chmod 644)",
        ),
        (">server.crt", &format!("rfw.conf:4: outward.server.certfile: {certificates}")),
        ("echo garbage >server.crt", &format!("rfw.conf:4: outward.server.certfile: {certificates}")),
        ("cp server.key server.crt", &format!("rfw.conf:4: outward.server.certfile: {certificates}")),
        (
            "sed -i '2s/^...../!!!!!/' server.crt",
            &format!("rfw.conf:4: outward.server.certfile: {certificates}"),
        ),
        (
            "printf -- '-----BEGIN CERTIFICATE-----\\nAAAA\\n-----END CERTIFICATE-----\\n' >server.crt",
            "rfw.conf:4: outward.server.certfile: server.crt: expected certificates of X.509",
        ),
        (
            "rm server.key",
            "rfw.conf:5: outward.server.keyfile: server.key: No such file or directory (os error 2)",
        ),
        (
            "chmod 640 server.key",
            "rfw.conf:5: outward.server.keyfile: server.key: mode 0640 lets others read it: expected 0600 (chmod 600)",
        ),
        (
            "chmod 604 server.key",
            "rfw.conf:5: outward.server.keyfile: server.key: mode 0604 lets others read it: expected 0600 (chmod 600)",
        ),
        (">server.key", &format!("rfw.conf:5: outward.server.keyfile: {one_key}")),
        ("echo garbage >server.key", &format!("rfw.conf:5: outward.server.keyfile: {one_key}")),
        ("cat server.crt >server.key", &format!("rfw.conf:5: outward.server.keyfile: {one_key}")),
        (
            "head -n 2 server.key >k; cat k >server.key",
            &format!("rfw.conf:5: outward.server.keyfile: {one_key}"),
        ),
        (
            "openssl pkcs8 -topk8 -v2 aes256 -passout pass:x -in server.key -out k; cat k >server.key",
            &format!("rfw.conf:5: outward.server.keyfile: {one_key}"),
        ),
        (
            "openssl ec -aes256 -passout pass:x -in server.key -out k; cat k >server.key",
            &format!("rfw.conf:5: outward.server.keyfile: {one_key}"),
        ),
    ];
    let host = Host::new();
    add_foreign_rules(&host);
    for (script, message) in golden {
        is_refused_after(&host, script, message);
    }
}

#[test]
fn a_white_list_that_cannot_be_read_is_an_error_of_the_line_that_names_it() {
    let golden = [
        ("rm white.list", "No such file or directory (os error 2)"),
        ("rm white.list; mkdir white.list", "not a file"),
        ("chmod 666 white.list", "mode 0666 lets others write it: expected 0644 (chmod 644)"),
        ("printf '\\377' >>white.list", "stream did not contain valid UTF-8"),
    ];
    let host = Host::new();
    for (script, why) in golden {
        is_refused_after(&host, script, &format!("rfw.conf:10: whitelist.file: white.list: {why}"));
    }
}

/// Has it refuse its configuration after a script has spoilt its files.
#[track_caller]
fn is_refused_after(host: &Host, script: &str, message: &str) {
    let rfw = host.rfw(IPTABLES);
    sh(host, &format!("umask 077; ({script}) 2>err || {{ cat err >&2; exit 1; }}"));
    is_refused(&rfw, script, 78, message);
    sh(host, "rm -rf rfw.conf white.list");
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
fn a_certificate_without_extensions_is_refused_as_the_certificate_it_is() {
    let host = Host::new();
    let rfw = host.rfw(IPTABLES);
    let script = "openssl req -new -key server.key -subj /CN=127.0.0.1 -out old.csr && \
        openssl x509 -req -in old.csr -signkey server.key -days 90 -out server.crt";
    sh(&host, &format!("({script}) 2>/dev/null"));
    let err = try_start(&rfw, &[]).fails_with(78);
    let start = format!("rfw: rfw.conf:4: outward.server.certfile: {}/server.crt: ", host.dir.display());
    assert!(err.starts_with(&start) && err.ends_with(": make a new one with rfwgen\n"), "{err}");
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

/// Puts a folder of tools named as iptables' own into the host's folder, each of
/// which runs `script` and then becomes the real one.
fn wrap_tools(host: &Host, script: &str) {
    fs::create_dir_all(host.dir.join("tools")).unwrap();
    for family in ["iptables", "ip6tables"] {
        for suffix in ["", "-save", "-restore"] {
            let text = format!("#!/bin/sh\n{script}\nexec {family}-nft{suffix} \"$@\"\n");
            host.write(&format!("tools/{family}{suffix}"), 0o755, &text);
        }
    }
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
    assert_eq!(err, "rfw: can't listen on [::]:7393: Address already in use (os error 98)\n");
    assert_eq!(kernel(&host), before);
    assert_eq!(rfw.ok("GET", "/list").as_array().map(Vec::len), Some(1));
}

// ---- the command line ----

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
    let ok = "rfw.conf: ok, 2 networks in the white list\n";
    assert_eq!(rfw.call(&["--check"]).ok(), ok);
    assert_eq!(kernel(&host), "");
    assert!(!host.dir.join("rfw.log").exists(), "a check needs no log");
    let rfw = rfw.start();
    rfw.ok("PUT", "/drop/input/any/1.2.3.4");
    let (before, log) = (kernel(&host), rfw.log());
    assert_eq!(rfw.call(&["--check"]).ok(), ok);
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
    assert!(terminal.contains("127.0.0.1 me: refreshed: "), "{terminal}");
    assert!(!rfw.log().contains("*filter"), "INFO is the default of the log: {}", rfw.log());
}

// ---- signals ----

#[test]
fn sigterm_and_sigint_end_rfw_and_its_rules_stay() {
    for iptables in VARIANTS {
        let host = Host::new();
        let mut rfw = host.rfw(iptables).start();
        rfw.ok("PUT", "/drop/input/any/1.2.3.4");
        for signal in ["TERM", "INT"] {
            let before = kernel(&host);
            rfw.signal(signal);
            assert_eq!(rfw.end(), 0, "{}", rfw.log());
            assert_eq!(kernel(&host), before, "{iptables} {signal}");
            let log = rfw.log();
            assert!(log.lines().last().unwrap().ends_with("rfw ends, its rules stay"), "{log}");
            rfw.spawn();
            assert_eq!(rfw.ok("GET", "/list").as_array().map(Vec::len), Some(1));
        }
    }
}

#[test]
fn a_request_at_hand_is_finished_before_the_end() {
    for (signal, group) in [("TERM", false), ("INT", false)] {
        finish_request(signal, group);
    }
}

#[test]
fn a_request_at_hand_is_finished_when_ctrl_c_signals_the_whole_group() {
    finish_request("INT", true);
}

#[test]
fn a_list_at_hand_is_finished_before_the_end() {
    for signal in ["TERM", "INT"] {
        finish_list(signal, false);
    }
}

#[test]
fn a_list_at_hand_is_finished_when_ctrl_c_signals_the_whole_group() {
    finish_list("INT", true);
}

/// Sends a signal while rfw reads the tables, which takes a second.
#[track_caller]
fn finish_list(signal: &str, group: bool) {
    let host = Host::new();
    let dir = host.dir.display();
    wrap_tools(&host, &format!("case $0 in *-save) [ -e {dir}/slow ] && touch {dir}/busy && sleep 1;; esac"));
    let mut rfw = host.rfw("tools/iptables").start();
    rfw.ok("PUT", "/drop/input/any/1.2.3.4");
    host.write("slow", 0o644, "");
    let mut client = host.connect(7390);
    client.say(b"GET /list HTTP/1.1\r\nHost: x\r\n\r\n");
    until(SOON, "rfw is working", || host.dir.join("busy").exists());
    send(&rfw, signal, group);
    let reply = client.reply();
    let log = rfw.log();
    assert_eq!((reply.status, rfw.end()), (200, 0), "{signal}: {reply:#?} {log}");
    assert_eq!(reply.json().as_array().map(Vec::len), Some(1), "{signal}: {reply:#?} {log}");
}

/// Sends a signal to rfw, or to its process group as a terminal does.
#[track_caller]
fn send(rfw: &Rfw<'_>, signal: &str, group: bool) {
    let process = rfw.pid().to_string();
    let target = if group { format!("-{process}") } else { process };
    host::run("kill", &["-s", signal, "--", &target]).ok();
}

/// Sends a signal to rfw, or to its process group as a terminal does, while it is
/// working on a request: another program holds the lock of the tables.
#[track_caller]
fn finish_request(signal: &str, group: bool) {
    let host = Host::new();
    let mut rfw = host.rfw("iptables-legacy").start();
    let lock = host.talk("flock", &["/run/xtables.lock", "sh", "-c", "echo held; exec cat"]);
    until(SOON, "the lock is held", || lock.heard().contains("held"));
    let mut client = host.connect(7390);
    client.say(b"PUT /drop/input/any/1.2.3.4 HTTP/1.1\r\nHost: x\r\n\r\n");
    until(SOON, "rfw is working", || rfw.log().contains("-I INPUT -s 1.2.3.4 "));
    send(&rfw, signal, group);
    // Time for the signal to do harm, then the lock is free.
    thread::sleep(Duration::from_millis(300));
    assert!(!client.is_over() && client.heard().is_empty(), "{signal}: {}", client.heard());
    drop(lock);
    let reply = client.reply();
    assert_eq!((reply.status, rfw.end()), (200, 0), "{signal}: {reply:#?} {}", rfw.log());
    assert_eq!(reply.json()["result"], "inserted");
    assert_eq!(host.rules("iptables-legacy", "INPUT").len(), 1, "{signal}");
}

#[test]
fn an_idle_client_does_not_hold_up_the_end() {
    let host = Host::new();
    let mut rfw = host.rfw(IPTABLES).start();
    let mut idle = host.connect(7390);
    idle.say(b"GET /list HTTP/1.1\r\nHost: x\r\n\r\n");
    idle.reply();
    let start = Instant::now();
    rfw.stop();
    assert!(start.elapsed().as_secs() < 2, "{:?}", start.elapsed());
    until(SOON, "the client sees the end", || idle.is_over());
    // One that has not yet said anything may have its five seconds.
    rfw.spawn();
    let silent = host.connect(7390);
    rfw.stop();
    until(SOON, "the client sees the end", || silent.is_over());
}

#[test]
fn sighup_reads_the_white_list_again() {
    for iptables in VARIANTS {
        let host = Host::new();
        let rfw = host.rfw(iptables).start();
        let ip6tables = iptables.replace("ip", "ip6");
        let guards = |part: &str| {
            let both = [host.guards(iptables), host.guards(&ip6tables)].concat();
            both.iter().filter(|line| line.contains(part)).count()
        };
        assert_eq!((guards(""), guards("10.0.0.0/8"), guards("-j DROP")), (8, 0, 4));
        rfw.ok("PUT", "/drop/input/any/10.1.2.3");
        rfw.ok("PUT", "/drop/input/any/11.1.2.3");
        let rfw = rfw.white_list("127.0.0.1\n::1\n10.0.0.0/8\n");
        rfw.signal("HUP");
        until(SOON, "the list is read", || {
            rfw.log().contains("the white list has been read again: 3 networks")
        });
        assert_eq!((guards(""), guards("10.0.0.0/8"), guards("-j DROP")), (10, 2, 4), "{iptables}");
        assert_eq!(host.rules(iptables, "INPUT").len(), 1);
        assert!(rfw.log().contains("[WARN] removed, since it touches the white list: INPUT -s 10.1.2.3"));
        assert!(rfw.refused("PUT", "/drop/input/any/10.1.2.3", 400).contains("10.0.0.0/8"));
        // A bad one is refused and the old one stays.
        for bad in ["127.0.0.1\nnonsense\n", "", "0.0.0.0/0\n"] {
            host.write("white.list", 0o644, bad);
            let before = (kernel(&host), rfw.log().matches("is refused").count());
            rfw.signal("HUP");
            until(SOON, "the list is refused", || rfw.log().matches("is refused").count() > before.1);
            assert_eq!(kernel(&host), before.0, "{bad:?}");
            rfw.refused("PUT", "/drop/input/any/10.1.2.3", 400);
        }
        let line = "white.list:2: \"nonsense\" is not an IPv4 or IPv6 address";
        assert!(rfw.log().contains(line), "{}", rfw.log());
        let rfw = rfw.white_list("127.0.0.1\n");
        rfw.signal("HUP");
        until(SOON, "the list is read", || rfw.log().contains("again: 1 networks"));
        assert_eq!((guards(""), guards("::1")), (6, 0), "{iptables}");
        rfw.ok("PUT", "/drop/input/any/10.1.2.3");
    }
}

// ---- machines that lack something ----

#[test]
fn a_machine_without_ipv6_still_runs_with_one_warning() {
    let missing = "rm tools/ip6tables*";
    let broken = "printf '#!/bin/sh\\necho no IPv6 here >&2\\nexit 3\\n' >tools/ip6tables-save";
    for (script, why) in [(missing, "no executable program"), (broken, "no IPv6 here")] {
        let host = Host::new();
        wrap_tools(&host, "");
        sh(&host, script);
        let rfw = host.rfw("tools/iptables").reconfigure("= ::\n", "= 0.0.0.0\n").start();
        let log = rfw.log();
        let warnings: Vec<&str> = log.lines().filter(|line| line.contains("[WARN]")).collect();
        assert_eq!(warnings.len(), 1, "{log}");
        assert!(warnings[0].contains("IPv6 is not available: ") && warnings[0].contains(why), "{log}");
        assert_eq!(rfw.ok("PUT", "/drop/input/any/1.2.3.4")["result"], "inserted");
        assert_eq!(rfw.ok("GET", "/list").as_array().map(Vec::len), Some(1));
        let reply = rfw.request("PUT", "/drop/input/any/2001:db8::1");
        assert!((400..600).contains(&reply.status), "{reply:#?}");
        assert!(reply.json()["error"].as_str().is_some_and(|text| text.contains("IPv6")), "{reply:#?}");
        assert_eq!(host.rules(IPTABLES, "INPUT").len(), 1);
        assert_eq!(host.guards("ip6tables-nft"), Vec::<String>::new());
    }
}

#[test]
fn ip6tables_that_is_asked_for_has_to_work() {
    let host = Host::new();
    wrap_tools(&host, "");
    sh(&host, "rm tools/ip6tables");
    let rfw = host
        .rfw("tools/iptables")
        .reconfigure("= ::\n", "= 0.0.0.0\n")
        .configure("ip6tables.path = tools/ip6tables");
    is_refused(&rfw, "", 78, "rfw.conf:12: ip6tables.path: no executable program \"tools/ip6tables\"");
    // A server on IPv6 without a guard would be open to all.
    for ip in ["= ::\n", "= ::1\n"] {
        let rfw = host.rfw("tools/iptables").reconfigure("= ::\n", ip);
        let err = try_start(&rfw, &[]).fails_with(78);
        assert!(err.starts_with("rfw: rfw.conf: ip6tables.path: ") && err.contains("guard"), "{err}");
    }
    // Under another name it is fine.
    let rfw = host.rfw("tools/iptables").configure("ip6tables.path = ip6tables-nft").start();
    assert_eq!(rfw.ok("PUT", "/drop/input/any/2001:db8::1")["result"], "inserted");
    assert_eq!(host.rules("ip6tables-nft", "INPUT").len(), 1);
}

#[test]
fn a_certificate_that_ends_soon_is_a_warning() {
    let golden = [
        ("--days 10", Some("the certificate expires in 9 days")),
        ("--days 29", Some("in 28 days")),
        ("--days 40", None),
    ];
    let rfwgen = Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/deploy/rfwgen");
    let host = Host::new();
    let mut rfw = host.rfw(IPTABLES);
    for (days, warning) in golden {
        let script = format!(
            "{} --force {days} 127.0.0.1 && cp server_127.0.0.1/server.* . && cp client/ca.crt .",
            rfwgen.display()
        );
        sh(&host, &script);
        rfw.spawn();
        let log = rfw.log();
        let warnings: Vec<&str> = log.lines().filter(|line| line.contains("[WARN]")).collect();
        match warning {
            Some(text) => assert!(warnings.len() == 1 && warnings[0].contains(text), "{days}: {log}"),
            None => assert_eq!(warnings.len(), 0, "{days}: {log}"),
        }
        rfw.ok("GET", "/list");
        rfw.stop();
    }
}

#[test]
fn a_start_without_standard_streams_or_with_a_closed_terminal_is_fine() {
    let host = Host::new();
    let _rfw = host.rfw(IPTABLES);
    let script = format!("exec {RFW} -f rfw.conf --logfile rfw.log -v <&- >&- 2>&-");
    let daemon = host.talk("sh", &["-c", &script]);
    let log = || fs::read_to_string(host.dir.join("rfw.log")).unwrap_or_default();
    until(SOON, "rfw is ready", || log().contains("is ready"));
    let mut client = host.connect(7390);
    client.say(b"PUT /drop/input/any/1.2.3.4 HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.reply().json()["result"], "inserted");
    assert_eq!(host.rules(IPTABLES, "INPUT").len(), 1);
    drop(daemon);
}

// ---- files of the original ----

#[test]
fn a_configuration_of_the_original_works_as_it_is() {
    let original = "\
#######################################################
# /etc/rfw/rfw.conf
# Configuration file for rfw
#######################################################

[config]

# HTTPS server for remote requests; it always asks for credentials.
outward.server

# The port. Without outward.server this has no meaning.
outward.server.port = 7393

# 0.0.0.0 is all interfaces.
outward.server.ip = 0.0.0.0

outward.server.certfile = /etc/rfw/ssl/server.crt
outward.server.keyfile = /etc/rfw/ssl/server.key


# HTTP server on localhost
local.server
local.server.port = 7390

# GET instead of PUT and DELETE
non.restful


# Not enabled by default.
# local.server.authentication


#TODO more than one user
auth.username = mietek
auth.password = passwd


# <number>, or with s, m, h, d
default.expire = 24h

whitelist.file = /etc/rfw/white.list

# The full path, or a name.
iptables.path = iptables


";
    let white_list = "# IP addresses that rfw leaves alone.\n#TODO allow IP ranges\n\n127.0.0.1\n# a network\n10.0.0.0/8\n\n";
    let host = Host::new();
    let rfw = host.rfw(IPTABLES).white_list(white_list);
    let etc = format!("{}/etc", host.dir.display());
    sh(&host, "mkdir -p etc/ssl && mv server.crt server.key etc/ssl && mv white.list etc");
    host.write("rfw.conf", 0o600, &original.replace("/etc/rfw", &etc));
    let rfw = rfw.start();
    let url = "https://127.0.0.1:7393/drop/input/eth0/1.2.3.4";
    let reply = rfw.curl(&["-u", "mietek:passwd", "-X", "PUT", url]);
    assert_eq!(reply.json()["result"], "inserted");
    let ends = reply.json()["expires"].as_str().expect("a moment").to_owned();
    let left = sh(&host, &format!("echo $(($(date -d {ends} +%s) - $(date +%s)))"));
    let left: i64 = left.trim().parse().unwrap();
    assert!((86_300..=86_401).contains(&left), "{left}");
    let reply = rfw.curl(&["http://127.0.0.1:7390/drop/input/eth0/1.2.3.4?modify=delete"]);
    assert_eq!(reply.json()["result"], "deleted");
    assert_eq!(rfw.curl(&["-u", "mietek:wrong", url]).status, 401);
    let reply = rfw.curl(&["-X", "PUT", "http://127.0.0.1:7390/drop/input/any/10.200.0.0/24"]);
    assert_eq!(reply.status, 400, "{reply:#?}");
}

#[test]
fn a_configuration_in_the_forms_that_the_original_understood_works() {
    let host = Host::new();
    let rfw = host.rfw(IPTABLES);
    let conf = fs::read_to_string(host.dir.join("rfw.conf")).unwrap();
    let conf = conf
        .replace("= secret", ":  se=cr:et  ; not more")
        .replace("local.server\n", "; a comment\r\nLOCAL.SERVER\r\n");
    host.write("rfw.conf", 0o600, &conf);
    let rfw = rfw.start();
    let url = "https://127.0.0.1:7393/list";
    assert_eq!(rfw.curl(&["-u", "me:se=cr:et", url]).status, 200);
    assert_eq!(rfw.curl(&["http://127.0.0.1:7390/list"]).status, 200);
}

#[test]
fn only_one_of_the_servers_runs_where_only_one_is_on() {
    let host = Host::new();
    let listening = || sh(&host, "ss -Htln | awk '{print $4}'");
    let mut rfw = host.rfw(IPTABLES).reconfigure("local.server\n", "#\n").start();
    assert_eq!(listening().trim(), "*:7393");
    assert_eq!(host.guards(IPTABLES).len(), 4);
    rfw.stop();
    // Without the outward server no keys and no credentials are needed, and the port
    // needs no guard.
    let rfw = host.rfw(IPTABLES).reconfigure("outward.server\n", "#\n").reconfigure("= secret", "=");
    sh(&host, "rm server.key server.crt");
    let _rfw = rfw.start();
    assert_eq!(listening().trim(), "127.0.0.1:7390");
    assert_eq!(host.guards(IPTABLES), Vec::<String>::new());
    let mut client = host.connect(7390);
    client.say(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.reply().json()["listening"], serde_json::json!(["http://127.0.0.1:7390"]));
}
