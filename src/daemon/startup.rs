//! From the command line to a running server. Everything is read and checked before
//! anything is changed; then the ports are bound, the guard rules are installed, and only
//! then do the sockets listen, so that no unlisted peer can connect in between.

use crate::api::{HostName, Service};
use crate::config::cli::{Arguments, LogTarget};
use crate::config::file::{Config, LocatedError, Setting};
use crate::daemon::clients;
use crate::daemon::confinement::{self, Confinement, ConfinementError};
use crate::daemon::ephemeral::warn_if_ephemeral;
use crate::daemon::failure::Failure;
use crate::daemon::instance::Instance;
use crate::daemon::listener::{Bound, Listener, ServerError};
use crate::daemon::load;
use crate::daemon::logging;
use crate::daemon::neighbours::Neighbours;
use crate::daemon::notify::{Manager, Notifier};
use crate::daemon::server::Server;
use crate::daemon::signals::Signals;
use crate::firewall::expiry::{Chore, SharedFirewall};
use crate::firewall::sets::Sets;
use crate::firewall::state::Restored;
use crate::firewall::state::writer::StateWriter;
use crate::firewall::table::Table;
use crate::firewall::tally::Tally;
use crate::firewall::{Firewall, FirewallError, counted};
use crate::http::tls::Identity;
use crate::kernel::program::ProgramError;
use crate::rule::SetUse;
use crate::rule::layout::InputTable;
use crate::rule::lease::Moment;
use crate::rule::network::Family;
use crate::rule::whitelist::WhiteList;
use crate::stop_signal::StopSignal;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// Time that a service manager is asked for before each step of the start that runs programs: to look at
/// the tables, to put back or to move what is there, to put the white list into force.
const STEP_TIME: Duration = Duration::from_secs(180);

/// Writes a text to standard output, behind what was logged there.
///
/// # Errors
/// The write fails.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    // The log has opened it anew, with a place of its own in a file. A pipe or terminal has none.
    let _ = rustix::fs::seek(io::stdout(), rustix::fs::SeekFrom::End(0));
    io::stdout().write_all(text.as_bytes()).map_err(Failure::Io)
}

/// Puts back what the state file holds, where a reboot has taken it from the kernel (`--restore`). No file
/// is written.
///
/// # Errors
/// The configuration is invalid, or a program that it names fails.
pub(crate) fn restore(arguments: &Arguments) -> Result<(), Failure> {
    logging::start_of_call(arguments);
    let config = load::config(&arguments.config)?;
    let Some(_instance) = Instance::claim().map_err(Failure::Io)? else {
        return print("nothing to restore: rfw is running\n");
    };
    let whitelist = load::white_list(&config);
    if let Err(error) = &whitelist {
        log::warn!("what comes back is not compared with the white list: {error}");
    }
    let mut firewall = open_firewall(&arguments.config, &config, &StopSignal::default())?;
    let now = SystemTime::now();
    confine(&config)?;
    firewall.open_state(now);
    // The file stays that of another boot: others may replace the tables until the server starts, which
    // puts all back once more.
    let restored = firewall.take_over(whitelist.as_ref().ok(), now)?;
    print(&match restored {
        Restored::Addresses(count) => format!("{} restored\n", counted(count, "address", "addresses")),
        Restored::Nothing => "nothing to restore\n".to_owned(),
    })
}

/// Removes every rule, chain and set of rfw from the kernel (`--flush`).
///
/// # Errors
/// The configuration is invalid, rfw is running, or a program that it names fails.
pub(crate) fn flush(arguments: &Arguments) -> Result<(), Failure> {
    logging::start_of_call(arguments);
    let mut config = load::config(&arguments.config)?;
    // What is in the table raw is brought to the filter table first: that needs no chain of rfw.
    config.layout.input = InputTable::Filter;
    let _instance = claim("stop it first (systemctl stop rfw), then call rfw --flush again")?;
    let mut firewall = open_firewall(&arguments.config, &config, &StopSignal::default())?;
    confine(&config)?;
    let (rules, addresses) = firewall.flush()?;
    firewall.remove_state().map_err(Failure::State)?;
    let rules = counted(rules, "rule", "rules");
    print(&match addresses {
        0 => format!("{rules} removed\n"),
        _ => format!("{rules} and {} of sets removed\n", counted(addresses, "address", "addresses")),
    })
}

/// Starts the server and runs it until SIGTERM or SIGINT.
///
/// # Errors
/// The start fails, or the server later.
pub(crate) fn serve(arguments: &Arguments) -> Result<(), Failure> {
    logging::start(arguments)?;
    let result = load_and_run(arguments);
    match &result {
        Ok(()) => log::info!("rfw ends, its rules stay"),
        // Standard error, where it is told anyway.
        Err(_) if arguments.log == LogTarget::StandardError => {}
        Err(failure) => log::error!("rfw ends: {failure}"),
    }
    result
}

fn load_and_run(arguments: &Arguments) -> Result<(), Failure> {
    let signals = Signals::catch().map_err(Failure::Io)?;
    let mut notifier = Notifier::open(&Manager::of_environment(), Instant::now());
    notifier.extend(STEP_TIME, Instant::now());
    let checked = Checked::load(&arguments.config, signals.stop_signal())?;
    let instance = claim("stop it first")?;
    checked.warn_of_clients();
    checked.warn_of_neighbours();
    let Checked { config, whitelist, identity, firewall } = checked;
    let outward = config.outward.as_ref().map(|outward| Bound::new(outward.address)).transpose()?;
    let local = config.local.as_ref().map(|local| Bound::new(local.address)).transpose()?;
    // No program that stays is running yet, and no other thread.
    confinement::needed::make_state_folder(&config);
    confinement::needed::warn_of_wide_folders(&config);
    let confinement = confine(&config)?;
    let local = local.zip(config.local.as_ref().map(|local| local.authentication));
    let shared = SharedFirewall::new(firewall).map_err(Failure::Io)?;
    notifier.extend(STEP_TIME, Instant::now());
    shared.with(|firewall| {
        let now = SystemTime::now();
        firewall.open_state(now);
        let restored = firewall.take_over(Some(&whitelist), now)?;
        firewall.adopt_state(restored, now);
        Ok::<(), FirewallError>(())
    })?;
    let found = shared.with(|firewall| firewall.found());
    notifier.extend(STEP_TIME, Instant::now());
    let ready = ready(&config, &shared, identity.as_ref(), found);
    let service = Service::new(HostName::of_kernel(), config, shared.clone(), whitelist)?;
    let state = StateWriter::new(&shared).map(Arc::new);
    shared.start_sweeper(state.clone().map(|state| state as Arc<dyn Chore>)).map_err(Failure::Io)?;
    let mut server = Server::new(service, signals, instance, notifier, confinement);
    server.warn_of_uncovered();
    listen(&mut server, outward.zip(identity), local)?;
    log::info!("rfw {} is ready: {ready}", env!("CARGO_PKG_VERSION"));
    let result = server.run();
    state.iter().for_each(|state| state.finish());
    // Held to the end: no transaction is under way, and none begins, when the process exits.
    let _closed = shared.close();
    Ok(result?)
}

/// What a start has come to, for the log: servers, variant of iptables, what was found, the certificate's end.
fn ready(
    config: &Config,
    shared: &SharedFirewall,
    identity: Option<&Identity>,
    found: Result<Tally, FirewallError>,
) -> String {
    let mut parts = Vec::new();
    parts.extend(config.outward.iter().map(|outward| format!("https on {}", outward.address)));
    parts.extend(config.local.iter().map(|local| format!("http on {}", local.address)));
    parts.push(format!("iptables-{}", shared.with(|firewall| firewall.variant())));
    parts.push(match found {
        Ok(Tally { lists, entries, .. }) => {
            let (lists, entries) = (counted(lists, "list", "lists"), counted(entries, "entry", "entries"));
            format!("{lists} with {entries} found")
        }
        Err(error) => format!("what is there can't be counted: {error}"),
    });
    parts
        .extend(identity.map(|identity| format!("certificate until {}", Moment::at_or_after(identity.ends))));
    parts.join(", ")
}

/// Has the server listen: the HTTPS server with its certificate, the local one with or without login.
fn listen(
    server: &mut Server,
    outward: Option<(Bound, Identity)>,
    local: Option<(Bound, bool)>,
) -> Result<(), ServerError> {
    if let Some((bound, identity)) = outward {
        let tls = Arc::clone(&identity.tls);
        server.identify(identity);
        server.open(Listener::open(bound, Some(tls), true)?);
    }
    if let Some((bound, authentication)) = local {
        server.open(Listener::open(bound, None, authentication)?);
    }
    Ok(())
}

/// Gives up every right that is not needed with that configuration; what is open stays open.
fn confine(config: &Config) -> Result<Confinement, ConfinementError> {
    let confinement = Confinement::enter(confinement::needed::by(config))?;
    confinement.grant().log();
    Ok(confinement)
}

/// Acquires the single-instance lock; `advice` completes the message if it is held.
fn claim(advice: &'static str) -> Result<Instance, Failure> {
    Instance::claim().map_err(Failure::Io)?.ok_or(Failure::Running(advice))
}

/// All that a start depends on, read and validated.
pub(super) struct Checked {
    /// `rfw.conf`.
    pub config: Config,
    /// The white list.
    pub whitelist: WhiteList,
    /// Certificate and key of the HTTPS server, if it is on.
    pub identity: Option<Identity>,
    /// The firewall, unchanged.
    pub firewall: Firewall,
}

impl Checked {
    /// Reads all that a configuration names.
    ///
    /// # Errors
    /// The first that would fail the start.
    pub(super) fn load(file: &Path, stop: &StopSignal) -> Result<Checked, Failure> {
        let config = load::config(file)?;
        let whitelist = load::white_list(&config)?;
        let identity = config.outward.as_ref().map(|outward| load::identity(file, outward)).transpose()?;
        let firewall = open_firewall(file, &config, stop)?;
        config.outward.iter().for_each(|outward| warn_if_ephemeral(outward.address.port()));
        Ok(Checked { config, whitelist, identity, firewall })
    }

    /// Warns of clients that are hardly as they are meant.
    pub(super) fn warn_of_clients(&self) {
        let warnings = clients::warnings(&self.config, &self.whitelist);
        warnings.iter().for_each(|warning| log::warn!("{warning}"));
    }

    /// Warns of what other programs on this host make of rfw; tells which these are.
    pub(super) fn warn_of_neighbours(&self) -> Vec<&'static str> {
        Neighbours::new(&self.config).warn(|chain| self.firewall.has_chain(chain))
    }
}

/// Resolves the programs and checks that they read the kernel's tables. IPv6 and sets are
/// optional unless the configuration asks for them.
fn open_firewall(file: &Path, config: &Config, stop: &StopSignal) -> Result<Firewall, Failure> {
    let by_precedence = config.use_sets.value != SetUse::Off;
    let find = |command: &Setting<PathBuf>, family| {
        Table::open(&command.value, family, &config.layout, by_precedence, stop)
    };
    let v4 =
        find(&config.iptables, Family::V4).map_err(|error| misconfigured(file, &config.iptables, error))?;
    let v6 = match find(&config.ip6tables, Family::V6) {
        Ok(table) => Some(table),
        // Not a host without IPv6: without the option its rules could be made.
        Err(error) if lacks_raw(&error) => return Err(misconfigured(file, &config.ip6tables, error)),
        Err(error) if config.ip6tables.line.is_some() || !may_lack_ipv6(&error) => {
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
    if let Some(line) = config.ipset.line {
        log::warn!(
            "{}:{line}: ipset.path is not used any more: rfw needs no program for sets",
            file.display()
        );
    }
    let sets_are_needed = config.use_sets.value == SetUse::On;
    let settings = load::settings(config);
    // Sets are needed without the option too, to take along what was kept in them before.
    match Sets::open(config.maxelem) {
        Err(error) if sets_are_needed => Err(config.use_sets.error(file, error).into()),
        Err(error) if settings.set_use == SetUse::Auto => {
            log::warn!("the kernel has no sets, so that each address is a rule, up to rules.max: {error}");
            Ok(Firewall::new(v4, v6, None, settings))
        }
        sets => Ok(Firewall::new(v4, v6, sets.ok(), settings)),
    }
}

/// Whether an error may mean that the host lacks the feature that a program controls. A
/// program that times out, dies, or prints an incomplete table shows that the feature exists.
fn may_lack_feature(error: &ProgramError) -> bool {
    match error {
        ProgramError::Missing(_) => true,
        ProgramError::Failed(..) => !error.is_cut_short(),
        _ => false,
    }
}

/// Whether an error may mean that the host has no IPv6 or no ip6tables filter table. Where
/// the kernel has both, a failure of ip6tables prevents the start: without rules for IPv6 the
/// host would be reachable over it.
fn may_lack_ipv6(error: &ProgramError) -> bool {
    let no_module = error.says("do you need to insmod") || error.says("Table does not exist");
    matches!(error, ProgramError::Missing(_))
        || may_lack_feature(error) && (no_module || !Path::new("/proc/net/if_inet6").exists())
}

/// Whether the error is that the kernel has no table `raw`, where the option `input.table` needs it.
fn lacks_raw(error: &ProgramError) -> bool {
    error.is_of("-t raw") && may_lack_feature(error)
}

/// An error of a program that an option names: a configuration error (exit status 78) only if
/// the program can't be used. What others did to a table is not, and may pass.
fn misconfigured(file: &Path, command: &Setting<PathBuf>, error: ProgramError) -> Failure {
    match may_lack_feature(&error) {
        true if lacks_raw(&error) => {
            let why = format!("input.table is raw, but the kernel has no such table: {error}");
            LocatedError { file: file.to_owned(), line: None, why }.into()
        }
        true => command.error(file, error).into(),
        false => FirewallError::from(error).into(),
    }
}
