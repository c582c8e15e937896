//! The demo (`tests/demo.sh`): it has to hold, to fail where it should, and to
//! leave the machine as it was.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/demo.sh");
const RFW: &str = env!("CARGO_BIN_EXE_rfw");

/// What the demo promises its spectators.
const LONGEST: Duration = Duration::from_secs(30);

/// The network and the firewall of the machine as seen by the test: interfaces,
/// addresses, routes, network namespaces, what is mounted on /run, and the rules of
/// both variants of iptables. Counters and dates are left out. A plain user may not
/// see the rules, nor could the demo change them then.
const VIEW: &str = r"
    PATH=$PATH:/usr/sbin:/sbin
    exec 2>&1
    ip -br link
    ip -br address
    ip route show table all
    ip netns
    grep -E ' /run( |/netns)' /proc/self/mounts
    for variant in nft legacy; do
        for family in iptables ip6tables; do
            echo $family-$variant
            $family-$variant-save | grep -E '^-A|^:.* (DROP|-) ' | sed 's/ \[.*//'
        done
    done
";

/// What a shell script printed, on standard output and on standard error, and its
/// exit status.
struct Said {
    status: Option<i32>,
    text: String,
}

/// Runs a shell script to its end. All processes that it starts carry `mark` in
/// their environment.
fn shell(script: &str, arguments: &[&str], mark: &str) -> Said {
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).args(arguments).env("RFW_TEST_MARK", mark).stdin(Stdio::null());
    let output = command.output().expect("sh");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    Said { status: output.status.code(), text: text.into_owned() }
}

fn view() -> String {
    shell(VIEW, &[], "").text
}

/// The processes that carry `mark`, by their command lines.
fn left_over(mark: &str) -> Vec<String> {
    let mark = format!("RFW_TEST_MARK={mark}");
    let has_mark = |environment: Vec<u8>| environment.split(|byte| *byte == 0).any(|v| v == mark.as_bytes());
    let mut found = Vec::new();
    for process in fs::read_dir("/proc").unwrap().flatten() {
        // What is no process, has ended meanwhile or is someone else's can't be read.
        let Ok(environment) = fs::read(process.path().join("environ")) else { continue };
        if has_mark(environment) {
            let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
            found.push(String::from_utf8_lossy(&line).replace('\0', " "));
        }
    }
    found
}

#[test]
fn the_demo_holds_and_leaves_the_machine_as_it_was() {
    let mark = format!("demo-{}", std::process::id());
    let before = view();
    let start = Instant::now();
    let said = shell(r#""$1" "$2" --plain 2>&1"#, &[DEMO, RFW], &mark);
    let took = start.elapsed();
    assert_eq!(said.status, Some(0), "the demo failed:\n{}", said.text);
    assert!(took < LONGEST, "the demo took {took:?}:\n{}", said.text);
    assert_eq!(view(), before, "the demo has changed the machine");
    assert_eq!(left_over(&mark), Vec::<String>::new(), "the demo has left processes");
}

#[test]
fn the_demo_fails_where_rfw_does() {
    let said = shell(r#""$1" "$2" 2>&1"#, &[DEMO, "/bin/false"], "");
    assert_eq!(said.status, Some(1), "{}", said.text);
    let line = "DEMO FAILED in step 2 (rfw starts on both servers): rfw on toronto has ended";
    assert!(said.text.contains(line), "{}", said.text);
}

#[test]
fn the_demo_wants_one_program() {
    for (arguments, status, line) in [
        (&[DEMO][..], 2, "usage: "),
        (&[DEMO, "--colour", RFW], 2, "usage: "),
        (&[DEMO, RFW, RFW], 2, "usage: "),
        (&[DEMO, "no-such-rfw"], 1, "no-such-rfw is not a program"),
    ] {
        let said = shell(r#""$@""#, arguments, "");
        assert_eq!(said.status, Some(status), "{}", said.text);
        assert!(said.text.contains(line), "{}", said.text);
    }
}

/// The namespaces of these tests stand in for the machine's own, so that nothing
/// happens to it if the demo does not refuse.
#[test]
fn the_demo_refuses_a_network_that_is_not_its_own() {
    for setup in ["outside=$(readlink /proc/self/ns/net)", "outside=other; ip link set lo up"] {
        let script = format!(
            "PATH=$PATH:/usr/sbin:/sbin\n\
             if [ $(id -u) = 0 ]; then flags=-nm; else flags=-rnm; fi\n\
             exec unshare $flags sh -c '{setup}; RFW_DEMO_OUTSIDE=$outside exec \"$@\" 2>&1' sh \"$@\""
        );
        let said = shell(&script, &[DEMO, RFW], "");
        assert_eq!(said.status, Some(1), "{}", said.text);
        assert_eq!(said.text, "demo.sh: this is not a network namespace of its own: nothing was touched\n");
    }
}
