//! What is told of the firewall, as it was read: programs, chains and sets, by `--check`, at the start and with
//! answers.

use super::Firewall;
use super::rule_cache::ForwardChain;
use crate::rule::layout::InputTable;
use crate::rule::network::{Family, Network};
use crate::rule::{Chain, Scope, SetUse};

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

    /// What a client is to know of the chain that what it has put into a scope stands in.
    pub(crate) fn note_of<'a>(
        &self,
        scope: &Scope,
        mut networks: impl Iterator<Item = &'a Network>,
    ) -> Option<String> {
        match scope.chain() {
            Chain::Forward => networks.find_map(|network| self.forward_note(network.family())),
            Chain::Input | Chain::Output => None,
        }
    }

    /// Where rules of `forward` stand, if not in the chain of `forward.chain`, or that packets do not get
    /// to it; as last read.
    pub(super) fn forward_note(&self, family: Family) -> Option<String> {
        let chain = &self.settings.layout.forward;
        let table = self.tables.iter().find(|table| table.family() == family)?;
        match table.cache().forward_chain() {
            ForwardChain::InUse => None,
            ForwardChain::Missing => {
                Some(format!("{family} has no chain {chain}: rules stand in FORWARD until it has"))
            }
            ForwardChain::Unreached => Some(format!(
                "rules of {family} stand in {chain}, but FORWARD does not lead there: they see no packet"
            )),
        }
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
