//! `rfwctl feed` against a real rfw: a list arrives whole and as expected, or nothing is changed.

use crate::host::{Host, Rfw, SOON, Said, until};
use std::process::{Child, Stdio};
use std::thread;

const RFWCTL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/etc/rfwctl/rfwctl");

/// The shells that the command has to run under.
pub const SHELLS: [&[&str]; 2] = [&["dash"], &["busybox", "sh"]];

/// Runs a test under each shell, all at the same time.
pub fn under_each_shell(test: impl Fn(&[&str]) + Sync) {
    thread::scope(|scope| {
        let threads = SHELLS.map(|shell| (shell, scope.spawn(|| test(shell))));
        for (shell, thread) in threads {
            assert!(thread.join().is_ok(), "under {shell:?}");
        }
    });
}

/// Starts rfw, and writes a file of servers that has it as `one`.
pub fn started<'a>(host: &'a Host, iptables: &str, more_servers: &str) -> Rfw<'a> {
    let options = "cacert=ca.crt user=me password=secret";
    let servers = format!("one https://127.0.0.1:7393 {options}\n{more_servers}");
    host.write("servers", 0o600, &servers);
    host.rfw(iptables).configure("ipset = auto").start()
}

/// Runs rfwctl with the words of a line, fed with `input`.
#[track_caller]
pub fn rfwctl(host: &Host, shell: &[&str], line: &str, input: &str) -> Said {
    let words: Vec<&str> = line.split(' ').collect();
    let all = [&shell[1..], &[RFWCTL, "-f", "servers", "--retries", "0"], &words].concat();
    host.feed(shell[0], &all, input.as_bytes())
}

/// The addresses that a list has, in order.
fn in_list(rfw: &Rfw<'_>, list: &str) -> Vec<String> {
    let rows = rfw.ok("GET", &format!("/list?list={list}"));
    let rows = rows.as_array().unwrap().iter();
    let mut addresses: Vec<String> = rows.map(|row| row["source"].as_str().unwrap().to_owned()).collect();
    addresses.sort();
    addresses
}

#[test]
fn a_list_becomes_what_was_sent() {
    under_each_shell(|shell| {
        let host = Host::new();
        let rfw = started(&host, "iptables", "");
        let feed = |line: &str, input: &str| rfwctl(&host, shell, line, input);
        let list = "\u{feff}# a feed\r\n1.2.3.4\r\n1.2.3.5\t7\r\n\r\n; end\r\n2001:470::/32 ; SBL1\r\n1.2.3.4 # again\r\n";
        let said = feed("feed tor - --replace -t 25h", list).ok();
        assert!(said.starts_with("one: tor: 3 inserted, 0 refreshed, 0 removed, until "), "{said}");
        assert_eq!(in_list(&rfw, "tor"), ["1.2.3.4", "1.2.3.5", "2001:470::/32"]);
        let kept = host.kept("iptables");
        assert!(kept.contains(&"-A INPUT -s 1.2.3.5/32 -j DROP".to_owned()), "{kept:?}");

        // From a file: something is new, and something is gone.
        host.write("a list", 0o644, "1.2.3.4\n1.2.3.6 # scans\n10.0.0.1\n127.0.0.1\n");
        let words = ["feed", "tor", "a list", "--replace", "--reasons", "-t", "0"];
        let all = [&shell[1..], &[RFWCTL, "-f", "servers"], &words].concat();
        let said = host.run(shell[0], &all).ok();
        let start = "one: tor: 1 inserted, 1 refreshed, 2 removed, for ever; 2 skipped, the first: 10.0.0.1 ";
        assert!(said.starts_with(start), "{said}");
        assert_eq!(in_list(&rfw, "tor"), ["1.2.3.4", "1.2.3.6"]);
        assert_eq!(rfw.ok("GET", "/list?address=1.2.3.6")[0]["reason"], "scans");

        let said = rfwctl(&host, shell, "feed own - --special -t 1h", "10.0.0.1\n").ok();
        assert!(said.starts_with("one: own: 1 inserted, 0 refreshed, until "), "{said}");

        // A dry run tells the same and does nothing.
        let said = feed("feed tor - --replace -t 0 -n", "1.2.3.4\n1.2.3.9\n").ok();
        assert_eq!(said, "one: tor, dry run: 1 inserted, 1 refreshed, 1 removed, for ever\n");
        let said = feed("feed tor - --replace --min 0 -n", "# none\n").ok();
        assert_eq!(said, "one: tor, dry run: 2 removed\n");
        assert_eq!(in_list(&rfw, "tor"), ["1.2.3.4", "1.2.3.6"]);

        // Without --replace it is added; CSV and JSON are for programs.
        let said = feed("feed tor - -t 1h -a reject -i eth0 --csv", "1.2.3.7\n").ok();
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines[0], "server,list,inserted,refreshed,removed,skipped,until");
        assert!(lines[1].starts_with("one,tor,1,0,,0,20"), "{said}");
        let rejects = |rule: &String| rule.starts_with("-A INPUT -s 1.2.3.7/32 -i eth0 -j REJECT");
        assert!(host.kept("iptables").iter().any(rejects));
        let said = feed("feed tor - --json", "1.2.3.8\n").ok();
        let json: serde_json::Value = serde_json::from_str(&said).unwrap();
        assert_eq!(
            (json[0]["server"].as_str(), json[0]["answer"]["inserted"].as_u64()),
            (Some("one"), Some(1))
        );

        // An empty list takes back what is there, where it is said to be fine.
        feed("feed tor - --replace", "# none\n").fails_with(3);
        assert_eq!(in_list(&rfw, "tor").len(), 4);
        feed("feed tor - --replace --min 0", "").fails_with(3);
        let said = feed("feed tor - --replace --min 0", "# none\n").ok();
        assert_eq!(said, "one: tor: 3 removed\n");
        assert_eq!(in_list(&rfw, "tor"), ["1.2.3.7"]);
    });
}

#[test]
fn a_list_that_is_not_as_expected_is_not_sent() {
    under_each_shell(|shell| {
        let host = Host::new();
        let away = "away https://127.0.0.1:7399 @far cacert=ca.crt user=me password=secret\n";
        let rfw = started(&host, "iptables", away);
        let feed = |line: &str, input: &str| rfwctl(&host, shell, line, input);
        let ten: String = (1..=10).map(|n| format!("1.2.3.{n}\n")).collect();
        feed("feed tor - --replace -s one --max-change 10%", &ten).ok();
        let before = in_list(&rfw, "tor");
        assert_eq!(before.len(), 10);

        let cases = [
            ("", "standard input is empty: not sent"),
            ("# none\n", "standard input has no address: not sent"),
            ("1.2.3.4\n<html>\n", "standard input: is a web page, not a list: not sent"),
            ("<!DOCTYPE html>\n", "standard input: is a web page, not a list: not sent"),
            (
                "1.2.3.4\nexample.org\n",
                "standard input: line 2: \"example.org\" is not an address or network: not sent",
            ),
            (
                "1.2.3.4\n\x1b[31m\n",
                "standard input: line 2: \"?[31m\" is not an address or network: not sent",
            ),
            (
                "1.2.3.4\n1.2.3.5 x\n",
                "standard input: line 2: \"1.2.3.5 x\" is not an address or network: not sent",
            ),
            ("1.2.3.4\0x\n", "standard input has zero bytes, so it is no text: not sent"),
            ("1.2.3.4\n\0\n", "standard input has zero bytes, so it is no text: not sent"),
            ("\x1f\x08", "standard input: line 1: \"??\" is not an address or network: not sent"),
        ];
        for (input, error) in cases {
            let said = feed("feed tor - --replace -s one", input).fails_with(3);
            assert_eq!(said, format!("rfwctl: {error}\n"), "{input:?}");
        }
        let said = feed("feed tor - --replace -s one --min 11", &ten).fails_with(3);
        assert_eq!(said, "rfwctl: standard input has 10 addresses, fewer than --min 11: not sent\n");
        let four: String = ten.split_inclusive('\n').take(4).collect();
        let said = feed("feed tor - --replace -s one --max-change 50%", &four).fails_with(3);
        let held =
            "one: not sent: tor has 10 addresses there, the new list 4 (-60%, above --max-change 50%)\n";
        assert_eq!(said, held);
        let said = feed("feed tor nothing --replace", "").fails_with(3);
        assert_eq!(said, "rfwctl: can't read nothing\n");
        for line in [
            "feed tor",
            "feed -l tor x -",
            "feed Tor -",
            "feed tor - --max-change half",
            "feed tor ftp://x/y",
        ] {
            feed(line, &ten).fails_with(2);
        }
        assert_eq!(in_list(&rfw, "tor"), before);

        // What the server refuses is in its words, and a server that is away does not keep it from others.
        let said = feed("feed tor - --replace -s one", "# a\n1.2.3.5\n\n1.2.3.4/33\n").fails_with(1);
        assert_eq!(said, "one: line 4: \"1.2.3.4/33\" has no proper mask; nothing was changed\n");
        let five: String = ten.split_inclusive('\n').take(5).collect();
        let said = feed("feed tor - --replace --max-change 50%", &five);
        assert!(said.out.starts_with("one: tor: 0 inserted, 5 refreshed, 5 removed, until "), "{said:#?}");
        let error = said.fails_with(1);
        assert!(
            error.starts_with("away: ") && error.ends_with("\nrfwctl: failed on 1 of 2 servers: away\n"),
            "{error}"
        );
        assert_eq!(in_list(&rfw, "tor").len(), 5);
    });
}

/// A server that says what the path asks for: whole, cut off, a page, or elsewhere.
const SITE: &str = r#"
use IO::Socket::INET;
my $site = IO::Socket::INET->new(LocalAddr => "127.0.0.1", LocalPort => 8000, Listen => 9, ReuseAddr => 1) or die;
my $list = join "", map { "1.2.4.$_\n" } 1 .. 200;
my %answers = (
    whole => "200 OK\r\nContent-Length: " . length($list) . "\r\n\r\n$list",
    half => "200 OK\r\nContent-Length: " . 2 * length($list) . "\r\n\r\n$list",
    chunk => "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n1.2.4.1\n1.2.4.2\n\r\n",
    page => "200 OK\r\nContent-Type: text/html\r\nContent-Length: 8\r\n\r\n1.2.3.4\n",
    moved => "302 Found\r\nLocation: /whole\r\nContent-Length: 0\r\n\r\n",
    file => "302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n",
    nothing => "200 OK\r\nContent-Length: 0\r\n\r\n",
);
while (my $client = $site->accept) {
    my ($path) = (scalar <$client> // "") =~ m{/(\w*)};
    while (defined(my $line = <$client>)) { last if $line eq "\r\n" }
    print $client "HTTP/1.1 ", $answers{$path} // "404 Not Found\r\nContent-Length: 0\r\n\r\n";
    close $client;
}
"#;

struct Site(Child);

impl Site {
    #[track_caller]
    fn start(host: &Host) -> Site {
        let site = host.command("perl").args(["-e", SITE]).stdin(Stdio::null()).spawn().expect("perl");
        let listens = || host.run("bash", &["-c", "exec 3<>/dev/tcp/127.0.0.1/8000"]).status == Some(0);
        until(SOON, "the site listens", listens);
        Site(site)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn half_a_download_is_not_sent() {
    under_each_shell(|shell| {
        let host = Host::new();
        let rfw = started(&host, "iptables", "");
        let _site = Site::start(&host);
        let feed = |path: &str| {
            rfwctl(&host, shell, &format!("feed tor http://127.0.0.1:8000/{path} --replace"), "")
        };
        let said = feed("moved").ok();
        assert!(said.starts_with("one: tor: 200 inserted, 0 refreshed, 0 removed, until "), "{said}");
        for (path, error) in [
            ("half", "curl: (18) "),
            ("chunk", "curl: (18) "),
            ("page", "is a web page, not a list"),
            ("file", "curl: (1) "),
            ("nothing", "is empty"),
            ("gone", "curl: (22) The requested URL returned error: 404"),
        ] {
            let said = feed(path).fails_with(3);
            assert!(said.contains(error), "{path}: {said}");
        }
        assert_eq!(in_list(&rfw, "tor").len(), 200);
        assert!(feed("whole").ok().starts_with("one: tor: 0 inserted, 200 refreshed, 0 removed, "));
    });
}

#[test]
fn a_long_upload_shows_on_a_terminal_how_far_it_is() {
    let host = Host::new();
    let rfw = started(&host, "iptables", "");
    let long: String =
        (0..120_000).map(|n| format!("1.{}.{}.{}\n", n >> 16, n >> 8 & 255, n & 255)).collect();
    host.write("long", 0o644, &long);
    let line = format!("dash {RFWCTL} feed long long -f servers");
    let said = host.run("script", &["-qec", &line, "/dev/null"]);
    assert!(said.out.contains("one: long: 120000 inserted, 0 refreshed, until "), "{said:#?}");
    assert!(said.out.contains("Speed"), "{said:#?}");
    assert_eq!(rfw.ok("GET", "/lists")[0]["v4"], "120000");

    // Elsewhere nothing but the answer is printed.
    let said = rfwctl(&host, &["dash"], "feed long long", "");
    assert_eq!(said.err, "");
    assert!(said.ok().starts_with("one: long: 0 inserted, 120000 refreshed, until "));
}
