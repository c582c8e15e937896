//! Execution of other programs; no other module of rfw starts a process.
//!
//! A program is resolved once, when rfw starts, to an absolute path. Its environment is
//! only `PATH` and `LC_ALL=C`, so that its messages are untranslated, and for one that is none
//! of the system's the folder of its [`libraries`]. An error carries its
//! command line, exit status and standard error. Every wait has a deadline; a program that
//! exceeds it is killed with its process group.

mod libraries;

use crate::rule::layout::RAW_CHAIN;
use crate::rule::network::Family;
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

/// Directories searched after those of `PATH`, and the `PATH` of the programs.
const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// `RESOURCE_PROBLEM` of xtables.h: the exit status of iptables if it can't get the lock.
const RESOURCE_PROBLEM: i32 = 4;

/// What strerror(3) says of `EMSGSIZE`, in glibc and in musl.
const TOO_LONG: [&str; 2] = ["Message too long", "Message too large"];

/// Time allowed for waiting on the output of one run, all waits added up.
/// iptables-nft-save takes some seconds until its first line for 100,000 rules.
const READ_TIME: Duration = Duration::from_secs(15);

/// Time allowed for a program to exit after it has closed its output or was killed.
const EXIT_TIME: Duration = Duration::from_secs(1);

/// The longest line of output, in bytes. A rule of rfw takes some hundred.
const LINE_MAX: usize = 64 << 10;

/// The most that is read of standard error at a time, in parts of 4 KiB.
const READS_MAX: usize = 16;

/// The most lines that are taken from a program whose output is wanted as a whole.
const LINES_MAX: usize = 1_000;

/// The number of lines after which the stop signal is looked at.
const STOP_INTERVAL: usize = 256;

/// How much of standard error is kept, in bytes; the rest is discarded.
const STDERR_MAX: usize = 4 << 10;

/// A program that exists and is executable.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    path: PathBuf,
    stop: StopSignal,
}

impl Program {
    /// Finds a program by a path, or by its name in `PATH` and then the directories of the
    /// system. Once `stop` is set, rfw does not wait for it any longer.
    ///
    /// # Errors
    /// No executable file of that name.
    pub(crate) fn find(name: &Path, stop: &StopSignal) -> Result<Program, ProgramError> {
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

    /// Its absolute path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The signal that ends waiting when rfw stops.
    pub(crate) fn stop(&self) -> &StopSignal {
        &self.stop
    }

    /// Runs it to completion and returns the lines of its standard output.
    ///
    /// # Errors
    /// It can't be started, exits with a status other than 0, or exceeds its time.
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<Vec<String>, ProgramError> {
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

    /// Starts it and returns its standard output, to be read line by line.
    ///
    /// # Errors
    /// It can't be started.
    pub(crate) fn lines(&self, arguments: &[&str]) -> Result<Lines, ProgramError> {
        self.lines_on(arguments, Stdio::null(), READ_TIME)
    }

    fn lines_on(&self, arguments: &[&str], stdin: Stdio, time: Duration) -> Result<Lines, ProgramError> {
        let error = |error| ProgramError::Spawn(self.line(arguments), error);
        let mut child = KillOnDrop::new(self.start(arguments, stdin, Stdio::piped())?);
        let (Some(stdout), Some(stderr)) = (child.child.stdout.take(), child.child.stderr.take()) else {
            return Err(error(io::ErrorKind::BrokenPipe.into()));
        };
        ioctl_fionbio(&stdout, true).map_err(|errno| error(errno.into()))?;
        let stderr = StandardError::new(stderr).map_err(error)?;
        Ok(Lines {
            program: self.clone(),
            arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
            child,
            output: Some(BufReader::with_capacity(64 << 10, stdout)),
            stderr,
            line: Vec::new(),
            count: 0,
            left: time,
            time,
        })
    }

    /// Starts it as the leader of a new process group, with a pipe as standard error.
    ///
    /// # Errors
    /// It can't be started.
    pub(crate) fn start(
        &self,
        arguments: &[&str],
        stdin: Stdio,
        stdout: Stdio,
    ) -> Result<Child, ProgramError> {
        let child = Command::new(&self.path)
            .args(arguments)
            .env_clear()
            .env("LC_ALL", "C")
            .env("PATH", SYSTEM_PATH)
            .envs(libraries::search_path(&self.path).map(|folders| ("LD_LIBRARY_PATH", folders)))
            .current_dir("/")
            // SIGINT of a terminal must reach rfw alone, which completes its transaction first.
            .process_group(0)
            .stdin(stdin)
            .stdout(stdout)
            .stderr(Stdio::piped())
            .spawn();
        child.map_err(|error| ProgramError::Spawn(self.line(arguments), error))
    }

    /// The error of a program that has exited with that status, or is still running
    /// (`None`), and has written that to standard error.
    pub(crate) fn failure(
        &self,
        arguments: &[&str],
        status: Option<ExitStatus>,
        stderr: &str,
    ) -> ProgramError {
        let message =
            stderr.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
        match status.and_then(|status| status.code()) {
            Some(RESOURCE_PROBLEM) if message.contains("xtables lock") => ProgramError::Locked(message),
            Some(_) if TOO_LONG.iter().any(|words| message.contains(words)) => {
                ProgramError::TooLong(self.line(arguments))
            }
            _ => ProgramError::Failed(self.line(arguments), status, message),
        }
    }

    /// The command line, for messages.
    pub(crate) fn line(&self, arguments: &[&str]) -> String {
        format!("{} {}", self.path.display(), arguments.join(" "))
    }
}

/// A child process that is killed, with its process group, when dropped.
pub(crate) struct KillOnDrop {
    /// The child, which leads its process group.
    pub child: Child,
    /// Whether it has been waited for: then its number may be another's.
    reaped: bool,
}

impl KillOnDrop {
    /// Takes a child that leads its process group.
    pub(crate) fn new(child: Child) -> KillOnDrop {
        KillOnDrop { child, reaped: false }
    }

    /// Its exit status, if it ends before the deadline. What it writes to standard error until then
    /// is read, so that it does not block on a full pipe.
    ///
    /// # Errors
    /// Those of read(2).
    pub(crate) fn exit_by(
        &mut self,
        deadline: Instant,
        stderr: &mut StandardError,
    ) -> io::Result<Option<ExitStatus>> {
        let mut read = Ok(());
        let status = self.status_by(deadline, || read = stderr.read());
        read.and_then(|()| stderr.read()).map(|()| status)
    }

    /// Its exit status, if it ends before the deadline; `meanwhile` is called until then.
    fn status_by(&mut self, deadline: Instant, mut meanwhile: impl FnMut()) -> Option<ExitStatus> {
        loop {
            meanwhile();
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
        if self.status_by(Instant::now() + EXIT_TIME, || {}).is_none() {
            log::warn!("the process {} does not end though it was killed", self.child.id());
        }
    }
}

/// The standard error of a running program, read without blocking.
pub(crate) struct StandardError {
    pipe: ChildStderr,
    text: Vec<u8>,
    ended: bool,
}

impl StandardError {
    /// Takes the read end of the pipe and sets it to non-blocking mode.
    ///
    /// # Errors
    /// Those of ioctl(2) with `FIONBIO`.
    pub(crate) fn new(pipe: ChildStderr) -> io::Result<StandardError> {
        ioctl_fionbio(&pipe, true)?;
        Ok(StandardError { pipe, text: Vec::new(), ended: false })
    }

    /// The descriptor to poll for input; `None` after end of file.
    pub(crate) fn poll_fd(&self) -> Option<PollFd<'_>> {
        (!self.ended).then(|| PollFd::new(&self.pipe, PollFlags::IN))
    }

    /// Reads what is available, so that the program does not block on a full pipe.
    ///
    /// # Errors
    /// Those of read(2).
    pub(crate) fn read(&mut self) -> io::Result<()> {
        let mut part = [0; 4 << 10];
        // Bounded, for a program that writes faster than is read.
        for _ in 0..READS_MAX {
            if self.ended {
                break;
            }
            match self.pipe.read(&mut part) {
                Ok(0) => self.ended = true,
                Ok(length) => {
                    let room = STDERR_MAX.saturating_sub(self.text.len());
                    self.text.extend_from_slice(part.get(..length.min(room)).unwrap_or_default());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Removes and returns what is kept: the first `STDERR_MAX` bytes since the last call.
    pub(crate) fn take(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.text)).into_owned()
    }
}

/// The standard output of a running program, line by line.
pub(crate) struct Lines {
    program: Program,
    arguments: Vec<String>,
    child: KillOnDrop,
    output: Option<BufReader<ChildStdout>>,
    stderr: StandardError,
    line: Vec<u8>,
    /// Lines read so far.
    count: usize,
    /// Time left for waiting.
    left: Duration,
    /// Time allowed for waiting in all.
    time: Duration,
}

impl Lines {
    /// The next line without its line feed; `None` after the last one, once the program
    /// has exited with status 0.
    ///
    /// # Errors
    /// The program failed or exceeds its time, or a line is longer than `LINE_MAX`.
    pub(crate) fn next_line(&mut self) -> Result<Option<Cow<'_, str>>, ProgramError> {
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
                    self.wait_exit()?;
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
    pub(crate) fn command_line(&self) -> String {
        self.program.line(&self.arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Gives up on a program that never pauses when rfw has been told to end.
    fn check_stop(&self) -> Result<(), ProgramError> {
        let now = Instant::now();
        match self.program.stop.for_reading().limit(now + EXIT_TIME) > now {
            true => Ok(()),
            false => Err(ProgramError::TimedOut(self.command_line(), EXIT_TIME)),
        }
    }

    /// Waits for more output.
    fn wait(&mut self) -> Result<(), ProgramError> {
        let start = Instant::now();
        let mut fds: Vec<PollFd<'_>> = self.stderr.poll_fd().into_iter().collect();
        fds.extend(self.output.as_ref().map(|output| PollFd::new(output.get_ref(), PollFlags::IN)));
        let ready = self.program.stop.for_reading().wait(&fds, start + self.left);
        let ready = ready.and_then(|ready| self.stderr.read().map(|()| ready));
        self.left = self.left.saturating_sub(start.elapsed());
        match ready {
            Ok(true) => Ok(()),
            Ok(false) => {
                Err(ProgramError::TimedOut(self.command_line(), self.time.saturating_sub(self.left)))
            }
            Err(error) => Err(self.error(error)),
        }
    }

    /// Waits for the program to exit, after the end of its output.
    fn wait_exit(&mut self) -> Result<(), ProgramError> {
        let deadline = self.program.stop.for_reading().limit(Instant::now() + EXIT_TIME.max(self.left));
        let exited = self.child.exit_by(deadline, &mut self.stderr);
        let Some(status) = exited.map_err(|error| self.error(error))? else {
            return Err(ProgramError::TimedOut(self.command_line(), EXIT_TIME));
        };
        match status.success() {
            true => Ok(()),
            false => {
                let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
                Err(self.program.failure(&arguments, Some(status), &self.stderr.take()))
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

/// Why a program has not done its task.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProgramError {
    /// No executable file of that name.
    #[error("no executable program \"{}\"", .0.display())]
    Missing(PathBuf),
    /// It can't be started, or reading from or writing to it fails: command line and cause.
    #[error("{0}: {1}")]
    Spawn(String, io::Error),
    /// It failed: command line, exit status unless it is still running, standard error.
    #[error("{0}: {status}{2}", status = .1.map(|status| format!("{status}: ")).unwrap_or_default())]
    Failed(String, Option<ExitStatus>, String),
    /// The transaction, which iptables-nft sends as a whole, exceeds its send buffer: command
    /// line. Only root of the first user namespace may enlarge that (`SO_SNDBUFFORCE`,
    /// socket(7)).
    #[error(
        "{0}: Message too long: a container without privileges may send only so many changes at once \
         (net.core.wmem_default of its host): shorten the list, or turn the option ipset on"
    )]
    TooLong(String),
    /// It exceeded its time and was killed: command line and time.
    #[error("{0}: no answer in {time} s, so it was killed", time = .1.as_secs_f32().round())]
    TimedOut(String, Duration),
    /// Its output is incomplete: command line, cause and remedy.
    #[error("{0}: can't be read whole, so nothing was changed: {1}: {2}")]
    Unreadable(String, String, String),
    /// The chain of rfw in the table `raw` has rules, none of which is rfw's.
    #[error(
        "the table raw of {0} has a chain {RAW_CHAIN} that rfw has not made: rename it \
         ({iptables} -t raw -E {RAW_CHAIN} NAME), or leave the option input.table at filter",
        iptables = if *.0 == Family::V4 { "iptables" } else { "ip6tables" }
    )]
    ForeignChain(Family),
    /// Other programs changed the table again and again.
    #[error("other programs keep changing the table")]
    Contended,
    /// Another program held the xtables lock for longer than `--wait` allows: standard error.
    #[error("another program holds the xtables lock: {0}")]
    Locked(String),
}

impl ProgramError {
    /// Whether the program failed with these words in its standard error.
    pub(crate) fn says(&self, words: &str) -> bool {
        matches!(self, ProgramError::Failed(_, _, stderr) if stderr.contains(words))
    }

    /// Whether it is the failure of a command line that contains these words.
    pub(crate) fn is_of(&self, words: &str) -> bool {
        matches!(self, ProgramError::Failed(line, ..) if line.contains(words))
    }

    /// Whether a coprocess was killed, or exited with status 0, before it printed the
    /// sentinel: its transaction may or may not be committed. iptables-legacy-restore does
    /// so by itself, five seconds after its last transaction, when the alarm of `--wait`
    /// interrupts its read(2).
    pub(crate) fn is_cut_short(&self) -> bool {
        matches!(self, ProgramError::Failed(_, Some(status), _) if status.success() || status.signal().is_some())
    }
}

#[cfg(test)]
mod tests;
