//! What of the state file the kernel has lost, by its first line and what the kernel holds.

use super::entries::Entries;
use super::format::{Header, Nonce};
use super::{State, file};
use crate::firewall::sets::Sets;
use crate::firewall::{Firewall, FirewallError};
use crate::kernel::set_key::SetKey;
use crate::rule::Rule;
use crate::rule::lease::Moment;
use std::collections::BTreeSet;

/// What the kernel has lost of what the state file holds.
pub(super) enum Lost {
    /// All: another boot or network namespace. What there is instead goes.
    All,
    /// What was in these sets, which others have emptied.
    Sets(BTreeSet<SetKey>),
}

impl Lost {
    /// Whether that of a rule is lost.
    pub(super) fn has(&self, rule: &Rule) -> bool {
        match self {
            Lost::All => true,
            Lost::Sets(unions) => unions.contains(&SetKey::of(rule)),
        }
    }
}

impl Firewall {
    /// What the kernel has lost since the state file was written, and when that was; nothing if it was
    /// written in this boot and network namespace, or can't be used.
    pub(super) fn find_lost(&mut self) -> Result<Option<(Lost, Moment)>, FirewallError> {
        let nonce = self.sets.as_mut().map_or(Ok(None), Sets::nonce)?.as_deref().and_then(Nonce::parse);
        let Some(header) = self.read_first_line() else { return Ok(None) };
        let is_of_boot = self.state.as_ref().is_some_and(|state| header.boot == state.boot);
        let is_of_namespace = header.nonce.as_ref().is_none_or(|name| nonce.as_ref() == Some(name));
        let written = header.written;
        let lost = match (is_of_boot, is_of_namespace, nonce) {
            (true, true, _) => None,
            // Others may have taken the nonce away.
            (true, false, None) if self.holds_any()? => Some(Lost::Sets(self.emptied_unions()?)),
            _ => return Ok(Some((Lost::All, written))),
        };
        if let Some(state) = &mut self.state {
            // The kernel has it all, and may have more than a file that was not written to its end.
            state.adopted = Some(header);
            state.journal.doubt();
        }
        let lost = lost.filter(|lost| matches!(lost, Lost::Sets(unions) if !unions.is_empty()));
        Ok(lost.map(|lost| (lost, written)))
    }

    /// Whether the kernel holds a rule or a set of rfw. The guard does not count: others may have left that of
    /// one family.
    fn holds_any(&mut self) -> Result<bool, FirewallError> {
        for family in self.families() {
            self.table(family)?.refresh()?;
        }
        let has_rules = self.tables.iter().any(|table| table.cache().len() > 0);
        if has_rules || !self.linked_sets().is_empty() {
            return Ok(true);
        }
        self.sets.as_mut().map_or(Ok(false), Sets::has_members)
    }

    /// The sets that are empty and have their rules.
    fn emptied_unions(&mut self) -> Result<BTreeSet<SetKey>, FirewallError> {
        let infos = self.sets.as_mut().map_or_else(|| Ok(Vec::new()), Sets::infos)?;
        let is_empty =
            |set: &SetKey| infos.iter().any(|info| info.header.name == set.name() && info.elements == 0);
        Ok(self.linked_sets().into_iter().filter(is_empty).collect())
    }

    /// Reads the first line of the state file. What is wrong with it is logged, and the file set aside.
    fn read_first_line(&mut self) -> Option<Header> {
        let state = self.state.as_mut()?;
        let error = match state.read_header() {
            Ok(Some(header)) => return Some(header),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        state.journal.doubt();
        if let Some(error) = error {
            log::warn!(
                "the state file {} is not used: {error}; it is set aside as {}",
                state.path.display(),
                file::aside(&state.path).display()
            );
            state.set_aside = true;
        }
        None
    }

    /// Reads the state file. What is wrong with it is logged, and the file set aside.
    pub(super) fn read_state(&mut self) -> Option<Entries> {
        let state = self.state.as_mut()?;
        let path = state.path.display();
        let read = match State::read(&state.path) {
            Ok(read) => read,
            Err(error) => {
                log::warn!("the state file {path} can't be read: {error}");
                state.journal.doubt();
                return None;
            }
        };
        if read.damage.is_some() {
            log::warn!(
                "the state file {path} is damaged, and what is whole is used: {}; it is set aside as {}",
                read.damage,
                file::aside(&state.path).display()
            );
            state.set_aside = true;
            state.journal.doubt();
        }
        Some(read.entries)
    }
}
