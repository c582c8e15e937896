//! The one door to other programs.
//!
//! A tool is found once, when rfw starts, and from then on known by its absolute
//! path; it runs with an empty environment but for the locale, so that its words
//! are those that rfw knows. What it says when it fails goes into the error.

use std::borrow::Cow;
use std::env;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

/// Where tools of the system are, whatever `PATH` says.
const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The exit status of iptables when it can't get what it needs from the system.
const RESOURCE_PROBLEM: i32 = 4;

/// A program that is there and may be executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tool {
    path: PathBuf,
}

impl Tool {
    /// Finds a program by its name in `PATH` or the system's folders, or by a path.
    ///
    /// # Errors
    /// No executable file of that name.
    pub fn find(name: &Path) -> Result<Tool, ToolError> {
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
        path.map(|path| Tool { path }).ok_or_else(|| ToolError::Missing(name.to_owned()))
    }

    /// Runs it to its end, fed with `input`, and gives what it printed.
    ///
    /// # Errors
    /// It can't be started, or ends with another status than 0.
    pub fn run(&self, arguments: &[&str], input: &str) -> Result<String, ToolError> {
        let spawn_error = |error| ToolError::Spawn(self.line(arguments), error);
        let mut child = self.start(arguments, Stdio::piped(), Stdio::piped())?;
        // A tool that ends before it has read everything says why on stderr.
        if let Some(mut stdin) = child.stdin.take() {
            let _ = stdin.write_all(input.as_bytes());
        }
        let output = child.wait_with_output().map_err(spawn_error)?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => {
                Err(self.failure(arguments, Some(output.status), &String::from_utf8_lossy(&output.stderr)))
            }
        }
    }

    /// Runs it and gives what it prints line by line, while it runs.
    ///
    /// # Errors
    /// It can't be started.
    pub fn lines(&self, arguments: &[&str]) -> Result<Lines, ToolError> {
        let mut child = self.start(arguments, Stdio::null(), Stdio::piped())?;
        let output = child.stdout.take().map(|output| BufReader::with_capacity(64 << 10, output));
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        Ok(Lines { tool: self.clone(), arguments, child: Owned(child), output, line: Vec::new() })
    }

    /// Runs it to its end on a file as standard input.
    ///
    /// # Errors
    /// It can't be started, or ends with another status than 0.
    pub fn run_on(&self, arguments: &[&str], input: File) -> Result<(), ToolError> {
        let mut child = Owned(self.start(arguments, Stdio::from(input), Stdio::null())?);
        match child.end()? {
            (status, _) if status.success() => Ok(()),
            (status, errors) => Err(self.failure(arguments, Some(status), &errors)),
        }
    }

    /// Starts it, with its standard error in a pipe.
    ///
    /// # Errors
    /// It can't be started.
    pub fn start(&self, arguments: &[&str], stdin: Stdio, stdout: Stdio) -> Result<Child, ToolError> {
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
        child.map_err(|error| ToolError::Spawn(self.line(arguments), error))
    }

    /// The error of a run that ended with that status, or goes on without one, and
    /// said that much.
    pub fn failure(&self, arguments: &[&str], status: Option<ExitStatus>, stderr: &str) -> ToolError {
        let words =
            stderr.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
        match status.and_then(|status| status.code()) {
            Some(RESOURCE_PROBLEM) if words.contains("xtables lock") => ToolError::Locked(words),
            _ => ToolError::Failed(self.line(arguments), status, words),
        }
    }

    /// The command line as a person would type it.
    pub fn line(&self, arguments: &[&str]) -> String {
        format!("{} {}", self.path.display(), arguments.join(" "))
    }
}

/// A child that goes when nobody holds it any more.
pub struct Owned(pub Child);

impl Owned {
    /// Hears it out and gives its status and what it had to complain of.
    fn end(&mut self) -> Result<(ExitStatus, String), ToolError> {
        let mut errors = Vec::new();
        if let Some(mut stderr) = self.0.stderr.take() {
            let _ = stderr.read_to_end(&mut errors);
        }
        let status = self.0.wait().map_err(|error| ToolError::Spawn("wait".to_owned(), error))?;
        Ok((status, String::from_utf8_lossy(&errors).into_owned()))
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        if !matches!(self.0.try_wait(), Ok(Some(_))) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

/// What a running tool prints, line by line.
pub struct Lines {
    tool: Tool,
    arguments: Vec<String>,
    child: Owned,
    output: Option<BufReader<ChildStdout>>,
    line: Vec<u8>,
}

impl Lines {
    /// The next line without its end; `None` after the last one, if the tool has
    /// ended well.
    ///
    /// # Errors
    /// The tool failed.
    pub fn next_line(&mut self) -> Result<Option<Cow<'_, str>>, ToolError> {
        let Some(output) = &mut self.output else { return Ok(None) };
        self.line.clear();
        let length = output.read_until(b'\n', &mut self.line);
        let length = length.map_err(|error| ToolError::Spawn(self.tool.to_string(), error))?;
        if length == 0 {
            self.output = None;
            let (status, errors) = self.child.end()?;
            let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
            return match status.success() {
                true => Ok(None),
                false => Err(self.tool.failure(&arguments, Some(status), &errors)),
            };
        }
        let line = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
        Ok(Some(String::from_utf8_lossy(line)))
    }

    /// Passes over what is left.
    ///
    /// # Errors
    /// The tool failed.
    pub fn finish(mut self) -> Result<(), ToolError> {
        while self.next_line()?.is_some() {}
        Ok(())
    }
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

/// Why a tool did not do what it was told.
#[derive(Debug)]
pub enum ToolError {
    /// No such program.
    Missing(PathBuf),
    /// It can't be started: the command line, and why.
    Spawn(String, io::Error),
    /// It failed: the command line, its status if it has ended, and what it said.
    Failed(String, Option<ExitStatus>, String),
    /// It gave no answer in time: the command line, and the time.
    TimedOut(String, Duration),
    /// Other programs changed the table again and again.
    Restless,
    /// Another program held the lock of the tables for too long.
    Locked(String),
}

impl ToolError {
    /// Whether the tool itself failed and said this.
    pub fn says(&self, words: &str) -> bool {
        matches!(self, ToolError::Failed(_, _, said) if said.contains(words))
    }
}

impl fmt::Display for ToolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ToolError::Missing(name) => write!(f, "no executable program \"{}\"", name.display()),
            ToolError::Spawn(line, error) => write!(f, "{line}: {error}"),
            ToolError::Failed(line, Some(status), words) => write!(f, "{line}: {status}: {words}"),
            ToolError::Failed(line, None, words) => write!(f, "{line}: {words}"),
            ToolError::Restless => f.write_str("other programs keep changing the table"),
            ToolError::TimedOut(line, time) => write!(f, "{line}: no answer in {time:?}"),
            ToolError::Locked(words) => write!(f, "another program holds the xtables lock: {words}"),
        }
    }
}

impl std::error::Error for ToolError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(name: &str) -> Tool {
        Tool::find(Path::new(name)).unwrap()
    }

    #[test]
    fn a_tool_is_found_by_name_or_path() {
        assert!(tool("sh").to_string().starts_with('/'));
        assert_eq!(tool("/bin/sh").to_string(), "/bin/sh");
        for missing in ["no-such-tool", "/bin/no-such-tool", "/etc/passwd", "/etc", ""] {
            let error = Tool::find(Path::new(missing)).unwrap_err().to_string();
            assert_eq!(error, format!("no executable program \"{missing}\""));
        }
    }

    #[test]
    fn a_failure_says_what_the_tool_said() {
        let error = tool("/bin/sh").run(&["-c", "cat >&2; exit 3"], "one\n\n two\n").unwrap_err();
        assert_eq!(error.to_string(), "/bin/sh -c cat >&2; exit 3: exit status: 3: one; two");
        let script = "echo 'Another app is currently holding the xtables lock.' >&2; exit 4";
        assert!(matches!(tool("/bin/sh").run(&["-c", script], ""), Err(ToolError::Locked(_))));
    }

    #[test]
    fn a_tool_runs_in_a_clean_environment() {
        let output = tool("env").run(&[], "").unwrap();
        let mut names: Vec<&str> = output.lines().filter_map(|line| line.split('=').next()).collect();
        names.sort_unstable();
        assert_eq!(names, ["LC_ALL", "PATH"]);
    }
}
