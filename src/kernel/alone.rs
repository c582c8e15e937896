//! Tests of the real kernel: each runs itself once more in a network namespace of its own.

use std::env;
use std::fs;
use std::process::Command as Process;

/// Holds the network namespace that the tests were started in.
pub(super) const OUTSIDE: &str = "RFW_TEST_OUTSIDE";

pub(super) fn namespace() -> String {
    fs::read_link("/proc/self/ns/net").unwrap().to_string_lossy().into_owned()
}

/// Runs `body` in a network namespace of its own: in another run of this program, of the test with
/// that path only.
pub(super) fn alone(test: &str, body: impl FnOnce()) {
    let Ok(outside) = env::var(OUTSIDE) else {
        let unshare = if rustix::process::geteuid().is_root() { "-nm" } else { "-rnm" };
        // ipset is in sbin, which is not in every user's PATH.
        let path = env::var("PATH").unwrap_or_default() + ":/usr/local/sbin:/usr/sbin:/sbin";
        let output = Process::new("unshare")
            .arg(unshare)
            .arg(env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(OUTSIDE, namespace())
            .env("PATH", path)
            .output()
            .expect("unshare (util-linux)");
        let said = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains("1 passed"), "{said}\n{errors}");
        said.lines().filter(|line| line.starts_with("time: ")).for_each(|line| println!("{line}"));
        return;
    };
    assert_ne!(outside, namespace(), "nothing is tried outside a namespace of its own");
    body();
}

/// What a program prints that has to succeed; its words are separated by spaces.
pub(super) fn program(command: &str) -> String {
    let mut words = command.split(' ');
    let output = Process::new(words.next().unwrap()).args(words).output().expect("the program is there");
    assert!(output.status.success(), "{command}: {output:#?}");
    String::from_utf8(output.stdout).unwrap()
}
