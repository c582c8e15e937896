//! What is refused, and runs that are cut short.

use super::{FIRST_RUN, Place, SCRIPT, SERVER_CRT, which};
use crate::golden::cases;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;

// ---- what is refused ----

#[test]
fn bad_input_makes_no_file_and_no_folder() {
    let mut refused = cases("rfwgen-refused.txt");
    let long_name = format!("{0}.{0}.{0}.{1}", "a".repeat(63), "b".repeat(57));
    for name in ["a".repeat(64), long_name] {
        refused.push(("a long name".to_owned(), ["name".to_owned(), name]));
    }
    let place = Place::new();
    for (at, [kind, text]) in &refused {
        let lines = match kind.as_str() {
            "address" => vec![vec![text.as_str()], vec!["1.1.1.1", text]],
            "name" => vec![vec!["--dns", text]],
            "days" => vec![vec!["--days", text, "1.1.1.1"]],
            "client" => vec![vec!["client", text], vec!["revoke", text]],
            "line" => vec![text.split(' ').collect()],
            _ => panic!("{at}: {kind}"),
        };
        for line in lines {
            place.rfwgen(&line).refuses(2, &["--help"]);
            assert!(place.listing().is_empty(), "{at}: {:?}", place.listing());
        }
    }
}

#[test]
fn bad_input_cannot_disturb_the_terminal() {
    let place = Place::new();
    let mut command = place.command(SCRIPT);
    command.arg(OsStr::from_bytes(b"\x1b[2J\xff\n\r%s\\n"));
    let run = place.run(command).exits(2);
    let plain = |byte: &u8| (b' '..=b'~').contains(byte);
    let (end, message) = run.output.stderr.split_last().unwrap();
    run.check(*end == b'\n' && message.iter().all(plain), "wanted one line of plain text");
    assert!(place.listing().is_empty());
}

#[test]
fn half_a_ca_is_refused() {
    for (gone, here) in [("offline/ca.key", "client/ca.crt"), ("client/ca.crt", "offline/ca.key")] {
        let place = Place::with_server();
        fs::remove_file(place.path(gone)).unwrap();
        let before = place.snapshot();
        for arguments in [&["22.22.22.22"][..], &["--force", "11.11.11.11"]] {
            place.rfwgen(arguments).refuses(1, &[gone, here, "Replace the CA"]);
            assert_eq!(place.snapshot(), before, "without {gone}");
        }
    }
}

#[test]
fn a_ca_that_does_not_belong_to_its_key_is_refused() {
    let [place, other] = [Place::with_server(), Place::with_server()];
    fs::copy(other.path("client/ca.crt"), place.path("client/ca.crt")).unwrap();
    let before = place.snapshot();
    place.rfwgen(&["--force", "11.11.11.11"]).refuses(1, &["does not belong"]);
    assert_eq!(place.snapshot(), before);
}

#[test]
fn a_ca_that_cannot_be_read_is_refused() {
    for file in ["offline/ca.key", "client/ca.crt"] {
        let place = Place::with_server();
        fs::write(place.path(file), "garbage\n").unwrap();
        let before = place.snapshot();
        let run = place.rfwgen(&["22.22.22.22"]).exits(1);
        run.check(run.stderr().contains(&format!("cannot read {file}")), "wanted the reason");
        assert_eq!(place.snapshot(), before);
    }
}

#[test]
fn an_expired_ca_is_refused() {
    let place = Place::with_server();
    place.replace_ca_crt(&["-startdate", "20200101000000Z", "-enddate", "20210101000000Z"]);
    let before = place.snapshot();
    place.rfwgen(&["22.22.22.22"]).refuses(1, &["client/ca.crt has expired", "Replace the CA"]);
    assert_eq!(place.snapshot(), before);
}

#[test]
fn a_certificate_never_outlives_its_ca() {
    let place = Place::with_server();
    place.replace_ca_crt(&["-days", "100"]);
    let before = place.snapshot();
    for days in ["100", "101", "3650"] {
        let words = ["client/ca.crt ends before that", "99 at most"];
        place.rfwgen(&["--days", days, "22.22.22.22"]).refuses(1, &words);
        assert_eq!(place.snapshot(), before);
    }
    place.rfwgen(&["--days", "99", "22.22.22.22"]).exits(0);
    place.verify("server_22.22.22.22/server.crt", &[]).exits(0);

    let run = place.rfwgen(&["33.33.33.33"]).exits(0);
    run.check(run.stderr().contains("only 99 days"), "wanted a warning");
    run.check(run.stdout().contains("good for 99 days"), "wanted the true number");
    assert!(place.ends_within("server_33.33.33.33/server.crt", 99));
    assert!(!place.ends_within("server_33.33.33.33/server.crt", 98));
}

#[test]
fn a_missing_openssl_is_named() {
    let place = Place::new();
    let bin = place.root.join("bin");
    for tool in ["awk", "cat", "chmod", "grep", "mkdir", "mktemp", "mv", "rm", "rmdir", "tr"] {
        symlink(which(tool), bin.join(tool)).unwrap();
    }
    let mut command = place.command(SCRIPT);
    command.arg("11.11.11.11").env("PATH", &bin);
    place.run(command).refuses(1, &["openssl is missing", "install the package 'openssl'"]);
    assert!(place.listing().is_empty());
}

// ---- runs that are cut short ----

/// The moments at which a first run can be cut short, and whether the CA has
/// been made by then.
const MOMENTS: [(&str, bool); 5] = [
    ("genpkey*ca.key*", false),
    ("req -x509*", false),
    ("genpkey*server.key*", true),
    ("x509 -req*", true),
    ("verify*", true),
];

/// An `openssl` that writes half a file at the given moment, then does `then`.
pub(super) fn broken_openssl(moment: &str, then: &str) -> String {
    let pattern = moment.replace(' ', "\\ ");
    let real = which("openssl");
    format!(
        "#!/bin/sh\n\
         case $* in {pattern})\n\
         while [ $# -gt 0 ]; do [ \"$1\" != -out ] || echo half >\"$2\"; shift; done\n\
         {then}\n;; esac\n\
         exec '{}' \"$@\"\n",
        real.display()
    )
}

#[test]
fn an_interrupted_run_leaves_no_half_made_file() {
    for (moment, ca_is_made) in MOMENTS {
        for (signal, status) in [("HUP", 129), ("INT", 130), ("TERM", 143)] {
            let place = Place::new();
            let then = format!("kill -s {signal} $PPID; exit 0");
            let path = place.fake("openssl", &broken_openssl(moment, &then));
            // A test in the background of a script is born deaf to SIGINT.
            let mut command = place.command("env");
            command.args(["--default-signal=HUP,INT,TERM", SCRIPT, "11.11.11.11"]).env("PATH", path);
            place.run(command).exits(status);

            let wanted = if ca_is_made { &FIRST_RUN[..4] } else { &[] };
            assert_eq!(place.listing(), wanted, "{signal} at {moment}");
            place.rfwgen(&["11.11.11.11"]).exits(0);
            place.verify(SERVER_CRT, &["-verify_ip", "11.11.11.11"]).exits(0);
        }
    }
}

#[test]
fn a_failure_of_openssl_is_shown_and_leaves_no_half_made_file() {
    for (moment, ca_is_made) in MOMENTS {
        let place = Place::new();
        let path = place.fake("openssl", &broken_openssl(moment, "echo the reason >&2; exit 1"));
        let mut command = place.command(SCRIPT);
        command.arg("11.11.11.11").env("PATH", path);
        let run = place.run(command).exits(1);
        run.check(run.stderr().contains("the reason\n"), "wanted the words of openssl");
        let wanted = if ca_is_made { &FIRST_RUN[..4] } else { &[] };
        assert_eq!(place.listing(), wanted, "failure at {moment}");
    }
}

#[test]
fn a_forced_run_that_is_cut_short_keeps_the_old_files() {
    for (moment, ca_is_made) in MOMENTS {
        if !ca_is_made {
            continue;
        }
        for then in ["exit 1", "kill -s TERM $PPID; exit 0"] {
            let place = Place::with_server();
            let before = place.snapshot();
            let path = place.fake("openssl", &broken_openssl(moment, then));
            let mut command = place.command(SCRIPT);
            command.args(["--force", "11.11.11.11"]).env("PATH", path);
            let run = place.run(command);
            run.check(!run.output.status.success(), "wanted a failure");
            assert_eq!(place.snapshot(), before, "{then} at {moment}");
        }
    }
}
