//! What `--check` reports, in its first line and behind it.

use super::{IPTABLES, RFW, kernel, sh};
use crate::host::{Host, Rfw, in_both_variants, of_ipv6};
use std::collections::BTreeMap;
use std::fs;

const SECTIONS: &str = "state.file =\n[client honeypot]\npassword = secret two\nfrom = 127.0.0.0/24\n\
    allow = drop input any\nallow = accept,reject forward eth0\nlists = honeypot,feed-*\nexpire.max = 7d\n\
    mask.min = 24 48\nentries.max = 50000\n[client monitor]\npassword = secret three\nread = all";

const REPORT: &str = "rfw.conf: ok, 2 networks in the white list, 4 clients, 0 warnings
listen      https [::]:7393
listen      http 127.0.0.1:7390, without login
whitelist   DIR/white.list: 2 networks
certificate DIR/server.crt: 127.0.0.1 ::1
certificate ends MOMENT, in DAYS days
certificate DIR/server.key: the key fits
clients     NAME      LOGIN         FROM          ALLOW                       LISTS            EXPIRE   MASK   ENTRIES  READ
clients     me        password      white list    * * *                       *                -        -      -        all
clients     honeypot  password      127.0.0.0/24  drop input any              honeypot,feed-*  604800s  24 48  50000    own
clients                                           accept,reject forward eth0
clients     monitor   password      white list    -                           -                -        -      -        all
clients     local     local server  this host     * * *                       *                -        -      -        all
iptables    IPTABLES vN (VARIANT)
iptables    IP6TABLES vN (VARIANT)
chains      input in INPUT of the table filter
chains      forward in FORWARD of the table filter
sets        off: each address is a rule
state       off: a reboot loses what is blocked
neighbours  nothing is left uncovered
confinement capabilities CAP_NET_ADMIN and CAP_NET_RAW, no new privileges, LANDLOCK
";

/// A report without what is another one each time.
fn plain(host: &Host, report: &str) -> String {
    let digits = |word: &str, sign: char| {
        word.strip_prefix(sign).is_some_and(|rest| rest.as_bytes()[0].is_ascii_digit())
    };
    let mut text = String::new();
    for line in report.lines() {
        let is_end = line.starts_with("certificate ends ");
        let words = line.split(' ').map(|word| match word {
            _ if is_end && word.ends_with("Z,") => "MOMENT,",
            _ if is_end && word.parse::<u32>().is_ok() => "DAYS",
            _ if line.starts_with("iptables ") && digits(word, 'v') => "vN",
            _ => word,
        });
        let line = words.collect::<Vec<_>>().join(" ");
        // As much of it as the kernel has.
        let confined = line.rsplit_once(", ").filter(|_| line.starts_with("confinement "));
        text += &(confined.map_or(line.clone(), |(rights, _)| format!("{rights}, LANDLOCK")) + "\n");
    }
    text.replace(&host.dir.display().to_string(), "DIR")
}

/// The lines of a part of the report.
#[track_caller]
fn part(rfw: &Rfw<'_>, name: &str) -> Vec<String> {
    let report = rfw.call(&["--check"]).ok();
    let of_part = |line: &str| line.strip_prefix(name)?.strip_prefix(' ').map(|text| text.trim().to_owned());
    report.lines().filter_map(of_part).collect()
}

/// All files in the folder of a host, with contents.
fn files(host: &Host) -> BTreeMap<String, Vec<u8>> {
    let files = sh(host, "find . -type f");
    files.lines().map(|file| (file.to_owned(), fs::read(host.dir.join(file)).unwrap())).collect()
}

#[test]
fn a_check_reports_what_is_in_force_and_changes_nothing() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).configure(SECTIONS).white_list("127.0.0.0/8\n::1\n");
        let (before, of_kernel) = (files(&host), kernel(&host));
        let said = rfw.call(&["--check"]);
        assert_eq!(said.err, "");
        let path =
            |command: &str| host.run("sh", &["-c", &format!("command -v {command}")]).ok().trim().to_owned();
        let expected = REPORT
            .replace("IP6TABLES", &path(&of_ipv6(iptables)))
            .replace("IPTABLES", &path(iptables))
            .replace("VARIANT", if iptables.ends_with("legacy") { "legacy" } else { "nf_tables" });
        assert_eq!(plain(&host, &said.ok()), expected);
        assert!(files(&host) == before && kernel(&host) == of_kernel);
    });
}

#[test]
fn the_options_in_force_can_be_fed_back_once_they_have_their_passwords() {
    let host = Host::new();
    let rfw = host.rfw(IPTABLES).configure(SECTIONS).white_list("127.0.0.0/8\n::1\n");
    let said = rfw.call(&["--check", "-v"]).ok();
    assert!(plain(&host, &said).starts_with(&plain(&host, &rfw.call(&["--check"]).ok())), "{said}");
    assert!(!said.contains("secret"), "{said}");
    let options = |said: &str| said.split_once("\n\n[config]").unwrap().1.to_owned();
    let file = format!("[config]{}", options(&said));
    host.write("rfw.conf", 0o600, &file);
    let error = rfw.call(&["--check"]).fails_with(78);
    assert_eq!(
        error,
        "rfw: rfw.conf:3: auth.password: not set: expected a value, since clients have to log in\n"
    );
    host.write("rfw.conf", 0o600, &file.replace("; not shown", "secret"));
    assert_eq!(options(&rfw.call(&["--check", "-v"]).ok()), options(&said));
}

#[test]
fn names_and_end_are_those_of_the_certificate_and_another_key_is_refused() {
    let host = Host::new();
    let rfw = host.rfw(IPTABLES);
    let make = |days: u32, extensions: &str| {
        let script = format!(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout server.key -out server.crt \
             -days {days} -subj '/CN=the name' {extensions} 2>/dev/null && chmod 600 server.key && \
             date -u -d \"$(openssl x509 -noout -enddate -in server.crt | cut -d= -f2)\" +%Y-%m-%dT%H:%M:%SZ"
        );
        sh(&host, &script).trim().to_owned()
    };
    let golden = [
        (
            99,
            "-addext subjectAltName=DNS:fw.example.org,IP:192.0.2.1,IP:2001:db8::1,email:a@example.org",
            "fw.example.org 192.0.2.1 2001:db8::1",
            "98 days",
        ),
        (2, "", "without a name in subjectAltName", "1 day"),
    ];
    for (days, extensions, names, left) in golden {
        let end = make(days, extensions);
        let told = part(&rfw, "certificate");
        assert!(told[0].ends_with(&format!("/server.crt: {names}")), "{told:?}");
        assert_eq!(told[1], format!("ends {end}, in {left}"));
    }
    let said = rfw.call(&["--check"]);
    assert!(said.err.contains("the certificate expires in 1 day"), "{said:?}");
    assert!(said.ok().starts_with("rfw.conf: ok, 2 networks in the white list, 2 clients, 1 warning\n"));
    sh(&host, "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out server.key 2>/dev/null");
    let said = rfw.call(&["--check"]);
    assert_eq!(said.out, "", "there is no first line of what is wrong");
    assert!(said.fails_with(78).contains("/server.key: does not fit the certificate "));
    // Only the local server needs none.
    let rfw = rfw.reconfigure("outward.server\n", "");
    assert_eq!(part(&rfw, "certificate"), Vec::<String>::new());
}

#[test]
fn where_rules_stand_and_whether_packets_get_there_is_told() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw =
            host.rfw(iptables).configure("input.table = raw\nforward.chain = DOCKER-USER\nipset = auto");
        let missing = |family: &str| {
            format!("forward: {family} has no chain DOCKER-USER: rules stand in FORWARD until it has")
        };
        let raw = "input in the table raw, before connection tracking".to_owned();
        assert_eq!(part(&rfw, "chains"), [raw.clone(), missing("IPv4"), missing("IPv6")]);
        assert_eq!(part(&rfw, "sets"), ["auto: the kernel has them"]);
        for command in [iptables.to_owned(), of_ipv6(iptables)] {
            host.admin(&command, "-N DOCKER-USER");
        }
        let unreached = "forward: rules of IPv4 stand in DOCKER-USER, but FORWARD does not lead there: they see no packet";
        host.admin(&of_ipv6(iptables), "-A FORWARD -j DOCKER-USER");
        assert_eq!(part(&rfw, "chains"), [raw.as_str(), unreached]);
        host.admin(iptables, "-A FORWARD -j DOCKER-USER");
        assert_eq!(part(&rfw, "chains"), [raw.as_str(), "forward in DOCKER-USER of the table filter"]);
    });
}

#[test]
fn the_state_file_is_told_and_stays_as_it_is() {
    let host = Host::new();
    let mut rfw = host.rfw(IPTABLES).configure(&format!("state.file = {}/state", host.dir.display()));
    let path = format!("{}/state: ", host.dir.display());
    assert_eq!(part(&rfw, "state"), [format!("{path}not there yet")]);
    rfw.spawn();
    for address in ["1.2.3.4", "1.2.3.5"] {
        rfw.ok("PUT", &format!("/drop/input/any/{address}"));
    }
    rfw.stop();
    let before = files(&host);
    assert_eq!(part(&rfw, "state"), [format!("{path}2 addresses")]);
    assert!(files(&host) == before);
    sh(&host, "echo nonsense >>state");
    let before = files(&host);
    let said = rfw.call(&["--check"]);
    assert!(said.err.contains("is damaged, and what is whole would be used"), "{said:?}");
    assert_eq!(part(&rfw, "state"), [format!("{path}damaged, 2 addresses of it could be used")]);
    assert!(files(&host) == before);
}

#[test]
fn clients_that_are_hardly_as_they_are_meant_are_warned_of_at_a_check_and_a_start() {
    let host = Host::new();
    let odd = "[client far]\npassword = x\nfrom = 10.0.0.0/8\n[client useless]\npassword = x\nread = none";
    let rfw = host.rfw(IPTABLES).configure(odd);
    let expected =
        ["the client far may come from 10.0.0.0/8", "the client useless can neither change nor see"];
    let said = rfw.call(&["--check"]);
    let warnings: Vec<&str> = said.err.lines().filter(|line| line.contains("[WARN]")).collect();
    assert_eq!(warnings.len(), 2, "{said:?}");
    assert!(warnings.iter().zip(expected).all(|(line, words)| line.contains(words)), "{warnings:?}");
    assert!(said.ok().starts_with("rfw.conf: ok, 2 networks in the white list, 4 clients, 2 warnings\n"));
    let rfw = rfw.start();
    assert!(expected.iter().all(|words| rfw.log().matches(words).count() == 1), "{}", rfw.log());
}

/// What a shell takes from standard output is the line for machines first, whatever is warned of.
#[test]
fn the_first_line_is_for_machines() {
    let host = Host::new();
    let rfw = host.rfw(IPTABLES).configure("ipset.path = x");
    let first = sh(&host, &format!("{RFW} -f rfw.conf --check 2>/dev/null | head -n 1"));
    assert_eq!(first, "rfw.conf: ok, 2 networks in the white list, 2 clients, 1 warning\n");
    let rfw = rfw.configure("nonsense");
    let said = rfw.call(&["--check", "-v"]);
    assert_eq!((said.out.as_str(), said.err.lines().count()), ("", 1), "{said:?}");
}
