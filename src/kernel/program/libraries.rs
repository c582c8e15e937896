//! The libraries of a program that is none of the system's, such as one in `/usr/local/sbin`. The loader knows
//! their folder from `/etc/ld.so.cache` (ld.so(8)), which ldconfig(8) replaces; and the new one is out of reach of
//! rfw and its programs, as whatever takes the place of a file in `/etc`.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

/// Where libraries are, beside the folder of the program.
const NAMES: [&str; 2] = ["lib", "lib64"];

/// Folders above those of programs whose libraries the loader looks for by itself.
const SYSTEM: [&str; 2] = ["/", "/usr"];

/// The value of `LD_LIBRARY_PATH` for a program: the folders of libraries beside it, where links to it lead. `None`
/// for those of the system.
pub(super) fn search_path(program: &Path) -> Option<OsString> {
    let home = home(&fs::canonicalize(program).ok()?)?;
    let folders = NAMES.map(|name| home.join(name)).into_iter().filter(|folder| folder.is_dir());
    // One whose name has a colon can't be given.
    env::join_paths(folders).ok().filter(|paths| !paths.is_empty())
}

/// The folder above that of a program.
fn home(program: &Path) -> Option<PathBuf> {
    let folder = program.parent().filter(|folder| folder.ends_with("bin") || folder.ends_with("sbin"))?;
    folder.parent().filter(|home| SYSTEM.iter().all(|system| *home != Path::new(system))).map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_of_the_system_have_their_libraries_where_the_loader_looks() {
        let golden = [
            ("/usr/sbin/iptables", None),
            ("/sbin/iptables", None),
            ("/usr/local/sbin/iptables", Some("/usr/local")),
            ("/opt/iptables/bin/iptables", Some("/opt/iptables")),
            ("/etc/rfw/iptables", None),
        ];
        for (program, expected) in golden {
            assert_eq!(home(Path::new(program)), expected.map(PathBuf::from), "{program}");
        }
    }
}
