//! Rules that become a set: no packet passes meanwhile, nothing is lost whatever is killed, and where the
//! kernel has no sets they stay rules.

use super::kernel::{Client, assert_same, assert_unions, held, listed, request, unions_not_as_lists};
use crate::host::{Host, SOON, VARIANTS, in_both_variants, until};
use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

/// So many addresses from that one on.
fn hosts(first: usize, count: usize) -> String {
    (first..first + count).map(|number| format!("1.1.{}.{}\n", number / 200, number % 200)).collect()
}

#[test]
fn no_packet_of_a_blocked_address_passes_while_its_rule_becomes_an_entry() {
    in_both_variants(|iptables| {
        let host = Host::new();
        host.neighbour("peer", &["10.0.0.1/24"], &["10.0.0.2/24", "10.0.0.3/24"]);
        let rfw = host.rfw(iptables).configure("ipset = auto").start();
        let mut client = Client::new(&host);
        client.ok("PUT", "/drop/input/any/10.0.0.2?list=a&expire=0", "");
        client.ok("PUT", "/accept/input/any/10.0.0.3?list=a&expire=0", "");
        client.ok("PUT", "/drop/input/any/10.0.0.0/28?list=b&expire=0", "");
        let pings = |from: &str| {
            host.talk("ip", &["netns", "exec", "peer", "ping", "-i0.002", "-O", "-I", from, "10.0.0.1"])
        };
        let blocked = pings("10.0.0.2");
        let accepted = pings("10.0.0.3");
        client.ok("PUT", "/drop/input/any?list=a&special=true", &hosts(0, 98));
        client.ok("PUT", "/accept/input/any?list=a&special=true", &hosts(0, 99));
        assert_eq!((host.rules(iptables, "INPUT").len(), host.sets().len()), (200, 0));
        thread::sleep(Duration::from_millis(100));
        client.ok("PUT", "/drop/input/any/9.9.9.9?list=c", "");
        client.ok("PUT", "/accept/input/any/9.9.9.9?list=c", "");
        thread::sleep(Duration::from_millis(200));
        // The accepts, of a hundred, are rules yet.
        assert!(host.sets().contains(&"rfw4-ids".to_owned()), "{:?}", host.sets());
        client.ok("PUT", "/accept/input/any?list=a&special=true", &hosts(200, 5));
        thread::sleep(Duration::from_millis(200));
        assert_eq!(host.rules(iptables, "INPUT").len(), 2);
        let (blocked, accepted) = (blocked.heard(), accepted.heard());
        assert!(!blocked.contains("bytes from"), "{blocked}");
        assert!(blocked.matches("no answer yet").count() > 50, "{blocked}");
        assert!(accepted.matches("bytes from").count() > 50, "{accepted}");
        assert!(!accepted.contains("no answer yet"), "{accepted}");
        // It would have been heard.
        rfw.ok("DELETE", "/list?list=*");
        let again = pings("10.0.0.2");
        until(SOON, "they pass", || again.heard().contains("bytes from"));
    });
}

/// What of these rows no rule and no entry of a union blocks.
fn unblocked(host: &Host, iptables: &str, rows: &BTreeSet<String>) -> Vec<String> {
    // A pair of address and rule stands as it is printed: `1.2.3.4/32`, or an entry.
    let kept = host.kept(iptables);
    let blocks = |row: &&String| {
        let address = row.rsplit(' ').nth(1).unwrap();
        kept.iter().any(|line| line.contains(&format!(" -s {address}/32 ")))
    };
    rows.iter().filter(|row| !blocks(row)).cloned().collect()
}

#[test]
fn kill_9_while_rules_become_entries_loses_nothing() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = host.rfw(iptables).configure("ipset = auto").start();
        // Moments from before to after it, in milliseconds.
        for round in 0..14 {
            let mut client = Client::new(&host);
            for list in ["a", "b"] {
                let put = format!("/drop/input/any?list={list}&expire=1h&reason=why&special=true");
                client.ok("PUT", &put, &hosts(0, 30));
            }
            client.ok("PUT", "/drop/input/any?expire=0&special=true", &hosts(20, 40));
            // A set that the kernel did not let go of at once may still be there, empty.
            assert_eq!((host.rules(iptables, "INPUT").len(), host.entries().len()), (100, 0), "{round}");
            let before = held(&host, iptables);
            let mut talk = host.connect(7390);
            talk.say(request("PUT", "/drop/input/any/9.9.9.9?list=c&expire=0", "").as_bytes());
            thread::sleep(Duration::from_micros(round * 1_300));
            rfw.signal("KILL");
            rfw.end();
            let rows: BTreeSet<String> = before.keys().cloned().collect();
            assert_eq!(unblocked(&host, iptables, &rows), Vec::<String>::new(), "{iptables}: {round}");
            rfw.spawn();
            until(SOON, "the union is as its lists", || unions_not_as_lists(&host).is_empty());
            let mut now = held(&host, iptables);
            assert_same(&listed(&rfw.ok("GET", "/list")), &now, "listed");
            now.remove("c DROP INPUT * * 9.9.9.9 any");
            assert_same(&now, &before, &format!("{iptables}: {round}"));
            // What was left half done is done again, or taken away.
            rfw.ok("PUT", "/drop/input/any/9.9.9.9?list=c&expire=0");
            assert_eq!(
                (host.rules(iptables, "INPUT").len(), host.sets().len()),
                (1, 5),
                "{round}: {:?}",
                host.sets()
            );
            assert_unions(&host, "at last");
            rfw.ok("DELETE", "/list?list=*");
            super::kernel::look(&rfw);
            assert_eq!(host.everything(iptables).2, Vec::<String>::new());
        }
    });
}

/// A program that runs another to which the kernel says that it has no netlink of netfilter.
const WITHOUT_SETS: &str = r#"
    my ($socket, $prctl) = `uname -m` =~ /x86_64/ ? (41, 157) : (198, 167);
    sub op { pack "S C C L", @_ }
    my $filter = op(0x20, 0, 0, 0) . op(0x15, 0, 5, $socket)    # is it socket(2),
        . op(0x20, 0, 0, 16) . op(0x15, 0, 3, 16)               # of AF_NETLINK
        . op(0x20, 0, 0, 32) . op(0x15, 0, 1, 12)               # and NETLINK_NETFILTER?
        . op(0x06, 0, 0, 0x00050000 | 93) . op(0x06, 0, 0, 0x7fff0000);
    my $program = pack "S x6 P", 8, $filter;
    syscall($prctl, 38, 1, 0, 0, 0) == 0 && syscall($prctl, 22, 2, $program) == 0 or die "no seccomp: $!";
    exec @ARGV or die;
"#;

/// iptables-nft needs that netlink itself.
#[test]
fn where_the_kernel_has_no_sets_all_stay_rules_and_it_is_told() {
    let (host, iptables) = (Host::new(), VARIANTS[1]);
    let rfw = host.rfw(iptables).configure("ipset = auto\nrules.max = 150");
    let rfw_path = env!("CARGO_BIN_EXE_rfw");
    let common = ["-e", WITHOUT_SETS, rfw_path, "-f", "rfw.conf"];
    let told = "the kernel has no sets, so that each address is a rule, up to rules.max";
    let said = host.run("perl", &[&common[..], &["--check"]].concat());
    assert!(said.err.contains(told) && said.status == Some(0), "{said:?}");
    assert!(
        said.out.contains("sets        auto: the kernel has none, so that each address is a rule\n"),
        "{said:?}"
    );
    let server = host.talk("perl", &[&common[..], &["--logfile", "rfw.log", "--loglevel", "DEBUG"]].concat());
    until(SOON, "rfw is ready", || rfw.log().contains("is ready") || server.is_over());
    assert!(rfw.log().contains(told), "{}", rfw.log());
    rfw.send_ok("PUT", "/drop/input/any?list=a&expire=0", &hosts(0, 120));
    rfw.ok("PUT", "/accept/input/any/1.1.0.1?list=b&expire=0&reason=why");
    assert_eq!((host.rules(iptables, "INPUT").len(), host.sets().len()), (121, 0));
    assert!(host.rules(iptables, "INPUT")[0].contains("-j ACCEPT"));
    assert_eq!(rfw.send("PUT", "/drop/input/any?list=a&expire=0", &hosts(120, 40)).status, 507);
    assert_eq!(rfw.ok("DELETE", "/list?list=a")["deleted"], 120);
    assert_same(&listed(&rfw.ok("GET", "/list")), &held(&host, iptables), "at last");
    // With sets it needs no option to be told so.
    assert_eq!(rfw.call(&["--check"]).err.matches(told).count(), 0);
}
