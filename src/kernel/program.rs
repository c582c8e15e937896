//! The one door to other programs.
//!
//! A tool is found once, when rfw starts, and from then on known by its absolute
//! path; it runs with an empty environment but for the locale, so that its words
//! are those that rfw knows. What it says when it fails goes into the error. No
//! tool is waited for without a deadline: one that passes it is killed, with all
//! that it has started.

use crate::stop_signal::StopSignal;
use rustix::event::{PollFd, PollFlags};
use rustix::io::ioctl_fionbio;
use rustix::process::{Pid, Signal, kill_process_group};
use std::borrow::Cow;
use std::env;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Where tools of the system are, whatever `PATH` says.
const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The exit status of iptables when it can't get what it needs from the system.
const RESOURCE_PROBLEM: i32 = 4;

/// How long rfw waits for the output of one run, all waits added up. A table of
/// 100,000 rules takes iptables-nft-save some seconds before its first line.
const READ_TIME: Duration = Duration::from_secs(15);

/// How long a tool that closed its output, or was killed, may take to end.
const END_TIME: Duration = Duration::from_secs(1);

/// The longest line of output that is read, in bytes. A line of iptables-save has at
/// most some hundred.
const LINE_MAX: usize = 64 << 10;

/// The most that is read of standard error at a time, in parts of 4 KiB.
const READS_MAX: usize = 16;

/// The most lines that are taken from a program whose output is wanted as a whole.
const LINES_MAX: usize = 1_000;

/// The number of lines after which the stop signal is looked at.
const STOP_INTERVAL: usize = 256;

/// What is kept of standard error, in bytes.
const COMPLAINT_MAX: usize = 4 << 10;

/// A program that is there and may be executed.
#[derive(Debug, Clone)]
pub struct Program {
    path: PathBuf,
    stop: StopSignal,
}

impl Program {
    /// Finds a program by its name in `PATH` or the system's folders, or by a path.
    /// It is not waited for when `stop` has been told.
    ///
    /// # Errors
    /// No executable file of that name.
    pub fn find(name: &Path, stop: &StopSignal) -> Result<Program, ProgramError> {
        let candidates: Vec<PathBuf> = match name.components().count() {
            1 => {
                let folders = env::var_os("PATH").unwrap_or_default();
                let system = env::split_paths(SYSTEM_PATH);
                env::split_paths(&folders)
                    .chain(system)
                    .filter(|f| f.is_absolute())
                    .map(|f| f.join(name))
                    .collect()
            }
            _ => std::path::absolute(name).into_iter().collect(),
        };
        let path = candidates.into_iter().find(|path| is_executable(path));
        let program = path.map(|path| Program { path, stop: stop.clone() });
        program.ok_or_else(|| ProgramError::Missing(name.to_owned()))
    }

    /// What tells rfw to end.
    pub fn stop(&self) -> &StopSignal {
        &self.stop
    }

    /// Runs it to its end and gives the lines that it printed.
    ///
    /// # Errors
    /// It can't be started, ends with another status than 0, or not in time.
    pub fn run(&self, arguments: &[&str]) -> Result<Vec<String>, ProgramError> {
        let mut lines = self.lines(arguments)?;
        let mut all = Vec::new();
        while let Some(line) = lines.next_line()? {
            if all.len() >= LINES_MAX {
                return Err(ProgramError::Spawn(self.line(arguments), io::Error::other("endless output")));
            }
            all.push(line.into_owned());
        }
        Ok(all)
    }

    /// Runs it and gives what it prints line by line, while it runs.
    ///
    /// # Errors
    /// It can't be started.
    pub fn lines(&self, arguments: &[&str]) -> Result<Lines, ProgramError> {
        self.lines_on(arguments, Stdio::null(), READ_TIME)
    }

    fn lines_on(&self, arguments: &[&str], stdin: Stdio, time: Duration) -> Result<Lines, ProgramError> {
        let error = |error| ProgramError::Spawn(self.line(arguments), error);
        let mut child = KillOnDrop::new(self.start(arguments, stdin, Stdio::piped())?);
        let (Some(stdout), Some(stderr)) = (child.child.stdout.take(), child.child.stderr.take()) else {
            return Err(error(io::ErrorKind::BrokenPipe.into()));
        };
        ioctl_fionbio(&stdout, true).map_err(|errno| error(errno.into()))?;
        let complaint = Complaint::new(stderr).map_err(error)?;
        Ok(Lines {
            program: self.clone(),
            arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
            child,
            output: Some(BufReader::with_capacity(64 << 10, stdout)),
            complaint,
            line: Vec::new(),
            count: 0,
            left: time,
            time,
        })
    }

    /// Starts it, with its standard error in a pipe, as the leader of a process group.
    ///
    /// # Errors
    /// It can't be started.
    pub fn start(&self, arguments: &[&str], stdin: Stdio, stdout: Stdio) -> Result<Child, ProgramError> {
        let child = Command::new(&self.path)
            .args(arguments)
            .env_clear()
            .env("LC_ALL", "C")
            .env("PATH", SYSTEM_PATH)
            .current_dir("/")
            // Ctrl-C in a terminal is for rfw, which first finishes its transaction.
            .process_group(0)
            .stdin(stdin)
            .stdout(stdout)
            .stderr(Stdio::piped())
            .spawn();
        child.map_err(|error| ProgramError::Spawn(self.line(arguments), error))
    }

    /// The error of a run that ended with that status, or goes on without one, and
    /// said that much.
    pub fn failure(&self, arguments: &[&str], status: Option<ExitStatus>, stderr: &str) -> ProgramError {
        let words =
            stderr.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
        match status.and_then(|status| status.code()) {
            Some(RESOURCE_PROBLEM) if words.contains("xtables lock") => ProgramError::Locked(words),
            _ => ProgramError::Failed(self.line(arguments), status, words),
        }
    }

    /// The command line as a person would type it.
    pub fn line(&self, arguments: &[&str]) -> String {
        format!("{} {}", self.path.display(), arguments.join(" "))
    }
}

/// A child that is killed, with its process group, when nobody holds it any more.
pub struct KillOnDrop {
    /// The child, which leads its process group.
    pub child: Child,
    /// Whether it has been waited for: then its number may be another's.
    reaped: bool,
}

impl KillOnDrop {
    /// Takes a child that leads its process group.
    pub fn new(child: Child) -> KillOnDrop {
        KillOnDrop { child, reaped: false }
    }

    /// Its exit status, if it ends before the deadline.
    pub fn status_by(&mut self, deadline: Instant) -> Option<ExitStatus> {
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => {
                    self.reaped = true;
                    return Some(status);
                }
                Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(1)),
                Ok(None) | Err(_) => return None,
            }
        }
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if self.reaped {
            return;
        }
        // It leads its group, which has its number until it is waited for.
        let group = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let _ = group.map(|group| kill_process_group(group, Signal::KILL));
        if self.status_by(Instant::now() + END_TIME).is_none() {
            log::warn!("the process {} does not end though it was killed", self.child.id());
        }
    }
}

/// What a running tool prints to its standard error.
pub struct Complaint {
    pipe: ChildStderr,
    text: Vec<u8>,
    ended: bool,
}

impl Complaint {
    /// Begins to listen.
    ///
    /// # Errors
    /// The system's.
    pub fn new(pipe: ChildStderr) -> io::Result<Complaint> {
        ioctl_fionbio(&pipe, true)?;
        Ok(Complaint { pipe, text: Vec::new(), ended: false })
    }

    /// What to poll for more; nothing after the end.
    pub fn poll_fd(&self) -> Option<PollFd<'_>> {
        (!self.ended).then(|| PollFd::new(&self.pipe, PollFlags::IN))
    }

    /// Reads what there is now, so that the tool never waits for a reader.
    ///
    /// # Errors
    /// The system's.
    pub fn hear(&mut self) -> io::Result<()> {
        let mut part = [0; 4 << 10];
        // Bounded, for a program that writes faster than is read.
        for _ in 0..READS_MAX {
            if self.ended {
                break;
            }
            match self.pipe.read(&mut part) {
                Ok(0) => self.ended = true,
                Ok(length) => {
                    let room = COMPLAINT_MAX.saturating_sub(self.text.len());
                    self.text.extend_from_slice(part.get(..length.min(room)).unwrap_or_default());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Its first bytes since they were last taken.
    pub fn take(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.text)).into_owned()
    }
}

/// What a running tool prints, line by line.
pub struct Lines {
    program: Program,
    arguments: Vec<String>,
    child: KillOnDrop,
    output: Option<BufReader<ChildStdout>>,
    complaint: Complaint,
    line: Vec<u8>,
    /// The number of lines that were asked for.
    count: usize,
    /// How long it may still be waited for, of how much.
    left: Duration,
    time: Duration,
}

impl Lines {
    /// The next line without its end; `None` after the last one, if the tool has
    /// ended well.
    ///
    /// # Errors
    /// The tool failed or hangs.
    pub fn next_line(&mut self) -> Result<Option<Cow<'_, str>>, ProgramError> {
        self.line.clear();
        self.count = self.count.wrapping_add(1);
        if self.count.is_multiple_of(STOP_INTERVAL) {
            self.check_stop()?;
        }
        loop {
            let Some(output) = &mut self.output else { return Ok(None) };
            let room = LINE_MAX.saturating_sub(self.line.len());
            let room = u64::try_from(room).unwrap_or(u64::MAX);
            match output.take(room).read_until(b'\n', &mut self.line) {
                Ok(_) if self.line.ends_with(b"\n") => break,
                Ok(_) if self.line.len() >= LINE_MAX => {
                    return Err(self.error(io::Error::other("a line of its output is too long")));
                }
                Ok(_) => {
                    self.output = None;
                    self.end()?;
                    if self.line.is_empty() {
                        return Ok(None);
                    }
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait()?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.error(error)),
            }
        }
        let line = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
        Ok(Some(String::from_utf8_lossy(line)))
    }

    /// The command line.
    pub fn command_line(&self) -> String {
        self.program.line(&self.arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Gives up on a program that never pauses when rfw has been told to end.
    fn check_stop(&self) -> Result<(), ProgramError> {
        let now = Instant::now();
        match self.program.stop.limit(now + END_TIME) > now {
            true => Ok(()),
            false => Err(ProgramError::TimedOut(self.command_line(), END_TIME)),
        }
    }

    /// Waits for more output.
    fn wait(&mut self) -> Result<(), ProgramError> {
        let start = Instant::now();
        let mut fds: Vec<PollFd<'_>> = self.complaint.poll_fd().into_iter().collect();
        fds.extend(self.output.as_ref().map(|output| PollFd::new(output.get_ref(), PollFlags::IN)));
        let ready = self.program.stop.wait(&fds, start + self.left);
        let ready = ready.and_then(|ready| self.complaint.hear().map(|()| ready));
        self.left = self.left.saturating_sub(start.elapsed());
        match ready {
            Ok(true) => Ok(()),
            Ok(false) => {
                Err(ProgramError::TimedOut(self.command_line(), self.time.saturating_sub(self.left)))
            }
            Err(error) => Err(self.error(error)),
        }
    }

    /// Hears it out and sees how it ends.
    fn end(&mut self) -> Result<(), ProgramError> {
        let deadline = self.program.stop.limit(Instant::now() + END_TIME.max(self.left));
        let Some(status) = self.child.status_by(deadline) else {
            return Err(ProgramError::TimedOut(self.command_line(), END_TIME));
        };
        self.complaint.hear().map_err(|error| self.error(error))?;
        match status.success() {
            true => Ok(()),
            false => {
                let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
                Err(self.program.failure(&arguments, Some(status), &self.complaint.take()))
            }
        }
    }

    fn error(&self, error: io::Error) -> ProgramError {
        ProgramError::Spawn(self.command_line(), error)
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

/// Why a tool did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// No such program.
    #[error("no executable program \"{}\"", .0.display())]
    Missing(PathBuf),
    /// It can't be started: the command line, and why.
    #[error("{0}: {1}")]
    Spawn(String, io::Error),
    /// It failed: the command line, its status if it has ended, and what it said.
    #[error("{0}: {status}{2}", status = .1.map(|status| format!("{status}: ")).unwrap_or_default())]
    Failed(String, Option<ExitStatus>, String),
    /// It gave no answer in time and was killed: the command line, and the time.
    #[error("{0}: no answer in {time} s, so it was killed", time = .1.as_secs_f32().round())]
    TimedOut(String, Duration),
    /// What it printed is not the whole of what there is: the command line, what is
    /// wrong, and what to do.
    #[error("{0}: can't be read whole, so nothing was changed: {1}: {2}")]
    Unreadable(String, String, String),
    /// Other programs changed the table again and again.
    #[error("other programs keep changing the table")]
    Contended,
    /// Another program held the lock of the tables for too long.
    #[error("another program holds the xtables lock: {0}")]
    Locked(String),
}

impl ProgramError {
    /// Whether the tool itself failed and said this.
    pub fn says(&self, words: &str) -> bool {
        matches!(self, ProgramError::Failed(_, _, said) if said.contains(words))
    }

    /// Whether the tool was killed, or ended well, before it had given an answer: it may
    /// or may not have done its work. iptables-legacy-restore ends so of itself, five
    /// seconds after its last transaction: the alarm of its option `--wait` goes off in
    /// the middle of a read.
    pub fn is_cut_short(&self) -> bool {
        matches!(self, ProgramError::Failed(_, Some(status), _) if status.success() || status.signal().is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(name: &str) -> Program {
        Program::find(Path::new(name), &StopSignal::default()).unwrap()
    }

    #[test]
    fn a_tool_is_found_by_name_or_path() {
        assert!(program("sh").to_string().starts_with('/'));
        assert_eq!(program("/bin/sh").to_string(), "/bin/sh");
        for missing in ["no-such-tool", "/bin/no-such-tool", "/etc/passwd", "/etc", ""] {
            let error = Program::find(Path::new(missing), &StopSignal::default()).unwrap_err().to_string();
            assert_eq!(error, format!("no executable program \"{missing}\""));
        }
    }

    #[test]
    fn a_failure_says_what_the_tool_said() {
        let script = "echo one >&2; echo >&2; echo ' two' >&2; exit 3";
        let error = program("/bin/sh").run(&["-c", script]).unwrap_err();
        assert_eq!(error.to_string(), format!("/bin/sh -c {script}: exit status: 3: one; two"));
        let script = "echo 'Another app is currently holding the xtables lock.' >&2; exit 4";
        assert!(matches!(program("/bin/sh").run(&["-c", script]), Err(ProgramError::Locked(_))));
    }

    #[test]
    fn a_tool_runs_in_a_clean_environment() {
        let output = program("env").run(&[]).unwrap();
        let mut names: Vec<&str> = output.iter().filter_map(|line| line.split('=').next()).collect();
        names.sort_unstable();
        assert_eq!(names, ["LC_ALL", "PATH"]);
    }

    #[test]
    fn much_on_both_outputs_does_not_jam() {
        let script = "i=0; while [ $i -lt 20000 ]; do echo 0123456789 >&2; echo $i; i=$((i + 1)); done";
        let mut lines = program("/bin/sh").lines(&["-c", script]).unwrap();
        let mut count = 0;
        while lines.next_line().unwrap().is_some() {
            count += 1;
        }
        assert_eq!(count, 20_000);
    }

    #[test]
    fn output_without_end_is_not_collected() {
        let error = program("yes").run(&[]).unwrap_err().to_string();
        assert!(error.ends_with("endless output"), "{error}");
    }

    #[test]
    fn a_group_is_killed_also_where_its_leader_has_ended() {
        let mut lines = program("/bin/sh")
            .lines_on(&["-c", "sleep 1000 & echo $!"], Stdio::null(), Duration::from_millis(300))
            .unwrap();
        let child: u32 = lines.next_line().unwrap().unwrap().parse().unwrap();
        assert!(matches!(lines.next_line(), Err(ProgramError::TimedOut(..))));
        drop(lines);
        let start = Instant::now();
        while std::fs::read(format!("/proc/{child}/cmdline")).is_ok_and(|line| !line.is_empty()) {
            assert!(start.elapsed() < Duration::from_secs(5), "{child} runs");
        }
    }

    #[test]
    fn a_program_that_never_pauses_is_given_up_after_a_signal() {
        let (read, mut write) = std::os::unix::net::UnixStream::pair().unwrap();
        let stop = StopSignal::new(read.into());
        let mut lines = Program::find(Path::new("yes"), &stop).unwrap().lines(&[]).unwrap();
        assert!(lines.next_line().unwrap().is_some());
        io::Write::write_all(&mut write, b"x").unwrap();
        let start = Instant::now();
        while lines.next_line().is_ok() {
            assert!(start.elapsed() < Duration::from_secs(10));
        }
    }

    #[test]
    fn lines_are_bounded_and_the_last_needs_no_end() {
        assert_eq!(program("printf").run(&["a\\n\\nb"]).unwrap(), ["a", "", "b"]);
        let error = program("/bin/sh").run(&["-c", "yes | tr -d '\\n'"]).unwrap_err().to_string();
        assert!(error.ends_with("a line of its output is too long"), "{error}");
    }

    #[test]
    fn a_tool_that_hangs_is_killed_with_its_group() {
        let mut lines = program("/bin/sh").lines_on(
            &["-c", "sleep 1000 & echo $!; wait"],
            Stdio::null(),
            Duration::from_millis(300),
        );
        let lines = lines.as_mut().unwrap();
        let child: u32 = lines.next_line().unwrap().unwrap().parse().unwrap();
        assert!(matches!(lines.next_line(), Err(ProgramError::TimedOut(..))));
        let (own, start) = (lines.child.child.id(), Instant::now());
        drop(std::mem::replace(&mut lines.child, KillOnDrop::new(Command::new("true").spawn().unwrap())));
        for process in [own, child] {
            // A child of ours is reaped by us, one of its own by init; until then it
            // has no memory any more.
            let gone =
                || std::fs::read(format!("/proc/{process}/cmdline")).is_ok_and(|line| !line.is_empty());
            while gone() {
                assert!(start.elapsed() < Duration::from_secs(5), "{process} runs");
            }
        }
        assert!(!Path::new(&format!("/proc/{own}")).exists());
    }
}
