//! A tool that stays: a process of iptables-restore or ipset that is fed one
//! transaction after the other, which saves the fork and exec of each.
//!
//! Each transaction is followed by a line that makes the tool say a known word
//! once everything before it is done. Standard output is a pseudo-terminal,
//! since the tools hold their output back on a pipe. iptables-restore ends on the
//! first error, with nothing changed; ipset says what is wrong and goes on. A
//! process that died or hangs is replaced at the next transaction.

use crate::kernel::program::{Complaint, KillOnDrop, Program, ProgramError};
use crate::stop_signal::StopSignal;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::io::{Errno, ioctl_fionbio};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use std::io::{self, Write};
use std::process::{ChildStdin, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a tool may take for an answer: five seconds, and then it has waited
/// that long for the lock of the tables itself and ends.
const ANSWER_TIME: Duration = Duration::from_millis(5_500);

/// How much longer for each line that it is given.
const LINE_TIME: Duration = Duration::from_millis(1);

/// How long a tool that closed its output may take to end.
const END_TIME: Duration = Duration::from_secs(1);

/// How a tool is made to say that it has done everything so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sentinel {
    /// The line that asks for it.
    pub ask: &'static str,
    /// What its answer has and nothing else that it prints.
    pub answer: &'static str,
    /// Whether it goes on after an error, so that any complaint is one.
    pub goes_on: bool,
}

/// A tool that is started on first use and then kept.
pub struct Coprocess {
    program: Program,
    arguments: &'static [&'static str],
    sentinel: Sentinel,
    process: Option<Process>,
}

impl Coprocess {
    /// A tool that reads transactions from standard input when called so.
    pub fn new(program: Program, arguments: &'static [&'static str], sentinel: Sentinel) -> Coprocess {
        Coprocess { program, arguments, sentinel, process: None }
    }

    /// Has one transaction done, given as whole lines.
    ///
    /// # Errors
    /// The tool could not do it, and says why; or gives no answer.
    pub fn transact(&mut self, lines: &str) -> Result<(), ProgramError> {
        log::debug!("{}: {}", self.program, shown(lines));
        let mut process = match self.process.take().filter(Process::is_fit) {
            Some(process) => process,
            None => self.start()?,
        };
        let limit = ANSWER_TIME + LINE_TIME * u32::try_from(lines.lines().count()).unwrap_or(u32::MAX);
        let text = format!("{lines}{}\n", self.sentinel.ask);
        let deadline = Instant::now() + limit;
        let answer = self.sentinel.answer;
        let said = process.converse(text.as_bytes(), answer, self.program.stop(), deadline);
        let line = || self.program.line(self.arguments);
        match said {
            Ok(Said::Done(errors)) => {
                self.process = Some(process);
                match self.sentinel.goes_on && !errors.is_empty() {
                    true => Err(self.program.failure(self.arguments, None, &errors)),
                    false => Ok(()),
                }
            }
            Ok(Said::Ended(errors)) => Err(match process.end() {
                Some(status) => self.program.failure(self.arguments, Some(status), &errors),
                None => ProgramError::TimedOut(line(), END_TIME),
            }),
            Ok(Said::Nothing) => Err(ProgramError::TimedOut(line(), limit)),
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
        let complaint = Complaint::new(stderr).map_err(error)?;
        Ok(Process { child, stdin, leader, complaint })
    }
}

/// A transaction for the log: on one line, and not the whole of a long one.
fn shown(lines: &str) -> String {
    const MOST: usize = 1_024;
    let shown = lines.lines().take(MOST).collect::<Vec<_>>().join("; ");
    match lines.lines().count().saturating_sub(MOST) {
        0 => shown,
        more => format!("{shown}; and {more} more lines"),
    }
}

/// Both ends of a pseudo-terminal: what reads the output, and what it goes to.
fn pseudo_terminal() -> Result<(OwnedFd, OwnedFd), Errno> {
    let leader = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&leader)?;
    unlockpt(&leader)?;
    let follower =
        ioctl_tiocgptpeer(&leader, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    Ok((leader, follower))
}

/// What came of a transaction.
enum Said {
    /// It is done, with these complaints.
    Done(String),
    /// The process ended, with these last words.
    Ended(String),
    /// No answer in time.
    Nothing,
}

struct Process {
    child: KillOnDrop,
    stdin: ChildStdin,
    leader: OwnedFd,
    complaint: Complaint,
}

impl Process {
    /// Whether it is alive and has said nothing since the last transaction.
    fn is_fit(&self) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut fds = vec![PollFd::new(&self.leader, PollFlags::empty())];
        fds.extend(self.complaint.poll_fd());
        matches!(poll(&mut fds, Some(&now)), Ok(0))
    }

    /// Feeds it and listens until it has answered, at most until `deadline`.
    fn converse(
        &mut self,
        mut text: &[u8],
        answer: &str,
        stop: &StopSignal,
        deadline: Instant,
    ) -> io::Result<Said> {
        let mut heard = String::new();
        while self.wait(!text.is_empty(), stop, deadline)? {
            if !text.is_empty() {
                text = feed(&mut self.stdin, text)?;
            }
            let leader = read_part(|bytes| Ok(rustix::io::read(&self.leader, bytes)?))?;
            self.complaint.hear()?;
            match leader {
                Part::End => return Ok(Said::Ended(self.complaint.take())),
                Part::Nothing => {}
                Part::Text(part) => {
                    heard.push_str(&part);
                    if heard.contains(answer) {
                        return Ok(Said::Done(self.complaint.take()));
                    }
                    keep_end(&mut heard, answer.len());
                }
            }
        }
        Ok(Said::Nothing)
    }

    /// Sleeps until it has said something, or may be fed; `false` at the deadline.
    fn wait(&self, feed: bool, stop: &StopSignal, deadline: Instant) -> io::Result<bool> {
        let mut fds = vec![PollFd::new(&self.leader, PollFlags::IN)];
        fds.extend(self.complaint.poll_fd());
        fds.extend(feed.then(|| PollFd::new(&self.stdin, PollFlags::OUT)));
        stop.wait(&fds, deadline)
    }

    /// Its exit status; a process that has closed its output ends at once.
    fn end(mut self) -> Option<ExitStatus> {
        self.child.status_by(Instant::now() + END_TIME)
    }
}

/// Writes as much as is taken and gives the rest; a tool that has ended takes none.
fn feed<'a>(stdin: &mut ChildStdin, text: &'a [u8]) -> io::Result<&'a [u8]> {
    match stdin.write(text) {
        Ok(length) => Ok(text.get(length..).unwrap_or_default()),
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(text),
            io::ErrorKind::BrokenPipe => Ok(&[]),
            _ => Err(error),
        },
    }
}

/// What a read gave that does not wait.
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
            // What a pseudo-terminal says when its other end is closed.
            Some(Errno::IO) => Ok(Part::End),
            _ => Err(error),
        },
    }
}

/// Forgets what came before the last `length` bytes.
fn keep_end(text: &mut String, length: usize) {
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

    /// A shell that does each line and, asked for a sign, gives it.
    fn shell(goes_on: bool) -> Coprocess {
        let sentinel = Sentinel { ask: "echo the sign", answer: "the sign", goes_on };
        Coprocess::new(Program::find(Path::new("/bin/sh"), &StopSignal::default()).unwrap(), &[], sentinel)
    }

    fn pid(resident: &Coprocess) -> Option<u32> {
        resident.process.as_ref().map(|process| process.child.child.id())
    }

    #[test]
    fn a_tool_stays_from_one_transaction_to_the_next() {
        let mut shell = shell(true);
        shell.transact("x=1\n").unwrap();
        let first = pid(&shell);
        shell.transact("test $x = 1 || echo forgotten >&2\n").unwrap();
        assert!(first.is_some() && first == pid(&shell));
    }

    #[test]
    fn a_complaint_of_a_tool_that_goes_on_is_an_error() {
        let mut shell = shell(true);
        let error = shell.transact("echo no such set >&2\n").unwrap_err();
        assert_eq!(error.to_string(), "/bin/sh : no such set");
        assert!(pid(&shell).is_some());
        assert!(self::shell(false).transact("echo a warning >&2\n").is_ok());
    }

    #[test]
    fn a_tool_that_ends_is_started_again() {
        let mut shell = shell(false);
        let error = shell.transact("echo line 2 failed >&2; exit 1\n").unwrap_err();
        assert_eq!(error.to_string(), "/bin/sh : exit status: 1: line 2 failed");
        shell.transact("true\n").unwrap();
        shell.transact("exec >&- 2>&1; sleep 0; exit\n").unwrap_err();
        shell.transact("true\n").unwrap();
    }

    #[test]
    fn a_tool_that_was_killed_meanwhile_is_started_again() {
        let mut shell = shell(false);
        shell.transact("true\n").unwrap();
        let first = pid(&shell).unwrap();
        Program::find(Path::new("kill"), &StopSignal::default())
            .unwrap()
            .run(&["-9", &first.to_string()])
            .unwrap();
        let start = Instant::now();
        while shell.process.as_ref().is_some_and(Process::is_fit) {
            assert!(start.elapsed() < Duration::from_secs(5));
        }
        shell.transact("true\n").unwrap();
        assert_ne!(pid(&shell), Some(first));
    }

    #[test]
    fn much_complaint_does_not_jam() {
        let mut shell = shell(false);
        shell.transact(&"echo 0123456789012345678901234567890123456789 >&2\n".repeat(5_000)).unwrap();
    }

    #[test]
    fn much_text_both_ways_does_not_jam() {
        let mut shell = shell(true);
        let lines = "echo 0123456789012345678901234567890123456789\n".repeat(5_000);
        shell.transact(&lines).unwrap();
    }
}
