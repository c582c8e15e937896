//! Why the process ends, and how it says so.

use crate::config::file::LocatedError;
use crate::config::trusted_file::FileError;
use crate::daemon::confinement::ConfinementError;
use crate::daemon::listener::ServerError;
use crate::daemon::{journal, terminal};
use crate::firewall::FirewallError;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

/// Error that ends the process with a non-zero exit status.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The command line is invalid.
    #[error("{0}")]
    Usage(String),
    /// The configuration, or a file that it names, is invalid.
    #[error(transparent)]
    Config(#[from] LocatedError),
    /// The log can't be opened.
    #[error("the log {path}: {1}", path = .0.display())]
    Log(PathBuf, FileError),
    /// Another rfw holds the single-instance lock; the text says what to do.
    #[error("another rfw is running: {0}")]
    Running(&'static str),
    /// The state file can't be taken away.
    #[error("the rules are removed, but the state file would bring them back at the next boot: {0}")]
    State(io::Error),
    /// The firewall can't be changed.
    #[error(transparent)]
    Firewall(#[from] FirewallError),
    /// The server can't listen or accept.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The process can't be confined.
    #[error("rfw does not run with rights that it can't give up: {0}")]
    Confinement(#[from] ConfinementError),
    /// A system call fails.
    #[error(transparent)]
    Io(io::Error),
}

impl Failure {
    /// Writes one line to standard error and returns the exit status: 2 for usage, 78
    /// (`EX_CONFIG`, sysexits.h) for configuration, else 1.
    pub(crate) fn report(&self) -> ExitCode {
        // If standard error is closed, the log has the message.
        let line = format!("rfw: {self}");
        terminal::complain(&match journal::is_standard_error() {
            true => journal::marked(log::Level::Error, &line),
            false => line,
        });
        ExitCode::from(match self {
            Failure::Usage(_) => 2,
            Failure::Config(_)
            | Failure::Firewall(FirewallError::TooManyEntries(..) | FirewallError::Full(_)) => 78,
            Failure::Log(..)
            | Failure::Running(_)
            | Failure::State(_)
            | Failure::Firewall(_)
            | Failure::Server(_)
            | Failure::Confinement(_)
            | Failure::Io(_) => 1,
        })
    }
}
