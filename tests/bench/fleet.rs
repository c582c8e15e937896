//! A fleet: a hundred servers, each an rfw in a network namespace of its own, which one client asks at
//! the same time, with curl itself and with rfwctl.

use super::{Bench, address as block, feed, median, memory_row, millis, output, program, row, run, timed};
use crate::network;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const SERVERS: usize = 100;

/// The length of the list that all get.
const LENGTH: usize = 10_000;

/// Lists that are uploaded at the same time: each has to go on, and to end within a minute.
const UPLOADS: usize = 20;

/// How often each is measured.
const ROUNDS: usize = 5;

/// All servers have to be ready after this time, on a machine that has other work too.
const START: Duration = Duration::from_secs(60);

const RFWCTL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/etc/rfwctl/rfwctl");

impl Bench {
    pub(super) fn fleet(&self) {
        let fleet = Fleet::start(&self.dir.join("fleet"));
        fleet.blocks();
        fleet.lists();
        fleet.memory();
    }
}

/// What is sent to each server.
enum Job {
    Block(String),
    /// The file `list`, in the place of what a list has.
    List,
}

struct Fleet {
    dir: PathBuf,
    servers: Vec<Child>,
}

impl Fleet {
    fn start(dir: &Path) -> Fleet {
        fs::create_dir_all(dir).unwrap();
        feed("sh", &[], &network::script(SERVERS));
        let names = (1..=SERVERS).map(|server| network::address(server).to_string());
        let rfwgen = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/etc/deploy/rfwgen"))
            .args(names)
            .current_dir(dir)
            .stdout(Stdio::null())
            .status();
        assert!(rfwgen.unwrap().success(), "rfwgen");
        let at = dir.display();
        let keys = format!("{at}/server_{}", network::address(1));
        fs::write(dir.join("white.list"), format!("{}\n", network::ASKING)).unwrap();
        let conf = format!(
            "[config]\noutward.server\noutward.server.ip = 0.0.0.0\n\
             outward.server.certfile = {keys}/server.crt\noutward.server.keyfile = {keys}/server.key\n\
             auth.username = me\nauth.password = secret\nwhitelist.file = {at}/white.list\nipset = auto\n"
        );
        let login = format!("* cacert={at}/client/ca.crt user=me password=secret\n");
        let curl = format!("cacert = {at}/client/ca.crt\nuser = me:secret\nfail\nno-progress-meter\n");
        for (name, text) in
            [("rfw.conf", conf), ("servers", login + &network::servers(SERVERS)), ("curl.conf", curl)]
        {
            fs::write(dir.join(name), text).unwrap();
            fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o600)).unwrap();
        }
        let servers = (1..=SERVERS).map(|server| serve(dir, server)).collect();
        let fleet = Fleet { dir: dir.to_owned(), servers };
        fleet.wait_until_ready();
        fleet
    }

    fn wait_until_ready(&self) {
        let start = Instant::now();
        for server in 1..=SERVERS {
            let log = || fs::read_to_string(log_file(&self.dir, server)).unwrap_or_default();
            while !log().contains("is ready") {
                assert!(start.elapsed() < START, "{}: {}", network::name(server), log());
                thread::sleep(Duration::from_millis(5));
            }
        }
    }

    fn blocks(&self) {
        let ([one, all, ctl], client) = self.measure(|round| Job::Block(block(round)));
        row("one block on 100 servers, curl, against 100 x one", all, spread(one), 0.5);
        row("the same by rfwctl, against curl", ctl, all, 2.5);
        time_row("  processor time of rfwctl for it", client);
    }

    fn lists(&self) {
        let before = processor_time(self.processes(), USED);
        let ([one, all, ctl], client) = self.measure(|round| {
            let list: String =
                (round * LENGTH..(round + 1) * LENGTH).map(|n| format!("{}\n", block(n))).collect();
            fs::write(self.dir.join("list"), list).unwrap();
            Job::List
        });
        let servers = processor_time(self.processes(), USED) - before;
        row("10,000 on 100 servers, curl, against 100 x one", all, spread(one), 1.2);
        row("the same by rfwctl, against curl", ctl, all, 1.5);
        time_row("  processor time of rfwctl for it", client);
        // All are sent two lists a round, and the first is sent one more.
        let lists = ROUNDS * (2 * SERVERS + 1);
        time_row("  processor time of a server for one list", servers / u32::try_from(lists).unwrap());
    }

    /// The medians of one server by curl, of all by curl, and of all by rfwctl, and the processor time that
    /// the last takes; each job is one that the servers don't have yet.
    fn measure(&self, job: impl Fn(usize) -> Job) -> ([Duration; 3], Duration) {
        let mut times = [const { Vec::new() }; 3];
        let mut client = Duration::ZERO;
        for round in 0..ROUNDS {
            for (way, times) in times.iter_mut().enumerate() {
                let job = job(round * 3 + way);
                let before = processor_time([std::process::id()], USED_BY_CHILDREN);
                times.push(match way {
                    0 => timed(|| self.curl(1, &job)),
                    1 => timed(|| self.curl(SERVERS, &job)),
                    _ => timed(|| self.rfwctl(&job)),
                });
                if way == 2 {
                    client += processor_time([std::process::id()], USED_BY_CHILDREN) - before;
                }
            }
        }
        (times.map(|times| median(times.into_iter())), client / u32::try_from(ROUNDS).unwrap())
    }

    /// Asks the first servers by one curl.
    fn curl(&self, count: usize, job: &Job) {
        let at_once = if matches!(job, Job::List) { UPLOADS } else { SERVERS };
        let mut config = format!("parallel\nparallel-max = {at_once}\n");
        for server in 1..=count {
            let url = format!("url = \"https://{}:7393/drop/input/any", network::address(server));
            match job {
                Job::Block(address) => writeln!(config, "{url}/{address}?expire=1h\"\nrequest = PUT"),
                Job::List => {
                    writeln!(config, "{url}?list=feed&replace=true&expire=1h\"\nupload-file = \"list\"")
                }
            }
            .unwrap();
        }
        fs::write(self.dir.join("jobs"), config).unwrap();
        self.call("curl", &["-K", "curl.conf", "-K", "jobs"]);
    }

    fn rfwctl(&self, job: &Job) {
        match job {
            Job::Block(address) => self.call(RFWCTL, &["-f", "servers", "block", address, "-t", "1h"]),
            Job::List => {
                self.call(RFWCTL, &["-f", "servers", "feed", "feed", "list", "--replace", "-t", "1h"]);
            }
        }
    }

    fn call(&self, program: &str, arguments: &[&str]) {
        let output = Command::new(program).args(arguments).current_dir(&self.dir).output().expect(program);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments:?}: {}: {said}", output.status);
    }

    /// The pages of all servers and of the programs that they keep, each page once.
    fn memory(&self) {
        let pages = |pid: u32| {
            let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
            let line = text.lines().find(|line| line.starts_with("Pss:"));
            line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok()).unwrap_or_default()
        };
        let kilobytes: f64 = self.processes().into_iter().map(pages).sum();
        memory_row("100 servers after all this, together", kilobytes / 1024.0, 1_000);
    }

    /// All servers and the programs that they keep.
    fn processes(&self) -> Vec<u32> {
        let mut all = Vec::new();
        for pid in self.servers.iter().map(Child::id) {
            all.push(pid);
            for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
                let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
                all.extend(children.split_whitespace().map(|child| child.parse::<u32>().unwrap()));
            }
        }
        all
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for server in &self.servers {
            run("kill", &[&server.id().to_string()]);
        }
        for server in &mut self.servers {
            let _ = server.wait();
        }
    }
}

/// Starts rfw in the namespace of a server; it keeps the number of the process.
fn serve(dir: &Path, server: usize) -> Child {
    Command::new("ip")
        .args(["netns", "exec", &network::name(server), "sh", "-c", network::PREPARE])
        .arg(program())
        .arg("-f")
        .arg(dir.join("rfw.conf"))
        .arg("--logfile")
        .arg(log_file(dir, server))
        .stdout(Stdio::null())
        .spawn()
        .expect("ip")
}

fn log_file(dir: &Path, server: usize) -> PathBuf {
    dir.join(format!("{}.log", network::name(server)))
}

/// Where /proc/PID/stat has the ticks that a process has used, and that its children had which it has
/// waited for: the fields 14 and 16 (proc(5)), each with the next, counted from behind the name.
const USED: usize = 11;
const USED_BY_CHILDREN: usize = 13;

fn processor_time(processes: impl IntoIterator<Item = u32>, place: usize) -> Duration {
    let ticks = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        fields.skip(place).take(2).filter_map(|field| field.parse::<u64>().ok()).sum::<u64>()
    };
    let per_second: u64 = output("getconf", &["CLK_TCK"]).trim().parse().unwrap();
    let sum: u64 = processes.into_iter().map(ticks).sum();
    Duration::from_millis(sum * 1_000 / per_second)
}

fn time_row(what: &str, time: Duration) {
    println!("{what:<52} {:>8.1} ms", millis(time));
}

/// The time that so many servers would take one after the other, on all processors.
fn spread(one: Duration) -> Duration {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    one * u32::try_from(SERVERS).unwrap() / u32::try_from(processors).unwrap()
}
