//! From the command line to a running server: everything is read and checked
//! before anything is touched, then the port is taken, then guarded, then opened.

use crate::api::Service;
use crate::config::cli::Arguments;
use crate::config::file::{Config, LocatedError, Outward, Setting};
use crate::config::trusted_file::{self, FileError};
use crate::daemon::instance::Instance;
use crate::daemon::server::{self, Bound, Server, ServerError};
use crate::daemon::signals::Signals;
use crate::firewall::expiry::SharedFirewall;
use crate::firewall::table::Commands;
use crate::firewall::{Firewall, FirewallError};
use crate::http::tls::{self, Identity, TlsError};
use crate::kernel::program::{Program, ProgramError};
use crate::kernel::sets::Sets;
use crate::rule::network::Family;
use crate::rule::whitelist::WhiteList;
use crate::stop_signal::StopSignal;
use simplelog::{CombinedLogger, LevelFilter, SharedLogger, SimpleLogger, WriteLogger};
use std::env;
use std::fmt;
use std::io::{self, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

/// Prints a text to standard output.
///
/// # Errors
/// Nobody reads it.
pub fn print(text: &str) -> Result<(), Failure> {
    io::stdout().write_all(text.as_bytes()).map_err(Failure::Io)
}

/// Checks everything that a start depends on, and touches nothing.
///
/// # Errors
/// What would end the start.
pub fn check(arguments: &Arguments) -> Result<(), Failure> {
    start_logging(arguments, None)?;
    let checked = Checked::load(&arguments.config, &StopSignal::default())?;
    let Checked { whitelist, identity, .. } = &checked;
    if let Some(identity) = identity {
        warn_if_ending(identity);
    }
    let count = whitelist.networks().count();
    let networks = if count == 1 { "network" } else { "networks" };
    print(&format!("{}: ok, {count} {networks} in the white list\n", arguments.config.display()))
}

/// Removes everything that rfw made in the kernel.
///
/// # Errors
/// The configuration names no working tools, or they fail.
pub fn flush(arguments: &Arguments) -> Result<(), Failure> {
    start_logging(arguments, None)?;
    let config = load_config(&arguments.config)?;
    let _instance = claim("stop it first (systemctl stop rfw), then call rfw --flush again")?;
    let count = open_firewall(&arguments.config, &config, &StopSignal::default())?.flush()?;
    print(&format!("{count} rules removed\n"))
}

/// Serves until it is told to end.
///
/// # Errors
/// What ends the start, or the server later.
pub fn serve(arguments: &Arguments) -> Result<(), Failure> {
    start_logging(arguments, Some(&arguments.log_file))?;
    let served = load_and_run(arguments);
    match &served {
        Ok(()) => log::info!("rfw ends, its rules stay"),
        Err(failure) => log::error!("rfw ends: {failure}"),
    }
    served
}

fn load_and_run(arguments: &Arguments) -> Result<(), Failure> {
    let signals = Signals::catch().map_err(Failure::Io)?;
    let Checked { config, whitelist, identity, firewall } =
        Checked::load(&arguments.config, signals.stop_signal())?;
    let _instance = claim("it has to end before another one starts")?;
    let outward = config.outward.as_ref().map(|outward| Bound::new(outward.address)).transpose()?;
    let local = config.local.as_ref().map(|local| Bound::new(local.address)).transpose()?;
    let local_authentication = config.local.as_ref().is_some_and(|local| local.authentication);
    let shared = SharedFirewall::new(firewall).map_err(Failure::Io)?;
    shared.with(|firewall| firewall.migrate(SystemTime::now()))?;
    let service = Service::new(config, shared.clone(), whitelist)?;
    shared.start_sweeper().map_err(Failure::Io)?;
    let mut server = Server::new(service, signals);
    if let (Some(bound), Some(identity)) = (outward, identity) {
        warn_if_ending(&identity);
        server.open_outward(bound, identity.tls)?;
    }
    if let Some(bound) = local {
        server.open_local(bound, local_authentication)?;
    }
    log::info!("rfw {} is ready", env!("CARGO_PKG_VERSION"));
    tell_systemd();
    let served = server.run();
    // Programs that are at work end before rfw does.
    let _closed = shared.close();
    Ok(served?)
}

/// Sees that no other rfw works on the same tables; `advice` is what to do about it.
fn claim(advice: &'static str) -> Result<Instance, Failure> {
    Instance::claim().map_err(Failure::Io)?.ok_or(Failure::Running(advice))
}

/// Tells the service manager, if there is one, that rfw is ready (sd_notify(3)).
fn tell_systemd() {
    let Some(path) = env::var_os("NOTIFY_SOCKET") else { return };
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&path),
    };
    let told = address.and_then(|address| UnixDatagram::unbound()?.send_to_addr(b"READY=1", &address));
    if let Err(error) = told {
        log::warn!("the service manager can't be told that rfw is ready: {error}");
    }
}

/// All that a start depends on, read and found right.
struct Checked {
    config: Config,
    whitelist: WhiteList,
    identity: Option<Identity>,
    firewall: Firewall,
}

impl Checked {
    fn load(file: &Path, stop: &StopSignal) -> Result<Checked, Failure> {
        let config = load_config(file)?;
        let whitelist = server::load_whitelist(&config)?;
        let identity = config.outward.as_ref().map(|outward| load_identity(file, outward)).transpose()?;
        let firewall = open_firewall(file, &config, stop)?;
        Ok(Checked { config, whitelist, identity, firewall })
    }
}

fn load_config(file: &Path) -> Result<Config, LocatedError> {
    let text = trusted_file::read_secret(file).map_err(|error| LocatedError {
        file: file.to_owned(),
        line: None,
        why: error.to_string(),
    })?;
    Config::parse(file, &text)
}

/// Loads the certificate chain and the private key that the file `config` names.
fn load_identity(config: &Path, outward: &Outward) -> Result<Identity, LocatedError> {
    let Outward { certfile, keyfile, .. } = outward;
    let error = |setting: &Setting<PathBuf>, why: &dyn fmt::Display| {
        setting.error(config, format!("{}: {why}", setting.value.display()))
    };
    let certificates = trusted_file::read_trusted(&certfile.value).map_err(|why| error(certfile, &why))?;
    let key = trusted_file::read_secret(&keyfile.value).map_err(|why| error(keyfile, &why))?;
    Identity::parse(&certificates, &key).map_err(|why| match why {
        TlsError::Certificate(why) => error(certfile, &why),
        TlsError::Key(why) => error(keyfile, &why),
        TlsError::Mismatch => {
            error(keyfile, &format_args!("does not fit the certificate {}", certfile.value.display()))
        }
    })
}

/// Finds the tools and sees that they read the whole of the kernel's tables.
fn open_firewall(file: &Path, config: &Config, stop: &StopSignal) -> Result<Firewall, Failure> {
    let find = |command: &Setting<PathBuf>, family| Commands::find(&command.value, family, stop);
    let v4 =
        find(&config.iptables, Family::V4).map_err(|error| misconfigured(file, &config.iptables, error))?;
    let v6 = match find(&config.ip6tables, Family::V6) {
        Ok(commands) => Some(commands),
        Err(error) if config.ip6tables.line.is_some() || !is_want_of_ipv6(&error) => {
            return Err(misconfigured(file, &config.ip6tables, error));
        }
        Err(error) if config.outward.as_ref().is_some_and(|outward| outward.address.is_ipv6()) => {
            let why = format!("{error}: the server can't listen on IPv6 without a guard");
            return Err(config.ip6tables.error(file, why).into());
        }
        Err(error) => {
            log::warn!("IPv6 is not available: {error}");
            None
        }
    };
    let sets = open_sets(config, stop);
    let use_sets = config.use_sets.value;
    let rules_max = usize::try_from(config.rules_max).unwrap_or(usize::MAX);
    match sets {
        Err(error @ ProgramError::Missing(_)) if use_sets && config.ipset.line.is_none() => {
            Err(config.use_sets.error(file, format!("{error}: install the package ipset")).into())
        }
        Err(error) if use_sets || config.ipset.line.is_some() || !is_want_of(&error) => {
            Err(misconfigured(file, &config.ipset, error))
        }
        sets => Ok(Firewall::new(v4, v6, sets.ok(), use_sets, rules_max)),
    }
}

/// The sets of this host. They are needed without the option too, to take along
/// what was kept in them before.
fn open_sets(config: &Config, stop: &StopSignal) -> Result<Sets, ProgramError> {
    Sets::new(Program::find(&config.ipset.value, stop)?, config.maxelem)
}

/// Whether an error may mean that the host does not have what the tool is for. One
/// that hangs, or tells only half of what there is, is there.
fn is_want_of(error: &ProgramError) -> bool {
    matches!(error, ProgramError::Missing(_) | ProgramError::Spawn(..) | ProgramError::Failed(..))
}

/// Whether an error may mean that the host has no IPv6, or no filter for it. Where the
/// kernel has IPv6, a tool that fails for another reason is a reason not to start.
fn is_want_of_ipv6(error: &ProgramError) -> bool {
    let no_module = error.says("do you need to insmod") || error.says("Table does not exist");
    matches!(error, ProgramError::Missing(_))
        || is_want_of(error) && (no_module || !Path::new("/proc/net/if_inet6").exists())
}

/// An error of a tool that an option names. What another program has done to the table
/// is no mistake in the file, and may have gone at the next start.
fn misconfigured(file: &Path, command: &Setting<PathBuf>, error: ProgramError) -> Failure {
    match is_want_of(&error) {
        true => command.error(file, error).into(),
        false => FirewallError::from(error).into(),
    }
}

fn warn_if_ending(identity: &Identity) {
    let now = SystemTime::now();
    match identity.ends.duration_since(now) {
        Err(_) => log::warn!("the certificate has expired: clients will refuse it"),
        Ok(left) if left < tls::ENDS_SOON => {
            log::warn!("the certificate expires in {} days", left.as_secs() / 86_400);
        }
        Ok(_) => {}
    }
}

/// Logs to a file, and with `-v` to the terminal; warnings go there if there is no
/// file.
fn start_logging(arguments: &Arguments, file: Option<&Path>) -> Result<(), Failure> {
    let format = simplelog::ConfigBuilder::new()
        .set_time_format_rfc3339()
        .set_thread_level(LevelFilter::Off)
        .set_target_level(LevelFilter::Off)
        .set_location_level(LevelFilter::Off)
        .add_filter_allow_str("rfw")
        .build();
    let mut loggers: Vec<Box<dyn SharedLogger>> = Vec::new();
    if let Some(path) = file {
        let file = trusted_file::open_log(path).map_err(|error| Failure::Log(path.to_owned(), error))?;
        // One write a line, so that two never mix.
        loggers.push(WriteLogger::new(arguments.log_level, format.clone(), io::LineWriter::new(file)));
    }
    let level = match file {
        _ if arguments.verbose => LevelFilter::Debug,
        Some(_) => LevelFilter::Off,
        None => LevelFilter::Warn,
    };
    loggers.push(SimpleLogger::new(level, format));
    // A second logger would be a mistake in this file; it changes nothing.
    let _ = CombinedLogger::init(loggers);
    Ok(())
}

/// Why rfw ends otherwise than it was told to.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Called wrongly.
    #[error("{0}")]
    Usage(String),
    /// Configured wrongly.
    #[error(transparent)]
    Config(#[from] LocatedError),
    /// The log can't be opened.
    #[error("the log {path}: {1}", path = .0.display())]
    Log(PathBuf, FileError),
    /// Another rfw is at work; and what to do about it.
    #[error("another rfw is running: {0}")]
    Running(&'static str),
    /// The firewall can't be changed.
    #[error(transparent)]
    Firewall(#[from] FirewallError),
    /// The server can't serve.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The system's word.
    #[error(transparent)]
    Io(io::Error),
}

impl Failure {
    /// Tells a person, on one line, and gives the exit status (sysexits.h has 78).
    pub fn report(&self) -> ExitCode {
        // Without a terminal the log has it.
        let _ = writeln!(io::stderr(), "rfw: {self}");
        ExitCode::from(match self {
            Failure::Usage(_) => 2,
            Failure::Config(_) | Failure::Firewall(FirewallError::TooManyEntries(..)) => 78,
            Failure::Log(..)
            | Failure::Running(_)
            | Failure::Firewall(_)
            | Failure::Server(_)
            | Failure::Io(_) => 1,
        })
    }
}
