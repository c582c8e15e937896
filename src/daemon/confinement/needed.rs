//! The files that a configuration has rfw and its programs use.

use super::folders::Folders;
use crate::config::file::{Config, Outward};
use crate::daemon::neighbours;
use crate::firewall::state;
use crate::kernel::program::Program;
use crate::stop_signal::StopSignal;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The programs of a family, by what is behind the name of the first.
const PROGRAMS: [&str; 3] = ["", "-save", "-restore"];

/// Where the name servers of this host are named.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// All that rfw with that configuration needs until it ends. The lock of iptables-legacy is made if it is
/// missing, since that can't make it any more.
pub(crate) fn by(config: &Config) -> Folders {
    make_xtables_lock();
    let mut folders = Folders::of_system();
    read_by(config).iter().for_each(|file| folders.add_file(file));
    for command in [&config.iptables.value, &config.ip6tables.value] {
        PROGRAMS.iter().filter_map(|end| find(command, end)).for_each(|path| folders.add_program(&path));
    }
    if let Some(file) = &config.state_file.value {
        folders.add_written(file);
    }
    folders
}

/// Warns of files of a configuration that can't be read again once others have taken their place, as where an
/// editor writes them anew: a reload that needs one is refused.
pub(crate) fn warn_of_wide_folders(config: &Config) {
    for file in own_files(config).into_iter().filter(|file| super::folders::is_alone(file)) {
        log::warn!(
            "{}: written anew it can't be read by a reload, but by a restart: give it a folder of its own, such as \
             /etc/rfw",
            file.display()
        );
    }
}

/// Makes the folder of the state file if it is missing, since it can't be made later.
pub(crate) fn make_state_folder(config: &Config) {
    // Where that fails, whoever writes the file says so.
    config.state_file.value.iter().for_each(|file| drop(state::file::make_folder(file)));
}

/// What is read again on SIGHUP.
fn read_by(config: &Config) -> Vec<PathBuf> {
    let of_system = [RESOLV_CONF].into_iter().chain(neighbours::files());
    own_files(config).into_iter().map(Path::to_owned).chain(of_system.map(PathBuf::from)).collect()
}

/// The configuration and the files that it names.
fn own_files(config: &Config) -> Vec<&Path> {
    let mut files = vec![config.file.as_path(), &config.whitelist_file.value];
    files.extend(config.outward.iter().flat_map(Outward::files));
    files
}

fn find(command: &Path, end: &str) -> Option<PathBuf> {
    let mut name = OsString::from(command);
    name.push(end);
    Program::find(Path::new(&name), &StopSignal::default()).ok().map(|program| program.path().to_owned())
}

/// Makes the lock file of iptables-legacy as that does itself. Where it can't be made, iptables-legacy says so.
fn make_xtables_lock() {
    drop(OpenOptions::new().write(true).create_new(true).mode(0o600).open(super::folders::XTABLES_LOCK));
}
