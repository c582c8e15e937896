//! A coprocess: a long-running iptables-restore or ipset that reads one transaction after
//! the other from its standard input, which saves fork(2) and execve(2) for each.
//!
//! Each transaction is followed by a line in reply to which the program prints a sentinel
//! once everything before it is done. Standard output is a pseudo-terminal (pty(7)), since
//! stdio buffers output to a pipe in blocks. On an error iptables-restore exits, with
//! nothing changed; ipset writes a message to standard error and continues. A process that
//! has exited or exceeded its time is replaced at the next transaction.

use crate::kernel::program::{KillOnDrop, Program, ProgramError, StandardError};
use crate::stop_signal::StopSignal;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::fs::OFlags;
use rustix::io::{Errno, ioctl_fionbio};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use std::io::{self, Write};
use std::process::{ChildStdin, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Time allowed until the sentinel: longer than `--wait=5`, after which iptables-restore
/// itself gives up waiting for the xtables lock and exits.
const ANSWER_TIME: Duration = Duration::from_millis(5_500);

/// Additional time for each line of the transaction.
const LINE_TIME: Duration = Duration::from_millis(1);

/// Time allowed for a process to exit after it has closed its output.
const EXIT_TIME: Duration = Duration::from_secs(1);

/// How a program reports that all input so far is processed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sentinel {
    /// The line of input that requests it.
    pub ask: &'static str,
    /// The text that is printed in reply, and in no other output of the program.
    pub answer: &'static str,
    /// Whether the program continues after an error, so that any output to standard error
    /// means that the transaction failed.
    pub goes_on: bool,
}

/// A program that is started on first use and then kept running.
pub(crate) struct Coprocess {
    program: Program,
    arguments: &'static [&'static str],
    sentinel: Sentinel,
    process: Option<Process>,
}

impl Coprocess {
    /// A program that, with these arguments, reads transactions from standard input; it is
    /// not started yet.
    pub(crate) fn new(program: Program, arguments: &'static [&'static str], sentinel: Sentinel) -> Coprocess {
        Coprocess { program, arguments, sentinel, process: None }
    }

    /// Executes one transaction, given as complete lines.
    ///
    /// # Errors
    /// The program can't be started, reports an error, exits, or exceeds its time.
    pub(crate) fn transact(&mut self, lines: &str) -> Result<(), ProgramError> {
        log::debug!("{}: {}", self.program, abbreviated(lines));
        let mut process = match self.process.take().filter(Process::is_usable) {
            Some(process) => process,
            None => self.start()?,
        };
        let limit = ANSWER_TIME + LINE_TIME * u32::try_from(lines.lines().count()).unwrap_or(u32::MAX);
        let text = format!("{lines}{}\n", self.sentinel.ask);
        let deadline = Instant::now() + limit;
        let answer = self.sentinel.answer;
        let outcome = process.exchange(text.as_bytes(), answer, self.program.stop(), deadline);
        let line = || self.program.line(self.arguments);
        match outcome {
            Ok(Outcome::Done(errors)) => {
                self.process = Some(process);
                match self.sentinel.goes_on && !errors.is_empty() {
                    true => Err(self.program.failure(self.arguments, None, &errors)),
                    false => Ok(()),
                }
            }
            Ok(Outcome::Ended) => Err(match process.wait_exit() {
                Ok((Some(status), errors)) => self.program.failure(self.arguments, Some(status), &errors),
                Ok((None, _)) => ProgramError::TimedOut(line(), EXIT_TIME),
                Err(error) => ProgramError::Spawn(line(), error),
            }),
            Ok(Outcome::TimedOut) => Err(ProgramError::TimedOut(line(), limit)),
            Err(error) => Err(ProgramError::Spawn(line(), error)),
        }
    }

    fn start(&self) -> Result<Process, ProgramError> {
        let error = |error: io::Error| ProgramError::Spawn(self.program.line(self.arguments), error);
        let (leader, follower) = pseudo_terminal().map_err(|errno| error(errno.into()))?;
        let mut child =
            KillOnDrop::new(self.program.start(self.arguments, Stdio::piped(), Stdio::from(follower))?);
        let (Some(stdin), Some(stderr)) = (child.child.stdin.take(), child.child.stderr.take()) else {
            return Err(error(io::ErrorKind::BrokenPipe.into()));
        };
        ioctl_fionbio(&stdin, true).map_err(|errno| error(errno.into()))?;
        ioctl_fionbio(&leader, true).map_err(|errno| error(errno.into()))?;
        let stderr = StandardError::new(stderr).map_err(error)?;
        Ok(Process { child, stdin, leader, stderr })
    }
}

/// The first 1,024 lines of a transaction, joined to one line for the log.
fn abbreviated(lines: &str) -> String {
    const MOST: usize = 1_024;
    let shown = lines.lines().take(MOST).collect::<Vec<_>>().join("; ");
    match lines.lines().count().saturating_sub(MOST) {
        0 => shown,
        more => format!("{shown}; and {more} more lines"),
    }
}

/// Opens a pseudo-terminal (pty(7)); returns its leader, from which the output is read,
/// and its follower, which is open for writing only: rfw can read no terminals of others
/// once it is confined.
fn pseudo_terminal() -> Result<(OwnedFd, OwnedFd), Errno> {
    let leader = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&leader)?;
    unlockpt(&leader)?;
    let write = OpenptFlags::from_bits_retain(OFlags::WRONLY.bits());
    let follower = ioctl_tiocgptpeer(&leader, write | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    Ok((leader, follower))
}

/// The outcome of a transaction.
enum Outcome {
    /// The sentinel was printed; this is standard error.
    Done(String),
    /// The process has closed its output.
    Ended,
    /// The deadline has passed.
    TimedOut,
}

struct Process {
    child: KillOnDrop,
    stdin: ChildStdin,
    leader: OwnedFd,
    stderr: StandardError,
}

impl Process {
    /// Whether it is running and has printed nothing since the last transaction.
    fn is_usable(&self) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut fds = vec![PollFd::new(&self.leader, PollFlags::empty())];
        fds.extend(self.stderr.poll_fd());
        matches!(poll(&mut fds, Some(&now)), Ok(0))
    }

    /// Writes the transaction and reads the output until the sentinel, at most until
    /// `deadline`. Both are interleaved, so that neither side blocks on a full buffer.
    fn exchange(
        &mut self,
        mut text: &[u8],
        answer: &str,
        stop: &StopSignal,
        deadline: Instant,
    ) -> io::Result<Outcome> {
        let mut received = String::new();
        while self.wait(!text.is_empty(), stop, deadline)? {
            if !text.is_empty() {
                text = write_part(&mut self.stdin, text)?;
            }
            let leader = read_part(|bytes| Ok(rustix::io::read(&self.leader, bytes)?))?;
            self.stderr.read()?;
            match leader {
                Part::End => return Ok(Outcome::Ended),
                Part::Nothing => {}
                Part::Text(part) => {
                    received.push_str(&part);
                    if received.contains(answer) {
                        return Ok(Outcome::Done(self.stderr.take()));
                    }
                    keep_last(&mut received, answer.len());
                }
            }
        }
        Ok(Outcome::TimedOut)
    }

    /// Waits until output is available or, with `writes`, input is accepted; `false` at the
    /// deadline.
    fn wait(&self, writes: bool, stop: &StopSignal, deadline: Instant) -> io::Result<bool> {
        let mut fds = vec![PollFd::new(&self.leader, PollFlags::IN)];
        fds.extend(self.stderr.poll_fd());
        fds.extend(writes.then(|| PollFd::new(&self.stdin, PollFlags::OUT)));
        stop.wait(&fds, deadline)
    }

    /// Waits for the exit status, which is `None` if the process does not exit in time, and gives
    /// standard error, too.
    fn wait_exit(mut self) -> io::Result<(Option<ExitStatus>, String)> {
        let status = self.child.exit_by(Instant::now() + EXIT_TIME, &mut self.stderr)?;
        Ok((status, self.stderr.take()))
    }
}

/// Writes as much as the pipe accepts and returns the rest; none is left if the process
/// has closed its input, as the rest can't be written.
fn write_part<'a>(stdin: &mut ChildStdin, text: &'a [u8]) -> io::Result<&'a [u8]> {
    match stdin.write(text) {
        Ok(length) => Ok(text.get(length..).unwrap_or_default()),
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(text),
            io::ErrorKind::BrokenPipe => Ok(&[]),
            _ => Err(error),
        },
    }
}

/// The result of a non-blocking read.
enum Part {
    Text(String),
    Nothing,
    End,
}

fn read_part(read: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<Part> {
    let mut bytes = [0; 4096];
    match read(&mut bytes) {
        Ok(0) => Ok(Part::End),
        Ok(length) => {
            Ok(Part::Text(String::from_utf8_lossy(bytes.get(..length).unwrap_or_default()).into_owned()))
        }
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::AGAIN | Errno::INTR) => Ok(Part::Nothing),
            // Linux reports EIO for a leader when all followers are closed.
            Some(Errno::IO) => Ok(Part::End),
            _ => Err(error),
        },
    }
}

/// Removes all but the last `length` bytes, rounded up to a character.
fn keep_last(text: &mut String, length: usize) {
    let mut start = text.len().saturating_sub(length);
    while !text.is_char_boundary(start) {
        start = start.saturating_sub(1);
    }
    text.drain(..start);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// A shell, which executes each line and prints the sentinel.
    fn shell(goes_on: bool) -> Coprocess {
        let sentinel = Sentinel { ask: "echo the sentinel", answer: "the sentinel", goes_on };
        Coprocess::new(Program::find(Path::new("/bin/sh"), &StopSignal::default()).unwrap(), &[], sentinel)
    }

    fn pid(resident: &Coprocess) -> Option<u32> {
        resident.process.as_ref().map(|process| process.child.child.id())
    }

    #[test]
    fn a_coprocess_is_kept_from_one_transaction_to_the_next() {
        let mut shell = shell(true);
        shell.transact("x=1\n").unwrap();
        let first = pid(&shell);
        shell.transact("test $x = 1 || echo forgotten >&2\n").unwrap();
        assert!(first.is_some() && first == pid(&shell));
    }

    #[test]
    fn standard_error_of_a_program_that_continues_is_an_error() {
        let mut shell = shell(true);
        let error = shell.transact("echo no such set >&2\n").unwrap_err();
        assert_eq!(error.to_string(), "/bin/sh : no such set");
        assert!(pid(&shell).is_some());
        assert!(self::shell(false).transact("echo a warning >&2\n").is_ok());
    }

    #[test]
    fn a_program_that_exits_is_started_again() {
        let mut shell = shell(false);
        let error = shell.transact("echo line 2 failed >&2; exit 1\n").unwrap_err();
        assert_eq!(error.to_string(), "/bin/sh : exit status: 1: line 2 failed");
        shell.transact("true\n").unwrap();
        shell.transact("exec >&- 2>&1; sleep 0; exit\n").unwrap_err();
        shell.transact("true\n").unwrap();
    }

    #[test]
    fn a_program_that_was_killed_meanwhile_is_started_again() {
        let mut shell = shell(false);
        shell.transact("true\n").unwrap();
        let first = pid(&shell).unwrap();
        Program::find(Path::new("kill"), &StopSignal::default())
            .unwrap()
            .run(&["-9", &first.to_string()])
            .unwrap();
        let start = Instant::now();
        while shell.process.as_ref().is_some_and(Process::is_usable) {
            assert!(start.elapsed() < Duration::from_secs(5));
        }
        shell.transact("true\n").unwrap();
        assert_ne!(pid(&shell), Some(first));
    }

    #[test]
    fn much_on_standard_error_does_not_deadlock() {
        let mut shell = shell(false);
        shell.transact(&"echo 0123456789012345678901234567890123456789 >&2\n".repeat(5_000)).unwrap();
    }

    #[test]
    fn much_on_standard_error_at_the_end_does_not_deadlock() {
        let mut shell = shell(false);
        let line = "exec >&-; yes what went wrong | head -c 300000 >&2; exit 3\n";
        let error = shell.transact(line).unwrap_err();
        assert!(error.says("what went wrong"), "{error}");
        shell.transact(&"true\n".repeat(20_000)).unwrap();
    }

    #[test]
    fn much_text_both_ways_does_not_deadlock() {
        let mut shell = shell(true);
        let lines = "echo 0123456789012345678901234567890123456789\n".repeat(5_000);
        shell.transact(&lines).unwrap();
    }
}
