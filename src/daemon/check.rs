//! `rfw --check`: everything that a start depends on, without a change to the kernel or to a file, and a
//! report of it. What is wrong ends it with an error; what is odd is a warning on standard error.

use crate::config::cli::Arguments;
use crate::config::file::{Config, Outward, effective};
use crate::daemon;
use crate::daemon::bridged;
use crate::daemon::certificate::Expiry;
use crate::daemon::confinement;
use crate::daemon::failure::Failure;
use crate::daemon::logging;
use crate::daemon::startup::{self, Checked};
use crate::daemon::uncovered::Uncovered;
use crate::daemon::warning_count::WarningCount;
use crate::firewall::counted;
use crate::http::tls::Identity;
use crate::rule::lease::Moment;
use crate::rule::whitelist::WhiteList;
use crate::stop_signal::StopSignal;
use report::Report;
use std::path::Path;
use std::time::SystemTime;

mod clients;
mod report;

/// Seconds of a day.
const DAY: u64 = 86_400;

/// Checks everything that a start depends on, without a change to the kernel (`--check`). Prints a line for
/// machines, then the report, and with `-v` the options in force as a file `rfw.conf`.
///
/// # Errors
/// The first that would fail the start.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let warnings = WarningCount::default();
    logging::start_of_check(arguments, &warnings);
    let now = SystemTime::now();
    let mut checked = Checked::load(&arguments.config, &StopSignal::default())?;
    checked.firewall.open_state(now);
    // What is looked at for the report may be warned of.
    let report = report(&checked, now)?;
    let first = first_line(&arguments.config, &checked, warnings.get());
    let options = match arguments.verbose {
        true => format!("\n{}", effective::text(&checked.config)),
        false => String::new(),
    };
    startup::print(&format!("{first}\n{report}{options}"))
}

/// The line for machines: `FILE: ok, 3 networks in the white list, 2 clients, 0 warnings`.
fn first_line(file: &Path, checked: &Checked, warnings: usize) -> String {
    let clients = counted(daemon::clients::all(&checked.config).len(), "client", "clients");
    let warnings = counted(warnings, "warning", "warnings");
    let whitelist = &checked.whitelist;
    format!("{}: ok, {whitelist} in the white list, {clients}, {warnings}", file.display())
}

/// All parts of the report, in their order.
fn report(checked: &Checked, now: SystemTime) -> Result<Report, Failure> {
    let Checked { config, whitelist, identity, firewall } = checked;
    checked.warn_of_clients();
    Uncovered::default().tell(whitelist);
    let mut report = Report::default();
    report.add("listen", listeners(config));
    report.add("whitelist", vec![white_list(config, whitelist)]);
    report.add("certificate", certificate_of(config.outward.as_ref(), identity.as_ref(), now));
    report.add("clients", clients::lines(config));
    report.add("iptables", firewall.programs());
    report.add("chains", firewall.chains());
    report.add("sets", vec![firewall.set_use().to_owned()]);
    report.add("state", vec![firewall.check_state()]);
    report.add("neighbours", vec![neighbours(checked)]);
    report.add("confinement", vec![confinement(config)?]);
    Ok(report)
}

/// The servers.
fn listeners(config: &Config) -> Vec<String> {
    let outward = config.outward.as_ref().map(|outward| format!("https {}", outward.address));
    let local = config.local.as_ref().map(|local| {
        let login = if local.authentication { "" } else { ", without login" };
        format!("http {}{login}", local.address)
    });
    outward.into_iter().chain(local).collect()
}

fn white_list(config: &Config, whitelist: &WhiteList) -> String {
    format!("{}: {whitelist}", config.whitelist_file.value.display())
}

/// Certificate and key of the HTTPS server; warns of an end that is near.
fn certificate_of(outward: Option<&Outward>, identity: Option<&Identity>, now: SystemTime) -> Vec<String> {
    let (Some(outward), Some(identity)) = (outward, identity) else { return Vec::new() };
    let warnings = Expiry::of(identity).into_iter().filter_map(|expiry| expiry.warning(now));
    warnings.for_each(|warning| log::warn!("{warning}"));
    let names = match identity.names.is_empty() {
        true => "without a name in subjectAltName".to_owned(),
        false => identity.names.join(" "),
    };
    vec![
        format!("{}: {names}", outward.certfile.value.display()),
        end(identity.ends, now),
        format!("{}: the key fits", outward.keyfile.value.display()),
    ]
}

fn end(ends: SystemTime, now: SystemTime) -> String {
    let left = match ends.duration_since(now) {
        Ok(left) => format!("in {}", counted_days(left.as_secs() / DAY)),
        Err(_) => "which is over".to_owned(),
    };
    format!("ends {}, {left}", Moment::at_or_after(ends))
}

fn counted_days(days: u64) -> String {
    counted(usize::try_from(days).unwrap_or(usize::MAX), "day", "days")
}

/// Which other programs on this host leave something uncovered; the warnings tell what.
fn neighbours(checked: &Checked) -> String {
    let bridge = bridged::warning(&checked.config.layout);
    bridge.iter().for_each(|warning| log::warn!("{warning}"));
    let mut found = checked.warn_of_neighbours();
    found.extend(bridge.map(|_| "bridged packets"));
    match found.is_empty() {
        true => "nothing is left uncovered".to_owned(),
        false => format!("{}: see the warnings", found.join(", ")),
    }
}

/// What this kernel grants of the rights that a server gives up.
fn confinement(config: &Config) -> Result<String, Failure> {
    confinement::needed::warn_of_wide_folders(config);
    let grant = confinement::available()?;
    grant.warn();
    Ok(grant.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn the_end_of_a_certificate_is_told_in_days() {
        let ends = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let golden = [
            (364 * DAY + 1, "ends 2027-01-15T08:00:00Z, in 364 days"),
            (2 * DAY - 1, "ends 2027-01-15T08:00:00Z, in 1 day"),
            (1, "ends 2027-01-15T08:00:00Z, in 0 days"),
        ];
        for (left, expected) in golden {
            assert_eq!(end(ends, ends - Duration::from_secs(left)), expected);
        }
        let after = ends + Duration::from_secs(1);
        assert_eq!(end(ends, after), "ends 2027-01-15T08:00:00Z, which is over");
    }
}
