//! The files that a configuration has rfw and its programs use.

use super::folders::Folders;
use crate::config::file::Config;
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

/// Makes the folder of the state file if it is missing, since it can't be made later.
pub(crate) fn make_state_folder(config: &Config) {
    // Where that fails, whoever writes the file says so.
    config.state_file.value.iter().for_each(|file| drop(state::file::make_folder(file)));
}

/// What is read again on SIGHUP.
fn read_by(config: &Config) -> Vec<PathBuf> {
    let mut files = vec![config.file.as_path(), &config.whitelist_file.value];
    if let Some(outward) = &config.outward {
        files.extend([outward.certfile.value.as_path(), &outward.keyfile.value]);
        files.extend(outward.client_auth.files());
    }
    let of_system = [RESOLV_CONF].into_iter().chain(neighbours::files());
    files.into_iter().map(Path::to_owned).chain(of_system.map(PathBuf::from)).collect()
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
