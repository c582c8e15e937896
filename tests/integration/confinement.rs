//! The rights that rfw has given up, seen from outside, and tried by a program that it starts.

use crate::host::{Host, Rfw, SOON, STATE_FOLDER, Talk, in_both_variants, of_ipv6, run, until};
use std::collections::BTreeMap;
use std::fs;

/// CAP_NET_ADMIN and CAP_NET_RAW.
const USED: &str = "0000000000003000";

const NONE: &str = "0000000000000000";

/// setpriv(1) as the unit has rfw: root without any right but these, which can't make them fewer.
const AS_UNIT: [&str; 3] = ["setpriv", "--bounding-set", "-all,+net_admin,+net_raw,+net_bind_service"];

/// The user of rfw, with the rights that it has.
const AS_RFW: [&str; 3] = ["setpriv", "--bounding-set", "-all,+net_admin,+net_raw"];

/// What a status in /proc tells, by name.
fn status(path: &str) -> BTreeMap<String, String> {
    let text = fs::read_to_string(path).unwrap();
    let pairs = text.lines().filter_map(|line| line.split_once(":\t"));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Checks the rights of a thread.
#[track_caller]
fn is_confined(path: &str, bounding_set: &str) {
    let status = status(path);
    let told = ["CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb", "NoNewPrivs"].map(|name| &*status[name]);
    assert_eq!(told, [USED, USED, bounding_set, NONE, NONE, "1"], "{path}");
}

/// Checks all threads of rfw and all programs that run.
#[track_caller]
fn all_are_confined(rfw: &Rfw<'_>, bounding_set: &str) {
    let tasks = fs::read_dir(format!("/proc/{}/task", rfw.pid())).unwrap();
    let tasks: Vec<String> = tasks.map(|task| task.unwrap().path().display().to_string()).collect();
    assert_eq!(tasks.len(), 2, "the server and the sweeper");
    tasks.iter().for_each(|task| is_confined(&format!("{task}/status"), bounding_set));
    let children = rfw.children();
    assert!(!children.is_empty());
    children.iter().for_each(|(pid, _)| is_confined(&format!("/proc/{pid}/status"), bounding_set));
}

#[test]
fn rfw_and_its_programs_have_two_capabilities_and_gain_none() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).configure("ipset = auto").start();
        rfw.ok("PUT", "/drop/input/any/1.2.3.4");
        let list: String = (0..150).map(|n| format!("1.0.0.{n}\n")).collect();
        rfw.send_ok("PUT", "/drop/input/any", &list);
        rfw.ok("PUT", "/drop/input/any/2001:db8::1");
        assert_eq!(host.kept(iptables).len(), 152);
        all_are_confined(&rfw, USED);
        let log = rfw.log();
        let told = "confined: capabilities CAP_NET_ADMIN and CAP_NET_RAW, no new privileges, ";
        let (before, after) = log.split_once(told).expect(&log);
        // Nothing stays of what ran before, and nothing of it changed the tables.
        assert!(!before.contains("COMMIT") && after.contains("COMMIT"), "{log}");
    });
}

#[test]
fn where_the_bounding_set_has_to_stay_programs_have_no_more_all_the_same() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = host.rfw(iptables);
        assert!(rfw.try_spawn_through(&AS_UNIT).is_ok(), "{}", rfw.log());
        rfw.ok("PUT", "/drop/input/any/1.2.3.4");
        // With CAP_NET_BIND_SERVICE.
        all_are_confined(&rfw, "0000000000003400");
    });
}

#[test]
fn the_memory_of_rfw_is_read_by_no_process_with_its_rights_and_goes_into_no_core_dump() {
    let host = Host::new();
    let rfw = host.rfw("iptables-nft").start();
    rfw.ok("PUT", "/drop/input/any/1.2.3.4");
    let read = |pid: u32, file: &str| {
        host.run(AS_RFW[0], &[&AS_RFW[1..], &["cat", &format!("/proc/{pid}/{file}")]].concat())
    };
    // A program that it has started holds no secret, and can be read.
    let (child, _) = rfw.children()[0];
    read(child, "environ").ok();
    for file in ["environ", "maps", "auxv"] {
        let error = read(rfw.pid(), file).fails_with(1);
        assert!(error.contains("Permission denied"), "{file}: {error}");
    }
    for pid in [rfw.pid(), child] {
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        let numbers: Vec<&str> = core.split_whitespace().skip(4).take(2).collect();
        assert_eq!(numbers, ["0", "0"], "{core}");
    }
}

/// The loader finds them without `/etc/ld.so.cache`, which rfw can't read any more once ldconfig(8) has replaced it.
#[test]
fn a_program_that_is_none_of_the_systems_is_told_where_its_libraries_are() {
    let host = Host::new();
    let folder = host.dir.join("own");
    for folder in ["own/sbin", "own/lib"] {
        fs::create_dir_all(host.dir.join(folder)).unwrap();
    }
    for name in ["iptables", "ip6tables"]
        .iter()
        .flat_map(|name| ["", "-save", "-restore"].map(|end| format!("{name}{end}")))
    {
        let script =
            format!("#!/bin/sh\n[ \"$LD_LIBRARY_PATH\" = {}/lib ] && exec {name} \"$@\"\n", folder.display());
        host.write(&format!("own/sbin/{name}"), 0o755, &script);
    }
    let rfw = host.rfw(&format!("{}/sbin/iptables", folder.display())).start();
    rfw.ok("PUT", "/drop/input/any/1.2.3.4");
    assert_eq!(host.kept("iptables").len(), 1);
}

/// In perl: how often a text stands in the memory of a process that it may write.
const COUNT: &str = r#"
my ($pid, $text) = @ARGV;
open my $maps, '<', "/proc/$pid/maps" or die "maps: $!";
open my $memory, '<:raw', "/proc/$pid/mem" or die "mem: $!";
my $count = 0;
while (<$maps>) {
    my ($start, $end) = /^(\w+)-(\w+) rw/ or next;
    sysseek $memory, hex $start, 0;
    sysread $memory, my $part, hex($end) - hex($start) or next;
    $count++ while $part =~ /\Q$text\E/g;
}
print $count;
"#;

#[test]
fn what_clients_log_in_with_is_wiped_from_memory() {
    let host = Host::new();
    let rfw = host.rfw("iptables-nft").configure("local.server.authentication").start();
    let count = |text: &str| -> u32 {
        host.run("perl", &["-e", COUNT, &rfw.pid().to_string(), text]).ok().parse().unwrap()
    };
    // What the server needs is there: this is its memory. Of the password there is but its SHA-256.
    assert!(count("white.list") > 0 && count("secret") == 0);
    // me:secret, in two parts; a head of 7 kB, which does not fit into the first allocation.
    let login = "bWU6c2VjcmV0";
    let filling: String = (0..60).map(|n| format!("X-{n}: {}\r\n", "y".repeat(100))).collect();
    let mut client = host.connect(7390);
    client
        .say(format!("GET /list HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic {login}\r\n").as_bytes());
    until(SOON, "the first part is there", || count(login) == 1);
    client.say(format!("{filling}\r\n").as_bytes());
    assert_eq!(client.reply().status, 200);
    assert_eq!(count(login), 0);
    // A head that has no end.
    client.say(format!("GET /list HTTP/1.1\r\nAuthorization: Basic {login}\r\n").as_bytes());
    until(SOON, "the head is there", || count(login) == 1);
    drop(client);
    until(SOON, "it is wiped", || count(login) == 0);
}

#[test]
fn a_program_has_no_descriptor_and_no_environment_of_rfw() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = host.rfw(iptables);
        assert!(rfw.try_spawn_through(&["env", "SECRET=hidden"]).is_ok(), "{}", rfw.log());
        // Connections, netlink sockets, log, locks and the state file are open when it is started anew.
        let _client = host.connect(7390);
        for _ in 0..2 {
            rfw.ok("PUT", "/drop/input/any/1.2.3.4");
            let children = rfw.children();
            let of_rfw = descriptors(rfw.pid());
            for (pid, line) in &children {
                let foreign = inherited();
                let (standard, own): (Vec<_>, Vec<_>) = descriptors(*pid)
                    .into_iter()
                    .filter(|(number, _)| !foreign.contains(number))
                    .partition(|(number, _)| *number < 3);
                assert_eq!(standard.len(), 3, "{line}: {standard:?}");
                let shared: Vec<_> =
                    own.iter().filter(|(_, to)| of_rfw.values().any(|of| of == to)).collect();
                assert!(shared.is_empty(), "{line}: {shared:?}");
                let environment = fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
                let names: Vec<&str> =
                    environment.split_terminator('\0').map(|line| line.split('=').next().unwrap()).collect();
                assert_eq!(names, ["LC_ALL", "PATH"], "{line}");
            }
            children.iter().for_each(|(pid, _)| drop(run("kill", &[&pid.to_string()])));
            until(SOON, "they have ended", || rfw.children().is_empty());
        }
    });
}

/// What a process has open, by number.
fn descriptors(pid: u32) -> BTreeMap<u32, String> {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let target = |entry: fs::DirEntry| {
        let number = entry.file_name().to_string_lossy().parse().ok()?;
        Some((number, fs::read_link(entry.path()).ok()?.display().to_string()))
    };
    open.flatten().filter_map(target).collect()
}

/// What whoever runs the tests has left open for all that is started: none of these is of rfw.
fn inherited() -> Vec<u32> {
    const CLOEXEC: u32 = 0o2_000_000;
    let numbers = descriptors(std::process::id()).into_keys().filter(|number| *number > 2);
    let stays = |number: &u32| {
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap_or_default();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:\t"));
        flags.is_some_and(|flags| u32::from_str_radix(flags.trim(), 8).unwrap() & CLOEXEC == 0)
    };
    numbers.filter(stays).collect()
}

/// In bash: does what iptables does, after it has tried to get at what is none of its business, and told in
/// a line what it could do.
const PROBE: &str = r#"#!/bin/bash
could=
for fd in /proc/$$/fd/*; do
    case ${fd##*/} in 0 | 1 | 2 | 255 @inherited@) ;; *) if [ -e "$fd" ]; then could+=" descriptor-${fd##*/}"; fi ;; esac
done
{
    try() { local name=$1; shift; if "$@"; then could+=" $name"; fi; }
    try read cat /run/outside/secret
    try list ls /run/outside
    try write eval 'echo more >>/run/outside/secret'
    try make touch /run/outside/new
    try remove rm /run/outside/new
    try configure eval 'echo more >>@dir@/other.conf'
    try execute /run/outside/program
    try connect eval '(exec 3<>/dev/tcp/127.0.0.1/7777)'
    try signal kill -0 @other@
    try spy cat /proc/@other@/environ
    try mount mount -t tmpfs none /run/outside/mount
    try chroot chroot / true
    try set eval 'echo 0 >/proc/sys/net/ipv4/ip_forward'
    try rights eval '[ "$(sed -n "s/^CapEff:.//p" /proc/self/status)" != @used@ ]'
    echo "${could:- nothing}" >>/var/lib/rfw/written/tried
} >/dev/null 2>&1 </dev/null
exec @real@ "$@"
"#;

/// What the probe can do where it is not confined.
const EVERYTHING: &str =
    " read list write make remove configure execute connect signal spy mount chroot set rights";

/// Puts the probe in front of the programs of a variant, and outside of what is granted what it tries.
fn lay_probe(host: &Host, iptables: &str, other: u32) {
    host.left_to_programs(STATE_FOLDER);
    let outside = "mkdir -p /run/outside/mount && cp /bin/true /run/outside/program && \
                   echo secret >/run/outside/secret";
    host.run("sh", &["-c", outside]).ok();
    host.write("other.conf", 0o600, "");
    let inherited: String = inherited().iter().map(|number| format!("| {number}")).collect();
    fs::create_dir_all(host.dir.join("programs")).unwrap();
    for family in [iptables.to_owned(), of_ipv6(iptables)] {
        for suffix in ["", "-save", "-restore"] {
            let name = format!("{family}{suffix}");
            let text = PROBE
                .replace("@inherited@", &inherited)
                .replace("@real@", &name)
                .replace("@used@", USED)
                .replace("@dir@", &host.dir.display().to_string())
                .replace("@other@", &other.to_string());
            host.write(&format!("programs/{name}"), 0o755, &text);
        }
    }
}

/// A program on the host that others can connect to.
fn listener(host: &Host) -> Talk {
    let script = "$s = IO::Socket::INET->new(Listen => 100, LocalAddr => '127.0.0.1:7777') or die; $| = 1; \
                  print qq(open\\n); sleep 600";
    let talk = host.talk("perl", &["-MIO::Socket::INET", "-e", script]);
    until(SOON, "it listens", || talk.heard().contains("open"));
    talk
}

/// What the probes could do, each in a line, since this was asked last.
fn tried(host: &Host) -> Vec<String> {
    let file = host.dir.join("written/tried");
    let text = fs::read_to_string(&file).unwrap_or_default();
    fs::write(file, "").unwrap();
    text.lines().map(str::to_owned).collect()
}

/// Whether each was refused all that it has tried, and there was one.
#[track_caller]
fn is_nothing(tried: &[String]) {
    assert!(!tried.is_empty() && tried.iter().all(|line| line == " nothing"), "{tried:#?}");
}

#[test]
fn a_program_that_rfw_starts_can_do_its_work_and_nothing_else() {
    if !has_landlock() {
        return;
    }
    in_both_variants(|iptables| {
        let host = Host::new();
        let _listener = listener(&host);
        // It has no more rights than the probe, so that these keep nobody from it.
        let other = host.talk(AS_RFW[0], &[&AS_RFW[1..], &["sleep", "600"]].concat());
        lay_probe(&host, iptables, other.pid());
        let mut rfw = host.rfw(&format!("{}/programs/{iptables}", host.dir.display()));
        rfw.call(&["--check"]).ok();
        // A check gives nothing up, so that this shows what the probe tries.
        let unconfined = tried(&host);
        assert!(
            !unconfined.is_empty() && unconfined.iter().all(|line| line == EVERYTHING),
            "{unconfined:#?}"
        );
        rfw.spawn();
        let lines = tried(&host);
        let first = lines.iter().position(|line| line == " nothing").expect("it is confined");
        assert!(first > 0 && lines[..first].iter().all(|line| line == EVERYTHING), "{lines:#?}");
        is_nothing(&lines[first..]);
        rfw.ok("PUT", "/drop/input/any/1.2.3.4");
        rfw.ok("PUT", "/drop/input/any/2001:db8::1");
        host.admin(iptables, "-A FORWARD -j ACCEPT");
        assert_eq!(rfw.ok("GET", "/list").as_array().map(Vec::len), Some(2));
        assert_eq!(host.kept(iptables).len(), 2);
        is_nothing(&tried(&host));
        rfw.stop();
        tried(&host);
        assert!(rfw.call(&["--flush"]).ok().contains("removed"));
        assert_eq!(tried(&host).last().map(String::as_str), Some(" nothing"));
        assert!(host.kept(iptables).is_empty());
    });
}

/// Whether the kernel has Landlock with all that is tried here, as rfw itself finds it.
fn has_landlock() -> bool {
    let host = Host::new();
    let rfw = host.rfw("iptables-nft");
    let said = rfw.call(&["--check", "-v"]).ok();
    let has = said.contains("all of Landlock");
    if !has {
        eprintln!("not tried, since this kernel lacks Landlock or a part of it: {said}");
    }
    has
}

#[test]
fn a_white_list_that_has_moved_out_of_reach_is_refused() {
    if !has_landlock() {
        return;
    }
    let host = Host::new();
    let rfw = host.rfw("iptables-nft").start();
    let reload = |file: &str| {
        let script = format!("ln -sf {file} new.list && mv new.list white.list");
        host.run("sh", &["-c", &script]).ok();
        rfw.signal("HUP");
    };
    host.run("sh", &["-c", "mkdir /run/elsewhere && cp white.list /run/elsewhere/list"]).ok();
    reload("/run/elsewhere/list");
    let told =
        "white.list: out of reach, since it is in none of the folders that rfw has kept since its start";
    until(SOON, "it is refused", || rfw.log().contains(told));
    // A link within them is followed, and a file that is renewed is read.
    host.write("other.list", 0o644, "127.0.0.1\n::1\n10.0.0.1\n");
    reload("other.list");
    until(SOON, "it is read", || rfw.log().contains("has been read again: 3 networks"));
}

/// In perl: refuses a system call with an error, and becomes the program that is named. Works on
/// x86_64 and aarch64: `prctl` has a number of its own on each.
const REFUSE: &str = r#"
my ($prctl, $call, $error) = splice @ARGV, 0, 3;
my @filter = ([0x20, 0, 0, 0], [0x15, 0, 1, $call], [0x06, 0, 0, 0x50000 | $error], [0x06, 0, 0, 0x7fff0000]);
my $filter = join '', map { pack 'SCCL', @$_ } @filter;
my $program = pack 'Sx6P', scalar @filter, $filter;
syscall($prctl, 38, 1, 0, 0, 0) == 0 or die "no_new_privs: $!";
syscall($prctl, 22, 2, $program) == 0 or die "seccomp: $!";
exec @ARGV or die "$ARGV[0]: $!";
"#;

/// landlock_create_ruleset(2), everywhere.
const LANDLOCK_CREATE_RULESET: &str = "444";

const EPERM: &str = "1";
const ENOSYS: &str = "38";

/// The numbers of prctl(2) and capset(2).
fn calls() -> [&'static str; 2] {
    if cfg!(target_arch = "aarch64") { ["167", "91"] } else { ["157", "126"] }
}

#[test]
fn a_start_goes_on_where_the_kernel_lacks_landlock_and_says_so_once() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = host.rfw(iptables);
        let through = ["perl", "-e", REFUSE, calls()[0], LANDLOCK_CREATE_RULESET, ENOSYS];
        assert!(rfw.try_spawn_through(&through).is_ok(), "{}", rfw.log());
        rfw.ok("PUT", "/drop/input/any/1.2.3.4");
        all_are_confined(&rfw, USED);
        let log = rfw.log();
        assert_eq!(log.matches("[WARN] this kernel has no Landlock").count(), 1, "{log}");
        assert!(log.contains("no new privileges, no Landlock"), "{log}");
    });
}

#[test]
fn a_start_ends_where_capabilities_can_not_be_dropped() {
    let host = Host::new();
    let mut rfw = host.rfw("iptables-nft");
    let through = ["perl", "-e", REFUSE, calls()[0], calls()[1], EPERM];
    let status = rfw.try_spawn_through(&through).unwrap_err();
    assert_eq!(status.code(), Some(1));
    let told = "rfw does not run with rights that it can't give up: capabilities can't be dropped";
    assert!(rfw.log().contains(told), "{}", rfw.log());
    assert!(host.tables("iptables-nft").concat().is_empty(), "nothing was changed");
}
