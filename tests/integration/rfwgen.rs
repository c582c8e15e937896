//! Tests of `etc/deploy/rfwgen`, the script that makes the keys and the
//! certificates.  Each test runs the real script with the real `openssl`, in a
//! fresh folder of its own.

mod clients;
mod options;
mod refusal;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/etc/deploy/rfwgen");

const DAY: u32 = 24 * 60 * 60;

/// What the first run for 11.11.11.11 leaves behind, with the modes.
const FIRST_RUN: [&str; 7] = [
    "700 client",
    "644 client/ca.crt",
    "700 offline",
    "600 offline/ca.key",
    "700 server_11.11.11.11",
    "644 server_11.11.11.11/server.crt",
    "600 server_11.11.11.11/server.key",
];

const SERVER_KEY: &str = "server_11.11.11.11/server.key";
const SERVER_CRT: &str = "server_11.11.11.11/server.crt";

// ---- what all tests use ----

/// A fresh place to run the script in; it is removed when the test ends.
/// `work` is the current folder of the script, `tmp` is its TMPDIR, and `bin`
/// can hold programs that are found before the real ones.
struct Place {
    root: PathBuf,
}

impl Place {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("rfwgen {} {number}", std::process::id());
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        for part in ["work", "tmp", "bin"] {
            fs::create_dir_all(root.join(part)).unwrap();
        }
        Self { root }
    }

    /// A place where the script has made a CA and the server 11.11.11.11.
    fn with_server() -> Self {
        let place = Self::new();
        place.rfwgen(&["11.11.11.11"]).exits(0);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join("work").join(name)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// A command that runs in `work` with no input.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.path("")).env("TMPDIR", self.root.join("tmp")).stdin(Stdio::null());
        command
    }

    fn rfwgen(&self, arguments: &[&str]) -> Run {
        let mut command = self.command(SCRIPT);
        command.args(arguments);
        self.run(command)
    }

    /// Runs a command that uses the script, and checks that it tidied up.
    fn run(&self, command: Command) -> Run {
        let run = Run::of(command);
        let left = tree(&self.root.join("tmp"));
        run.check(left.is_empty(), &format!("left in TMPDIR: {left:?}"));
        run
    }

    /// What `openssl` prints when all is well.
    fn openssl(&self, arguments: &[&str]) -> String {
        self.try_openssl(arguments).exits(0).stdout()
    }

    fn try_openssl(&self, arguments: &[&str]) -> Run {
        let mut command = self.command("openssl");
        command.args(arguments);
        Run::of(command)
    }

    /// Does the certificate pass the strictest check, with these extra options?
    fn verify(&self, certificate: &str, options: &[&str]) -> Run {
        let mut arguments = vec!["verify", "-x509_strict", "-purpose", "sslserver"];
        arguments.extend(["-CAfile", "client/ca.crt"]);
        arguments.extend(options);
        arguments.push(certificate);
        self.try_openssl(&arguments)
    }

    /// The lines of the certificate as text, without their indentation.
    fn certificate(&self, name: &str) -> Vec<String> {
        let text = self.openssl(&["x509", "-noout", "-text", "-in", name]);
        text.lines().map(|line| line.trim().to_owned()).collect()
    }

    /// The value of an extension, after its heading, which must be there.
    fn extension(&self, name: &str, heading: &str) -> String {
        let lines = self.certificate(name);
        let at = lines.iter().position(|line| line == heading);
        let at = at.unwrap_or_else(|| panic!("no {heading:?} in {name}: {lines:#?}"));
        lines[at + 1].clone()
    }

    /// Does the certificate end within so many days?
    fn ends_within(&self, name: &str, days: u32) -> bool {
        let seconds = (days * DAY).to_string();
        let run = self.try_openssl(&["x509", "-noout", "-in", name, "-checkend", &seconds]);
        run.output.status.code() == Some(1)
    }

    /// Every file and folder of `work` with its mode.
    fn listing(&self) -> Vec<String> {
        tree(&self.path(""))
    }

    /// Everything in `work`: if two are equal, nothing was changed in between.
    fn snapshot(&self) -> Vec<(String, Vec<u8>)> {
        let content = |line: String| {
            let file = fs::read(self.path(&line[4..])).unwrap_or_default();
            (line, file)
        };
        self.listing().into_iter().map(content).collect()
    }

    /// Makes a new `client/ca.crt` for the same key, with other dates.
    fn replace_ca_crt(&self, dates: &[&str]) {
        let config = "[ca]\ndefault_ca = one\n\
            [one]\ndatabase = ../bin/index\nnew_certs_dir = ../bin\nserial = ../bin/serial\n\
            default_md = sha256\npolicy = any\n[any]\ncommonName = supplied\n\
            [req]\nprompt = no\ndistinguished_name = name\n[name]\nCN = old CA\n\
            [extensions]\nbasicConstraints = critical,CA:TRUE\n\
            keyUsage = critical,keyCertSign\nsubjectKeyIdentifier = hash\n";
        let bin = self.root.join("bin");
        fs::write(bin.join("config"), config).unwrap();
        fs::write(bin.join("index"), "").unwrap();
        fs::write(bin.join("serial"), "1234\n").unwrap();

        let key = "offline/ca.key";
        let request = ["-key", key, "-out", "../bin/csr"];
        self.openssl(&[&["req", "-new", "-config", "../bin/config"], &request[..]].concat());
        let signing = ["-selfsign", "-batch", "-notext", "-extensions", "extensions"];
        let files = ["-keyfile", key, "-in", "../bin/csr", "-out", "client/ca.crt"];
        let ca = ["ca", "-config", "../bin/config"];
        self.openssl(&[&ca[..], &signing, &files, dates].concat());
    }

    /// Puts a program into `bin`, and returns a PATH that finds it first.
    fn fake(&self, name: &str, program: &str) -> String {
        let bin = self.root.join("bin");
        fs::write(bin.join(name), program).unwrap();
        fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        format!("{}:{}", bin.display(), std::env::var("PATH").unwrap())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// One finished command.
struct Run {
    command: String,
    output: Output,
}

impl Run {
    fn of(mut command: Command) -> Self {
        let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { command: format!("{command:?}"), output }
    }

    fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    /// Stops the test, and shows everything about the run, unless it is `fine`.
    #[track_caller]
    fn check(&self, fine: bool, wanted: &str) {
        assert!(
            fine,
            "{wanted}\ncommand: {}\n{}\nstdout: {}\nstderr: {}",
            self.command,
            self.output.status,
            self.stdout(),
            self.stderr()
        );
    }

    #[track_caller]
    fn exits(self, status: i32) -> Self {
        let wanted = format!("wanted the exit status {status}");
        self.check(self.output.status.code() == Some(status), &wanted);
        self
    }

    /// The run was refused with one line that holds all these words.
    #[track_caller]
    fn refuses(self, status: i32, words: &[&str]) {
        let run = self.exits(status);
        let message = run.stderr();
        run.check(run.output.stdout.is_empty(), "wanted nothing on stdout");
        run.check(message.starts_with("rfwgen: "), "wanted a message of rfwgen");
        let lines = message.matches('\n').count();
        run.check(lines == 1 && message.ends_with('\n'), "wanted one line");
        for word in words {
            run.check(message.contains(word), &format!("wanted {word:?} in the message"));
        }
    }
}

/// Every file and folder below `folder`, as "mode name", sorted by name.
fn tree(folder: &Path) -> Vec<String> {
    fn walk(folder: &Path, prefix: &str, found: &mut Vec<(String, u32)>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = format!("{prefix}{}", path.file_name().unwrap().display());
            let mode = fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o7777;
            if path.is_dir() {
                walk(&path, &format!("{name}/"), found);
            }
            found.push((name, mode));
        }
    }
    let mut found = Vec::new();
    walk(folder, "", &mut found);
    found.sort();
    found.into_iter().map(|(name, mode)| format!("{mode:o} {name}")).collect()
}

/// Where a program is, as the shell would find it.
fn which(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    let found = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|p| p.is_file());
    found.unwrap_or_else(|| panic!("{name} is not installed"))
}

// ---- what is made ----

#[test]
fn the_first_run_makes_a_ca_and_a_server_under_any_umask() {
    for umask in ["000", "022", "077"] {
        let place = Place::new();
        let mut command = place.command("sh");
        command.args(["-c", "umask \"$0\" && exec \"$@\"", umask, SCRIPT, "11.11.11.11"]);
        place.run(command).exits(0);
        assert_eq!(place.listing(), FIRST_RUN, "umask {umask}");
    }
}

#[test]
fn folders_that_were_open_to_others_are_closed() {
    let place = Place::new();
    for folder in ["offline", "client", "server_11.11.11.11"] {
        fs::create_dir(place.path(folder)).unwrap();
        fs::set_permissions(place.path(folder), fs::Permissions::from_mode(0o777)).unwrap();
    }
    place.rfwgen(&["11.11.11.11"]).exits(0);
    assert_eq!(place.listing(), FIRST_RUN);
}

#[test]
fn the_certificate_passes_the_strict_check_for_its_address_only() {
    let place = Place::with_server();
    place.verify(SERVER_CRT, &[]).exits(0);
    place.verify(SERVER_CRT, &["-verify_ip", "11.11.11.11"]).exits(0);
    let wrong = place.verify(SERVER_CRT, &["-verify_ip", "11.11.11.12"]);
    wrong.check(!wrong.output.status.success(), "wanted a refusal");
}

#[test]
fn a_certificate_belongs_to_the_key_beside_it() {
    let place = Place::with_server();
    for (key, crt) in [(SERVER_KEY, SERVER_CRT), ("offline/ca.key", "client/ca.crt")] {
        let of_key = place.openssl(&["pkey", "-in", key, "-pubout"]);
        let of_crt = place.openssl(&["x509", "-in", crt, "-noout", "-pubkey"]);
        assert_eq!(of_key, of_crt);
        // This is the format that every TLS library reads.
        assert!(place.read(key).starts_with(b"-----BEGIN PRIVATE KEY-----\n"));
        assert!(place.read(crt).starts_with(b"-----BEGIN CERTIFICATE-----\n"));
    }
}

#[test]
fn the_ca_may_sign_servers_but_no_further_ca() {
    let place = Place::with_server();
    let ca = |heading| place.extension("client/ca.crt", heading);
    assert_eq!(ca("X509v3 Basic Constraints: critical"), "CA:TRUE, pathlen:0");
    assert_eq!(ca("X509v3 Key Usage: critical"), "Certificate Sign, CRL Sign");
    assert!(ca("X509v3 Subject Key Identifier:").len() > 20);
}

#[test]
fn a_server_certificate_is_good_for_a_server_only() {
    let place = Place::with_server();
    let server = |heading| place.extension(SERVER_CRT, heading);
    assert_eq!(server("X509v3 Basic Constraints: critical"), "CA:FALSE");
    assert_eq!(server("X509v3 Key Usage: critical"), "Digital Signature");
    assert_eq!(server("X509v3 Extended Key Usage:"), "TLS Web Server Authentication");
    assert_eq!(server("X509v3 Subject Alternative Name:"), "IP Address:11.11.11.11");
    assert!(server("X509v3 Subject Key Identifier:").len() > 20);

    // Some versions of openssl print "keyid:" first.
    let authority = server("X509v3 Authority Key Identifier:");
    let ca = place.extension("client/ca.crt", "X509v3 Subject Key Identifier:");
    assert_eq!(authority.trim_start_matches("keyid:"), ca);
}

#[test]
fn serial_numbers_are_long_positive_and_never_the_same() {
    let place = Place::with_server();
    place.rfwgen(&["22.22.22.22"]).exits(0);
    let mut seen = Vec::new();
    for crt in ["client/ca.crt", SERVER_CRT, "server_22.22.22.22/server.crt"] {
        let serial = place.openssl(&["x509", "-in", crt, "-noout", "-serial"]);
        let digits = serial.trim().strip_prefix("serial=").unwrap().to_owned();
        assert!(!digits.starts_with('-') && digits.len() > 24, "{crt}: {serial}");
        assert!(!seen.contains(&digits), "{crt}: {serial}");
        seen.push(digits);
    }
}

#[test]
fn a_second_server_is_signed_by_the_same_ca() {
    let place = Place::with_server();
    let before = place.snapshot();
    place.rfwgen(&["22.22.22.22"]).exits(0);

    let after = place.snapshot();
    assert!(before.iter().all(|file| after.contains(file)), "an old file was changed");
    assert_eq!(after.len(), before.len() + 3);
    place.verify("server_22.22.22.22/server.crt", &["-verify_ip", "22.22.22.22"]).exits(0);
    assert_ne!(place.read(SERVER_KEY), place.read("server_22.22.22.22/server.key"));
}

#[test]
fn two_cas_have_two_names() {
    let [one, two] = [Place::with_server(), Place::with_server()];
    let subject = ["x509", "-in", "client/ca.crt", "-noout", "-subject"];
    assert_ne!(one.openssl(&subject), two.openssl(&subject));
}

// ---- what is never overwritten ----

/// As where `make install` has put the script, beside what a server has.
#[test]
fn on_a_server_it_warns_that_the_key_of_the_ca_is_left_there() {
    let place = Place::new();
    let words = "offline/ca.key will be in it";
    let run = place.rfwgen(&["11.11.11.11"]).exits(0);
    run.check(run.stderr().is_empty(), "wanted no warning elsewhere");
    fs::write(place.path("../rfw.conf"), "").unwrap();
    fs::create_dir(place.path("../ssl")).unwrap();
    let run = place.rfwgen(&["22.22.22.22"]).exits(0);
    run.check(run.stderr().starts_with("rfwgen: warning: "), "wanted a warning");
    run.check(run.stderr().contains(words), "wanted the file");
}

#[test]
fn an_old_key_or_certificate_is_not_overwritten() {
    for gone in [None, Some(SERVER_KEY), Some(SERVER_CRT)] {
        let place = Place::with_server();
        if let Some(file) = gone {
            fs::remove_file(place.path(file)).unwrap();
        }
        let before = place.snapshot();
        place.rfwgen(&["11.11.11.11"]).refuses(1, &["server_11.11.11.11", "--force"]);
        assert_eq!(place.snapshot(), before, "without {gone:?}");
    }
}

#[test]
fn an_old_server_key_is_not_overwritten_for_want_of_a_ca() {
    let place = Place::with_server();
    for folder in ["offline", "client"] {
        fs::remove_dir_all(place.path(folder)).unwrap();
    }
    let before = place.snapshot();
    place.rfwgen(&["11.11.11.11"]).refuses(1, &["--force"]);
    assert_eq!(place.snapshot(), before);
}

#[test]
fn force_replaces_the_server_but_not_the_ca() {
    let place = Place::with_server();
    let before = ["offline/ca.key", "client/ca.crt", SERVER_KEY, SERVER_CRT].map(|f| place.read(f));
    place.rfwgen(&["--force", "11.11.11.11"]).exits(0);
    let after = ["offline/ca.key", "client/ca.crt", SERVER_KEY, SERVER_CRT].map(|f| place.read(f));

    assert_eq!(before[..2], after[..2]);
    assert_ne!(before[2], after[2]);
    assert_ne!(before[3], after[3]);
    assert_eq!(place.listing(), FIRST_RUN);
    place.verify(SERVER_CRT, &["-verify_ip", "11.11.11.11"]).exits(0);
}

#[test]
fn somebody_at_a_terminal_is_asked() {
    for (answer, status) in [("y\n", 0), ("YES\n", 0), ("n\n", 1), ("\n", 1), ("yeah\n", 1)] {
        let place = Place::with_server();
        let before = place.read(SERVER_KEY);

        // script(1) gives the program a terminal, and types the answer there.
        let line = format!("'{SCRIPT}' 11.11.11.11");
        let mut command = place.command("script");
        command.args(["-qec", &line, "/dev/null"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("script(1) must be installed");
        child.stdin.take().unwrap().write_all(answer.as_bytes()).unwrap();
        let run = Run { command: line, output: child.wait_with_output().unwrap() }.exits(status);

        run.check(run.stdout().contains("Replace it? [y/N]"), "wanted a question");
        assert_eq!(place.read(SERVER_KEY) == before, status == 1, "answer {answer:?}");
    }
}
