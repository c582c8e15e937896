//! `rfw --check`: everything that a start depends on, without a change to the kernel or to a file.

use crate::config::cli::Arguments;
use crate::daemon::startup::{self, Checked, Failure};
use crate::daemon::{bridged, certificate};
use crate::firewall::counted;
use crate::stop_signal::StopSignal;
use std::time::SystemTime;

/// Checks everything that a start depends on, without a change to the kernel (`--check`).
///
/// # Errors
/// The first that would fail the start.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    startup::start_logging(arguments, None)?;
    let mut checked = Checked::load(&arguments.config, &StopSignal::default())?;
    checked.firewall.open_state(SystemTime::now());
    checked.firewall.check_state();
    let Checked { config, whitelist, identity, .. } = &checked;
    if let Some(warning) = bridged::warning(&config.layout) {
        log::warn!("{warning}");
    }
    let ends = identity.as_ref().map(|identity| identity.ends);
    if let Some(warning) = ends.and_then(|ends| certificate::warning(ends, SystemTime::now())) {
        log::warn!("{warning}");
    }
    checked.warn_of_neighbours();
    let networks = counted(whitelist.networks().count(), "network", "networks");
    startup::print(&format!("{}: ok, {networks} in the white list\n", arguments.config.display()))
}
