//! The one door to other programs.
//!
//! A tool is found once, when rfw starts, and from then on known by its absolute
//! path; it runs with an empty environment but for the locale, so that its words
//! are those that rfw knows. What it says when it fails goes into the error.

use std::env;
use std::fmt;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

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
        let mut child = self.start(arguments).map_err(spawn_error)?;
        // A tool that ends before it has read everything says why on stderr.
        if let Some(mut stdin) = child.stdin.take() {
            let _ = stdin.write_all(input.as_bytes());
        }
        let output = child.wait_with_output().map_err(spawn_error)?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(self.failure(arguments, output.status, &stderr)),
        }
    }

    fn start(&self, arguments: &[&str]) -> io::Result<Child> {
        Command::new(&self.path)
            .args(arguments)
            .env_clear()
            .env("LC_ALL", "C")
            .env("PATH", SYSTEM_PATH)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
    }

    fn failure(&self, arguments: &[&str], status: ExitStatus, stderr: &str) -> ToolError {
        let words =
            stderr.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
        match status.code() {
            Some(RESOURCE_PROBLEM) if words.contains("xtables lock") => ToolError::Locked(words),
            _ => ToolError::Failed(self.line(arguments), status, words),
        }
    }

    fn line(&self, arguments: &[&str]) -> String {
        format!("{} {}", self.path.display(), arguments.join(" "))
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
    /// It failed: the command line, its status and what it said.
    Failed(String, ExitStatus, String),
    /// Another program held the lock of the tables for too long.
    Locked(String),
}

impl fmt::Display for ToolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ToolError::Missing(name) => write!(f, "no executable program \"{}\"", name.display()),
            ToolError::Spawn(line, error) => write!(f, "{line}: {error}"),
            ToolError::Failed(line, status, words) => write!(f, "{line}: {status}: {words}"),
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
