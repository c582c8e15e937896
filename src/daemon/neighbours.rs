//! Warns of what other programs on this host make of rfw: saved rules that the next boot can't load,
//! Docker, whose published ports walk around INPUT, and firewalld, which may keep clients away.
//!
//! The files are theirs: one that is not there, that others than root may write, or that can't be
//! read says nothing.

use crate::config::file::Config;
use crate::config::trusted_file;
use crate::kernel::generation::Ruleset;
use crate::rule::layout::InputTable;
use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

mod saved;
mod zones;

/// Where rules are loaded from at boot by iptables-restore(8): Debian (iptables-persistent), RPM
/// (iptables-services), Arch, Alpine.
const SAVED_RULES: [&str; 8] = [
    "/etc/iptables/rules.v4",
    "/etc/iptables/rules.v6",
    "/etc/sysconfig/iptables",
    "/etc/sysconfig/ip6tables",
    "/etc/iptables/iptables.rules",
    "/etc/iptables/ip6tables.rules",
    "/etc/iptables/rules-save",
    "/etc/iptables/rules6-save",
];

/// Where sets are loaded from before these: Debian (ipset-persistent), RPM (ipset-service), Arch.
const SAVED_SETS: [&str; 3] = ["/etc/iptables/ipsets", "/etc/sysconfig/ipset", "/etc/ipset.conf"];

/// Where nft(8) loads rules from at boot: Debian and Arch, RPM, Alpine.
const SAVED_FOR_NFT: [&str; 3] = ["/etc/nftables.conf", "/etc/sysconfig/nftables.conf", "/etc/nftables.nft"];

/// Takes out of a saved file what rfw has put into the tables: rules whose comment begins with `rfw` and a
/// blank, and the jump to its chain in the table `raw`. That chain stays, empty: others may have rules there.
const WITHOUT_RFW: &str = r#"sed -i -E '/--comment ("rfw |rfw -j RFW$)/d'"#;

/// The chain of Docker that has a rule for each published port, in the table `filter`.
const DOCKER_CHAIN: &str = "DOCKER";

/// The table of firewalld, of the family `NFPROTO_INET`.
const FIREWALLD_TABLE: &str = "firewalld";

/// Where firewalld reads files from: the first that has one counts.
const FIREWALLD: [&str; 2] = ["/etc/firewalld", "/usr/lib/firewalld"];

/// The files that warnings come from, with others that lie beside them.
pub(super) fn files() -> impl Iterator<Item = &'static str> {
    SAVED_RULES.into_iter().chain(SAVED_SETS).chain(SAVED_FOR_NFT).chain(["/etc/firewalld/firewalld.conf"])
}

/// What of the configuration the warnings depend on.
#[derive(Debug, Clone)]
pub(super) struct Neighbours {
    /// The port that remote clients need.
    port: Option<u16>,
    /// Whether rules reach what Docker publishes.
    reaches_docker: bool,
    /// Whether what is blocked comes back after a reboot.
    keeps_state: bool,
}

impl Neighbours {
    /// What a configuration says.
    pub(super) fn new(config: &Config) -> Neighbours {
        let layout = &config.layout;
        Neighbours {
            port: config.outward.as_ref().map(|outward| outward.address.port()),
            reaches_docker: layout.input == InputTable::Raw || !layout.forward.is_builtin(),
            keeps_state: config.state_file.value.is_some(),
        }
    }

    /// Logs what there is to warn of, and tells what that is about; `has_chain` tells of the chains of the
    /// table `filter`.
    pub(super) fn warn(&self, has_chain: impl Fn(&str) -> bool) -> Vec<&'static str> {
        let mut warnings = vec![
            ("saved rules", self.of_saved_rules()),
            ("Docker", self.of_docker(has_chain)),
            ("firewalld", self.of_firewalld()),
        ];
        warnings.retain(|(_, warnings)| !warnings.is_empty());
        warnings.iter().flat_map(|(_, warnings)| warnings).for_each(|warning| log::warn!("{warning}"));
        warnings.into_iter().map(|(about, _)| about).collect()
    }

    fn of_saved_rules(&self) -> Vec<String> {
        let loaded: Vec<String> = SAVED_SETS.iter().filter_map(|file| read(Path::new(file))).collect();
        let loaded: BTreeSet<String> =
            loaded.iter().flat_map(|text| saved::sets_made(text)).map(str::to_owned).collect();
        let back = if self.keeps_state { "; rfw puts its own back" } else { "" };
        let rules = SAVED_RULES.iter().filter_map(|file| {
            let text = read(Path::new(file))?;
            let saved::SetLines { first, set, count } = saved::set_lines(&text, &loaded)?;
            let set = set.escape_debug();
            let more =
                if count > 1 { format!(" (and {} more)", count.saturating_sub(1)) } else { String::new() };
            Some(format!(
                "{file}:{first}: names the set {set} of rfw{more}, which is not there yet when the next boot \
                 loads this file: nothing of it will be loaded, and the host be open: take the lines of rfw \
                 out after each save ({WITHOUT_RFW} {file}){back}"
            ))
        });
        let nft = SAVED_FOR_NFT.iter().filter_map(|file| {
            let line = saved::foreign_to_nft(&read(Path::new(file))?)?;
            Some(format!(
                "{file}:{line}: has a rule of iptables that nft prints and can't load: nothing of this file \
                 will be loaded at the next boot, and the host be open: leave the tables out that iptables \
                 manages{back}"
            ))
        });
        rules.chain(nft).collect()
    }

    fn of_docker(&self, has_chain: impl Fn(&str) -> bool) -> Vec<String> {
        if self.reaches_docker || !has_chain(DOCKER_CHAIN) {
            return Vec::new();
        }
        let warning = "Docker has its chains here: packets to published ports of containers never pass INPUT, so \
                       that what input blocks still gets to them: set input.table = raw, or set \
                       forward.chain = DOCKER-USER and block in forward as well";
        vec![warning.to_owned()]
    }

    fn of_firewalld(&self) -> Vec<String> {
        let Some(port) = self.port else { return Vec::new() };
        let runs = Ruleset::default().has_inet_table(FIREWALLD_TABLE) == Some(true);
        if !runs || is_out_of_reach() || is_opened(port) {
            return Vec::new();
        }
        vec![format!(
            "firewalld runs here, and no zone of it opens the port {port}, so that clients may not get to rfw: \
             firewall-cmd --permanent --add-port={port}/tcp, then firewall-cmd --reload"
        )]
    }
}

/// Whether firewalld came to this host after the start of rfw, which can't read its files then.
fn is_out_of_reach() -> bool {
    fs::read_dir(FIREWALLD[0]).is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
}

/// Whether the default zone of firewalld, or another that somebody has changed, opens a TCP port.
/// Which zone a client is in can't be told from here.
fn is_opened(port: u16) -> bool {
    let conf = of_firewalld("firewalld.conf").unwrap_or_default();
    let default = of_firewalld(&format!("zones/{}.xml", zones::default_zone(&conf)));
    let of_service = |name: &str| of_firewalld(&format!("services/{name}.xml"));
    let opens = |zone: &String| {
        zones::has_port(zone, port)
            || zones::accepts_all(zone)
            || zones::services(zone)
                .into_iter()
                .filter_map(of_service)
                .any(|service| zones::has_port(&service, port))
    };
    default.iter().chain(&changed_zones()).any(opens)
}

/// The zones that differ from what firewalld is shipped with.
fn changed_zones() -> Vec<String> {
    let folder = Path::new(FIREWALLD[0]).join("zones");
    let files = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> =
        files.filter(|file| file.extension().is_some_and(|end| end == "xml")).collect();
    files.sort_unstable();
    files.iter().filter_map(|file| read(file)).collect()
}

/// A file of firewalld: that of the host, or the one that it is shipped with.
fn of_firewalld(name: &str) -> Option<String> {
    FIREWALLD.iter().find_map(|folder| read(&Path::new(folder).join(name)))
}

fn read(file: &Path) -> Option<String> {
    trusted_file::read_trusted(file).ok()
}
