//! What `--check` tells of the firewall, as it was read: programs, chains and sets.

use super::Firewall;
use crate::kernel::program::Program;
use crate::rule::SetUse;
use crate::rule::layout::InputTable;
use crate::rule::network::Family;

impl Firewall {
    /// The iptables command of each family with its version and variant, or that there is none.
    pub(crate) fn programs(&self) -> Vec<String> {
        let told = |family: Family| match self.tables.iter().find(|table| table.family() == family) {
            Some(table) => table.program().to_owned(),
            None => format!("none: {family} is not available"),
        };
        vec![told(Family::V4), told(Family::V6)]
    }

    /// The variant of iptables, as the names of its programs have it: `nft` or `legacy`.
    pub(crate) fn variant(&self) -> &'static str {
        if self.uses_nft() { "nft" } else { "legacy" }
    }

    /// Where rules stand, as last read.
    pub(crate) fn chains(&self) -> Vec<String> {
        let layout = &self.settings.layout;
        let input = match layout.input {
            InputTable::Filter => "input in INPUT of the table filter",
            InputTable::Raw => "input in the table raw, before connection tracking",
        };
        let notes: Vec<String> =
            self.tables.iter().filter_map(|table| self.forward_note(table.family())).collect();
        let forward = match notes.is_empty() {
            true => vec![format!("forward in {} of the table filter", layout.forward)],
            false => notes.iter().map(|note| format!("forward: {note}")).collect(),
        };
        [vec![input.to_owned()], forward].concat()
    }

    /// Whether addresses are kept in sets, and whether the kernel has any.
    pub(crate) fn set_use(&self) -> &'static str {
        match (self.settings.set_use, &self.sets) {
            (SetUse::Off, _) => "off: each address is a rule",
            (SetUse::On, _) => "on: the kernel has them",
            (SetUse::Auto, Some(_)) => "auto: the kernel has them",
            (SetUse::Auto, None) => "auto: the kernel has none, so that each address is a rule",
        }
    }
}

/// A program with its version, as in `/usr/sbin/iptables v1.8.9 (nf_tables)`; `output` is what it says of
/// its version.
pub(super) fn program(program: &Program, output: &[String], nft: bool) -> String {
    let is_version = |word: &&str| {
        let digits = word.strip_prefix('v').unwrap_or_default();
        digits.starts_with(|c: char| c.is_ascii_digit())
            && digits.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_+".contains(&byte))
    };
    let version = output.iter().flat_map(|line| line.split(' ')).find(is_version);
    let version = version.map(|version| format!("{version} ")).unwrap_or_default();
    format!("{program} {version}({})", if nft { "nf_tables" } else { "legacy" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stop_signal::StopSignal;
    use std::path::Path;

    #[test]
    fn a_program_is_told_with_its_version() {
        let golden = [
            ("iptables-restore v1.8.9 (nf_tables)", true, "/bin/sh v1.8.9 (nf_tables)"),
            ("iptables-restore v1.8.9 (legacy)", false, "/bin/sh v1.8.9 (legacy)"),
            ("iptables v1.6.0", false, "/bin/sh v1.6.0 (legacy)"),
            ("garbage v\u{1b}[31m v1\u{1b} version", false, "/bin/sh (legacy)"),
            ("", true, "/bin/sh (nf_tables)"),
        ];
        let sh = Program::find(Path::new("/bin/sh"), &StopSignal::default()).unwrap();
        for (output, nft, expected) in golden {
            assert_eq!(program(&sh, &[output.to_owned()], nft), expected, "{output:?}");
        }
    }
}
